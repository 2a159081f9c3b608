# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway of a fleet as data of its HAProxy configuration and unit: its address, and the doors behind it. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.door import gateway as running
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import command, tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door, shipped
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

_USER = "glm-door"
_FOLDER = "/etc/glm/gateway"
# A door lets an address have 1,000 connections, for all its replicas together. A gateway has two proxies for each
# (conversations, and the rest); some connections are for /ready and for what comes past the gateway.
_MOST_REQUESTS = 450
# Below so many open requests for each replica, and so many in all, a conversation stays with its host, however many
# that has.
_FEW_EACH, _FEW = 3, 64
# So that one can end or be updated while the other works.
_GATEWAYS = 2
# What a machine trusts, where a fleet's certificates are of a public authority.
_SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"

# A request takes buffers of half a MiB, which HAProxy does not keep. By default the C library gets each from the kernel
# and gives it back, which took a third of the time that a gateway adds (tests/benchmark/door_latency.py). Bytes.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=268435456"}


def gateway(fleet: Sequence[Mapping[str, Any]], here: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the templates ``glm-gateway.cfg`` and ``glm-door.service`` and the role ``gateway`` need.

    ``fleet`` has a mapping for each host: ``host`` (its name), ``plans``, and ``address``, by which the gateway reaches
    a door that listens on every address. ``here`` is about the gateway's own host: ``host`` (its name), ``bind``,
    ``private_address``, ``public_address``, ``port``, ``tls`` (glm_tls), ``names`` (of the gateways), ``tls_names`` (of
    the host), ``acme_directory``, ``acme_email``, ``acme_agree``, ``peers`` (as door() takes it), ``authorities`` (as
    PEM, or empty), ``monitor_address``, ``monitor_port``, ``requests`` and ``queue``.

    Shapes: ``replicas`` is a list of ``name``, ``address`` (``address:port``), ``requests`` (int), ``tls`` (bool) and
    ``host_name`` (the DNS name of its certificate, or empty); ``few`` (int) is the number of open requests below which
    no host is relieved; the rest as :func:`..door.door` has it, where ``listen``
    of ``acme`` is empty if the door of this host has that port. Raises UnitError.
    """
    try:
        listens = command.listen_address(here["bind"], here["private_address"] or None, here["public_address"] or None)
        named = [*here["names"], *here["tls_names"]]
        origin, names = tls.asked(listens, here["public_address"] or None, here["tls"], named)
        if origin == "acme":
            tls.require_issuable(listens, names, here["acme_directory"], bool(here["acme_agree"]))
    except PlanError as exc:
        raise UnitError(f"gateway: {exc}") from exc
    monitor = door.monitor(here["monitor_address"], here["monitor_port"])
    port = int(here["port"])
    if not 0 < int(here["requests"]) <= _MOST_REQUESTS:
        expected = f"a number of requests from 1 to {_MOST_REQUESTS}, which a door lets an address have"
        raise UnitError(unmet(expected, here["requests"], "set glm_gateway_requests to one"))
    replicas = [one for host in fleet for one in _replicas(host, int(here["requests"]))]
    _require_own_port(fleet, listens, port, int(here["monitor_port"]), origin)
    if ipaddress.ip_address(listens).is_loopback:
        raise UnitError(
            unmet(
                "clients to reach the gateway", f"glm_bind {here['bind']}, which is loopback", "set glm_bind to private"
            )
        )
    place = {
        "program": door.PROGRAM,
        "config": running.CONFIG,
        "usage": f"{_FOLDER}/gateway.lua",
        "certificate": f"{_FOLDER}/gateway.pem",
        "group": _USER,
    }
    acme = _acme(fleet, here, listens, names, place) if origin == "acme" else None
    return {
        "name": "glm-gateway",
        "description": "Gateway of the GLM endpoints of a fleet",
        "unit": running.UNIT,
        "user": _USER,
        "program": place["program"],
        "place": place,
        "files": {
            **{name: place[name] for name in ("config", "usage", "certificate")},
            "unit": running.UNIT_FILE,
            "authorities": f"{_FOLDER}/authorities.pem" if here["authorities"] else _SYSTEM_AUTHORITIES,
            "order": f"{_FOLDER}/order.json",
            "order_program": shipped.folder_of("door_order"),
            "master": running.SOCKET,
        },
        "replicas": replicas,
        "tls": None if origin == "none" else {"origin": origin, "names": names},
        "acme": acme,
        "asked": [running.UNIT, *([door.UNIT] if acme and not acme["listen"] else [])],
        "bind": door.place(listens, port),
        "url": f"{'http' if origin == 'none' else 'https'}://{door.place((names or [listens])[0], port)}/v1",
        "monitor": monitor,
        "listen": [
            {"address": listens, "port": port, "variable": "glm_gateway_port"},
            {
                "address": here["monitor_address"],
                "port": int(here["monitor_port"]),
                "variable": "glm_gateway_monitor_port",
            },
            *(
                [{"address": listens, "port": tls.CHALLENGE_PORT, "variable": "glm_tls"}]
                if acme and acme["listen"]
                else []
            ),
        ],
        "queue": int(here["queue"]),
        # Of the requests that a replica gets at a time, so that nothing waits for a busy host while another is free.
        "few": min([_FEW, _FEW_EACH * len(replicas), *(one["requests"] // 2 for one in replicas)]),
        # In the configuration, so that other authorities are a change of it, which the running HAProxy reads.
        "authorities_sha256": hashlib.sha256(str(here["authorities"]).encode()).hexdigest(),
        "low_port": port < door.LOWEST_FREE_PORT or bool(acme and acme["listen"]),
        "environment": ENVIRONMENT,
    }


def gateway_doors(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What :func:`gateway` needs of the fleet's hosts, those that have a plan; ``hostvars`` is Ansible's."""
    found = []
    for host in hosts:
        known = hostvars[host]
        plans = (known.get("ansible_facts") or {}).get("glm_plans")
        if plans:
            found.append({"host": host, "plans": plans, "address": _reached(known)})
    return found


def gateway_peers(hosts: Sequence[str], host: str, hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the other gateways are asked by an authority that may have meant ``host``, which has a name with them.

    ``hosts`` are those that run a gateway; none where ``host`` is not among them. ``hostvars`` is Ansible's.
    """
    others = [_reached(hostvars[other]) for other in hosts if other != host] if host in hosts else []
    return [door.place(reached, tls.CHALLENGE_PORT) for reached in others if reached]


def _reached(known: Mapping[str, Any]) -> str:
    """The address by which other hosts of the fleet reach a host; empty where none is known."""
    ways = ("glm_private_address", "glm_host_private_address", "glm_host_public_address")
    return str(next((known[way] for way in ways if known.get(way)), ""))


def default_gateways(hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], ports: Sequence[Any] = ()) -> int:
    """How many gateways a fleet of these hosts has where nobody says; ``hostvars`` is Ansible's.

    None for a single endpoint, for a fleet with a door that no gateway reaches (on loopback, or without a known
    address), for hosts of several regions, whose private addresses do not reach each other, and where a replica has one
    of the gateway's ``ports``. A host without a plan (``--limit``) counts as one that others reach.
    """
    known = gateway_doors(hosts, hostvars) if len(hosts) >= _GATEWAYS else []
    answering = [[plan for plan in host["plans"] if _answers(plan)] for host in known]
    endpoints = len(hosts) - answering.count([])
    doors = [(host["address"], plan["listen"]) for host, plans in zip(known, answering) for plan in plans]
    reached = all(_door_address(at, listen["address"]) for at, listen in doors)
    taken = {int(listen["port"]) for _at, listen in doors} & {int(port) for port in ports}
    regions = {hostvars[host].get("glm_host_region") for host in hosts} - {None, ""}
    return _GATEWAYS if endpoints >= _GATEWAYS and reached and not taken and len(regions) <= 1 else 0


def _door_address(known: str, listens: str) -> str:
    """Where a gateway reaches a door that listens there, on a host with a known address; empty where it does not."""
    reached = known if address.is_wildcard(listens) else listens
    return "" if not reached or ipaddress.ip_address(reached).is_loopback else reached


def replica_name(host: str, number: int) -> str:
    """What gateways call a replica of a host."""
    return running.written(f"{host}-{number}")


def _answers(plan: Plan) -> bool:
    """Whether the replica answers on this host: of several hosts, the first does."""
    return not plan["node"]["rank"]


def _replicas(host: Mapping[str, Any], requests: int) -> list[dict[str, Any]]:
    answering = [plan for plan in host["plans"] if _answers(plan)]
    return [_replica(host, plan, min(requests, _MOST_REQUESTS // len(answering))) for plan in answering]


def _replica(host: Mapping[str, Any], plan: Plan, requests: int) -> dict[str, Any]:
    listen, encrypted = plan["listen"], plan["tls"]
    reached = _door_address(host["address"], listen["address"])
    if not reached:
        raise UnitError(
            unmet(
                f"an address of {host['host']} by which a gateway reaches its door",
                host["address"] or "none" if address.is_wildcard(listen["address"]) else listen["address"],
                "set glm_bind to private, and glm_private_address where the inventory does not know it",
            )
        )
    name = encrypted["names"][0] if encrypted else ""
    return {
        "name": replica_name(host["host"], plan["replica"]),
        "address": door.place(reached, listen["port"]),
        "requests": requests,
        "tls": bool(encrypted),
        "host_name": "" if not name or address.is_address(name) else name,
    }


def _acme(
    fleet: Sequence[Mapping[str, Any]],
    here: Mapping[str, Any],
    listens: str,
    names: Sequence[str],
    place: Mapping[str, str],
) -> dict[str, Any]:
    """Where an authority asks, and the order. A door of the same host passes questions on for both."""
    asked = tls.asked_of(listens, here["public_address"] or None, here["acme_directory"], here["acme_email"])
    made = door.challenge(listens, here["peers"], door.order(asked, names, place, running.UNIT, running.SOCKET))
    of_the_door = any(door.orders(host["plans"]) for host in fleet if host["host"] == here["host"])
    return {**made, "listen": ""} if of_the_door else made


def _require_own_port(
    fleet: Sequence[Mapping[str, Any]], listens: str, port: int, monitor_port: int, origin: str
) -> None:
    """Raise UnitError where the gateway would take a port that a door of its own host has, or one of an order."""
    if origin == "acme" and {port, monitor_port} & {tls.CHALLENGE_PORT, tls.ANSWER_PORT}:
        expected = "a port of its own for the gateway: an authority asks at port 80, and certbot answers at 981"
        raise UnitError(unmet(expected, port, "set another glm_gateway_port and glm_gateway_monitor_port"))
    for host in fleet:
        for plan in host["plans"]:
            same = plan["listen"]["address"] == listens or address.is_wildcard(plan["listen"]["address"])
            if same and {port, monitor_port} & {plan["listen"]["port"], plan["listen"]["engine_port"]}:
                raise UnitError(
                    unmet(
                        "a port of its own for the gateway", f"{port}, a port of {host['host']}", "set glm_gateway_port"
                    )
                )
