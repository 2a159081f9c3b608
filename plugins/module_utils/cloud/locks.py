# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps two runs of one user for one fleet from launching twice, and a launch from going on while the fleet ends.

``account`` is any word for the account, such as its API's address: two keys may open one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NoReturn, Optional

try:
    import fcntl
except ImportError:
    # Without requests, which the client reports, nothing here runs; on Windows neither does.
    pass


def _lock_path(account: str, fleet: str, what: str = "") -> Path:
    name = hashlib.sha256(f"{account}\n{fleet}".encode()).hexdigest()[:16]
    return Path("~/.cache/glm-fleet/launch").expanduser() / f"{name}{what}"


def _open_lock(path: Path) -> Optional[int]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextlib.contextmanager
def only_run(account: str, fleet: str, timeout: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[bool]:
    """Keep other runs of this user from counting and launching for the same fleet meanwhile.

    Waits for them up to ``timeout`` seconds; yields whether it is alone. Where no lock can be kept (a read-only home)
    it yields True: instances launched twice all the same are recognised by their name.
    """
    descriptor = _open_lock(_lock_path(account, fleet))
    if descriptor is None:
        yield True
        return
    try:
        deadline = time.monotonic() + timeout
        alone = _taken(descriptor)
        while not alone and time.monotonic() < deadline:
            sleep(0.2)
            alone = _taken(descriptor)
        yield alone
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(account: str, fleet: str, timeout: float, refuse: Callable[[str, str], NoReturn]) -> Iterator[None]:
    """As ``only_run``, for modules: ``refuse`` gets the problem and the next step when others take too long."""
    with only_run(account, fleet, timeout) as free:
        if not free:
            refuse(
                f"another run for this fleet has been launching or terminating for more than {timeout} s.",
                "wait until it has ended, then run again.",
            )
        yield


@contextlib.contextmanager
def announce_end(account: str, fleet: str) -> Iterator[None]:
    """Let launches of this user for the fleet stop buying meanwhile; also when this process is killed, no longer."""
    descriptor = _open_lock(_lock_path(account, fleet, ".ending"))
    if descriptor is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def end_announced(account: str, fleet: str) -> bool:
    """Whether another run is about to end the whole fleet."""
    descriptor = _open_lock(_lock_path(account, fleet, ".ending"))
    if descriptor is None:
        return False
    try:
        return not _taken(descriptor)
    finally:
        os.close(descriptor)
