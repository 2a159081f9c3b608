"""What a run launched and what never served is terminated, also when the run is interrupted or killed."""

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

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back
from tests.playbooks.fleet import ROOT, TAGS, Fleet


def state(**values: Any) -> str:
    return json.dumps({"unsettled": False, "launched": {}, "served": [], "done": False, **values})


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], None),
        ([state()], None),
        ([state(unsettled=True)], {"glm_terminate_run": "r"}),
        ([state(unsettled=True), state(launched={"b": "x-2", "a": "x-1"})], {"glm_terminate_only": ["a", "b"]}),
        ([state(launched={"a": "x-1", "b": "x-2"}, served=["a"])], {"glm_terminate_only": ["b"]}),
        ([state(launched={"a": "x-1"}, served=["a"])], None),
        ([state(launched={"a": "x-1"}), '{"laun'], {"glm_terminate_only": ["a"]}),
        ([state(launched={"a": "x-1"}), state(launched={"a": "x-1"}, done=True)], None),
    ],
)
def test_the_guard_gives_back_what_the_last_whole_line_says(
    tmp_path: Path, lines: list[str], wanted: dict[str, Any] | None
) -> None:
    calls = tmp_path / "calls"
    command = [sys.executable, "-c", f"import sys; open({str(calls)!r}, 'a').write(sys.argv[-1] + '\\n')"]
    give_back.guard(command, "r", lines, looks=(0, 0))
    asked = [json.loads(line) for line in calls.read_text("utf-8").splitlines()] if calls.exists() else []
    assert asked == ([wanted] * 2 if wanted else []), "looked twice, because an instance may turn up late"


def test_a_guard_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    guard = give_back.Guard(["false"], "r", tmp_path / "state" / "log")
    guard._process.kill()
    guard._process.wait()
    for _line in range(3):
        guard.report(give_back.State())


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
        __launch_run: r1
        __deploy_give_back: {{fleet: default, run: r1, log: {fleet.folder}/log}}
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
