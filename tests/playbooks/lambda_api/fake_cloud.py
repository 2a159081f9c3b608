"""A small Lambda Cloud for tests of the client, the inventory and the module: real HTTP, answers set by the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "secret_test_key_0123456789abcdef"
JUPYTER_TOKEN = "jupyter-secret-token"
B200 = {
    "name": "gpu_8x_b200_sxm6",
    "description": "8x B200 (180 GB SXM6)",
    "gpu_description": "B200 (180 GB SXM6)",
    "price_cents_per_hour": 5352,
    "specs": {"vcpus": 208, "memory_gib": 2900, "storage_gib": 22528, "gpus": 8},
}
GH200 = {
    "name": "gpu_1x_gh200",
    "description": "1x GH200 (96 GB)",
    "gpu_description": "GH200 (96 GB)",
    "price_cents_per_hour": 229,
    "specs": {"vcpus": 64, "memory_gib": 432, "storage_gib": 4096, "gpus": 1},
}


def make_instance(number: int, **changes: Any) -> dict[str, Any]:
    """An active 8x B200 instance as the API describes it; ``None`` in ``changes`` removes a field."""
    instance = {
        "id": f"{number:08x}{'c' * 24}",
        "name": f"node-{number}",
        "ip": f"203.0.{number // 250}.{number % 250 + 1}",
        "private_ip": f"10.1.{number // 250}.{number % 250 + 1}",
        "status": "active",
        "hostname": f"203-0-{number // 250}-{number % 250 + 1}.cloud.example",
        "region": {"name": "us-east-1", "description": "Virginia, USA"},
        "instance_type": B200,
        "ssh_key_names": ["deploy"],
        "file_system_names": ["weights"],
        "tags": [{"key": "glm-fleet", "value": "default"}],
        "actions": {
            name: {"available": True} for name in ("migrate", "rebuild", "restart", "cold_reboot", "terminate")
        },
        "jupyter_token": JUPYTER_TOKEN,
        "jupyter_url": f"https://jupyter.example/?token={JUPYTER_TOKEN}",
        **changes,
    }
    return {key: value for key, value in instance.items() if value is not None}


@dataclass
class Answer:
    """One answer: a status, headers and a body; ``cut`` closes the connection after half of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def data(value: Any) -> Answer:
    return Answer(200, json.dumps({"data": value}).encode())


def error(status: int, code: str, message: str = "told by the test", **headers: str) -> Answer:
    return Answer(status, json.dumps({"error": {"code": code, "message": message}}).encode(), headers)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


class FakeCloud:
    """``script`` answers come first, one per request; after that ``handler`` decides."""

    def __init__(self) -> None:
        self.url = ""
        self.key = KEY
        self.instances: list[dict[str, Any]] = []
        # None: the API does not give them.
        self.regions: list[str] | None = ["us-east-1", "us-south-2", "us-west-9"]
        self.script: list[Answer] = []
        self.handler: Callable[[Request], Answer] = self.answer
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Answer:
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return error(401, "global/invalid-api-key", "API key was invalid, expired, or deleted.")
        if (request.method, request.path) == ("GET", "/api/v1/instances"):
            return data(self.instances)
        if (request.method, request.path) == ("GET", "/api/v1/instance-types"):
            return data({kind["name"]: {"instance_type": kind} for kind in (B200, GH200)})
        if (request.method, request.path) == ("GET", "/api/v1/regions") and self.regions is not None:
            return data([{"name": name, "description": ""} for name in self.regions])
        if (request.method, request.path) == ("GET", "/api/v1/ssh-keys"):
            return data([{"id": "0" * 32, "name": "deploy", "public_key": "ssh-ed25519 AAAA"}])
        return error(404, "global/not-found")

    def respond(self, request: Request) -> Answer:
        self.requests.append(request)
        return self.script.pop(0) if self.script else self.handler(request)


@contextmanager
def serve() -> Iterator[FakeCloud]:
    """Run a cloud on a loopback port until the block is left."""
    cloud = FakeCloud()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None:
            """Keep test output readable."""

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = cloud.respond(
                Request(self.command, self.path, dict(self.headers), json.loads(raw) if raw else None)
            )
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
            if answer.cut:
                self.close_connection = True

        do_GET = do_POST = _handle

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: Any) -> None:
            """A client that hangs up is part of some tests."""

    server = Server(("127.0.0.1", 0), Handler)
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
