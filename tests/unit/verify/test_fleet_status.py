"""One row for each replica of a fleet: every state, what is not known, and what makes a host unwell."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master, Process
from ansible_collections.glm.fleet.plugins.module_utils.host import lease
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import look, release, restarts
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Answer, NoAnswer
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door, fleet, replica
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import running as judge
from tests.unit.serve.plans import RUNS, nodes, plan, replicas

NOW = 1_795_953_600.0  # 2026-11-29T12:00:00Z
TLS = {"origin": "fleet", "names": ["gpu-1"], "acme": None}
VALIDATOR = Draft202012Validator(json.loads(Path("docs/schemas/status.schema.json").read_text("utf-8")))


def runs(made: Any, **changes: Any) -> dict[str, Any]:
    """A replica that runs as planned."""
    return {
        **RUNS,
        "replica": made["replica"],
        "engine": made["engine"]["name"],
        "version": made["engine"]["version"],
        "image": made["image"]["reference"],
        "digests": [made["image"]["digest"]],
        "words": replica.engine_words(made),
        "environment": dict(made["env"]),
        "started": {"/etc/systemd/system/glm-serve-0.service": "1"},
        "files": {"/etc/systemd/system/glm-serve-0.service": "1"},
        "unit": {
            "active_state": "active", "sub_state": "running", "phase": "ready", "detail": "", "elapsed_seconds": 900,
            "restarts": 0, "ended": {"count": 0}, "cause": "", "next": "", "installed": True,
        },
        "load": {"running": 8.0, "waiting": 2.0, "kv_usage": 0.31, "tokens_per_second": 412.4},
        **changes,
    }  # fmt: skip


def host(**changes: Any) -> dict[str, Any]:
    """What a host says of itself (module_utils/serving/look.py)."""
    good = {"number": 7, "made_at": "2026-11-28T12:00:00Z", "passed_at": "2026-11-29T09:00:00Z", "by": "ann@box",
            "verdict": {"passed": 44, "made": 44}, "driver": "580.105.08"}  # fmt: skip
    return {
        "replicas": [runs(plan())],
        "releases": {"good": good, "running": 7},
        "door": {
            "replicas": {"engine-0": {"open": 10, "admitted": True, "ready": "serving"}},
            "certificate_ends": NOW + 60 * 86400,
        },
        "gateway": {},
        "driver": "580.105.08",
        "lease": None,
        **changes,
    }


def shown(seen: dict[str, Any], *plans: Any) -> fleet.HostStatus:
    made = fleet.of_host("gpu-1", list(plans) or [plan()], seen, 53.44, NOW)
    VALIDATOR.validate(json.loads(json.dumps(fleet.fleet([made]))))
    return made


def row(made: fleet.HostStatus) -> dict[str, str]:
    """The first row of the table, by title."""
    titles, line = fleet.lines(fleet.fleet([made]), NOW)[:2]
    starts = [f"  {titles}".index(f"  {title}") for title in fleet._TITLES]
    return {title: line[a:b].strip() for title, a, b in zip(fleet._TITLES, starts, [*starts[1:], None])}


@pytest.mark.parametrize(
    ("ready", "load", "problem"),
    [
        ("down", {}, "replica 0: its front door says that the engine does not answer"),
        (None, {}, "replica 0: /ready of its front door was not read"),
        ("serving", {"problem": "timed out"}, "replica 0: its metrics were not read: timed out"),
    ],
)
def test_an_engine_that_hangs_is_not_well_though_its_unit_is_active(
    ready: str | None, load: dict[str, Any], problem: str
) -> None:
    seen = host()
    seen["door"]["replicas"]["engine-0"]["ready"] = ready
    seen["replicas"][0]["load"].update(load)
    made = shown(seen)
    assert not made["ok"] and made["problems"] == [problem]


def test_an_engine_that_ended_again_and_again_shows_it() -> None:
    seen = host()
    seen["replicas"][0]["unit"]["ended"] = {"count": 3, "recent": 2, "last_cause": "it was killed"}
    made = shown(seen)
    assert made["ok"] and made["replicas"][0]["restarts"] == 3
    assert (row(made)["STATE"], row(made)["RESTARTS"]) == ("serving", "3")
    seen["replicas"][0]["unit"]["ended"]["recent"] = 3
    made = shown(seen)
    problem = "replica 0: the engine ended 3 times by itself in a day, the last time: it was killed"
    assert not made["ok"] and made["problems"] == [problem]


def test_ends_that_are_not_known_are_said() -> None:
    seen = host()
    seen["replicas"][0]["unit"]["ended"] = None
    made = shown(seen)
    assert not made["ok"] and row(made)["RESTARTS"] == "?"
    assert made["problems"] == [f"replica 0: {restarts.unknown({'ended': None})}"]


def test_a_host_that_serves_as_planned_is_well() -> None:
    made = shown(host())
    assert made["ok"] and made["problems"] == []
    assert row(made) == {
        "HOST": "gpu-1", "RELEASE": "7", "STATE": "serving", "RESTARTS": "0", "ENGINE": "vllm 0.32.0",
        "REQUESTS": "10 open, 2 wait", "KV": "31%", "TOK/S": "412",
        "PASSED": "3 h ago", "DRIFT": "-", "CERT": "60 d", "USD/H": "53.44", "LEASE": "-",
    }  # fmt: skip


STARTING = {
    "active_state": "activating",
    "sub_state": "start-post",
    "phase": "loading weights",
    "detail": "shards 17/142",
}
DEAD = {"active_state": "inactive", "sub_state": "dead"}
UNITS: list[tuple[str, dict[str, Any], bool | None, str, bool]] = [
    ("serving", {}, True, "serving", True),
    ("a door that does not say whether it admits", {}, None, "serving", True),
    ("draining", {}, False, "draining", True),
    ("starting", {**STARTING, "elapsed_seconds": 1200}, True,
     "starting: loading weights, shards 17/142, 20 min left", True),
    ("late", {**STARTING, "elapsed_seconds": 9999}, True, "starting: loading weights, shards 17/142, 0 s left", True),
    ("waits", {**DEAD, "phase": "waiting for the host", "elapsed_seconds": 0}, True,
     "starting: waiting for the host, 40 min left", True),
    ("failed", {"active_state": "failed", "sub_state": "failed", "cause": "the engine was killed (SIGKILL)",
                "next": "look at dmesg"}, True, "FAILED", False),
    ("tries again", {**STARTING, "sub_state": "auto-restart", "cause": "text"}, True, "FAILED", False),
    ("stopped", DEAD, True, "STOPPED", False),
    # Of a unit that never was there is no cause, whatever its properties look like.
    ("absent", {**DEAD, "installed": False, "cause": "the weights are gone"}, True, "ABSENT", False),
    ("stopping", {"active_state": "deactivating", "sub_state": "stop"}, True, "STOPPING", False),
    ("a word that is not known", {"active_state": "maintenance"}, True, "UNKNOWN", False),
    ("nobody answered", {"problem": "systemctl show failed with 124"}, True, "UNKNOWN", False),
]  # fmt: skip


@pytest.mark.parametrize(("unit", "admitted", "state", "ok"), [one[1:] for one in UNITS], ids=[one[0] for one in UNITS])
def test_every_state_has_its_word(unit: dict[str, Any], admitted: bool | None, state: str, ok: bool) -> None:
    seen = host()
    seen["replicas"][0]["unit"].update(unit)
    seen["door"]["replicas"]["engine-0"]["admitted"] = admitted
    made = shown(seen)
    assert (row(made)["STATE"], made["ok"]) == (state, ok)
    said = " ".join(made["problems"])
    shown_of = {} if state == "ABSENT" else unit
    assert all(str(shown_of[key]) in said for key in ("cause", "next", "problem") if key in shown_of)
    assert ("its unit is not installed" in said) == (state == "ABSENT")


def test_what_runs_and_is_not_planned_is_drift_and_a_problem() -> None:
    seen = host()
    seen["replicas"][0]["words"] = [*replica.engine_words(plan())[:-1], "other"]  # type: ignore[arg-type]
    made = shown(seen)
    assert row(made)["DRIFT"] == "1" and not made["ok"]
    assert "other, plan says" in made["problems"][0]


def test_what_was_not_seen_of_a_running_replica_is_no_absence_of_drift() -> None:
    seen = host()
    seen["replicas"][0].update(words=None, engine=None, version=None, problems=["docker inspect: no answer within 5 s"])
    made = shown(seen)
    assert (row(made)["DRIFT"], row(made)["ENGINE"], made["ok"]) == ("?", "?", False)
    assert "docker inspect: no answer within 5 s" in made["problems"][0]


def test_a_driver_that_changed_since_the_release_passed_is_drift_of_the_host() -> None:
    made = shown(host(driver="590.1"))
    assert made["ok"] and row(made)["DRIFT"] == "1"
    assert "  gpu-1: the driver is 590.1, and was 580.105.08" in fleet.lines(fleet.fleet([made]), NOW)
    assert shown(host(driver=None))["drift"] == []


@pytest.mark.parametrize(
    ("releases", "shown_as"),
    [
        ({"good": None, "running": None}, "none"),
        ({"good": {"number": 7, "passed_at": "2026-11-29T09:00:00Z", "by": "x"}, "running": None}, "none (good: 7)"),
        ({"good": {"number": 7, "passed_at": "2026-11-29T09:00:00Z", "by": "x"}, "running": 5}, "5"),
    ],
)
def test_the_release_is_the_one_that_runs(releases: dict[str, Any], shown_as: str) -> None:
    made = shown(host(releases=releases))
    assert row(made)["RELEASE"] == shown_as and made["ok"]
    assert row(made)["PASSED"] == ("never" if releases["good"] is None else "3 h ago")


def test_releases_or_a_door_that_cannot_be_read_are_problems() -> None:
    made = shown(
        host(releases={"problem": "expected a number"}, door={"problem": "no answer at /run/glm-door/master.sock"})
    )
    assert not made["ok"] and len(made["problems"]) == 2
    assert row(made)["REQUESTS"] == "? open, 2 wait" and row(made)["RELEASE"] == "none"


@pytest.mark.parametrize(
    ("days", "ok", "cell"), [(60.0, True, "60 d"), (7.0, True, "7 d"), (6.9, False, "7 d"), (None, False, "-")]
)
def test_a_certificate_that_ends_soon_or_was_not_read_is_a_problem(days: float | None, ok: bool, cell: str) -> None:
    seen = host()
    seen["door"]["certificate_ends"] = None if days is None else NOW + days * 86400
    made = shown(seen, plan(tls=TLS))
    assert (made["ok"], row(made)["CERT"]) == (ok, cell)
    # Without TLS there is none to read.
    assert days is not None or shown(seen)["ok"]


def test_a_host_that_was_not_read_is_a_row_that_says_so() -> None:
    made = fleet.unread("gpu-2", "unreachable: Connection timed out", None)
    report = fleet.fleet([shown(host()), made])
    VALIDATOR.validate(json.loads(json.dumps(report)))
    lines = fleet.lines(report, NOW)
    assert "UNREAD" in lines[2] and "  gpu-2: unreachable: Connection timed out" in lines
    assert lines[-1] == "1 of 2 hosts are well, ? USD per hour"
    assert not report["ok"] and report["usd_per_hour"] is None
    assert not fleet.fleet([])["ok"]


def test_before_the_first_deploy_nobody_misses_a_door() -> None:
    seen = host(door={"problem": "no answer at the socket"})
    seen["replicas"][0]["unit"].update({**DEAD, "installed": False})
    made = shown(seen, plan(tls=TLS))
    assert made["problems"] == ["replica 0 is absent: its unit is not installed. Next: run deploy.yml."]


def held(**changes: str) -> dict[str, Any]:
    """The record of a lease, as a run leaves it on the host."""
    claim = lease.Claim(run="run", by="bob@laptop", playbook="deploy.yml")
    return {**lease.taken(None, claim, "2026-11-01T00:00:00Z"), **changes}


@pytest.mark.parametrize(
    ("minutes", "released", "whose"),
    [
        (5, "", "bob@laptop deploy.yml"),
        (359, "", "bob@laptop deploy.yml"),
        (361, "", None),
        (5, "2026-11-01T01:00:00Z", None),
    ],
)
def test_a_lease_that_was_released_or_that_nobody_renewed_for_six_hours_is_nobodys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, minutes: int, released: str, whose: str | None
) -> None:
    renewed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60 * minutes))
    (tmp_path / "lease.json").write_text(json.dumps(held(renewed=renewed, released=released)), "utf-8")
    assert leased(monkeypatch, tmp_path / "lease.json") == whose


def test_no_record_is_nobodys_lease_and_one_that_cannot_be_read_is_somebodys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert leased(monkeypatch, tmp_path / "lease.json") is None
    (tmp_path / "lease.json").write_text("{", "utf-8")
    assert "cannot be read" in str(leased(monkeypatch, tmp_path / "lease.json"))
    assert "expected to read the host's lease" in str(leased(monkeypatch, tmp_path))


def leased(monkeypatch: pytest.MonkeyPatch, path: Path) -> str | None:
    """What the table says of the record at a path of the host."""
    monkeypatch.setattr(lease, "PATH", path)
    return shown(host(lease=look._safely(look._lease) or None))["lease"]


def test_replicas_are_rows_and_a_lease_names_who_has_it() -> None:
    plans = replicas(2)
    seen = host(replicas=[runs(one) for one in plans], lease=held(by="bob@laptop\x1b[2J"))
    seen["door"]["replicas"] = {"engine-0": {"open": 1, "admitted": True, "ready": "serving"}}
    seen["door"]["replicas"]["engine-1"] = {"open": 0, "admitted": False, "ready": "down"}
    made = shown(seen, *plans)
    assert made["lease"] == "bob@laptop deploy.yml"
    lines = fleet.lines(fleet.fleet([made]), NOW)
    assert lines[1].startswith("gpu-1/0") and "serving" in lines[1]
    assert lines[2].startswith("gpu-1/1") and "draining" in lines[2]
    assert fleet.lines(fleet.fleet([made]), NOW)[-1] == "1 of 1 hosts are well, 53.44 USD per hour"


def test_a_further_host_of_a_replica_has_no_door_and_no_requests() -> None:
    made: Any = nodes(plan(tls=TLS), 1)
    assert door.watched([made]) is None
    seen = host(replicas=[runs(made, load={"problem": "refused"}, engine=None, version=None)], door={})
    status = shown(seen, made)
    assert status["ok"] and row(status)["REQUESTS"] == "? open, ? wait"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")]
)
def test_durations_have_one_unit(seconds: int, text: str) -> None:
    assert fleet.duration(seconds) == text


def test_nothing_foreign_reaches_the_terminal() -> None:
    seen = host()
    seen["replicas"][0].update(version="0.32.0\x1b]0;x\x07", unit={"active_state": "failed", "cause": "a\x1b[31mb\nc"})
    made = shown(seen)
    text = "\n".join(fleet.lines(fleet.fleet([made]), NOW))
    assert "\x1b" not in text and "\x07" not in text


# --- on the host ------------------------------------------------------------------------------------------------------


class Proxy(Master):
    """An HAProxy with two processes, of which the older one still ends what it has open."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def processes(self) -> list[Process]:
        return [Process(1, old=False), Process(2, old=True)]

    def rows_of(self, process: Process) -> list[dict[str, str]]:
        state = "no check" if process.old else "MAINT"
        return [
            {"pxname": "engine-0", "svname": "engine", "scur": "3", "status": state},
            {"pxname": "engine-0", "svname": "BACKEND", "scur": "4", "status": "UP"},
            {"pxname": "engine-0-other", "svname": "BACKEND", "scur": "1", "status": "UP"},
            {"pxname": "engine-1", "svname": "BACKEND", "scur": "9", "status": "UP"},
        ]


