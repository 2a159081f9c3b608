"""An OpenAI-like HTTP server that answers as a healthy engine does, or with the faults that real engines have."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Union

from . import wire
from .answers import answer
from .fault import Fault
from .state import Asked, State, usage_of
from .wire import Act, Body, Dialect, Event

KEY = "glm-test-key"
MODEL = "glm-5.1-fp8"
# Seconds that a stream is silent for a while.
PAUSE = 0.3
Send = Callable[[], None]


@dataclass
class Behaviour:
    """How the server answers, and what is wrong with it; the defaults are a healthy vLLM."""

    dialect: Dialect = field(default_factory=Dialect)
    faults: tuple[Fault, ...] = ()
    state: State = field(default_factory=State)
    model: str = MODEL
    key: str = KEY
    context: int = 202752
    chat_status: int = 200
    hang: bool = False
    # Under load: ends after so many chats, answers nothing more after so many, turns away what is more than so many at
    # once, takes so long for each of a client that measures (also for those under way, when it is changed).
    dies_after: int | None = None
    freezes_after: int | None = None
    capacity: int | None = None
    seconds: float = 0.0

    @property
    def requests(self) -> list[Body]:
        """The bodies of all chats that were asked for."""
        return self.state.requests

    def frozen(self) -> bool:
        """Whether nothing is answered any more, as by a port that a killed server's child still holds."""
        return self.freezes_after is not None and len(self.requests) > self.freezes_after


