"""Asking after work on a host that cannot be reached for a while."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.glm.fleet.plugins.plugin_utils.actions import reconnect

AWAY: dict[str, Any] = {"unreachable": True, "msg": "no route"}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(reconnect.time, "sleep", waited.append)
    return waited


def answers(*given: Any) -> Any:
    left = list(given)

    def question() -> dict[str, Any]:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    return question


def test_a_lost_connection_is_waited_out_and_told(waits: list[float]) -> None:
    said: list[str] = []
    found = reconnect.ask(answers(AWAY, AnsibleConnectionFailure("ssh died"), {"pulling": {}}), said.append)
    assert found == {"pulling": {}}
    assert len(waits) == 2
    assert "no route" in said[0] and "ssh died" in said[1]


def test_a_failure_of_the_work_is_not_asked_again(waits: list[float]) -> None:
    assert reconnect.ask(answers({"failed": True, "msg": "no such tag"}), print)["failed"]
    assert waits == []


def test_patience_ends(waits: list[float]) -> None:
    assert reconnect.ask(answers(*[AWAY] * reconnect.CONNECTION_FAILURES), lambda _text: None)["unreachable"]
    assert len(waits) == reconnect.CONNECTION_FAILURES - 1
    failures = [AnsibleConnectionFailure("gone")] * reconnect.CONNECTION_FAILURES
    with pytest.raises(AnsibleConnectionFailure, match="gone"):
        reconnect.ask(answers(*failures), lambda _text: None)
