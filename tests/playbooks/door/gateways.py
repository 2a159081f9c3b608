"""A gateway as a real HAProxy in front of doors of the test, which answer ``/ready`` as the real ones do."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.door import staged
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import gateway
from tests.playbooks.door import proxy
from tests.unit.serve.plans import listening, plan
from tests.unit.serve.render import render_host


class Handler(BaseHTTPRequestHandler):
    """``/ready`` as the host is; every other answer has the host's name and the conversation that the gateway saw."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: Host

    def do_GET(self) -> None:
        if self.path == "/ready":
            self._answer(self.server.ready, {"state": "of the test"})
        else:
            self._answer(200, {"host": self.server.name, "path": self.path})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.asked += 1
        if self.server.hold:
            self.server.held.release()
            self.server.go.wait(60)
        time.sleep(self.server.takes)
        seen = {
            "host": self.server.name,
            "session": self.headers.get("x-glm-session", ""),
            "key": self.headers.get("x-api-key"),
        }
        self._answer(self.server.status, seen)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


class Host(ThreadingHTTPServer):
    """A host's door: ``ready`` is what it says of itself, ``hold`` keeps answers until ``go``.

    Each answer ``takes`` so many seconds.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.ready, self.status, self.asked, self.hold = name, 200, 200, 0, False
        self.takes = 0.0
        self.lock, self.held, self.go = threading.Lock(), threading.Semaphore(0), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        """As when the host is gone."""
        self.go.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_args: Any) -> None:
        """A gateway that hangs up is no error here."""


@dataclass
class Gateway:
    """A running gateway and the doors behind it."""

    port: int
    monitor: int
    hosts: list[Host]
    folder: Path
    process: subprocess.Popen[bytes]

    def ask(
        self, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and answer of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def host_of(self, body: dict[str, Any], **headers: str) -> str:
        """The host that answers a request, which has to succeed."""
        status, answer = self.ask(body, **headers)
        assert status == 200, answer
        return str(answer["host"])


def data(folder: Path, port: int, monitor: int, doors: Sequence[int], requests: int, queue: int) -> dict[str, Any]:
    """What the template needs, with files in ``folder``."""
    plans = [plan(listen=listening("10.0.0.5", door, 18000), tls=None) for door in doors]
    here = {
        "host": "g", "names": [], "acme_directory": "", "acme_email": "", "acme_agree": False, "peers": [],
        "bind": "private", "private_address": "10.0.0.5", "public_address": "", "port": port, "tls": "none",
        "tls_names": [], "authorities": "", "monitor_address": "127.0.0.1", "monitor_port": monitor,
        "requests": requests, "queue": queue,
    }  # fmt: skip
    made = gateway.gateway(
        [{"host": f"h{number}", "plans": [one], "address": ""} for number, one in enumerate(plans)], here
    )
    made["bind"] = f"127.0.0.1:{port}"
    for replica, door in zip(made["replicas"], doors):
        replica["address"] = f"127.0.0.1:{door}"
    made["files"]["usage"] = str(folder / "gateway.lua")
    return made


@contextmanager
def started(
    folder: Path, made: dict[str, Any], ports: Sequence[int], certificate: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """The HAProxy of a gateway with its files in ``folder``; with a certificate and its key it speaks TLS."""
    (folder / "gateway.lua").write_text(render_host("glm-gateway.lua"), encoding="utf-8")
    config = folder / "haproxy.cfg"
    text = render_host("glm-gateway.cfg", gateway=made)
    config.write_text(staged.marked(text, render_host("glm-gateway.lua"), certificate), encoding="utf-8")
    with proxy.haproxy(folder, config, ports, made["environment"]) as process:
        yield process


@contextmanager
def before(folder: Path, door: int, certificate: str, authorities: Path) -> Iterator[int]:
    """A gateway with TLS in front of a door with TLS on this machine; gives its port."""
    port, monitor = proxy.free_ports(2)
    made = data(folder, port, monitor, [door], requests=450, queue=1000)
    made["tls"] = {"origin": "fleet", "names": ["127.0.0.1"]}
    made["files"] |= {"certificate": str(folder / "gateway.pem"), "authorities": str(authorities)}
    made["replicas"][0]["tls"] = True
    (folder / "gateway.pem").write_text(certificate, encoding="ascii")
    with started(folder, made, [port, monitor], certificate):
        until(lambda: _ready(monitor), "the gateway sends requests to the door")
        yield port


def _ready(monitor: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", monitor, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@contextmanager
def running(
    folder: Path,
    hosts: int = 3,
    requests: int = 64,
    queue: int = 100,
    certificate: str = "",
    acme: Mapping[str, Any] | None = None,
) -> Iterator[Gateway]:
    """A gateway in front of so many hosts, all of which serve; with a certificate and its key it speaks TLS.

    ``acme`` is where an authority asks it: ``listen``, ``answers``, ``peers``, and the ``names`` of the ``order``.
    """
    with ExitStack() as stack:
        doors = [Host(f"h{number}") for number in range(hosts)]
        for host in doors:
            stack.callback(host.end)
        port, monitor = proxy.free_ports(2)
        made = data(folder, port, monitor, [host.port for host in doors], requests, queue)
        made["acme"] = acme
        if certificate:
            made["tls"] = {"origin": "fleet", "names": ["127.0.0.1"]}
            made["files"]["certificate"] = str(folder / "gateway.pem")
            (folder / "gateway.pem").write_text(certificate, encoding="ascii")
        process = stack.enter_context(started(folder, made, [port, monitor], certificate))
        yield Gateway(port, monitor, doors, folder, process)


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Wait for something; the seconds that it took."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        if true():
            return time.monotonic() - begun
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")
