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
    """What would be terminated, and what it costs. ``answer``: what a launcher's module returned in check mode.

    With ``ending`` (of a fleet that is scaled) that is what would go, else all ``instances``.
    """
    instances = answer.get("ending", answer["instances"])
    each = ", ".join(
        f"{printable(item['name'])} ({printable(item['instance_type'])} in {printable(item['region'])}, {_price(item)})"
        f" [{printable(item['id'])}, {_age(item)}]"
        for item in instances
    )
    prices = sum(item["price_usd_per_hour"] or 0 for item in instances)
    costs = sum(item["cost_usd"] or 0 for item in instances) if "ending" in answer else answer["cost_usd_so_far"]
    kept = answer.get("protected")
    return (
        f"this would terminate {len(instances)} instance(s): {each}; together {prices:.2f} USD per hour, and "
        f"{costs:.2f} USD since they were launched."
        + (f" Left out because of the tag glm-protect: {_named(kept)} (glm_unprotect lifts it)." if kept else "")
    )


def of_remains(answer: Mapping[str, Any]) -> str:
    """What still costs money, or stays, after instances were terminated; empty when that is nothing."""
    parts = []
    if answer["running"]:
        price = answer["price_usd_per_hour"]
        parts.append(f"still running, at {price:.2f} USD per hour: {_named(answer['running'])}")
    if answer.get("protected"):
        parts.append(f"kept because of the tag glm-protect: {_named(answer['protected'])} (glm_unprotect lifts it)")
    if answer.get("unsettled"):
        parts.append(f"launched without an answer, and may still turn up: {_named(answer['unsettled'])}")
    remaining = answer.get("remaining")
    if remaining is None:
        return "; ".join([*parts, "which file systems and firewall rulesets stay is not known"])
    parts += [f"file system {_stored(item)}, which stays on purpose" for item in remaining["file_systems"]]
    rulesets = [f"{item['name']} in {item['region']}" for item in remaining["firewall_rulesets"]]
    if rulesets:
        parts.append(f"firewall rulesets, which cost nothing: {_named(rulesets)}")
    return "; ".join(parts)


def _stored(item: Mapping[str, Any]) -> str:
    place = f"{printable(item['name'])} in {printable(item['region'])}"
    if item["gib_used"] is None:
        return f"{place} (how much it holds, and so its price, is not known)"
    return f"{place} ({item['gib_used']:.1f} GiB, about {item['usd_per_month']:.2f} USD per month)"


def _age(instance: Mapping[str, Any]) -> str:
    hours = instance.get("age_hours")
    return "age unknown" if hours is None else f"{hours:.1f} h old"


def _price(instance: Mapping[str, Any]) -> str:
    price = instance["price_usd_per_hour"]
    return "price unknown" if price is None else f"{price:.2f} USD per hour"


def _named(names: Iterable[object]) -> str:
    return ", ".join(printable(name) for name in names)
