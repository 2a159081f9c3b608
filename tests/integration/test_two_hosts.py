"""One replica over two hosts that boot systemd: its ranks start together, and end together when one is lost.

The engine is the toy, on the hosts themselves; what engines say to each other (NCCL, Gloo) is not rehearsed. The tests
build on one another.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import whoami
from simulator.hosts import images
from simulator.hosts.accelerators import declare
from simulator.hosts.machines import HostRequest, Machines
from simulator.settings import Settings
from tests.integration.logins import wait_for, wait_for_login
from tests.integration.toy import toy_files
from tests.patience import PATIENCE_SECONDS
from tests.unit.serve.plans import nodes, venv

pytestmark = pytest.mark.podman

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
HEAD, WORKER = HOSTS = ("gpu-1", "gpu-2")
UNIT = "glm-serve-0.service"
PROGRAM = "/opt/glm/engines/toy/bin/toy-engine"


class Pair:
    """Two hosts and the plans of their ranks."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self.machines, self.folder = machines, folder

    def on(self, host: str, *argv: str, stdin: str | None = None) -> str:
        return self.machines.execute(host, *argv, stdin=stdin)

    def show(self, host: str, name: str) -> str:
        return self.on(host, "systemctl", "show", UNIT, f"--property={name}", "--value").strip()

    def journal(self, host: str) -> str:
        return self.on(host, "journalctl", "-u", UNIT, "-o", "cat")

    def command(self, book: Path, *arguments: str) -> list[str]:
        return ["ansible-playbook", "-i", str(self.folder / "hosts.yml"), str(book), "-e", "glm_hosts=gpu", *arguments]

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(HERE / "serve/serve.yml", *arguments)
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        print(done.stdout, done.stderr)
        return done

    def until(self, what: str, *states: tuple[str, str, str]) -> None:
        """Wait until each (host, property, value) holds."""
        wait_for(
            what,
            lambda: all(self.show(host, name) == value for host, name, value in states),
            lambda: [self.journal(host)[-2000:] for host in HOSTS],
        )

    def started_anew(self, before: dict[str, str]) -> None:
        """Wait until each host serves in another start than the one before."""
        wait_for(
            "a new start on both hosts",
            lambda: all(
                self.show(host, "ActiveState") == "active" and self.show(host, "InvocationID") not in ("", before[host])
                for host in HOSTS
            ),
            lambda: [self.journal(host)[-2000:] for host in HOSTS],
        )


def rank_plan(rank: int, addresses: list[str]) -> dict[str, Any]:
    own, head = addresses[rank], addresses[0]
    made = nodes(venv(), rank)
    made["node"].update(head_address=head, addresses=addresses, port=29501)
    made["runtime"]["path"] = PROGRAM.removesuffix("/bin/toy-engine")
    made["listen"]["address"] = own
    made["timeouts"] = {"start_seconds": 600, "stop_seconds": 300, "drain_seconds": 240, "phases": {}}
    made["command"] = [PROGRAM, "--rank", str(rank)]
    made["env"] = {"TOY_ADDRESS": "127.0.0.1", "TOY_PORT": "18000", **({"TOY_MODE": "worker"} if rank else {})}
    return made


