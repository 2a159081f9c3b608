"""When a host stops serving by itself, and what it reports to reap.yml."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import expiry
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.expiry import expiry_orders
from tests.unit.serve.plans import plan

NOW = 1_800_000_000.0
REPLICA = expiry.Replica("engine-0", "glm-serve-0.service", ("engine-0", "engine-0-other"), "http://127.0.0.1:1", ())
ORDERS = expiry.Orders(NOW, 0.0, False, 600.0, False, "glm-door.service", "/run/glm-door/master.sock", "", (REPLICA,))
IDLE = replace(ORDERS, expires=None, idle_minutes=30.0)
QUIET = expiry.Reading(0, 7.0)
BUSY = expiry.Reading(2, 7.0)
SILENT = expiry.Reading(None, None, "no answer")
DOWN = expiry.Reading(0, None, down=True)


class Host(expiry.Host):
    """A host whose engines say these things, one after another."""

    def __init__(self, *said: expiry.Reading, door: bool = True, passed: expiry.Reading | None = None) -> None:
        self.passed = passed
        self.said = list(said)
        self.door = door
        self.done: list[str] = []

    def readings(self) -> dict[str, expiry.Reading]:
        return {"engine-0": self.said.pop(0) if len(self.said) > 1 else self.said[0]}

    def passed_on(self) -> expiry.Reading | None:
        return self.passed

    def admit(self, admitted: bool) -> None:
        if not self.door:
            raise Unmet("the door to answer", "nothing", "look at it")
        self.done.append("admit" if admitted else "refuse")

    def stop(self) -> None:
        self.done.append("stop")


def looked(orders: expiry.Orders, state: expiry.State, host: Host, now: float) -> list[str]:
    said: list[str] = []
    expiry.look(orders, state, host, said.append, lambda: now, lambda _seconds: None)
    return said


def test_before_its_time_nothing_happens() -> None:
    state, host = expiry.State(expiry.SERVING), Host(BUSY)
    assert looked(ORDERS, state, host, NOW - 1) == [] and host.done == []
    assert (state.phase, state.why, state.active) == (expiry.SERVING, "", NOW - 1)


def test_after_it_requests_are_refused_and_the_engine_stops_when_the_last_has_ended() -> None:
    state, host = expiry.State(expiry.SERVING), Host(BUSY)
    assert "2 request(s) run" in looked(ORDERS, state, host, NOW)[-1]
    assert looked(ORDERS, state, host, NOW + 3600) and "stop" not in host.done, "however long they run"
    host.said = [QUIET]
    assert "the engines are stopped" in looked(ORDERS, state, host, NOW + 3660)[-1]
    assert host.done == ["refuse", "refuse", "refuse", "stop"]
    host.said = [DOWN]
    assert looked(ORDERS, state, host, NOW + 3720) == [] and host.done[4:] == ["refuse"], "it is not stopped again"
    host.said = [SILENT]
    assert "not known" in looked(ORDERS, state, host, NOW + 3780)[-1], "somebody started it"


def test_what_came_in_just_before_the_door_was_told_is_waited_for() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET, BUSY)
    assert "2 request(s) run" in looked(ORDERS, state, host, NOW)[-1] and host.done == ["refuse"]


@pytest.mark.parametrize("reading", [BUSY, SILENT])
def test_hard_ends_them_after_the_time_to_drain_and_not_before(reading: expiry.Reading) -> None:
    orders, state, host = replace(ORDERS, hard=True), expiry.State(expiry.SERVING), Host(reading)
    looked(orders, state, host, NOW)
    looked(orders, state, host, NOW + 599)
    assert "stop" not in host.done
    looked(orders, state, host, NOW + 600)
    assert host.done[-1] == "stop"


def test_no_reading_is_no_idle_host_and_no_quiet_one() -> None:
    state, host = expiry.State(expiry.SERVING), Host(SILENT)
    assert "it is not known whether requests run (engine-0: no answer)" in looked(ORDERS, state, host, NOW)[-1]
    assert "stop" not in host.done
    state = expiry.State(expiry.SERVING)
    for minute in range(300):
        looked(IDLE, state, host, NOW + 60 * minute)
    assert host.done == ["refuse"]


def test_an_engine_whose_counters_cannot_be_read_is_not_idle_but_may_stop_when_the_door_has_no_request() -> None:
    unread = expiry.Reading(0, None, "no answer")
    state, host = expiry.State(expiry.SERVING), Host(unread)
    for minute in range(300):
        looked(IDLE, state, host, NOW + 60 * minute)
    assert host.done == []
    looked(ORDERS, state, host, NOW + 60)
    assert host.done == ["refuse", "stop"]


def test_a_door_that_does_not_answer_keeps_the_engine_running() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET, door=False)
    with pytest.raises(Unmet, match="the door to answer"):
        looked(ORDERS, state, host, NOW)
    assert host.done == [] and state.since == NOW, "the time to drain has begun"


def test_protected_and_extended_hosts_serve_on() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET)
    looked(replace(ORDERS, protected=True), state, host, NOW + 9)
    assert host.done == []
    host.said = [BUSY]
    looked(ORDERS, state, host, NOW + 9)
    assert "it has time" in looked(replace(ORDERS, expires=NOW + 3600), state, host, NOW + 60)[-1]
    assert host.done == ["refuse", "admit"] and (state.phase, state.since) == (expiry.SERVING, 0.0)


@pytest.mark.parametrize("moves", [[BUSY], [expiry.Reading(0, 8.0)], [expiry.Reading(0, 0.0)], [SILENT]])
def test_a_host_is_idle_when_nothing_has_moved_for_long(moves: list[expiry.Reading]) -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET)
    looked(IDLE, state, host, NOW)
    host.said = list(moves)
    looked(IDLE, state, host, NOW + 1700)
    host.said = [replace(moves[0], open=0) if moves[0].ended is not None else QUIET]
    # The last look at a request is the beginning of the silence.
    last = NOW + 1700
    looked(IDLE, state, host, last + 1799)
    assert host.done == []
    assert "no request since" in looked(IDLE, state, host, last + 1800)[0] and host.done == ["refuse", "stop"]


def test_an_engine_that_failed_or_that_somebody_stopped_does_not_show_who_asks() -> None:
    state, host = expiry.State(expiry.SERVING), Host(DOWN)
    for minute in range(300):
        looked(IDLE, state, host, NOW + 60 * minute)
    assert "stop" not in host.done and "refuse" not in host.done


def test_one_that_was_stopped_here_stays_idle() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET)
    looked(IDLE, state, host, NOW)
    looked(IDLE, state, host, NOW + 1800)
    host.said = [DOWN]
    looked(IDLE, state, host, NOW + 9000)
    assert host.done == ["refuse", "stop", "refuse"] and state.phase == expiry.STOPPED
    assert expiry.report(IDLE, state, {"engine-0": DOWN}, None, NOW + 9000)["idle"].startswith("no request since")


def test_one_that_was_stopped_here_stays_so_while_the_door_does_not_answer() -> None:
    state, host = expiry.State(expiry.STOPPED, since=NOW, active=NOW - 9000), Host(DOWN, door=False)
    with pytest.raises(Unmet):
        looked(IDLE, state, host, NOW)
    host.door = True
    looked(IDLE, state, host, NOW + 60)
    assert state.phase == expiry.STOPPED and host.done == ["refuse"], "it does not begin to serve, and is still idle"


@pytest.mark.parametrize(
    ("unit", "count"), [("inactive", 0), ("failed", 0), ("activating", None), ("active", None), ("", None)]
)
def test_a_socket_where_nobody_answers_is_no_proof_that_there_is_no_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, count: int | None
) -> None:
    def run(command: Sequence[str]) -> CommandResult:
        return CommandResult((), 0, unit if command[-1] == "glm-door.service" else "inactive", "")

    monkeypatch.setattr(master.commands, "run", run)
    patient = master.Master
    monkeypatch.setattr(master, "Master", lambda path, **more: patient(path, patience=0.1, **more))
    host = expiry.Host(replace(ORDERS, socket=str(tmp_path / "none.sock")))
    assert host.readings()["engine-0"].open == count


class Reloaded(master.Master):
    """A door that is reloaded after the first look; the process that a reload before had left ends then."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        self._looks = [[2, 1], [3, 2]]
        self.set: list[tuple[int, str]] = []

    def processes(self) -> list[master.Process]:
        pids = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return [master.Process(pid, old=pid != pids[0]) for pid in pids]

    def rows_of(self, process: master.Process) -> list[dict[str, str]]:
        if process.pid == 1:
            raise Unmet("HAProxy to answer", "nothing", "restart it")
        return [
            {"pxname": "engine-0", "svname": "engine", "scur": "1"},
            {"pxname": "engine-0", "svname": "BACKEND", "scur": "1"},
        ]

    def set_server(self, process: master.Process, server: str, state: str) -> None:
        self.set.append((process.pid, f"{server} {state}"))


