"""What a dead run launched is terminated through every fault of the API, over real HTTP, and nothing else is."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import launching
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import account
from simulator.lambda_cloud.server import Handle
from tests.playbooks.modules.test_lambda_instance_events import Clock, alive, cloud_with, run

pytestmark = pytest.mark.one_core

RUN = "run-of-the-test"
TERMINATE, LAUNCH, LIST = "terminate$", "launch$", "/instances$"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One for all: hours pass in a moment."""
    made = Clock()
    for module in (launching, ledger, record):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def cloud(clock: Clock) -> Iterator[Handle]:
    with cloud_with() as handle:
        handle.world.clock = clock.time
        handle.seed(name="theirs", tags={"glm-fleet": "other"})
        handle.seed(name="glm-default-77", tags={"glm-fleet": "default"})
        yield handle


THEIRS = ["glm-default-77", "theirs"]


def returned(cloud: Handle, clock: Clock, served: set[str] | None = None, hours: float = 24) -> tuple[bool, str]:
    """Whether the guard says that nothing is left, and its log."""
    given = {"fleet": "default", "run": RUN, "api_key": cloud.api_key, "base_url": cloud.base_url}
    opened = account.Account(account.credential_of(given, {}))
    opened._api._sleep = clock.sleep
    opened._api._pacer._intervals["request"] = 0.0
    said: list[str] = []
    returning = give_back.Returning(opened, served or set(), said.append, clock.sleep, clock.time)
    return give_back.until_none([returning], hours), "\n".join(said)


def launched(cloud: Handle, number: int = 1, **options: Any) -> dict[str, Any]:
    """A launch of so many beside the one that is there."""
    return run(cloud, count=1 + number, run=RUN, wait=False, **options)


