# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kind of disk a path is on, and how fast it was read when that was measured.

This module util is PRIVATE to the collection. ``kind`` says what the engines' loaders differ by: ``network`` (a file
system that comes over a network or from outside of a virtual machine), ``nvme`` (local NVMe disks, alone or joined),
``volume`` (a block device that a network or a cloud brings), ``block`` (any other block device), ``memory``, or None:
not known. What this file does not name is not known, and never local.

Sources: proc(5) (mountinfo), sysfs (block, dev/block, slaves), mount.fuse(8) (``fuse.<type>``), virtiofs and 9p in the
kernel's documentation (shared folders of a virtual machine's host).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host.data_volume import NETWORK_MODELS, unescape

# Acceptance measures, and later runs read what it kept.
MEASURED = Path("var/lib/glm-fleet/data-disk.json")
NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "ceph", "virtiofs", "9p", "wekafs", "gpfs", "beegfs", "glusterfs",
    "afs", "ocfs2", "gfs2", "pvfs2", "panfs", "vboxsf", "fuse.vmhgfs-fuse", "prl_fs", "fuse.ceph", "fuse.ceph-fuse",
    "fuse.glusterfs", "fuse.sshfs", "fuse.juicefs", "fuse.s3fs", "fuse.mountpoint-s3", "fuse.goofys", "fuse.gcsfuse",
    "fuse.blobfuse", "fuse.blobfuse2", "fuse.rclone", "fuse.seaweedfs", "fuse.alluxio-fuse", "fuse.mfs",
    "fuse.lizardfs", "fuse.daos", "fuse.dfuse", "fuse.hf-mount",
})  # fmt: skip
_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
# Block devices that stand for something on another machine.
_REMOTE_NAMES = ("rbd", "nbd", "drbd")


class Mount(NamedTuple):
    """A line of mountinfo: the number of its device, where it is mounted, its file system and what that is of."""

    number: str
    point: str
    filesystem: str
    source: str


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts of /proc/<pid>/mountinfo, in its order; lines of another form are left out."""
    mounts = []
    for line in text.splitlines():
        left, _dash, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and len(kind) > 1:
            mounts.append(Mount(fields[2], unescape(fields[4]), kind[0], unescape(kind[1])))
    return mounts


def mount_of(path: str, mounts: list[Mount]) -> Optional[Mount]:
    """The mount with the longest mount point above ``path``; the last one wins, since later mounts cover earlier."""
    best: Optional[Mount] = None
    for mount in mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def describe(path: str, root: Path = Path("/")) -> dict[str, Any]:
    """``{mount, device, filesystem, kind, read_mb_s, measured_at}`` of a path without links.

    The path need not be there. ``read_mb_s`` and ``measured_at`` (UTC) are None where nobody measured this device.
    """
    mount = mount_of(path, parse_mountinfo(files.read_text(root / "proc/self/mountinfo")))
    if mount is None:
        return {"mount": "/", "device": "", "filesystem": "", "kind": None, "read_mb_s": None, "measured_at": None}
    measured = files.read_json(root / MEASURED)
    same = isinstance(measured, dict) and _identity(mount) == {name: measured.get(name) for name in _identity(mount)}
    return {
        "mount": mount.point,
        "device": mount.source,
        "filesystem": mount.filesystem,
        "kind": kind_of(mount, root),
        "read_mb_s": measured.get("read_mb_s") if same else None,
        "measured_at": measured.get("measured_at") if same else None,
    }


def keep(path: str, read_mb_s: float, root: Path = Path("/")) -> None:
    """Keep what was measured of the disk under ``path``. Raises OSError."""
    mount = mount_of(path, parse_mountinfo(files.read_text(root / "proc/self/mountinfo")))
    if mount is None:
        return
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = {**_identity(mount), "read_mb_s": read_mb_s, "measured_at": at}
    files.write_json(root / MEASURED, kept, files.READABLE)


def kind_of(mount: Mount, root: Path = Path("/")) -> Optional[str]:
    """The kind of disk that a mount is on; None where that is not known."""
    if mount.filesystem in NETWORK:
        return "network"
    if mount.filesystem in _MEMORY:
        return "memory"
    kinds = {_kind_of_disk(disk) for disk in _disks(_block_device(mount, root))}
    # Of several disks the one that is farthest away counts.
    return next((kind for kind in ("volume", "block", "nvme") if kind in kinds), None)


def _identity(mount: Mount) -> dict[str, str]:
    return {"device": mount.source, "filesystem": mount.filesystem}


def _block_device(mount: Mount, root: Path) -> Optional[Path]:
    """Where sysfs describes the device of a mount; None for what is on no block device, as far as anybody says."""
    candidates = [root / "sys/dev/block" / mount.number]
    if mount.source.startswith("/dev/"):
        # Btrfs shows a number of its own.
        real = os.path.realpath(root / mount.source.lstrip("/"))
        candidates.append(root / "sys/class/block" / Path(real).name)
    return next((Path(os.path.realpath(path)) for path in candidates if path.exists()), None)


def _disks(device: Optional[Path]) -> list[Path]:
    """The disks that a block device is made of: itself, the one that it is a part of, or the members below it."""
    if device is None:
        return []
    if (device / "partition").exists():
        return [device.parent]
    below = sorted((device / "slaves").glob("*"))
    return [disk for member in below for disk in _disks(Path(os.path.realpath(member)))] if below else [device]


def _kind_of_disk(disk: Path) -> str:
    if disk.name.startswith(_REMOTE_NAMES) or "/session" in str(disk):
        return "volume"
    if not disk.name.startswith("nvme"):
        return "block"
    model = files.read_text(disk / "device/model")
    transport = files.read_text(disk / "device/transport") or files.read_text(disk / "device/device/transport")
    remote = any(name in model for name in NETWORK_MODELS) or transport not in ("", "pcie")
    return "volume" if remote else "nvme"
