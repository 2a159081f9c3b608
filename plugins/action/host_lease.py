# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of host_lease: which run this is, and whether the one that holds the host is still there.

Documented in ``plugins/modules/host_lease.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible import context

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from ansible_collections.glm.fleet.plugins.module_utils.cloud import run_alive
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction

# Of this run, for each host that it has held.
FACT = "glm_lease"


class ActionModule(FleetAction):
    """Ask the host, and once more when only the process here can say that the holder has ended."""

    LABEL = "lease"

    @property
    def _host(self) -> str:
        return str(self._task.delegate_to or super()._host)

    def _outcome(self) -> dict[str, Any]:
        # Workers are children of ansible-playbook itself.
        run = run_alive.run_of(os.getppid())
        playbooks = " ".join(Path(name).name for name in context.CLIARGS.get("args") or ())
        arguments = {
            **self._task.args, "run": run, "by": whoami.user_at_machine(), "playbook": playbooks or "a playbook",
            "before": self._before(run),
        }  # fmt: skip
        answer = self._module(None, arguments)
        holder = (answer.get("holder") or {}).get("run", "")
        if run_alive.has_ended(holder):
            if answer.get("failed"):
                answer = self._module(None, {**arguments, "gone": holder})
            elif not answer.get("lease"):
                del answer["holder"], answer["caution"]
        if answer.get("lease") and not self._task.delegate_to:
            answer["ansible_facts"] = {FACT: answer["lease"]}
        return self._named(answer)

    def _before(self, run: str) -> bool:
        """Facts of a task for another host are not that host's. A cache of facts may have those of another run."""
        known = (self._task_vars.get("ansible_facts") or {}).get(FACT) or {}
        return not self._task.delegate_to and known.get("run") == run
