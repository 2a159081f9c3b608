"""Launches and deploys that are interrupted or killed at random points: nothing runs on unnamed, nothing else ends.

Two in each run of the tests. More: ``GLM_KILLS=50 pytest -n 2 -rP tests/playbooks/test_kills.py``, half an hour.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from tests.playbooks.fleet import ROOT, TAGS, Fleet

pytestmark = pytest.mark.one_core

THEIRS = ["glm-default-70", "theirs"]
NOTHING = "- hosts: localhost\n  gather_facts: false\n  tasks: []\n"


class Run:
    """A playbook that runs beside the test."""

    def __init__(self, account: Fleet, playbook: str, **given: Any) -> None:
        self.output = account.folder / "output"
        with self.output.open("w", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                account.command(playbook, account.variables(glm_launch=True, **given)), cwd=ROOT,
                env=account.environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip

    def text(self) -> str:
        return " ".join(self.output.read_text("utf-8").split())


@pytest.fixture
def begun() -> Iterator[list[Run]]:
    running: list[Run] = []
    yield running
    for run in running:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)


def wait_for(what: str, condition: Callable[[], bool], run: Run, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long\n{run.text()}"
        time.sleep(0.1)


def launches(fleet: Fleet) -> int:
    return int(fleet.cloud.state()["pacing"]["counts"].get("launchInstance", 0))


def ours(fleet: Fleet) -> dict[str, str]:
    """Ids and names of what runs and was not there before."""
    found = fleet.cloud.state()["instances"]
    there = [item for item in found if item["status"] in ("booting", "active", "unhealthy")]
    return {item["id"]: item["name"] for item in there if item["name"] not in THEIRS}


def quiet(fleet: Fleet, seconds: float) -> None:
    """Wait until no launch was asked for during so many seconds."""
    before, since = launches(fleet), time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.2)
        if launches(fleet) != before:
            before, since = launches(fleet), time.monotonic()


def named(text: str, fleet: Fleet) -> list[str]:
    """What runs of ours and is neither named by its id nor as a launch without an answer; prices must be there."""
    assert not ours(fleet) or re.search(r"at 53\.52 USD per hour, at most \d+\.\d\d USD so far", text), text
    return [
        identifier
        for identifier, name in ours(fleet).items()
        if identifier not in text and f"{name} (asked for " not in text
    ]


# By default an interrupted launch and a killed deploy, both after the second launch at the earliest.
@pytest.mark.parametrize("seed", range(int(os.environ["GLM_KILLS"])) if "GLM_KILLS" in os.environ else (6, 7))
def test_a_kill_at_any_point_leaves_nothing_unnamed(fleet: Fleet, begun: list[Run], seed: int) -> None:
    chance = random.Random(seed)
    armed = seed % 2 == 1
    how = chance.choice(["SIGINT", "SIGKILL", "everything"] if armed else ["SIGINT", "SIGKILL"])
    number, at, later = chance.randint(2, 4), chance.randint(0, 3), chance.uniform(0, 3)
    fleet.cloud.seed(name="theirs", tags={"glm-fleet": "other"})
    fleet.cloud.seed(name="glm-default-70", tags=TAGS)
    fleet.cloud.settings(listing_lag_seconds=chance.choice([0.0, 4.0]))
    if chance.random() < 0.3:
        fleet.cloud.fault("late-error", status=504, path="launch$", after=chance.randint(0, 2))
    if chance.random() < 0.3:
        fleet.cloud.fault("slow", path="launch$", seconds=3.0, times=2)
    book = "deploy.yml" if armed else "launch.yml"
    run = Run(fleet, book, glm_launch_count=1 + number, glm_launch_interval=1, glm_terminate_on_failure=armed)
    begun.append(run)
    wait_for("a launch", lambda: launches(fleet) >= at or run.process.poll() is not None, run)
    time.sleep(later)
    if how == "everything":
        for process in fleet.guards():
            os.kill(process, signal.SIGKILL)
    bought = launches(fleet)
    os.kill(
        run.process.pid, signal.SIGINT if how == "SIGINT" else signal.SIGKILL
    ) if run.process.poll() is None else None
    wait_for("the end of the run", lambda: run.process.poll() is not None, run)
    quiet(fleet, 4)
    # One request may have been under way.
    assert launches(fleet) <= bought + 1, f"{how} after {bought}: {run.text()[-3000:]}"
    if armed and how != "everything":
        wait_for("terminating", lambda: not ours(fleet), run)
    elif how == "SIGINT" and "User interrupted execution" in run.text():
        assert named(run.text(), fleet) == [], run.text()
    left = len(ours(fleet))
    (fleet.folder / "nothing.yml").write_text(NOTHING, "utf-8")
    code, output = fleet.run(str(fleet.folder / "nothing.yml"))
    ended = run.process.returncode == 0 or "PLAY RECAP" in run.text()
    assert code == 0 and (ended or named(output, fleet) == []), output
    assert set(THEIRS) <= set(fleet.alive()), "what is not ours was ended"
    assert all(life.fleet == "default" for life in ledger.open_of(ledger.Ledger("lambda", "default").read()))
    print(f"seed {seed}: {book} {how} after {bought} of {number} launches: {left} left, all named")
