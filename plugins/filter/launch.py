# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about launching; each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import bill, providers


def launch_provider(groups: Iterable[str], sources: Iterable[str]) -> dict[str, Any]:
    """See launch_provider.yml."""
    found, known = providers.in_inventory(groups, sources), providers.launching()
    return {
        "name": (found or known)[0].name,
        "found": bool(found),
        "known": " or ".join(f"{provider.title} (-i {provider.name})" for provider in known),
    }


class FilterModule:
    """What ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"launch_provider": launch_provider, "fleet_bill": bill.of_fleet, "ending_bill": bill.of_ending}
