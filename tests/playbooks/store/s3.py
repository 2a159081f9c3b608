"""A kept S3 server (moto's) over real HTTP, with a proxy in front that has the troubles of real stores."""

from __future__ import annotations

import contextlib
import datetime
import fnmatch
import functools
import http.client
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

KEY_PAIR = {"AWS_ACCESS_KEY_ID": "AKIDSTORETESTS000000", "AWS_SECRET_ACCESS_KEY": "secret-of-the-store-tests"}
BUCKET = "weights"


@dataclass
class Fault:
    """``match`` is ``<METHOD> <path>?<query>`` as a glob; ``cut`` sends so many bytes of the body and hangs up.

    ``lost``: the store does it and its answer is lost. ``strip``: headers of the request that the store ignores.
    """

    match: str
    status: int = 0
    code: str = ""
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    region: str = ""
    cut: int | None = None
    times: int = 1_000_000
    after: int = 0
    lost: bool = False
    strip: tuple[str, ...] = ()
    page: bytes = b""


@dataclass
class Request:
    """What was asked: method, path with query, status, headers, bytes of both bodies."""

    method: str
    path: str
    status: int
    headers: dict[str, str]
    sent: int
    got: int


class Store:
    """The proxy's address, its faults, and what it was asked."""

    def __init__(self, moto: tuple[str, int]) -> None:
        self.moto = moto
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.delay = 0.0
        self.lock = threading.Lock()
        # moto looks at the condition of a write and writes in two steps.
        self.writing = threading.Lock()
        self.url = ""
        # Seconds by which the store's clock is ahead.
        self.ahead = 0.0
        # Where the bucket is; ``home_headers`` say more of it.
        self.home = ""
        self.home_headers: dict[str, str] = {}

    def fail(self, match: str, **more: object) -> Fault:
        fault = Fault(match, **more)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def take(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fnmatch.fnmatchcase(line, fault.match):
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def asked(self, match: str) -> list[Request]:
        return [one for one in self.requests if fnmatch.fnmatchcase(f"{one.method} {one.path}", match)]

    @property
    def direct(self) -> Any:
        """boto3's client past the proxy, for what tests lay down and look up."""
        return _direct(self.moto)


@functools.cache
def _direct(moto: tuple[str, int]) -> Any:
    return boto3.client(
        "s3", endpoint_url=f"http://{moto[0]}:{moto[1]}", region_name="us-east-1",
        aws_access_key_id="x", aws_secret_access_key="x",
    )  # fmt: skip


def _error(code: str, text: str, extra: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{text}</Message>{extra}</Error>'
    ).encode()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_args: object) -> None:
        pass

    def _do(self) -> None:
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(store.delay)
        fault = store.take(f"{self.command} {self.path}")
        if fault is not None and fault.status:
            region = f"<Region>{fault.region}</Region>" if fault.region else ""
            headers = {name: value.replace("{path}", self.path) for name, value in fault.headers.items()}
            self._answer(fault.status, headers, fault.page or _error(fault.code, fault.text, region), len(body))
        elif store.home:
            headers = {"Location": store.home + self.path, **store.home_headers}
            self._answer(307, headers, _error("TemporaryRedirect", "Please re-send this request."), len(body))
        elif self._expired():
            extra = "<ServerTime>now</ServerTime>"
            self._answer(403, {}, _error("AccessDenied", "Request has expired", extra), len(body))
        else:
            self._forward(body, fault or Fault(""))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _do

    def _expired(self) -> bool:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        if "X-Amz-Expires" not in query:
            return False
        signed = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        return time.time() + self.server.store.ahead > signed.timestamp() + int(query["X-Amz-Expires"])

    def _forward(self, body: bytes, fault: Fault) -> None:
        store = self.server.store
        given = {name: value for name, value in self.headers.items() if name.lower() not in fault.strip}
        with store.writing if self.command == "PUT" else contextlib.nullcontext():
            connection = http.client.HTTPConnection(*store.moto)
            connection.request(self.command, self.path, body or None, given)
            answer = connection.getresponse()
            content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        connection.close()
        if fault.lost:
            store.requests.append(Request(self.command, self.path, 0, dict(self.headers), len(body), 0))
            self.close_connection = True
        else:
            self._answer(answer.status, headers, content, len(body), fault.cut)

    def _answer(self, status: int, headers: dict[str, str], content: bytes, sent: int, cut: int | None = None) -> None:
        record = Request(self.command, self.path, status, dict(self.headers), sent, len(content))
        self.server.store.requests.append(record)
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name in headers):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content if cut is None else content[:cut])
            if cut is not None:
                self.close_connection = True


_HOP = {"connection", "transfer-encoding", "server", "date", "keep-alive"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.store = store

    def handle_error(self, *_args: object) -> None:
        """Clients that hang up are a part of the tests."""


@functools.cache
def _moto() -> tuple[str, int]:
    """One for the process, since all servers of a process would share their buckets anyway."""
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    return moto.get_host_and_port()


@contextlib.contextmanager
def serving() -> Iterator[Store]:
    """A store with an empty bucket."""
    store = Store(_moto())
    reset = http.client.HTTPConnection(*store.moto)
    reset.request("POST", "/moto-api/reset")
    assert reset.getresponse().status == 200
    reset.close()
    store.direct.create_bucket(Bucket=BUCKET)
    with _listening(store):
        yield store


@contextlib.contextmanager
def in_front(home: Store, **headers: str) -> Iterator[Store]:
    """What stands for all regions, and sends whoever asks for the bucket to its home."""
    store = Store(home.moto)
    store.home, store.home_headers = home.url, headers
    with _listening(store):
        yield store


@contextlib.contextmanager
def _listening(store: Store) -> Iterator[None]:
    server = _Server(store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
