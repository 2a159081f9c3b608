# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What marks the instances of a fleet, and what they cost."""

from __future__ import annotations

import datetime
import re
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import budget, ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api

FLEET_TAG = "glm-fleet"
ROLE_TAG = "glm-role"
# The API does not say when an instance was launched, so the launch itself writes it down.
LAUNCHED_TAG = "glm-launched"
# Which run launched it, so that all of a run can be found even when its answers were lost.
RUN_TAG = "glm-run"
# Never ended unless the run names it as meant: tags cannot be changed after the launch.
PROTECT_TAG = "glm-protect"
_UNPROTECTED = frozenset({"", "0", "false", "no", "off"})
OWN_TAGS = (FLEET_TAG, ROLE_TAG, LAUNCHED_TAG, RUN_TAG, ledger.EXPIRES_TAG)
_LAUNCHED_FORMAT = "%Y%m%dT%H%M%SZ"


def stamp(now: float) -> str:
    """A moment as the value of ``LAUNCHED_TAG``."""
    return datetime.datetime.fromtimestamp(now, datetime.timezone.utc).strftime(_LAUNCHED_FORMAT)


def launched_at(instance: lambda_api.Instance) -> Optional[float]:
    """When the instance was launched, by its tag."""
    try:
        moment = datetime.datetime.strptime(lambda_api.tags_of(instance).get(LAUNCHED_TAG, ""), _LAUNCHED_FORMAT)
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


def age_hours(instance: lambda_api.Instance, now: float) -> Optional[float]:
    """Hours since its launch, or None when that is not known."""
    begun = launched_at(instance)
    return None if begun is None else round(max(0.0, now - begun) / 3600, 2)


def expires_at(instance: lambda_api.Instance) -> Optional[float]:
    """When it may be ended, by its tag; None where the tag is missing or no moment."""
    try:
        return ledger.seconds_of(lambda_api.tags_of(instance).get(ledger.EXPIRES_TAG, ""))
    except ValueError:
        return None


def running(instance: lambda_api.Instance) -> budget.Running:
    """The instance as a budget counts it."""
    return budget.Running(
        instance["id"], name_of(instance), lambda_api.price_usd_per_hour(instance), launched_at(instance),
        expires_at(instance),
    )  # fmt: skip


def cost_usd(instance: lambda_api.Instance, now: float) -> Optional[float]:
    """What the instance has cost since it was launched, or None when its price or its launch is not known."""
    price, begun = lambda_api.price_usd_per_hour(instance), launched_at(instance)
    return None if price is None or begun is None else round(price * max(0.0, now - begun) / 3600, 2)


def exists(instance: lambda_api.Instance) -> bool:
    """Whether the instance is there to stay. An unknown status counts: launching once too often costs money."""
    return instance.get("status") not in lambda_api.GONE


def is_protected(instance: lambda_api.Instance) -> bool:
    """Whether its tag ``glm-protect`` says that it must not be ended; any value but a plain no counts."""
    return protects(lambda_api.tags_of(instance))


def protects(tags: Mapping[str, Any]) -> bool:
    """Whether these tags say so."""
    value = tags.get(PROTECT_TAG)
    return value is not None and str(value).strip().lower() not in _UNPROTECTED


def name_of(instance: lambda_api.Instance) -> str:
    """What messages and results call the instance."""
    return instance.get("name") or instance["id"]


def name_order(name: str) -> List[Tuple[int, str]]:
    """Sorts names, the numbers in them by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def in_order(instances: Iterable[lambda_api.Instance]) -> List[lambda_api.Instance]:
    """By name, then by id."""
    return sorted(instances, key=lambda item: (name_order(item.get("name") or ""), item["id"]))


def summary_of(instance: lambda_api.Instance) -> Dict[str, Any]:
    """What is returned of an instance; nothing else leaves the module (the API's answer holds live credentials)."""
    return {
        "id": instance["id"],
        "name": instance.get("name") or "",
        "status": instance.get("status"),
        "region": lambda_api.region_of(instance),
        "instance_type": lambda_api.type_of(instance),
        "ip": instance.get("ip") or None,
        "private_ip": instance.get("private_ip") or None,
        "hostname": instance.get("hostname") or None,
        "tags": lambda_api.tags_of(instance),
        "price_usd_per_hour": lambda_api.price_usd_per_hour(instance),
        "age_hours": age_hours(instance, time.time()),
        "cost_usd": cost_usd(instance, time.time()),
    }


def states_of(instances: Iterable[lambda_api.Instance]) -> str:
    """Name, id and status of each instance."""
    return "; ".join(f"{item.get('name')} ({item['id']}) is {item.get('status')}" for item in instances)


def price_of(instances: Iterable[lambda_api.Instance]) -> float:
    """Price per hour of all of them, as far as it is known."""
    return round(sum(lambda_api.price_usd_per_hour(item) or 0.0 for item in instances), 2)


def cost_of(instances: Iterable[lambda_api.Instance]) -> float:
    """What all of them have cost so far, as far as it is known."""
    now = time.time()
    return round(sum(cost_usd(item, now) or 0.0 for item in instances), 2)


def bill(members: Optional[List[lambda_api.Instance]], fresh: bool, doubtful: bool = False) -> str:
    """What is running and what it costs; ``fresh``: as of now rather than as of the last look. None: not known.

    ``doubtful``: something was launched, or may have been, that no list shows.
    """
    page = "https://cloud.lambda.ai/instances"
    if members is None:
        return f"The running instances could not be listed; look at {page}."
    if not members:
        known = "No instance of this fleet is listed." if doubtful else "Nothing of this fleet is running."
    else:
        names = ", ".join(f"{name_of(item)} ({item.get('status')})" for item in members)
        known = f"Left running, at {price_of(members):.2f} USD per hour: {names}."
    if fresh:
        return known
    return f"The instances left running could not be listed; look at {page}. At the last look: {known}"


def answers_ssh(address: str, port: int, timeout: float = 3.0) -> bool:
    """Whether an ssh server greets at the address."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
