# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of gpu_facts: measure how far the host's clock is off, and keep the parts gathered before.

The host reads its clock while the module runs, that is between two readings of the controller's clock. Outside that
interval the clocks differ, by at least the distance to it.
"""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.host.clock import skew

# A fact that every gathering of a subset returns, and the phases of the errors that it can report.
PHASES = {
    "kernel": ("system",),
    "gpus": ("driver", "gpu", "fabric"),
    "cdi": ("cdi",),
    "docker": ("docker",),
    "drivers": (),
}


class ActionModule(FleetAction):
    """Run the module and add ``clock_skew_seconds`` to the facts."""

    LABEL = "gpu_facts"

    def _outcome(self) -> dict[str, Any]:
        before = time.time()
        result = self._module()
        after = time.time()
        facts = (result.get("ansible_facts") or {}).get("gpu_facts")
        if facts:
            facts["clock_skew_seconds"] = round(skew(facts["epoch"], before, after), 1)
            known = (self._task_vars.get("ansible_facts") or {}).get("gpu_facts") or {}
            result["ansible_facts"] = {"gpu_facts": merge(known, facts)}
        return result


def merge(known: dict[str, Any], fresh: dict[str, Any]) -> dict[str, Any]:
    """``fresh`` over what was ``known``; an old error stays only if its phase was not looked at again."""
    looked_at = {phase for key, phases in PHASES.items() if key in fresh for phase in phases}
    kept = [error for error in known.get("errors", []) if error["phase"] not in looked_at]
    return {**known, **fresh, "errors": kept + fresh["errors"]}
