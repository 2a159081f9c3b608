# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of every module that has none of its own but whose messages name the host; see meta/runtime.yml."""

from __future__ import annotations

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import HostNamedAction


class ActionModule(HostNamedAction):
    """Runs the module that the task names."""
