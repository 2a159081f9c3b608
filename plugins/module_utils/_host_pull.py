# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pull an image in the background, so that no ssh session has to last as long as 20 GB take.

This module util is PRIVATE to the collection.

A detached child streams the engine's progress messages into ``<folder>/<digest>.json`` and holds a lock on
``<digest>.lock`` while it lives; whoever looks later, from another ssh session, sees how far it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils._host_docker import SOCKET, DockerError, Engine

FOLDER = Path("/run/glm/images")
# The stream has several messages per layer and second; the file is for people and polls every few seconds.
WRITE_EVERY_SECONDS = 1.0


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


class PullJob:
    """The pull of ``repository@digest`` on this host; at most one runs, whoever asks."""

    def __init__(self, repository: str, digest: str, folder: Path = FOLDER, socket_path: str = SOCKET) -> None:
        self.repository = repository
        self.digest = digest
        self.socket_path = socket_path
        name = digest.partition(":")[2][:12]
        self.state_file = folder / f"{name}.json"
        self.lock_file = folder / f"{name}.lock"

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

    def status(self) -> dict[str, Any]:
        """The last state that the child wrote; empty when there is none."""
        try:
            data: dict[str, Any] = json.loads(self.state_file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data

    def start(self, stall_seconds: float) -> None:
        """Begin the pull in a detached process; does nothing when one runs already.

        ``stall_seconds``: how long the engine may say nothing at all before the pull counts as stuck.
        """
        self.lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with self.lock_file.open("ab") as lock:
            try:
                # Taken here and inherited: there is no moment in which nobody holds it.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._write(Progress().data())
            child = os.fork()
            if child == 0:
                self._detach_and_run(stall_seconds)
            os.waitpid(child, 0)

    def _detach_and_run(self, stall_seconds: float) -> None:
        try:
            os.setsid()
            if os.fork() > 0:
                os._exit(0)
            # An open pipe to the ssh session would keep the session, and the task, alive.
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.chdir("/")
            progress = Progress()
            try:
                engine = Engine(self.socket_path, timeout=stall_seconds)
                self.follow(engine.pull(self.repository, self.digest), progress)
            except DockerError as error:
                progress.error = str(error)
            except Exception as error:
                progress.error = f"{type(error).__name__}: {error}"
            progress.finished = True
            self._write(progress.data())
        finally:
            os._exit(0)

    def follow(self, messages: Iterable[dict[str, Any]], progress: Progress) -> None:
        """Add every message to ``progress`` and keep the state file fresh."""
        written = 0.0
        for message in messages:
            progress.add(message)
            if time.monotonic() - written >= WRITE_EVERY_SECONDS:
                self._write(progress.data())
                written = time.monotonic()

    def _write(self, data: dict[str, Any]) -> None:
        temporary = self.state_file.with_suffix(".new")
        temporary.write_text(json.dumps(data), "utf-8")
        temporary.replace(self.state_file)
