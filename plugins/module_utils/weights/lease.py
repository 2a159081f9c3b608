# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One fetch at a time in a folder, whatever the hosts that share it.

This module util is PRIVATE to the collection. Locks do not do it: those of virtiofs, of NFS mounted with ``nolock`` and
of 9p are seen by the host alone that took them, and nothing says so. What every file system has is a name that only one
can create. So a fetch holds the folder by a file with the next number, which it writes again every few seconds; whoever
waits reads it, and takes the number after that when it was freed or is not written any more. Clocks of hosts are not
compared.

Standard library only: it runs on the host (Python 3.9).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

BEAT_SECONDS = 5.0
POLL_SECONDS = 1.0
# NFS may answer a reader from its cache for a minute (nfs(5), acregmax).
STALE_SECONDS = 90.0
_NAME = re.compile(r"\.glm-fetch\.lease\.(\d+)")
# As long whatever it says: writing it again needs no room on a disk that is full.
_BYTES = 512


class Lease:
    """The right to work in ``folder``. ``waiting`` hears each second why it waits, ``say`` what happened."""

    def __init__(self, folder: Path, waiting: Callable[[str], None], say: Callable[[str], None]) -> None:
        self.folder = folder
        self._waiting = waiting
        self._say = say
        self._owner: dict[str, Any] = _myself()
        self._number = 0
        self._beats = 0
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self.lost_to = ""
        """Who took the folder over, because this lease was not renewed for long."""

    def take(self) -> bool:
        """Wait until the folder is free, and hold it; whether it waited. Raises OSError."""
        waited, silent, before, last = False, 0.0, b"", time.monotonic()
        while True:
            number, content = self._highest()
            now = time.monotonic()
            # A file server that was away for long has kept the holder from writing, too.
            silent = silent + min(now - last, 2 * POLL_SECONDS) if content == before else 0.0
            before, last = content, now
            held = _parsed(content)
            name, ended = _name(held), _has_ended(held)
            if number == 0 or held.get("free") or ended or silent > STALE_SECONDS:
                if ended:
                    self._say(f"{name} ended without giving {self.folder} back")
                elif number and not held.get("free"):
                    self._say(
                        f"{name} has not renewed its lease of {self.folder} for {silent:.0f} s, going on without it"
                    )
                if self._claim(number + 1):
                    return waited
            else:
                self._waiting(f"{name} fetches into {self.folder}, waiting for it")
                waited = True
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Let others have the folder. What cannot be written is found out by them, later."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        if not self.lost_to:
            with contextlib.suppress(OSError):
                self._write(free=True)

    def _highest(self) -> tuple[int, bytes]:
        """The lease that counts, 0 for none, and what it says."""
        numbers = self._numbers()
        if not numbers:
            return 0, b""
        try:
            # Opened anew each time: that is when NFS asks its server.
            return max(numbers), self._path(max(numbers)).read_bytes()
        except FileNotFoundError:
            return max(numbers), b""

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return [int(match.group(1)) for match in matches if match]

    def _path(self, number: int) -> Path:
        return self.folder / f".glm-fetch.lease.{number}"

    def _claim(self, number: int) -> bool:
        """Hold the folder by that number; False when another was faster."""
        try:
            os.close(os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        self._number = number
        self._write()
        others = [other for other in self._numbers() if other != number]
        if any(other > number for other in others):
            # The number was free because its lease has been given back and was cleaned away since.
            self._path(number).unlink(missing_ok=True)
            return False
        for other in others:
            self._path(other).unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return True

    def _renew(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A disk that does not answer now may do so with the next beat.
            with contextlib.suppress(OSError):
                number, content = self._highest()
                if number != self._number:
                    taken = number > self._number
                    self.lost_to = _name(_parsed(content)) if taken else f"whoever removed {self._path(self._number)}"
                    return
                self._beats += 1
                self._write()

    def _write(self, free: bool = False) -> None:
        text = json.dumps({**self._owner, "beats": self._beats, "free": free})
        handle = os.open(self._path(self._number), os.O_WRONLY)
        try:
            os.pwrite(handle, f"{text:<{_BYTES - 1}}\n".encode(), 0)
            os.fsync(handle)
        finally:
            os.close(handle)


def _myself() -> dict[str, Any]:
    """This process, as another one on the same kernel can recognise it."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": _began(os.getpid()),
        "kernel": _kernel(),
    }


def _kernel() -> str:
    """Where numbers of processes mean the same: one boot, and one container of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, in ticks of its kernel; empty when there is no such process (proc(5), starttime)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _has_ended(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this kernel that is gone. Of another host only its silence shows that."""
    kernel = _kernel()
    if held.get("free") or not kernel or held.get("kernel") != kernel:
        return False
    return _began(int(held.get("pid") or 0)) != held.get("began")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        held = json.loads(content)
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _name(held: dict[str, Any]) -> str:
    return f"{held['host']} (process {held['pid']})" if {"host", "pid"} <= held.keys() else "another process"
