"""Waiting for the requests of a host that drains: what is printed, in the form of the wait for its engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.action import door_drain
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import base


class Clock:
    """One for the action and for its lines."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Drain(door_drain.ActionModule):
    """The action with a door that has ``counts`` requests in one look after another; as slow as a heartbeat."""

    def __init__(self, counts: list[int | None], clock: Clock) -> None:
        self._task_vars = {"inventory_hostname": "gpu-1"}
        self._task = SimpleNamespace(
            args={"state": "draining", "replicas": [0], "wait_seconds": 600}, check_mode=False, name="Let them end"
        )
        self.counts, self.clock, self.begun = counts, clock, clock.now

    def _execute_module(self, **asked: Any) -> dict[str, Any]:
        if self.clock.now > self.begun:
            # What the thread beside it does after ten seconds of silence.
            self._say_alive(self.clock.now - self.begun)
        one = {"name": "engine-0", "state": "draining", "until": 1, "open": self.counts.pop(0), "taken": 9}
        return {"changed": True, "running": True, "asked": True, "replicas": [one]}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(base.display, "display", lines.append)
    return lines


def test_each_line_has_the_requests_that_are_left_and_the_time(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(door_drain, "time", clock)
    monkeypatch.setattr(door_drain, "POLL_SECONDS", 12.0)
    done = Drain([3, 2, None, 1, 0], clock)._outcome()
    assert done["waited"] == "no request runs" and done["changed"]
    assert said == [
        "[gpu-1] door: draining (3 requests left), 0 of 600 s",
        "[gpu-1] door: draining (3 requests left), 12 of 600 s",
        "[gpu-1] door: draining (2 requests left), 24 of 600 s",
        "[gpu-1] door: draining (an unknown number of requests left), 36 of 600 s",
        "[gpu-1] door: draining (1 request left), 48 of 600 s",
        "[gpu-1] door: drained after 48 s: no request runs",
    ]


def test_a_door_without_requests_is_not_waited_for(said: list[str]) -> None:
    Drain([0], Clock())._outcome()
    assert len(said) == 1 and said[0].startswith("[gpu-1] door: drained after 0 s")
