# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what every host of a fleet is doing. Documented in ``plugins/modules/fleet_status.py``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import fleet, fleet_gateways

SEEN, PROBLEM = "__status_seen", "__status_problem"


class ActionModule(FleetAction):
    """Collect what the hosts said in this run from their variables."""

    LABEL = "status"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "gateways": {"type": "list", "elements": "str", "default": []},
        "state_dir": {"type": "path", "required": True},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        now = time.time()
        hosts = [self._host_status(host, now) for host in self._args["hosts"]]
        found = fleet.fleet(hosts, self._gateways(hosts, now))
        path = Path(self._args["state_dir"]).expanduser() / "status.json"
        self._show(["", *fleet.lines(found, now), ""])
        if not self._task.check_mode:
            try:
                files.write_json(path, found)
            except OSError as exc:
                text = advised(f"{path} cannot be written: {exc.strerror}", "set glm_state_dir to a folder that can")
                raise self._failure(text, report=found, path=str(path)) from None
        if not found["ok"]:
            bad = [one["host"] for one in found["hosts"] if not one["ok"]]
            wrong = f"{len(bad)} of {len(found['hosts'])} hosts are not well: {', '.join(bad)}"
            gateways = ", ".join(one["host"] for one in found["gateways"] if not one["ok"])
            words = [
                *([wrong] if bad or not gateways else []),
                *([f"gateways are not well: {gateways}"] if gateways else []),
            ]
            text = advised("; ".join(words), "see above")
            # Not with the report, which would stand printed between the table and whoever reads it.
            raise self._failure(f"{text} Kept in {path}", path=str(path))
        return {"changed": False, "report": found, "path": str(path)}

    def _host_status(self, host: str, now: float) -> fleet.HostStatus:
        variables = self._known(host)
        seen, plans = _seen(variables), _plans(variables)
        price = _price(variables, plans)
        if seen is None or not plans:
            return fleet.unread(host, _why(variables), price)
        return fleet.of_host(host, plans, seen, price, now)

    def _gateways(self, hosts: Sequence[fleet.HostStatus], now: float) -> list[fleet_gateways.GatewayStatus]:
        """The gateways that there are, or should be, on the fleet's hosts and others."""
        names = list(dict.fromkeys([*self._args["hosts"], *self._args["gateways"]]))
        known = {name: self._known(name) for name in names}
        plans = {name: _plans(variables) for name, variables in known.items()}
        compared = fleet.behind_gateways(hosts, plans, self._args["gateways"])
        found = []
        for name, variables in known.items():
            seen = _seen(variables)
            gateway = None if seen is None else seen["gateway"]
            found.append(fleet_gateways.of_host(name, gateway, _why(variables), compared, now))
        return [one for one in found if one is not None]

    def _known(self, host: str) -> Mapping[str, Any]:
        """The variables of a host; none of one that is not there."""
        hostvars = self._task_vars.get("hostvars") or {}
        # Not with get: what it gives for a host that is not there differs between releases of ansible-core.
        return hostvars[host] if host in hostvars else {}  # noqa: SIM401


def _plans(variables: Mapping[str, Any]) -> Sequence[Plan]:
    return (variables.get("ansible_facts") or {}).get("glm_plans") or []


def _seen(variables: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a host said of itself; None of one that was not read."""
    seen = variables.get(SEEN) or {}
    return seen if "replicas" in seen else None


def _why(variables: Mapping[str, Any]) -> str:
    """Why a host was not read."""
    said = variables.get(SEEN) or {}
    if said.get("unreachable"):
        return f"unreachable: {said.get('msg', '')}"
    return str(said.get("msg") or variables.get(PROBLEM) or "it was not asked")


def _price(variables: Mapping[str, Any], plans: Sequence[Plan]) -> float | None:
    """What the host costs per hour: what its cloud says, else the one price that the catalogue has for it."""
    said = variables.get("glm_host_price_usd_per_hour")
    if said not in (None, ""):
        return float(said)
    provider = variables.get("glm_host_provider")
    known = [one["usd_per_hour"] for one in (plans[0]["prices"] if plans else []) if one["provider"] == provider]
    return float(known[0]) if known else None