def test_a_reload_meanwhile_hides_no_request_and_lets_none_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "Master", Reloaded)
    monkeypatch.setattr(expiry.commands, "run", lambda command: CommandResult((), 0, "inactive", ""))
    assert expiry.Host(ORDERS).readings()["engine-0"].open == 2
    front = Reloaded()
    monkeypatch.setattr(master, "Master", lambda *_arguments, **_options: front)
    expiry.Host(ORDERS).admit(False)
    assert front.set == [(2, "engine-0/engine maint"), (3, "engine-0/engine maint")]


def test_whatever_fails_after_the_door_heard_of_it_an_extension_admits_again() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET, door=False)
    with pytest.raises(Unmet):
        looked(ORDERS, state, host, NOW)
    host.door = True
    looked(replace(ORDERS, expires=NOW + 3600), state, host, NOW + 60)
    assert host.done == ["admit"]


def test_where_no_state_was_kept_the_door_admits() -> None:
    state, host = expiry.State(), Host(QUIET)
    looked(ORDERS, state, host, NOW - 60)
    looked(ORDERS, state, host, NOW - 1)
    assert host.done == ["admit"]


def test_a_host_that_follows_another_does_nothing_and_says_whom() -> None:
    orders, state, host = replace(ORDERS, replicas=(), follows="10.0.0.1"), expiry.State(expiry.SERVING), Host(QUIET)
    assert looked(orders, state, host, NOW) == [] and host.done == []
    told = expiry.report(orders, state, {}, None, NOW)
    assert (told["open"], told["follows"]) == (None, "10.0.0.1")


