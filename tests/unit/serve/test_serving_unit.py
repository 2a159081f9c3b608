"""What a replica needs must be free before anything that runs is stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy as _occupancy
from ansible_collections.glm.fleet.plugins.module_utils.serving import running
from ansible_collections.glm.fleet.plugins.modules import serving_unit
from tests.unit.serve.plans import plan
from tests.unit.serve.render import render

UNIT = "glm-serve-0.service"
OWN = _occupancy.Holder("the container glm-serve-0 (vllm/vllm-openai)", UNIT)
OTHERS = [
    _occupancy.Holder("process 4711 (python3: python3 -m http.server 8000)"),
    _occupancy.Holder("the container glm-serve-1 (x)", "glm-serve-1.service"),
]


def replica(action: str, number: int = 0) -> serving_unit.Replica:
    unit = f"glm-serve-{number}.service"
    made = serving_unit.Replica(unit, [], "127.0.0.1", 8000 + number, list(range(4 * number, 4 * number + 4)))
    made.action = action
    return made


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Who holds the port and the GPUs; tests fill it in."""
    state: dict[str, object] = {"port": None, "gpus": []}
    monkeypatch.setattr(_occupancy, "port_owner", lambda *_args: state["port"])
    monkeypatch.setattr(_occupancy, "gpu_users", lambda *_args: state["gpus"])
    return state


@pytest.mark.parametrize("action", ["start", "restart"])
@pytest.mark.parametrize("owner", OTHERS)
def test_a_port_that_another_holds_stops_the_start(
    held: dict[str, object], action: str, owner: _occupancy.Holder
) -> None:
    held["port"] = owner
    problem = serving_unit.occupied(replica(action), "nvidia", [UNIT] if action == "restart" else [])
    assert problem == (
        f"expected 127.0.0.1 port 8000 to be free, found {owner.words}. "
        "Next: stop it, or choose another glm_engine_port."
    )


def test_a_replica_may_restart_on_its_own_port_and_gpus(held: dict[str, object]) -> None:
    held.update(port=OWN, gpus=["process 4712 (vllm: 170000 MiB)"])
    assert serving_unit.occupied(replica("restart"), "nvidia", [UNIT]) is None
    assert "to be free" in str(serving_unit.occupied(replica("start"), "nvidia", []))


def test_gpu_memory_that_another_holds_stops_a_start(held: dict[str, object]) -> None:
    held["gpus"] = ["process 4712 (python3: 170000 MiB)"]
    assert "free GPU memory" in str(serving_unit.occupied(replica("start"), "nvidia", []))


def test_nothing_is_asked_when_nothing_is_done(held: dict[str, object]) -> None:
    held["port"] = OTHERS[0]
    assert serving_unit.occupied(replica("none"), "nvidia", []) is None


@pytest.mark.parametrize(
    ("reload", "job", "action"),
    [("no", "4711", "none"), ("yes", "4711", "start"), ("no", "0", "start"), ("no", "", "start")],
)
def test_a_start_that_is_queued_already_is_not_asked_for_again(reload: str, job: str, action: str) -> None:
    """The vendor's CDI refresh runs first and takes seconds; the start will read the files as they are then."""
    properties = {"ActiveState": "inactive", "SubState": "dead", "Job": job, "NeedDaemonReload": reload}
    assert serving_unit.decide(properties, ["/etc/glm/serve-0.env"])[0] == action


@pytest.mark.parametrize(
    ("state", "sub", "action"),
    [("active", "running", "restart"), ("activating", "start-pre", "none"), ("inactive", "dead", "start")],
)
def test_what_runs_as_planned_restarts_where_that_is_wanted(state: str, sub: str, action: str) -> None:
    properties = {"ActiveState": state, "SubState": sub, "NeedDaemonReload": "no"}
    assert serving_unit.decide(properties, [], restart=True)[0] == action
    assert serving_unit.decide({"ActiveState": "active", "SubState": "running"}, [])[0] == "none"


