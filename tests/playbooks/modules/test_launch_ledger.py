"""What lambda_instance keeps in the ledger of its fleet, and that a launch stops when its run is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, record, run_alive, spending
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from simulator.lambda_cloud.server import Handle
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.modules.test_lambda_instance_events import KIND, alive, cloud_with, run

pytestmark = pytest.mark.one_core


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handle]:
    with cloud_with() as handle:
        yield handle


def events() -> list[ledger.Event]:
    return ledger.Ledger("lambda", "default").read()


def kinds() -> list[str]:
    return [event["event"] for event in events()]


def test_a_launch_is_kept_before_and_after_its_request(cloud: Handle) -> None:
    result = run(cloud, count=2, run="r1")
    assert not result["failed"] and kinds() == ["asked", "launched"] * 2
    asked, launched = events()[:2]
    assert asked["names"] == ["glm-default-1"] and asked["type"] == KIND and asked["region"] == "us-east-1"
    assert asked["usd_per_hour"] == 53.52 and asked["launch"] == launched["launch"] and launched["run"] == "r1"
    lives = ledger.open_of(events())
    assert sorted(life.id for life in lives) == result["launched_ids"] and all(life.ours for life in lives)
    assert cloud.api_key not in str(events())


def test_asked_is_on_the_disk_before_the_request_is_sent(cloud: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    launch = lambda_api.LambdaApi.launch

    def launching(api: Any, request: dict[str, Any]) -> list[str]:
        seen.append(kinds())
        return launch(api, request)

    monkeypatch.setattr(lambda_api.LambdaApi, "launch", launching)
    run(cloud, count=1)
    assert seen == [["asked"]]


def test_without_a_ledger_nothing_is_launched(cloud: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path / "file"))
    result = run(cloud, count=1)
    assert result["failed"] and "it was not launched" in result["msg"] and "set GLM_LEDGER_DIR" in result["msg"]
    assert alive(cloud) == []


class Store:
    """The store of a fleet's ledger, as far as it answers: questions that begin with one of ``silent`` get none."""

    address = "s3://b"

    def __init__(self) -> None:
        self.silent: tuple[str, ...] = ()
        self.asked: list[str] = []

    def ask(self, do: str, **_more: Any) -> Any:
        self.asked.append(do)
        if do in self.silent:
            raise Unmet("to list s3://b", "no answer", "look at the store")
        lines = [json.dumps(event) for event in ledger.Ledger("lambda", "default").own()]
        return {"read": {"lines": lines, "newest": ""}}.get(do)


@pytest.fixture
def shared_store(monkeypatch: pytest.MonkeyPatch) -> Store:
    made = Store()
    monkeypatch.setattr(ledger.shared, "helper", lambda: made)
    return made


@pytest.mark.parametrize("given", [{"count": 2}, {"state": "absent"}, {"state": "absent", "check_mode": True}])
def test_a_ledger_of_several_machines_that_cannot_be_read_is_no_empty_one(
    cloud: Handle, shared_store: Store, given: dict[str, Any]
) -> None:
    assert not run(cloud, count=1)["failed"]
    before = kinds()
    shared_store.silent = ("read",)
    result = run(cloud, **given)
    assert result["failed"] and "ledger: expected to list s3://b, found no answer; nothing was changed" in result["msg"]
    assert len(alive(cloud)) == 1
    shared_store.silent = ()
    assert kinds() == before