def test_requests_are_counted_in_all_processes_of_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look.master, "Master", Proxy)
    said = iter(["draining", None])
    monkeypatch.setattr(look, "_ready", lambda _endpoint: next(said))
    watched: Any = {**(door.watched([plan()]) or {}), "authorities": ""}  # type: ignore[list-item]
    assert look._door(watched)["replicas"] == {"engine-0": {"open": 10, "admitted": True, "ready": "draining"}}
    monkeypatch.setattr(Proxy, "processes", lambda _self: [Process(1, old=False)])
    assert look._door(watched)["replicas"] == {"engine-0": {"open": 5, "admitted": False, "ready": None}}


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(404, {"state": "draining"}), "draining"),
        (Answer(404, {"error": {}}), None),
        (Answer(200, "text"), None),
        (NoAnswer("refused", False), None),
    ],
)
def test_what_the_door_says_to_balancers(answer: Any, state: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_arguments: Any) -> Answer:
        if isinstance(answer, NoAnswer):
            raise answer
        assert isinstance(answer, Answer)
        return answer

    monkeypatch.setattr(look, "ask", ask)
    assert look._ready(look.Endpoint("127.0.0.1", 1, "")) == state


def test_a_door_that_says_to_balancers_that_it_drains_is_believed() -> None:
    seen = host()
    seen["door"]["replicas"]["engine-0"]["ready"] = "draining"
    assert row(shown(seen))["STATE"] == "draining"
    seen["door"]["replicas"]["engine-0"]["ready"] = "serving"
    assert row(shown(seen))["STATE"] == "serving"