def test_what_a_check_run_did_not_write_counts_as_changed(tmp_path: Path) -> None:
    unit, env = tmp_path / "unit", tmp_path / "env"
    for file in (unit, env):
        file.write_text("as it was", "utf-8")
    record = tmp_path / "started.json"
    record.write_text(json.dumps({str(file): running.checksum(str(file)) for file in (unit, env)}), "utf-8")
    files = [str(unit), str(env)]
    assert serving_unit.changed_files(files, record) == []
    assert serving_unit.changed_files(files, record, ["/elsewhere", str(env)]) == [str(env)]


def test_weights_that_were_replaced_after_a_start_are_a_reason_to_restart(tmp_path: Path) -> None:
    record, weights = tmp_path / "started.json", tmp_path / "org--name@commit.json"
    assert serving_unit.reloaded([str(weights)], record), "what left no record of its start restarts anyway"
    record.write_text("{}", "utf-8")
    os.utime(record, (1000, 1000))
    assert serving_unit.reloaded([], record)
    assert serving_unit.reloaded([str(weights)], record), "nothing was ever verified"
    for replaced_at, loaded in ((0, True), (999.5, True), (1000.5, False)):
        weights.write_text(json.dumps({"replaced_at": replaced_at}), "utf-8")
        assert serving_unit.reloaded([str(weights)], record) is loaded
        assert serving_unit.reloaded([str(tmp_path / "draft.json"), str(weights)], record) is loaded
    # A record of before there was that word.
    weights.write_text("{}", "utf-8")
    assert serving_unit.reloaded([str(weights)], record)


def test_units_of_earlier_plans_are_found_and_others_left_alone(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        (tmp_path / f"glm-serve-{number}.service").write_text(render("glm-serve.service", plan(replica=number)))
    (tmp_path / "glm-serve-7.service").write_text("[Service]\nExecStart=/usr/bin/somebody-elses\n")
    (tmp_path / "glm-serve-extra.service").write_text("[X-GlmFleet]\n")
    assert serving_unit.surplus(["glm-serve-0.service"], tmp_path) == ["glm-serve-1.service", "glm-serve-2.service"]
    assert serving_unit.surplus([f"glm-serve-{number}.service" for number in range(3)], tmp_path) == []


@pytest.mark.parametrize(
    ("active", "enabled", "used"),
    [("active", "disabled", True), ("activating", "disabled", True), ("failed", "enabled", True),
     ("inactive", "disabled", False), ("failed", "disabled", False)],
)  # fmt: skip
def test_a_retired_unit_is_not_stopped_twice(active: str, enabled: str, used: bool) -> None:
    assert serving_unit.in_use({"ActiveState": active, "UnitFileState": enabled}) is used


def calls(monkeypatch: pytest.MonkeyPatch, replicas: list[serving_unit.Replica], retired: list[str]) -> list[str]:
    made: list[str] = []

    def run(argv: list[str], timeout: float = 30) -> CommandResult:
        made.append(" ".join(argv[1:]))
        return CommandResult(tuple(argv), 0, "", "")

    monkeypatch.setattr(serving_unit._host_commands, "run", run)
    serving_unit.apply(replicas, retired)
    return made


def enabled(action: str, number: int = 0, reload: str = "no") -> serving_unit.Replica:
    made = replica(action, number)
    made.properties = {"UnitFileState": "enabled", "NeedDaemonReload": reload}
    return made


def test_one_restart_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls(monkeypatch, [enabled("restart", reload="yes")], []) == [
        "daemon-reload",
        "reset-failed glm-serve-0.service",
        "--no-block restart glm-serve-0.service",
    ]


def test_what_leaves_is_stopped_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one replica on eight GPUs to two on four: the second must find its GPUs free."""
    assert calls(monkeypatch, [enabled("restart"), replica("start", 1)], []) == [
        "--no-reload enable glm-serve-1.service",
        "stop glm-serve-0.service",
        "reset-failed glm-serve-0.service glm-serve-1.service",
        "--no-block start glm-serve-0.service glm-serve-1.service",
    ]
    assert calls(monkeypatch, [enabled("restart")], ["glm-serve-1.service"]) == [
        "--no-reload disable glm-serve-1.service",
        "stop glm-serve-1.service glm-serve-0.service",
        "reset-failed glm-serve-0.service",
        "--no-block start glm-serve-0.service",
    ]
    assert calls(monkeypatch, [enabled("none"), enabled("none", 1)], []) == []
