"""Why an address gives no answer, said in the same words whichever library asked."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from ansible_collections.glm.fleet.plugins.module_utils import unreachable


def asked_with_requests(url: str, timeout: float) -> None:
    requests.get(url, timeout=timeout)


def asked_with_urllib(url: str, timeout: float) -> None:
    urllib.request.urlopen(url, timeout=timeout).close()


@pytest.fixture(params=[asked_with_requests, asked_with_urllib])
def problem(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Problem:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def ask(url: str, timeout: float = 300) -> tuple[str, str]:
        with pytest.raises(OSError) as caught:
            request.param(url, timeout)
        return unreachable.why(caught.value, url), unreachable.check(caught.value, url, "base_url")

    return ask


Problem = Callable[..., tuple[str, str]]


@contextlib.contextmanager
def served(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError):
                    answer(connection)

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_name_that_is_not_known(problem: Problem) -> None:
    found, check = problem("https://cloud.lamda.invalid/api/v1")
    assert found == "the name cloud.lamda.invalid cannot be resolved"
    assert check == "Check the spelling of base_url, and the DNS and network of this machine."


def test_a_port_where_nothing_listens(problem: Problem) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found, check = problem(f"http://127.0.0.1:{port}/")
    assert found == f"127.0.0.1 port {port} refuses connections"
    assert check.startswith("Check base_url, and the network, firewall and proxy")


def test_a_server_that_does_not_answer(problem: Problem) -> None:
    held: list[socket.socket] = []
    with served(held.append) as port:
        assert problem(f"http://127.0.0.1:{port}/", 1)[0] == f"127.0.0.1 port {port} did not answer in time"


def test_a_server_that_breaks_off(problem: Problem) -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with served(reset) as port:
        assert problem(f"http://127.0.0.1:{port}/")[0] == f"127.0.0.1 port {port} closed the connection"


def test_a_server_without_tls(problem: Problem) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found, check = problem(f"https://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert found.startswith(f"127.0.0.1 port {server.server_port} does not speak TLS as expected: ")
    assert "CA certificates" in check


def test_a_certificate_that_nobody_signed(problem: Problem, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    words = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", *words], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with served(lambda connection: context.wrap_socket(connection, server_side=True).close()) as port:
        found, check = problem(f"https://localhost:{port}/")
    assert found == "the TLS certificate of localhost is not accepted: self-signed certificate"
    assert "whether a proxy intercepts TLS" in check


def test_a_proxy_that_is_not_there(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    found, check = problem("https://cloud.lambda.ai/")
    assert found == (
        "the proxy between here and cloud.lambda.ai (HTTPS_PROXY, HTTP_PROXY) does not connect: its name cannot be "
        "resolved"
    )
    assert check == "Check these variables, and NO_PROXY."


def test_an_error_of_another_kind_keeps_its_words() -> None:
    assert unreachable.why(OSError("odd"), "http://h/") == "odd"
    assert unreachable.why(ValueError(), "http://h/") == "ValueError"
