# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which disks of a host may become its data volume, and what prevents it.

This module util is PRIVATE to the collection. Choosing is pure; a disk that holds anything is never chosen.

Sources: lsblk(8) (JSON columns), wipefs(8) (--no-act), open(2) (O_EXCL on a block device fails while the kernel uses
it), mdadm(8), proc(5) (mountinfo), fstab(5), systemd.mount(5) (nofail, x-systemd.device-timeout).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run

LABEL = "glm-data"
COLUMNS = "NAME,PATH,TYPE,SIZE,RO,RM,TRAN,MODEL,SERIAL,FSTYPE,LABEL,UUID,PTTYPE,MOUNTPOINTS"
# NVMe by protocol, network volume by nature: the clouds' block storage says so in its model.
NETWORK_MODELS = ("Amazon Elastic Block Store", "nvme_card-pd", "MSFT NVMe Accelerator")
# Disks of one kind differ by a few sectors between vendors; classes of disks differ by far more.
SAME_SIZE = 0.01
_EDGE = 2**20
_SAMPLE = 4096
_SAMPLES = 64

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Disks to take, largest class only, and why each other one is left alone."""

    disks: tuple[Node, ...]
    left_out: dict[str, str]


def parse_lsblk(text: str) -> list[Node]:
    """The tree of block devices out of ``lsblk --json --bytes``; raises ValueError for anything else."""
    try:
        return list(json.loads(text)["blockdevices"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the JSON of lsblk: no {error}") from error


def walk(nodes: Sequence[Node]) -> Iterator[Node]:
    """Each device once, also those that several others carry (an array below each of its members)."""
    seen = set()
    todo = list(nodes)
    while todo:
        node = todo.pop(0)
        if node["path"] not in seen:
            seen.add(node["path"])
            yield node
        todo += node.get("children") or []


def is_set(value: Any) -> bool:
    """A boolean of lsblk, which old releases write as text."""
    return value not in (None, False, 0, "0", "")


def mounts_of(node: Node) -> list[str]:
    return [str(point) for point in node.get("mountpoints") or [] if point]


def holds(node: Node) -> list[str]:
    """What a device holds, in words; empty when the kernel and its tables know of nothing."""
    found = [f"mounted at {point}" if point.startswith("/") else f"used as {point}" for point in mounts_of(node)]
    # lsblk shows a partition the table that it stands in.
    if node.get("pttype") and node["type"] != "part":
        found.append(f"a partition table ({node['pttype']})")
    if node.get("fstype"):
        label = f" named {node['label']}" if node.get("label") else ""
        found.append(f"{_signature(str(node['fstype']))}{label}")
    found += [_child(child) for child in node.get("children") or []]
    return found


def _child(node: Node) -> str:
    inside = ", ".join(holds(node))
    return f"{node['type']} {node['name']}{f' ({inside})' if inside else ''}"


def _signature(kind: str) -> str:
    known = {"LVM2_member": "an LVM physical volume", "linux_raid_member": "a member of an array", "swap": "swap"}
    return known.get(kind) or f"the signature of {kind}"


def ours(nodes: Sequence[Node]) -> list[Node]:
    """File systems that this collection made: they carry its label."""
    return [node for node in walk(nodes) if node.get("label") == LABEL and node.get("fstype") in ("ext4", "xfs")]


def array_members(nodes: Sequence[Node]) -> list[Node]:
    """Members of an array that this collection made. mdadm labels them ``homehost:name``."""
    return [
        node
        for node in walk(nodes)
        if node.get("fstype") == "linux_raid_member" and str(node.get("label")).rpartition(":")[2] == LABEL
    ]


def choose(nodes: Sequence[Node], minimum_bytes: int, transports: Mapping[str, str]) -> Choice:
    """The empty local NVMe disks of the largest size class.

    ``transports``: how each NVMe controller is reached, by device name (``pcie`` is local).
    """
    left: dict[str, str] = {}
    empty = []
    for node in nodes:
        reason = _unfit(node, minimum_bytes, transports)
        if reason:
            left[str(node["path"])] = reason
        elif reason is None:
            empty.append(node)
    largest = max((int(node["size"]) for node in empty), default=0)
    taken = [node for node in empty if int(node["size"]) >= largest * (1 - SAME_SIZE)]
    left.update({str(node["path"]): f"smaller than the {len(taken)} taken" for node in empty if node not in taken})
    return Choice(tuple(sorted(taken, key=lambda node: str(node["path"]))), left)


def _unfit(node: Node, minimum_bytes: int, transports: Mapping[str, str]) -> Optional[str]:
    """Why a device is not for us: a reason for people, "" where none is needed (a loop device), None if it is."""
    if node["type"] != "disk" or str(node["name"]).startswith(("zram", "ram", "nbd", "fd")):
        return ""
    if is_set(node.get("ro")):
        return "read-only"
    found = holds(node)
    if found:
        return ", ".join(found)
    model = str(node.get("model") or "")
    if node.get("tran") != "nvme" and not str(node["name"]).startswith("nvme"):
        return f"empty, but no NVMe ({node.get('tran') or 'unknown transport'})"
    if any(name in model for name in NETWORK_MODELS):
        return f"empty, but a network volume ({model})"
    if transports.get(str(node["name"]), "pcie") != "pcie":
        return f"empty, but reached over {transports[str(node['name'])]}"
    if int(node["size"]) < minimum_bytes:
        return f"empty, but only {int(node['size']) / 1e9:.0f} GB"
    return None


def named(nodes: Sequence[Node], paths: Sequence[str]) -> Choice:
    """Exactly the disks that somebody named (as real paths); raises Unmet if one is not there or holds anything."""
    known = {str(node["path"]): node for node in walk(nodes)}
    taken, problems = [], []
    for path in paths:
        node = known.get(path)
        if node is None:
            problems.append(f"{path}: no such block device")
        elif node["type"] not in ("disk", "part", "loop", "mpath"):
            problems.append(f"{path}: {node['type']}")
        elif is_set(node.get("ro")) or holds(node):
            problems.append(f"{path}: {', '.join(holds(node)) or 'read-only'}")
        else:
            taken.append(node)
    if problems:
        raise Unmet(
            "empty disks",
            f"{'; '.join(problems)}. Nothing was changed",
            "correct gpu_base_data_disks; if the data on a disk may be lost, empty it yourself (wipefs --all)",
        )
    return Choice(tuple(taken), {})


# -- what a disk says for itself -----------------------------------------------------------------------------------


def read_tree() -> list[Node]:
    """The block devices of this host. Raises Unmet when lsblk does not say."""
    done = run(("lsblk", "--json", "--bytes", "--output", COLUMNS))
    try:
        if not done.ok:
            raise ValueError(done.evidence())
        nodes = parse_lsblk(done.stdout)
    except ValueError as error:
        raise Unmet("lsblk to list the disks", error, "run lsblk on the host") from error
    return [_probed(node, {}) for node in nodes]


def _probed(node: Node, known: dict[str, dict[str, str]]) -> Node:
    """``node`` with what libblkid reads from the device where lsblk, which asks udev, knows nothing."""
    path = str(node["path"])
    typed = node.get("fstype") or node.get("pttype") or int(node.get("size") or 0) == 0
    if not typed and path not in known:
        shown = run(("blkid", "--probe", "--output", "export", path)).stdout
        known[path] = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    found = known.get(path, {})
    names = {"fstype": "TYPE", "label": "LABEL", "uuid": "UUID", "pttype": "PTTYPE"}
    probed = {**node, **{name: found[tag] for name, tag in names.items() if tag in found}}
    if node.get("children"):
        probed["children"] = [_probed(child, known) for child in node["children"]]
    return probed


def transports(root: Path = Path("/")) -> dict[str, str]:
    """How each NVMe disk is reached: ``{nvme0n1: pcie}``."""
    found = {}
    for disk in (root / "sys/block").glob("nvme*"):
        for path in (disk / "device/transport", disk / "device/device/transport"):
            try:
                found[disk.name] = path.read_text("utf-8").strip()
                break
            except OSError:
                continue
    return found


def signatures(path: str) -> list[str]:
    """Every signature that libblkid finds anywhere on a device. Raises Unmet when it cannot look."""
    done = run(("wipefs", "--no-act", "--json", path))
    try:
        if not done.ok:
            raise ValueError(done.evidence())
        rows = json.loads(done.stdout)["signatures"] if done.stdout.strip() else []
    except (ValueError, KeyError) as error:
        raise Unmet(f"wipefs to look at {path}", f"{error}. Nothing was changed") from error
    return [f"{_signature(str(row['type']))} at {row.get('offset')}" for row in rows]


def in_use(path: str) -> bool:
    """Whether the kernel uses a block device: mounted, swap, part of an array or of a volume group."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise Unmet(f"to read {path}", f"{error.strerror}. Nothing was changed") from error
    return False