FAULTS: dict[str, list[dict[str, Any]]] = {
    "503": [{"kind": "error", "status": 503, "path": TERMINATE, "times": 9}],
    "unavailable": [{"kind": "unavailable", "path": TERMINATE, "times": 30}],
    "429 with a time": [{"kind": "rate-limited", "retry_after": "7", "path": TERMINATE, "times": 20}],
    "429 without": [{"kind": "rate-limited", "path": "", "times": 20}],
    "closed": [{"kind": "reset", "path": TERMINATE, "times": 9}],
    "the answer is lost": [{"kind": "answer-lost", "path": TERMINATE, "times": 3}],
    "done, but 500": [{"kind": "late-error", "status": 500, "path": TERMINATE, "times": 3}],
    "half an answer": [{"kind": "truncated", "path": LIST, "times": 9}],
    "a web page": [{"kind": "raw", "body": "<html>", "content_type": "text/html", "path": "", "times": 12}],
    "a key that is refused for a while": [
        {"kind": "error", "code": "global/account-inactive", "status": 403, "path": "", "times": 12}
    ],
    "all of it": [
        {"kind": "reset", "path": LIST, "times": 7},
        {"kind": "error", "status": 503, "path": TERMINATE, "times": 5},
        {"kind": "rate-limited", "path": TERMINATE, "times": 5},
        {"kind": "error", "code": "global/not-found", "status": 404, "path": TERMINATE, "times": 2},
    ],
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_outlasted(cloud: Handle, clock: Clock, name: str) -> None:
    assert not launched(cloud, 3)["failed"]
    for fault in FAULTS[name]:
        cloud.fault(**fault)
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said
    assert [life for life in ledger.open_of(ledger.Ledger("lambda", "default").read()) if life.run == RUN] == []


def test_one_that_is_not_there_among_several_holds_up_none(cloud: Handle, clock: Clock) -> None:
    result = launched(cloud, 3)
    cloud.world.forget(result["launched_ids"][1])
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said


def test_what_serves_stays(cloud: Handle, clock: Clock) -> None:
    result = launched(cloud, 2)
    through, said = returned(cloud, clock, {result["launched_ids"][0]})
    assert through and len(alive(cloud)) == 3, said


EMPTY = {"kind": "raw", "body": '{"data": []}', "path": LIST}


@pytest.mark.parametrize("lists", [1, 2, 3])
def test_empty_lists_do_not_save_what_was_launched_an_hour_ago(cloud: Handle, clock: Clock, lists: int) -> None:
    launched(cloud, 2)
    clock.sleep(3600)
    cloud.fault(**EMPTY, times=lists)
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said


def test_ends_that_are_not_accepted_are_asked_for_through_empty_lists(cloud: Handle, clock: Clock) -> None:
    launched(cloud, 2)
    clock.sleep(3600)
    cloud.fault("unavailable", path=TERMINATE, times=60)
    cloud.fault(**EMPTY, times=200, after=1)
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said


def test_an_answer_that_names_nothing_is_asked_for_again(cloud: Handle, clock: Clock) -> None:
    launched(cloud, 2)
    cloud.fault("raw", path=TERMINATE, body='{"data": {"terminated_instances": []}}', times=5)
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said


def test_what_a_later_run_has_kept_stays(cloud: Handle, clock: Clock) -> None:
    first, second = launched(cloud, 2)["launched_ids"]
    book = ledger.Ledger("lambda", "default")
    cloud.fault("unavailable", path="", times=100)
    given = {"fleet": "default", "run": "later", "names": ["?"], "ids": [second], "why": "the run came to its end"}

    def outage_is_over_later(seconds: float, sleep: Any = clock.sleep) -> None:
        sleep(seconds)
        if not any(one["event"] == "kept" for one in book.read()):
            book.append(ledger.event("kept", account=book.read()[0]["account"], **given))

    clock.sleep = outage_is_over_later  # type: ignore[method-assign]
    through, said = returned(cloud, clock)
    there = {item["id"] for item in cloud.state()["instances"] if item["status"] in ("booting", "active")}
    assert through and second in there and first not in there, said


def test_nothing_is_counted_or_launched_while_the_guard_is_at_work(cloud: Handle, clock: Clock) -> None:
    launched(cloud, 1)
    cloud.fault("unavailable", path=TERMINATE, times=10)
    during: list[dict[str, Any]] = []

    def launch_again(seconds: float, sleep: Any = clock.sleep) -> None:
        sleep(seconds)
        if not during:
            during.append({})
            during[0] = run(cloud, count=2, run="later", wait=False)

    clock.sleep = launch_again  # type: ignore[method-assign]
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said
    assert during[0]["failed"] and "found another run, or the process that terminates" in during[0]["msg"]
    assert not run(cloud, count=2, run="later", wait=False)["failed"], "it has ended"


@pytest.mark.parametrize("lag", [0.0, 3600.0])
def test_what_is_protected_stays_listed_or_not_and_is_named(cloud: Handle, clock: Clock, lag: float) -> None:
    clock.sleep(7200)
    cloud.settings(listing_lag_seconds=lag)
    [identifier] = launched(cloud, 1, tags={"glm-protect": "yes"})["launched_ids"]
    through, said = returned(cloud, clock)
    assert not through and len(alive(cloud)) == 3, said
    assert f"({identifier}, " in said and "53.52 USD per hour" in said and "what its tag protects" in said


def test_what_the_list_shows_a_minute_late_is_ended_by_id(cloud: Handle, clock: Clock) -> None:
    clock.sleep(100)
    cloud.settings(listing_lag_seconds=60.0)
    launched(cloud, 2)
    assert len(alive(cloud)) == 4
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said


def test_what_lost_its_tags_is_ended_by_id(cloud: Handle, clock: Clock) -> None:
    cloud.settings(drop_tags=True)
    result = launched(cloud, 2)
    assert result["failed"] and len(alive(cloud)) == 3
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said
    assert f"({result['launched_ids'][0]})" in said


def test_a_launch_answered_504_that_was_made_and_is_listed_late_is_found_and_ended(cloud: Handle, clock: Clock) -> None:
    clock.sleep(100)
    cloud.settings(listing_lag_seconds=60.0)
    cloud.fault("late-error", status=504, path=LAUNCH)
    result = launched(cloud, 1)
    assert result["failed"] and result["launched_ids"] == [] and len(alive(cloud)) == 3
    through, said = returned(cloud, clock)
    assert "whether it was made is not known" in said and "53.52 USD per hour" in said
    assert through and alive(cloud) == THEIRS, said


def test_a_launch_answered_504_that_made_nothing_is_closed_after_half_an_hour(cloud: Handle, clock: Clock) -> None:
    begun = clock.now
    cloud.fault("error", status=504, path=LAUNCH)
    assert launched(cloud, 1)["failed"]
    through, said = returned(cloud, clock)
    assert through and alive(cloud) == THEIRS, said
    assert ledger.LATE_SECONDS <= clock.now - begun < 2 * ledger.LATE_SECONDS


def test_what_has_neither_an_id_nor_a_tag_is_named_and_left(cloud: Handle, clock: Clock) -> None:
    cloud.settings(drop_tags=True)
    cloud.fault("late-error", status=504, path=LAUNCH)
    launched(cloud, 1)
    through, said = returned(cloud, clock, hours=2)
    assert not through and len(alive(cloud)) == 3, "a name is no proof"
    assert "glm-default-1 (" in said and "a name is no proof: look at it in the console" in said
    assert "given up after 2 hours" in said


def random_history(cloud: Handle, clock: Clock, chance: random.Random) -> tuple[bool, str]:
    """Launch among faults, then terminate among faults."""
    cloud.settings(
        listing_lag_seconds=chance.choice([0.0, 0.0, 5.0, 60.0, 300.0]),
        drop_tags=chance.random() < 0.2,
        terminating_seconds=chance.choice([0.0, 20.0]),
    )
    for _fault in range(chance.randint(0, 2)):
        kind = chance.choice(["late-error", "answer-lost", "error", "reset", "capacity-lost", "unavailable"])
        cloud.fault(kind, status=chance.choice([500, 503, 504]), path=LAUNCH, after=chance.randint(0, 2))
    for _try in range(chance.randint(1, 2)):
        launched(cloud, chance.randint(1, 3))
        clock.sleep(chance.choice([1, 5, 30]))
    cloud.control("DELETE", "/faults")
    for _fault in range(chance.randint(0, 4)):
        kind = chance.choice(
            ["error", "reset", "answer-lost", "late-error", "rate-limited", "truncated", "unavailable"]
        )
        times, path = chance.randint(1, 12), chance.choice([TERMINATE, LIST, ""])
        cloud.fault(kind, status=chance.choice([500, 503]), path=path, times=times, after=chance.randint(0, 3))
    return returned(cloud, clock, hours=6)


# 200 of them take a minute: GLM_HISTORIES=200.
@pytest.mark.parametrize("seed", range(int(os.environ.get("GLM_HISTORIES", "12"))))
def test_no_history_leaves_anything_unnamed_or_ends_what_is_not_ours(cloud: Handle, clock: Clock, seed: int) -> None:
    through, said = random_history(cloud, clock, random.Random(seed))
    left = [item for item in cloud.state()["instances"] if item["status"] in ("booting", "active", "unhealthy")]
    names = [item["name"] for item in left]
    assert set(THEIRS) <= set(names), f"seed {seed}: what is not ours was ended\n{said}"
    ours = [item for item in left if item["name"] not in THEIRS]
    assert not through or not ours, f"seed {seed}: called done with something left\n{said}"
    assert all(item["id"] in said for item in ours), f"seed {seed}: left without being named\n{said}"
    print(f"seed {seed}: {'left and named' if ours else 'nothing of ours left'}")
