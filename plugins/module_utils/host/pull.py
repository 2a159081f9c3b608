# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull an image in the background, so that no ssh session has to last as long as 20 GB take.

This module util is PRIVATE to the collection.

The engine's progress messages go into ``<folder>/<digest>.json``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.host.background import Background
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import SOCKET, DockerError, Engine

FOLDER = Path("/run/glm/images")
# The stream has several messages per layer and second; the file is for people and polls every few seconds.
WRITE_EVERY_SECONDS = 1.0
# A registry, mirror or proxy may fail once among a hundred layers; the engine keeps those that are complete.
RETRY_SECONDS = (5.0, 20.0, 60.0)
# What another try does not change.
_FINAL = re.compile(
    r"no space left|not found|unknown|denied|unauthorized|no matching manifest|read-only", re.IGNORECASE
)


class Progress:
    """Sums the engine's messages up: ``{layers, layers_done, bytes, started, updated, error, finished}``."""

    def __init__(self) -> None:
        self.started = time.time()
        self.layers: dict[str, int] = {}
        self.done: set[str] = set()
        self.error: Optional[str] = None
        self.finished = False

    def add(self, message: dict[str, Any]) -> None:
        status = str(message.get("status", ""))
        layer = message.get("id")
        if not layer or status.startswith("Pulling from"):
            return
        self.layers.setdefault(layer, 0)
        current = (message.get("progressDetail") or {}).get("current")
        if status == "Downloading" and isinstance(current, int):
            self.layers[layer] = max(self.layers[layer], current)
        elif status in ("Pull complete", "Already exists"):
            self.done.add(layer)

    def data(self) -> dict[str, Any]:
        return {
            "layers": len(self.layers),
            "layers_done": len(self.done),
            "bytes": sum(self.layers.values()),
            "started": self.started,
            "updated": time.time(),
            "error": self.error,
            "finished": self.finished,
        }


class PullJob(Background):
    """The pull of ``repository@digest`` on this host; at most one runs at a time."""

    def __init__(self, repository: str, digest: str, folder: Path = FOLDER, socket_path: str = SOCKET) -> None:
        name = digest.partition(":")[2][:12]
        super().__init__(folder / f"{name}.lock", folder / f"{name}.json")
        self.repository = repository
        self.digest = digest
        self.socket_path = socket_path

    def begin(self, stall_seconds: float) -> None:
        """Begin the pull in a detached process; does nothing when one runs already.

        ``stall_seconds``: how long the engine may say nothing at all before the pull counts as stuck.
        """
        self.lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.start(lambda: self.write(Progress().data()), lambda: self._pull(stall_seconds))

    def _pull(self, stall_seconds: float, sleep: Callable[[float], object] = time.sleep) -> None:
        progress = Progress()
        for wait in (*RETRY_SECONDS, None):
            progress.error = self._tried(stall_seconds, progress)
            if progress.error is None or wait is None or _FINAL.search(progress.error):
                break
            sleep(wait)
        progress.finished = True
        self.write(progress.data())

    def _tried(self, stall_seconds: float, progress: Progress) -> Optional[str]:
        """Pull once; why it failed."""
        try:
            engine = Engine(self.socket_path, timeout=stall_seconds)
            self.follow(engine.pull(self.repository, self.digest), progress)
        except DockerError as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    def follow(self, messages: Iterable[dict[str, Any]], progress: Progress) -> None:
        """Add every message to ``progress`` and keep the state file fresh."""
        written = 0.0
        for message in messages:
            progress.add(message)
            if time.monotonic() - written >= WRITE_EVERY_SECONDS:
                self.write(progress.data())
                written = time.monotonic()