def test_a_store_that_goes_away_in_a_launch_leaves_what_was_read_of_it(
    cloud: Handle, shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = lambda_api.LambdaApi.launch

    def launching(api: Any, request: dict[str, Any]) -> list[str]:
        shared_store.silent = ("read", "put", "sync")
        return launch(api, request)

    monkeypatch.setattr(lambda_api.LambdaApi, "launch", launching)
    result = run(cloud, count=1)
    shared_store.silent = ()
    assert not result["failed"] and kinds() == ["asked", "launched"] and len(alive(cloud)) == 1
    # The next one must be in the store before it is asked for.
    assert "sync" in shared_store.asked
    result = run(cloud, count=3)
    assert result["failed"] and "it was not launched" in result["msg"] and len(alive(cloud)) == 2
    shared_store.silent = ()
    assert [life.state for life in ledger.open_of(events())] == ["launched", "launched"]


def test_a_refusal_is_closed(cloud: Handle) -> None:
    cloud.fault("capacity-lost", path="launch$")
    result = run(cloud, count=1)
    assert not result["failed"] and kinds() == ["asked", "refused", "asked", "launched"]
    assert [(life.region, life.state) for life in ledger.open_of(events())] == [("us-west-1", "launched")]


def test_a_lost_answer_is_found_by_the_tags_of_the_launch(cloud: Handle) -> None:
    cloud.fault("answer-lost", path="launch$")
    result = run(cloud, count=1)
    assert not result["failed"] and kinds() == ["asked", "unknown", "launched"]
    [life] = ledger.open_of(events())
    assert life.ours and [life.id] == result["launched_ids"] and "found by its tags" in life.why


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "raw", "status": 202, "body": '{"data": {}}'}, {"kind": "raw", "status": 204},
        {"kind": "error", "status": 408}, {"kind": "late-error", "status": 408},
    ],
)  # fmt: skip
def test_an_answer_that_is_neither_yes_nor_no_leaves_the_launch_open(cloud: Handle, fault: dict[str, Any]) -> None:
    cloud.fault(path="launch$", **fault)
    result = run(cloud, count=1)
    assert kinds()[:2] == ["asked", "unknown"] and "refused" not in kinds()
    assert result["failed"] == (fault["kind"] != "late-error") and len(ledger.open_of(events())) == 1


def test_a_launch_without_an_answer_that_made_nothing_is_open_until_the_list_cannot_be_late(
    cloud: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.fault("error", path="launch$", status=504)
    assert run(cloud, count=1)["failed"] and kinds() == ["asked", "unknown"]
    run(cloud, state="absent")
    assert [life.state for life in ledger.open_of(events())] == ["unknown"]
    monkeypatch.setattr(ledger, "LATE_SECONDS", -1.0)
    run(cloud, state="absent")
    assert [life.state for life in ledger.open_of(events())] == ["unknown"] and kinds()[-1] == "missing", "one list"
    monkeypatch.setattr(record, "APART_SECONDS", 0.0)
    run(cloud, state="absent")
    assert ledger.open_of(events()) == [] and kinds()[-1] == "gone"


def test_what_is_terminated_elsewhere_is_gone_once_the_account_says_so(
    cloud: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cloud, count=1)
    cloud.control("DELETE", "/instances")
    run(cloud, count=0)
    assert len(ledger.open_of(events())) == 1, "a listing may be late"
    monkeypatch.setattr(ledger, "LATE_SECONDS", -1.0)
    run(cloud, count=0)
    assert len(ledger.open_of(events())) == 1 and kinds()[-1] == "missing", "one list without it may be wrong"
    run(cloud, count=0)
    assert kinds().count("missing") == 1
    monkeypatch.setattr(record, "APART_SECONDS", 0.0)
    run(cloud, count=0)
    assert ledger.open_of(events()) == [] and kinds()[-1] == "gone"


def test_what_the_api_denies_is_gone_at_once(cloud: Handle) -> None:
    run(cloud, count=1)
    cloud.control("DELETE", "/instances")
    assert not run(cloud, state="absent")["failed"]
    assert ledger.open_of(events()) == [] and kinds()[-2:] == ["ending", "gone"]


def test_an_end_that_was_not_accepted_and_an_empty_list_close_nothing(cloud: Handle) -> None:
    run(cloud, count=1)
    cloud.fault("unavailable", path="terminate$", times=99)
    cloud.fault("raw", path="/instances$", body='{"data": []}', times=99, after=1)
    result = run(cloud, state="absent", wait_timeout=2)
    assert result["failed"] and result["msg"].count("glm-default-1") and len(alive(cloud)) == 1, result
    assert [life.state for life in ledger.open_of(events())] == ["ending"]


def test_an_answer_that_names_nothing_ends_nothing(cloud: Handle) -> None:
    run(cloud, count=1)
    cloud.fault("raw", path="terminate$", body='{"data": {"terminated_instances": []}}', times=99)
    result = run(cloud, state="absent", wait=False, wait_timeout=2)
    assert result["failed"] and "does not name it" in result["msg"] and len(alive(cloud)) == 1, result


def test_what_was_called_gone_and_is_listed_is_open_again(cloud: Handle) -> None:
    [identifier] = run(cloud, count=1)["launched_ids"]
    account = events()[0]["account"]
    more = {"names": ["glm-default-1"], "ids": [identifier], "account": account}
    ledger.Ledger("lambda", "default").append(ledger.event("gone", fleet="default", run="", **more))
    run(cloud, count=1)
    [life] = ledger.open_of(events())
    assert (life.id, life.usd_per_hour) == (identifier, 53.52) and life.ours and kinds()[-1] == "seen"
    run(cloud, count=1)
    assert kinds().count("seen") == 1, "written once"


def test_what_was_launched_elsewhere_is_counted_from_its_launch_before_and_after_it_ends(cloud: Handle) -> None:
    begun = time.time() - 7230
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begun))
    cloud.seed(name="glm-default-7", tags={"glm-fleet": "default", "glm-launched": moment, "glm-run": "elsewhere"})
    cloud.seed(name="glm-default-8", tags={"glm-fleet": "default"})
    run(cloud, count=2)
    seven, eight = sorted(ledger.open_of(events()), key=lambda life: life.name)
    assert kinds() == ["seen", "seen"] and seven.adopted and not seven.ours and seven.run == "elsewhere"
    assert abs(ledger.seconds_of(seven.since) - begun) < 2 and seven.type and seven.usd_per_hour
    before = spending.sum_of([one for one in spending.spent_of(events(), time.time()) if one.life.id == seven.id])
    assert not run(cloud, state="absent")["failed"]
    after = spending.sum_of([one for one in spending.spent_of(events(), time.time()) if one.life.id == seven.id])
    assert after.usd >= before.usd > 100 and not after.at_least
    assert not run(cloud, count=1, max_monthly_usd=1e9)["failed"], f"{eight.name} is known to cost a month at most"


