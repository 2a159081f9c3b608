"""The benchmark of a deploy under load connects to where gateways listen, and fails when nothing answers."""

from __future__ import annotations

import collections
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmark import roll_under_load

HOSTS = {
    "a": {"ansible_host": "203.0.113.5", "glm_host_private_address": "10.0.0.5"},
    "b": {"ansible_host": "203.0.113.6", "glm_host_private_address": "10.0.0.6"},
}


@pytest.mark.parametrize(
    ("outcomes", "deploy", "code"),
    [
        ({"answered": 7}, 0, 0),
        ({"answered": 7, "lost: HTTP 503": 1}, 0, 0),
        ({"answered": 7}, 2, 2),
        ({"lost: ConnectionRefusedError": 9}, 0, 1),
        ({"lost: ConnectionRefusedError": 9}, 2, 2),
        ({}, 0, 1),
    ],
)
def test_nothing_answered_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: dict[str, int],
    deploy: int,
    code: int,
) -> None:
    asked: list[str] = []

    class Load:
        def __init__(self, gateways: list[str], _clients: int) -> None:
            asked.extend(gateways)
            self.outcomes, self.slowest = collections.Counter(outcomes), 1.0

        def __enter__(self) -> Load:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

    def done(*_arguments: Any, **_intent: Any) -> SimpleNamespace:
        return SimpleNamespace(code=0, seconds=1.0)

    monkeypatch.setattr(roll_under_load, "Load", Load)
    monkeypatch.setattr(roll_under_load, "command", done)
    monkeypatch.setattr(roll_under_load, "inventory", lambda: HOSTS)
    monkeypatch.setattr(
        roll_under_load, "playbook", lambda *_arguments, **_intent: SimpleNamespace(code=deploy, seconds=1.0)
    )
    monkeypatch.setattr(roll_under_load.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(sys, "argv", ["roll_under_load.py"])
    assert roll_under_load.main() == code
    assert asked == ["10.0.0.5", "10.0.0.6"]
    said = capsys.readouterr()
    assert ("expected answers from 10.0.0.5, 10.0.0.6, found none" in said.err) == ("answered" not in outcomes)
