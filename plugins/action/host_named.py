# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of every module that has none of its own but whose messages name the host; see meta/runtime.yml.

A module does not know which host of the inventory it runs on, and of equal warnings ansible shows only the first.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction


class ActionModule(FleetAction):
    """Runs the module that the task names."""

    LABEL = "module"

    @property
    def _phase(self) -> str:
        return str(self._task.action).rpartition(".")[2]

    def _outcome(self) -> dict[str, Any]:
        return self._named(self._module())
