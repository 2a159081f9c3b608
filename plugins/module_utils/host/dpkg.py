# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg has installed, and who has its locks. This module util is PRIVATE to the collection."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run


def installed_packages(patterns: tuple[str, ...], timeout: float = 30) -> dict[str, dict[str, Any]]:
    """Installed packages that match shell patterns: ``{name: {version, held}}``; empty without dpkg."""
    fields = "${Package} ${db:Status-Want} ${db:Status-Status} ${Version}\\n"
    shown = run(("dpkg-query", "--show", f"--showformat={fields}", *patterns), timeout)
    rows = (line.split() for line in shown.stdout.splitlines())
    return {
        row[0]: {"version": row[3], "held": row[1] == "hold"} for row in rows if len(row) == 4 and row[2] == "installed"
    }


def lock_holder(path: Path) -> Optional[str]:
    """Who holds the POSIX lock on ``path`` (``name (pid 812)``), or None. Asks only; never takes the lock."""
    # struct flock of 64-bit Linux: short l_type, short l_whence, off_t l_start, off_t l_len, pid_t l_pid
    layout = "hhqqi4x"
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with path.open("rb+") as handle:
            answer = fcntl.fcntl(handle, fcntl.F_GETLK, question)
    except OSError:
        return None
    kind, _whence, _start, _length, pid = struct.unpack(layout, answer)
    if kind == fcntl.F_UNLCK:
        return None
    return f"{files.read_text(Path(f'/proc/{pid}/comm')) or 'a process'} (pid {pid})"
