# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print serving plans for people and keep them for machines. Documented in ``plugins/modules/plan_report.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text

display = Display()


class ActionModule(ActionBase):
    """Read the plans that the hosts have as facts."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "str", "required": True},
                "path": {"type": "path", "required": True},
            }
        )
        found = {host: self._plans(task_vars or {}, host) for host in args["hosts"]}
        plans = {
            host if len(own) == 1 else f"{host}#{plan['replica']}": plan for host, own in found.items() for plan in own
        }
        missing = sorted(host for host, own in found.items() if not own)
        if plans:
            display.display("\n" + "\n".join(plan_text.report(plans)) + "\n")
        path = Path(args["path"]).expanduser()
        try:
            changed = plan_text.keep(path, plans, write=not self._task.check_mode)
        except OSError as exc:
            msg = f"controller, plan: {path} cannot be written: {exc}. Next: set glm_state_dir to a folder that can."
            return {**result, "failed": True, "msg": msg}
        result.update(changed=changed, path=str(path), hosts=sorted(host for host, own in found.items() if own))
        if missing or not plans:
            result.update(failed=True, msg=f"controller, plan: expected a plan for every host, found none for "
                          f"{', '.join(missing) or 'any host'}. Next: read their errors above.")  # fmt: skip
        return result

    @staticmethod
    def _plans(variables: dict[str, Any], host: str) -> list[dict[str, Any]]:
        # hostvars has no facts of a localhost that no inventory names.
        own = host == variables.get("inventory_hostname")
        hostvars = variables.get("hostvars") or {}
        found = variables if own else hostvars.get(host, {})
        return (found.get("ansible_facts") or {}).get("glm_plans") or []
