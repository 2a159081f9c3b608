# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of node_acceptance: judge what the module gathered, keep the report, name what failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.glm.fleet.plugins.action.gpu_facts import skew
from ansible_collections.glm.fleet.plugins.module_utils import files, finding
from ansible_collections.glm.fleet.plugins.modules.node_acceptance import ARGUMENTS
from ansible_collections.glm.fleet.plugins.plugin_utils.host import acceptance


class ActionModule(ActionBase):
    """Run the module, judge, report."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        host = str(variables.get("inventory_hostname", "host"))
        _validation, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        plan = args["plan"] or (variables.get("ansible_facts") or {}).get("glm_plan")
        given = {name: value for name, value in args.items() if value is not None}
        before = time.time()
        answer = self._execute_module(
            module_name="glm.fleet.node_acceptance", module_args={**given, "plan": plan}, task_vars=variables
        )
        after = time.time()
        if answer.get("failed") or answer.get("unreachable"):
            if answer.get("failed"):
                answer["msg"] = f"{host}, {answer.get('msg', 'acceptance: failed without a message')}"
            return {**result, **answer}
        gathered = answer["gathered"]
        gathered["facts"]["clock_skew_seconds"] = skew(gathered["facts"]["epoch"], before, after)
        report = acceptance.verdict(host, gathered, plan, args["floors"], args["leave_out"])
        result.update(changed=False, verdict=report)
        if args["report"] and not self._task.check_mode:
            path = Path(str(args["report"])).expanduser()
            try:
                files.write_json(path, finding.printable_in({**report, "gathered": gathered}))
            except OSError as error:
                msg = f"{host}, acceptance: the report cannot be written to {path}: {error.strerror or error}"
                return {**result, "failed": True, "msg": f"{msg}. Next: make room there or choose another file."}
        if not report["ok"] and self._task.check_mode:
            # What would mend it (Docker's settings, a CDI spec) was only announced on a host that is not converged.
            result["warnings"] = [f"{acceptance.failures(report)} A run without --check would refuse that."]
        elif not report["ok"] and args["fail"]:
            result.update(failed=True, msg=acceptance.failures(report))
        return result