def test_what_it_reports() -> None:
    state = expiry.State(active=NOW - 1800)
    told = expiry.report(IDLE, state, {"engine-0": QUIET}, None, NOW)
    assert told["open"] == 0 and told["idle"].startswith("no request since") and told["over"] == told["idle"]
    assert told["active"] == expiry.stamp(NOW - 1800)
    assert expiry.report(replace(IDLE, protected=True), state, {"engine-0": QUIET}, None, NOW)["idle"] == ""
    assert expiry.report(ORDERS, state, {"engine-0": QUIET}, None, NOW)["idle"] == "", (
        "an end by the clock is not idleness"
    )
    told = expiry.report(IDLE, expiry.State(active=NOW - 9999), {"engine-0": SILENT}, None, NOW)
    assert told["open"] is None and told["idle"] == told["active"] == "" and told["problems"] == ["no answer"]
    assert expiry.report(IDLE, state, {}, None, NOW)["open"] is None


def given(**more: Any) -> str:
    of_engine = {"backends": ["engine-0"], "metrics": "http://127.0.0.1:1/m", "rules": []}
    replicas = [{"name": "engine-0", "unit": "glm-serve-0.service", **of_engine}]
    known = {"expires": "2026-11-29T08:00:00Z", "idle_minutes": 5, "hard": False, "drain_seconds": 600,
             "protected": False, "door": "d", "socket": "/s", "follows": "", "replicas": replicas}  # fmt: skip
    return json.dumps({**known, **more})


def test_orders_are_read_or_refused() -> None:
    assert expiry.orders_in(given()).expires == 1795939200.0
    assert expiry.orders_in(given(expires="")).expires is None
    for bad in ("", "[]", "{}", given(expires="tomorrow"), given(replicas=[{}]), given(idle_minutes="x")):
        with pytest.raises(expiry.BadOrders):
            expiry.orders_in(bad)


@pytest.mark.parametrize("text", ["", "{", '{"phase": 1, "more": 2}', "[]"])
def test_a_state_that_cannot_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text, "utf-8")
    assert expiry._kept(tmp_path / "state.json") == expiry.State()


