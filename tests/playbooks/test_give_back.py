"""What a run launched and what never served is terminated, also when the run is interrupted or killed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import run_alive
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.fleet import ROOT, TAGS, Fleet


class Deploy:
    """A deploy that runs beside the test."""

    def __init__(self, account: Fleet, **asked: Any) -> None:
        given = account.variables(glm_launch=True, glm_terminate_on_failure=True, **asked)
        self.output = account.folder / "output"
        with self.output.open("w", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                account.command("deploy.yml", given), cwd=ROOT, env=account.environment(), stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def wait_for(self, what: str, condition: Any, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what} took too long\n{self.output.read_text('utf-8')}"
            time.sleep(0.1)

    def says(self, text: str) -> bool:
        return text in self.output.read_text("utf-8")


@pytest.fixture
def killed() -> Iterator[list[Deploy]]:
    running: list[Deploy] = []
    yield running
    for deploy in running:
        if deploy.process.poll() is None:
            os.killpg(deploy.process.pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.one_core)])
def test_a_run_that_dies_while_it_launches_leaves_nothing(
    fleet: Fleet,
    killed: list[Deploy],
    number: int,
) -> None:
    fleet.cloud.seed(name="glm-default-7", tags=TAGS)
    deploy = Deploy(fleet, glm_launch_count=3, glm_launch_interval=4)
    killed.append(deploy)
    deploy.wait_for("the first launch", lambda: "glm-default-1" in fleet.alive())
    os.kill(deploy.process.pid, number)
    deploy.wait_for("the end of the run", lambda: deploy.process.poll() is not None)
    deploy.wait_for("terminating", lambda: fleet.alive() == ["glm-default-7"])
    log = fleet.folder / "state" / "give_back.log"
    assert "is gone; terminating what it launched" in log.read_text("utf-8")
    if number == signal.SIGINT:
        assert deploy.says("this run leaves glm-default-1 (") and deploy.says("at 53.52 USD per hour, at most 0.")
        assert deploy.says(f"a second process terminates them, for up to 24 hours, and logs to {log}")


def test_a_run_that_is_interrupted_after_the_launch_leaves_nothing(
    fleet: Fleet,
    killed: list[Deploy],
) -> None:
    deploy = Deploy(fleet)
    killed.append(deploy)
    # The simulated instance has an address that nobody answers on. Once the worker says that it waits: a signal that it
    # got while it was forked would be lost, and its wait go on for a quarter of an hour.
    deploy.wait_for("a worker that waits", lambda: deploy.says("Wait for ssh and pin the host key, "))
    assert fleet.alive() == ["glm-default-1"]
    os.kill(deploy.process.pid, signal.SIGTERM)
    deploy.wait_for("terminating", lambda: fleet.alive() == [])


def test_a_host_that_cannot_be_reached_is_terminated(fleet: Fleet) -> None:
    book = fleet.folder / "dark.yml"
    book.write_text(
        f"""
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        __deploy_give_back: {{fleet: default, log: {fleet.folder}/log}}
- import_playbook: {ROOT}/playbooks/launch.yml
- hosts: glm_fleet
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
""",
        "utf-8",
    )
    code, output = fleet.run(str(book), glm_launch=True, ansible_ssh_extra_args="-o ConnectTimeout=1")
    assert code != 0 and "unreachable=1" in output and fleet.alive() == [], output
    assert "terminating what was launched and never served: glm-default-1" in output


LOST = """
import multiprocessing, os, signal, subprocess, sys, time
from ansible_collections.glm.fleet.plugins.callback import fleet_give_back

def work():
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    subprocess.run([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])

if __name__ == "__main__":
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    input()
    fleet_give_back._stop_workers()
    print(worker.exitcode, flush=True)
"""


@pytest.mark.one_core
def test_an_interrupted_run_ends_also_the_worker_that_missed_the_signal() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    with subprocess.Popen(
        [sys.executable, "-c", LOST], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin and run.stdout
        module = run_alive.run_of(int(run.stdout.readline()))
        run.stdin.write("\n")
        run.stdin.flush()
        assert int(run.stdout.readline()) == -signal.SIGTERM
        assert run.wait() == 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while run_alive.is_alive(module):
        assert time.monotonic() < deadline
        time.sleep(0.1)


ARMED = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        __deploy_give_back: {{fleet: default, log: {log}}}
- import_playbook: {root}/playbooks/launch.yml
"""


