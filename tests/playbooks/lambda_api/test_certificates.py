"""Whom the clients of clouds trust: nobody but the usual authorities, or those of ca_path."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import account
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority

KEY = "secret_test_key_0123456789abcdef"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"data": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        """Keep test output readable."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An API on loopback whose certificate comes from ``tmp_path/ca.pem``."""
    now = datetime.now(timezone.utc)
    pair = authority.issue(authority.read_or_make(tmp_path, "test", now), ["127.0.0.1"], now)
    (tmp_path / "server.pem").write_text(pair.together, encoding="utf-8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()
    thread.join()


def client(url: str, folder: Path, **options: Any) -> lambda_api.LambdaApi:
    pacer = _cloud_api.Pacer(KEY, request_interval=0, directory=folder)
    return lambda_api.LambdaApi(KEY, url, pacer=pacer, retries=0, **options)


def test_an_authority_that_nobody_named_is_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(_cloud_api.TransportError, match="certificate"):
        client(server, tmp_path).list_instances()


@pytest.mark.parametrize("options", [{"ca_path": "ca.pem"}, {"validate_certs": False}])
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_it_may_be_named_or_left_unchecked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    if "ca_path" in options:
        options = {"ca_path": str(tmp_path / options["ca_path"])}
    # Otherwise the environment would replace what the options say.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    api = client(server, tmp_path, **options)
    api._session.trust_env = True
    assert api.list_instances() == []


@pytest.mark.parametrize("given", [{"ca_path": "ca.pem"}, {"validate_certs": "no"}])
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_guard_of_a_launch_trusts_whom_the_launch_does(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if "ca_path" in given:
        given = {"ca_path": str(tmp_path / given["ca_path"])}
    arguments = {"api_key": KEY, "base_url": server, "run": "r1"}
    assert account.Account(account.credential_of({**arguments, **given}, {})).look() == {}
    with pytest.raises(_cloud_api.TransportError, match="certificate"):
        account.Account(account.credential_of(arguments, {})).look()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ca_path: there is no file /no/such\.pem"):
        client("https://127.0.0.1:9", tmp_path, ca_path="/no/such.pem")
