# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who already holds what a replica needs: the port, the GPUs' memory.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; reads only.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Runner = Callable[[Sequence[str]], CommandResult]
_LISTENING = "0A"  # include/net/tcp_states.h
# A driver keeps a few hundred MiB for itself; an engine takes tens of GiB.
GPU_MEMORY_FREE_MIB = 2048


class Holder(NamedTuple):
    """Who holds something, in words, and the unit of the collection's that it belongs to, if there is one."""

    words: str
    unit: Optional[str] = None


UNSEEN = Holder("a process that cannot be seen from here")


def require_places(run: Runner, unit: str, places: Iterable[Mapping[str, Any]], check_mode: bool) -> None:
    """Raise Unmet when ``unit`` could not listen on one of the ``places``.

    Each has an ``address`` of this host, a ``port``, and the ``variable`` that moves it.
    """
    for place in places:
        address, port = place["address"], place["port"]
        problem = address_problem(address)
        if problem:
            raise Unmet(f"{address} to be an address of this host", problem, "set glm_bind, or glm_monitor_address")
        owner = port_owner(run, address, port)
        # In check mode an engine of an earlier release is still where the door will be.
        leaves = owner and check_mode and owner.unit
        if owner and owner.unit != unit and not leaves:
            expected = f"{address} port {port} to be free"
            raise Unmet(expected, owner.words, f"stop it, or choose another {place['variable']}")


def port_owner(run: Runner, address: str, port: int, proc: Path = Path("/proc")) -> Optional[Holder]:
    """Who listens on ``address:port`` (or on the wildcard); None when it is free."""
    wanted = ipaddress.ip_address(address)
    inodes = {inode for where, number, inode in listening(proc) if number == port and _overlaps(wanted, where)}
    if not inodes:
        return None
    pids = processes_by_socket(proc)
    return holder(run, next((pids[inode] for inode in sorted(inodes) if inode in pids), None), port, proc)


def holder(run: Runner, pid: Optional[int], port: int, proc: Path = Path("/proc")) -> Holder:
    """Who listens on a port, by the process that has the socket; None for one that cannot be seen."""
    own = None if pid is None else _own_unit(pid, proc)
    if pid is not None and own:
        return Holder(_process_words(pid, proc), own)
    published = run(["docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}} ({{.Image}})"])
    container = published.stdout.split("\n")[0].strip() if published.ok else ""
    if container:
        return Holder(f"the container {container}", _unit_named(container.split(" ")[0]))
    if pid is None:
        return UNSEEN
    return Holder(_process_words(pid, proc), serving_unit_of(run, pid, proc))


def _own_unit(pid: int, proc: Path) -> Optional[str]:
    """The unit of the collection's that a process belongs to by its own control group."""
    own = re.search(r"/((?:glm-serve-\d+|glm-door|glm-gateway)\.service)", control_groups(pid, proc))
    return own.group(1) if own else None


def control_groups(pid: Union[int, str], proc: Path) -> str:
    """The control groups of a process, a line each, as the kernel writes them; empty when it is gone."""
    try:
        return (proc / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""


def serving_unit_of(run: Runner, pid: int, proc: Path = Path("/proc")) -> Optional[str]:
    """The serving unit a process belongs to: by its own control group, or by its container's name."""
    own = _own_unit(pid, proc)
    if own:
        return own
    container = re.search(r"docker[-/]([0-9a-f]{64})", control_groups(pid, proc))
    if not container:
        return None
    named = run(["docker", "inspect", "--format", "{{.Name}}", container.group(1)])
    return _unit_named(named.stdout.strip().lstrip("/")) if named.ok else None


def _unit_named(container: str) -> Optional[str]:
    return f"{container}.service" if re.fullmatch(r"glm-serve-\d+", container) else None


def address_problem(address: str) -> Optional[str]:
    """Why nothing on this host can listen on ``address``; None when something can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def listening(proc: Path = Path("/proc")) -> list[tuple[Address, int, str]]:
    """Address, port and inode of every listening TCP socket. A kernel without IPv6 has no table of it."""
    found = []
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = (proc / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            host, number = fields[1].partition(":")[::2]
            if fields[3] == _LISTENING:
                found.append((_kernel_address(host), int(number, 16), fields[9]))
    return found


def _kernel_address(text: str) -> Address:
    """An address as /proc/net/tcp prints it: 32-bit words in the machine's byte order."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _overlaps(wanted: Address, taken: Address) -> bool:
    if taken.version == 6 and taken.is_unspecified:
        return True  # a wildcard IPv6 socket takes IPv4 too, unless it says otherwise, which cannot be seen here
    if taken.version != wanted.version:
        return False
    return taken == wanted or taken.is_unspecified or wanted.is_unspecified


def processes_by_socket(proc: Path = Path("/proc")) -> dict[str, int]:
    """The oldest process that has each socket open, by the socket's inode; processes of others may not be seen."""
    found: dict[str, int] = {}
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        for name in _open_files(folder):
            if name.startswith("socket:["):
                found.setdefault(name[len("socket:[") : -1], int(folder.name))
    return found


def _process_words(pid: int, proc: Path) -> str:
    try:
        command = (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        name = (proc / str(pid) / "comm").read_text(encoding="utf-8").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name}: {_without_values(command)[:120]})"


