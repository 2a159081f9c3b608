"""The module door_files on this machine: certificates made, kept, renewed and replaced, and what replaces nothing."""

from __future__ import annotations

import grp
import json
import os
import socket
import stat
import subprocess
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from ansible_collections.glm.fleet.plugins.module_utils.door import maps, owned, staged
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.modules import door_files
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority, certificate
from tests.playbooks.door import proxy
from tests.playbooks.verify.fake.server import Behaviour, engine
from tests.unit.serve.render import render_host

pytestmark = pytest.mark.one_core
NAMES = ["10.0.0.5", "glm.example.com"]
NOW = datetime.now(timezone.utc)
GROUP = grp.getgrgid(os.getgid()).gr_name


class Host:
    """This machine as a host: a folder for the door's files, and a state folder of the controller."""

    def __init__(self, folder: Path, ports: Sequence[int] = (18443, 18444, 18445), key: str = proxy.ENGINE_KEY) -> None:
        self.folder, self.state = folder, folder / "tls"
        self.data = proxy.data(folder, [ports[0]], [ports[1]], ports[2])
        self.data["tls"] = {"origin": "fleet", "names": NAMES}
        self.place = {**self.data["place"], "program": proxy.program(), "group": GROUP}
        self.file, self.config = Path(self.place["certificate"]), Path(self.place["config"])
        self.file.parent.mkdir(exist_ok=True)
        Path(self.place["engine_key"]).write_text(f"{key}\n", "utf-8")
        for name in maps.NAMES:
            Path(self.data["files"][name]).touch()

    def task(self, **options: Any) -> dict[str, Any]:
        """Arguments of the module."""
        return {
            "place": self.place, "config": render_host("glm-door.cfg", door=self.data),
            "usage": render_host("glm-door-usage.lua"), "origin": "fleet", "names": NAMES,
            "authority": str(self.state), **options,
        }  # fmt: skip

    def run(self, *more: str, **options: Any) -> dict[str, Any]:
        """The task's result; ``more`` are arguments of ansible-playbook."""
        return self.run_all([self.task(**options)], *more)[0]

    def run_all(self, tasks: Sequence[dict[str, Any]], *more: str) -> list[dict[str, Any]]:
        """The results of several tasks of one playbook; one that fails does not end it."""
        steps: list[dict[str, Any]] = []
        for number, task in enumerate(tasks):
            steps.append({"glm.fleet.door_files": task, "ignore_errors": True, "register": f"result_{number}"})
        found = "{{ [" + ", ".join(f"result_{number}" for number in range(len(tasks))) + "] }}"
        kept = self.folder / "results.json"
        copied = {"content": found, "dest": str(kept), "mode": "0600"}
        steps.append({"ansible.builtin.copy": copied, "check_mode": False, "diff": False})
        play = self.folder / "play.json"
        play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": steps}]), "utf-8")
        done = subprocess.run(
            ["ansible-playbook", str(play), *more], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout + done.stderr and proxy.ENGINE_KEY not in done.stdout + done.stderr
        answers: list[dict[str, Any]] = json.loads(kept.read_text("utf-8"))
        return answers


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_certificate_is_made_once_and_renewed_when_its_names_change(host: Host) -> None:
    before = host.run("--check", "--diff")
    assert before["changed"] and before["reason"] == "the fleet has no authority yet"
    assert not host.file.exists() and not host.config.exists() and not host.state.exists()
    first = host.run()
    assert (first["changed"], first["reason"]) == (True, "it has no certificate")
    drains = str(host.config.parent / "drain.map")
    assert first["written"] == [drains, host.place["usage"], host.place["certificate"], host.place["config"]]
    assert {stat.S_IMODE(Path(path).stat().st_mode) for path in first["written"]} == {0o640}
    held = certificate.first(host.file.read_text())
    assert held and certificate.subjects(held) == ["glm.example.com", "10.0.0.5"]
    assert first["ends"] == f"{held.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    text, content = host.config.read_text(), host.file.read_text()
    assert f"Bearer {proxy.ENGINE_KEY}" in text and f"ENDS {int(held.not_valid_after_utc.timestamp())}\n" in text
    fewer = {"names": ["10.0.0.5"]}
    again, checked, third = host.run_all([host.task(), {**host.task(**fewer)}, host.task()], "--check")
    assert not again["changed"] and checked["changed"] and not third["changed"] and host.file.read_text() == content
    host.config.chmod(0o644)
    closed, again, renewed = host.run_all([host.task(), host.task(), host.task(**fewer)])
    assert closed["written"] == [str(host.config)] and stat.S_IMODE(host.config.stat().st_mode) == 0o640
    assert not again["changed"] and renewed["reason"] == "its certificate is for glm.example.com, 10.0.0.5"
    assert host.config.read_text() != text, "the running door is asked for a checksum that covers the certificate"


def test_one_that_ends_soon_is_renewed(host: Host) -> None:
    signer = authority.read_or_make(host.state, "blue", NOW)
    host.file.write_text(authority.issue(signer, NAMES, NOW - timedelta(days=300)).together)
    first, again = host.run_all([host.task(), host.task()])
    assert "ends on" in first["reason"] and not again["changed"]


def test_a_host_whose_certificate_is_ordered_begins_with_one_of_the_fleet_and_keeps_any_other(host: Host) -> None:
    first, again = host.run_all([host.task(origin="acme"), host.task(origin="acme")])
    assert first["reason"] == "it has no certificate" and not again["changed"]
    stranger = authority.read_or_make(host.folder / "other", "letsencrypt", NOW)
    host.file.write_text(authority.issue(stranger, NAMES, NOW).together)
    kept = host.file.read_text()
    assert host.run(origin="acme")["reason"] == "" and host.file.read_text() == kept


def test_nobody_writes_while_another_run_or_the_timer_does(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned, "LOCK_SECONDS", 0)
    task = {**host.task(), "content": None, "unit": "glm-door.service", "listen": []}
    with owned.alone(host.file.parent), pytest.raises(Unmet, match="other runs to end with the door's files"):
        door_files.written(task, check_mode=False)
    assert not host.config.exists()


def test_an_own_certificate_is_copied_with_its_intermediates(host: Host, tmp_path: Path) -> None:
    signer = authority.read_or_make(tmp_path / "company", "company", NOW)
    pair = authority.issue(signer, ["*.example.com"], NOW)
    own = written(tmp_path, pair.chain + signer.pem, pair.key)
    own["names"] = ["glm.example.com", "10.0.0.5"]
    first, again, other = host.run_all(
        [host.task(**own), host.task(**own), host.task(**{**own, "names": ["10.0.0.5"]})]
    )
    assert first["changed"] and not again["changed"]
    assert host.file.read_text() == certificate.Pair(pair.chain + signer.pem, pair.key).together
    assert "glm_tls_names" in other["msg"]


def written(folder: Path, chain: str | None, key: str, mode: int = 0o600) -> dict[str, Any]:
    """A certificate and its key as files of the controller, as options of the module."""
    folder.mkdir(parents=True, exist_ok=True)
    if chain is not None:
        (folder / "own.crt").write_text(chain)
    (folder / "own.key").write_text(key)
    (folder / "own.key").chmod(mode)
    return {"origin": "own", "certificate": str(folder / "own.crt"), "key": str(folder / "own.key")}


def bad_inputs(folder: Path, signer: authority.Authority) -> dict[str, tuple[dict[str, Any], str]]:
    """What cannot become a door's certificate, each with words of the error."""
    pair, other = (authority.issue(signer, ["127.0.0.1"], NOW) for _number in range(2))
    old = authority.issue(signer, ["127.0.0.1"], NOW - timedelta(days=500))
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    locked = signer.key.private_bytes(*form).decode()
    whole = pair.chain + signer.pem
    return {
        "missing": (written(folder / "a", None, pair.key), "own.crt, found no such file"),
        "expired": (written(folder / "b", old.chain, old.key), "found one that expired on"),
        "wrong pair": (written(folder / "c", whole, other.key), "found the key of another one"),
        "open key": (written(folder / "d", whole, pair.key, 0o644), "found mode 0644. Next: chmod 600"),
        "locked key": (written(folder / "e", whole, locked), "found an encrypted one. Next: remove the pass phrase"),
        "wrong order": (written(folder / "f", signer.pem + pair.chain, pair.key), "own certificate first, found it as"),
        "strange issuer": (
            written(folder / "g", pair.chain + authority.read_or_make(folder / "s", "s", NOW).pem, pair.key),
            "certificate 1 of 2 to be issued by the one below it",
        ),
        "not both": ({"origin": "own"}, "set glm_tls_certificate and glm_tls_key"),
        "no name": ({"names": [""]}, "glm_tls_names"),
        "no authority": ({"authority": ""}, "the folder of the fleet's authority"),
    }


def test_what_is_bad_leaves_a_running_door_and_its_files_as_they_are(tmp_path: Path) -> None:
    signer = authority.read_or_make(tmp_path / "company", "company", NOW)
    shown = authority.issue(signer, ["127.0.0.1"], NOW)
    behaviour = Behaviour(key=proxy.ENGINE_KEY)
    with engine(behaviour) as (_chosen, port), proxy.running(tmp_path, port, certificate=shown.together) as door:
        host = Host(tmp_path, [door.port, port, door.monitor])
        before = {path: path.read_bytes() for path in (tmp_path / "door").iterdir()}
        cases = bad_inputs(tmp_path / "own", signer)
        valid = written(tmp_path / "own/valid", shown.chain, shown.key)
        config = render_host("glm-door.cfg", door=host.data)
        broken = {**valid, "config": config.replace('"Bearer', 'nonsense "Bearer')}
        taken = {**valid, "listen": [{"address": "127.0.0.1", "port": door.port, "variable": "glm_port"}]}
        group = {**valid, "place": {**host.place, "group": "no-such-group"}}
        cases |= {
            "bad configuration": (broken, "expected HAProxy to accept"),
            "port in use": (taken, f"127.0.0.1 port {door.port} to be free, found process"),
            "no group": (group, "glm.fleet.door"),
        }
        tasks = [{**host.task(names=["127.0.0.1"]), **options} for options, _words in cases.values()]
        answers = host.run_all(tasks)
        for (name, (_options, words)), answer in zip(cases.items(), answers, strict=True):
            assert answer["failed"] and words in answer["msg"], (name, answer)
            assert answer["msg"].startswith("localhost, door: ") and "Next: " in answer["msg"], (name, answer)
        named = dict(zip(cases, answers, strict=True))["bad configuration"]["msg"]
        assert f"{host.config}:" in named and "the running door and its files were not changed" in named
        assert before == {path: path.read_bytes() for path in (tmp_path / "door").iterdir()}
        assert staged.unserved(str(tmp_path / "master.sock"), host.config) == ""


def test_haproxy_checks_a_pair_that_nobody_looked_at(tmp_path: Path) -> None:
    host = Host(tmp_path)
    signer = authority.read_or_make(tmp_path / "company", "company", NOW)
    pair, other = (authority.issue(signer, ["127.0.0.1"], NOW) for _number in range(2))
    place = staged.place_of(host.place)
    config, usage = render_host("glm-door.cfg", door=host.data), render_host("glm-door-usage.lua")
    staged.Files(place, config, usage, pair.together).check()
    for bad in (pair.chain, pair.chain + other.key, "nothing\n"):
        with pytest.raises(
            staged.Unmet, match=r"door/door\.pem.*were not changed\. Next: give the host another"
        ) as said:
            staged.Files(place, config, usage, bad).check()
        assert proxy.ENGINE_KEY not in str(said.value) and ".checked-" not in str(said.value)
    assert not host.file.exists() and not list(host.file.parent.glob(".checked-*"))


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_host_without_the_engines_key_gets_no_door(tmp_path: Path, check_mode: bool) -> None:
    host = Host(tmp_path, key="")
    given = {**host.task(), "unit": "glm-door.service", "listen": [], "content": None}
    with pytest.raises(staged.Unmet, match=r"the key that engines know .*, found none\. Next: .*glm\.fleet\.serve"):
        door_files.written(given, check_mode)
    assert not host.config.exists()


def test_a_port_that_somebody_has_is_refused_to_a_gateway_by_its_name_and_nothing_is_written(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = [{"address": "127.0.0.1", "port": port, "variable": "glm_gateway_port"}]
        refused = host.run(unit="glm-gateway.service", listen=listen)
    assert refused["failed"] and refused["phase"] == "gateway" and "door" not in refused["msg"].partition(":")[0]
    assert f"gateway: expected 127.0.0.1 port {port} to be free, found process {os.getpid()} " in refused["msg"]
    assert "or choose another glm_gateway_port" in refused["msg"] and not host.config.exists()
