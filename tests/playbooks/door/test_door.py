"""What passes the front door, in what form, and what a client is answered when nothing does."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import master
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import expiry
from ansible_collections.glm.fleet.plugins.plugin_utils.report import ServedEndpoint
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import door, verdict
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import expiry as serving_expiry
from tests.fetch_by_clock import wait_for
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy
from tests.playbooks.door.proxy import CLIENT, CLIENT_KEY, ENGINE_KEY, Door
from tests.playbooks.verify.fake.server import MODEL, Behaviour, engine
from tests.unit.serve.plans import plan

pytestmark = pytest.mark.one_core
BEARER = {"Authorization": f"Bearer {CLIENT_KEY}"}
X_API_KEY = {"x-api-key": CLIENT_KEY}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}


class Echo(BaseHTTPRequestHandler):
    """Answers every request with what it was asked, as an engine would see it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        seen = {
            "method": self.command,
            "path": self.path,
            "body": self.rfile.read(length).decode(),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        text = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, *_args: Any) -> None:
        """Quiet."""


@contextmanager
def echo() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door in front of two engines that say what they were asked."""
    with echo() as first, echo() as second, proxy.running(tmp_path_factory.mktemp("door"), first, second) as one:
        yield one


def ask(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(text)
    finally:
        connection.close()


def raw(port: int, text: str) -> int:
    """Status of the answer to a request as it is written here."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(text.encode("latin-1"))
        line = connection.makefile("rb").readline()
    return int(line.split()[1])


def listed() -> list[tuple[str, str]]:
    return [(method, route["path"]) for route in plan()["door"]["routes"] for method in route["methods"]]


@pytest.mark.parametrize(("method", "path"), listed())
@pytest.mark.parametrize("headers", [BEARER, X_API_KEY], ids=["bearer", "x-api-key"])
def test_a_listed_route_passes_with_a_key_in_either_header(
    front: Door, method: str, path: str, headers: dict[str, str]
) -> None:
    body = "a body" if method == "POST" else None
    status, _headers, seen = ask(front.port, method, f"{path}?beta=true", headers, body)
    assert (status, seen["method"], seen["path"], seen["body"]) == (200, method, f"{path}?beta=true", body or "")


def test_a_host_whose_time_is_over_takes_no_new_request_until_it_is_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with echo() as first, echo() as second, proxy.running(tmp_path, first, second) as front:
        made = serving_expiry.expiry_orders([plan()], proxy.data(tmp_path, front.ports, (first, second), front.monitor))
        more = {"expires": "", "idle_minutes": 0, "hard": False, "drain_seconds": 0, "protected": False}
        host = expiry.Host(expiry.orders_in(json.dumps({**made, **more})))
        routes = (("POST", "/v1/messages"), ("GET", "/v1/models"))
        for admitted, wanted in ((False, 503), (False, 503), (True, 200)):
            host.admit(admitted)
            for port, (method, path) in itertools.product(front.ports, routes):
                assert ask(port, method, path, BEARER, "{}")[0] == wanted
    # No door that is not there admits anybody.
    monkeypatch.setattr(master.commands, "run", lambda _command: CommandResult((), 0, "inactive\n", ""))
    host.admit(False)


@pytest.mark.parametrize(
    "headers",
    [BEARER, X_API_KEY, {**BEARER, "x-api-key": "other"}, {"authorization": f"bearer {CLIENT_KEY}"}],
)
def test_the_engine_sees_its_own_key_and_never_the_client_s(front: Door, headers: dict[str, str]) -> None:
    status, _headers, seen = ask(front.port, "POST", "/v1/chat/completions", headers, "{}")
    assert status == 200 and CLIENT_KEY not in json.dumps(seen) and "x-api-key" not in seen["headers"]
    assert seen["headers"]["authorization"] == f"Bearer {ENGINE_KEY}"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {CLIENT_KEY}"},
        {"Authorization": f"Bearer {CLIENT_KEY.upper()}"},
        {"Authorization": "Bearer wrong", "x-api-key": CLIENT_KEY},
        {"x-api-key": ""},
        {"x-api-key": CLIENT},
        {"x-api-key": proxy.keys_map(anna=CLIENT_KEY).split()[0]},
        {"Authorization": f"Bearer {ENGINE_KEY}"},
        {"Cookie": f"key={CLIENT_KEY}"},
    ],
)
def test_without_a_known_key_nothing_passes(front: Door, headers: dict[str, str]) -> None:
    status, answered, error = ask(front.port, "POST", "/v1/chat/completions", headers, "{}")
    assert status == 401 and answered["content-type"] == "application/json"
    assert error["type"] == "error" and error["error"]["type"] == "authentication_error"
    assert error["error"]["code"] == "invalid_api_key" and "x-api-key" in error["error"]["message"]


