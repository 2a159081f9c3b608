# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as PEM: what they are for, whether they still hold, and whether a key belongs to one.

Pure but for the reading of files. Names are DNS names or IP addresses as text; times are aware datetimes in UTC.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# ansible-core requires cryptography; ansible-test imports plugins where it is not.
with contextlib.suppress(ImportError):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


@dataclass(frozen=True)
class Pair:
    """What a server shows and what only it has: PEM of the certificate with its intermediates, and of the key."""

    chain: str
    key: str

    @property
    def together(self) -> str:
        """Both in one text, the certificate first, as HAProxy reads them."""
        return f"{self.chain.rstrip()}\n{self.key.rstrip()}\n"


def chain(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, the server's own first; empty where there is none."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return []


def first(pem: str) -> x509.Certificate | None:
    """The server's own certificate of a PEM text; None where there is none."""
    return next(iter(chain(pem)), None)


def sha256(pem: str) -> str:
    """What distinguishes the certificates of a PEM text, intermediates too, in hexadecimal digits."""
    return hashlib.sha256(b"".join(one.public_bytes(Encoding.DER) for one in chain(pem))).hexdigest()


def uncovered(certificate: x509.Certificate, names: Iterable[str]) -> list[str]:
    """Those of the names for which clients do not accept the certificate (RFC 6125: subject alternative names only)."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return list(names)
    addresses = {str(one) for one in alternative.get_values_for_type(x509.IPAddress)}
    dns = {one.lower().rstrip(".") for one in alternative.get_values_for_type(x509.DNSName)}
    return [name for name in names if not (_plain(name) in addresses or _dns_covers(dns, name))]


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return ""


def _dns_covers(patterns: set[str], name: str) -> bool:
    wanted = name.lower().rstrip(".")
    above = wanted.partition(".")[2]
    return wanted in patterns or (bool(above) and f"*.{above}" in patterns)


def check(pair: Pair, names: Sequence[str], now: datetime) -> None:
    """Refuse a pair that clients would not accept for the names. Raises Unmet."""
    certificate = first(pair.chain)
    if certificate is None:
        raise Unmet("a certificate in PEM", "none", "set glm_tls_certificate to the file with the whole chain")
    try:
        key = load_pem_private_key(pair.key.encode(), password=None)
    except TypeError as exc:
        advice = "remove the pass phrase: openssl pkey -in <file> -out <new file>"
        raise Unmet("a private key without a pass phrase", "an encrypted one", advice) from exc
    except ValueError as exc:
        raise Unmet("a private key in PEM", "none", "set glm_tls_key to the file with the certificate's key") from exc
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise Unmet(
            "the private key of the certificate",
            f"the key of another one; the certificate is for {', '.join(subjects(certificate)) or 'no name'}",
            "set glm_tls_key to the key that the certificate was requested with",
        )
    _check_times(certificate, now)
    missing = uncovered(certificate, names)
    if missing:
        raise Unmet(
            f"a certificate for {', '.join(names)}",
            f"one for {', '.join(subjects(certificate)) or 'no name'}, which clients refuse at {', '.join(missing)}",
            "request one with these subject alternative names, or set glm_tls_names to the names that clients use",
        )


def _check_times(certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        raise Unmet("a certificate that is valid", f"one that expired on {ends:%Y-%m-%d %H:%M} UTC", "renew it")
    if now < begins:
        raise Unmet(
            "a certificate that is valid",
            f"one that is valid from {begins:%Y-%m-%d %H:%M} UTC on",
            "wait until then, or set the controller's clock",
        )


def subjects(certificate: x509.Certificate) -> list[str]:
    """Names and addresses that a certificate is for."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *alternative.get_values_for_type(x509.DNSName),
        *(str(one) for one in alternative.get_values_for_type(x509.IPAddress)),
    ]


def read_authorities(path: str) -> str:
    """The certificates that clients trust, in a file of the controller. Raises Unmet."""
    try:
        return Path(path).expanduser().read_text("ascii")
    except (OSError, UnicodeDecodeError) as exc:
        advice = "run deploy.yml, which makes it, or set glm_tls_ca to the file that clients trust"
        raise Unmet(f"to read {path}", getattr(exc, "strerror", None) or "no PEM", advice) from exc


def read_own(certificate: Path, key: Path) -> Pair:
    """The pair in two files of the controller. Raises Unmet when one cannot be read, or others can read the key."""
    texts = []
    for path, option in ((certificate, "glm_tls_certificate"), (key, "glm_tls_key")):
        try:
            texts.append(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            found = getattr(exc, "strerror", None) or "no text"
            raise Unmet(f"to read {path}", found, f"set {option} to a file on the controller") from exc
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        raise Unmet(f"{key} to be its owner's only", f"mode {mode:04o}", f"chmod 600 {key}")
    return Pair(*texts)
