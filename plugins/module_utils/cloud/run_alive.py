# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which run a process belongs to, and whether that run is still there.

This module util is PRIVATE to the collection. When ansible-playbook is killed, its workers and modules go on. What
costs money asks here first. A run is named by the process of ansible-playbook: the machine since its last start, the
number of the process and when it started, since numbers are used again.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import uuid
from pathlib import Path

_RUN = re.compile(r"([0-9a-f]{12})-([0-9]+)-([^-]*)")
# The fields of /proc/<pid>/stat behind the name in brackets; the kernel counts from 1 and the name is 2.
_STATE, _STARTED = 3 - 3, 22 - 3
_ENDED = ("Z", "X")


def run_of(pid: int) -> str:
    """The name of the run that this process of ansible-playbook is, as in the tag glm-run."""
    return f"{_machine()}-{pid}-{_started(pid)}"


def is_alive(run: str) -> bool:
    """Whether this run is there. False only when that is certain, so not for names of another form."""
    parts = _RUN.fullmatch(run)
    if parts is None:
        return True
    machine, pid, started = parts.groups()
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # Somebody else's, but there. /proc may hide it from others (hidepid), so no start time is not another one.
        return not started or _started(int(pid)) in ("", started)
    return not started or _started(int(pid)) == started


def is_running(run: str) -> bool:
    """Whether this run is there. True only when that is certain, so not for names of another form."""
    return _RUN.fullmatch(run) is not None and is_alive(run)


def has_ended(run: str) -> bool:
    """Whether this run was started on this machine since its last start, and is there no more."""
    parts = _RUN.fullmatch(run)
    return parts is not None and parts.group(1) == _machine() and not is_alive(run)


def _started(pid: int) -> str:
    """When a process started; empty for one that has ended, and where the system does not say it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "" if fields[_STATE] in _ENDED else fields[_STARTED]
    except (OSError, IndexError):
        return "" if Path("/proc/self/stat").exists() else _started_by_ps(pid)


def _started_by_ps(pid: int) -> str:
    """The same where there is no /proc."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return re.sub("[^0-9A-Za-z]+", "_", done.stdout.strip())


def _machine() -> str:
    """This machine since its last start, or the container on it: in another one the numbers are of other processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        boot += str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = str(uuid.getnode())
    return hashlib.sha256(f"glm.fleet machine {boot}".encode()).hexdigest()[:12]