def test_a_new_key_of_the_account_takes_over_what_it_lists(cloud: Handle) -> None:
    book = ledger.Ledger("lambda", "default")
    [identifier] = run(cloud, count=1)["launched_ids"]
    book.path.write_text(book.path.read_text("utf-8").replace(events()[0]["account"], "the-old-key"), "utf-8")
    run(cloud, count=1)
    [life] = ledger.open_of(events())
    assert life.id == identifier and life.account != "the-old-key" and life.ours
    assert not run(cloud, state="absent")["failed"]
    for _look in range(3):
        run(cloud, count=0)
    assert ledger.open_of(events()) == []


def test_another_key_closes_nothing(cloud: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "LATE_SECONDS", -1.0)
    book = ledger.Ledger("lambda", "default")
    book.append(ledger.event("launched", fleet="default", account="other", run="", names=["x"], ids=["i"], launch="x@"))
    run(cloud, state="absent")
    assert [life.id for life in ledger.open_of(events())] == ["i"]


def test_nothing_is_bought_for_a_run_that_is_gone(cloud: Handle) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = run_alive.run_of(process.pid)
    assert run_alive.is_alive(name)
    assert not run(cloud, count=1, run=name)["failed"] and len(alive(cloud)) == 1
    process.communicate(b"\n")
    result = run(cloud, count=2, run=name)
    assert result["failed"] and "is gone; glm-default-2 was not launched" in result["msg"] and len(alive(cloud)) == 1
    assert kinds()[-2:] == ["asked", "refused"]


def test_only_what_is_certain_ends_a_run() -> None:
    run = run_alive.run_of(os.getpid())
    machine, pid, started = run.split("-")
    assert run_alive.is_alive(run)
    assert not run_alive.is_alive(f"{machine}-{pid}-1{started}"), "another process has the number now"
    assert not run_alive.is_alive(f"{'0' * 12}-{pid}-{started}"), "this machine has started again since"
    assert not run_alive.is_alive(f"{machine}-{9**40}-{started}")
    assert all(run_alive.is_alive(name) for name in ("", "20261129T073000-123", f"{machine}-{pid}-"))


def test_a_process_that_was_not_waited_for_yet_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        name = run_alive.run_of(process.pid)
        assert process.stdin
        process.stdin.close()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while run_alive.is_alive(name) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not run_alive.is_alive(name)
