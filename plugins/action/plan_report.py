# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print serving plans for people and keep them for machines. Documented in ``plugins/modules/plan_report.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan


class ActionModule(FleetAction):
    """Read the plans that the hosts have as facts."""

    LABEL = "plan"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "path": {"type": "path", "required": True},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        found = {host: self._plans(host) for host in args["hosts"]}
        plans = {
            host if len(own) == 1 else f"{host}#{plan['replica']}": plan for host, own in found.items() for plan in own
        }
        missing = sorted(host for host, own in found.items() if not own)
        if plans:
            self._show(["", *plan_text.report(plans), ""])
        path = Path(args["path"]).expanduser()
        try:
            changed = plan_text.keep(path, plans, write=not self._task.check_mode)
        except OSError as exc:
            text = advised(f"{path} cannot be written: {exc}", "set glm_state_dir to a folder that can")
            raise self._failure(text) from None
        planned = sorted(host for host, own in found.items() if own)
        result: dict[str, Any] = {"changed": changed, "path": str(path), "hosts": planned}
        if missing or not plans:
            text = f"expected a plan for every host, found none for {', '.join(missing) or 'any host'}"
            raise self._failure(advised(text, "read their errors above"), **result)
        return result

    def _plans(self, host: str) -> list[Plan]:
        # hostvars has no facts of a localhost that no inventory names.
        hostvars: Any = self._task_vars.get("hostvars") or {}
        # hostvars[host] looks for templates in each text of a plan, 9 ms a host instead of 2, and facts are data.
        read: Callable[[str], Mapping[str, Any]] = getattr(hostvars, "raw_get", hostvars.get)
        there = self._task_vars if host == self._host else {}
        found = read(host) if not there and host in hostvars else there
        plans: list[Plan] = (found.get("ansible_facts") or {}).get("glm_plans") or []
        return plans