class Handler(BaseHTTPRequestHandler):
    """Routes of an engine; the behaviour hangs on the server."""

    protocol_version = "HTTP/1.1"
    # Headers and body in one write.
    wbufsize = -1
    disable_nagle_algorithm = True

    server: Server

    @property
    def behaviour(self) -> Behaviour:
        return self.server.behaviour

    def do_GET(self) -> None:
        if self.behaviour.frozen():
            self.wait_for_the_end()
            return
        status: int = 200
        body: Union[Body, str, None] = None
        if self.path == "/version":
            body = {"version": "0.32.0"}
        elif self.path == "/metrics":
            values = self.behaviour.state.metrics(self.behaviour.dialect.engine)
            for fault in self.behaviour.faults:
                values = fault.metrics(values)
            body = "".join(f"{name} {value}\n" for name, value in values.items())
        elif self.path == "/v1/models":
            body = {"object": "list", "data": [self.card()]}
            if self.refused():
                status, body = 401, {"error": "Unauthorized"}
        elif self.path != "/health":
            status, body = 404, {"detail": "Not Found"}
        for fault in self.behaviour.faults:
            status, body = fault.get(self.path, status, body)
        self.answer(status, body)

    def card(self) -> Body:
        card: Body = {"id": self.behaviour.model, "object": "model", "created": 1764370000, "owned_by": "vllm"}
        card |= {"root": self.behaviour.model, "parent": None}
        return {**card, "max_model_len": self.behaviour.context} if self.behaviour.dialect.card else card

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        behaviour = self.behaviour
        if self.refused():
            return self.answer(401, {"error": "Unauthorized"})
        if body["model"] != behaviour.model:
            return self.answer(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        with behaviour.state.taken(body) as (number, crowd):
            send = self.decided(body, number, crowd)
        # Whoever has read an answer may ask on, and is not under way twice.
        send()

    def decided(self, body: Body, number: int, crowd: list[Body]) -> Send:
        """What to do about a request, once it was worked on."""
        behaviour = self.behaviour
        if behaviour.capacity is not None and len(crowd) > behaviour.capacity:
            return partial(self.answer, 503, {"error": {"message": "too many requests are waiting"}})
        begun = time.monotonic()
        while "max_completion_tokens" in body and time.monotonic() - begun < behaviour.seconds:
            time.sleep(min(0.02, behaviour.seconds))
        if behaviour.dies_after is not None and len(behaviour.requests) > behaviour.dies_after:
            return self.hang_up
        if behaviour.hang or behaviour.frozen():
            return self.wait_for_the_end
        if behaviour.chat_status != 200:
            error = {"message": f"EngineDeadError key={behaviour.key}"}
            return partial(self.answer, behaviour.chat_status, {"error": error})
        asked = behaviour.state.asked(body, behaviour.dialect, number, crowd)
        wanted = body.get("max_tokens", body.get("max_completion_tokens", 0))
        if asked.tokens + wanted > behaviour.context:
            message = "Requested token count exceeds the model's maximum context length"
            return partial(self.answer, 400, {"message": message})
        return self.served(asked)

    def served(self, asked: Asked) -> Send:
        """The answer of the model, with the faults that show in it."""
        body, state = asked.body, self.behaviour.state
        active = [fault for fault in self.behaviour.faults if fault.shows_in(asked)]
        for fault in active:
            status, instead = fault.http(asked)
            if isinstance(instead, Act):
                return self.wait_for_the_end if instead is Act.HANG else self.hang_up
            if status != 200 or instead is not None:
                return partial(self.answer, status, instead)
        said = answer(body, asked.dialect.manner)
        for fault in active:
            said = fault.reply(asked, said)
        usage = usage_of(asked, said)
        for fault in active:
            usage = fault.usage(asked, usage)
        state.done(said, usage["completion_tokens"])
        if asked.streamed:
            events = wire.events(said, body, usage, asked.dialect, asked.number)
            for fault in active:
                events = fault.events(asked, events)
            return partial(self.stream, events, asked.dialect)
        whole = wire.whole(said, body, usage, asked.dialect, asked.number)
        for fault in active:
            whole = fault.body(asked, whole)
        return partial(self.answer, 200, whole)

    def stream(self, events: list[Event], dialect: Dialect) -> None:
        """Send events in the writes of a dialect, and do what an event says."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header(*(("Transfer-Encoding", "chunked") if dialect.chunked else ("Connection", "close")))
        self.end_headers()
        self.wfile.flush()
        for part in _writes(events, dialect):
            if part is Act.PAUSE:
                self.wfile.flush()
                time.sleep(PAUSE)
                continue
            if isinstance(part, Act):
                return self.wait_for_the_end() if part is Act.HANG else self.hang_up()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if dialect.chunked else part)
            if dialect.pace or dialect.write:
                self.wfile.flush()
                time.sleep(dialect.pace)
        if dialect.chunked:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        self.close_connection = not dialect.chunked

    def refused(self) -> bool:
        opened = any(fault.opens for fault in self.behaviour.faults)
        return not opened and self.headers.get("Authorization") != f"Bearer {self.behaviour.key}"

    def wait_for_the_end(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.behaviour.state.released.wait(30)

    def hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status: int, body: Any) -> None:
        text = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    """A thread for each connection, and none that has to come again because others came at the same time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, where: tuple[str, int], behaviour: Behaviour) -> None:
        super().__init__(where, Handler)
        self.behaviour = behaviour


def _writes(events: list[Event], dialect: Dialect) -> Iterator[Union[bytes, Act]]:
    """What is written at once: an event each, or so many bytes wherever they end."""
    waiting = b""
    for event in events:
        if not isinstance(event, Act):
            waiting += wire.written(event, dialect)
        size = dialect.write or len(waiting)
        while waiting and (len(waiting) >= size or isinstance(event, Act)):
            yield waiting[:size]
            waiting = waiting[size:]
        if isinstance(event, Act):
            yield event
    if waiting:
        yield waiting


@contextmanager
def engine(
    behaviour: Behaviour | None = None,
    where: tuple[str, int] = ("127.0.0.1", 0),
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[Behaviour, int]]:
    """A running server, by default on a free loopback port and without TLS."""
    chosen = behaviour or Behaviour()
    server = Server(where, chosen)
    if tls:
        # The handshake is made by the connection's own thread, when it first reads.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield chosen, server.server_address[1]
    finally:
        chosen.state.released.set()
        server.shutdown()
        server.server_close()
