# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stop serving on a host whose time is over, or which nobody has asked for long, once its requests have ended.

This module util is PRIVATE to the collection. It is a program that the role ``expiry`` installs: a timer runs it with
``look`` every minute, ``reap.yml`` and ``cost.yml`` with ``report``. Standard library, Python 3.9 or newer. The host
has no key of the account, so it cannot end itself: it stops the engines, and says so to whoever asks.

What is not known is not idle and not finished. Which requests run is counted at the door, where all come in: SGLang's
gauge shows none while a prompt is read, and goes on showing the last ones after they have ended. That somebody asks
shows in the engine's count of what has ended, too. What the host's gateway passes on to other hosts is use of the
fleet: a host with a gateway that is asked is not idle.
"""

from __future__ import annotations

import datetime
import fcntl
import http.client
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.door import master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.serving import metrics

SERVING, DRAINING, STOPPED = "serving", "draining", "stopped"
# What its count is kept as, beside the replicas.
_GATEWAY = "gateway"
# States of a unit in which nothing runs, so that no counter is needed.
_DOWN = ("inactive", "failed")
# What was let in just before shows in the counters by then.
_SETTLE_SECONDS = 3.0
_ASKED_SECONDS = 10.0
# Units have limits of their own, some minutes.
_STOP_SECONDS = 3600.0
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


class BadOrders(Exception):
    """The file with what is to be done cannot be used; the text says why."""


@dataclass(frozen=True)
class Replica:
    """One engine.

    ``backends``: the door's for it; ``metrics``: URL on the host; ``rules``: what its counters are called, see
    ``metrics.parse``.
    """

    name: str
    unit: str
    backends: Sequence[str]
    metrics: str
    rules: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Gateway:
    """The gateway that the host may run: its unit, where its master is asked, and its backends."""

    unit: str
    socket: str
    backends: Sequence[str]


@dataclass(frozen=True)
class Orders:
    """What the role wrote. ``expires``: seconds since 1970, None for never; ``idle_minutes`` 0 for never.

    ``door`` is its unit, ``socket`` where its master is asked.
    ``follows``: address of the host that answers for this one, which then has no replicas of its own. ``hard``: stop
    ``drain_seconds`` after the end of the time although requests run. ``protected``: stop nothing.
    """

    expires: Optional[float]
    idle_minutes: float
    hard: bool
    drain_seconds: float
    protected: bool
    door: str
    socket: str
    follows: str
    replicas: Sequence[Replica]
    gateway: Optional[Gateway] = None


@dataclass(frozen=True)
class Reading:
    """What one look found of a replica: requests under way at the door, and those it has ended. None: not known.

    ``down``: no engine runs, so that none of its counters can show who asks for it.
    """

    open: Optional[int]
    ended: Optional[float]
    problem: str = ""
    down: bool = False


@dataclass
class State:
    """What is kept from one look to the next. Moments are seconds since 1970."""

    phase: str = ""
    """Empty where nothing was kept: what the door was given before is not known then."""
    why: str = ""
    """Why its time is over; empty while it is not."""
    since: float = 0.0
    """Since when it is over; 0 while it is not."""
    active: float = 0.0
    """When a request, or what may have been one, was last seen."""
    ended: dict[str, float] = field(default_factory=dict)
    """By replica, the requests it had ended at the last look; of the gateway, those that were answered well."""
    passed: float = 0.0
    """When the gateway last had a request, or may have had one."""


def orders_in(text: str) -> Orders:
    """The orders in a file of JSON. Raises BadOrders."""
    try:
        given = json.loads(text)
        expires = given["expires"]
        moment = datetime.datetime.strptime(expires, _MOMENT) if expires else None
        return Orders(
            expires=moment.replace(tzinfo=datetime.timezone.utc).timestamp() if moment else None,
            idle_minutes=float(given["idle_minutes"]),
            hard=given["hard"] is True,
            drain_seconds=float(given["drain_seconds"]),
            protected=given["protected"] is True,
            door=str(given["door"]),
            socket=str(given["socket"]),
            follows=str(given["follows"]),
            replicas=[_replica_in(one) for one in given["replicas"]],
            gateway=Gateway(**given["gateway"]) if given.get("gateway") else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadOrders(f"{type(error).__name__}: {error}") from error


def _replica_in(given: Mapping[str, Any]) -> Replica:
    return Replica(given["name"], given["unit"], given["backends"], given["metrics"], given["rules"])


def note(state: State, readings: Mapping[str, Reading], passed_on: Optional[Reading], now: float) -> None:
    """Keep what was read: whether anything moved since the last look, or may have, here and through the gateway.

    An engine that has failed, or that somebody stopped, does not show who asks for it; one that was stopped here may
    stay so.
    """
    moved = [_moved(state, name, reading) for name, reading in readings.items()]
    if any(moved) or not state.active:
        state.active = now
    if passed_on and _moved(state, _GATEWAY, passed_on):
        state.passed = now


def _moved(state: State, name: str, reading: Reading) -> bool:
    """Whether requests came since the last look, or may have; what was read is kept."""
    before = state.ended.get(name, reading.ended)
    if reading.ended is not None:
        state.ended[name] = reading.ended
    return reading.open != 0 or _unseen(reading, state) or (reading.ended is not None and reading.ended != before)


def _unseen(reading: Reading, state: State) -> bool:
    """Whether nothing shows if somebody asks for it."""
    return state.phase != STOPPED if reading.down else reading.ended is None


def over(orders: Orders, now: float, used: float) -> str:
    """Why the host's time is over; empty while it is not, and for one that is protected. ``used``: see ``idle``."""
    if orders.protected:
        return ""
    if orders.expires is not None and now >= orders.expires:
        return f"its time ended at {stamp(orders.expires)}"
    return idle(orders, now, used)


