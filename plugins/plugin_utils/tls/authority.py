# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's own certificate authority: made once on the controller, where its key stays, and what it issues.

``authority.pem`` (0600) holds its certificate and key together, so that there is never one without the other, and
``ca.pem`` is what clients are given. Certificates follow RFC 5280 as strictly as the clients of Python and Go read it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import private
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import certificate
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import Pair

# ansible-core requires cryptography; ansible-test imports plugins where it is not.
with contextlib.suppress(ImportError):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SECRET, PUBLIC = "authority.pem", "ca.pem"
AUTHORITY_DAYS = 3650
# Apple's clients accept 825 days of a private authority; a year and a month leaves room for a yearly deploy.
HOST_DAYS = 397
# Renewed when less than this share of its life is left.
RENEW_SHARE = 1 / 3
# Clocks of hosts and controllers differ.
_BACKDATED = timedelta(hours=1)


@dataclass(frozen=True)
class Authority:
    """A certificate that signs, and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate, for clients."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issued(self, other: x509.Certificate) -> bool:
        """Whether it signed another certificate."""
        try:
            other.verify_directly_issued_by(self.certificate)
        except Exception:  # cryptography has an error of its own for each way in which they do not match
            return False
        return True


def read(folder: Path) -> Authority | None:
    """The authority in a folder, None where there is none. Raises Unmet when it cannot be used."""
    path = folder / SECRET
    text = private.read(path, f"the certificate authority in {path}", "look at the file")
    if text is None:
        return None
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (TypeError, ValueError):
        key = None
    signer = certificate.first(text)
    if signer is None or not isinstance(key, ec.EllipticCurvePrivateKey):
        advice = "restore it from a backup; without it every host gets a certificate of a new authority"
        raise Unmet(f"a certificate and its EC key in {path}", "something else", advice)
    return Authority(signer, key)


def read_or_make(folder: Path, fleet: str, now: datetime) -> Authority:
    """The authority in a folder, made first if there is none. Safe when several processes ask at once. Raises Unmet."""
    found = read(folder)
    if found is None:
        files.create_text(folder / SECRET, _made(fleet, now))
        found = read(folder)
    if found is None:
        raise Unmet(f"the authority in {folder / SECRET}", "none", "it vanished while it was made: run again")
    if now + timedelta(days=HOST_DAYS) > found.certificate.not_valid_after_utc:
        raise Unmet(
            f"a certificate authority that outlives what it issues ({HOST_DAYS} days)",
            f"one that ends on {found.certificate.not_valid_after_utc:%Y-%m-%d}",
            f"move {folder / SECRET} away; the next deploy makes another one, and clients need its {PUBLIC}",
        )
    public = folder / PUBLIC
    if not public.exists() or public.read_text("utf-8") != found.pem:
        files.write_text(public, found.pem, 0o644)
    return found


def _made(fleet: str, now: datetime) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"glm.fleet {fleet}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        _begun(name, name, key.public_key(), key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(made.public_bytes(Encoding.PEM).decode(), _pem_of(key)).together


def issue(authority: Authority, names: Sequence[str], now: datetime) -> Pair:
    """A new key and a certificate for a host's names and addresses, the first of them its common name. Raises Unmet."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    made = (
        _begun(subject, authority.certificate.subject, key.public_key(), authority.key.public_key(), now, HOST_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return Pair(made.public_bytes(Encoding.PEM).decode(), _pem_of(key))


def why_due(shown: str, authority: Authority, names: Sequence[str], now: datetime) -> str:
    """Why a host needs another certificate than the one it shows, in words; empty when it does not."""
    held = certificate.first(shown)
    if held is None:
        return "it has no certificate"
    if not authority.issued(held):
        return "its certificate is another authority's"
    ends = held.not_valid_after_utc
    if now >= ends:
        return f"its certificate expired on {ends:%Y-%m-%d}"
    if (ends - now) < (ends - held.not_valid_before_utc) * RENEW_SHARE:
        return f"its certificate ends on {ends:%Y-%m-%d}"
    if set(certificate.subjects(held)) != {certificate.plain(name) for name in names}:
        return f"its certificate is for {', '.join(certificate.subjects(held))}"
    return ""


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signing: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    """What all certificates have."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing), critical=False)
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as exc:
        advice = "write glm_tls_names in ASCII (IDNA), as they stand in DNS"
        raise Unmet("names that a certificate can have", repr(name), advice) from exc
