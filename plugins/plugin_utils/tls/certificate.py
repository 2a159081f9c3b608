# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as PEM: what they are for, whether they still hold, and whether a key belongs to one.

Pure but for the reading of files. Names are DNS names or IP addresses as text; times are aware datetimes in UTC.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import private

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


def uncovered(certificate: x509.Certificate, names: Iterable[str]) -> list[str]:
    """Those of the names for which clients do not accept the certificate (RFC 6125: subject alternative names only)."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return list(names)
    addresses = {str(one) for one in alternative.get_values_for_type(x509.IPAddress)}
    dns = {one.lower().rstrip(".") for one in alternative.get_values_for_type(x509.DNSName)}
    return [name for name in names if not (plain(name) in addresses or _dns_covers(dns, name))]


def plain(name: str) -> str:
    """A name as it stands in a certificate: an address in its shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _dns_covers(patterns: set[str], name: str) -> bool:
    wanted = name.lower().rstrip(".")
    above = wanted.partition(".")[2]
    return wanted in patterns or (bool(above) and f"*.{above}" in patterns)


def check(pair: Pair, names: Sequence[str], now: datetime) -> None:
    """Refuse a pair that clients would not accept for the names. Raises Unmet."""
    shown = chain(pair.chain)
    if not shown:
        raise Unmet("a certificate in PEM", "none", "set glm_tls_certificate to the file with the whole chain")
    certificate = shown[0]
    _check_key(pair.key, shown)
    for number, one in enumerate(shown, 1):
        _check_times(one, number, len(shown), now)
    _check_order(shown)
    missing = uncovered(certificate, names)
    if missing:
        raise Unmet(
            f"a certificate for {', '.join(names)}",
            f"one for {', '.join(subjects(certificate)) or 'no name'}, which clients refuse at {', '.join(missing)}",
            "request one with these subject alternative names, or set glm_tls_names to the names that clients use",
        )


def _check_key(pem: str, shown: Sequence[x509.Certificate]) -> None:
    """Raise Unmet unless the key is that of the first certificate."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError as exc:
        advice = "remove the pass phrase: openssl pkey -in <file> -out <new file>"
        raise Unmet("a private key without a pass phrase", "an encrypted one", advice) from exc
    except ValueError as exc:
        raise Unmet("a private key in PEM", "none", "set glm_tls_key to the file with the certificate's key") from exc
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public = key.public_key().public_bytes(*form)
    its = [number for number, one in enumerate(shown, 1) if one.public_key().public_bytes(*form) == public]
    if not its:
        raise Unmet(
            "the private key of the certificate",
            f"the key of another one; the certificate is for {', '.join(subjects(shown[0])) or 'no name'}",
            "set glm_tls_key to the key that the certificate was requested with",
        )
    if its[0] > 1:
        raise Unmet("the host's own certificate first", f"it as number {its[0]} of {len(shown)}", _ORDER)


_ORDER = "write the host's own certificate first in glm_tls_certificate, and below each the one that issued it"


def _check_order(shown: Sequence[x509.Certificate]) -> None:
    """Raise Unmet unless each certificate was issued by the one below it."""
    for number, (one, issuer) in enumerate(zip(shown, shown[1:]), 1):
        try:
            one.verify_directly_issued_by(issuer)
        except Exception as exc:  # cryptography has an error of its own for each way in which they do not match
            expected = f"certificate {number} of {len(shown)} to be issued by the one below it"
            raise Unmet(expected, f"that it is another's: {one.issuer.rfc4514_string()}", _ORDER) from exc


def _check_times(certificate: x509.Certificate, number: int, count: int, now: datetime) -> None:
    """Raise Unmet unless the certificate, the ``number``-th of a chain of ``count``, is valid now."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends and number > 1:
        found = f"number {number} of {count} ({certificate.subject.rfc4514_string()})"
        raise Unmet(
            "certificates that are valid",
            f"{found}, which expired on {ends:%Y-%m-%d %H:%M} UTC",
            f"leave number {number} and what is below it out of glm_tls_certificate where clients trust the one above "
            "or its issuer; else take the chain that came with a renewed certificate",
        )
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
    return _text(
        Path(path).expanduser(), "run deploy.yml, which makes it, or set glm_tls_ca to the file that clients trust"
    )


def read_own(certificate: Path, key: Path) -> Pair:
    """The pair in two files of the controller. Raises Unmet when one cannot be read, or others can read the key."""
    own = _text(certificate, "set glm_tls_certificate to a file on the controller")
    advice = "set glm_tls_key to a file on the controller"
    secret = private.read(key, str(key), advice)
    if secret is None:
        raise Unmet(f"to read {key}", "no such file", advice)
    return Pair(own, secret)


def _text(path: Path, next_step: str) -> str:
    text = files.text_of(path, next_step=next_step)
    if text is None:
        raise Unmet(f"to read {path}", "no such file", next_step)
    return text
