# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``host_status``: where on the host to look, by its plans."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking, door, logs, running
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import read_authorities


class ActionModule(FleetAction):
    """Run the module on the host."""

    LABEL = "status"
    ARGUMENTS = {
        "plans": {"type": "list", "elements": "dict", "default": []},
        "whole": {"type": "bool", "default": False},
        "sample_seconds": {"type": "float", "default": 1},
        "tls_ca": {"type": "path"},
    }

    def _outcome(self) -> dict[str, Any]:
        plans = self._args["plans"]
        asked: dict[str, Any] = {"replicas": [running.wanted(plan) for plan in plans]}
        if self._args["whole"]:
            asked |= {"whole": True, "sample_seconds": self._args["sample_seconds"]}
            asked |= {"metrics": asking.every_metric_rule(), "rules": logs.rules(plans[0]["engine"] if plans else None)}
            asked["door"] = self._door(plans)
        return self._named(self._module(arguments=asked))

    def _door(self, plans: list[Plan]) -> dict[str, Any] | None:
        """Where the door of the host is, and whom its certificate must be signed by."""
        found, file = door.watched(plans), self._args["tls_ca"]
        try:
            authorities = read_authorities(file) if found and found["name"] and file else ""
        except Unmet:
            # Before the first deploy there is none; then no door says to this host that it drains.
            authorities = ""
        return {**found, "authorities": authorities} if found else None
