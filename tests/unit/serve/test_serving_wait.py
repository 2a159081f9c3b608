"""Waiting for an engine: what is printed, when it ends, what a failure says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.glm.fleet.plugins.action import serving_wait
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import base

BASE = {
    "active_state": "activating",
    "sub_state": "start-post",
    "result": "success",
    "exit_status": 0,
    "restarts": 0,
    "phase": "loading weights",
    "detail": "",
    "elapsed_seconds": 1,
    "log": [],
    "cause": "",
    "next": "",
}
READY = {**BASE, "active_state": "active", "sub_state": "running", "phase": "ready", "elapsed_seconds": 50}
RETRY = {**BASE, "sub_state": "auto-restart", "phase": "starting the engine", "cause": "a race", "restarts": 0}
FAILED = {
    **BASE,
    "active_state": "failed",
    "sub_state": "failed",
    "result": "exit-code",
    "exit_status": 1,
    "cause": "a disk is full",
    "next": "free space",
    "log": ["OSError: full"],
}
ARGS = {
    "unit": "glm-serve-0.service",
    "start_seconds": 100,
    "secret_files": [],
    "rules": {},
    "poll_seconds": 5,
    "heartbeat_seconds": 15,
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Connection:
    def reset(self) -> None:
        """Nothing to reset."""


class Wait(serving_wait.ActionModule):
    """The action with a host that answers from a list; the last answer repeats."""

    def __init__(self, answers: list[Any]) -> None:
        self._task_vars = {"inventory_hostname": "gpu-1"}
        self._connection = Connection()
        self.answers = answers

    def _execute_module(self, **asked: Any) -> dict[str, Any]:
        self.asked = asked
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(serving_wait, "time", Clock())
    monkeypatch.setattr(base.display, "display", lines.append)
    return lines


def test_an_endpoint_that_is_up_is_not_talked_about(said: list[str]) -> None:
    answer = Wait([READY])._wait(ARGS)
    assert answer["changed"] is False and answer["phase"] == "ready" and not answer.get("failed")
    assert said == []


@pytest.mark.parametrize(
    ("engine", "phases"),
    [
        ({"name": "vllm", "version": "0.32.0"}, (True, False)),
        ({"name": "sglang", "version": "0.5.10"}, (False, True)),
        (None, (True, True)),
    ],
)
def test_the_host_gets_what_the_lines_of_the_engine_mean(
    engine: dict[str, str] | None, phases: tuple[bool, bool], said: list[str]
) -> None:
    action = Wait([READY])
    action._task = SimpleNamespace(check_mode=False)
    action._args = {**ARGS, "engine": engine}
    assert action._outcome()["phase"] == "ready"
    patterns = [rule["pattern"] for rule in action.asked["module_args"]["rules"]["phases"]]
    assert ("non-default args:" in patterns, "Load weight begin" in patterns) == phases


def test_phases_are_told_when_they_change_and_every_15_seconds(said: list[str]) -> None:
    loading = [{**BASE, "detail": f"shards {n}/9", "elapsed_seconds": 5 * n} for n in range(1, 8)]
    Wait([*loading, {**BASE, "phase": "capturing graphs", "elapsed_seconds": 40}, READY])._wait(ARGS)
    assert said == [
        "[gpu-1] glm-serve-0: loading weights (shards 1/9), 5 of 100 s",
        "[gpu-1] glm-serve-0: loading weights (shards 4/9), 20 of 100 s",
        "[gpu-1] glm-serve-0: loading weights (shards 7/9), 35 of 100 s",
        "[gpu-1] glm-serve-0: capturing graphs, 40 of 100 s",
        "[gpu-1] glm-serve-0: ready after 50 s",
    ]


def test_a_failure_says_where_when_what_why_and_what_next(said: list[str]) -> None:
    answer = Wait([BASE, FAILED])._wait(ARGS)
    assert answer["failed"] and answer["phase"] == "loading weights"
    expected = (
        "gpu-1, serve, phase 'loading weights'",
        "found failed (result exit-code, exit status 1)",
        "; cause: a disk is full. Next: free space; the whole log",
        "Next: free space",
        "journalctl -u glm-serve-0.service",
        "OSError: full",
    )
    assert [words for words in expected if words not in answer["msg"]] == []


def test_the_automatic_retry_is_told_and_reported(said: list[str]) -> None:
    answer = Wait([BASE, RETRY, RETRY, {**BASE, "restarts": 1}, {**READY, "restarts": 1}])._wait(ARGS)
    assert answer["retried"] and "a race" in answer["warnings"][0]
    assert said[1] == "[gpu-1] glm-serve-0: failed in phase 'loading weights' (a race); systemd tries once more"
    assert len([line for line in said if "tries once more" in line]) == 1


@pytest.mark.parametrize("between", [[RETRY], []])
def test_how_far_the_first_start_was_is_nothing_that_the_second_reached(
    between: list[dict[str, Any]], said: list[str]
) -> None:
    second = {**BASE, "restarts": 1, "phase": "starting the program"}
    ended = {**FAILED, "restarts": 1, "phase": "starting the program"}
    answer = Wait([BASE, *between, second, ended])._wait(ARGS)
    assert "gpu-1, serve, phase 'starting the program'" in answer["msg"]
    action = Wait([BASE])
    action._lines = progress = serving_wait.Progress(said.extend, "gpu-1", "glm-serve-0.service", 600, 15)
    progress.show(BASE, 100.0)
    progress.begin_again("failed")
    progress.repeat(130.0)
    assert said[-1] == "[gpu-1] glm-serve-0: failed; systemd tries once more"


def test_restarts_of_the_past_are_not_this_runs(said: list[str]) -> None:
    assert Wait([{**READY, "restarts": 3}])._wait(ARGS)["retried"] is False


def test_two_failures_are_counted(said: list[str]) -> None:
    answer = Wait([BASE, RETRY, {**BASE, "restarts": 1}, {**FAILED, "restarts": 1}])._wait(ARGS)
    assert "in 2 attempts" in answer["msg"]


@pytest.mark.parametrize("seen", [[], [{**BASE, "restarts": 1}], [BASE, {**BASE, "restarts": 1}]])
def test_a_failure_between_two_looks_is_counted(seen: list[dict[str, Any]], said: list[str]) -> None:
    answer = Wait([*seen, {**FAILED, "restarts": 1}])._wait(ARGS)
    assert "in 2 attempts" in answer["msg"]
    assert len([line for line in said if "systemd tries once more" in line]) == 1


def test_a_phase_that_no_look_saw_is_read_from_the_log(said: list[str]) -> None:
    waiting = {**BASE, "sub_state": "start-pre", "phase": "waiting for the host"}
    assert Wait([waiting, FAILED])._wait(ARGS)["phase"] == "loading weights"
    assert Wait([BASE, {**FAILED, "phase": "starting the program"}])._wait(ARGS)["phase"] == "loading weights"


def test_a_unit_that_never_ends_its_start_is_given_up(said: list[str]) -> None:
    answer = Wait([BASE])._wait(ARGS)
    assert answer["failed"] and "found activating" in answer["msg"]


def test_a_short_gap_of_the_network_is_survived_and_a_long_one_is_not(said: list[str]) -> None:
    gap = AnsibleConnectionFailure("gone")
    assert Wait([BASE, gap, gap, READY])._wait(ARGS)["phase"] == "ready"
    with pytest.raises(AnsibleConnectionFailure):
        Wait([gap])._wait(ARGS)


def test_a_host_too_busy_to_answer_once_is_asked_again(said: list[str]) -> None:
    busy = {"failed": True, "msg": "serve: systemctl show glm-serve-0.service failed with 124"}
    assert Wait([BASE, busy, busy, READY])._wait(ARGS)["phase"] == "ready"
    assert len(said) == 2


def test_a_module_that_fails_is_passed_on(said: list[str]) -> None:
    assert Wait([{"failed": True, "msg": "no systemd"}])._wait(ARGS)["msg"] == "no systemd"


def test_between_two_looks_the_last_status_is_repeated_with_the_time_that_has_passed() -> None:
    shown: list[str] = []
    progress = serving_wait.Progress(shown.extend, "gpu-1", "glm-serve-0.service", 600, 15)
    progress.repeat(3.0)
    assert shown == [], "nothing is known yet"
    progress.show({**BASE, "detail": "3 of 9 shards", "elapsed_seconds": 20}, 100.0)
    progress.show({**BASE, "detail": "4 of 9 shards", "elapsed_seconds": 27}, 107.0)
    progress.repeat(110.0)
    assert shown == [
        "[gpu-1] glm-serve-0: loading weights (3 of 9 shards), 20 of 600 s",
        "[gpu-1] glm-serve-0: loading weights (4 of 9 shards), 30 of 600 s",
    ]
    progress.show({**BASE, "elapsed_seconds": 40}, 120.0)
    assert len(shown) == 2, "10 s after the last line"


def test_an_engine_is_heard_every_ten_seconds_unless_it_was_set() -> None:
    assert serving_wait.ActionModule.ARGUMENTS["heartbeat_seconds"]["default"] == 10
    waiting = Wait([BASE])
    waiting._args = {"heartbeat_seconds": 30}
    assert waiting._longest_silence() == 30
