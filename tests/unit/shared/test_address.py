"""Addresses in URLs and beside ports."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import address


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("fd00::5", "[fd00::5]"),
        ("::", "[::]"),
        ("::ffff:10.0.0.5", "[::ffff:10.0.0.5]"),
        ("fe80::1%eth0", "[fe80::1%eth0]"),
        ("[fd00::5]", "[fd00::5]"),
        ("gpu-1.example.com", "gpu-1.example.com"),
        ("HEAD", "HEAD"),
        ("", ""),
    ],
)
def test_only_ipv6_addresses_get_brackets(host: str, shown: str) -> None:
    assert address.bracketed(host) == shown


def test_urls() -> None:
    assert address.url("fd00::5", 8000, "/v1") == "http://[fd00::5]:8000/v1"
    assert address.url("gpu-1", 8000) == "http://gpu-1:8000"


@pytest.mark.parametrize(
    ("listens", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.1", "127.0.0.1"), ("fe80::1%eth0", "fe80::1%eth0")],
)
def test_a_host_reaches_a_wildcard_by_its_loopback(listens: str, reached: str) -> None:
    assert address.from_itself(listens) == reached


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("https://hub.example.com", False),
        ("https://10.0.0.5:8080/x", False),
        ("http://127.0.0.1:8430", False),
        ("http://localhost:8430/api", False),
        ("http://[::1]:8430", False),
        ("http://127.9.9.9", False),
        ("http://hub.example.com", True),
        ("http://10.0.0.5:8080", True),
        ("http://[fd00::5]", True),
        ("http://0.0.0.0", True),
        ("http://127.0.0.1.example.com", True),
        ("http://localhost.example.com", True),
        ("http://127.0.0.1@example.com", True),
        ("HTTP://example.com", True),
        ("HTTPS://example.com", False),
        ("ftp://example.com", True),
        ("", True),
    ],
)
def test_what_crosses_a_network_unencrypted(url: str, clear: bool) -> None:
    assert address.in_clear(url) is clear


@pytest.mark.parametrize("text", ["lan", "", "[::]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        address.from_itself(text)
    with pytest.raises(ValueError, match="does not appear to be"):
        address.is_wildcard(text)