UNLISTED = [
    "POST /invocations",
    "GET /metrics",
    "GET /health",
    "GET /",
    "GET /docs",
    "GET /openapi.json",
    "GET /v1/chat/completions",
    "DELETE /v1/models",
    "HEAD /v1/models",
    "OPTIONS /v1/chat/completions",
    "BREW /v1/models",
    "post /v1/chat/completions",
    "POST /v1/chat/completions/",
    "POST //v1/chat/completions",
    "POST /v1//chat/completions",
    "POST /v1/chat/../chat/completions",
    "POST /v1/chat/completions/../../../invocations",
    "POST /v1/models/../../invocations",
    "POST /./v1/chat/completions",
    "POST /v1/%63hat/completions",
    "POST /v1/chat%2Fcompletions",
    "POST /%69nvocations",
    "POST /V1/chat/completions",
    "POST /v1/chat/completions;x=y",
    "POST /v1/chat/completions%00",
    "POST /invocations?/v1/chat/completions",
    "POST /invocations#/v1/chat/completions",
    "POST http://door/invocations",
    "POST http://door/v1/chat/completions/../invocations",
    "GET http://door/metrics",
    "POST v1/chat/completions",
    "GET *",
    "OPTIONS *",
]


@pytest.mark.parametrize("line", UNLISTED)
@pytest.mark.parametrize("key", ["", f"Authorization: Bearer {CLIENT_KEY}\r\n"], ids=["no key", "key"])
def test_what_is_not_listed_is_not_found_with_a_key_or_without(front: Door, line: str, key: str) -> None:
    # A line that is no HTTP at all is refused before anything is looked up.
    refused = (400, 404)
    status = raw(front.port, f"{line} HTTP/1.1\r\nHost: door\r\n{key}Content-Length: 0\r\nConnection: close\r\n\r\n")
    assert status in refused
    if re.fullmatch(r"[A-Z]+ (http:/)?/\S*", line) and "#" not in line:
        assert status == 404


def test_a_listed_route_in_absolute_form_reaches_the_engine_as_a_path(front: Door) -> None:
    status, _headers, seen = ask(front.port, "GET", "http://127.0.0.1/v1/models?x=1", BEARER)
    assert (status, seen["path"]) == (200, "/v1/models?x=1")


def test_not_found_is_said_in_the_form_that_clients_read(front: Door) -> None:
    status, answered, error = ask(front.port, "POST", "/invocations", BEARER, "{}")
    assert status == 404 and answered["content-type"] == "application/json"
    assert error["error"]["type"] == "not_found_error" and error["error"]["code"] == "not_found"


def test_a_name_in_a_path_stands_for_one_plain_segment() -> None:
    made = door._route("/v1/responses/{response_id}/cancel", ("POST",))
    pattern = made["condition"].partition("path_reg ")[2].removesuffix(" }")
    assert made["condition"].startswith("{ method POST } ")
    assert re.search(pattern, "/v1/responses/resp_0-a.1/cancel")
    for path in (
        "/v1/responses//cancel",
        "/v1/responses/a/b/cancel",
        "/v1/responses/../cancel",
        "/v1/responses/a%2Fb/cancel",
    ):
        assert not re.search(pattern, path), path
    with pytest.raises(door.UnitError, match="catalog/engines"):
        door._route("/v1/a b", ("POST",))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "169.254.1.1", "localhost"])
def test_the_monitoring_is_published_nowhere(address: str) -> None:
    with pytest.raises(door.UnitError, match="glm_monitor_address"):
        door.door([plan()], address)  # type: ignore[list-item]  # test plans are dicts
    assert door.door([plan()], "10.0.0.5")["monitor"] == "10.0.0.5:9800"  # type: ignore[list-item]


def test_each_replica_has_a_port_of_its_own(tmp_path: Path) -> None:
    second = Behaviour(key=ENGINE_KEY, model="second")
    with echo() as first, engine(second) as (_, port), proxy.running(tmp_path, first, port) as one:
        assert ask(one.ports[0], "GET", "/v1/models", BEARER)[2]["path"] == "/v1/models"
        assert ask(one.ports[1], "GET", "/v1/models", BEARER)[2]["data"][0]["id"] == "second"


