"""The proxies of a host, and whom it trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import outside as of_host
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.host import outside

PROXY = "http://proxy.example.com:3128"


def test_without_a_proxy_there_is_no_environment() -> None:
    assert outside.environment("", [".example.com"], ["10.0.0.5"]) == {}


def test_both_spellings_are_given_and_the_host_itself_is_reached_without_it() -> None:
    made = outside.environment(PROXY, [".example.com", "10.0.0.5"], ["10.0.0.5", "203.0.113.9"])
    beside = "localhost,127.0.0.1,::1,10.0.0.5,203.0.113.9,.example.com"
    assert made == {
        "http_proxy": PROXY, "https_proxy": PROXY, "no_proxy": beside,
        "HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": beside,
    }  # fmt: skip
    assert of_host.proxies({**made, "PATH": "/bin"}) == made


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("proxy.example.com:3128", "found 'proxy.example.com:3128'"),
        ("http://proxy.example.com", "to be the address of a proxy"),
        ("http://proxy.example.com:port", "to be the address of a proxy"),
        ("http://proxy.example.com:3128/path", "to be the address of a proxy"),
        ("socks5://proxy.example.com:1080", "to be the address of a proxy"),
        ("http://user:secret@proxy.example.com:3128", "every user of a host could read"),
        ("http://user@proxy.example.com:3128", "every user of a host could read"),
        ("user:secret@proxy.example.com:3128", "every user of a host could read"),
        ("http://[proxy:3128", "to be the address of a proxy"),
        ("http://proxy.example.com:3128\n", "to be the address of a proxy"),
        ('http://proxy.example.com:3128"', "to be the address of a proxy"),
    ],
)
def test_what_is_no_proxy_or_holds_a_password_is_refused(proxy: str, words: str) -> None:
    with pytest.raises(Unmet, match="set glm_proxy to") as caught:
        outside.environment(proxy, [], [])
    assert words in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [".example.com", ["a.example.com,b.example.com"], ["a.example.com b"], ['a"'], ["a\n"]]
)
def test_what_is_no_list_of_names_is_refused(given: str | list[str]) -> None:
    with pytest.raises(Unmet, match="correct glm_no_proxy"):
        outside.environment(PROXY, given, [])


def test_programs_with_a_list_of_their_own_trust_whom_the_host_trusts(tmp_path: Path) -> None:
    assert of_host.trust(str(tmp_path / "none")) == {}
    bundle = tmp_path / "ca.crt"
    bundle.write_text("-----BEGIN CERTIFICATE-----")
    assert of_host.trust(str(bundle)) == dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), str(bundle))
