# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of an OpenAI-compatible endpoint that reports what came back, whole or as a stream, and judges nothing.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer; talks to one address only and
through no proxy. A stream is joined as the OpenAI client does it: pieces of a field are strung together.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving import trust
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust

REASONING_FIELDS = ("reasoning", "reasoning_content")
GLANCE_SECONDS = 10
# More of an answer is not read.
LARGEST_BYTES = 8 * 1024 * 1024
# The end of a stream that says so.
_DONE: dict[str, Any] = {}


@dataclass(frozen=True)
class Endpoint:
    """What to ask and what to expect. ``thinking_off`` is None for a model that always thinks; ``tls`` for plain HTTP.

    ``engine``: where the engine itself is asked, for its health and metrics, when this is a door in front of it.
    ``timeout``: seconds for one answer. ``reasoning_parser`` and ``tool_parser`` are what the plan starts the engine
    with, for advice; empty when unknown.
    """

    address: str
    port: int
    model: str
    api_key: Optional[str] = None
    tls: Optional[Trust] = None
    engine: Optional[Endpoint] = None
    reasoning_field: str = "reasoning"
    thinking_on: Mapping[str, Any] = field(default_factory=dict)
    thinking_off: Optional[Mapping[str, Any]] = field(default_factory=dict)
    tool_call: bool = True
    health_path: str = "/health"
    timeout: float = 300
    max_tokens: int = 4096
    reasoning_parser: str = ""
    tool_parser: str = ""

    @property
    def of_engine(self) -> Endpoint:
        """Where the engine says what is not for clients."""
        return self.engine or self

    def parser_advice(self, option: str) -> str:
        """How to start the engine with a parser, by the option's name: ``reasoning-parser``, ``tool-call-parser``."""
        name = self.tool_parser if option == "tool-call-parser" else self.reasoning_parser
        return f"start the engine with --{option} {name or 'of the plan'}"


class CheckError(Exception):
    """A check failed: what was found, what to do about it, and whether an answer took longer than it may (``late``)."""

    def __init__(self, found: str, next_step: str, late: bool = False) -> None:
        super().__init__(found)
        self.found = found
        self.next_step = next_step
        self.late = late


class NotAsked(Exception):
    """A check does not apply, or could not be made; the text is the reason."""


class NoAnswer(Exception):
    """The endpoint refused the connection, broke it, or took longer than an answer may take (``late``).

    ``next_step`` is empty where the text alone says what to do.
    """

    def __init__(self, text: str, late: bool, next_step: str = "") -> None:
        super().__init__(text)
        self.late = late
        self.next_step = next_step


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; ``body`` is its JSON, or its text where it is not JSON."""

    status: int
    body: Any

    def short(self) -> str:
        """The answer on one line, for ``found``."""
        text = self.body if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False)
        text = " ".join(text.split())
        return f"HTTP {self.status}" + (f" {text[:300]}" if text else "")


@dataclass
class Call:
    """A tool call as it came; ``arguments`` is the text that should be JSON, ``id`` what its result is sent with."""

    name: str = ""
    arguments: str = ""
    id: str = ""


@dataclass
class Turn:
    """One message of the model. Token counts are None where the endpoint does not report them.

    ``message`` is what a client puts into the history. ``first`` and ``seconds``: until the first piece of text came,
    and until the end. ``pieces`` of a stream; 0 of a whole answer.
    """

    content: str = ""
    reasoning: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    finish: str = ""
    message: dict[str, Any] = field(default_factory=dict)
    prompt_tokens: Optional[int] = None
    completion_tokens: Optional[int] = None
    cached_tokens: Optional[int] = None
    seconds: float = 0.0
    first: Optional[float] = None
    pieces: int = 0

    def thought(self, name: str) -> str:
        """The reasoning in a field of this name; empty when there is none."""
        return self.reasoning.get(name, "").strip()

    def count(self, usage: Any) -> None:
        """Take the token counts of an answer."""
        if not isinstance(usage, dict):
            return
        self.prompt_tokens = _whole_number(usage.get("prompt_tokens"))
        self.completion_tokens = _whole_number(usage.get("completion_tokens"))
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached_tokens = _whole_number(details.get("cached_tokens"))


def _whole_number(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _headers(key: Optional[str]) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "glm.fleet endpoint_check"}
    return headers if key is None else {**headers, "Authorization": f"Bearer {key}"}


class _Connection(http.client.HTTPConnection):
    """A connection of one request; what goes wrong on it is a NoAnswer."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.address, endpoint.port, timeout=endpoint.timeout)
        self.limit = endpoint.timeout
        self.trust = endpoint.tls

    def connect(self) -> None:
        super().connect()
        if self.trust:
            self.sock = trust.secured(self.sock, self.trust)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, _kind: Any, exc: Optional[BaseException], _trace: Any) -> None:
        self.close()
        if isinstance(exc, socket.timeout):
            raise NoAnswer(f"no answer within {self.limit:g} s", True) from exc
        if isinstance(exc, ssl.SSLError):
            found, next_step = trust.worded(exc)
            raise NoAnswer(f"no answer: {found}", False, next_step) from exc
        if isinstance(exc, (OSError, http.client.HTTPException)):
            raise NoAnswer(f"no answer: {type(exc).__name__}: {exc}", False) from exc


