"""The gate over TLS: real certificates, good ones and each kind of a bad one, before the fake endpoint."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import client
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import Gate, made
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Left, Trust
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.verify.asking import asked_of, failed
from tests.playbooks.verify.fake.server import Behaviour, engine

pytestmark = pytest.mark.one_core
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> authority.Authority:
    return authority.read_or_make(tmp_path_factory.mktemp("tls"), "blue", NOW)


@contextmanager
def serving(
    signer: authority.Authority, folder: Path, names: list[str], now: datetime = NOW
) -> Iterator[tuple[Behaviour, int]]:
    """The fake endpoint behind TLS, with a certificate that was issued at ``now``."""
    file = folder / "server.pem"
    file.write_text(authority.issue(signer, names, now).together)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with engine(tls=context) as (behaviour, port):
        yield behaviour, port


def contract(behaviour: Behaviour, port: int, trust: Trust | None) -> dict[str, dict[str, object]]:
    asked = asked_of(behaviour, port, tls=trust, groups=("contract",))
    return {one["check"]: dict(one) for one in made(Gate(asked))}


def test_the_whole_gate_passes_over_tls(fleet: authority.Authority, tmp_path: Path) -> None:
    with serving(fleet, tmp_path, ["127.0.0.1"]) as (behaviour, port):
        findings = {
            one["check"]: dict(one) for one in made(Gate(asked_of(behaviour, port, tls=Trust("127.0.0.1", fleet.pem))))
        }
    assert failed(findings) == {} and findings["certificate"]["found"] == "ends in 397 days"


def test_the_name_counts_and_not_the_address_that_is_asked(fleet: authority.Authority, tmp_path: Path) -> None:
    with serving(fleet, tmp_path, ["glm.example.com"]) as (behaviour, port):
        assert failed(contract(behaviour, port, Trust("glm.example.com", fleet.pem))) == {}
        other = contract(behaviour, port, Trust("127.0.0.1", fleet.pem))
    assert set(failed(other)) == {"health", "certificate", "models", "key_missing", "key_wrong"}
    assert "IP address mismatch" in failed(other)["certificate"] and "glm_tls_names" in str(other["models"]["next"])


@pytest.mark.parametrize(
    ("age", "expected"), [(400, "certificate has expired"), (392, "ends in 5.0 days"), (-2, "not yet valid")]
)
def test_times_are_looked_at(fleet: authority.Authority, tmp_path: Path, age: int, expected: str) -> None:
    with serving(fleet, tmp_path, ["127.0.0.1"], NOW - timedelta(days=age)) as (behaviour, port):
        findings = contract(behaviour, port, Trust("127.0.0.1", fleet.pem))
    assert expected in failed(findings)["certificate"] and "deploy.yml" in str(findings["certificate"]["next"])


@pytest.mark.parametrize(("age", "late"), [(385, True), (380, False)])
def test_a_certificate_that_should_have_been_renewed_passes_and_is_said(
    fleet: authority.Authority, tmp_path: Path, age: int, late: bool
) -> None:
    with serving(fleet, tmp_path, ["127.0.0.1"], NOW - timedelta(days=age)) as (behaviour, port):
        gate = Gate(asked_of(behaviour, port, tls=Trust("127.0.0.1", fleet.pem), groups=("contract",)))
        findings = {one["check"]: one for one in made(gate)}
    assert findings["certificate"]["outcome"] == "passed"
    assert bool(gate.cautions) == late
    assert not late or "ends in 12.0 days and should have been renewed: run deploy.yml" in gate.cautions[0]


@pytest.mark.parametrize(
    ("days", "life", "late", "too_little"),
    [
        (20, 90, False, False), (13, 90, True, False), (6.9, 90, True, True), (2, 6, False, False),
        (1.4, 6, True, False), (0.9, 6, True, True), (0.3, 1, False, False), (0.2, 1, True, False),
        (0.1, 1, True, True),
    ],
)  # fmt: skip
def test_one_that_lives_for_days_is_judged_by_the_share_that_is_left(
    days: float, life: float, late: bool, too_little: bool
) -> None:
    assert (Left(days, life).late, Left(days, life).too_little) == (late, too_little)


def test_another_authority_is_refused(fleet: authority.Authority, tmp_path: Path) -> None:
    stranger = authority.read_or_make(tmp_path / "other", "blue", NOW)
    with serving(stranger, tmp_path, ["127.0.0.1"]) as (behaviour, port):
        ours = contract(behaviour, port, Trust("127.0.0.1", fleet.pem))
        hosts_own = contract(behaviour, port, Trust("127.0.0.1"))
    assert "its certificate is refused" in failed(ours)["certificate"]
    assert "its certificate is refused" in failed(hosts_own)["certificate"]


def test_a_plain_endpoint_is_named_as_such(fleet: authority.Authority, tmp_path: Path) -> None:
    with engine(None) as (behaviour, port):
        findings = contract(behaviour, port, Trust("127.0.0.1", fleet.pem))
    assert failed(findings)["certificate"] == "no answer: it does not speak TLS"
    with serving(fleet, tmp_path, ["127.0.0.1"]) as (behaviour, port), pytest.raises(client.NoAnswer):
        client.ask(Endpoint("127.0.0.1", port, behaviour.model, timeout=PATIENCE_SECONDS), "GET", "/health")
