"""A gateway in front of several hosts: where conversations go, and what is lost when a host drains, ends or fails."""

from __future__ import annotations

import collections
import json
import random
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway as seeing
from ansible_collections.glm.fleet.plugins.module_utils.door import master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.modules import gateway_view
from tests.playbooks.door import gateways
from tests.playbooks.door.gateways import Gateway, until

pytestmark = pytest.mark.one_core


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Gateway]:
    with gateways.running(tmp_path) as gateway:
        yield gateway


def turn(conversation: str, turns: int = 0, system: str = "You are an agent.") -> dict[str, Any]:
    """The request of a turn: what was said before, and one more message."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": conversation}]
    for number in range(turns):
        messages += [
            {"role": "assistant", "content": f"answer {number}"},
            {"role": "user", "content": f"next {number}"},
        ]
    return {"model": "glm", "messages": messages, "max_tokens": 100}


def session(gateway: Gateway, body: dict[str, Any], **headers: str) -> str:
    status, answer = gateway.ask(body, **headers)
    assert status == 200
    return str(answer["session"])


MARK = {"type": "ephemeral"}
# Two turns of one conversation, as clients write them.
TURNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": (turn("hello"), turn("hello", 3)),
    "chat with another limit": (turn("hello"), {**turn("hello", 1), "max_tokens": 7, "temperature": 0.2}),
    "content before the role": (
        {"messages": [{"content": "hello", "role": "user"}]},
        {"messages": [{"content": "hello", "role": "user"}, {"content": "x", "role": "assistant"}]},
    ),
    "quotes and braces": (turn('a "}{]" \\" [{ \\'), turn('a "}{]" \\" [{ \\', 2)),
    "a long system prompt": (turn("hello", system="s" * 300_000), turn("hello", 2, system="s" * 300_000)),
    "tools before messages": (
        {"tools": [{"function": {"name": "f", "parameters": {"role": "user"}}}], **turn("hello")},
        {"tools": [{"function": {"name": "f", "parameters": {"role": "user"}}}], **turn("hello", 1)},
    ),
    "messages of Anthropic, whose mark for the cache wanders": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": MARK}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hello"}]},
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": [{"type": "text", "text": "y", "cache_control": MARK}]},
            ]
        },
    ),
    "a session of an agent": (
        {**turn("first"), "metadata": {"user_id": "user_1_session_2"}},
        {**turn("compacted"), "metadata": {"user_id": "user_1_session_2"}},
    ),
    "a key for the cache": ({**turn("a"), "prompt_cache_key": "k"}, {**turn("b"), "prompt_cache_key": "k"}),
    "responses": (
        {"input": [{"role": "user", "content": "hello"}]},
        {"input": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "x"}]},
    ),
    "a long first message": (turn("x" * 600_000), turn("x" * 600_000, 1)),
}  # fmt: skip


def test_turns_of_a_conversation_are_one_session_and_another_conversation_is_another(fleet: Gateway) -> None:
    seen = {}
    for name, (first, second) in TURNS.items():
        seen[name] = session(fleet, first)
        assert len(seen[name]) == 40 and session(fleet, second) == seen[name], name
    others = [
        turn("hello!"),
        {"messages": [{"content": "hello!", "role": "user"}]},
        {**turn("a"), "prompt_cache_key": "l"},
    ]
    assert not {session(fleet, other) for other in others} & set(seen.values())
    # Indented, as some clients send it.
    assert session(fleet, turn("hello")) == seen["chat"]
    assert session(fleet, turn("other"), **{"x-session-id": "mine"}) == session(
        fleet, turn("b"), **{"x-session-id": "mine"}
    )


@pytest.mark.parametrize(
    "body", [{}, {"messages": []}, {"messages": "x" * 10}, {"model": "glm", "messages": [{}]}, {"messages": [[]]}]
)
def test_a_request_without_a_conversation_is_answered(fleet: Gateway, body: dict[str, Any]) -> None:
    assert fleet.ask(body)[0] == 200


def test_what_is_no_json_is_the_doors_affair(fleet: Gateway) -> None:
    for text in (b"", b"{", b'{"messages":[{"role":"user","content":"', b"[" * 5000, b"\xff\xfe", b'{"a":"\\'):
        request = urllib.request.Request(f"http://127.0.0.1:{fleet.port}/v1/chat/completions", data=text)
        assert urllib.request.urlopen(request, timeout=60).status == 200


def test_a_clients_word_for_the_session_that_is_ours_is_not_believed(fleet: Gateway) -> None:
    assert session(fleet, turn("a"), **{"x-glm-session": "f" * 40}) == session(fleet, turn("a"))


def turns_at_their_hosts(gateway: Gateway, homes: dict[str, str], turns: int, workers: int = 20) -> float:
    """The share of turns that meet the host of their conversation; new conversations find theirs."""
    asked = [(name, number) for number in range(turns) for name in homes]
    with ThreadPoolExecutor(workers) as pool:
        met = list(pool.map(lambda one: gateway.host_of(turn(one[0], one[1])) == homes[one[0]], asked))
    return sum(met) / len(met)


def test_conversations_stay_with_their_hosts_also_after_one_drained(fleet: Gateway) -> None:
    names = [f"conversation {number}" for number in range(50)]
    homes = {name: fleet.host_of(turn(name)) for name in names}
    spread = collections.Counter(homes.values())
    assert len(spread) == 3 and max(spread.values()) <= 30
    assert turns_at_their_hosts(fleet, homes, 4) >= 0.95
    fleet.hosts[1].ready = 404
    view(fleet, "out", "h1-0")
    others = {name: home for name, home in homes.items() if home != "h1"}
    before = fleet.hosts[1].asked
    assert turns_at_their_hosts(fleet, others, 4) >= 0.95
    assert fleet.hosts[1].asked == before
    fleet.hosts[1].ready = 200
    view(fleet, "in", "h1-0")
    assert turns_at_their_hosts(fleet, homes, 4) >= 0.95


def view(gateway: Gateway, state: str, *replicas: str, timeout: int = 60) -> dict[str, Any]:
    """What the module says once the gateway sees the replicas so."""
    socket = gateway.folder / "master.sock"
    if state != "any":
        seeing.wait(socket, replicas, state == "in", timeout)
    return dict(seeing.view(socket) or {})


def test_the_view_names_what_is_open_and_what_waits_and_who_is_late(tmp_path: Path) -> None:
    with gateways.running(tmp_path, hosts=1, requests=1) as gateway, ThreadPoolExecutor(2) as pool:
        assert (
            view(gateway, "in", "h0-0")["h0-0"].items() >= {"in": True, "status": "UP", "open": 0, "waiting": 0}.items()
        )
        gateway.hosts[0].hold = True
        asked = [pool.submit(gateway.ask, turn("a")) for _ in range(2)]
        until(lambda: view(gateway, "any")["h0-0"]["waiting"] == 1, "one request waits")
        assert view(gateway, "any")["h0-0"]["open"] == 1
        with pytest.raises(Unmet, match="to send no new requests to h0-0 within 0 s, found h0-0 UP"):
            view(gateway, "out", "h0-0", timeout=0)
        # Nobody waits for what a gateway does not know.
        view(gateway, "in", "h9-0", timeout=0)
        view(gateway, "out", "h9-0", timeout=0)
        asked_of = {"socket": str(gateway.folder / "master.sock"), "replicas": ["h9-0", "h0-0"], "state": "any"}
        assert gateway_view.look(asked_of, True)["admitted"] == ["h0-0"]
        gateway.hosts[0].go.set()
        assert [one.result()[0] for one in asked] == [200, 200]


@pytest.mark.parametrize("said", ["active\n", "deactivating\n", "", None])
def test_a_gateway_that_does_not_answer_is_none_only_where_systemd_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    answers = {"said": said}

    def run(_command: Any, *_more: Any) -> CommandResult:
        text = answers["said"]
        return CommandResult((), 1 if text is None else 0, text or "", "")

    monkeypatch.setattr(master.commands, "run", run)
    with pytest.raises(Unmet, match=r"HAProxy to answer .* restart glm-gateway\.service"):
        seeing.wait(tmp_path / "none.sock", ["a-0"], False, 0)
    for answers["said"] in ("inactive\n", "failed\n", "activating\n"):
        seeing.wait(tmp_path / "none.sock", ["a-0"], False, 0)
        assert seeing.view(tmp_path / "none.sock") is None


def test_a_conversation_keeps_its_host_until_that_has_far_more_than_the_others(fleet: Gateway) -> None:
    body = turn("many at once")
    home = fleet.host_of(body)
    for host in fleet.hosts:
        host.hold = True
    with ThreadPoolExecutor(16) as pool:
        asked = []
        for number in range(16):
            asked.append(pool.submit(fleet.ask, body))
            until(lambda: sum(host.asked for host in fleet.hosts) == number + 2, "the request is at a host")  # noqa: B023
        for host in fleet.hosts:
            host.go.set()
        came = [str(one.result()[1]["host"]) for one in asked]
    # Of few in all none leaves. Of those that follow, the fourth would be more than two and a half times the mean.
    assert came[:12] == [home] * 12 and came[12] != home, came


def test_a_host_that_drains_gets_no_new_request_and_ends_what_it_has(fleet: Gateway) -> None:
    body = turn("a")
    home = next(host for host in fleet.hosts if host.name == fleet.host_of(body))
    home.hold = True
    with ThreadPoolExecutor(1) as pool:
        open_one = pool.submit(fleet.ask, body)
        assert home.held.acquire(timeout=60)
        home.hold = False
        home.ready = 404
        view(fleet, "out", f"{home.name}-0")
        assert fleet.host_of(body) != home.name
        home.go.set()
        assert open_one.result() == (200, {"host": home.name, "session": session(fleet, body), "key": None})
    home.ready = 200
    view(fleet, "in", f"{home.name}-0")
    assert fleet.host_of(body) == home.name


def test_a_request_does_not_wait_for_a_host_that_is_silently_gone(fleet: Gateway) -> None:
    """The kernel asks after the host, and ends the connection that nothing acknowledges any more."""
    for host in fleet.hosts:
        host.hold = True
    with ThreadPoolExecutor(1) as pool:
        open_one = pool.submit(fleet.ask, turn("a"))
        until(lambda: any(host.held.acquire(blocking=False) for host in fleet.hosts), "a host has the request")
        ports = " or ".join(f"dport = :{host.port}" for host in fleet.hosts)
        # "timer:(keepalive,9.924ms,0)" is just below ten seconds; the kernel's own time is "120min".
        found = subprocess.run(["ss", "-Htno", "state", "established", f"( {ports} )"], capture_output=True, text=True)
        timers = re.findall(r"timer:\(keepalive,([^,]+)", found.stdout)
        assert timers and not [one for one in timers if "min" in one], found.stdout
        for host in fleet.hosts:
            host.go.set()
        assert open_one.result()[0] == 200


@pytest.mark.parametrize("size", [10, 400_000, 5_000_000])
def test_no_request_is_lost_when_a_host_is_gone(fleet: Gateway, size: int) -> None:
    bodies = [turn(f"{number} " + "x" * size) for number in range(12)]
    homes = [fleet.host_of(body) for body in bodies]
    gone = fleet.hosts[int(homes[0][1:])]
    gone.end()
    for body in bodies:
        assert fleet.host_of(body) != gone.name
    view(fleet, "out", f"{gone.name}-0")


def test_a_door_without_its_engine_is_passed_over_before_it_is_noticed(fleet: Gateway) -> None:
    """For requests that the gateway still has whole."""
    bodies = [turn(f"{number} " + "x" * 300_000) for number in range(12)]
    broken = fleet.hosts[0]
    broken.status = 503
    assert {fleet.host_of(body) for body in bodies} == {"h1", "h2"}
    for host in fleet.hosts:
        host.status = 503
    assert fleet.ask(bodies[0])[0] == 503


def test_what_a_door_refuses_is_refused_once(fleet: Gateway) -> None:
    for status in (401, 404, 429, 400, 500):
        for host in fleet.hosts:
            host.status, host.asked = status, 0
        assert fleet.ask(turn("a"))[0] == status
        assert sum(host.asked for host in fleet.hosts) == 1


def test_waiting_has_a_limit_and_is_said(tmp_path: Path) -> None:
    with gateways.running(tmp_path, hosts=2, requests=1, queue=3) as gateway, ThreadPoolExecutor(20) as pool:
        for host in gateway.hosts:
            host.hold = True
        first = [pool.submit(gateway.ask, turn(f"{number}")) for number in range(20)]
        refused = []
        until(lambda: sum(one.done() for one in first) >= 10, "requests beyond the queue are refused")
        for host in gateway.hosts:
            host.hold = False
            host.go.set()
        answers = collections.Counter(one.result()[0] for one in first)
        refused = [one.result()[1] for one in first if one.result()[0] == 429]
    assert set(answers) == {200, 429} and answers[200] >= 5
    assert all(one["error"]["code"] == "queue_full" and "3 requests wait" in one["error"]["message"] for one in refused)


def test_no_host_is_said(fleet: Gateway) -> None:
    for host in fleet.hosts:
        host.ready = 404
    view(fleet, "out", "h0-0", "h1-0", "h2-0")
    status, answer = fleet.ask(turn("a"))
    assert (status, answer["error"]["code"]) == (503, "no_host")
    with pytest.raises(urllib.error.HTTPError) as said:
        urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/ready")
    assert said.value.code == 503 and json.loads(said.value.read()) == {"state": "down"}
    fleet.hosts[0].ready = 200
    view(fleet, "in", "h0-0")
    assert urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/ready").status == 200
    assert fleet.host_of(turn("a")) == "h0"


def test_the_key_goes_on_to_the_door_and_other_paths_too(fleet: Gateway) -> None:
    assert fleet.ask(turn("a"), **{"x-api-key": "of the client"})[1]["key"] == "of the client"
    answer = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/v1/models").read())
    assert answer["path"] == "/v1/models"


def test_hosts_roll_and_the_gateway_is_read_again_under_load_and_nothing_is_lost(fleet: Gateway) -> None:
    stop, lost, answered = threading.Event(), [], collections.Counter[str]()

    def load(number: int) -> None:
        chance = random.Random(number)
        while not stop.is_set():
            body = turn(f"{number} {chance.randrange(5)}" + "x" * chance.choice([10, 1000, 200_000]))
            status, answer = fleet.ask(body)
            if status == 200:
                answered[answer["host"]] += 1
            else:
                lost.append((status, answer))
            time.sleep(0.01)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for host in fleet.hosts:
        host.ready = 404
        view(fleet, "out", f"{host.name}-0")
        # What was sent before arrives.
        time.sleep(0.5)
        before = host.asked
        time.sleep(0.5)
        assert host.asked == before
        host.ready = 200
        view(fleet, "in", f"{host.name}-0")
        subprocess.run(["kill", "-USR2", str(fleet.process.pid)], check=True)
        time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert lost == [] and set(answered) == {"h0", "h1", "h2"}
