"""Which of the replicas that somebody means a gateway sends requests to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway
from ansible_collections.glm.fleet.plugins.modules import gateway_view

SEEN = {
    "a-0": {"in": True, "status": "UP", "open": 1, "waiting": 0},
    "a-1": {"in": False, "status": "DOWN", "open": 2, "waiting": 0},
    "node_x-0": {"in": True, "status": "UP 1/2", "open": 0, "waiting": 0},
}


def looked(monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    monkeypatch.setattr(gateway, "view", lambda _socket: seen)
    return gateway_view.look({"socket": "/none", "replicas": list(names), "state": "any"}, True)


def test_those_it_sends_requests_to_are_named_as_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked(monkeypatch, SEEN, "b-0", "node/x-0", "a-1", "a-0")
    assert (found["running"], found["replicas"], found["admitted"]) == (True, SEEN, ["node/x-0", "a-0"])


def test_who_asks_for_none_is_named_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, SEEN)["admitted"] == []


def test_where_no_gateway_runs_none_is_admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked(monkeypatch, None, "a-0")
    assert (found["running"], found["replicas"], found["admitted"]) == (False, {}, [])


def test_a_gateway_that_lost_its_replicas_is_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, {}, "a-0")["running"]
