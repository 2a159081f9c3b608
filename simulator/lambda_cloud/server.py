"""HTTP in front of the simulator: the server, a handle for tests in the same process and the command line."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from simulator.lambda_cloud.app import BASE, App
from simulator.lambda_cloud.backend import Backend, load_backend
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.errors import ApiError, invalid
from simulator.lambda_cloud.types import Json, Request, Response
from simulator.lambda_cloud.world import World
from simulator.support import serving

LOG = logging.getLogger("simulator.lambda_cloud")
BODY_LIMIT = 8 * 1024 * 1024
KEY_VARIABLE = "LAMBDA_SIMULATOR_API_KEY"
TOKEN_VARIABLE = "LAMBDA_SIMULATOR_CONTROL_TOKEN"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Bursts of a test's parallel clients must not meet a full accept queue.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], app: App) -> None:
        super().__init__(address, _Handler)
        self.app = app
        self.stopping = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up (a test of time-outs does) is no error of the server."""
        if isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            LOG.debug("%s hung up", client_address)
        else:
            LOG.exception("connection from %s failed", client_address)

    @property
    def base_url(self) -> str:
        """Where clients reach the server, without the API's path."""
        host, port = self.server_address[0], self.server_address[1]
        return f"http://{host!s}:{port}"


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP into Request and Response, and delivers whole, cut or lost answers."""

    protocol_version = "HTTP/1.1"
    server_version = "lambda-cloud-simulator"
    timeout = 120
    # Head and body in one segment: unbuffered, each answer waits 40 ms for the client's delayed ACK.
    wbufsize = -1
    server: _Server

    def _handle(self) -> None:
        response = self._respond()
        if response.wait_seconds:
            self.server.stopping.wait(response.wait_seconds)
        if response.delivery in ("dropped", "hung"):
            self._hang_up()
            return
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if response.delivery == "truncated":
            self.wfile.write(response.body[: len(response.body) // 2])
            self._hang_up()
        else:
            self.wfile.write(response.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _handle

    def _respond(self) -> Response:
        try:
            body = self._read_body()
        except ApiError as error:
            self.close_connection = True
            return error.response()
        target = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=unquote(target.path),
            query=parse_qs(target.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            base_url=self.server.base_url,
        )
        return self.server.app.respond(request)

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            raise invalid(f"body: Content-Length must be at most {BODY_LIMIT}")
        return self.rfile.read(int(length))

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, and logged only for debugging; a query could hold a token."""
        LOG.debug("%s %s", self.address_string(), format % args)


@dataclass(frozen=True)
class Handle:
    """A running simulator, for tests: its parts, and short calls of its control endpoint."""

    base_url: str
    world: World

    @property
    def api_url(self) -> str:
        """The base that API paths such as ``/instances`` follow."""
        return self.base_url + BASE

    @property
    def api_key(self) -> str:
        """The key that the simulator accepts."""
        return self.world.config.api_key

    @property
    def backend(self) -> Backend:
        """What stands behind the instances."""
        return self.world.backend

    def control(self, method: str, path: str, body: Json | None = None) -> Any:
        """Call the control endpoint (``path`` without ``/_simulator``) and return ``data``; ValueError when refused."""
        return control_call(self.base_url, self.world.config.control_token, method, path, body)

    def fault(self, kind: str, **values: Any) -> int:
        """Queue a fault and return its number."""
        number: int = self.control("POST", "/faults", {"kind": kind, **values})["id"]
        return number

    def settings(self, **values: Any) -> None:
        """Change run-time settings."""
        self.control("PATCH", "/settings", values)

    def seed(self, **values: Any) -> list[str]:
        """Add instances without hosts; returns their ids."""
        ids: list[str] = self.control("POST", "/instances", values)["instance_ids"]
        return ids

    def adjust(self, instance_id: str, **values: Any) -> Json:
        """Change what the API shows of an instance; returns its new view."""
        view: Json = self.control("PATCH", f"/instances/{instance_id}", values)
        return view

    def state(self) -> Json:
        """Counters, pacing, settings and instances."""
        state: Json = self.control("GET", "/state")
        return state


def control_call(base_url: str, token: str, method: str, path: str, body: Json | None = None) -> Any:
    """Call a simulator's control endpoint and return ``data``; raises ValueError with the message when refused."""
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=300)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/_simulator{path}", content, {"X-Simulator-Token": token})
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer["data"]


@contextlib.contextmanager
def running(config: Config | None = None, backend: Backend | None = None) -> Iterator[tuple[str, Handle]]:
    """Run a simulator in this process; yields its base URL (without ``/api/v1``) and a handle.

    ``backend`` replaces the one that the configuration names. Raises ValueError for a bad configuration or state
    file, OSError when the address is taken.
    """
    config = config or Config()
    world = World(config, backend or load_backend(config.backend, config.backend_options))
    try:
        server = _Server((config.host, config.port), App(world))
        with serving(server):
            try:
                yield server.base_url, Handle(server.base_url, world)
            finally:
                server.stopping.set()
    finally:
        world.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulator.lambda_cloud", description="A Lambda Cloud API simulator (no real cloud behind it)."
    )
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0 takes a free one")
    parser.add_argument("--state", type=Path, metavar="FILE.json", help="keep the account in this file (mode 0600)")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--api-key", metavar="KEY", help=f"the accepted key (else ${KEY_VARIABLE})")
    key.add_argument("--api-key-file", type=Path, metavar="FILE", help="a file that holds the key")
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--control-token", metavar="TOKEN", help=f"for /_simulator (else ${TOKEN_VARIABLE}, else none)")
    token.add_argument("--control-token-file", type=Path, metavar="FILE", help="a file that holds the token")
    parser.add_argument("--config", type=Path, metavar="FILE.yml", help="settings, capacity, more instance types")
    parser.add_argument("--backend", default="fake", help="fake, podman or module:Class (default: fake)")
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="write the address here once it answers")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    return parser


def _secret(value: str | None, file: Path | None, variable: str) -> str | None:
    if value is None and file is not None:
        value = file.read_text(encoding="utf-8").strip()
    value = os.environ.get(variable) if value is None else value
    return value or None


def _config(arguments: argparse.Namespace) -> Config:
    """The configuration that the command line describes; raises ValueError or OSError with what to change."""
    host, separator, port = arguments.listen.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"--listen {arguments.listen}: expected HOST:PORT")
    key = _secret(arguments.api_key, arguments.api_key_file, KEY_VARIABLE)
    if key is None:
        raise ValueError(f"no API key: give --api-key, --api-key-file or ${KEY_VARIABLE}")
    token = _secret(arguments.control_token, arguments.control_token_file, TOKEN_VARIABLE)
    config = Config(
        api_key=key,
        # A random token, which no client knows, closes the control endpoint.
        control_token=token or secrets.token_hex(32),
        host=host,
        port=int(port),
        state_file=arguments.state,
        backend=arguments.backend,
    )
    if arguments.config is not None:
        config.merge_file(arguments.config)
    return config


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; hosts of the backend outlive the server. Returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with running(_config(arguments)) as (base_url, _):
            print(f"lambda cloud simulator on {base_url}", flush=True)
            if arguments.ready_file is not None:
                arguments.ready_file.write_text(
                    json.dumps({"base_url": base_url, "api_url": base_url + BASE, "pid": os.getpid()}) + "\n"
                )
            stop.wait()
    except (OSError, ValueError) as error:
        print(f"lambda cloud simulator: {error}", file=sys.stderr)
        return 2
    return 0
