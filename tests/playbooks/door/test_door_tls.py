"""The door over TLS: what it speaks, what it refuses, and a certificate that is renewed under load."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.serving import client
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy
from tests.playbooks.verify.fake.server import Behaviour, engine

pytestmark = pytest.mark.one_core
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.read_or_make(tmp_path_factory.mktemp("tls"), "blue", NOW)


def certificate(signer: authority.Authority, days: int = 0) -> str:
    """A certificate that was issued so many days ago, and its key."""
    return authority.issue(signer, ["127.0.0.1"], NOW - timedelta(days=days)).together


def trusting(signer: authority.Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=signer.pem)


def asked(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {proxy.CLIENT_KEY}"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_door_speaks_tls_of_today_and_no_http(fleet: authority.Authority, tmp_path: Path) -> None:
    behaviour = Behaviour(key=proxy.ENGINE_KEY)
    with engine(behaviour) as (_chosen, port), proxy.running(tmp_path, port, certificate=certificate(fleet)) as door:
        assert asked(door.port, trusting(fleet)) == 200
        old = trusting(fleet)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            asked(door.port, old)
        with pytest.raises(ssl.SSLCertVerificationError):
            asked(door.port, ssl.create_default_context())
        offering = trusting(fleet)
        offering.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection(("127.0.0.1", door.port)) as plain:
            secured = offering.wrap_socket(plain, server_hostname="127.0.0.1")
            assert (secured.selected_alpn_protocol(), secured.version()) == ("h2", "TLSv1.3")
        plain_connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=PATIENCE_SECONDS)
        plain_connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {proxy.CLIENT_KEY}"})
        with pytest.raises((http.client.HTTPException, OSError)):
            plain_connection.getresponse()


def test_a_renewed_certificate_costs_no_request(fleet: authority.Authority, tmp_path: Path) -> None:
    behaviour = Behaviour(key=proxy.ENGINE_KEY)
    context, statuses, over = trusting(fleet), [], threading.Event()

    def load(port: int) -> None:
        while not over.is_set():
            statuses.append(asked(port, context))

    with (
        engine(behaviour) as (_chosen, port),
        proxy.running(tmp_path, port, certificate=certificate(fleet, 300)) as door,
    ):
        before = ends(door.port, context)
        clients = [threading.Thread(target=load, args=(door.port,)) for _number in range(4)]
        for client in clients:
            client.start()
        while len(statuses) < 50:
            time.sleep(0.01)
        (tmp_path / "door" / "door.pem").write_text(certificate(fleet))
        old = {one.pid for one in Master(tmp_path / "master.sock").processes()}
        door.process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ends(door.port, context) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        asked_before = len(statuses)
        while len(statuses) < asked_before + 50:
            time.sleep(0.01)
        over.set()
        for client in clients:
            client.join()
        assert set(statuses) == {200}, (len(statuses), set(statuses))
        assert {one.pid for one in Master(tmp_path / "master.sock").processes() if not one.old}.isdisjoint(old)


def ends(port: int, context: ssl.SSLContext) -> str:
    """When the certificate ends that the door shows."""
    with socket.create_connection(("127.0.0.1", port)) as plain:
        shown = context.wrap_socket(plain, server_hostname="127.0.0.1").getpeercert() or {}
    return str(shown["notAfter"])


def test_the_door_of_a_public_ipv6_host_listens_on_both_kinds(fleet: authority.Authority, tmp_path: Path) -> None:
    behaviour, pair = Behaviour(key=proxy.ENGINE_KEY), authority.issue(fleet, ["::1", "127.0.0.1"], NOW)
    with (
        engine(behaviour) as (_chosen, port),
        proxy.running(tmp_path, port, certificate=pair.together, address="::") as door,
    ):
        for host in ("::1", "127.0.0.1"):
            endpoint = Endpoint(
                host, door.port, behaviour.model, proxy.CLIENT_KEY, Trust(host, fleet.pem), timeout=PATIENCE_SECONDS
            )
            answer = client.ask(endpoint, "GET", "/v1/models", key=proxy.CLIENT_KEY)
            assert answer.status == 200 and client.certificate_left(endpoint).days > 390, (host, answer)


def test_a_certificate_without_its_key_never_becomes_a_configuration(
    fleet: authority.Authority, tmp_path: Path
) -> None:
    pair = authority.issue(fleet, ["127.0.0.1"], NOW)
    one, other, monitor = proxy.free_ports(3)
    config = proxy.configured(tmp_path, [one], [other], monitor, certificate=pair.chain)
    done = subprocess.run([proxy.program(), "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode and "door.pem" in done.stderr