# --- the gateway of the host ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "passed",
    [
        [expiry.Reading(1, 7.0)],
        # Each minute others have been answered; after a reload there may be fewer.
        [expiry.Reading(0, 8.0), expiry.Reading(0, 9.0)],
        [expiry.Reading(0, 9.0), expiry.Reading(0, 2.0)],
        # One that does not answer is not one that nobody asks.
        [expiry.Reading(None, None, "no answer")],
    ],
)
def test_a_host_whose_gateway_is_busy_is_not_idle(passed: list[expiry.Reading]) -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET)
    for minute in range(120):
        host.passed = passed[minute % len(passed)]
        looked(IDLE, state, host, NOW + 60 * minute)
    assert host.done == []
    told = expiry.report(IDLE, state, {"engine-0": QUIET}, passed[-1], NOW + 7200)
    assert told["idle"] == told["over"] == "" and told["open"] == 0, "what runs at its own door"
    assert told["active"] == ("" if passed[-1].open is None else expiry.stamp(state.passed))


def test_a_gateway_that_nobody_asks_keeps_no_host() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET, passed=expiry.Reading(0, 7.0))
    looked(IDLE, state, host, NOW)
    looked(IDLE, state, host, NOW + 1800)
    assert host.done == ["refuse", "stop"]


def test_the_end_of_its_time_is_the_end_though_the_gateway_is_busy() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET, passed=expiry.Reading(5, 7.0))
    looked(ORDERS, state, host, NOW)
    assert host.done == ["refuse", "stop"]


def test_what_the_gateway_passes_on_starts_no_engine_that_was_stopped_and_keeps_its_host() -> None:
    state, host = expiry.State(expiry.SERVING), Host(QUIET)
    looked(IDLE, state, host, NOW)
    looked(IDLE, state, host, NOW + 1800)
    host.said, host.passed = [DOWN], expiry.Reading(3, 7.0)
    looked(IDLE, state, host, NOW + 1860)
    assert host.done == ["refuse", "stop", "refuse"] and state.phase == expiry.STOPPED
    assert expiry.report(IDLE, state, {"engine-0": DOWN}, host.passed, NOW + 1900)["idle"] == ""
    told = expiry.report(IDLE, state, {"engine-0": DOWN}, expiry.Reading(0, 7.0), NOW + 9000)
    assert told["idle"] == f"no request since {expiry.stamp(NOW + 1900)}"


class Passing(master.Master):
    """A gateway: two proxies, and in the first of them a request and some answers."""

    rows: Any = [
        {"pxname": "replicas", "svname": "gpu-2-0", "scur": "1", "hrsp_2xx": "40"},
        {"pxname": "replicas", "svname": "BACKEND", "scur": "1", "hrsp_2xx": "40"},
        {"pxname": "any", "svname": "BACKEND", "scur": "", "hrsp_2xx": "2"},
        {"pxname": "monitor", "svname": "FRONTEND", "scur": "3", "hrsp_2xx": "900"},
    ]

    def processes(self) -> list[master.Process]:
        return [master.Process(1, old=False)]

    def rows_of(self, process: master.Process) -> list[dict[str, str]]:
        return list(self.rows)


def test_what_a_gateway_carries_is_read_from_its_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = expiry_orders([plan()], {"unit": "d", "files": {"master": "/s"}, "replicas": [], "monitor": "m"})
    orders = expiry.orders_in(given(gateway=made["gateway"]))
    monkeypatch.setattr(master, "Master", Passing)
    assert expiry.Host(orders).passed_on() == expiry.Reading(1, 42.0)
    monkeypatch.setattr(Passing, "rows", [{"pxname": "other", "svname": "BACKEND", "scur": "0", "hrsp_2xx": "0"}])
    unknown = expiry.Host(orders).passed_on()
    assert unknown is not None and unknown.open is None
    # Orders of an earlier release know of none.
    assert expiry.Host(expiry.orders_in(given())).passed_on() is None


@pytest.mark.parametrize(
    ("unit", "runs"), [("inactive", False), ("failed", False), ("activating", True), ("active", True), ("", True)]
)
def test_a_gateway_that_does_not_answer_is_one_that_may_be_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, runs: bool
) -> None:
    monkeypatch.setattr(master.commands, "run", lambda _command: CommandResult((), 0, unit, ""))
    patient = master.Master
    monkeypatch.setattr(master, "Master", lambda path, **more: patient(path, patience=0.1, **more))
    orders = replace(ORDERS, gateway=expiry.Gateway("glm-gateway.service", str(tmp_path / "none.sock"), ("any",)))
    found = expiry.Host(orders).passed_on()
    assert (found is not None and found.open is None and bool(found.problem)) == runs


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_engine_has_the_counters_that_are_looked_at(engine: str) -> None:
    known = catalog.load().engines[engine]
    names = {rule["name"] for rule in known.metric_rules(known.default_version)}
    assert "finished" in names
