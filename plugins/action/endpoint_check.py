# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``endpoint_check``: is the port closed, keep the verdict, name what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.glm.fleet.plugins.plugin_utils import verdict

CONTROLLER_OPTIONS = ("closed_address", "report", "plan")


class ActionModule(ActionBase):
    """Run the module on the host, add the view from outside, write the report."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        args = dict(self._task.args)
        own = {name: args.pop(name, None) for name in CONTROLLER_OPTIONS}
        host = str(variables.get("inventory_hostname", "host"))
        if ((own["plan"] or {}).get("node") or {}).get("rank"):
            report = verdict.worker_report(host, own["plan"])
            if own["report"] and not self._task.check_mode:
                verdict.write_json(Path(str(own["report"])).expanduser(), report)
            return {**result, "changed": False, "ok": True, "checks": report["checks"], "report": report}
        answer = self._execute_module(
            module_name="glm.fleet.endpoint_check", module_args=args, task_vars=variables
        )
        if "checks" not in answer or answer.get("skipped"):
            return {**result, **answer}
        address, port = str(args.get("address", "127.0.0.1")), int(args.get("port", 8000))
        listen = ((own["plan"] or {}).get("listen") or {}).get("address", address)
        checks = list(answer["checks"])
        if own["closed_address"]:
            checks.append(verdict.closed_check(str(own["closed_address"]), port, str(listen)))
        endpoint = {"url": verdict.endpoint_url(str(listen), own["closed_address"], port), "model": args.get("model")}
        report = verdict.host_report(host, checks, endpoint, own["plan"])
        if own["report"]:
            verdict.write_json(Path(str(own["report"])).expanduser(), report)
        answer.update(ok=report["ok"], checks=checks, report=report, failed=not report["ok"], changed=False)
        if not report["ok"]:
            answer["msg"] = verdict.failure_text(report)
        return {**result, **answer}