def ask(
    endpoint: Endpoint, method: str, path: str, body: Optional[Mapping[str, Any]] = None, key: Optional[str] = None
) -> Answer:
    """One request. Raises NoAnswer when there is no complete HTTP answer within the endpoint's timeout."""
    with _Connection(endpoint) as connection:
        connection.request(method, path, json.dumps(body) if body is not None else None, _headers(key))
        response = connection.getresponse()
        return _answer(endpoint, response)


def certificate_left(endpoint: Endpoint) -> trust.Left:
    """What is left of the certificate, all without TLS. Raises NoAnswer, also for one that is refused."""
    with _Connection(endpoint) as connection:
        connection.connect()
        plain = trust.Left(math.inf, math.inf)
        return trust.left(connection.sock) if isinstance(connection.sock, ssl.SSLSocket) else plain


def glance(endpoint: Endpoint, path: str) -> Optional[Answer]:
    """One GET of an endpoint that may be too busy to answer at once; then it is not waited for, and this is None."""
    quick = replace(endpoint, timeout=min(endpoint.timeout, GLANCE_SECONDS))
    try:
        return ask(quick, "GET", path, key=endpoint.api_key)
    except NoAnswer:
        return None


def _answer(endpoint: Endpoint, response: http.client.HTTPResponse) -> Answer:
    text = _without_key(endpoint, response.read(LARGEST_BYTES))
    try:
        return Answer(response.status, json.loads(text))
    except (ValueError, RecursionError):
        return Answer(response.status, text)


def _without_key(endpoint: Endpoint, raw: bytes) -> str:
    """What came, as text. An engine that quotes its key loses it here, before anything is shortened."""
    text = raw.decode("utf-8", "replace")
    return text.replace(endpoint.api_key, "********") if endpoint.api_key else text


def chat(endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], extra: Mapping[str, Any]) -> Turn:
    """One chat at temperature 0; ``extra`` is added to the body and may ask for a stream.

    Raises CheckError for an answer that is none, and NoAnswer.
    """
    body = {"model": endpoint.model, "messages": list(messages), "temperature": 0, **extra}
    if body.get("stream"):
        return _stream(endpoint, {**body, "stream_options": {"include_usage": True}})
    begun = time.monotonic()
    answer = ask(endpoint, "POST", "/v1/chat/completions", body, endpoint.api_key)
    turn = _whole(_accepted(answer).body)
    turn.seconds = time.monotonic() - begun
    return turn


_REFUSALS = {
    400: "the request was refused, and the answer says why",
    401: "use the key this endpoint was started with",
    403: "use the key this endpoint was started with",
    404: "another program has the port, or the model has another name",
    422: "the request was refused, and the answer says why",
    429: "the endpoint is busy: verify it again when it is idle",
    502: "what is before the engine gave up: read the logs of both",
    503: "the endpoint is busy, or its engine is down: read the unit's journal",
    504: "what is before the engine gave up: read the logs of both",
}


def _accepted(answer: Answer) -> Answer:
    if answer.status != 200:
        advice = _REFUSALS.get(answer.status, "the engine is up but cannot answer: read the unit's journal")
        raise CheckError(answer.short(), advice)
    return answer


def _whole(body: Any) -> Turn:
    try:
        choice = body["choices"][0]
        message = dict(choice["message"])
        calls = [(dict(call["function"]), call.get("id")) for call in message.get("tool_calls") or []]
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        found = Answer(200, body).short()
        raise CheckError(found, "this is not an OpenAI-compatible answer: what has this port?") from exc
    turn = Turn(
        content=_text(message.get("content")),
        reasoning={name: _text(message[name]) for name in REASONING_FIELDS if message.get(name)},
        calls=[Call(_text(call.get("name")), _arguments(call), _text(name)) for call, name in calls],
        finish=_text(choice.get("finish_reason")),
        message=message,
    )
    turn.count(body.get("usage"))
    return turn


