"""The tokens of each key, read from answers of every form, and nothing of the answers changed."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.load import Load
from tests.playbooks.door.proxy import entry
from tests.playbooks.door.scripted import Client, Engine

pytestmark = pytest.mark.one_core
OPENAI = {"prompt_tokens": 11, "total_tokens": 18, "completion_tokens": 7}
DETAILS = {**OPENAI, "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": None}
ANTHROPIC = {"input_tokens": 11, "output_tokens": 7}
CACHED = {"input_tokens": 2, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 1, "output_tokens": 7}
QUOTED = '"usage":{"prompt_tokens":999,"completion_tokens":999}'
LONG = {"choices": [{"message": {"content": f"{QUOTED} {'long ' * 20000}"}}], "usage": OPENAI, "metadata": None}
DELTA = {"choices": [{"delta": {"content": QUOTED}}], "usage": None}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 11, "output_tokens": 0}}}


def events(*data: Any) -> list[str]:
    """A stream of server-sent events."""
    return [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in data]


COUNTED: dict[str, list[str]] = {
    "whole": [json.dumps({"choices": [], "usage": OPENAI})],
    "whole, compact": [json.dumps({"choices": [], "usage": DETAILS}, separators=(",", ":"))],
    "whole, indented": [json.dumps({"usage": DETAILS, "choices": []}, indent=1)],
    "whole, long": [json.dumps(LONG)],
    "whole, byte by byte": list(json.dumps({"choices": [], "usage": DETAILS})),
    "messages": [json.dumps({"content": [{"type": "tool_use", "input": {"usage": OPENAI}}], "usage": ANTHROPIC})],
    "messages, cached": [json.dumps({"usage": CACHED})],
    "stream": events(DELTA, DELTA, {"choices": [], "usage": OPENAI}, "[DONE]"),
    "stream in two halves": ["".join(events({"choices": [], "usage": OPENAI}))[:30],
                             "".join(events({"choices": [], "usage": OPENAI}))[30:]],
    "stream, long": events(*[DELTA] * 500, {"choices": [], "usage": DETAILS}, "[DONE]"),
    "stream with usage in each event": events({"usage": {**OPENAI, "completion_tokens": 1}}, {"usage": OPENAI}),
    "stream of messages": events(START, *[DELTA] * 500, {"type": "message_delta", "usage": {"output_tokens": 7}},
                                 {"type": "message_stop"}),
    "stream of messages that says all at the end": events(START, {"type": "message_delta", "usage": ANTHROPIC}),
    "stream of responses": events({"type": "response.completed", "response": {"output": [], "usage": ANTHROPIC}}),
}  # fmt: skip
# What a client chose and gets back must not count as what the engine says.
CHOSEN = {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 0, "output_tokens": 0}
SCHEMA = {"format": {"schema": {"properties": {"usage": CHOSEN}}}}
COUNTED |= {
    "whole, then metadata": [
        json.dumps({"usage": OPENAI, "text": SCHEMA, "metadata": {"usage": CHOSEN}, "user": "}{\\"})
    ],
    "stream of responses, then metadata": events(
        {"response": {"usage": ANTHROPIC, "text": SCHEMA, "metadata": {"usage": CHOSEN}, "user": '"}}{'}}
    ),
}
UNCOUNTED: dict[str, list[str]] = {
    "nothing": [],
    "message that did not end": events(START, *[DELTA] * 5),
    "stream without usage": events(DELTA, DELTA, "[DONE]"),
    "usage is null": [json.dumps({"usage": None})],
    "usage is of another form": [json.dumps({"usage": {"prompt_tokens": "11", "completion_tokens": 7}})],
    "only what the client chose": [json.dumps({"metadata": {"usage": CHOSEN}})],
    "only what the client chose, in a stream": events({"response": {"metadata": {"usage": CHOSEN}}}),
    "half of it": ['{"usage":{"prompt_tokens":11,'],
    "only one figure": [json.dumps({"usage": {"prompt_tokens": 11}})],
    "a figure that is none": ['{"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":7}}'],
    "far from the end": [json.dumps({"usage": OPENAI, "more": "x" * 30000})],
}
# One of the two figures, where it is said: it counts, and only the other has a stand-in.
SAID = {"message that did not end": (11, None), "only one figure": (11, None), "usage is of another form": (None, 7),
        "a figure that is none": (None, 7)}  # fmt: skip


class Served:
    """A door in front of a scripted engine, with the keys anna and otto."""

    def __init__(self, door: proxy.Door, engine: Engine) -> None:
        self.door, self.engine = door, engine

    def metrics(self) -> dict[str, int]:
        """The counters of anna, and of otto by name and key."""
        connection = http.client.HTTPConnection("127.0.0.1", self.door.monitor, timeout=PATIENCE_SECONDS)
        connection.request("GET", "/metrics/keys")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.findall(r'^glm_door_(\w+?)(?:_total)?\{key="anna"(?:,code="(\w+)")?\} (\d+)$', text, re.MULTILINE)
        assert text.count("# TYPE") == 6 and text.endswith("\n")
        return {f"{name}{' ' if code else ''}{code}": int(value) for name, code, value in found}

    def added(self, before: dict[str, int]) -> dict[str, int]:
        """What was counted since; waits until the last answer is, which ends a little after its last byte."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            now = self.metrics()
            new = {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}
            if new or time.monotonic() > deadline:
                return new
            time.sleep(0.02)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("door")
    keys = [entry("anna", "one"), entry("otto", "two")]
    with scripted.engine() as engine, proxy.running(folder, engine.port, keys=keys) as door:
        yield Served(door, engine)


