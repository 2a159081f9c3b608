"""Two runs that want one host: one goes on, the other names it and changes nothing, in every playbook that may."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from tests.playbooks.fleet import ROOT, TAGS, Fleet

# Holds, works until the file is there, holds still, works, releases.
BOOK = [
    {
        "name": "Work",
        "hosts": "glm_fleet",
        "gather_facts": False,
        "tasks": [
            {"name": "Hold", "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/hold.yml")},
            {"name": "Begin", "ansible.builtin.file": {"path": "{{ work }}.begun", "state": "touch", "mode": "0600"}},
            {"name": "Go on", "ansible.builtin.wait_for": {"path": "{{ go_on }}", "timeout": 300, "sleep": 1}},
            {"name": "Still", "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/hold.yml")},
            {"name": "Serve", "ansible.builtin.file": {"path": "{{ work }}.served", "state": "touch", "mode": "0600"}},
        ],
    },
    {"name": "Free", "ansible.builtin.import_playbook": str(ROOT / "playbooks/free_hosts.yml")},
]
CHANGING = ["deploy.yml", "deploy_glm51.yml", "keys.yml", "benchmark.yml"]
# An ssh that connects and then says nothing. Ansible asks it first for what it can do.
SILENT = "#!/bin/sh\n[ $# -le 2 ] || exec sleep 40\n"


class Two:
    """Two hosts on this machine, and runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.go_on = folder / "go-on"
        self.book = folder / "work.yml"
        self.book.write_text(yaml.safe_dump(BOOK), "utf-8")
        self.hosts: dict[str, dict[str, Any]] = {name: self._host(name) for name in ("h1", "h2")}

    def _host(self, name: str) -> dict[str, Any]:
        return {
            "ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable,
            "glm_accelerator": "B200", "glm_accelerator_count": 8, "glm_private_address": "10.0.0.5",
            "__lease_path": str(self.lease(name)), "work": str(self.folder / name),
        }  # fmt: skip

    def lease(self, name: str) -> Path:
        return self.folder / name / "lease.json"

    def record(self, name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.lease(name).read_text("utf-8"))
        return found

    def seen(self, what: str) -> list[str]:
        return sorted(path.stem for path in self.folder.glob(f"*.{what}"))

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        inventory = self.folder / "hosts.yml"
        inventory.write_text(json.dumps({"all": {"children": {"glm_fleet": {"hosts": self.hosts}}}}), "utf-8")
        given = {"glm_state_dir": str(self.folder / "state"), "go_on": str(self.go_on)}
        return subprocess.Popen(
            ["ansible-playbook", playbook, "-i", str(inventory), "-e", json.dumps(given), *arguments], cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, playbook: str, *arguments: str) -> tuple[int, str]:
        return ended(self.start(playbook, *arguments))

    def working(self, *arguments: str) -> subprocess.Popen[str]:
        """A run that is in the midst of its work on the hosts."""
        wanted = self.seen("begun")
        process = self.start(str(self.book), *arguments)
        deadline = time.monotonic() + 120
        while self.seen("begun") == wanted and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _none = process.communicate(timeout=300)
    return process.returncode, " ".join(output.split())


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    yield made
    made.go_on.touch()


def test_of_two_runs_one_goes_on_and_every_other_verb_names_it_and_changes_nothing(two: Two) -> None:
    first = two.working("--limit", "h2,localhost")
    held = two.record("h2")
    named = f"h2, lease: expected no other run to be changing this host, found {whoami.user_at_machine()} with work.yml"
    for verb in CHANGING:
        # Were a deploy not refused, it would only do what is always done.
        tags = ["--tags", "dor_usage"] if verb.startswith("deploy") else []
        code, output = two.run(verb, *tags, "-e", "glm_keys_action=push")
        assert code != 0 and f"{named} since {held['since']}, last renewed {held['since']}" in output, output
        assert "take over with -e glm_unlock=true" in output
        assert two.record("h2") == held
        # What the refused run had taken is free again.
        assert two.record("h1")["playbook"] == verb and two.record("h1")["released"]
    assert not (two.folder / "state" / "api_key").exists() and not (two.folder / "state" / "keys.json").exists()
    # What has leaked cannot wait.
    code, output = two.run("keys.yml", "-e", "glm_keys_action=revoke", "-e", "glm_key_name=team-a")
    assert "h2, lease: another run changes this host" in output and "Fail for a host that another" in output, output
    assert "expected no other run" not in output and "TASK [Change the key]" in output and two.record("h2") == held
    code, output = two.run("verify.yml")
    assert "h2, lease: another run changes this host" in output and "h1, lease" not in output, output
    code, output = two.run(str(two.book), "--check")
    assert "h2, lease: another run changes this host" in output and "glm_unlock" not in output
    assert two.record("h2") == held
    two.go_on.touch()
    code, output = ended(first)
    assert code == 0 and two.seen("served") == ["h2"] and "changed=2" in output, output
    assert two.record("h2")["released"] and two.record("h2")["run"] == held["run"]


