"""The fetcher of weights by a clock that a test moves, so that what takes long on a busy machine is no stall.

``python fetch_by_clock.py <folder>`` is the fetcher of that folder; ``Clock`` is the test's end of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.files import write_json
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch

# Only for what hangs. As in patience.py, which a program of its own cannot import.
PATIENCE_SECONDS = 900


def wait_for(condition: Callable[[], Any]) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Clock:
    """Stands still, but for the fetcher's own waits and for ``let_stall``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 0.0
        self.move(0.0)

    def move(self, seconds: float) -> None:
        self.now += seconds
        write_json(self.folder / "clock", self.now)

    def let_stall(self, seconds: float) -> None:
        """Let the client do nothing for so long; it must have done all that it will do before."""
        # Looks of the past are too old to count.
        self.move(1000.0)
        # The first report may be of a look at the clock before that; the second is not.
        for _report in range(2):
            before = self.reported()
            wait_for(lambda before=before: self.reported() > before)
        self.move(seconds)

    def reported(self) -> float:
        return float(json.loads((self.folder / "status.json").read_text(encoding="utf-8"))["updated"])


def main(folder: Path) -> int:
    """Run the fetcher. Its waits take as long as they are, by this clock as well."""
    slept = 0.0

    def monotonic() -> float:
        return float(json.loads((folder / "clock").read_text(encoding="utf-8"))) + slept

    def sleep(seconds: float) -> None:
        nonlocal slept
        time.sleep(seconds)
        slept += seconds

    fetch.time = types.SimpleNamespace(**{**vars(time), "monotonic": monotonic, "sleep": sleep})
    return fetch.main(["run", str(folder)])


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1])))