def prepare(pair: Pair, host: str, made: dict[str, Any]) -> None:
    """What the role engine_venv would have made."""
    wait_for_login(pair.machines, host)
    pair.on(host, "useradd", "--system", "glm")
    revision, repository = made["model"]["revision"], made["model"]["repository"].replace("/", "--")
    snapshot = f"/var/lib/glm/huggingface/hub/models--{repository}/snapshots/{revision}"
    drop_in = "/etc/systemd/system/glm-serve-.service.d"
    pair.on(host, "mkdir", "-p", snapshot, drop_in, f"{Path(PROGRAM).parent}/fake")
    pair.on(host, "tee", f"{drop_in}/limits.conf", stdin="[Service]\nLimitMEMLOCK=\nLimitSTACK=\n")
    for path, text in toy_files().items():
        pair.on(host, "tee", f"{Path(PROGRAM).parent}/{path}", stdin=text)
    pair.on(host, "tee", PROGRAM, stdin='#!/bin/sh\nexec python3 "${0%/*}/toy_engine.py" "$@"\n')
    pair.on(host, "chmod", "+x", PROGRAM)
    pair.on(host, "tee", f"{made['runtime']['path']}/.glm.json", stdin="{}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    settings = Settings.from_environment().with_state_dir(folder / "rehearsal")
    machines = Machines(settings)
    image = images.ensure_image(settings, machines.podman, "gpu-base")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text(encoding="utf-8").strip()
    made = Pair(machines, folder)
    try:
        booted = {}
        for host in HOSTS:
            data = {"instance-id": host, "local-hostname": host, "public-keys": [public]}
            seed = {"meta-data": json.dumps(data), "user-data": "#cloud-config\n{}\n"}
            booted[host] = machines.create(HostRequest(host, image, host, "manual", seed, declare("B200", 8, 192)))
        entries = {}
        for rank, host in enumerate(HOSTS):
            plan = rank_plan(rank, [booted[name].private_ip for name in HOSTS])
            prepare(made, host, plan)
            options = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
            login = {"ansible_host": booted[host].ip, "ansible_user": "ubuntu", "ansible_ssh_common_args": options}
            entries[host] = {**login, "serve_plans": [plan], "door_plans": [plan], "verify_plans": [plan]}
        common = {"glm_state_dir": str(folder / "state"), "serve_poll_seconds": 1}
        inventory = {"all": {"vars": common, "children": {"gpu": {"hosts": entries}}}}
        (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        yield made
    finally:
        machines.remove_all(["manual"])


def test_of_two_runs_at_once_one_goes_on_and_the_other_names_it(pair: Pair) -> None:
    book = pair.folder / "hold.yml"
    tasks = [
        {"name": "Hold", "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/hold.yml"), "become": True},
        {"name": "Work", "ansible.builtin.wait_for": {"path": "/tmp/go-on", "timeout": PATIENCE_SECONDS}},
        {"name": "Still", "ansible.builtin.import_tasks": str(ROOT / "playbooks/tasks/hold.yml"), "become": True},
    ]
    release = {"name": "Free", "ansible.builtin.import_playbook": str(ROOT / "playbooks/free_hosts.yml")}
    work = {"name": "Work", "hosts": "gpu", "gather_facts": False, "tasks": tasks}
    book.write_text(json.dumps([work, release]), encoding="utf-8")
    first = subprocess.Popen(pair.command(book), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    record = "/run/glm/lease.json"
    wait_for("the first run", lambda: all(pair.on(host, "sh", "-c", f"ls {record} || true") for host in HOSTS))
    refused = subprocess.run(
        pair.command(book, "--limit", "gpu-2"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    held = json.loads(pair.on(WORKER, "cat", record))
    named = f"found {whoami.user_at_machine()} with hold.yml since {held['since']}"
    assert refused.returncode != 0 and named in " ".join(refused.stdout.split()), refused.stdout
    for host in HOSTS:
        assert pair.on(host, "stat", "--format=%a %U", "/run/glm", record).split() == ["755", "root", "600", "root"]
        pair.on(host, "touch", "/tmp/go-on")
    output, _none = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 0, output
    records = [json.loads(pair.on(host, "cat", record)) for host in HOSTS]
    assert [(found["run"], bool(found["released"])) for found in records] == [(held["run"], True)] * 2


def test_the_replica_serves_once_both_ranks_are_there(pair: Pair) -> None:
    done = pair.deploy()
    assert done.returncode == 0, done.stdout
    assert re.search(r"^gpu-1 +http://\S+:8000/v1 .* ok +(\d\d)/\1 ", done.stdout, re.M)
    assert re.search(r"^gpu-2 .* worker +(\d)/\1 ", done.stdout, re.M)
    for host in HOSTS:
        journal = pair.journal(host)
        assert journal.index("all 2 ranks are there") < journal.index("argv "), "no engine before all are there"


def test_the_ranks_talk_over_the_network_they_share(pair: Pair) -> None:
    for host in HOSTS:
        said = json.loads(re.findall(r"^environ (.*)$", pair.journal(host), re.M)[-1])
        assert (said["NCCL_SOCKET_IFNAME"], said["GLOO_SOCKET_IFNAME"]) == ("eth1", "eth1")


def test_a_second_run_changes_nothing(pair: Pair) -> None:
    before = [pair.show(host, "InvocationID") for host in HOSTS]
    done = pair.deploy()
    assert done.returncode == 0 and re.findall(r"changed=(\d+)", done.stdout) == ["0"] * 3, done.stdout
    assert [pair.show(host, "InvocationID") for host in HOSTS] == before


@pytest.mark.parametrize("lost", HOSTS)
def test_a_rank_that_dies_takes_the_other_along_and_both_come_back(pair: Pair, lost: str) -> None:
    for host in HOSTS:
        pair.on(host, "systemctl", "reset-failed", UNIT)
    before = {host: pair.show(host, "InvocationID") for host in HOSTS}
    pair.on(lost, "systemctl", "kill", "--signal=KILL", UNIT)
    pair.until("killed", *((host, "NRestarts", "1") for host in HOSTS))
    pair.until("back", *((host, "ActiveState", "active") for host in HOSTS))
    assert all(pair.show(host, "InvocationID") != before[host] for host in HOSTS)
    other = HOSTS[1 - HOSTS.index(lost)]
    assert f"rank {HOSTS.index(lost)} is gone" in pair.journal(other)


def test_a_host_that_boots_again_finds_its_replica(pair: Pair) -> None:
    for host in HOSTS:
        pair.on(host, "systemctl", "reset-failed", UNIT)
    before = {host: pair.show(host, "InvocationID") for host in HOSTS}
    pair.machines.restart(WORKER)
    # The other one may not have noticed yet, and the one that boots may not even answer.
    pair.started_anew(before)
    wait_for_login(pair.machines, WORKER)
    assert pair.deploy("--tags", "verify").returncode == 0
