"""HTTP in front of the simulated GMI Cloud: bearer keys with scopes, organisations, faults, two shapes of a list."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulator.gmi_cloud.changes import Refused, change
from simulator.gmi_cloud.world import CLUSTER_SCOPE, IDCS, World
from simulator.support import serving

PREFIX = "/api/v1"
# Lists come bare or in an envelope; the vendor's pages do not say which, so clients must take both.
ENVELOPES = ("array", "object", "nested")


@dataclass
class Answer:
    """One answer; ``cut`` closes the connection after half of the body, ``closed`` instead of any answer."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    closed: bool = False
    raw: bytes | None = None


@dataclass
class Fault:
    """An answer in place of the real one to the next ``times`` requests; ``late``: after they had their effect."""

    method: str
    path: str
    answer: Answer
    late: bool = False
    times: int = 1


@dataclass
class Settings:
    """What tests change: the shape of lists, and answers that come before the real ones."""

    envelope: str = "array"
    faults: list[Answer] = field(default_factory=list)
    script: list[Fault] = field(default_factory=list)
    # By path below the API's prefix: always this answer.
    broken: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def fault(self, method: str, path: str) -> Fault | None:
        """What is to go wrong with this request, once less from now on. ``path`` of a fault is a regular expression."""
        for fault in self.script:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


@dataclass(frozen=True)
class Handle:
    """A running simulator."""

    base_url: str
    world: World
    settings: Settings


def respond(
    world: World, settings: Settings, method: str, target: str, headers: dict[str, str], content: bytes
) -> Answer:
    """The answer to one request."""
    settings.requests.append((method, target, headers))
    if settings.faults:
        return settings.faults.pop(0)
    fault = settings.fault(method, urlsplit(target).path)
    if fault and not fault.late:
        return fault.answer
    answer = _answered(world, settings, method, target, headers, content)
    return fault.answer if fault else answer


def _answered(
    world: World, settings: Settings, method: str, target: str, headers: dict[str, str], content: bytes
) -> Answer:
    url = urlsplit(target)
    if url.path.removeprefix(PREFIX) in settings.broken:
        return settings.broken[url.path.removeprefix(PREFIX)]
    if not url.path.startswith(PREFIX + "/"):
        return _error(404, "page not found")
    parts = url.path.removeprefix(PREFIX).strip("/").split("/")
    if parts == ["idcs"] and method == "GET":
        return _list(settings, "idcs", IDCS)
    refusal = _refusal(world, headers)
    if refusal:
        return refusal
    if parts[0] not in world.enabled:
        return _error(404, f"{parts[0]} is not enabled for this organization")
    org = _organization(world, headers)
    if method == "GET":
        return _collection(world, settings, parts, parse_qs(url.query), org, headers)
    try:
        return Answer(200, change(world, method, parts, json.loads(content) if content else None, org))
    except Refused as error:
        return _error(error.status, error.message)


def _collection(
    world: World, settings: Settings, parts: list[str], query: dict[str, list[str]], org: str, headers: dict[str, str]
) -> Answer:
    lists = {
        "containers": world.containers, "baremetals": world.baremetals, "elastic-ips": world.elastic_ips,
        "templates": world.templates,
    }  # fmt: skip
    kind = parts[0]
    if kind not in lists:
        return _error(404, "page not found")
    if parts[1:] == ["products"] and kind in world.products:
        idc = query.get("idc", [None])[0]
        return _list(settings, "products", [item for item in world.products[kind] if idc in (None, item["idc"])])
    with world.lock:
        if kind in ("containers", "baremetals"):
            world.pass_time()
        own = [item for item in lists[kind] if item["orgId"] == org]
    if len(parts) == 1:
        return _list(settings, kind, own)
    found = [item for item in own if item["id"] == parts[1]]
    if kind == "containers" and parts[2:] == ["logs"] and found:
        return _logs(world, parts[1], headers)
    return Answer(200, found[0]) if len(parts) == 2 and found else _error(404, f"{kind} {parts[1]} not found")


def _logs(world: World, identifier: str, headers: dict[str, str]) -> Answer:
    """Text, and only for those who want text."""
    if not re.search(r"text/(plain|\*)|\*/\*", headers.get("accept", "*/*")):
        return _error(406, "logs are text/plain")
    if identifier not in world.logs:
        return _error(410, "the logs are gone")
    return Answer(200, None, {"Content-Type": "text/plain; charset=utf-8"}, raw=world.logs[identifier].encode())


def _organization(world: World, headers: dict[str, str]) -> str:
    key = world.keys[headers["authorization"].removeprefix("Bearer ")]
    return headers.get("x-organization-id") or key.organization


def _refusal(world: World, headers: dict[str, str]) -> Answer | None:
    token = headers.get("authorization", "").removeprefix("Bearer ")
    key = world.keys.get(token)
    if key is None or key.scope != CLUSTER_SCOPE:
        return _error(401, "unauthorized")
    asked = headers.get("x-organization-id")
    if asked and asked != key.organization:
        return _error(403, f"not a member of organization {asked}")
    return None


def _list(settings: Settings, name: str, items: list[Any]) -> Answer:
    shapes: dict[str, Any] = {
        "array": items,
        "object": {"total": len(items), name: items},
        "nested": {"code": 0, "data": {"total": len(items), "items": items}},
    }
    return Answer(200, shapes[settings.envelope])


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"message": message})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, world: World, settings: Settings) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.world, self.settings = world, settings


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "gmi-cloud-simulator"
    wbufsize = -1
    server: _Server

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = respond(self.server.world, self.server.settings, self.command, self.path, headers, content)
        if answer.closed:
            self._hang_up()
            return
        body = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if answer.cut else body)
        if answer.cut:
            self.wfile.flush()
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in Settings.requests; a log line could hold a token."""


@contextlib.contextmanager
def running(world: World | None = None) -> Iterator[Handle]:
    """Run a simulator on a loopback port until the block is left."""
    handle_world, settings = world or World(), Settings()
    server = _Server(handle_world, settings)
    with serving(server):
        yield Handle(f"http://127.0.0.1:{server.server_address[1]}", handle_world, settings)