def _arguments(function: Mapping[str, Any]) -> str:
    value = function.get("arguments")
    if value is not None and not isinstance(value, str):
        found = f"arguments are not a text: {json.dumps(value, ensure_ascii=False)[:120]}"
        raise CheckError(found, "clients expect JSON in a text: another engine version")
    return value or ""


def _text(value: Any) -> str:
    """A field that may be null; another type is shown as JSON, so that a judge sees it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stream(endpoint: Endpoint, body: Mapping[str, Any]) -> Turn:
    begun, ended, turn = time.monotonic(), False, Turn()
    with _Connection(endpoint) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), _headers(endpoint.api_key))
        response = connection.getresponse()
        if response.status != 200 or "event-stream" not in response.getheader("Content-Type", "event-stream"):
            answer = _accepted(_answer(endpoint, response))
            what = "a whole answer" if isinstance(answer.body, dict) else answer.short()
            raise CheckError(f"the stream is {what}", "the engine, or what is before it, does not stream")
        try:
            for event in _events(endpoint, response):
                ended = event is _DONE
                if event:
                    _taken(turn, event, time.monotonic() - begun)
                if time.monotonic() - begun > endpoint.timeout:
                    raise NoAnswer(f"{_pace(turn)}, not ended after {endpoint.timeout:g} s", True)
        except socket.timeout as exc:
            if not turn.pieces:
                raise
            found = f"the stream broke off: nothing came for {endpoint.timeout:g} s after {turn.pieces} pieces"
            raise NoAnswer(found, True) from exc
        except (OSError, http.client.HTTPException) as exc:
            found = f"the stream broke off after {turn.pieces} pieces ({type(exc).__name__})"
            raise CheckError(found, "the engine, or what is before it, closed the connection: read both logs") from exc
    turn.seconds = time.monotonic() - begun
    if not turn.finish:
        how = "ended without finish_reason" if ended else "broke off"
        raise CheckError(
            f"the stream {how} after {turn.pieces} pieces", "read the logs of the engine and what is before it"
        )
    return turn


def _pace(turn: Turn) -> str:
    if turn.first is None:
        return "no answer: the stream is open and has no text"
    return f"slow: {turn.pieces} pieces, the first after {turn.first:.1f} s"


def _events(endpoint: Endpoint, response: http.client.HTTPResponse) -> Iterator[Optional[dict[str, Any]]]:
    """The JSON of each event, up to the end that says so; None for other lines, so that time is looked at."""
    while True:
        line = response.readline(LARGEST_BYTES)
        if not line:
            return
        text = _without_key(endpoint, line).strip()
        if not text.startswith("data:"):
            yield None
            continue
        data = text[len("data:") :].strip()
        if data == "[DONE]":
            yield _DONE
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise CheckError(f"the stream has an event that is not JSON: {data[:120]!r}", "read the unit's journal")
        yield event


def _taken(turn: Turn, event: Mapping[str, Any], at: float) -> None:
    try:
        _take(turn, event, at)
    except (AttributeError, TypeError) as exc:
        found = f"the stream has an event of another form: {Answer(200, event).short()}"
        raise CheckError(found, "this is not an OpenAI-compatible answer: what has this port?") from exc


def _take(turn: Turn, event: Mapping[str, Any], at: float) -> None:
    """Add one event of a stream to the turn; ``at`` is in seconds since the request."""
    if event.get("error") or event.get("object") == "error":
        raise CheckError(f"the stream broke off: {Answer(200, event).short()}", "read the unit's journal")
    turn.count(event.get("usage"))
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        texts = {name: delta[name] for name in ("content", *REASONING_FIELDS) if delta.get(name)}
        turn.content += _text(texts.pop("content", None))
        for name, piece in texts.items():
            turn.reasoning[name] = turn.reasoning.get(name, "") + _text(piece)
        for piece in delta.get("tool_calls") or []:
            _join(turn.calls, piece)
        if texts or delta.get("content") or delta.get("tool_calls"):
            turn.pieces += 1
            turn.first = at if turn.first is None else turn.first
        turn.finish = _text(choice.get("finish_reason")) or turn.finish


def _join(calls: list[Call], piece: Mapping[str, Any]) -> None:
    """Calls of a stream differ by their index alone."""
    index = _whole_number(piece.get("index"))
    if index is None or not 0 <= index <= len(calls):
        shown = json.dumps(piece, ensure_ascii=False)[:120]
        raise CheckError(f"arguments in the stream belong to no call: {shown}", "the tool parser breaks streams")
    if index == len(calls):
        calls.append(Call())
    function = piece.get("function") or {}
    calls[index].id = calls[index].id or _text(piece.get("id"))
    calls[index].name += _text(function.get("name"))
    calls[index].arguments += _arguments(function)