def _open_files(folder: Path) -> set[str]:
    """Targets of a process's open files; those that close meanwhile, and processes of others, are left out."""
    found: set[str] = set()
    try:
        links = list((folder / "fd").iterdir())
    except OSError:
        return found
    for link in links:
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue
    return found


def _without_values(command: str) -> str:
    """A foreign command line, less what may be a secret in it."""
    return re.sub(r"(?i)(key|token|password|secret)([= ])\S+", r"\1\2********", command)


def gpu_users(
    run: Runner, vendor: str, gpus: Sequence[int], leaving: Collection[str] = (), root: Path = Path("/")
) -> list[str]:
    """Which of ``gpus`` (indices) have memory that others hold or may hold, and the processes that hold it.

    Memory of the units in ``leaving`` does not count: they are stopped first. Memory that cannot be read is in use,
    unless it is seen that no other process has a GPU open.
    """

    def others(holders: Mapping[int, str]) -> list[str]:
        return [words for pid, words in holders.items() if serving_unit_of(run, pid, root / "proc") not in leaving]

    used, silence = {"nvidia": _nvidia_used, "amd": _amd_used}[vendor](run, root)
    busy = []
    for index in gpus:
        mib, holders = used.get(index, (0, {}))
        foreign = others(holders) if mib > GPU_MEMORY_FREE_MIB else []
        if foreign or (mib > GPU_MEMORY_FREE_MIB and not holders):
            busy += [f"GPU {index}: {mib} MiB", *foreign]
    unread = [str(index) for index in gpus if index not in used]
    opened = gpu.open_by(root) if unread else {}
    may_hold = None if opened is None else others({pid: f"process {pid}, {name}" for pid, name in opened.items()})
    if may_hold != []:
        busy += [f"GPU {', '.join(unread)}: memory in use that cannot be read ({silence})", *(may_hold or [])]
    return list(dict.fromkeys(busy))


# By index of the GPU: MiB in use, and the processes that use it, in words by process id. Then why a GPU is not in it.
_Used = dict[int, "tuple[int, dict[int, str]]"]


def _nvidia_used(run: Runner, _root: Path) -> tuple[_Used, str]:
    answer = run(["nvidia-smi", "--query-gpu=index,uuid,memory.used", "--format=csv,noheader,nounits"])
    listed = run(
        ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    )
    holders: dict[str, dict[int, str]] = {}
    for row in listed.stdout.splitlines() if listed.ok else []:
        match = re.fullmatch(r"\s*(\S+)\s*,\s*(\d+)\s*,\s*(.*)", row)
        if match:
            words = f"process {match.group(2)}, {' '.join(match.group(3).split())}"
            holders.setdefault(match.group(1), {})[int(match.group(2))] = words
    used: _Used = {}
    # It ends with 14 and such because of one GPU, and describes all.
    for row in answer.stdout.splitlines():
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\S+)\s*,\s*(\d+)\s*", row)
        if match:
            used[int(match.group(1))] = (int(match.group(3)), holders.get(match.group(2), {}))
    return used, f"nvidia-smi ended with {answer.rc}: {answer.evidence() or 'it prints nothing'}"


def _amd_used(_run: Runner, root: Path) -> tuple[_Used, str]:
    """From the amdgpu and kfd drivers' own files (kernel documentation, gpu/amdgpu/driver-misc; sysfs-class-kfd).

    The compute driver lists its processes without saying which GPU each is on.
    """
    holders = {}
    for folder in (root / "sys/class/kfd/kfd/proc").glob("[0-9]*"):
        holders[int(folder.name)] = _process_words(int(folder.name), root / "proc")
    used: _Used = {}
    nodes = sorted((root / "sys/class/drm").glob("renderD*"), key=lambda path: int(path.name[len("renderD") :]))
    for index, node in enumerate(nodes):
        try:
            mib = int((node / "device/mem_info_vram_used").read_text(encoding="ascii")) // 2**20
        except (OSError, ValueError):
            continue
        used[index] = (mib, holders)
    return used, f"{len(nodes)} render nodes, of which {len(used)} say it: mem_info_vram_used of amdgpu"
