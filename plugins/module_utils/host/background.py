# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that goes on on a host when the module, its ssh session and the controller are gone.

This module util is PRIVATE to the collection. A detached child holds a lock while it lives and writes its state to a
file, from which another session reads later how far it is.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files


class Background:
    """One piece of work by its lock and its state file; at most one child does it at a time."""

    def __init__(self, lock_file: Path, state_file: Path) -> None:
        self.lock_file = lock_file
        self.state_file = state_file

    def running(self) -> bool:
        """Whether a child holds the lock."""
        try:
            with self.lock_file.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def state(self) -> dict[str, Any]:
        """The last state that the child wrote; empty when there is none."""
        return dict(files.read_json(self.state_file) or {})

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state in one step."""
        files.write_text(self.state_file, json.dumps(state), files.READABLE)

    def start(self, prepare: Callable[[], None], work: Callable[[], None]) -> bool:
        """Do ``prepare`` here and ``work`` in a detached child; False, and neither, when a child is at it already.

        ``work`` writes its own errors into its state: what it raises is lost.
        """
        with self.lock_file.open("ab") as lock:
            try:
                # Taken here and inherited: there is no moment in which it is free.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            prepare()
            child = os.fork()
            if child == 0:
                _detached(work)
            os.waitpid(child, 0)
        return True


def _detached(work: Callable[[], None]) -> None:
    try:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        # An open pipe to the ssh session would keep the session, and the task, alive.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.chdir("/")
        work()
    finally:
        os._exit(0)
