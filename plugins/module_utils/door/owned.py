# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that root writes and the front door reads: whole or not at all, for nobody else at any moment, one at a time.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

MODE = 0o640
# Which replicas drain, and until when. It belongs to the host: deploys make it, empty, and leave it as it is.
DRAIN_MAP = "drain.map"
# Another run has the files for a second or two; one that hangs must not hold up all others for ever.
LOCK_SECONDS = 60
_DEPLOY = "deploy the host (role glm.fleet.door), so that it gets its front door"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs and the host's timer from changing the door's files meanwhile. Raises Unmet if one never ends.

    Who writes reads under it, too, what the text depends on. The kernel frees the lock when its holder ends.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        found = "none" if isinstance(exc, FileNotFoundError) else exc.strerror or str(exc)
        raise Unmet(f"the folder {folder} of the front door", found, _DEPLOY) from exc
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() >= until:
                    expected = f"other runs to end with the door's files of this host within {LOCK_SECONDS} s"
                    advice = "look for door_keys, door_files and door_order on the host, and run again"
                    raise Unmet(expected, "one that still works", advice) from exc
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def group_of(name: str) -> int:
    """The number of a group. Raises Unmet."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as exc:
        raise Unmet(f"the group {name}", "no such group", _DEPLOY) from exc


def holds(path: Path, text: str, group: int) -> bool:
    """Whether a file has this text, this group and these permissions. Raises OSError."""
    try:
        status = path.stat()
        return (status.st_mode & 0o7777, status.st_gid) == (MODE, group) and path.read_text("utf-8", "replace") == text
    except FileNotFoundError:
        return False


def write(path: Path, text: str, group: int) -> None:
    """Replace a file; its group has its right before the file has its name. Raises OSError."""

    def move(new: str, name: str) -> None:
        os.chown(new, -1, group)
        Path(new).replace(name)

    files.write_text(path, text, MODE, durable=True, move=move)
