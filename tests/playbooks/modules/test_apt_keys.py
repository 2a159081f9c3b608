"""Keys of apt sources are compared with known fingerprints before a host trusts them; with keys that gpg makes."""

from __future__ import annotations

import http.server
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import openpgp
from ansible_collections.glm.fleet.plugins.modules import host_sources
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import apt_keys

ROOT = Path(__file__).parents[3]
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64"
UBUNTU = "https://download.docker.com/linux/ubuntu"
DOCKER = {"name": "glm-docker", "uris": UBUNTU, "suites": "noble", "components": ["stable"]}


@pytest.fixture
def etc_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: Callable[..., Path]) -> Path:
    """/etc/apt of a host without sources."""
    folder = tmp_path / "apt"
    (folder / "sources.list.d").mkdir(parents=True)
    monkeypatch.setattr(host_sources, "FOLDER", folder)
    fake_command("dpkg", "echo amd64")
    return folder


@dataclass(frozen=True)
class Key:
    """A vendor's key as gpg makes it: primary key, signing subkey, user id."""

    fingerprint: str
    armoured: bytes
    binary: bytes


def make_key(home: Path, kind: str) -> Key:
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
    subprocess.run([*gpg, "--quick-gen-key", "Vendor <v@example.com>", kind, "cert", "1d"], check=True)
    listed = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True).stdout
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
    subprocess.run([*gpg, "--quick-add-key", fingerprint, kind, "sign", "1d"], check=True)
    armoured, binary = (
        subprocess.run([*gpg, *form, "--export", fingerprint], check=True, capture_output=True).stdout
        for form in (["--armor"], [])
    )
    assert armoured.startswith(b"-----BEGIN PGP")
    return Key(fingerprint, armoured, binary)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Key, Key]]:
    # gpg's agent needs a short path for its socket.
    with tempfile.TemporaryDirectory(prefix="gpg-", dir="/tmp") as folder:
        homes = [Path(folder) / name for name in ("a", "b")]
        yield make_key(homes[0], "rsa2048"), make_key(homes[1], "ed25519")
        for home in homes:
            subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def test_fingerprints_are_those_that_gpg_shows(keys: tuple[Key, Key]) -> None:
    for key in keys:
        assert openpgp.fingerprints(key.armoured) == openpgp.fingerprints(key.binary) == [key.fingerprint]
    first, second = keys
    assert openpgp.fingerprints(first.armoured + second.armoured) == [first.fingerprint, second.fingerprint]
    assert openpgp.fingerprints(first.binary + second.binary) == [first.fingerprint, second.fingerprint]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no OpenPGP public key"),
        (b"<html>please log in</html>", "data that is not OpenPGP"),
        (b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", "no OpenPGP public key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n*\n-----END PGP PUBLIC KEY BLOCK-----\n", "armoured data that is"),
        (b"\x99\x01\x0d\x04abc", "OpenPGP data that breaks off"),
        (b"\xc6\xff\x00", "an OpenPGP packet without a length"),
        (b"\xc6\xe1\x00", "an OpenPGP packet without a length"),
        (b"\x9b\x04", "an OpenPGP packet without a length"),
        (b"\xc6\x02\x06x", "a public key of version 6"),
        (b"\xcb\x01x", "an OpenPGP packet of type 11"),
    ],
)
def test_what_is_no_plain_keyring_is_refused(data: bytes, found: str) -> None:
    with pytest.raises(openpgp.NoKeyring, match=found):
        openpgp.fingerprints(data)


def test_a_key_that_hides_behind_another_packet_is_found_or_refused(keys: tuple[Key, Key]) -> None:
    first, second = keys
    assert openpgp.fingerprints(first.binary + b"\xcc\x01x" + second.binary)[1] == second.fingerprint
    for between in (b"\xcb\x01x", b"\xc8\x01x", b"\xc5\x01x"):
        with pytest.raises(openpgp.NoKeyring, match="where a public key belongs"):
            openpgp.fingerprints(first.binary + between + second.binary)


