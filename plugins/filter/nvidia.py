# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role nvidia."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.host import nvidia


class FilterModule:
    """The collection's filters for NVIDIA hosts."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nvidia_work": nvidia.work, "nvidia_problems": nvidia.unproven}