def stray_bytes(path: str) -> Optional[int]:
    """Where a device holds bytes although no signature says what they are, or None.

    Looks at both ends and at places between them. An erased disk reads as the same byte everywhere, 0x00 or 0xFF.
    """
    with open(path, "rb", buffering=0) as handle:
        size = handle.seek(0, os.SEEK_END)
        step = max(size // _SAMPLES, _SAMPLE)
        places = [(0, _EDGE), (max(size - _EDGE, 0), _EDGE)]
        places += [(offset - offset % _SAMPLE, _SAMPLE) for offset in range(step, size, step)]
        for offset, length in places:
            handle.seek(offset)
            block = handle.read(length)
            if block.strip(b"\0") and block.strip(b"\xff"):
                return offset
    return None


def require_empty(path: str, trusted: bool = False) -> None:
    """Raises Unmet if a device is used or holds anything; ``trusted``: its bytes are from our own broken attempt."""
    found = ["in use by the kernel"] if in_use(path) else signatures(path)
    if not found and not trusted:
        offset = stray_bytes(path)
        found = [] if offset is None else [f"bytes of no known kind at {offset}"]
    if found:
        raise Unmet(
            f"{path} to be empty",
            f"{', '.join(found)}. Nothing was changed",
            "leave it out of gpu_base_data_disks; if its data may be lost, empty it "
            "yourself (wipefs --all, blkdiscard)",
        )


# -- mounts --------------------------------------------------------------------------------------------------------


def mounted_at(point: str, mountinfo: str) -> Optional[dict[str, str]]:
    """``{source, filesystem}`` of what is mounted exactly at ``point``, out of /proc/self/mountinfo (proc(5))."""
    found = None
    for line in mountinfo.splitlines():
        left, _dash, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) > 4 and len(kind) > 1 and unescape(fields[4]) == point:
            found = {"source": unescape(kind[1]), "filesystem": kind[0]}
    return found


def unescape(text: str) -> str:
    """A field of fstab or mountinfo, in which white space stands as octal numbers."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def fstab_entry(text: str, point: str) -> Optional[str]:
    """The line of an fstab that mounts something at ``point``, or None."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 2 and not fields[0].startswith("#") and unescape(fields[1]).rstrip("/") == point.rstrip("/"):
            return line
    return None


def fstab_line(uuid: str, point: str, filesystem: str) -> str:
    """The line for our volume. ``nofail``: a lost disk must not keep the host from booting."""
    options = "defaults,noatime,nofail,x-systemd.device-timeout=60s"
    where = point.replace("\\", "\\134").replace(" ", "\\040")
    return f"UUID={uuid} {where} {filesystem} {options} 0 2"
