# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host lets in: its listening TCP sockets, and what somebody elsewhere gets who tries them.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. The same code tries from the
controller, from a neighbour of the fleet, and from the host itself.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.address import bracketed
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, NoAnswer, ask
from ansible_collections.glm.fleet.plugins.module_utils.serving.occupancy import Runner
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust

# A port behind a filter says nothing; one that answers does so sooner than this.
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
_AT_ONCE = 64
# No door lets it pass, and vLLM answers a whole chat on it without a key.
UNLISTED = "/invocations"


class Place(TypedDict):
    """A socket as others could reach it.

    ``unit``: the collection's own that it belongs to; empty for others, None where nobody could see whose it is.
    """

    address: str
    port: int
    process: str
    unit: Optional[str]


class Answers(TypedDict):
    """HTTP status of each question to a door; 0 where it was not asked, or not answered, which ``problem`` explains."""

    no_key: int
    wrong_key: int
    right_key: int
    unlisted: int
    problem: str


def places(run: Runner, addresses: Sequence[str], proc: Path = Path("/proc")) -> list[Place]:
    """Every listening TCP socket that is not on loopback, by address; one on all addresses is on each of these.

    A host that is asked over ssh listens at least for that, so an empty list is a failed reading.
    """
    owners = occupancy.processes_by_socket(proc)
    found: dict[tuple[str, int], Place] = {}
    for where, port, inode in occupancy.listening(proc):
        if where.is_loopback or where.is_link_local:
            continue
        holder = occupancy.holder(run, owners.get(inode), port, proc)
        unit = None if holder == occupancy.UNSEEN else holder.unit or ""
        for address in _addresses(where, addresses):
            found[address, port] = {"address": address, "port": port, "process": holder.words, "unit": unit}
    return [found[key] for key in sorted(found)]


def _addresses(where: occupancy.Address, own: Sequence[str]) -> list[str]:
    if not where.is_unspecified:
        return [str(where)]
    known = [one for name in own for one in _resolved(name)]
    # A wildcard IPv6 socket takes IPv4, too.
    return [str(one) for one in known if where.version == 6 or one.version == 4]


def _resolved(name: str) -> list[occupancy.Address]:
    """The addresses of a name or an address by which others could reach it; none for a name that nobody knows here.

    Loopback is whoever asks, so it is no address of this host for anybody else.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    known = [ipaddress.ip_address(entry[4][0]) for entry in found]
    return [one for one in known if not one.is_loopback]


def tried(where: Sequence[Mapping[str, Any]], seconds: float = CONNECT_SECONDS) -> list[str]:
    """What came of a connection to each place: ``open``, ``refused``, ``silent``, or the system's own words."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda place: _tried(str(place["address"]), int(place["port"]), seconds), where))


def _tried(address: str, port: int, seconds: float) -> str:
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except socket.timeout:
        return "silent"
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, "") + f" {exc.strerror or exc}"
    return "open"


class Seen(TypedDict):
    """An outcome for each place, and what each open door answered, by ``address:port``."""

    outcomes: list[str]
    answers: dict[str, Answers]


def seen(
    where: Sequence[Mapping[str, Any]], doors: Sequence[int], key: Optional[str], trust: Optional[Trust] = None
) -> Seen:
    """Try each place; those that are open on one of the ports of ``doors`` are asked as clients do, with their key."""
    outcomes = tried(where)
    found: dict[str, Answers] = {}
    for place, outcome in zip(where, outcomes):
        if outcome == "open" and int(place["port"]) in doors:
            address, port = str(place["address"]), int(place["port"])
            door = Endpoint(address, port, "", key, trust, timeout=ANSWER_SECONDS)
            found[f"{bracketed(address)}:{port}"] = answers(door)
    return {"outcomes": outcomes, "answers": found}


def answers(door: Endpoint) -> Answers:
    """What a door answers without a key, with a wrong or the right one, and on a route that is not for clients."""
    found: Answers = {"no_key": 0, "wrong_key": 0, "right_key": 0, "unlisted": 0, "problem": ""}
    try:
        found["no_key"] = _status(door, "GET", "/v1/models", None)
        found["wrong_key"] = _status(door, "GET", "/v1/models", "glm-wrong-key")
        found["unlisted"] = _status(door, "POST", UNLISTED, None)
        if door.tls or ipaddress.ip_address(door.address).is_loopback:
            # Without TLS whoever has this address here would be given the key.
            found["right_key"] = _status(door, "GET", "/v1/models", door.api_key)
    except NoAnswer as exc:
        found["problem"] = str(exc)
    return found


def _status(door: Endpoint, method: str, path: str, key: Optional[str]) -> int:
    return ask(door, method, path, {} if method == "POST" else None, key).status
