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
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import fleet

SEEN, PROBLEM = "__status_seen", "__status_problem"


class ActionModule(FleetAction):
    """Collect what the hosts said in this run from their variables."""

    LABEL = "status"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        now = time.time()
        found = fleet.fleet([self._host_status(host, now) for host in self._args["hosts"]])
        path = Path(self._args["state_dir"]).expanduser() / "status.json"
        self._show(["", *fleet.lines(found, now), ""])
        if not self._task.check_mode:
            try:
                files.write_json(path, found)
            except OSError as exc:
                text = advised(f"{path} cannot be written: {exc.strerror}", "set glm_state_dir to a folder that can")
                raise self._failure(text, report=found, path=str(path)) from None
        bad = [one["host"] for one in found["hosts"] if not one["ok"]]
        if bad or not found["hosts"]:
            text = advised(f"{len(bad)} of {len(found['hosts'])} hosts are not well: {', '.join(bad)}", "see above")
            # Not with the report, which would stand printed between the table and whoever reads it.
            raise self._failure(f"{text} Kept in {path}", path=str(path))
        return {"changed": False, "report": found, "path": str(path)}

    def _host_status(self, host: str, now: float) -> fleet.HostStatus:
        hostvars = self._task_vars.get("hostvars") or {}
        # Not with get: what it gives for a host that is not there differs between releases of ansible-core.
        variables: Mapping[str, Any] = hostvars[host] if host in hostvars else {}  # noqa: SIM401
        seen = dict(variables.get(SEEN) or {})
        plans = (variables.get("ansible_facts") or {}).get("glm_plans") or []
        price = _price(variables, plans)
        if seen.get("unreachable"):
            return fleet.unread(host, f"unreachable: {seen.get('msg', '')}", price)
        if "replicas" not in seen or not plans:
            why = str(seen.get("msg") or variables.get(PROBLEM) or "it was not asked")
            return fleet.unread(host, why, price)
        return fleet.of_host(host, plans, seen, price, now)


def _price(variables: Mapping[str, Any], plans: Sequence[Plan]) -> float | None:
    """What the host costs per hour: what its cloud says, else the one price that the catalogue has for it."""
    said = variables.get("glm_host_price_usd_per_hour")
    if said not in (None, ""):
        return float(said)
    provider = variables.get("glm_host_provider")
    known = [one["usd_per_hour"] for one in (plans[0]["prices"] if plans else []) if one["provider"] == provider]
    return float(known[0]) if known else None