@pytest.mark.parametrize("whole", [False, True], ids=["chunked", "length"])
@pytest.mark.parametrize("what", COUNTED)
def test_tokens_are_counted_and_the_answer_is_as_it_was(served: Served, what: str, whole: bool) -> None:
    before = served.metrics()
    answer = scripted.ask(served.door.port, "one", pieces=COUNTED[what], whole=whole)
    assert answer.body == "".join(COUNTED[what]).encode()  # type: ignore[attr-defined]
    assert served.added(before) == {"requests 200": 1, "prompt_tokens": 11, "completion_tokens": 7}


@pytest.mark.parametrize("chunked", [False, True], ids=["request with length", "request in chunks"])
@pytest.mark.parametrize("what", UNCOUNTED)
def test_an_answer_without_usage_is_uncounted_and_not_of_no_tokens(served: Served, what: str, chunked: bool) -> None:
    """What stands in: a token for four bytes of the request, and for each event, or four bytes of a whole answer."""
    before = served.metrics()
    scripted.ask(served.door.port, "one", chunked=chunked, pieces=UNCOUNTED[what])
    text = "".join(UNCOUNTED[what])
    asked, answered = len(json.dumps({"pieces": UNCOUNTED[what]})) // 4, text.count("data:")
    if text.startswith("{"):
        answered = len(text) // 4
    said = SAID.get(what, (None, None))
    asked, answered = said[0] or asked, said[1] or answered
    assert served.added(before) == {
        "requests 200": 1, "uncounted_requests": 1, "estimated_prompt_tokens": asked,
        **({"estimated_completion_tokens": answered} if answered else {}),
    }  # fmt: skip


def test_what_does_not_run_the_model_is_a_request_only(served: Served) -> None:
    before = served.metrics()
    scripted.ask(served.door.port, "one", "/v1/models")
    assert served.added(before) == {"requests 200": 1}
    before = served.metrics()
    scripted.ask(served.door.port, "one", "/v1/messages/count_tokens", pieces=['{"input_tokens": 5}'])
    assert served.added(before) == {"requests 200": 1}


def test_an_error_of_the_engine_is_counted_by_its_status(served: Served) -> None:
    before = served.metrics()
    scripted.ask(served.door.port, "one", status=400, pieces=['{"error": "too long"}'])
    assert served.added(before) == {"requests 400": 1}


