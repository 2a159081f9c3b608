# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What disks the weights of a fleet's hosts are on; kept where the lock file is for later plans.

A plan is made before anything connects to its host, and by playbooks that never look at a disk, and all of them have to
come to the same arguments. So the role weights, which has the disk before it, keeps what it is, and plans read that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import kept

MOST_HOSTS: Final = 2000
KEPT: Final = kept.Kept("disks", "the disks of this fleet's hosts")
_OTHER_KERNEL: Final = 0.02


class HostDisk(TypedDict):
    """The disk under a host's weights, as module_utils/host/data_disk.py says it, and the memory of that host."""

    hf_home: str
    device: str
    filesystem: str
    kind: Optional[str]
    read_mb_s: Optional[float]
    measured_at: Optional[str]
    memory_gib: float


def of_host(lock_file: Path | str, host: str) -> Optional[HostDisk]:
    """What is kept of a host; None where nothing is. Raises Unmet for what cannot be read."""
    return _of(KEPT.read(lock_file), lock_file, host)


def _of(known: Mapping[str, Any], lock_file: Path | str, host: str) -> Optional[HostDisk]:
    try:
        return disk_of(known[host]) if host in known else None
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise KEPT.refusal(lock_file, exc) from exc


def disk_of(said: Mapping[str, Any]) -> HostDisk:
    """A disk out of what a host or a file says. Raises KeyError, TypeError and ValueError for anything else."""
    speed, kind, at = said["read_mb_s"], said["kind"], said["measured_at"]
    return {
        "hf_home": str(said["hf_home"]),
        "device": str(said["device"]),
        "filesystem": str(said["filesystem"]),
        "kind": None if kind is None else str(kind),
        "read_mb_s": None if speed is None else float(speed),
        "measured_at": None if at is None else str(at),
        "memory_gib": float(said["memory_gib"]),
    }


def keep(lock_file: Path | str, host: str, found: HostDisk) -> bool:
    """Keep the disk of a host; whether that is another one than was kept.

    A figure stays while the disk is the same: it is measured anew with each acceptance, and a plan that follows it
    would restart engines. Raises Unmet when the file cannot be read or written.
    """
    return KEPT.change(lock_file, lambda known: _with(known, _of(known, lock_file, host), host, found))


def _with(known: Mapping[str, Any], before: Optional[HostDisk], host: str, found: HostDisk) -> Optional[dict[str, Any]]:
    """All that is known with this disk; None where that is nothing new."""
    if before and _same(before, found):
        if before["read_mb_s"] is not None:
            found = {**found, "read_mb_s": before["read_mb_s"], "measured_at": before["measured_at"]}
        # What another kernel keeps for itself is no other memory.
        if abs(found["memory_gib"] - before["memory_gib"]) < _OTHER_KERNEL * before["memory_gib"]:
            found = {**found, "memory_gib": before["memory_gib"]}
    if before == found:
        return None
    # The oldest go first.
    others = [(name, one) for name, one in known.items() if name != host]
    return dict([*others, (host, found)][-MOST_HOSTS:])


def _same(one: HostDisk, other: HostDisk) -> bool:
    return (one["hf_home"], one["device"], one["filesystem"]) == (
        other["hf_home"],
        other["device"],
        other["filesystem"],
    )