def test_a_lost_host_is_seen_before_anything_more_is_changed(two: Two) -> None:
    first = two.working()
    taken = two.start(str(two.book), "--limit", "h2,localhost", "-e", "glm_unlock=true", "-e", f"go_on={two.book}")
    code, output = ended(taken)
    assert code == 0 and two.seen("served") == ["h2"] and "h2, lease: taken over from " in output, output
    (two.folder / "h2.served").unlink()
    two.go_on.touch()
    code, output = ended(first)
    assert code != 0 and two.seen("served") == [], output
    assert (
        "h2, lease: expected this run to hold the host still, found that " in output and "and released it at" in output
    )
    assert two.record("h1")["released"], "the hosts that it still held are free"


def test_what_a_killed_run_held_its_own_controller_takes_and_another_names(two: Two) -> None:
    first = two.working()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    held = two.record("h1")
    two.go_on.touch()
    # As another controller sees it: the process may be there or not.
    elsewhere = {**held, "run": f"{'0' * 12}{held['run'][12:]}", "by": "bob@elsewhere"}
    two.lease("h1").write_text(json.dumps(elsewhere), "utf-8")
    code, output = two.run(str(two.book))
    assert code != 0 and f"found bob@elsewhere with work.yml since {held['since']}, last renewed " in output, output
    assert two.seen("served") == []
    two.lease("h1").write_text(json.dumps(held), "utf-8")
    code, output = two.run(str(two.book))
    assert code == 0 and two.seen("served") == ["h1", "h2"], output
    assert f"h1, lease: taken over from {held['by']} with work.yml since {held['since']}" in output


