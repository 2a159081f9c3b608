"""Lines of progress of steps that have nothing to say themselves."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.actions import base, heartbeat, remote_job

LONG = 60.0


def never() -> float:
    return float("-inf")


def test_a_silent_step_is_heard_again_and_again() -> None:
    said: list[float] = []
    thrice = threading.Event()

    def say(seconds: float) -> None:
        said.append(seconds)
        if len(said) == 3:
            thrice.set()

    with heartbeat.beating(0.02, never, say):
        assert thrice.wait(LONG)
    assert said == sorted(said) and said[0] >= 0.02
    assert not [thread for thread in threading.enumerate() if "beat" in thread.name]


def test_a_step_that_speaks_itself_is_left_alone() -> None:
    looked = threading.Event()
    looks: list[float] = []

    def last_heard() -> float:
        looks.append(time.monotonic())
        if len(looks) == 6:
            looked.set()
        return looks[-1]

    def say(seconds: float) -> None:
        raise AssertionError(f"a line after {seconds} s")

    with heartbeat.beating(0.02, last_heard, say):
        assert looked.wait(LONG)


def test_an_error_ends_the_lines() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), heartbeat.beating(0.01, never, lambda seconds: None):
        raise KeyError
    assert threading.active_count() == before


class Step(base.FleetAction):
    """An action, as far as its lines of progress go."""

    LABEL = "image"

    def __init__(self) -> None:
        self._task = SimpleNamespace(name="Fetch the image", action="glm.fleet.engine_image")
        self._task_vars = {"inventory_hostname": "gpu-1"}


def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(base.display, "display", shown.append)
    return shown


def test_the_line_names_host_phase_step_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = lines(monkeypatch)
    step = Step()
    step._say_alive(12.4)
    assert shown == ["gpu-1: image: Fetch the image, 12 s so far"]
    assert time.monotonic() - step._last_heard < LONG


class Job(remote_job.RemoteJobAction):
    """Work on a host, as far as its lines of progress go."""

    LABEL = "weights"

    def __init__(self, **arguments: Any) -> None:
        self._args = arguments
        self._task = SimpleNamespace(name="Fetch the weights")
        self._task_vars = {"inventory_hostname": "gpu-1"}


def test_what_a_job_last_reported_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = lines(monkeypatch)
    job = Job(progress_seconds=30)
    job._say_if_due("fetched 1 of 4 GB")
    job._say_if_due("fetched 2 of 4 GB")
    assert shown == ["gpu-1: weights: fetched 1 of 4 GB"], "the second came at once after the first"
    job._say_alive(30.0)
    assert shown[1:] == ["gpu-1: weights: fetched 2 of 4 GB, 30 s so far"]


def test_nobody_waits_longer_than_ten_seconds_unless_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Step()._longest_silence() == 10
    assert Job()._longest_silence() == 10
    assert Job(progress_seconds=60)._longest_silence() == 60