def idle(orders: Orders, now: float, used: float) -> str:
    """Since when nobody has asked the host, if that is for longer than it may be; else empty.

    ``used``: when somebody last did, in seconds since 1970; 0 where that is not known.
    """
    if orders.idle_minutes and used and now - used >= orders.idle_minutes * 60:
        return f"no request since {stamp(used)}"
    return ""


def still_needed(orders: Orders, state: State, readings: Mapping[str, Reading], now: float) -> str:
    """What keeps the engines of a host running whose time is over; empty when nothing does."""
    if orders.hard and now - state.since >= orders.drain_seconds:
        return ""
    running = sum(reading.open or 0 for reading in readings.values())
    unread = [f"{name}: {reading.problem}" for name, reading in readings.items() if reading.open is None]
    if running:
        return f"{running} request(s) run"
    return f"it is not known whether requests run ({'; '.join(unread)})" if unread else ""


def stamp(moment: float) -> str:
    """A moment in UTC."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(_MOMENT)


class Host:
    """What the program does to the host it runs on."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def readings(self) -> dict[str, Reading]:
        """What each engine, and the door, say now."""
        try:
            rows, problem = self._at_the_door(), ""
        except Unmet as error:
            rows, problem = None, str(error)
        found = {}
        for replica in self._orders.replicas:
            reading = _ended(replica)
            under_way = None if rows is None else master.open_in(rows, replica.backends)
            found[replica.name] = replace(reading, open=under_way, problem=problem or reading.problem)
        return found

    def passed_on(self) -> Optional[Reading]:
        """What the gateway of this host carries to the doors of all; None where none runs."""
        gateway = self._orders.gateway
        if gateway is None:
            return None
        try:
            rows = _counted(master.Master(Path(gateway.socket), unit=gateway.unit))
        except Unmet as error:
            return Reading(None, None, str(error))
        if not rows:
            return None
        of_all = [row for row in rows if row["svname"] == "BACKEND" and row["pxname"] in gateway.backends]
        if not of_all:
            return Reading(None, None, f"{gateway.unit} counts nothing for {', '.join(gateway.backends)}")
        # Those that were answered well: who has no key does not use the fleet.
        ended = sum(int(row.get("hrsp_2xx") or 0) for row in of_all)
        return Reading(sum(int(row["scur"] or 0) for row in of_all), float(ended))

    def _at_the_door(self) -> list[dict[str, str]]:
        """What the door counts, in all its processes. Raises Unmet."""
        return _counted(self._door())

    def _door(self) -> master.Master:
        return master.Master(Path(self._orders.socket), unit=self._orders.door)

    def admit(self, admitted: bool) -> None:
        """Let the door pass new requests to the engines, or answer them with 503. Raises Unmet."""
        door, state = self._door(), "ready" if admitted else "maint"
        # Where there is none nobody comes in, and one that is started admits.
        door.in_each(lambda process: self._set(door, process, state), lambda: door.running(_DOWN))

    def _set(self, door: master.Master, process: master.Process, state: str) -> None:
        """In one process, which may be of another configuration: what it does not have needs no state."""
        wanted = {backend for replica in self._orders.replicas for backend in replica.backends}
        servers = [
            f"{row['pxname']}/{row['svname']}"
            for row in door.rows_of(process)
            if row["pxname"] in wanted and row["svname"] not in ("BACKEND", "FRONTEND")
        ]
        if not servers and not process.old:
            raise Unmet("the door to have the engines of this host", "none of them", "deploy the host with --tags door")
        for server in servers:
            door.set_server(process, server, state)

    def stop(self) -> None:
        """Stop the engines. Raises Unmet."""
        units = [replica.unit for replica in self._orders.replicas]
        commands.systemctl("stop", *units, next_step="look at the journal of the units", timeout=_STOP_SECONDS)


