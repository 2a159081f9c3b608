# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of hosts as they stand in URLs and beside ports.

This module util is PRIVATE to the collection. An address is an IPv4 or IPv6 address as text, an IPv6 one also with a
zone (fe80::1%eth0); a host is an address or a name.
"""

from __future__ import annotations

import ipaddress


def bracketed(host: str) -> str:
    """A host as it stands before ``:port``: IPv6 addresses in brackets, names and what has brackets as they are."""
    return f"[{host}]" if _is_ipv6(host) else host


def url(host: str, port: int, path: str = "") -> str:
    """An http URL of a host; ``path`` begins with a slash."""
    return f"http://{bracketed(host)}:{port}{path}"


def is_wildcard(address: str) -> bool:
    """Whether the address means every address of a host. Raises ValueError when it is none."""
    return ipaddress.ip_address(address).is_unspecified


def from_itself(address: str) -> str:
    """Where a host reaches what listens on ``address`` on it. Raises ValueError when it is no address."""
    if is_wildcard(address):
        return "::1" if _is_ipv6(address) else "127.0.0.1"
    return address


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
