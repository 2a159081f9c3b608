# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of node_acceptance: judge what the module gathered, keep the report, name what failed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files, finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.host import acceptance, ticket
from ansible_collections.glm.fleet.plugins.plugin_utils.host.clock import skew


class ActionModule(FleetAction):
    """Run the module, judge, report."""

    LABEL = "acceptance"
    ARGUMENTS = arguments.NODE_ACCEPTANCE

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        plans: Any = args["plans"] or (self._task_vars.get("ansible_facts") or {}).get("glm_plans") or []
        given = {name: value for name, value in args.items() if value is not None}
        before = time.time()
        answer = self._module("glm.fleet.node_acceptance", {**given, "plans": plans})
        after = time.time()
        if answer.get("failed") or answer.get("unreachable"):
            return self._named(answer)
        gathered = answer["gathered"]
        gathered["facts"]["clock_skew_seconds"] = skew(gathered["facts"]["epoch"], before, after)
        report = acceptance.verdict(self._host, gathered, plans, args["floors"], args["leave_out"], args["strict"])
        result: dict[str, Any] = {"changed": False, "verdict": report}
        if args["report"] and not self._task.check_mode:
            path = Path(str(args["report"])).expanduser()
            try:
                files.write_json(path, finding.printable_in({**report, "gathered": gathered}))
                files.write_text(path.with_suffix(".ticket.txt"), ticket.text(report, gathered, self._identity()))
            except OSError as error:
                text = f"the report cannot be written to {path}: {error.strerror or error}"
                raise self._failure(advised(text, "free space there or choose another file"), **result) from None
        if not report["ok"] and self._task.check_mode:
            # What would fix it (Docker's settings, a CDI spec) is only planned on a host that is not converged.
            result["warnings"] = [f"{acceptance.failures(report)} A run without --check would fail."]
        elif not report["ok"] and args["fail"]:
            result.update(failed=True, msg=acceptance.failures(report))
        return result

    def _identity(self) -> dict[str, Any]:
        """What the inventory knows of the host, templates evaluated."""
        names = [f"glm_host_{name}" for name in ticket.IDENTITY if f"glm_host_{name}" in self._task_vars]
        return {name: self._templar.template(self._task_vars[name]) for name in names}