def test_who_watches_asks_health_and_metrics_elsewhere_and_nothing_more(tmp_path: Path) -> None:
    with engine(Behaviour(key=ENGINE_KEY)) as (_behaviour, port), proxy.running(tmp_path, port) as one:
        for path, expected in (("/metrics", b"haproxy_process_"), ("/metrics/0", b"vllm:"), ("/health/0", b"")):
            connection = http.client.HTTPConnection("127.0.0.1", one.monitor, timeout=PATIENCE_SECONDS)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200 and expected in answer.read(), path
            connection.close()
        for method, path in (("GET", "/v1/models"), ("POST", "/metrics/0"), ("GET", "/metrics/1"), ("GET", "/health")):
            assert ask(one.monitor, method, path, BEARER)[0] == 404


def passed_on(server: socket.socket) -> tuple[socket.socket, bytes]:
    """The next connection of a client, and what came. The door's own checks are answered."""
    while True:
        connection, _peer = server.accept()
        begun = connection.recv(65536)
        if not begun.startswith(b"GET /health"):
            return connection, begun
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        connection.close()


def test_each_piece_of_a_stream_passes_at_once(tmp_path: Path) -> None:
    pieces = threading.Semaphore(0)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _request = passed_on(server)
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(3):
                connection.sendall(b"7\r\ndata: %d\r\n" % number)
                # The next piece is written when this one has arrived: a door that waits for more hangs here.
                assert pieces.acquire(timeout=PATIENCE_SECONDS)
            connection.sendall(b"0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with proxy.running(tmp_path, server.getsockname()[1]) as one:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=PATIENCE_SECONDS)
        connection.request("POST", "/v1/chat/completions", "{}", BEARER)
        answer = connection.getresponse()
        for number in range(3):
            assert answer.read1(100) == b"data: %d" % number
            pieces.release()
        assert answer.read() == b""
    server.close()


def metrics(door: Door) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{door.monitor}/metrics", timeout=PATIENCE_SECONDS) as answer:
        return answer.read().decode().splitlines()


def test_an_engine_that_is_not_there_is_said_at_once_and_asked_once(tmp_path: Path) -> None:
    (port,) = proxy.free_ports(1)
    with proxy.running(tmp_path, port) as one:
        status, answered, error = ask(one.port, "POST", "/v1/chat/completions", BEARER, json.dumps(CHAT))
        line = one.line(route="/v1/chat/completions")
        retries = [
            words.split()[-1] for words in metrics(one) if words.startswith("haproxy_backend_retry_warnings_total")
        ]
    assert (status, error["error"]["code"]) == (503, "engine_unavailable") and answered["retry-after"] == "10"
    # The connection was refused, and nobody waited for a second try, for a place in a queue, or for a timeout.
    assert line["end"] == "SC" and retries and set(retries) == {"0"}
    assert re.fullmatch(r"\d+/\d+/-1/-1", line["first"]) and int(line["all"]) < 60_000


def test_an_engine_that_hangs_up_is_not_asked_again(tmp_path: Path) -> None:
    asked = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, request = passed_on(server)
            except OSError:
                return
            asked.append(request)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with proxy.running(tmp_path, server.getsockname()[1]) as one:
        status, answered, error = ask(one.port, "POST", "/v1/chat/completions", BEARER, json.dumps(CHAT))
    server.close()
    assert (status, error["error"]["code"]) == (502, "engine_ended") and len(asked) == 1
    assert answered["retry-after"] == "10"


def test_an_engine_learns_at_once_that_its_client_is_gone(tmp_path: Path) -> None:
    """It would go on with a long prompt that nobody waits for."""
    asked, gone = threading.Event(), threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _request = passed_on(server)
        with connection:
            asked.set()
            connection.settimeout(PATIENCE_SECONDS)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass
            gone.set()

    threading.Thread(target=serve, daemon=True).start()
    with proxy.running(tmp_path, server.getsockname()[1]) as one:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=PATIENCE_SECONDS)
        connection.request("POST", "/v1/chat/completions", "{}", BEARER)
        assert asked.wait(PATIENCE_SECONDS)
        connection.close()
        # The door itself waits an hour for an engine.
        assert gone.wait(60)
    server.close()


