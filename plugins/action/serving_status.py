# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``glm.fleet.serving_status``: what the engine's lines mean stands in the catalogue."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs


class ActionModule(FleetAction):
    """Run the module with the rules of the engine's log."""

    LABEL = "serve"

    def _outcome(self) -> dict[str, Any]:
        arguments = dict(self._task.args)
        arguments.setdefault("rules", logs.rules(arguments.pop("engine", None)))
        return self._named(self._module("glm.fleet.serving_status", arguments))
