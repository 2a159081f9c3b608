# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of hosts as they stand in URLs and beside ports.

This module util is PRIVATE to the collection. An address is an IPv4 or IPv6 address as text, an IPv6 one also with a
zone (fe80::1%eth0); a host is an address or a name.
"""

from __future__ import annotations

import ipaddress
import urllib.parse

# What a router of the internet does not carry: RFC 1918, RFC 6598 (shared by a provider's customers), RFC 4193.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)

LOOPBACK = "loopback"


def bracketed(host: str) -> str:
    """A host as it stands before ``:port``: IPv6 addresses in brackets, names and what has brackets as they are."""
    return f"[{host}]" if _is_ipv6(host) else host


def url(host: str, port: int, path: str = "", scheme: str = "http") -> str:
    """A URL of a host; ``path`` begins with a slash."""
    return f"{scheme}://{bracketed(host)}:{port}{path}"


def public_because(address: str) -> str:
    """Why an address is not one of a private network, in words; empty when it is.

    Only the listed ranges count, in their own notation: what else Python calls private (documentation, benchmarks,
    6to4 of a private address) is no network that hosts are in. Link-local is refused, too: it is where clouds keep
    their metadata and machines their management controller.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "not an IP address"
    if "%" in address:
        return "an address with a zone, which means nothing on another host"
    if any(parsed.version == network.version and parsed in network for network in _PRIVATE):
        return ""
    for found, words in (
        (getattr(parsed, "ipv4_mapped", None) is not None, "an IPv4 address in IPv6 notation"),
        (parsed.is_unspecified, "every address of the host"),
        (parsed.is_loopback, LOOPBACK),
        (parsed.is_link_local, "link-local"),
        (parsed.is_multicast, "multicast"),
    ):
        if found:
            return words
    return "in no private range (10/8, 172.16/12, 192.168/16, 100.64/10, fc00::/7)"


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def in_clear(address: str) -> bool:
    """Whether a secret that is sent to this URL crosses a network unencrypted."""
    parts = urllib.parse.urlsplit(address)
    return parts.scheme != "https" and not is_loopback(parts.hostname or "")


def is_wildcard(address: str) -> bool:
    """Whether the address means every address of a host. Raises ValueError when it is none."""
    return ipaddress.ip_address(address).is_unspecified


def from_itself(address: str) -> str:
    """Where a host reaches what listens on ``address`` on it. Raises ValueError when it is no address."""
    if is_wildcard(address):
        return "::1" if _is_ipv6(address) else "127.0.0.1"
    return address


def is_address(host: str) -> bool:
    """Whether this is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
