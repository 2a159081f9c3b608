# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare hardware, engines and profiles for a model. Documented in ``plugins/modules/plan_compare.py``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import compare, own
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError


class ActionModule(FleetAction):
    """No connection, nothing changed."""

    LABEL = "plan"
    PLACE = "controller"
    ARGUMENTS = {
        "model": {"type": "str", "required": True},
        "precision": {"type": "str", "default": ""},
        "repository": {"type": "str"},
        "model_config": {"type": "path"},
        "accelerator": {"type": "str", "default": ""},
        "accelerator_count": {"type": "int", "default": 0},
        "catalog": {"type": "list", "elements": "path", "default": []},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        given = {key: value for key, value in self._args.items() if value is not None}
        known = own.known(given.pop("catalog"))
        try:
            found = compare.rows(Intent(**given), known)
        except PlanError as exc:
            raise self._failure(str(exc), findings=[exc.finding("plan", "a model that can be compared")]) from None
        self._show(["", *compare.table(found), ""])
        rows = [{**dataclasses.asdict(row), "usd_per_million": row.usd_per_million} for row in found]
        return {"changed": False, "rows": rows}
