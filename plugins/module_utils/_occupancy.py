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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional, Union

from ansible_collections.glm.fleet.plugins.module_utils._host_commands import CommandResult

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Runner = Callable[[Sequence[str]], CommandResult]
_LISTENING = "0A"  # include/net/tcp_states.h
# A driver keeps a few hundred MiB for itself; an engine takes tens of GiB.
GPU_MEMORY_FREE_MIB = 2048


def port_owner(run: Runner, address: str, port: int, proc: Path = Path("/proc")) -> Optional[str]:
    """Who listens on ``address:port`` (or on the wildcard), in words; None when it is free."""
    inodes = _listening_inodes(address, port, proc)
    published = run(["docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}} ({{.Image}})"])
    containers = published.stdout.split("\n")[0].strip() if published.ok else ""
    if not inodes:
        return None
    if containers:
        return f"the container {containers}"
    return _process_with(inodes, proc) or "a process that cannot be seen from here"


def address_problem(address: str) -> Optional[str]:
    """Why nothing on this host can listen on ``address``; None when something can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _listening_inodes(address: str, port: int, proc: Path) -> set[str]:
    wanted = ipaddress.ip_address(address)
    found = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            rows = (proc / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            host, number = fields[1].partition(":")[::2]
            if fields[3] == _LISTENING and int(number, 16) == port and _overlaps(wanted, _kernel_address(host)):
                found.add(fields[9])
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


def _process_with(inodes: set[str], proc: Path) -> Optional[str]:
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        if not sockets.isdisjoint(_open_files(folder)):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                name = (folder / "comm").read_text(encoding="utf-8").strip()
            except OSError:
                continue
            return f"process {folder.name} ({name}: {_without_values(command)[:120]})"
    return None


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


def gpu_users(run: Runner, vendor: str) -> list[str]:
    """GPUs whose memory others hold, and the processes that hold it; empty when free or when nothing can tell."""
    if vendor != "nvidia":
        return []
    answer = run(["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"])
    if not answer.ok:
        return []
    busy = []
    for row in answer.stdout.splitlines():
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", row)
        if match and int(match.group(2)) > GPU_MEMORY_FREE_MIB:
            busy.append(f"GPU {match.group(1)}: {int(match.group(2))} MiB")
    if not busy:
        return []
    holders = run(
        ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    )
    names = [f"process {' '.join(row.split())}" for row in holders.stdout.splitlines() if row.strip()]
    return busy + (names if holders.ok else [])
