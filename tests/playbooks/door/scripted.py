"""An engine that answers what the request asks it to, piece by piece."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.patience import PATIENCE_SECONDS


class Handler(BaseHTTPRequestHandler):
    """What the request's JSON asks for: ``pieces`` of the answer, ``whole`` (with its length, not chunked), ``status``.

    ``hold`` waits for ``go`` before the end, ``silent`` before the answer, and ``cut`` ends the connection.
    """

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Engine

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self.server.encodings.append(self.headers.get("accept-encoding"))
        self._answer(json.loads(self._body()))

    def _body(self) -> bytes:
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, asked: dict[str, Any]) -> None:
        pieces = [piece.encode() for piece in asked.get("pieces", ["{}"])]
        if asked.get("silent"):
            self.server.held.release()
            self.server.go.wait(60)
        self.send_response(asked.get("status", 200))
        if asked.get("whole"):
            self.send_header("content-length", str(sum(map(len, pieces))))
        else:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece if asked.get("whole") else b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if asked.get("hold"):
            self.server.held.release()
            self.server.go.wait(60)
        if asked.get("cut"):
            self.close_connection = True
            return
        if not asked.get("whole"):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


class Engine(ThreadingHTTPServer):
    """The server: ``held`` counts answers that wait for ``go``."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.held = threading.Semaphore(0)
        self.go = threading.Event()
        self.encodings: list[str | None] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_args: Any) -> None:
        """A client that went away is no error here."""


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine while the block runs."""
    server = Engine()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()


class Client:
    """One connection of a client, kept alive between requests."""

    def __init__(self, port: int, key: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        self.headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "gzip"}

    def ask(self, path: str = "/v1/chat/completions", **asked: Any) -> http.client.HTTPResponse:
        """The answer, its body read."""
        answer = self.begin(path, **asked)
        answer.body = answer.read()  # type: ignore[attr-defined]
        return answer

    def begin(
        self, path: str = "/v1/chat/completions", chunked: bool = False, **asked: Any
    ) -> http.client.HTTPResponse:
        """The answer as soon as its headers are there. ``chunked``: the request does not say its length."""
        self.send(path, chunked, **asked)
        return self.connection.getresponse()

    def send(self, path: str = "/v1/chat/completions", chunked: bool = False, **asked: Any) -> None:
        """The request alone."""
        method = "GET" if path == "/v1/models" else "POST"
        body = json.dumps(asked).encode() if method == "POST" else None
        # What is iterated has no length, and http.client sends it in chunks.
        self.connection.request(method, path, iter([body]) if chunked and body else body, self.headers)

    def close(self) -> None:
        self.connection.close()


def ask(port: int, key: str, path: str = "/v1/chat/completions", **asked: Any) -> http.client.HTTPResponse:
    """The answer to a client that comes once."""
    client = Client(port, key)
    try:
        return client.ask(path, **asked)
    finally:
        client.close()
