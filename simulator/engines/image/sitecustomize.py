"""Sends ``python3 -m sglang.launch_server`` through the front door; every other program has the engine's stand-ins.

The SGLang image has no entry point of its own, so the command in the container names this module path. Python imports
sitecustomize before it looks for the module, and only the first on its path: the one of the engine's tree is run here.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


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
for _folder in sys.path:
    _of_engine = Path(_folder, "sitecustomize.py")
    if _of_engine.is_file() and not _of_engine.samefile(__file__):
        runpy.run_path(str(_of_engine))
        break
