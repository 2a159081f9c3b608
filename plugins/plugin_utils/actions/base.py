# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of the modules whose messages begin with a phase: put the host's name before it.

A module does not know which host of the inventory it runs on, and of equal warnings ansible shows only the first.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class HostNamedAction(ActionBase):  # type: ignore[misc]
    """Run the module of the same name; ``msg`` of a failure and ``caution`` of a success get the host's name.

    Both begin with a phase. A failure that the module worded itself also has the key ``phase``. ``caution`` is what
    somebody should know although the module went on; it becomes a warning.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        return name_host(result, str((task_vars or {}).get("inventory_hostname", "host")))


def name_host(result: dict[str, Any], host: str) -> dict[str, Any]:
    """``result`` of a module with ``host`` in front of what people read; a lost connection is left as it is."""
    named = dict(result)
    if named.get("failed"):
        named["msg"] = f"{host}, {named.get('msg', 'the module gave no reason')}"
        if "phase" in named:
            # ansible-core 2.19 prints this copy of the module's message, without the host, instead of ours.
            named.pop("exception", None)
    if named.get("caution"):
        named["warnings"] = [*(named.get("warnings") or []), f"{host}, {named['caution']}"]
    return named
