"""Answers that come drop by drop, that never end, or that no API means: each ends in time, as a typed error."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import exchange
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from tests.playbooks.lambda_api.fake_cloud import KEY, Answer, FakeCloud, error, make_instance, serve

Serve = Callable[[socket.socket, threading.Event], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def listening(serve_one: Serve) -> Iterator[tuple[str, threading.Event]]:
    """A server that treats each connection with ``serve_one`` until the block is left, or ``serve_one`` says so."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            serve_one(connection, over)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", over
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def drip(text: bytes) -> Serve:
    """Send the text again and again for a minute, a byte every tenth of a second, and then nothing more."""

    def send(connection: socket.socket, over: threading.Event) -> None:
        for position in range(600):
            if over.wait(0.1):
                return
            connection.sendall(text[position % len(text) :][:1])
        over.set()

    return send


def then(first: bytes, following: Serve) -> Serve:
    def send(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(first)
        following(connection, over)

    return send


def client(url: str, folder: Path, **options: object) -> lambda_api.LambdaApi:
    pacer = _cloud_api.Pacer(KEY, request_interval=0, directory=folder)
    return lambda_api.LambdaApi(**{"api_key": KEY, "base_url": url, "pacer": pacer, "budget": 1.0, **options})


@pytest.mark.parametrize(
    "serve_one",
    [
        lambda _connection, over: over.wait(60) or over.set(),
        drip(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        then(HEAD + b"X-Slow: ", drip(b"a")),
        then(HEAD + b"Content-Length: 100000\r\n\r\n", drip(b" ")),
        then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", drip(b"1\r\n \r\n")),
    ],
    ids=["silence", "status line", "header", "body", "chunks"],
)
def test_the_whole_call_ends_by_its_deadline(tmp_path: Path, serve_one: Serve) -> None:
    with listening(serve_one) as (url, over):
        with pytest.raises(_cloud_api.TransportError, match=r"within the 1 s of total_timeout|no answer") as caught:
            client(url, tmp_path, retries=5).list_instances()
        assert not over.is_set(), "it went on as long as the server did"
        assert caught.value.outcome_unknown


def test_a_change_that_comes_too_late_may_still_have_happened(tmp_path: Path) -> None:
    with listening(then(HEAD + b"Content-Length: 9\r\n\r\n", drip(b" "))) as (url, _over):
        with pytest.raises(_cloud_api.CloudError) as caught:
            client(url, tmp_path, budget=0.3).launch({"name": "x"})
        assert caught.value.outcome_unknown


def test_an_answer_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_BYTES", 1 << 20)

    def flood(connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            connection.sendall(b" " * 65536)

    endless = then(HEAD + b"Connection: close\r\n\r\n", flood)
    with listening(endless) as (url, _over), pytest.raises(_cloud_api.FinalAnswer, match="larger than"):
        client(url, tmp_path, budget=60.0).list_instances()
    with listening(endless) as (url, _over), pytest.raises(_cloud_api.FinalAnswer) as caught:
        client(url, tmp_path, budget=60.0).launch({"name": "x"})
    assert caught.value.outcome_unknown


@pytest.fixture
def cloud() -> Iterator[FakeCloud]:
    with serve() as running:
        running.instances = [make_instance(1)]
        yield running


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"data": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
        b'{"data": [' + b"9" * 10_000 + b"]}",
        b'{"data": [' + b"9" * 400 + b"]}",
        b'{"data": [1e999]}',
        b'{"data": [Infinity]}',
        b'{"data": [NaN]}',
    ],
    ids=["lists", "objects", "digits", "fewer digits", "1e999", "infinity", "nan"],
)
def test_json_that_no_api_means_is_a_typed_error(cloud: FakeCloud, tmp_path: Path, body: bytes) -> None:
    cloud.handler = lambda _request: Answer(200, body)
    with pytest.raises(_cloud_api.BadAnswer, match="not the API's JSON"):
        client(cloud.url, tmp_path, retries=0, budget=60.0).list_instances()
    cloud.handler = lambda _request: Answer(200, json.dumps({"data": [make_instance(1, price=1.5)]}).encode())
    assert client(cloud.url, tmp_path, budget=60.0).list_instances()[0]["id"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_no_escape_hides_in_another_encoding(cloud: FakeCloud, tmp_path: Path, encoding: str) -> None:
    """JSON may be UTF-16 for the decoder, in which ASCII letters are ASCII bytes and what stands between them, too."""
    text = json.dumps({"data": [{"id": "a", "name": "glm\x1b[2J"}]}, ensure_ascii=False)
    cloud.handler = lambda _request: Answer(200, text.encode(encoding))
    try:
        found = client(cloud.url, tmp_path, retries=0, budget=60.0).list_instances()[0]["name"]
    except _cloud_api.BadAnswer as refused:
        found = str(refused)
    assert found and found.isprintable()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_an_account_holds_is_not_quoted(cloud: FakeCloud, tmp_path: Path, encoding: str) -> None:
    """Instances carry the token of their notebook."""
    body = '{"data": [{"id": "a", "jupyter_token": "hush-hush", "price": 1e999}]}'
    cloud.handler = lambda _request: Answer(200, body.encode(encoding))
    with pytest.raises(_cloud_api.BadAnswer) as caught:
        client(cloud.url, tmp_path, retries=0, budget=60.0).list_instances()
    assert "hush" not in str(caught.value) and "h\\x00u" not in str(caught.value)
    cloud.handler = lambda _request: Answer(200, b"<html>Gateway of ACME")
    with pytest.raises(_cloud_api.BadAnswer, match="Gateway of ACME"):
        client(cloud.url, tmp_path, retries=0, budget=60.0).list_instances()


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({}, "does not say how long to wait (no Retry-After)"),
        ({"Retry-After": "120"}, "asks to wait (Retry-After: 120; no longer than 60 s is waited)"),
        ({"Retry-After": "7"}, "asks to wait (Retry-After: 7)"),
        ({"Retry-After": "soon"}, "(Retry-After: soon, which is neither seconds nor a date)"),
    ],
)
def test_a_429_says_what_the_api_asked_for(
    cloud: FakeCloud, tmp_path: Path, headers: dict[str, str], text: str
) -> None:
    cloud.handler = lambda _request: error(429, "global/too-many-requests", **headers)
    waits: list[float] = []
    said: list[str] = []
    with pytest.raises(_cloud_api.RateLimited) as caught:
        client(cloud.url, tmp_path, budget=1000.0, retries=3, sleep=waits.append, say=said.append).list_instances()
    assert text in str(caught.value) and "gave up after 4 attempts" in str(caught.value)
    # A wait of a few seconds needs no line.
    assert len(said) == len([wait for wait in waits if wait > 4])
    assert all(f"Waiting {wait:.0f} s." in line for line, wait in zip(said, (w for w in waits if w > 4)))


def test_waiting_for_others_with_the_key_is_said(cloud: FakeCloud, tmp_path: Path) -> None:
    pacer = _cloud_api.Pacer(KEY, request_interval=20, directory=tmp_path)
    waits: list[float] = []
    said: list[str] = []
    api = client(cloud.url, tmp_path, pacer=pacer, budget=60.0, sleep=waits.append, say=said.append)
    api.list_instances()
    assert said == []
    api.list_instances()
    assert len(waits) == 1 and "other requests with this key go first. Waiting" in said[0]


@pytest.mark.parametrize("option", ["timeout", "budget", "retries"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        client("http://127.0.0.1:9", tmp_path, **{option: value})


def test_the_budget_is_named_when_it_ends_the_repeats(cloud: FakeCloud, tmp_path: Path) -> None:
    cloud.handler = lambda _request: error(500, "global/internal-error")
    with pytest.raises(_cloud_api.ApiError, match=r"gave up after 1 attempt, total_timeout is 0\.5 s"):
        client(cloud.url, tmp_path, budget=0.5).list_instances()