@pytest.mark.parametrize(
    ("after", "rate"), [({"generation_tokens": 150.0}, True), ({"generation_tokens": 10.0}, False), ({}, False)]
)
def test_the_rate_is_of_two_readings_and_not_of_an_engine_that_was_started_between(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, float], rate: bool
) -> None:
    readings = iter([{"generation_tokens": 100.0}, {**after, "waiting": 2.0}])
    monkeypatch.setattr(look, "_metrics", lambda *_args: next(readings))
    found = look._load(1, [], 0.01)
    assert (found["tokens_per_second"] is not None, found["waiting"], found["kv_usage"]) == (rate, 2.0, None)


def test_a_host_without_anything_is_read_to_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each reading says why there is none, and costs none of the others."""
    monkeypatch.setattr(look.commands, "run", lambda argv, timeout=0: CommandResult(tuple(argv), 127, "", "not found"))
    monkeypatch.setattr(look.release.Store, "__init__", lambda self: setattr(self, "folder", tmp_path))
    plans: Any = [plan()]
    watched: Any = {**(door.watched(plans) or {}), "socket": str(tmp_path / "none"), "authorities": ""}
    wanted: Any = [judge.wanted(plan())]  # type: ignore[arg-type]
    asked: Any = {"replicas": wanted, "rules": {}, "metrics": [], "sample_seconds": 0.01, "door": watched}
    asked["replicas"][0]["port"] = 1
    found = look.whole(asked)
    assert found["releases"] == {"good": None, "running": None}
    assert "not found" in found["replicas"][0]["unit"]["problem"] and found["replicas"][0]["load"]["problem"]
    assert "HAProxy to answer" in found["door"]["problem"]
    made = shown(found)
    assert not made["ok"] and row(made)["STATE"] == "UNKNOWN"


def test_what_is_kept_on_the_host_is_shown(tmp_path: Path) -> None:
    store = release.Store(tmp_path)
    found = [release.observed(runs(plan()), plan())]
    kept: release.Release = {
        "schema": 1, "number": 0, "content_sha256": "x", "made_at": "2026-11-28T12:00:00Z",
        "passed_at": "2026-11-28T12:00:00Z", "by": "ann@box", "collection": "0.2.0", "intent": {}, "observed": found,
        "verdict": {"passed": 44, "made": 44}, "driver": "580.105.08",
    }  # fmt: skip
    store.keep(copy.deepcopy(kept), [plan()])
    read = look._releases(store)
    assert read["good"]["number"] == 1 and read["good"]["driver"] == "580.105.08"
    assert release.running_of(read["all"], [runs(plan())]) == 1
