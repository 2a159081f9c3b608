# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an address gave no answer, in plain words.

This module util is PRIVATE to the collection. Libraries wrap the same few causes in names of their own; here they are
found again, whether urllib, requests or urllib3 raised the error.
"""

from __future__ import annotations

import errno
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Optional

_PORTS = {"http": 80, "https": 443}
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


def why(error: BaseException, url: str) -> str:
    """What was found when ``url`` was asked, without a full stop: ``the name x.example cannot be resolved``."""
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or url, parts.port or _PORTS.get(parts.scheme, 0)
    causes = list(_causes(error))
    if _is_of_proxy(causes, parts.scheme, host):
        return f"the proxy between here and {host} (HTTPS_PROXY, HTTP_PROXY) does not connect: {_of_proxy(causes[-1])}"
    return _words(causes, host, port) or str(causes[-1]) or type(causes[-1]).__name__


def check(error: BaseException, url: str, setting: str) -> str:
    """What to look at, as a sentence; ``setting`` is where ``url`` was set."""
    causes = list(_causes(error))
    parts = urllib.parse.urlsplit(url)
    if _is_of_proxy(causes, parts.scheme, parts.hostname or ""):
        return "Check these variables, and NO_PROXY."
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return (
            f"Check {setting}, the clock of this machine, its CA certificates (REQUESTS_CA_BUNDLE, SSL_CERT_FILE), and "
            "whether a proxy intercepts TLS."
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"Check the spelling of {setting}, and the DNS and network of this machine."
    return f"Check {setting}, and the network, firewall and proxy (HTTPS_PROXY) of this machine."


def _words(causes: list[BaseException], host: str, port: int) -> Optional[str]:
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"the name {host} cannot be resolved"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the TLS certificate of {host} is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"{host} port {port} does not speak TLS as expected: {cause.reason or cause}"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} port {port} refuses connections"
        if isinstance(cause, (ConnectionResetError, BrokenPipeError)):
            return f"{host} port {port} closed the connection"
        if isinstance(cause, OSError) and cause.errno in _NO_WAY:
            return f"there is no route to {host}: {cause.strerror}"
    if any(isinstance(cause, (socket.timeout, TimeoutError)) for cause in causes):
        return f"{host} port {port} did not answer in time"
    return None


def _is_of_proxy(causes: list[BaseException], scheme: str, host: str) -> bool:
    """requests says so; urllib raises the same error for a proxy as for a host."""
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        return True
    of_urllib = any(isinstance(cause, urllib.error.URLError) for cause in causes)
    beyond = any(isinstance(cause, (ssl.SSLError, urllib.error.HTTPError)) for cause in causes)
    proxied = scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
    return of_urllib and not beyond and bool(proxied)


def _of_proxy(reason: BaseException) -> str:
    known = "its name cannot be resolved" if isinstance(reason, socket.gaierror) else ""
    return known or getattr(reason, "strerror", None) or str(reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it comes from, by any of the ways in which libraries keep that; the root last."""
    seen: list[BaseException] = []
    current: Optional[BaseException] = error
    while current is not None and not any(current is known for known in seen):
        seen.append(current)
        yield current
        held = [getattr(current, "reason", None), *current.args[:1], current.__cause__, current.__context__]
        current = next(
            (item for item in held if isinstance(item, BaseException) and not any(item is old for old in seen)), None
        )