@pytest.mark.one_core
def test_without_the_second_process_nothing_is_launched(fleet: Fleet) -> None:
    book = fleet.folder / "armed.yml"
    book.write_text(ARMED.format(root=ROOT, log="/proc/none/log"), "utf-8")
    code, output = fleet.run(str(book), glm_launch=True)
    assert code != 0 and "cannot be started" in output, output
    assert "expected, for glm_terminate_on_failure, the process that terminates what a failed run launched" in output
    assert fleet.alive() == []


ASYNC = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        __deploy_give_back: {{fleet: default, log: {log}}}
      when: armed | bool
    - glm.fleet.lambda_instance:
        {{count: 1, region: us-east-1, instance_type: {kind}, ssh_key_names: deploy, wait: false}}
      async: 120
      poll: 2
"""


def test_a_launch_that_nobody_waits_for_is_refused_and_one_that_names_its_run_is_not(fleet: Fleet) -> None:
    book = fleet.folder / "async.yml"
    book.write_text(ASYNC.format(log=fleet.folder / "log", kind="gpu_8x_b200_sxm6"), "utf-8")
    code, output = fleet.run(str(book), "-e", "armed=true")
    assert code != 0 and "a launch that the run waits for, found async; nothing was launched" in output, output
    assert fleet.alive() == []
    code, output = fleet.run(str(book), "-e", "armed=false", ansible_async_dir=str(fleet.folder / "async"))
    assert code == 0, output
    [record] = fleet.cloud.world.state.instances.values()
    assert "glm-run" in [tag["key"] for tag in record.tags or []]


@pytest.mark.one_core
def test_a_run_that_came_to_its_end_left_nothing_to_say(fleet: Fleet) -> None:
    code, output = fleet.run("launch.yml", glm_launch=True)
    assert code == 0 and "this run leaves" not in output, output
    code, output = fleet.run("terminate.yml", "-e", "glm_confirm=yes")
    assert code == 0 and "did not come to its end" not in output, output
    code, output = fleet.run("launch.yml")
    assert code == 0 and "did not come to its end" not in output, output


@pytest.mark.one_core
def test_a_key_behind_a_password_that_was_typed_in_is_no_obstacle(fleet: Fleet) -> None:
    """The run is killed; no prompt can be answered any more, and the key is nowhere but in the vault."""
    (fleet.folder / "password").write_text("typed", "utf-8")
    key_file = fleet.folder / "key"
    key_file.write_text(fleet.cloud.api_key, "utf-8")
    key_file.chmod(0o600)
    fleet.inventory.write_text(f"plugin: glm.fleet.lambda_cloud\napi_key_file: {key_file}\n", "utf-8")
    environment = {**fleet.environment(), "TERM": "dumb"}
    del environment["LAMBDA_API_KEY"]
    given = fleet.variables(glm_launch=True, glm_terminate_on_failure=True)
    vaulted = fleet.folder / "vaulted.yml"
    vaulted.write_text(json.dumps({"lambda_api_key": given.pop("lambda_api_key")}), "utf-8")
    subprocess.run(
        ["ansible-vault", "encrypt", str(vaulted), "--vault-password-file", str(fleet.folder / "password")],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    command = fleet.command("deploy.yml", given, "-e", f"@{vaulted}", "--ask-vault-pass")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execvpe(command[0], command, environment)
    shown = b""

    def read_until(condition: Callable[[], bool], seconds: float = 600) -> None:
        nonlocal shown
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    shown += os.read(terminal, 65536)

    read_until(lambda: b"Vault password" in shown)
    os.write(terminal, b"typed\n")
    read_until(lambda: b"Wait for ssh and pin the host key, " in shown)
    assert fleet.alive() == ["glm-default-1"], shown
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    read_until(lambda: fleet.alive() == [])
    os.close(terminal)
    assert fleet.cloud.api_key not in (fleet.folder / "state" / "give_back.log").read_text("utf-8")
