# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a host's serving plan on the controller. Documented in ``plugins/modules/serving_plan.py``."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, request
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError


def _preload() -> None:
    """Read the catalogue when this plugin is loaded.

    Ansible loads it once, in the process that forks a worker for each task on a host: what is read here is read once
    for the whole fleet. A broken catalogue is reported by the task itself.
    """
    try:
        for engine in catalog.load().engines.values():
            flags.load(engine.name, engine.default_version)
    except CatalogError:
        return


_preload()


class ActionModule(FleetAction):
    """No connection, nothing changed: works for hosts that do not exist yet, and in check mode."""

    LABEL = "plan"
    ARGUMENTS = request.ARGUMENTS
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        # An empty variable means "not set": role defaults cannot leave an argument out.
        given = {key: value for key, value in self._args.items() if value not in (None, "")}
        try:
            request.require_known(self._task_vars)
            given.update(request.node_of(self._host, given, self._task_vars))
            plans = request.plans_of(given, self._host)
        except Unmet as exc:
            raise self._failure(str(exc), findings=[exc.finding("plan")]) from None
        except PlanError as exc:
            raise self._failure(str(exc), findings=[exc.finding("plan", "a plan that can be served")]) from None
        return {"changed": False, "ansible_facts": {"glm_plans": plans}}
