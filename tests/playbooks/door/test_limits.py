"""What each key may have: requests and tokens in a minute, requests at a time; and keys that expire."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import maps
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.proxy import Door, entry
from tests.playbooks.door.scripted import Client

pytestmark = pytest.mark.one_core
USAGE = '{"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":30}}'


def refusal(answer: HTTPResponse) -> tuple[str, int, int]:
    """The limit, its value and the seconds to wait of an answer 429."""
    assert answer.status == 429 and answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = json.loads(answer.body)["error"]  # type: ignore[attr-defined]
    assert json.loads(answer.body)["type"] == "error"  # type: ignore[attr-defined]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    wait = int(answer.headers["retry-after"])
    assert f" may have {error['value']} " in error["message"] and f"{wait} s" in error["message"]
    return error["limit"], error["value"], wait


def counted(door: Door, line: str) -> None:
    """Wait until the door has counted an answer, which ends there a little after its last byte arrived here."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{door.monitor}/metrics/keys") as answer:
            if line in answer.read().decode():
                return
        time.sleep(0.02)
    raise AssertionError(f"not counted: {line}")


def early_in_a_minute() -> None:
    """Wait for the next minute unless the rest of this one is enough for a test."""
    if time.time() % 60 > 40:
        time.sleep(60.1 - time.time() % 60)


def test_requests_and_tokens_beyond_those_of_a_minute_are_refused_and_other_keys_are_not(tmp_path: Path) -> None:
    keys = [entry("limited", "one", requests_per_minute=5), entry("limited.too", "two", tokens_per_minute=150)]
    keys.append(entry("free", "three"))
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        early_in_a_minute()
        statuses = [scripted.ask(door.port, "one").status for _ in range(5)]
        for tokens in (70, 140):
            statuses.append(scripted.ask(door.port, "two", pieces=[USAGE]).status)
            counted(door, f'prompt_tokens_total{{key="limited.too"}} {tokens}\n')
        assert statuses == [200] * 7
        assert refusal(scripted.ask(door.port, "two", pieces=[USAGE]))[:2] == ("tokens_per_minute", 150)
        begun = time.time()
        limit, value, wait = refusal(scripted.ask(door.port, "one"))
        assert (limit, value) == ("requests_per_minute", 5) and 0 < wait <= 61 - begun % 60
        assert (time.time() + wait) // 60 > begun // 60
        assert scripted.ask(door.port, "three", pieces=[USAGE]).status == 200
        time.sleep(wait)
        assert scripted.ask(door.port, "one").status == 200
        # What was too much counts against the next minute: 50 are left over, so that 100 more are one request.
        assert scripted.ask(door.port, "two", pieces=[USAGE]).status == 200
        counted(door, 'prompt_tokens_total{key="limited.too"} 210\n')
        assert refusal(scripted.ask(door.port, "two"))[:2] == ("tokens_per_minute", 150)


def test_a_door_that_stood_still_keeps_to_the_minutes_of_the_clock(tmp_path: Path) -> None:
    """As on a host without processor time, or one that was suspended."""
    keys = [entry("limited", "one", tokens_per_minute=90)]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        early_in_a_minute()
        (worker,) = Path(f"/proc/{door.process.pid}/task/{door.process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGSTOP)
        time.sleep(5)
        os.kill(int(worker), signal.SIGCONT)
        assert scripted.ask(door.port, "one", pieces=[USAGE]).status == 200
        counted(door, 'prompt_tokens_total{key="limited"} 70\n')
        begun = time.time()
        limit, _, wait = refusal(scripted.ask(door.port, "one"))
        assert limit == "tokens_per_minute" and 0 < wait <= 61 - begun % 60


def test_requests_at_a_time_beyond_the_limit_are_refused_until_one_ends(tmp_path: Path) -> None:
    keys = [entry("limited", "one", parallel=3), entry("free", "two")]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        clients = [Client(door.port, "one") for _ in range(3)]
        answers = [client.begin(pieces=["data: x\n\n"], hold=True) for client in clients]
        for _ in answers:
            assert engine.held.acquire(timeout=60)
        assert refusal(scripted.ask(door.port, "one")) == ("parallel", 3, 1)
        assert scripted.ask(door.port, "two").status == 200
        engine.go.set()
        assert [(answer.status, answer.read()) for answer in answers] == [(200, b"data: x\n\n")] * 3
        counted(door, 'requests_total{key="limited",code="200"} 3\n')
        # Connections that are kept alive without a request do not count.
        assert scripted.ask(door.port, "one").status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_with_a_large_request_sees_the_refusal_and_no_reset(tmp_path: Path, chunked: bool) -> None:
    keys = [entry("limited", "one", parallel=1)]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        client, other = Client(door.port, "one"), Client(door.port, "one")
        answer = client.begin(pieces=["data: x\n\n"], hold=True)
        assert engine.held.acquire(timeout=60)
        for _ in range(3):
            assert refusal(other.ask(chunked=chunked, words="x" * 20_000_000)) == ("parallel", 1, 1)
        engine.go.set()
        assert answer.read() == b"data: x\n\n"
        counted(door, 'requests_total{key="limited",code="200"} 1\n')
        counted(door, 'requests_total{key="limited",code="429"} 3\n')
        # The connection is as good as before.
        other.connection.auto_open = 0
        assert other.ask().status == 200


def test_a_stream_without_usage_counts_against_the_limit_by_its_events(tmp_path: Path) -> None:
    with (
        scripted.engine() as engine,
        proxy.running(tmp_path, engine.port, keys=[entry("limited", "one", tokens_per_minute=300)]) as door,
    ):
        early_in_a_minute()
        assert scripted.ask(door.port, "one", pieces=["data: x\n\n"] * 300).status == 200
        counted(door, 'uncounted_requests_total{key="limited"} 1\n')
        assert refusal(scripted.ask(door.port, "one"))[0] == "tokens_per_minute"


def test_a_key_ends_by_itself(tmp_path: Path) -> None:
    keys = [entry("ending", "one"), entry("ended", "two", int(time.time()) - 60), entry("lasting", "three")]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        client = Client(door.port, "one")
        assert client.ask().status == 200
        assert scripted.ask(door.port, "two").status == 401
        ends = int(time.time()) + 2
        master = Master(tmp_path / "master.sock")
        expires = maps.of([entry("ending", "one", ends)])["expires"]
        master.replace(master.processes()[0], str(tmp_path / "door" / "expires.map"), expires)
        status = client.ask().status
        assert status == 200 or time.time() >= ends
        time.sleep(max(0.0, ends - time.time()) + 0.1)
        assert client.ask().status == 401
        assert scripted.ask(door.port, "three").status == 200
