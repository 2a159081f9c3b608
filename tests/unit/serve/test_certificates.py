"""The fleet's certificate authority and what is asked of certificates, read with OpenSSL's own verification."""

from __future__ import annotations

import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority, certificate
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import Pair

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
NAMES = ["10.0.0.5", "glm.example.com", "2001:db8::5"]


def made(folder: Path, now: datetime = NOW) -> authority.Authority:
    return authority.read_or_make(folder, "blue", now)


def shaken(server: Pair, ca: str, name: str, folder: Path) -> str:
    """What a strict client says in a handshake with a server that has the pair; empty when it accepts it."""
    file = folder / "server.pem"
    file.write_text(server.together)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    asking = ssl.create_default_context(cadata=ca)
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=name)
    other = serving.wrap_bio(to_server, to_client, server_side=True)
    for _step in range(8):
        for side in (client, other):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


def test_the_authority_is_made_once_and_its_key_stays_private(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        all_made = list(pool.map(lambda _one: made(tmp_path).pem, range(8)))
    assert len(set(all_made)) == 1
    assert stat.S_IMODE((tmp_path / "authority.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in (tmp_path / "ca.pem").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority.pem", "ca.pem"]


@pytest.mark.parametrize("name", NAMES)
def test_strict_clients_accept_what_it_issues_for_each_name(tmp_path: Path, name: str) -> None:
    now = datetime.now(timezone.utc)
    issuer = made(tmp_path, now)
    assert shaken(authority.issue(issuer, NAMES, now), issuer.pem, name, tmp_path) == ""


def test_strict_clients_refuse_it_for_another_name_and_another_authority(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc)
    issuer, other = made(tmp_path / "one", now), made(tmp_path / "other", now)
    pair = authority.issue(issuer, NAMES, now)
    assert "mismatch" in shaken(pair, issuer.pem, "10.0.0.6", tmp_path)
    assert "issuer" in shaken(pair, other.pem, "10.0.0.5", tmp_path)


def test_a_certificate_is_renewed_when_it_has_to_be(tmp_path: Path) -> None:
    issuer = made(tmp_path / "one")
    shown = authority.issue(issuer, NAMES, NOW).chain
    assert authority.why_due(shown, issuer, NAMES, NOW) == ""
    assert authority.why_due(shown, issuer, [*reversed(NAMES)], NOW + timedelta(days=260)) == ""
    assert "ends on 2027-12-31" in authority.why_due(shown, issuer, NAMES, NOW + timedelta(days=270))
    assert "expired" in authority.why_due(shown, issuer, NAMES, NOW + timedelta(days=398))
    assert "is for glm.example.com" in authority.why_due(shown, issuer, NAMES[:1], NOW)
    assert "another authority" in authority.why_due(shown, made(tmp_path / "other"), NAMES, NOW)
    assert "no certificate" in authority.why_due("", issuer, NAMES, NOW)
    assert "no certificate" in authority.why_due("-----BEGIN CERTIFICATE-----\nx\n", issuer, NAMES, NOW)


def test_an_authority_that_others_can_read_or_that_ends_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(Unmet, match=r"outlives.*2036-11-26.*move"):
        made(tmp_path, NOW + timedelta(days=3300))
    (tmp_path / "authority.pem").chmod(0o640)
    with pytest.raises(Unmet, match="0640"):
        made(tmp_path)
    (tmp_path / "authority.pem").chmod(0o600)
    (tmp_path / "authority.pem").write_text("half")
    with pytest.raises(Unmet, match="something else"):
        made(tmp_path)


def test_names_that_no_certificate_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unmet, match="IDNA"):
        authority.issue(made(tmp_path), ["bücher.example"], NOW)


def own(folder: Path, names: list[str] | None = None) -> Pair:
    return authority.issue(made(folder), names or ["*.example.com", "10.0.0.5"], NOW)


@pytest.mark.parametrize("names", [["10.0.0.5"], ["a.example.com"], ["A.Example.com.", "10.0.0.5"]])
def test_an_own_certificate_is_good_for_its_names(tmp_path: Path, names: list[str]) -> None:
    certificate.check(own(tmp_path), names, NOW)


@pytest.mark.parametrize("name", ["example.com", "a.b.example.com", "10.0.0.6", "example.org", "com"])
def test_an_own_certificate_for_other_names_is_refused_with_them(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unmet, match=r"\*\.example\.com, 10\.0\.0\.5") as refused:
        certificate.check(own(tmp_path), ["10.0.0.5", name], NOW)
    assert f"refuse at {name}" in str(refused.value)


def test_an_own_certificate_out_of_its_time_is_refused(tmp_path: Path) -> None:
    for when, expected in ((timedelta(days=500), "expired on 2027-12-31"), (timedelta(days=-1), "valid from")):
        with pytest.raises(Unmet, match=expected):
            certificate.check(own(tmp_path), ["10.0.0.5"], NOW + when)


def test_an_expired_issuer_in_a_chain_is_named_with_what_can_be_left_out(tmp_path: Path) -> None:
    pair, issuer = own(tmp_path), made(tmp_path)
    old = authority.read_or_make(tmp_path / "old", "old", NOW - timedelta(days=10000))
    with pytest.raises(Unmet, match=r"found number 3 of 3 \(CN=.*old.*\), which expired on 20") as refused:
        certificate.check(Pair(pair.chain + issuer.pem + old.pem, pair.key), ["10.0.0.5"], NOW)
    assert "leave number 3 and what is below it out of glm_tls_certificate" in refused.value.next_step


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one, other = own(tmp_path), own(tmp_path)
    with pytest.raises(Unmet, match="the key of another one"):
        certificate.check(Pair(one.chain, other.key), ["10.0.0.5"], NOW)


def test_a_key_with_a_pass_phrase_is_refused_with_the_command_that_removes_it(tmp_path: Path) -> None:
    issuer, pair = made(tmp_path), own(tmp_path)
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    locked = issuer.key.private_bytes(*form).decode()
    with pytest.raises(Unmet, match="openssl pkey"):
        certificate.check(Pair(pair.chain, locked), ["10.0.0.5"], NOW)


@pytest.mark.parametrize("broken", ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_pem_is_refused(tmp_path: Path, broken: str) -> None:
    pair = own(tmp_path)
    with pytest.raises(Unmet, match="glm_tls_certificate"):
        certificate.check(Pair(broken, pair.key), ["10.0.0.5"], NOW)
    with pytest.raises(Unmet, match="glm_tls_key"):
        certificate.check(Pair(pair.chain, broken), ["10.0.0.5"], NOW)


def test_a_certificate_without_alternative_names_covers_nothing(tmp_path: Path) -> None:
    issuer = made(tmp_path)
    assert certificate.uncovered(issuer.certificate, ["a"]) == ["a"]
    assert isinstance(issuer.certificate, x509.Certificate)


def test_own_files_must_be_there_and_the_key_private(tmp_path: Path) -> None:
    pair = own(tmp_path)
    chain, key = tmp_path / "host.crt", tmp_path / "host.key"
    with pytest.raises(Unmet, match="glm_tls_certificate"):
        certificate.read_own(chain, key)
    chain.write_text(pair.chain)
    with pytest.raises(Unmet, match="glm_tls_key"):
        certificate.read_own(chain, key)
    key.write_text(pair.key)
    key.chmod(0o644)
    with pytest.raises(Unmet, match="chmod 600"):
        certificate.read_own(chain, key)
    key.chmod(0o600)
    assert certificate.read_own(chain, key) == pair
