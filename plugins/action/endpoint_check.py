# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``endpoint_check``: is the port closed, keep the verdict, name what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.report import ServedEndpoint, VerifyReport
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict

CONTROLLER_OPTIONS = ("closed_address", "report", "plan")


class ActionModule(FleetAction):
    """Run the module on the host, add the view from outside, write the report."""

    LABEL = "verify"

    def _outcome(self) -> dict[str, Any]:
        args = dict(self._task.args)
        own = {name: args.pop(name, None) for name in CONTROLLER_OPTIONS}
        if ((own["plan"] or {}).get("node") or {}).get("rank"):
            report = verdict.worker_report(self._host, own["plan"])
            kept = self._keep(own["report"], report)
            return {"changed": False, "ok": True, "checks": report["checks"], "report": report, **kept}
        answer = self._module("glm.fleet.endpoint_check", args)
        if "checks" not in answer or answer.get("skipped"):
            return answer
        address, port = str(args.get("address", "127.0.0.1")), int(args.get("port", 8000))
        listen = ((own["plan"] or {}).get("listen") or {}).get("address", address)
        checks: list[Finding] = list(answer["checks"])
        if own["closed_address"]:
            checks.append(verdict.closed_check(str(own["closed_address"]), port, str(listen)))
        endpoint: ServedEndpoint = {
            "url": verdict.endpoint_url(str(listen), own["closed_address"], port),
            "model": args.get("model"),
        }
        report = verdict.host_report(self._host, checks, endpoint, own["plan"])
        answer.update(ok=report["ok"], checks=checks, report=report, failed=not report["ok"], changed=False)
        kept = self._keep(own["report"], report)
        answer.update(kept)
        if not report["ok"]:
            answer["msg"] = "\n".join([verdict.failure_text(report), *([kept["msg"]] if kept else [])])
        return answer

    def _keep(self, path: Any, report: VerifyReport) -> dict[str, Any]:
        """Write the report; what the result gets when that fails, since a run without its report is incomplete."""
        if not path or self._task.check_mode:
            return {}
        file = Path(str(path)).expanduser()
        try:
            files.write_json(file, report)
        except OSError as exc:
            verdict_text = "every check passed" if report["ok"] else "checks failed"
            return self._failure(
                advised(
                    f"{verdict_text}, but the report cannot be written to {file}: {exc.strerror or exc}",
                    "free space there or set glm_state_dir to a folder that can be written",
                )
            ).result
        return {}
