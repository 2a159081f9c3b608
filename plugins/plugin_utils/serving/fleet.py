# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet is doing at this moment: one row for each host, of what its hosts said of themselves. Pure.

Its gateways are in ``fleet_gateways``.

What was not read is said to be unknown, and makes its host unhealthy: it is never a good reading.
"""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.door import drain
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised, printable
from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts
from ansible_collections.glm.fleet.plugins.plugin_utils import columns, report
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import fleet_gateways, gateway, running

State = Literal["serving", "draining", "starting", "stopping", "failed", "stopped", "absent", "unknown"]
# States in which a replica does what somebody wants of it.
_WANTED: tuple[State, ...] = ("serving", "draining", "starting")
_TITLES = (
    "HOST",
    "RELEASE",
    "STATE",
    "RESTARTS",
    "ENGINE",
    "REQUESTS",
    "KV",
    "TOK/S",
    "PASSED",
    "DRIFT",
    "CERT",
    "USD/H",
    "LEASE",
)


class ReplicaStatus(TypedDict):
    """One replica of a host. None: not known."""

    replica: int
    state: State
    phase: str
    """Of a start: what the engine does."""
    seconds_left: Optional[int]
    """Of a start: what is left of its budget."""
    cause: str
    """Of a failure: why, and what to do about it."""
    restarts: Optional[int]
    """How often it ended by itself and was started again, as the host keeps it."""
    running: report.ServedProcess
    open: Optional[int]
    """Requests in it, by the front door."""
    waiting: Optional[int]
    """Of these, those that the engine has not begun."""
    kv_usage: Optional[float]
    """Share of the KV cache that is in use."""
    tokens_per_second: Optional[float]
    """Tokens that it wrote, in a second of this look."""
    drift: Optional[list[str]]
    """What runs and is not as planned."""


class HostStatus(TypedDict):
    """One host. None: not known."""

    host: str
    ok: bool
    """Whether it could be read and has no problem."""
    replicas: list[ReplicaStatus]
    release: Optional[int]
    """Number of the release that runs; null where it is none that passed."""
    good: Optional[int]
    """Number of the last that passed."""
    passed_at: Optional[str]
    """When it passed last: UTC, ISO 8601."""
    by: Optional[str]
    """Who had it pass."""
    drift: list[str]
    """What else is not as it was when it passed, such as the driver."""
    certificate_days: Optional[float]
    usd_per_hour: Optional[float]
    lease: Optional[str]
    """Who holds the host, where somebody does."""
    problems: list[str]
    """Why it is not ``ok``."""


class StatusReport(TypedDict):
    """``status.json``. ``ok``: there are hosts, and each of them and of their gateways is."""

    schema: Literal[1]
    kind: Literal["status"]
    ok: bool
    at: str
    usd_per_hour: Optional[float]
    """Of all hosts; null where that of one is not known."""
    hosts: list[HostStatus]
    gateways: list[fleet_gateways.GatewayStatus]
    """Those that there are, and those that should be."""


def fleet(hosts: Sequence[HostStatus], gateways: Sequence[fleet_gateways.GatewayStatus] = ()) -> StatusReport:
    """All hosts, and the gateways in front of them."""
    prices = [price for one in hosts if (price := one["usd_per_hour"]) is not None]
    return {
        "schema": 1,
        "kind": "status",
        "ok": bool(hosts) and all(one["ok"] for one in (*hosts, *gateways)),
        "at": report.now(),
        "usd_per_hour": round(sum(prices), 2) if len(prices) == len(hosts) else None,
        "hosts": list(hosts),
        "gateways": list(gateways),
    }


def behind_gateways(
    hosts: Sequence[HostStatus], plans: Mapping[str, Sequence[Plan]], wanted: Sequence[str]
) -> fleet_gateways.Fleet:
    """What gateways are compared with: ``plans`` by host, and the hosts that should run one."""
    states: dict[str, str] = {}
    for host in hosts:
        said = {one["replica"]: one["state"] for one in host["replicas"]}
        for plan in plans.get(host["host"], ()):
            # Of several hosts of a replica, the first answers.
            if not plan["node"]["rank"]:
                states[gateway.replica_name(host["host"], plan["replica"])] = said.get(plan["replica"], "unread")
    return {"wanted": wanted, "states": states, "complete": all(plans.get(one["host"]) for one in hosts)}


def unread(host: str, why: str, price: Optional[float]) -> HostStatus:
    """A host of which nothing is known."""
    return {
        "host": host, "ok": False, "replicas": [], "release": None, "good": None, "passed_at": None, "by": None,
        "drift": [], "certificate_days": None, "usd_per_hour": price, "lease": None,
        "problems": [printable(why.strip(), newlines=False, limit=300) or "it did not answer"],
    }  # fmt: skip


def of_host(
    host: str, plans: Sequence[Plan], seen: Mapping[str, Any], price: Optional[float], now: float
) -> HostStatus:
    """A host by its plans and what it said of itself (module_utils/serving/look.py)."""
    door = seen["door"]
    looked = {int(one["replica"]): one for one in seen["replicas"]}
    replicas = [_replica(plan, looked[int(plan["replica"])], door) for plan in plans]
    good = seen["releases"].get("good") or {}
    days = _days(door.get("certificate_ends"), now)
    drift = [f"the driver is {seen['driver']}, and was {good['driver']}"] if _other_driver(seen, good) else []
    problems = [f"replica {one['replica']} is {_words(one)}" for one in replicas if one["state"] not in _WANTED]
    # Before the first deploy there is no door either.
    if any(one["state"] != "absent" for one in replicas):
        problems += _certificate(plans[0], days)
        problems += [f"the front door: {door['problem']}"] if door.get("problem") else []
    if seen["releases"].get("problem"):
        problems.append(f"releases: {seen['releases']['problem']}")
    problems += [
        f"replica {number}: {said}"
        for number, one in looked.items()
        if (said := restarts.again_and_again(one["unit"].get("ended")) or restarts.unknown(one["unit"]))
    ]
    problems += [f"replica {one['replica']} serves {'; '.join(one['drift'])}" for one in replicas if one["drift"]]
    problems += [problem for plan, one in zip(plans, replicas) for problem in _silent(plan, one, looked, door)]
    problems += [
        f"replica {one['replica']}: what it runs was not seen: {'; '.join(looked[one['replica']]['problems'])}"
        for one in replicas
        if one["drift"] is None and one["state"] in ("serving", "draining")
    ]
    return {
        "host": host,
        "ok": not problems,
        "replicas": replicas,
        "release": seen["releases"].get("running"),
        "good": good.get("number"),
        "passed_at": good.get("passed_at"),
        "by": good.get("by"),
        "drift": drift,
        "certificate_days": days,
        "usd_per_hour": price,
        "lease": _lease(seen["lease"]),
        "problems": [printable(problem) for problem in problems],
    }


def _silent(plan: Plan, one: ReplicaStatus, looked: Mapping[int, Any], door: Mapping[str, Any]) -> list[str]:
    """What a replica whose unit is active does not answer."""
    if one["state"] not in ("serving", "draining") or plan["node"]["rank"]:
        return []
    name, found = f"replica {one['replica']}", []
    said = (door.get("replicas") or {}).get(drain.name_of(one["replica"])) or {}
    ready = said.get("ready")
    # Where the door itself lets nobody in, because the host's time is over, that is why.
    if ready == "down" and said.get("admitted") is not False:
        found.append(f"{name}: its front door says that the engine does not answer")
    elif ready is None and not door.get("problem"):
        found.append(f"{name}: /ready of its front door was not read")
    if looked[one["replica"]]["load"].get("problem"):
        found.append(f"{name}: its metrics were not read: {looked[one['replica']]['load']['problem']}")
    return found


def _other_driver(seen: Mapping[str, Any], good: Mapping[str, Any]) -> bool:
    return bool(seen["driver"] and good.get("driver") and seen["driver"] != good["driver"])


def _certificate(plan: Plan, days: Optional[float]) -> list[str]:
    if plan["tls"] is None or plan["node"]["rank"]:
        return []
    if days is None:
        return ["the certificate of the door was not read"]
    return [f"the certificate of the door ends in {days:.1f} days"] if days < fleet_gateways.LEAST_DAYS else []


def _days(ends: Any, now: float) -> Optional[float]:
    return round((float(ends) - now) / 86400, 1) if ends is not None else None


def _lease(held: Any) -> Optional[str]:
    """Who holds the host, and with what."""
    if held is None:
        return None
    return printable(held.get("problem") or f"{held['by']} {held['playbook']}", limit=40)


def _replica(plan: Plan, seen: Mapping[str, Any], door: Mapping[str, Any]) -> ReplicaStatus:
    unit, load = seen["unit"], seen["load"]
    counted = (door.get("replicas") or {}).get(drain.name_of(plan["replica"])) or {}
    # What the door says to balancers counts, and so does that it lets nobody through.
    admitted = False if counted.get("ready") == "draining" else counted.get("admitted")
    state = state_of(unit, admitted)
    left = plan["timeouts"]["start_seconds"] - int(unit.get("elapsed_seconds") or 0)
    drift = running.differences(plan, seen)
    # No difference among what was seen is no proof that there is none.
    proven = bool(drift) or running.judged(plan, seen)["outcome"] == "passed"
    return {
        "replica": int(plan["replica"]),
        "state": state,
        "phase": _phase(unit) if state == "starting" else "",
        "seconds_left": max(0, left) if state == "starting" else None,
        "cause": _cause(unit),
        "restarts": (unit.get("ended") or {}).get("count"),
        "running": running.served(seen),
        "open": counted.get("open"),
        "waiting": _whole(load.get("waiting")),
        "kv_usage": load.get("kv_usage"),
        "tokens_per_second": load.get("tokens_per_second"),
        "drift": drift if proven else None,
    }


def state_of(unit: Mapping[str, Any], admitted: Optional[bool]) -> State:
    """The state of a replica, by its unit and by whether the door lets new requests in."""
    if unit.get("problem") or not unit.get("active_state"):
        return "unknown"
    active, sub = str(unit["active_state"]), str(unit.get("sub_state"))
    if active == "active":
        return "draining" if admitted is False else "serving"
    if not unit.get("installed", True):
        return "absent"
    if active == "failed" or sub == "auto-restart":
        return "failed"
    states: dict[str, State] = {"activating": "starting", "reloading": "serving", "deactivating": "stopping"}
    # A start that waits for another unit.
    if active == "inactive":
        return "starting" if unit.get("phase") == "waiting for the host" else "stopped"
    return states.get(active, "unknown")


def _phase(unit: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (str(unit.get("phase") or ""), str(unit.get("detail") or ""))))


def _cause(unit: Mapping[str, Any]) -> str:
    if unit.get("problem"):
        return printable(unit["problem"])
    if not unit.get("installed", True):
        return advised("its unit is not installed", "run deploy.yml")
    return advised(str(unit["cause"]), str(unit.get("next") or "")) if unit.get("cause") else ""


def _whole(value: Any) -> Optional[int]:
    return int(value) if value is not None else None


def _words(one: ReplicaStatus) -> str:
    return f"{one['state']}{': ' if one['cause'] else ''}{one['cause']}"


def lines(found: StatusReport, now: float) -> list[str]:
    """The report for a terminal: a row for each replica, and what is wrong below."""
    rows = [_TITLES, *(row for host in found["hosts"] for row in _rows(host, now))]
    shown = columns.aligned(rows)
    wrong = [f"  {host['host']}: {problem}" for host in found["hosts"] for problem in host["problems"]]
    noted = [f"  {host['host']}: {drift}" for host in found["hosts"] for drift in host["drift"]]
    well = sum(host["ok"] for host in found["hosts"])
    price = found["usd_per_hour"]
    total = f"{well} of {len(found['hosts'])} hosts are well, {_number(price, '.2f')} USD per hour"
    gateways = fleet_gateways.lines(found["gateways"])
    return [*shown, "", *wrong, *noted, *([""] if wrong or noted else []), *gateways, total]


def _rows(host: HostStatus, now: float) -> list[tuple[str, ...]]:
    name = printable(host["host"])
    if not host["replicas"]:
        unknown = ["?"] * (len(_TITLES) - 5)
        return [(name, "?", "UNREAD", *unknown, _number(host["usd_per_hour"], ".2f"), "?")]
    return [_row(name, host, one, now) for one in host["replicas"]]


def _row(name: str, host: HostStatus, one: ReplicaStatus, now: float) -> tuple[str, ...]:
    cells = (
        name if len(host["replicas"]) == 1 else f"{name}/{one['replica']}",
        _release(host),
        _state(one),
        _number(one["restarts"], "d"),
        running.words_of(one["running"]) or "?",
        f"{_number(one['open'], 'd')} open, {_number(one['waiting'], 'd')} wait",
        _number(one["kv_usage"], ".0%"),
        _number(one["tokens_per_second"], ".0f"),
        f"{age(host['passed_at'], now)} ago" if host["passed_at"] else "never",
        _drift(one["drift"], host["drift"]),
        f"{host['certificate_days']:.0f} d" if host["certificate_days"] is not None else "-",
        _number(host["usd_per_hour"], ".2f"),
        host["lease"] or "-",
    )
    return tuple(map(printable, cells))


def _drift(replica: Optional[Sequence[str]], host: Sequence[str]) -> str:
    """How many things are not as planned."""
    if replica is None:
        return "?"
    return str(len(replica) + len(host)) if replica or host else "-"


def _release(host: HostStatus) -> str:
    """The one that runs; of one that is none, the last that passed."""
    if host["release"] is not None:
        return str(host["release"])
    return "none" if host["good"] is None else f"none (good: {host['good']})"


def _state(one: ReplicaStatus) -> str:
    if one["state"] == "starting":
        left = one["seconds_left"]
        return f"starting: {one['phase']}, {duration(left)} left" if left is not None else f"starting: {one['phase']}"
    return one["state"] if one["state"] in _WANTED else one["state"].upper()


def _number(value: Any, form: str) -> str:
    return "?" if value is None else format(value, form)


def age(moment: str, now: float) -> str:
    """How long ago a moment (ISO 8601, UTC) was, in its largest unit."""
    try:
        then = timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return "?"
    return duration(max(0, int(now - then)))


def duration(seconds: int) -> str:
    """Seconds in their largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
