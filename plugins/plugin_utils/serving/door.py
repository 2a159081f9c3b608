# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front door of a serving host as data of its HAProxy configuration and unit: where it listens and what passes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.door import drain, maps, owned
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import ENGINE_ADDRESS
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Acme, Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.tls import ANSWER_PORT, CHALLENGE_PORT
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

UNIT, _USER, _SOCKET = drain.UNIT, drain.GROUP, drain.SOCKET
PROGRAM = "/usr/sbin/haproxy"
LOWEST_FREE_PORT = 1024

# Purposes of routes whose answers are counted by their tokens.
_GENERATING = ("chat", "completions", "responses", "messages")
# What stands for {name} and {name:path} in a path: nothing in it that an engine would resolve. Of what it decodes, only
# the colon and the slash of a model's name, which clients send encoded.
_SEGMENT = "[A-Za-z0-9_]([A-Za-z0-9_.:-]|%3[Aa])*"
_SEGMENTS = f"{_SEGMENT}((/|%2[Ff]){_SEGMENT})*"


def door(
    plans: Sequence[Plan],
    monitor_address: str = ENGINE_ADDRESS,
    monitor_port: int = 9800,
    peers: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything that the templates ``glm-door.cfg`` and ``glm-door.service`` and the role ``door`` need.

    Shapes: ``replicas`` is a list of ``number`` (int), ``name``, ``listen`` and ``engine`` (``address:port``), ``port``
    (int), ``health_path`` and ``alive_path``; ``monitor`` is ``address:port``; ``listen`` is that option of door_unit;
    ``routes`` is a list of ``path``, ``condition`` (HAProxy's) and ``generates`` (it runs the model); ``files`` maps
    names to absolute paths on the host, ``place`` is that option of door_files; ``tls`` is the plans'; ``acme`` is
    None, or ``listen`` and ``answers`` (``address:port``), ``peers`` and ``order`` (that option of door_order, without
    ``authorities``); ``asked`` has the units without which an authority is not answered; ``low_port`` is whether a port
    needs a capability; ``environment`` has the variables of its unit.

    ``peers`` is where other hosts are asked that have a name with this one (``address:port``).

    Replicas without an endpoint (further hosts of one over several) have no part in it. Raises UnitError when a value
    does not fit into HAProxy's configuration.
    """
    answering = [plan for plan in plans if not plan["node"]["rank"]]
    _require_free(answering, int(monitor_port))
    config = plans[0]["paths"]["config"]
    files = {
        "program": PROGRAM,
        "config": f"{config}/door/haproxy.cfg",
        "usage": f"{config}/door/usage.lua",
        "certificate": f"{config}/door/door.pem",
        "engine_key": replica.engine_key_file(plans[0]),
        "group": _USER,
    }
    return {
        "name": "glm-door",
        "description": "Front door of the GLM endpoints of this host",
        "unit": UNIT,
        "user": _USER,
        "program": files["program"],
        "place": files,
        "files": {
            **{name: files[name] for name in ("config", "usage", "certificate")},
            "unit": f"/etc/systemd/system/{UNIT}",
            **{name: f"{config}/door/{name}.map" for name in maps.NAMES},
            "drain": f"{config}/door/{owned.DRAIN_MAP}",
            "usage_program": "/usr/local/lib/glm/door_usage.py",
            "order": f"{config}/door/order.json",
            "authorities": f"{config}/door/authorities.pem",
            "order_program": "/usr/local/lib/glm/door_order",
            "master": _SOCKET,
        },
        "replicas": [_replica(plan) for plan in answering],
        # Replicas of a host have one address, and one certificate.
        "tls": plans[0]["tls"],
        "acme": _acme(answering, files, peers) if answering else None,
        "asked": [UNIT],
        "monitor": monitor(monitor_address, monitor_port),
        "listen": [
            *(
                {"address": one["listen"]["address"], "port": one["listen"]["port"], "variable": "glm_port"}
                for one in answering
            ),
            {"address": monitor_address, "port": int(monitor_port), "variable": "glm_monitor_port"},
            *(
                {"address": one["listen"]["address"], "port": CHALLENGE_PORT, "variable": "glm_tls"}
                for one in answering[:1]
                if _orders(one)
            ),
        ],
        # Replicas of a host run the same version of the same engine.
        "routes": [
            {**_route(route["path"], route["methods"]), "generates": route["purpose"] in _GENERATING}
            for route in plans[0]["door"]["routes"]
        ],
        "low_port": any(plan["listen"]["port"] < LOWEST_FREE_PORT or _orders(plan) for plan in answering),
        "environment": {},
    }


def watched(plans: Sequence[Plan]) -> dict[str, Any] | None:
    """Where a host's door is seen at work, as module_utils/serving/look.py takes it; None where it has no part.

    ``replicas``: by the name of its backend, where the host itself reaches each (``address``, ``port``). There is
    another backend for what does not run the model, ``<name>-other``. ``name``: whose certificate the door has.
    """
    answering = [plan for plan in plans if not plan["node"]["rank"]]
    if not answering:
        return None
    tls = plans[0]["tls"]
    return {
        "socket": _SOCKET,
        "certificate": f"{plans[0]['paths']['config']}/door/door.pem" if tls else "",
        "name": tls["names"][0] if tls else "",
        "replicas": {
            drain.name_of(plan["replica"]): {
                "address": replica.probe_address(plan["listen"]["address"]),
                "port": int(plan["listen"]["port"]),
            }
            for plan in answering
        },
    }


def _orders(plan: Plan) -> bool:
    """Whether the host orders its certificate."""
    return bool(plan["tls"] and plan["tls"]["acme"])


def _acme(plans: Sequence[Plan], files: Mapping[str, str], peers: Sequence[str]) -> dict[str, Any] | None:
    """Where an authority asks the door, and the order that the host's program takes; None where nothing is ordered."""
    encrypted = plans[0]["tls"]
    if not encrypted or not encrypted["acme"]:
        return None
    made = order(encrypted["acme"], encrypted["names"], files, UNIT, _SOCKET)
    return challenge(plans[0]["listen"]["address"], peers, made)


def order(acme: Acme, names: Sequence[str], files: Mapping[str, str], unit: str, socket: str) -> dict[str, Any]:
    """What the host's program takes to order the certificate of a door or a gateway, without ``authorities``."""
    return {
        **acme,
        "names": list(names),
        "answers": place(ENGINE_ADDRESS, ANSWER_PORT),
        "folder": "/var/lib/glm/certificate",
        "place": dict(files),
        "unit": unit,
        "socket": socket,
    }


def challenge(listens: str, peers: Sequence[str], made: Mapping[str, Any]) -> dict[str, Any]:
    """Where an authority asks what listens on the address ``listens``, who else may know the answer, and the order."""
    return {
        "listen": place(listens, CHALLENGE_PORT),
        "answers": made["answers"],
        "peers": list(peers),
        "order": made,
    }


def orders(plans: Sequence[Plan]) -> bool:
    """Whether the host has a door that an authority asks."""
    return any(_orders(plan) for plan in plans if not plan["node"]["rank"])


def monitor(monitor_address: str, port: int) -> str:
    """Where the monitoring listens, which asks for no key. Raises UnitError unless that is loopback or private."""
    try:
        problem = address.public_because(monitor_address)
    except ValueError:
        problem = "no IP address"
    if problem not in ("", address.LOOPBACK):
        raise UnitError(
            unmet(
                "the monitoring to listen on loopback or a private address: it asks for no key, and names the clients",
                f"{monitor_address}, which is {problem}",
                "set glm_monitor_address to one",
            )
        )
    return place(monitor_address, port)


def _require_free(plans: Sequence[Plan], monitor_port: int) -> None:
    """Raise UnitError when the port of the monitoring is one of a replica's."""
    taken = {plan["listen"][port] for plan in plans for port in ("port", "engine_port")}
    taken |= {CHALLENGE_PORT, ANSWER_PORT} if any(map(_orders, plans)) else set()
    if monitor_port in taken:
        raise UnitError(unmet("a port of its own for the monitoring", monitor_port, "set another glm_monitor_port"))


def _replica(plan: Plan) -> dict[str, Any]:
    number, listen = int(plan["replica"]), plan["listen"]
    return {
        "number": number,
        "name": drain.name_of(number),
        "listen": place(listen["address"], listen["port"]),
        "port": int(listen["port"]),
        "engine": place(ENGINE_ADDRESS, listen["engine_port"]),
        "health_path": plan["contract"]["health_path"],
        "alive_path": plan["contract"]["alive_path"],
    }


def place(host: str, port: int) -> str:
    """An address and a port as HAProxy reads them."""
    return f"{address.bracketed(host)}:{int(port)}"


def _route(path: str, methods: Sequence[str]) -> dict[str, str]:
    """A route as a condition on method and path. The path counts as it was sent: nothing is decoded or tidied up."""
    if not re.fullmatch(r"(/([A-Za-z0-9_.-]+|\{\w+(:path)?\}))+", path):
        raise UnitError(
            unmet("plain segments, {name} or {name:path} in the path of a route", repr(path), "see catalog/engines")
        )
    if "{" not in path:
        match = f"{{ path {path} }}"
    else:
        parts = re.split(r"(\{[^}]*\})", path)
        pattern = "".join(_parameter(part) if part.startswith("{") else re.escape(part) for part in parts)
        match = f"{{ path_reg ^{pattern}$ }}"
    return {"path": path, "condition": f"{{ method {' '.join(methods)} }} {match}"}


def _parameter(name: str) -> str:
    return _SEGMENTS if name.endswith(":path}") else _SEGMENT
