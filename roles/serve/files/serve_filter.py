# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a replica's processes may talk to: the host itself, the replica's other hosts, and nobody else.

Used by serve_guard.py. Standard library, Python 3.9 or newer. Engines open ports without a key (torch's store, ZMQ,
NCCL). systemd filters the traffic of every process in the replica's slice, a container's included, with programs in the
kernel, whichever way a packet came: Docker before 28 lets a neighbour that sets a route past the address a port is
published on. Where kernel or control groups cannot, systemd only writes a line to its log, so the filter is tried.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SYSTEMCTL = "/usr/bin/systemctl"
DOCKER = "/usr/bin/docker"
# A filter that was just set is in force at once; a busy systemd may take a moment to set it.
SETTLE_SECONDS = 10
_LOOPBACK = ("127.0.0.0/8", "::1")
# The port of the service `discard`. Nothing need listen there: a datagram counts as sent when no filter stopped it.
_PORT = 9


class FilterError(Exception):
    """The filter cannot be had, or is not in force; the text says what to do."""


def run(*words: str) -> str:
    """Output of a command; raises FilterError with its own words when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FilterError(f"{' '.join(words[:2])} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def listing() -> str:
    """The host's interfaces and addresses."""
    return run("ip", "-json", "address", "show")


def own_addresses(listed: str) -> list[str]:
    """The addresses of interfaces that are up, from ``listing``, without loopback and link-local ones.

    The kernel takes none of them as the sender of a packet from outside.
    """
    found = []
    for interface in json.loads(listed):
        if "UP" in interface.get("flags", ()):
            found += [ipaddress.ip_address(info["local"]) for info in interface["addr_info"] if "local" in info]
    kept = [address for address in found if not address.is_loopback and not address.is_link_local]
    # IPv4 first: what is tried must not depend on the order of interfaces.
    return [str(address) for address in sorted(kept, key=lambda address: address.version)]


def interface_of(address: str, listed: str) -> str:
    """The interface that has one of this host's addresses, from ``listing``. Raises FilterError when none has it."""
    wanted = ipaddress.ip_address(address)
    for interface in json.loads(listed):
        for info in interface["addr_info"]:
            if "local" in info and ipaddress.ip_address(info["local"]) == wanted and "UP" in interface["flags"]:
                return str(interface["ifname"])
    raise FilterError(
        f"expected {address} to be an address of this host, found {', '.join(own_addresses(listed)) or 'none'}. Next: "
        "set glm_private_address to the one in the network that the replica's hosts share"
    )


def set_allowed(slice_name: str, addresses: list[str]) -> None:
    """Have systemd deny everything to the slice but loopback and ``addresses``, until the next boot."""
    # The empty value drops what an earlier start allowed. A list takes no words such as localhost.
    allowed = " ".join([*_LOOPBACK, *addresses])
    words = ["IPAddressDeny=any", "IPAddressAllow=", f"IPAddressAllow={allowed}"]
    run(SYSTEMCTL, "set-property", "--runtime", slice_name, *words)


def passes(address: str) -> bool:
    """Whether this process may send to an address. Raises OSError when that fails for another reason than a filter."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.sendto(b"", (address, _PORT))
        except PermissionError:
            return False
    return True


def _becomes(address: str, wanted: bool) -> bool:
    """Whether ``passes`` is, or soon becomes, what it should be."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while passes(address) is not wanted:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
    return True


def group_of(process: str) -> str:
    """The control group (v2) of a process, as a path; empty where there is none."""
    rows = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8").splitlines()
    return next((row[3:] for row in rows if row.startswith("0::")), "")


def require_inside(slice_name: str, process: str = "self") -> None:
    """Raise FilterError unless a process is below the slice that this one is in, where the filter holds."""
    own, name = group_of("self"), f"/{slice_name}/"
    if name not in own:
        raise FilterError(
            f"expected the guard in the control group of {slice_name}, found {own!r}. Next: boot with control groups "
            "v2 (systemd.unified_cgroup_hierarchy=1)"
        )
    # The whole path: Docker's other driver makes a group of the same name elsewhere, which systemd does not filter.
    if not group_of(process).startswith(own[: own.index(name) + len(name)]):
        raise FilterError(
            f"expected process {process} in the control group of {slice_name}, found {group_of(process)!r}. Next: "
            "let Docker use systemd's control groups (docker info: Cgroup Driver; native.cgroupdriver=systemd in "
            "/etc/docker/daemon.json), and restart it"
        )


def close(slice_name: str, peers: list[str]) -> None:
    """Close the replica's network but to its own hosts, and prove it with a packet: refused before, let through after.

    Raises FilterError when the filter is not in force.
    """
    require_inside(slice_name)
    own = own_addresses(listing())
    set_allowed(slice_name, [])
    if own and not _becomes(own[0], False):
        raise FilterError(
            f"systemd's filter (IPAddressDeny= of {slice_name}) is not in force: a packet to {own[0]} was sent. Ports "
            "of the engine that take no key would be open to neighbours. Next: boot with control groups v2 "
            "(systemd.unified_cgroup_hierarchy=1), with a kernel that has CONFIG_CGROUP_BPF"
        )
    set_allowed(slice_name, [*own, *peers])
    if own and not _becomes(own[0], True):
        raise FilterError(
            f"a packet to this host's own address {own[0]} is refused, although {slice_name} allows it. Next: look for "
            "rules of this host's firewall (nft list ruleset)"
        )


def _is_address(word: str) -> bool:
    """Whether Docker names an address. One that is not there is nothing to Docker before 29, and "invalid IP" since."""
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return True


def admitted(slice_name: str, container: str, peers: list[str]) -> bool:
    """Let a container on a network of its own reach itself, once it runs: engines talk to themselves by its addresses.

    Whether it runs already. Raises FilterError when it is outside the slice.
    """
    form = "{{.State.Pid}} {{.HostConfig.NetworkMode}}{{range .NetworkSettings.Networks}} {{.IPAddress}}{{end}}"
    try:
        process, network, *words = run(DOCKER, "inspect", "--format", form, container).split()
    except FilterError:
        return False
    # On the host's network its addresses are the host's own.
    addresses = [] if network == "host" else [word for word in words if _is_address(word)]
    if process == "0" or not (addresses or network == "host"):
        return False
    require_inside(slice_name, process)
    if addresses:
        set_allowed(slice_name, [*own_addresses(listing()), *peers, *addresses])
    return True


def admit(slice_name: str, container: str, peers: list[str], going: Callable[[], bool]) -> None:
    """Wait for ``admitted``, as long as the container's client is ``going``."""
    while going() and not admitted(slice_name, container, peers):
        time.sleep(0.2)