def test_a_client_that_goes_away_leaves_an_uncounted_request(served: Served) -> None:
    before = served.metrics()
    client = Client(served.door.port, "one")
    answer = client.begin(pieces=events(DELTA), hold=True)
    assert answer.status == 200 and served.engine.held.acquire(timeout=PATIENCE_SECONDS)
    assert client.connection.sock is not None
    answer.close()
    client.connection.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    served.engine.go.set()
    assert served.added(before) == {
        "requests 200": 1, "uncounted_requests": 1, "estimated_completion_tokens": 1,
        "estimated_prompt_tokens": len(json.dumps({"pieces": events(DELTA), "hold": True})) // 4,
    }  # fmt: skip


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_away_before_the_answer_leaves_its_prompt(served: Served, chunked: bool) -> None:
    served.engine.go.clear()
    before = served.metrics()
    client = Client(served.door.port, "one")
    client.send(chunked=chunked, silent=True, words="word " * 1000)
    assert served.engine.held.acquire(timeout=PATIENCE_SECONDS)
    client.close()
    asked = len(json.dumps({"silent": True, "words": "word " * 1000})) // 4
    assert served.added(before) == {"requests none": 1, "uncounted_requests": 1, "estimated_prompt_tokens": asked}
    served.engine.go.set()
    (line,) = [line for line in served.door.lines() if line["estimated"] == f"{asked}/0"][-1:]
    assert line["end"] == "CH" and line["prompt"] == line["completion"] == "-"


def test_answers_come_plain(served: Served) -> None:
    scripted.ask(served.door.port, "one")
    assert set(served.engine.encodings) == {None}


def test_the_journal_line_has_names_and_figures_and_nothing_of_the_client(served: Served) -> None:
    scripted.ask(served.door.port, "two", "/v1/completions", pieces=COUNTED["stream"], secret="a-secret")
    scripted.ask(served.door.port, "a-wrong-secret")
    connection = http.client.HTTPConnection("127.0.0.1", served.door.port, timeout=PATIENCE_SECONDS)
    connection.request("A-SECRET", "/a-secret?a-secret", headers={"user-agent": "a-secret"})
    connection.getresponse().read()
    connection.close()
    mine = served.door.line(key="otto")
    fields = ("method", "route", "to", "status", "generates", "prompt", "completion")
    assert [mine[name] for name in fields] == ["POST", "/v1/completions", "engine-0", "200", "1", "11", "7"]
    assert "secret" not in (served.door.folder / "log").read_text("utf-8").lower()


def test_many_at_once_are_all_answered_and_counted(tmp_path: Path) -> None:
    """HAProxy 2.6.12 crashes within some thousand requests when several of its threads use one Lua filter."""
    keys = [entry("anna", "one")]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        with Load(door.port, "one", clients=4, count=2000, pieces=COUNTED["stream"]) as load:
            load.wait()
        statuses = load.statuses
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (counted := Served(door, engine).metrics()).get("requests 200") != 8000 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert len(statuses) == 8000 and set(statuses) == {200}
    assert counted == {
        "requests 200": 8000, "prompt_tokens": 88000, "completion_tokens": 56000, "uncounted_requests": 0,
        "estimated_prompt_tokens": 0, "estimated_completion_tokens": 0,
    }  # fmt: skip
    assert "Lua" not in (tmp_path / "log").read_text("utf-8")


def test_a_refused_request_is_counted_by_its_limit(tmp_path: Path) -> None:
    keys = [entry("anna", "one", parallel=1)]
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port, keys=keys) as door:
        client = Client(door.port, "one")
        answer = client.begin(pieces=events(DELTA), hold=True)
        assert engine.held.acquire(timeout=PATIENCE_SECONDS)
        assert scripted.ask(door.port, "one").status == 429
        one = Served(door, engine)
        assert one.added({}) == {"requests 429": 1}
        engine.go.set()
        answer.read()
        client.close()


def test_an_engine_that_is_away_gives_no_status(tmp_path: Path) -> None:
    (port,) = proxy.free_ports(1)
    with scripted.engine() as engine, proxy.running(tmp_path, port, keys=[entry("anna", "one")]) as door:
        assert scripted.ask(door.port, "one").status == 503
        added = Served(door, engine).added({})
        assert added["requests none"] == 1 and not added.get("uncounted_requests")
