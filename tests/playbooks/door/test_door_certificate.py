"""The module door_certificate on this machine: made, kept, renewed, replaced, and refused."""

from __future__ import annotations

import grp
import json
import os
import stat
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority, certificate

pytestmark = pytest.mark.one_core
NAMES = ["10.0.0.5", "glm.example.com"]
NOW = datetime.now(timezone.utc)


class Host:
    """This machine as a host: a file for the certificate, and a state folder."""

    def __init__(self, folder: Path) -> None:
        self.file, self.state = folder / "door" / "door.pem", folder / "tls"

    def run(self, *more: str, **options: Any) -> dict[str, Any]:
        """The task's result; ``more`` are arguments of ansible."""
        group = grp.getgrgid(os.getgid()).gr_name
        given = {"path": str(self.file), "names": NAMES, "authority": str(self.state), "group": group, **options}
        command = ["ansible", "localhost", "-m", "glm.fleet.door_certificate", "-a", json.dumps(given), "-o", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert "=> " in done.stdout, done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])
        return answer


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_certificate_is_made_once_and_renewed_when_its_names_change(host: Host) -> None:
    before = host.run("--check")
    assert before["changed"] and before["reason"] == "the fleet has no authority yet"
    assert not host.file.exists() and not host.state.exists()
    first = host.run()
    assert (first["changed"], first["reason"]) == (True, "it has no certificate")
    assert stat.S_IMODE(host.file.stat().st_mode) == 0o640
    held = certificate.first(host.file.read_text())
    assert held and certificate.subjects(held) == ["glm.example.com", "10.0.0.5"]
    assert first["ends"] == f"{held.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    content = host.file.read_text()
    assert not host.run()["changed"] and host.file.read_text() == content
    assert host.run("--check", names=["10.0.0.5"])["changed"] and host.file.read_text() == content
    assert host.run(names=["10.0.0.5"])["reason"] == "its certificate is for glm.example.com, 10.0.0.5"


def test_one_that_ends_soon_is_renewed(host: Host) -> None:
    signer = authority.read_or_make(host.state, "blue", NOW)
    host.file.parent.mkdir()
    host.file.write_text(authority.issue(signer, NAMES, NOW - timedelta(days=300)).together)
    assert "ends on" in host.run()["reason"]
    assert not host.run()["changed"]


def test_an_own_certificate_is_copied_and_a_wrong_pair_never_reaches_the_host(host: Host, tmp_path: Path) -> None:
    signer = authority.read_or_make(tmp_path / "company", "company", NOW)
    pair, other = (authority.issue(signer, ["*.example.com"], NOW) for _number in range(2))
    files = {"certificate": str(tmp_path / "own.crt"), "key": str(tmp_path / "own.key")}
    Path(files["certificate"]).write_text(pair.chain + signer.pem)
    Path(files["key"]).write_text(other.key)
    Path(files["key"]).chmod(0o600)
    own = {"origin": "own", "names": ["glm.example.com", "10.0.0.5"], **files}
    refused = host.run(**own)
    assert refused["msg"].startswith("localhost, door: expected the private key of the certificate")
    assert not host.file.exists()
    Path(files["key"]).write_text(pair.key)
    assert host.run(**own)["changed"] and not host.run(**own)["changed"]
    assert host.file.read_text() == certificate.Pair(pair.chain + signer.pem, pair.key).together
    assert "glm_tls_names" in host.run(**{**own, "names": ["10.0.0.5"]})["msg"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"names": [""]}, "glm_tls_names"),
        ({"group": "no-such-group"}, "glm.fleet.door"),
        ({"origin": "own"}, "glm_tls_certificate"),
        ({"authority": ""}, "authority"),
    ],
)
def test_what_is_missing_is_named(host: Host, options: dict[str, Any], expected: str) -> None:
    refused = host.run(**options)
    assert expected in refused["msg"] and refused["msg"].startswith("localhost, door: ")