def _counted(haproxy: master.Master) -> list[dict[str, str]]:
    """What all processes of an HAProxy count; nothing where none runs. Raises Unmet."""
    rows: list[dict[str, str]] = []
    haproxy.in_each(lambda process: rows.extend(haproxy.rows_of(process)), lambda: haproxy.running(_DOWN))
    return rows


def _ended(replica: Replica) -> Reading:
    """What an engine says that it has ended."""
    state = commands.state_of(replica.unit)
    if state in _DOWN:
        return Reading(None, None, down=True)
    if state != "active":
        return Reading(None, None, f"{replica.unit} is {state or 'in a state that systemd does not say'}")
    try:
        # Never through a proxy: the address is the host's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(replica.metrics, timeout=_ASKED_SECONDS) as answer:
            found = metrics.parse(answer.read().decode("utf-8", "replace"), replica.rules)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Reading(None, None, f"{replica.metrics}: {error}")
    # Engines have that counter from the first request on that has ended.
    return Reading(None, found.get("finished", 0.0))


def look(
    orders: Orders,
    state: State,
    host: Host,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    settle: Callable[[float], None] = time.sleep,
) -> None:
    """One look, and what follows from it; ``state`` is changed in place, so that it is kept whatever fails.

    Raises Unmet where the door or systemd does not do it.
    """
    if not orders.replicas:
        return
    note(state, host.readings(), host.passed_on(), clock())
    # What the gateway passes on keeps engines running, and starts none that were stopped.
    used = state.active if state.since else max(state.active, state.passed)
    state.why = over(orders, clock(), used)
    if not state.why:
        if state.phase != SERVING:
            host.admit(True)
            if state.phase:
                say("it has time: new requests are admitted")
        state.phase, state.since = SERVING, 0.0
        return
    if not state.since:
        state.since = clock()
        say(f"{state.why}: new requests are refused, and the engines are stopped when those that run have ended")
    # Before the door hears of it: whatever fails from here on, an extension admits again.
    if state.phase != STOPPED:
        state.phase = DRAINING
    # Each time: a door that was started or reloaded since knows nothing of it.
    host.admit(False)
    if state.phase == STOPPED and all(reading.down for reading in host.readings().values()):
        return
    # Also where somebody has started an engine again.
    state.phase = DRAINING
    settle(_SETTLE_SECONDS)
    obstacle = still_needed(orders, state, host.readings(), clock())
    if obstacle:
        say(f"{state.why}, but {obstacle}")
        return
    host.stop()
    state.phase = STOPPED
    say(f"{state.why}: the engines are stopped. The instance costs money until reap.yml or its owner ends it")


def report(
    orders: Orders, state: State, readings: Mapping[str, Reading], passed_on: Optional[Reading], now: float
) -> dict[str, Any]:
    """What the host answers to ``reap.yml`` and ``cost.yml``.

    ``open``: requests that run or wait at the door, None when it is not known, with the ``problems``; ``over``: why its
    time is over, empty while it is not; ``idle``: see ``idle``, also empty for a host that is protected; ``active``:
    when a request was last seen, at the door or through the gateway, empty when it is not known whether one runs.
    """
    note(state, readings, passed_on, now)
    used = max(state.active, state.passed)
    open_ = [reading.open for reading in readings.values()]
    known = bool(open_) and None not in open_
    seen = known and (passed_on is None or passed_on.open is not None)
    both = [*readings.values(), *([passed_on] if passed_on else [])]
    return {
        "at": stamp(now),
        "open": sum(number or 0 for number in open_) if known else None,
        "problems": [reading.problem for reading in both if reading.problem],
        "over": over(orders, now, used),
        "idle": "" if orders.protected else idle(orders, now, used),
        "active": stamp(used) if seen else "",
        "phase": state.phase,
        "follows": orders.follows,
    }


def main() -> int:
    """As a program: what to do, and the folder with ``orders.json`` and ``state.json``.

    ``look``; ``begin``, which also counts as a request, because a run deals with the host; or ``report``.
    """
    what, folder = sys.argv[1], Path(sys.argv[2])
    orders_file, state_file = folder / "orders.json", folder / "state.json"
    try:
        orders = orders_in(orders_file.read_text("utf-8"))
    except (OSError, BadOrders) as error:
        sys.stderr.write(f"{Unmet(f'orders in {orders_file}', str(error), 'deploy the host with --tags expiry')}\n")
        return 2
    host = Host(orders)
    if what == "report":
        _say(json.dumps(report(orders, _kept(state_file), host.readings(), host.passed_on(), time.time())))
        return 0
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = _kept(state_file)
        if what == "begin":
            state.active = time.time()
        try:
            look(orders, state, host, _say)
        except Unmet as error:
            sys.stderr.write(f"{error}\n")
            return 1
        finally:
            files.write_text(state_file, json.dumps(asdict(state)))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _kept(path: Path) -> State:
    """The state of the last look; a new one where there is none that can be read, which then counts as active."""
    try:
        return State(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return State()
