"""The ledger of a fleet that two machines run, in a kept S3 server: one launches, the other counts and ends."""

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

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, shared
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state
from tests.playbooks.fleet import KIND, ROOT, Fleet
from tests.playbooks.store import s3
from tests.playbooks.test_give_back import Deploy
from tests.playbooks.test_reap_playbook import reap

ADDRESS = f"s3://{s3.BUCKET}/fleets/blue"
OBJECTS = "/weights/fleets/blue/ledger/"


class Machine(Fleet):
    """One of several controllers of a fleet, with a home and ledgers of its own."""

    def __init__(self, account: Fleet, name: str, store: s3.Store) -> None:
        folder = account.folder / name
        folder.mkdir()
        super().__init__(account.cloud, folder)
        self.store = store

    def variables(self, **variables: Any) -> dict[str, Any]:
        given = {"glm_state_store": ADDRESS, "glm_store_endpoint": self.store.url}
        return {**super().variables(), **given, **variables}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), ledger.FOLDER_ENVIRONMENT: str(self.folder / "ledger")}

    def run(self, playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        code, output = super().run(playbook, *arguments, **variables)
        assert not any(secret in output for secret in s3.KEY_PAIR.values())
        assert "Traceback" not in output, output
        return code, output

    def own(self) -> list[ledger.Event]:
        return ledger.Ledger("lambda", "default", self.folder / "ledger").own()

    def keep(self, kind: ledger.Kind, **more: Any) -> None:
        """Append an event as a run on this machine does."""
        account = ledger.account_of(self.cloud.base_url, self.cloud.api_key)
        state.use(ADDRESS, self.store.url)
        try:
            assert s3.KEY_PAIR["AWS_SECRET_ACCESS_KEY"] not in os.environ[shared.ENVIRONMENT]
            book = ledger.Ledger("lambda", "default", self.folder / "ledger")
            book.append(ledger.event(kind, fleet="default", account=account, run="r", **more))
        finally:
            state.use("")

    def spent(self) -> list[dict[str, Any]]:
        code, output = self.run("cost.yml")
        assert code == 0, output
        found: list[dict[str, Any]] = json.loads((self.folder / "state/cost.json").read_text("utf-8"))["fleets"]
        return found


@pytest.fixture
def machines(fleet: Fleet, store: s3.Store) -> Iterator[tuple[Machine, Machine]]:
    one, two = (Machine(fleet, name, store) for name in ("one", "two"))
    yield one, two
    for machine in (one, two):
        machine.end_guards()


def objects(store: s3.Store) -> list[str]:
    found = store.direct.list_objects_v2(Bucket=s3.BUCKET, Prefix="fleets/blue/ledger/")
    return [entry["Key"] for entry in found.get("Contents") or []]


def test_one_machine_launches_and_the_other_knows_counts_and_ends_it(
    machines: tuple[Machine, Machine], store: s3.Store
) -> None:
    one, two = machines
    code, output = one.run("launch.yml", "-vvv", glm_launch=True, glm_launch_count=2)
    assert code == 0 and one.alive() == ["glm-default-1", "glm-default-2"], output
    assert len(objects(store)) == 1 and (one.folder / "ledger/lambda-default.jsonl").exists()
    assert not (two.folder / "ledger").exists()
    # What was spent is known by the ledger alone, and so is that a launch would be one too many.
    code, output = two.run("cost.yml")
    assert code == 0 and "no ledger here" not in output, output
    code, output = two.run("launch.yml", glm_launch=True, glm_launch_count=3, glm_max_monthly_usd=1)
    assert code == 2 and "expected at most 1.00 USD" in output and "for what runs (2)" in output, output
    assert not (two.folder / "ledger/lambda-default.jsonl").exists(), "it had nothing to add"
    code, output = two.run("terminate.yml", glm_confirm=True)
    assert code == 0 and two.alive() == [], output
    assert {event["event"] for event in two.own()} <= {"ending", "gone"} and len(objects(store)) == 2
    for machine in machines:
        code, output = machine.run("cost.yml", "--check")
        assert code == 0 and "a run that did not come to its end left" not in output, output
    assert one.spent() == two.spent()


def test_without_a_store_the_other_machine_does_not_know_it(machines: tuple[Machine, Machine], store: s3.Store) -> None:
    one, _two = machines
    code, output = one.run("launch.yml", glm_launch=True, glm_state_store="")
    assert code == 0 and objects(store) == [] and store.requests == [], output
    assert not ledger.shared_mark(one.folder / "ledger/lambda-default.jsonl").exists()
    # A fleet that had its ledger before it had a store brings it along.
    code, output = one.run("terminate.yml", glm_confirm=True)
    assert code == 0 and len(objects(store)) == 1, output
    body = store.direct.get_object(Bucket=s3.BUCKET, Key=objects(store)[0])["Body"].read()
    assert body == (one.folder / "ledger/lambda-default.jsonl").read_bytes()


def launched(machine: Machine, name: str, **more: Any) -> str:
    """An instance that runs, and that this machine has in its ledger and in the store."""
    tags = {"glm-fleet": "default", **more.pop("tags", {})}
    [identifier] = machine.cloud.seed(
        name=name, tags=tags, instance_type=KIND, region="us-east-1", status="active", **more
    )
    machine.keep("launched", names=[name], ids=[identifier], launch=name)
    return identifier


def test_what_lost_its_tag_is_ended_from_another_machine_because_the_ledger_proves_it(
    machines: tuple[Machine, Machine],
) -> None:
    one, two = machines
    identifier = launched(one, "glm-default-1", omit=["tags"])
    only = {"glm_confirm": True, "glm_terminate_only": [identifier]}
    code, output = two.run("terminate.yml", **only, glm_state_store="")
    assert code == 2 and two.alive() == ["glm-default-1"], output
    code, output = two.run("terminate.yml", **only)
    assert code == 0 and two.alive() == [], output


UNREAD: list[tuple[str, list[str]]] = [
    ("GET /weights*", ["launch.yml"]),
    ("GET */weights?list-type=2*ledger*", ["terminate.yml"]),
    (f"GET {OBJECTS}*", ["launch.yml", "terminate.yml", "reap.yml"]),
]


@pytest.mark.parametrize(("match", "verbs"), UNREAD, ids=["all", "list", "objects"])
def test_a_ledger_that_cannot_be_read_is_no_empty_one(
    machines: tuple[Machine, Machine], store: s3.Store, match: str, verbs: list[str]
) -> None:
    one, two = machines
    launched(one, "glm-default-1", tags={"glm-expires": ledger.stamp(time.time() - 3600)})
    before = objects(store)
    store.fail(match, status=403, code="AccessDenied")
    for verb in verbs:
        code, output = two.run(verb, glm_launch=True, glm_launch_count=2, glm_confirm=True)
        assert code == 2 and "s3://weights/fleets/blue" in output, output
        assert "give the key pair the right s3:" in output, output
        assert one.alive() == ["glm-default-1"] and objects(store) == before, output
        assert not (two.folder / "ledger").exists()


def test_nothing_is_launched_that_the_others_cannot_know_of(machines: tuple[Machine, Machine], store: s3.Store) -> None:
    one, two = machines
    fault = store.fail(f"PUT {OBJECTS}*", status=403, code="AccessDenied", text="Access Denied")
    code, output = one.run("launch.yml", glm_launch=True)
    assert code == 2 and one.alive() == [], output
    assert f"glm-default-1: expected to write the ledger of launches in {ADDRESS}, found AccessDenied" in output
    assert "it was not launched" in output
    assert "Next: give the key pair the right s3:PutObject on s3://weights/fleets/blue" in output
    assert [event["event"] for event in one.own()] == ["asked", "refused"]
    store.faults.remove(fault)
    assert two.run("launch.yml", glm_launch=True)[0] == 0 and two.alive() == ["glm-default-1"]


def test_what_happened_is_kept_and_goes_up_with_the_next_run(
    machines: tuple[Machine, Machine], store: s3.Store
) -> None:
    one, two = machines
    fault = store.fail(f"PUT {OBJECTS}*", status=403, code="AccessDenied", after=1)
    code, output = one.run("launch.yml", glm_launch=True)
    assert code == 0 and one.alive() == ["glm-default-1"], output
    assert "ledger: launched glm-default-1: expected to write the ledger of launches" in output
    assert "alone, and goes there with what follows it" in output
    [key] = objects(store)
    body = store.direct.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read()
    assert body.count(b"\n") == 1 and b'"asked"' in body
    # Meanwhile the other finds what the launch made by its tags.
    code, output = two.run("terminate.yml", "--check")
    assert code == 0 and "glm-default-1" in output, output
    store.faults.remove(fault)
    code, output = one.run("launch.yml", glm_launch=True)
    assert code == 0, output
    body = store.direct.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read()
    assert body == (one.folder / "ledger/lambda-default.jsonl").read_bytes()


def test_a_failed_run_is_cleaned_up_after_although_the_store_is_gone(
    machines: tuple[Machine, Machine], store: s3.Store
) -> None:
    one, _two = machines
    deploy = Deploy(one)
    try:
        # Its address answers nobody: the run waits for ssh when the store goes away.
        deploy.wait_for("a host that is waited for", lambda: deploy.says("Wait for ssh and pin the host key, "))
        store.fail("*", status=403, code="AccessDenied")
        os.kill(deploy.process.pid, signal.SIGTERM)
        deploy.wait_for("terminating", lambda: one.alive() == [])
        deploy.wait_for("its ledger", lambda: one.own()[-1]["event"] == "gone")
    finally:
        if deploy.process.poll() is None:
            os.killpg(deploy.process.pid, signal.SIGKILL)


def test_reap_ends_what_another_machine_launched_and_keeps_what_another_extended(
    fleet: Fleet, machines: tuple[Machine, Machine], store: s3.Store
) -> None:
    one, two = machines
    now = time.time()
    tags = {"glm-expires": ledger.stamp(now - 3600)}
    launched(one, "past", tags=tags)
    extended = launched(one, "extended", tags=tags)
    two.keep("kept", names=["extended"], ids=[extended], expires=ledger.stamp(now + 3600))
    three = Machine(fleet, "three", store)
    code, output = reap(three, glm_confirm=True)
    assert code == 0 and three.alive() == ["extended"], output


WRITER = """
import sys
from pathlib import Path
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
book = ledger.Ledger("lambda", "default", Path(sys.argv[1]))
for number in range(10):
    book.append(ledger.event("asked", fleet="default", account="a", run="r", names=[f"{sys.argv[2]}-{number}"]))
"""


def test_of_processes_on_machines_that_write_at_the_same_time_none_loses_an_event(
    tmp_path: Path, store: s3.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(shared.ENVIRONMENT, "")
    state.use(ADDRESS, store.url)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / machine), f"{machine}{process}"], env=environment
        )
        for machine in "ab"
        for process in "12"
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    events = ledger.Ledger("lambda", "default", tmp_path / "c").read()
    assert sorted(event["names"][0] for event in events) == [
        f"{m}{p}-{n}" for m in "ab" for p in "12" for n in range(10)
    ]
    assert len(objects(store)) == 2, "one for each machine"


ECHO = """
import json, os, signal, sys, time
for line in sys.stdin:
    asked = json.loads(line)["do"]
    if asked == "interrupt":
        os.kill(os.getppid(), signal.SIGUSR1)
        time.sleep(0.5)
    if asked == "end":
        break
    print(json.dumps({"answer": asked}), flush=True)
"""


def test_a_question_that_was_interrupted_leaves_no_answer_for_the_next() -> None:
    helper = shared.Helper({"address": ADDRESS, "program": [sys.executable, "-c", ECHO]})

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        assert helper.ask("one") == "one"
        with pytest.raises(KeyboardInterrupt):
            helper.ask("interrupt")
        assert helper.ask("two") == "two"
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(Unmet, match=f"reads and writes the ledgers in {ADDRESS}, found that it ended without one"):
        helper.ask("end")
    assert helper.ask("three") == "three"
    gone = shared.Helper({"address": ADDRESS, "program": ["/nonexistent/python"]})
    with pytest.raises(Unmet, match="that it cannot be asked: No such file"):
        gone.ask("one")
