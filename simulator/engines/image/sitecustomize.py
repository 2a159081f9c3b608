"""Sends ``python3 -m sglang.launch_server`` through the front door; every other Python program runs as it is.

The SGLang image has no entry point of its own, so the command in the container names this module path. Python imports
sitecustomize before it looks for the module.
"""

from __future__ import annotations

import os
import sys


def _server_arguments() -> list[str] | None:
    """What follows ``-m sglang.launch_server`` on this interpreter's command line, or None."""
    words = sys.orig_argv[1:]
    for position, word in enumerate(words):
        if word == "-m":
            return words[position + 2 :] if words[position + 1 : position + 2] == ["sglang.launch_server"] else None
        if not word.startswith("-"):
            return None
    return None


_arguments = _server_arguments()
if _arguments is not None and os.environ.get("GLM_REHEARSAL_ENGINE") == "sglang":
    # exec, because a SystemExit raised while the interpreter starts would be reported as its crash.
    command = [sys.executable, "-m", "simulator.engines.front_door", "sglang", *_arguments]
    os.execv(sys.executable, command)
