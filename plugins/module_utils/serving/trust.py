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

# A certificate that ends sooner fails, and one that ends soon is said: what renews it has not run. Of one that lives
# for days only, the share of its life counts.
LEAST_DAYS, LEAST_SHARE = 7.0, 1 / 6
SOON_DAYS, SOON_SHARE = 14.0, 1 / 4


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
        own = "with glm_tls own or acme look at glm_tls_ca and glm_tls_names, too"
        advice = f"run deploy.yml, which renews it; {own}"
        return f"its certificate is refused: {error.verify_message}", advice
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS", "another program has the port, or glm_tls changed: run deploy.yml"
    return f"TLS failed: {error.reason or error}", "read the journal of glm-door.service"


@dataclass(frozen=True)
class Left:
    """What is left of a certificate, and how long it lives as a whole, in days."""

    days: float
    life: float

    @property
    def too_little(self) -> bool:
        """Whether clients are about to refuse it."""
        return self.days < min(LEAST_DAYS, self.life * LEAST_SHARE)

    @property
    def late(self) -> bool:
        """Whether it should have been renewed."""
        return self.days < min(SOON_DAYS, self.life * SOON_SHARE)


def left(secured_socket: ssl.SSLSocket) -> Left:
    """What is left of the certificate that the other side has shown."""
    shown = secured_socket.getpeercert() or {}
    begins, ends = (ssl.cert_time_to_seconds(str(shown[name])) for name in ("notBefore", "notAfter"))
    return Left((ends - time.time()) / 86400, (ends - begins) / 86400)