@pytest.fixture
def vendor() -> Iterator[Any]:
    """A web server that gives one file."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(server.status)
            self.end_headers()
            self.wfile.write(server.content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.status, server.content = 200, b""
    server.url = f"http://127.0.0.1:{server.server_port}/key"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_key_is_compared_before_it_is_trusted(
    etc_apt: Path, run_module: Any, vendor: Any, keys: tuple[Key, Key]
) -> None:
    expected, other = keys
    spaced = " ".join(expected.fingerprint[at : at + 4].lower() for at in range(0, 40, 4))
    source = {**DOCKER, "key": vendor.url, "fingerprints": [spaced]}
    trusted = etc_apt / "keyrings" / "glm-docker.asc"

    vendor.content = other.armoured
    result = run_module(host_sources.main, sources=[source])
    assert result["failed"] and not trusted.parent.exists()
    assert f"glm-docker at {vendor.url} to have the fingerprint {expected.fingerprint}" in result["msg"]
    assert f"found one with {other.fingerprint}; it was not trusted" in result["msg"]
    # Nor when it comes along with the right one.
    vendor.content = expected.armoured + other.armoured
    assert other.fingerprint in run_module(host_sources.main, sources=[source])["msg"]
    vendor.content = b"<html>please log in</html>"
    assert "found data that is not OpenPGP" in run_module(host_sources.main, sources=[source])["msg"]
    assert not trusted.parent.exists()

    vendor.content = expected.armoured
    result = run_module(host_sources.main, check=True, sources=[source])
    assert result["changed"] is True and not trusted.parent.exists()
    result = run_module(host_sources.main, sources=[source])
    assert result["changed"] is True and result["keys"] == {"glm-docker": str(trusted)}
    assert trusted.read_bytes() == expected.armoured and trusted.stat().st_mode & 0o777 == 0o644
    assert trusted.parent.stat().st_mode & 0o777 == 0o755
    assert run_module(host_sources.main, sources=[source])["changed"] is False


def test_one_wrong_key_leaves_all_untouched(
    etc_apt: Path, run_module: Any, tmp_path: Path, keys: tuple[Key, Key]
) -> None:
    right, wrong = keys
    for name, key in (("right", right), ("wrong", wrong)):
        (tmp_path / name).write_bytes(key.binary)
    expected = {"uris": "https://example.com", "fingerprints": [right.fingerprint]}
    sources = [{**expected, "name": name, "key": str(tmp_path / name)} for name in ("right", "wrong")]
    assert run_module(host_sources.main, sources=sources)["failed"]
    assert not (etc_apt / "keyrings").exists()
    assert run_module(host_sources.main, sources=sources[:1])["keys"] == {"right": f"{etc_apt}/keyrings/right.gpg"}


def test_a_key_that_cannot_be_had_is_named(etc_apt: Path, run_module: Any, vendor: Any) -> None:
    source = {**DOCKER, "key": vendor.url, "fingerprints": ["0" * 40]}
    vendor.status = 404
    result = run_module(host_sources.main, sources=[source])
    assert f"expected the key of the apt source glm-docker at {vendor.url}, found HTTP 404" in result["msg"]
    vendor.status, vendor.content = 200, b"x" * 1_000_001
    assert "found more than 1000000 bytes" in run_module(host_sources.main, sources=[source])["msg"]
    gone = run_module(host_sources.main, sources=[{**source, "key": "http://127.0.0.1:9/key"}])
    assert "found 127.0.0.1 port 9 refuses connections" in gone["msg"]


def test_a_source_that_the_host_has_and_one_without_fingerprints_are_left_to_apt(
    etc_apt: Path, run_module: Any, vendor: Any
) -> None:
    (etc_apt / "sources.list.d" / "docker.list").write_text(f"deb {UBUNTU} noble stable\n", "utf-8")
    other = {"name": "other", "uris": "https://example.com", "key": vendor.url, "fingerprints": []}
    sources = [{**DOCKER, "key": vendor.url, "fingerprints": ["0" * 40]}, other]
    result = run_module(host_sources.main, sources=sources)
    assert result["keys"] == {} and result["changed"] is False


def test_the_catalogue_knows_the_keys_that_the_roles_add() -> None:
    docker = apt_keys.with_fingerprints([{"name": "d", "key": f"{UBUNTU}/gpg"}, {"name": "own", "key": "/srv/key.asc"}])
    assert [source["fingerprints"] for source in docker] == [["9DC858229FC7DD38854AE2D88D81803C0EBFCD88"], []]
    own = {"name": "d", "key": f"{UBUNTU}/gpg", "fingerprints": ["A" * 40]}
    assert apt_keys.with_fingerprints([own]) == [own]
    used = [
        f"{CUDA}/3bf863cc.pub", f"{CUDA.replace('ubuntu2404/x86_64', 'debian12/sbsa')}/3bf863cc.pub",
        "https://nvidia.github.io/libnvidia-container/gpgkey", f"{UBUNTU.replace('ubuntu', 'debian')}/gpg",
        "https://repo.radeon.com/rocm/rocm.gpg.key",
    ]  # fmt: skip
    named = "".join(path.read_text("utf-8") for path in (ROOT / "roles").glob("*/vars/main.yml"))
    named += (ROOT / "plugins/plugin_utils/host/rocm.py").read_text("utf-8")
    for url in used:
        assert apt_keys.with_fingerprints([{"key": url}])[0]["fingerprints"], url
        assert url.rpartition("/")[2] in named
