# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about clouds and where hosts are; each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import bill, providers
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import hosts as cloud_hosts


def launch_provider(groups: Iterable[str], sources: Iterable[str]) -> dict[str, Any]:
    """See launch_provider.yml."""
    found, known = providers.in_inventory(groups, sources), providers.launching()
    return {
        "name": (found or known)[0].name,
        "found": bool(found),
        "known": " or ".join(f"{provider.title} (-i {provider.name})" for provider in known),
    }


def outside_countries(
    hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], allowed: Iterable[str]
) -> list[str]:
    """See outside_countries.yml."""
    return cloud_hosts.outside(((host, hostvars[host]) for host in hosts), allowed)


def regions_outside(regions: Iterable[str], allowed: Iterable[str], provider: str) -> list[str]:
    """See regions_outside.yml."""
    country_of = providers.named(provider).country_of
    places = ((region, {"glm_host_country": country_of(region)}) for region in regions)
    return cloud_hosts.outside(places, allowed)


class FilterModule:
    """What ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "ending_bill": bill.of_ending,
            "fleet_bill": bill.of_fleet,
            "launch_provider": launch_provider,
            "outside_countries": outside_countries,
            "regions_outside": regions_outside,
            "remains_bill": bill.of_remains,
        }
