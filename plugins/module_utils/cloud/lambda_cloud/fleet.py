# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What marks the instances of a fleet, what they cost, and what keeps two runs for one fleet from launching twice."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api

try:
    import fcntl
except ImportError:
    # Without requests, which the client reports, nothing here runs; on Windows neither does.
    pass

FLEET_TAG = "glm-fleet"
ROLE_TAG = "glm-role"
# The API does not say when an instance was launched, so the launch itself writes it down.
LAUNCHED_TAG = "glm-launched"
# Which run launched it, so that all of a run can be found even when its answers were lost.
RUN_TAG = "glm-run"
OWN_TAGS = (FLEET_TAG, ROLE_TAG, LAUNCHED_TAG, RUN_TAG)
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


def cost_usd(instance: lambda_api.Instance, now: float) -> Optional[float]:
    """What the instance has cost since it was launched, or None when its price or its launch is not known."""
    price, begun = lambda_api.price_usd_per_hour(instance), launched_at(instance)
    return None if price is None or begun is None else round(price * max(0.0, now - begun) / 3600, 2)


def exists(instance: lambda_api.Instance) -> bool:
    """Whether the instance is there to stay. An unknown status counts: launching once too often costs money."""
    return instance.get("status") not in lambda_api.GONE


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
    kind = instance.get("instance_type")
    return {
        "id": instance["id"],
        "name": instance.get("name") or "",
        "status": instance.get("status"),
        "region": lambda_api.region_of(instance),
        "instance_type": kind.get("name") if isinstance(kind, dict) else None,
        "ip": instance.get("ip") or None,
        "private_ip": instance.get("private_ip") or None,
        "hostname": instance.get("hostname") or None,
        "tags": lambda_api.tags_of(instance),
        "price_usd_per_hour": lambda_api.price_usd_per_hour(instance),
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


def bill(members: Optional[List[lambda_api.Instance]], fresh: bool) -> str:
    """What is running and what it costs; ``fresh``: as of now rather than as of the last look. None: not known."""
    page = "https://cloud.lambda.ai/instances"
    if members is None:
        return f"The running instances could not be listed; look at {page}."
    if not members:
        known = "Nothing of this fleet is running."
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


def _open_lock(path: Path) -> Optional[int]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextlib.contextmanager
def only_run(account: str, fleet: str, timeout: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[bool]:
    """Keep other runs of this user from counting and launching for the same fleet meanwhile.

    Waits for them up to ``timeout`` seconds; yields whether it is alone. Where no lock can be kept (a read-only home)
    it yields True: instances launched twice all the same are recognised by their name.
    """
    name = hashlib.sha256(f"{account}\n{fleet}".encode()).hexdigest()[:16]
    descriptor = _open_lock(Path("~/.cache/glm-fleet/launch").expanduser() / name)
    if descriptor is None:
        yield True
        return
    try:
        deadline = time.monotonic() + timeout
        alone = _taken(descriptor)
        while not alone and time.monotonic() < deadline:
            sleep(0.2)
            alone = _taken(descriptor)
        yield alone
    finally:
        os.close(descriptor)
