# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front door of a serving host as data of its HAProxy configuration and unit: where it listens and what passes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import ENGINE_ADDRESS
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError

UNIT = "glm-door.service"
_LOWEST_FREE_PORT = 1024

# Purposes of routes whose answers are counted by their tokens.
_GENERATING = ("chat", "completions", "responses", "messages")
# What stands for {name} in a path: one segment, nothing in it that an engine would decode or resolve.
_SEGMENT = "[A-Za-z0-9_][A-Za-z0-9_.:-]*"


def door(plans: Sequence[Plan], monitor_address: str = ENGINE_ADDRESS, monitor_port: int = 9800) -> dict[str, Any]:
    """Everything that the templates ``glm-door.cfg`` and ``glm-door.service`` and the role ``door`` need.

    Shapes: ``replicas`` is a list of ``number`` (int), ``name``, ``listen`` and ``engine`` (``address:port``), ``port``
    (int) and ``health_path``; ``monitor`` is ``address:port``; ``listen`` is that option of the module door_unit;
    ``routes`` is a list of ``path``, ``condition`` (HAProxy's) and ``generates`` (it runs the model); ``files`` maps
    names to absolute paths on the host; ``tls`` is the plans'; ``low_port`` is whether a port needs a capability.

    Replicas without an endpoint (further hosts of one over several) have no part in it. Raises UnitError when a value
    does not fit into HAProxy's configuration.
    """
    answering = [plan for plan in plans if not plan["node"]["rank"]]
    _require_inside(monitor_address)
    _require_free(answering, int(monitor_port))
    config = plans[0]["paths"]["config"]
    return {
        "unit": UNIT,
        "user": "glm-door",
        "program": "/usr/sbin/haproxy",
        "files": {
            "unit": f"/etc/systemd/system/{UNIT}",
            "config": f"{config}/door/haproxy.cfg",
            "keys": f"{config}/door/keys.map",
            "expires": f"{config}/door/expires.map",
            "requests": f"{config}/door/requests.map",
            "parallel": f"{config}/door/parallel.map",
            "tokens": f"{config}/door/tokens.map",
            "usage": f"{config}/door/usage.lua",
            "usage_program": "/usr/local/lib/glm/door_usage.py",
            "certificate": f"{config}/door/door.pem",
            "engine_key": replica.engine_key_file(plans[0]),
            "socket": "/run/glm-door/admin.sock",
            "master": "/run/glm-door/master.sock",
        },
        "replicas": [_replica(plan) for plan in answering],
        # Replicas of a host have one address, and one certificate.
        "tls": plans[0]["tls"],
        "monitor": _place(monitor_address, monitor_port),
        "listen": [
            *(
                {"address": one["listen"]["address"], "port": one["listen"]["port"], "variable": "glm_port"}
                for one in answering
            ),
            {"address": monitor_address, "port": int(monitor_port), "variable": "glm_monitor_port"},
        ],
        # Replicas of a host run the same version of the same engine.
        "routes": [
            {**_route(route["path"], route["methods"]), "generates": route["purpose"] in _GENERATING}
            for route in plans[0]["door"]["routes"]
        ],
        "low_port": any(plan["listen"]["port"] < _LOWEST_FREE_PORT for plan in answering),
    }


def _require_inside(monitor_address: str) -> None:
    """Raise UnitError for an address of the monitoring, which asks for no key, that is not loopback or private."""
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


def _require_free(plans: Sequence[Plan], monitor_port: int) -> None:
    """Raise UnitError when the port of the monitoring is one of a replica's."""
    taken = {plan["listen"][port] for plan in plans for port in ("port", "engine_port")}
    if monitor_port in taken:
        raise UnitError(unmet("a port of its own for the monitoring", monitor_port, "set another glm_monitor_port"))


def _replica(plan: Plan) -> dict[str, Any]:
    number, listen = int(plan["replica"]), plan["listen"]
    return {
        "number": number,
        "name": f"engine-{number}",
        "listen": _place(listen["address"], listen["port"]),
        "port": int(listen["port"]),
        "engine": _place(ENGINE_ADDRESS, listen["engine_port"]),
        "health_path": plan["contract"]["health_path"],
    }


def _place(host: str, port: int) -> str:
    return f"{address.bracketed(host)}:{int(port)}"


def _route(path: str, methods: Sequence[str]) -> dict[str, str]:
    """A route as a condition on method and path. The path counts as it was sent: nothing is decoded or tidied up."""
    if not re.fullmatch(r"(/([A-Za-z0-9_.-]+|\{\w+(:\w+)?\}))+", path):
        raise UnitError(
            unmet("the path of a route to be of plain segments or {name}", repr(path), "see catalog/engines")
        )
    literal = re.split(r"\{[^}]*\}", path)
    if len(literal) == 1:
        match = f"{{ path {path} }}"
    else:
        match = f"{{ path_reg ^{_SEGMENT.join(re.escape(part) for part in literal)}$ }}"
    return {"path": path, "condition": f"{{ method {' '.join(methods)} }} {match}"}