def test_a_host_that_does_not_answer_drops_out_and_one_that_cannot_be_held_too(two: Two) -> None:
    two.hosts["away"] = {**two.hosts["h1"], "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    two.hosts["broken"] = {**two.hosts["h1"], "__lease_path": str(two.book / "lease.json")}
    two.go_on.touch()
    code, output = two.run(str(two.book))
    assert code != 0 and two.seen("served") == ["h1", "h2"], output
    assert "broken, lease: expected to write " in output and "away: unreachable" not in two.seen("begun")


def test_a_host_that_failed_is_released_all_the_same(two: Two) -> None:
    two.go_on.touch()
    two.hosts["h2"]["work"] = str(two.folder / "none" / "h2")
    code, _output = two.run(str(two.book))
    assert code != 0 and two.record("h1")["released"] and two.record("h2")["released"]


# What ends hosts -----------------------------------------------------------------------------------------------------

ENDING: dict[str, tuple[str, dict[str, Any]]] = {
    "terminate": ("terminate.yml", {}),
    "scale": ("scale.yml", {"glm_launch_count": 1}),
    "reap": ("reap.yml", {"glm_reap_hard": True, "glm_reap_unrecorded": True}),
}


class Ending:
    """Two hosts of a simulated cloud that are this machine, and the lease of each."""

    def __init__(self, fleet: Fleet, verb: str) -> None:
        self.fleet = fleet
        self.playbook, self.variables = ENDING[verb]
        tags = {**TAGS, "glm-expires": "2026-11-01T00:00:00Z"} if verb == "reap" else TAGS
        self.ids = {}
        for number in (1, 2):
            name = f"glm-default-{number}"
            [self.ids[name]] = fleet.cloud.seed(name=name, tags=tags, status="active")
            self.connects(name, ansible_connection="local", ansible_become=False)

    def connects(self, name: str, **how: Any) -> None:
        place = self.fleet.folder / "host_vars" / f"{name}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"ansible_python_interpreter": sys.executable, **how}), "utf-8")

    def record(self, number: int) -> Path:
        return self.fleet.folder / f"glm-default-{number}" / "lease.json"

    def held_elsewhere(self, number: int) -> None:
        mine = {"run": "000000000000-1-1", "by": "bob@elsewhere", "playbook": "deploy.yml", "since": "x"}
        self.record(number).parent.mkdir()
        self.record(number).write_text(json.dumps({**mine, "renewed": "x", "released": ""}), "utf-8")

    def is_free(self, number: int) -> bool:
        return bool(json.loads(self.record(number).read_text("utf-8"))["released"])

    def run(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        path = str(self.fleet.folder / "{{ inventory_hostname }}" / "lease.json")
        given = {"glm_confirm": True, "__lease_path": path, **self.variables, **variables}
        return self.fleet.run(self.playbook, *arguments, **given)


@pytest.mark.parametrize("verb", ENDING)
def test_what_another_run_changes_is_not_ended(fleet: Fleet, verb: str) -> None:
    ending = Ending(fleet, verb)
    ending.held_elsewhere(2)
    both = ["glm-default-1", "glm-default-2"]
    code, output = ending.run("--check")
    assert code == 0 and "glm-default-2, lease: another run changes this host" in output, output
    assert "could not be read" not in output and not ending.record(1).exists()
    code, output = ending.run()
    # What is past its time ends all the same when another host is in use.
    assert code != 0 and fleet.alive() == (both[1:] if verb == "reap" else both), output
    assert "glm-default-2, lease: expected no other run to be changing this host, found bob@elsewhere" in output
    assert ("It was not terminated." if verb == "reap" else "Nothing was terminated.") in output
    assert verb == "reap" or not ending.record(1).exists() or ending.is_free(1)
    code, output = ending.run(glm_unlock=True)
    assert code == 0 and fleet.alive() == both[: ending.variables.get("glm_launch_count", 0)], output


def test_a_host_that_another_run_changes_is_not_replaced(fleet: Fleet) -> None:
    ending = Ending(fleet, "scale")
    ending.held_elsewhere(2)
    asked = [{"id": number, "reason": "its GPUs failed"} for number in ending.ids.values()]
    code, output = ending.run(glm_launch_count=2, glm_launch_replacements=2, launch_replace=asked)
    assert code != 0 and fleet.alive() == ["glm-default-1", "glm-default-2"] and ending.is_free(1), output
    assert "glm-default-2, lease: expected no other run" in output and "Nothing was terminated." in output


@pytest.mark.parametrize("verb", ENDING)
def test_hosts_that_live_on_after_a_failure_are_free(fleet: Fleet, verb: str) -> None:
    ending = Ending(fleet, verb)
    fleet.cloud.fault("error", path="terminate$", code="global/forbidden")
    code, output = ending.run()
    assert code != 0 and fleet.alive() == ["glm-default-1", "glm-default-2"], output
    assert ending.is_free(2) and (verb == "scale" or ending.is_free(1)), output


def test_a_host_whose_time_was_extended_meanwhile_is_free(fleet: Fleet) -> None:
    ending = Ending(fleet, "reap")
    book = ledger.Ledger("lambda", "default")
    account = ledger.account_of(fleet.cloud.base_url, fleet.cloud.api_key)
    known = {"fleet": "default", "account": account, "run": "r", "names": ["glm-default-1"], "launch": "x"}
    book.append(ledger.event("launched", ids=[ending.ids["glm-default-1"]], **known))
    role = fleet.folder / "reap.yml"
    given = {
        "launch_provider": "lambda", "launch_fleet": "default", "launch_end_ids": list(ending.ids.values()),
        "launch_looked_at": "2026-01-01T00:00:00Z", "launch_state_dir": str(fleet.folder / "state"),
    }  # fmt: skip
    include = {"name": "glm.fleet.launch", "tasks_from": "reap.yml"}
    task = {"name": "Reap", "ansible.builtin.include_role": include, "vars": given}
    role.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]), "utf-8")
    extend = {"name": "Extend", "glm.fleet.expiry": {"hosts": ["glm-default-1"], "hours": 2}}
    (fleet.folder / "extend.yml").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [extend]}]), "utf-8"
    )
    code, output = fleet.run(str(fleet.folder / "extend.yml"))
    assert code == 0, output
    ending.playbook = str(role)
    code, output = ending.run()
    assert code == 0 and fleet.alive() == ["glm-default-1"] and ending.is_free(1), output
    assert "kept, because a run has extended its time" in output


@pytest.mark.parametrize("how", ["away", "silent"])
def test_what_does_not_answer_can_be_ended_and_is_named(fleet: Fleet, how: str) -> None:
    ending = Ending(fleet, "terminate")
    ssh = fleet.folder / "ssh"
    ssh.write_text(SILENT, "utf-8")
    ssh.chmod(0o755)
    more = {"ansible_port": 1} if how == "away" else {"ansible_ssh_executable": str(ssh)}
    ending.connects("glm-default-1", ansible_host="127.0.0.1", ansible_connection="ssh", **more)
    code, output = ending.run()
    assert code == 0 and fleet.alive() == [], output
    assert "glm-default-1, lease: its lease could not be read, so another run may be changing it: " in output
    assert "glm-default-2, lease: " not in output


def test_what_cannot_be_held_for_another_reason_is_named_and_ended(fleet: Fleet) -> None:
    ending = Ending(fleet, "terminate")
    (fleet.folder / "glm-default-1").write_text("no folder", "utf-8")
    code, output = ending.run()
    assert code == 0 and fleet.alive() == [], output
    assert "glm-default-1, lease: its lease could not be read, so another run may be changing it: " in output
    assert "expected to write" in output
