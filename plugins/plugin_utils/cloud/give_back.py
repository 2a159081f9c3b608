# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminate what a run launched and what never served, also when the run itself is gone.

A run that is interrupted or killed gets no chance to clean up, and what it launched still costs money. So a
second process, the guard, holds the other end of a pipe: the run writes what it launched and what serves, one JSON
object a line (``State``), the last one with ``done``. When the pipe ends without that, the run and all its workers are
gone, and the guard terminates in its place. Executed as a script the file is the guard; it needs the standard library
only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

# Seconds until the guard looks: an instance whose launch was under way may turn up late.
LOOKS = (5.0, 60.0)


@dataclass
class State:
    """What there is to terminate. ``unsettled``: a launch began and no result has said what it made."""

    unsettled: bool = False
    launched: dict[str, str] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    done: bool = False

    def wanted(self, run: str) -> Optional[dict[str, Any]]:
        """What terminate.yml is to end; None when there is nothing."""
        if self.unsettled:
            return {"glm_terminate_run": run}
        unused = sorted(set(self.launched) - set(self.served))
        return {"glm_terminate_only": unused} if unused else None

    def names(self) -> str:
        """What that is, for people."""
        unused = [name for key, name in self.launched.items() if key not in self.served]
        return ", ".join(sorted(unused)) or "what its last launch made"


class Guard:
    """The guard, seen from the run."""

    def __init__(self, command: Sequence[str], run: str, log: Path) -> None:
        """Start it. ``command``: terminate.yml with all but what to end. Raises OSError when that is not possible."""
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                # Isolated: what lies beside this file must not be taken for modules of the standard library.
                [sys.executable, "-I", str(Path(__file__).resolve()), json.dumps(list(command)), run],
                stdin=subprocess.PIPE, stdout=output, stderr=output, text=True,
                # Neither Ctrl-C nor a closed terminal is meant for it.
                start_new_session=True,
            )  # fmt: skip

    def report(self, state: State) -> None:
        """Pass the state on; a guard that is gone is no reason to stop a run."""
        stream = self._process.stdin
        with contextlib.suppress(OSError):
            if stream:
                stream.write(json.dumps(asdict(state)) + "\n")
                stream.flush()


def end(command: Sequence[str], wanted: dict[str, Any], show: Callable[[str], None]) -> bool:
    """Run terminate.yml for what is ``wanted`` and show what it prints; whether it succeeded."""
    done = subprocess.run(
        [*command, "-e", json.dumps(wanted)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    show(done.stdout + done.stderr)
    return done.returncode == 0


def last_state(lines: Iterable[str]) -> State:
    """The last whole line; a run may die while it writes one."""
    state = State()
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            state = State(**json.loads(line))
    return state


def guard(command: Sequence[str], run: str, lines: Iterable[str], looks: Sequence[float] = LOOKS) -> None:
    """Read until the run has ended, and terminate unless it did so itself."""
    state = last_state(lines)
    wanted = None if state.done else state.wanted(run)
    if wanted is None:
        return
    _say(f"run {run} is gone; terminating what it launched and what never served: {state.names()}")
    for seconds in looks:
        time.sleep(seconds)
        if not end(command, wanted, lambda text: print(text, flush=True)):
            _say("terminate.yml failed, see above; instances may still cost money")
    _say("done")


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    guard(json.loads(sys.argv[1]), sys.argv[2], sys.stdin)
