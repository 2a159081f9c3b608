# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS as a client of an endpoint: whom it trusts, what name the endpoint must prove, and until when it can.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from functools import lru_cache

# A certificate that ends sooner fails: what renews it has not run.
LEAST_DAYS = 7.0


@dataclass(frozen=True)
class Trust:
    """``name``: DNS name or address of the certificate. ``authorities``: PEM; empty means those of the host."""

    name: str
    authorities: str = ""


@lru_cache(maxsize=4)
def _context(authorities: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authorities or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def secured(plain: socket.socket, trust: Trust) -> ssl.SSLSocket:
    """The connection with TLS. Raises ssl.SSLError, and ValueError for authorities that are no PEM."""
    try:
        return _context(trust.authorities).wrap_socket(plain, server_hostname=trust.name)
    except ssl.SSLError as exc:
        if "PEM" in str(exc) or "NO_START_LINE" in str(exc):
            raise ValueError(f"the certificate authorities to trust are no PEM: {exc.reason}") from exc
        raise


def worded(error: ssl.SSLError) -> tuple[str, str]:
    """What went wrong between the two, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        own = "for glm_tls: own look at glm_tls_certificate, glm_tls_ca and glm_tls_names"
        advice = f"run deploy.yml, which renews it; {own}"
        return f"its certificate is refused: {error.verify_message}", advice
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS", "another program has the port, or glm_tls changed: run deploy.yml"
    return f"TLS failed: {error.reason or error}", "read the journal of glm-door.service"


def days_left(secured_socket: ssl.SSLSocket) -> float:
    """Days until the certificate ends that the other side has shown."""
    shown = secured_socket.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / 86400
