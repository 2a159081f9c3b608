# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``host_release``: whose intent made the plans, what was observed, and what would change."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions, whoami
from ansible_collections.glm.fleet.plugins.module_utils.serving import release
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import SCHEMA, Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import change, replica


class ActionModule(FleetAction):
    """Run the module on the host, with what the controller knows."""

    LABEL = "release"

    def _outcome(self) -> dict[str, Any]:
        given = dict(self._task.args)
        plans, seen, reports = (given.pop(name, None) or [] for name in ("plans", "seen", "reports"))
        if given.get("state") == "taken":
            given.update(plans=plans, schema=SCHEMA)
        elif given.get("state", "recorded") == "recorded" and plans and reports and all(one["ok"] for one in reports):
            given.update(plans=plans, release=self._made(plans, seen, reports))
            given["secret_files"] = [replica.secret_path(plan) for plan in plans]
        found = self._named(self._module(arguments=given))
        compares = given.get("state") == "compared" and not found.get("unreachable")
        return self._compared(found, plans) if compares else found

    def _compared(self, found: dict[str, Any], plans: list[Plan]) -> dict[str, Any]:
        """The change, in the place of what it was found from."""
        if found.get("failed"):
            # It keeps nobody from the deploy that mends it.
            return {"changed": False, "change": change.unread(plans), "warnings": [str(found["msg"])]}
        releases, then, differing = found.pop("releases"), found.pop("plans", []), found.pop("differing")
        last = next((one for one in releases if one["number"] == found["number"]), None)
        return {**found, "change": change.of_host(last, then, plans, self._intent(), differing)}

    def _made(self, plans: list[Plan], seen: list[Any], reports: list[Any]) -> release.Release:
        looked = {int(one["replica"]): one for one in seen}
        found = [release.observed(looked.get(int(plan["replica"]), {}), plan) for plan in plans]
        passed, made = map(sum, zip(*(finding.tally(one["checks"]) for one in reports)))
        now = report.now()
        return {
            "schema": 1,
            "number": 0,
            "content_sha256": release.content(plans, found),
            "made_at": now,
            "passed_at": now,
            "by": whoami.user_at_machine(),
            "collection": versions.COLLECTION,
            "intent": self._intent(),
            "observed": found,
            "verdict": {"passed": passed, "made": made},
            # Seen by the module.
            "driver": None,
        }

    def _intent(self) -> dict[str, Any]:
        """The values that plans are made of, where they are set; what is secret is not among them."""
        known = table.options(table.load())
        wanted = {entry.name: entry for entry in known.values() if not entry.secret}
        values = {name: self._task_vars[name] for name in wanted if name in self._task_vars}
        templated = {name: self._templar.template(value) for name, value in values.items()}
        return {name: value for name, value in templated.items() if value not in (None, "", wanted[name].default)}
