# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs, and what ending it would end, in one sentence each. Names come from outside."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import printable


def of_fleet(answer: Mapping[str, Any], fleet: str, listed: Collection[str], asking: bool) -> str:
    """What the fleet costs, and what costs money although nothing is deployed to it.

    ``answer``: what a launcher's module returned. ``listed``: ids of the hosts in the inventory. ``asking``: nothing
    was launched (check mode).
    """
    instances, launched, surplus = answer["instances"], answer["launched"], answer["surplus"]
    orphans = [item["name"] for item in instances if item["id"] not in listed]
    others = [f"{name}: {number}" for name, number in sorted(answer["other_fleets"].items())]
    parts = [
        f"fleet {fleet}: {len(instances)} instance(s) at {answer['price_usd_per_hour']:.2f} USD per hour, "
        f"{answer['cost_usd_so_far']:.2f} USD since they were launched"
    ]
    if asking and launched:
        price = answer.get("launch_price_usd_per_hour") or 0
        parts.append(f"{len(launched)} more would be launched, for at most {price:.2f} USD per hour")
    if surplus:
        parts.append(f"beyond the desired number: {_named(surplus)} (-e glm_launch_count, or scale)")
    if orphans:
        parts.append(
            f"ORPHANS, tagged as this fleet but not in its inventory: {_named(orphans)} (see the filters of the "
            "inventory, or terminate them)"
        )
    if others:
        parts.append(f"other fleets of the account: {_named(others)}")
    return "; ".join(parts)


def of_ending(answer: Mapping[str, Any]) -> str:
    """What would be terminated, and what it costs. ``answer``: what a launcher's module returned in check mode."""
    instances = answer["instances"]
    each = ", ".join(
        f"{printable(item['name'])} ({printable(item['instance_type'])} in {printable(item['region'])}, {_price(item)})"
        for item in instances
    )
    prices = sum(item["price_usd_per_hour"] or 0 for item in instances)
    return (
        f"this would terminate {len(instances)} instance(s): {each}; together {prices:.2f} USD per hour, and "
        f"{answer['cost_usd_so_far']:.2f} USD since they were launched."
    )


def _price(instance: Mapping[str, Any]) -> str:
    price = instance["price_usd_per_hour"]
    return "price unknown" if price is None else f"{price:.2f} USD per hour"


def _named(names: Iterable[object]) -> str:
    return ", ".join(printable(name) for name in names)
