# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the ledgers of other machines, for modules and everything else that reads or writes a ledger.

This module util is PRIVATE to the collection. Only the controller has the library that speaks to object stores, so a
program of it does: the environment says how it is started, and it is asked on a pipe, one JSON object a line. It stays
for the life of the process that asks. It has the key pair from its environment; nothing here does.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
from typing import Any, Dict, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# JSON: the store's ``address``, ``endpoint`` and ``region``, and the ``program``, an argument list.
ENVIRONMENT = "GLM_STATE_STORE"


class Helper:
    """The program, started when it is first asked."""

    def __init__(self, given: Dict[str, Any]) -> None:
        self.address = str(given["address"])
        self._program = given["program"]
        self._process: Optional[subprocess.Popen[str]] = None
        self._asking = threading.Lock()

    def ask(self, do: str, **more: Any) -> Any:
        """The answer to a question that ``plugin_utils/store/ledgers.py`` knows. Raises Unmet."""
        with self._asking:
            try:
                line = self._exchanged(json.dumps({"do": do, **more}))
            except OSError as error:
                line = ""
                reason = f"that it cannot be asked: {error.strerror or error}"
            else:
                reason = "that it ended without one"
            if not line.endswith("\n"):
                expected = f"an answer of the program that reads and writes the ledgers in {self.address}"
                raise Unmet(expected, reason, "run again")
        answer = json.loads(line)
        if "unmet" in answer:
            raise Unmet(*answer["unmet"])
        return answer["answer"]

    def _exchanged(self, question: str) -> str:
        # Whoever is interrupted here leaves an answer in the pipe that nobody may take for that of the next question.
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            # Ctrl-C is for the run, which may have more to write; the program ends when nobody can ask it any more.
            process = subprocess.Popen(
                self._program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                start_new_session=True,
            )  # fmt: skip
        if process.stdin is None or process.stdout is None:
            raise AssertionError("it was started with both")
        process.stdin.write(question + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        self._process = process if line.endswith("\n") else None
        return line


def helper() -> Optional[Helper]:
    """That of this process; None where the state of fleets is on the disk."""
    given = os.environ.get(ENVIRONMENT)
    # A forked process must not share the pipe with the one that it came from.
    return _helper(given, os.getpid()) if given else None


@functools.lru_cache(maxsize=1)
def _helper(given: str, _process: int) -> Helper:
    return Helper(json.loads(given))