def test_a_reload_loses_no_request_and_cuts_no_stream(tmp_path: Path) -> None:
    """The configuration is read again while requests come without a pause."""
    with echo() as port, proxy.running(tmp_path, port) as one:
        ended, statuses = threading.Event(), []

        def load() -> None:
            while not ended.is_set():
                statuses.append(ask(one.port, "GET", "/v1/models", BEARER)[0])

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(statuses)
            one.process.send_signal(12)  # SIGUSR2
            while len(statuses) < before + 200:
                time.sleep(0.05)
        ended.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_a_reload_ends_a_kept_connection_with_its_next_answer_and_not_before(tmp_path: Path) -> None:
    with engine(Behaviour(key=ENGINE_KEY)) as (_behaviour, port), proxy.running(tmp_path, port) as front:
        kept = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {CLIENT_KEY}"}
        kept.request("GET", "/v1/models", headers=headers)
        assert kept.getresponse().read()
        before = {one.pid for one in Master(tmp_path / "master.sock").processes()}
        front.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not {one.pid for one in Master(tmp_path / "master.sock").processes() if not one.old} - before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        connected = kept.sock
        kept.request("GET", "/v1/models", headers=headers)
        assert kept.getresponse().status == 200 and (kept.sock is connected or kept.sock is None)


def test_an_address_that_only_holds_connections_leaves_room_for_others(tmp_path: Path) -> None:
    with engine(Behaviour(key=ENGINE_KEY)) as (_behaviour, port), proxy.running(tmp_path, port) as front:
        held = [socket.create_connection(("127.0.0.1", front.port)) for _number in range(1010)]
        try:
            with pytest.raises((OSError, http.client.HTTPException)):
                asked_of(front, "127.0.0.1")
            assert asked_of(front, "127.0.0.2") == 200
        finally:
            for one in held:
                one.close()


def asked_of(front: Door, source: str) -> int:
    """The status of a request that comes from an address of this machine."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", front.port, timeout=PATIENCE_SECONDS, source_address=(source, 0)
    )
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {CLIENT_KEY}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_requests_are_written_down_without_their_text_and_key(tmp_path: Path) -> None:
    with echo() as port, proxy.running(tmp_path, port) as one:
        ask(one.port, "POST", "/v1/chat/completions?secret=1", BEARER, '{"prompt": "a secret"}')
        ask(one.port, "POST", "/v1/chat/completions", {"x-api-key": "a-wrong-secret"}, "{}")
        # A line is written after its answer.
        wait_for(lambda: "key=- method=POST" in (tmp_path / "log").read_text(encoding="utf-8"))
        one.process.terminate()
        one.process.wait(60)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert f"key={CLIENT} method=POST route=/v1/chat/completions to=engine-0 status=200" in text
    assert "key=- method=POST" in text
    assert "secret" not in text and CLIENT_KEY not in text and ENGINE_KEY not in text


def test_the_configuration_is_accepted_without_a_word(tmp_path: Path) -> None:
    *ports, monitor = proxy.free_ports(3)
    config = proxy.configured(tmp_path, ports, [18000, 18001], monitor)
    done = subprocess.run([proxy.program(), "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warning" not in (done.stdout + done.stderr).lower(), done.stderr


@pytest.mark.parametrize("from_file", [True, False], ids=["key file", "GLM_API_KEY"])
def test_the_line_to_paste_works_and_gives_the_key_to_no_argument_list(tmp_path: Path, from_file: bool) -> None:
    """With the real curl; what stands before it in PATH writes down its arguments."""
    key_file = tmp_path / "a key"
    key_file.write_text(f"{CLIENT_KEY}\n", encoding="ascii")
    first = tmp_path / "bin"
    first.mkdir()
    for name in ("curl", "sed"):
        real = shutil.which(name)
        assert real is not None, f"{name} is not installed"
        script = f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/arguments\nexec {real} "$@"\n'
        (first / name).write_text(script, encoding="ascii")
        (first / name).chmod(0o755)
    with engine(Behaviour(key=ENGINE_KEY)) as (_, port), proxy.running(tmp_path, port) as one:
        endpoint: ServedEndpoint = {"url": f"http://127.0.0.1:{one.port}/v1", "model": MODEL}
        lines = verdict.curl_lines(
            verdict.host_report("gpu-1", [], endpoint, None), str(key_file) if from_file else None
        )
        done = subprocess.run(
            ["sh", "-c", "\n".join(lines)], capture_output=True, text=True, check=False,
            env={"PATH": f"{first}:{os.environ['PATH']}", "GLM_API_KEY": CLIENT_KEY},
        )  # fmt: skip
    assert json.loads(done.stdout)["choices"][0]["message"]["content"], done.stderr
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8")
    assert "@-" in arguments and CLIENT_KEY not in arguments
