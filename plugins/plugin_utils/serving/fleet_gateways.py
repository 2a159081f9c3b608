# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateways of a fleet do at this moment, by what their hosts said of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.finding import advised, printable
from ansible_collections.glm.fleet.plugins.plugin_utils import columns

State = Literal["running", "stopped", "absent", "unknown"]
Sees = Literal["up", "draining", "down"]
# As verify, which fails a certificate that lasts less.
LEAST_DAYS = 7
# What states are called in the table, and which of them are named there.
_SHOWN: dict[Sees, str] = {"up": "up", "draining": "draining", "down": "DOWN"}
_OUT: tuple[Sees, ...] = ("draining", "down")
_TITLES = ("GATEWAY", "STATE", "SEES", "REQUESTS", "CERT")
_JOURNAL = "journalctl -u glm-gateway on the host says why; deploy.yml starts it"


class GatewayReplica(TypedDict):
    """A replica as a gateway sees it."""

    name: str
    state: Sees
    """Whether new requests go there; ``draining`` where none do because its own host says that it drains."""
    status: str
    """The same in HAProxy's words."""
    check: str
    """What its last check found, in HAProxy's words."""
    open: int
    waiting: int


class GatewayStatus(TypedDict):
    """The gateway of one host. None: not known."""

    host: str
    ok: bool
    """Whether it could be read and has no problem."""
    state: State
    replicas: list[GatewayReplica]
    certificate_days: Optional[float]
    """Null without TLS, too."""
    drift: list[str]
    """What is not as this controller plans, and harms nobody."""
    problems: list[str]
    """Why it is not ``ok``."""


class Fleet(TypedDict):
    """What gateways are compared with. ``wanted``: hosts that should run one."""

    wanted: Sequence[str]
    states: Mapping[str, str]
    """By the name that gateways have for it, what the host of each replica says of it; ``unread`` where it does not."""
    complete: bool
    """Whether the replicas of every host are known."""


def of_host(
    host: str, seen: Optional[Mapping[str, Any]], why: str, fleet: Fleet, now: float
) -> Optional[GatewayStatus]:
    """The gateway of a host by what the host said of it (module_utils/serving/look.py); None where there need be none.

    ``seen`` is None for a host that was not read; ``why`` says why.
    """
    wanted = host in fleet["wanted"]
    if seen is None:
        return _made(host, "unknown", [f"it was not read: {why}"]) if wanted else None
    if seen.get("problem"):
        return _made(host, "unknown", [f"it was not read: {seen['problem']}"])
    if not seen.get("running"):
        return _not_running(host, seen, fleet) if wanted else None
    replicas = [_replica(name, row, fleet["states"]) for name, row in seen["replicas"].items()]
    ends = seen["certificate_ends"]
    days = round((float(ends) - now) / 86400, 1) if ends else None
    problems = [*_certificate(ends is not None, days), *_unserved(replicas, fleet)]
    drift = [] if wanted else ["it runs, and the variables want none here; the next deploy stops it"]
    if fleet["complete"]:
        foreign = [one["name"] for one in replicas if one["name"] not in fleet["states"]]
        drift += [f"{name} is behind it, and no replica of the fleet" for name in foreign]
    return _made(host, "running", problems, replicas, days, drift)


def _made(
    host: str,
    state: State,
    problems: Sequence[str],
    replicas: Sequence[GatewayReplica] = (),
    days: Optional[float] = None,
    drift: Sequence[str] = (),
) -> GatewayStatus:
    return {
        "host": host,
        "ok": not problems,
        "state": state,
        "replicas": list(replicas),
        "certificate_days": days,
        "drift": [printable(one) for one in drift],
        "problems": [printable(one, newlines=False, limit=300) for one in problems],
    }


def _not_running(host: str, seen: Mapping[str, Any], fleet: Fleet) -> Optional[GatewayStatus]:
    if seen:
        unit = seen["unit"] or "in a state that systemd does not say"
        return _made(host, "stopped", [advised(f"glm-gateway.service is {unit}", _JOURNAL)])
    # Before the first deploy nobody misses one.
    if all(state in ("absent", "unread") for state in fleet["states"].values()):
        return None
    return _made(host, "absent", [advised("none is installed", "run deploy.yml without --limit")])


def _replica(name: str, row: Mapping[str, Any], states: Mapping[str, str]) -> GatewayReplica:
    drains = states.get(name) == "draining"
    return {
        "name": printable(name),
        "state": "up" if row["in"] else "draining" if drains else "down",
        "status": printable(row["status"]),
        "check": printable(row["check"], newlines=False, limit=200),
        "open": int(row["open"]),
        "waiting": int(row["waiting"]),
    }


def _certificate(encrypted: bool, days: Optional[float]) -> list[str]:
    if not encrypted:
        return []
    if days is None:
        return ["its certificate was not read"]
    return [f"its certificate ends in {days:.1f} days"] if days < LEAST_DAYS else []


def _unserved(replicas: Sequence[GatewayReplica], fleet: Fleet) -> list[str]:
    """Replicas that could serve, as far as anybody knows, and get nothing from this gateway."""
    behind = {one["name"]: one for one in replicas}
    found = []
    for name, state in fleet["states"].items():
        if name not in behind and state == "serving":
            found.append(advised(f"{name} serves and is not behind it", "deploy.yml without --limit"))
        elif name in behind and behind[name]["state"] == "down" and state in ("serving", "unread"):
            said = ", ".join(filter(None, (behind[name]["status"], behind[name]["check"])))
            found.append(f"it sends no requests to {name}: {said}")
    return found


def lines(gateways: Sequence[GatewayStatus]) -> list[str]:
    """A row for each gateway, and what is wrong below; empty where there is none."""
    if not gateways:
        return []
    rows = [_TITLES, *map(_row, gateways)]
    shown = columns.aligned(rows)
    noted = [f"  gateway of {one['host']}: {said}" for one in gateways for said in (*one["problems"], *one["drift"])]
    return [*shown, "", *map(printable, noted), *([""] if noted else [])]


def _row(one: GatewayStatus) -> tuple[str, ...]:
    if one["state"] != "running":
        state = "UNREAD" if one["state"] == "unknown" else one["state"].upper()
        return (printable(one["host"]), state, "?", "?", "?")
    of_state = {state: [each["name"] for each in one["replicas"] if each["state"] == state] for state in _SHOWN}
    sees = [f"{len(of_state['up'])} up", *(f"{_SHOWN[state]} {name}" for state in _OUT for name in of_state[state])]
    counts = [sum(each[count] for each in one["replicas"]) for count in ("open", "waiting")]
    days = one["certificate_days"]
    return (
        printable(one["host"]),
        "running",
        ", ".join(sees),
        f"{counts[0]} open, {counts[1]} wait",
        "-" if days is None else f"{days:.0f} d",
    )
