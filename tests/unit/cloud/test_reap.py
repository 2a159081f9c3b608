"""Which instances are past their time, and which are kept in doubt."""

from __future__ import annotations

import json
import os
from typing import Any, cast

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, run_alive
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import cost, holdings, reap

NOW = ledger.seconds_of("2026-11-29T08:00:00Z")
PAST, LATER = "2026-11-29T07:59:59Z", "2026-11-29T08:00:01Z"


def held(name: str, **more: Any) -> holdings.Holding:
    given = {"kind": "instance", "fleet": "f", "usd_per_hour": 10.0, "expires": PAST, **more}
    return holdings.Holding("lambda", id=f"id-{name}", name=name, **given)


def events(*names: str, expires: str = "") -> list[ledger.Event]:
    more = {"fleet": "f", "account": "a", "run": "r", "at": "2026-11-29T06:00:00Z"}
    made = [ledger.event("launched", names=[name], ids=[f"id-{name}"], launch=name, **more) for name in names]
    kept = [ledger.event("kept", names=[name], ids=[f"id-{name}"], expires=expires, **more) for name in names]
    return made + (kept if expires else [])


def decided(
    *items: holdings.Holding,
    book: list[ledger.Event] | None = None,
    problem: str = "",
    unrecorded: bool = False,
    said: dict[str, reap.Said] | None = None,
    hard: bool = False,
) -> reap.Decision:
    """``said``: by default each host answers that no request runs."""
    written = events(*(item.name for item in items)) if book is None else book
    found = cost.report(
        [holdings.Seen("lambda", "a", list(items))], [cost.Book("lambda", "f", written, problem)], cost.Wanted(), NOW
    )
    quiet = {item.id: reap.Said(open=0, idle="", follows="", active="") for item in items}
    return reap.decide(found["items"], unrecorded, said=quiet if said is None else said, hard=hard)


def test_what_is_past_its_time_ends_by_fleet_and_id_and_nothing_else() -> None:
    found = decided(held("a"), held("b", expires=LATER), held("c", expires=""), held("d"), held("e", fleet="g"))
    assert [(one["fleet"], one["ids"]) for one in found["past"]] == [("f", ["id-a", "id-d"]), ("g", ["id-e"])]
    assert found["protected"] == found["doubtful"] == []
    assert found["past"][1]["described"] == f"e (id-e, fleet g, 10.00 USD per hour, expires {PAST})"


def test_what_is_protected_is_kept() -> None:
    found = decided(held("a", protected=True), held("b", protected=True, expires=LATER))
    assert found["past"] == found["doubtful"] == [] and found["protected"] == [
        f"a (id-a, fleet f, 10.00 USD per hour, expires {PAST}): protected by its tag"
    ]


def test_what_a_run_is_at_work_on_is_kept() -> None:
    own = run_alive.run_of(os.getpid())
    written = [{**event, "run": own} if event["names"] == ["a"] else event for event in events("a", "b")]
    book = cost.Book("lambda", "f", cast(list[ledger.Event], written))
    assert reap.at_work([book]) == {"id-a"}
    items = cost.report([holdings.Seen("lambda", "a", [held("a"), held("b")])], [book], cost.Wanted(), NOW)["items"]
    found = reap.decide(items, False, reap.at_work([book]), hard=True)
    assert [one["ids"] for one in found["past"]] == [["id-b"]]
    assert "a (id-a" in found["protected"][0] and "the run that launched it is still at work" in found["protected"][0]


@pytest.mark.parametrize(
    ("item", "book", "reason"),
    [
        (held("a"), [], "no ledger here has it"),
        (held("a", fleet=""), None, "no tag glm-fleet"),
        (held("a", expires="tomorrow"), None, "no moment in UTC"),
        (held("a", expires="2026-11-29T07:00:00"), None, "no moment in UTC"),
    ],
)
def test_in_doubt_it_is_kept_and_said(item: holdings.Holding, book: Any, reason: str) -> None:
    found = decided(item, book=book)
    assert found["past"] == [] and len(found["doubtful"]) == 1 and reason in found["doubtful"][0]


def test_a_ledger_that_cannot_be_read_is_a_doubt() -> None:
    assert decided(held("a"), book=[], problem="denied")["past"] == []


def test_what_no_ledger_has_ends_only_if_that_is_asked_for() -> None:
    assert decided(held("a"), book=[], unrecorded=True)["past"][0]["ids"] == ["id-a"]


@pytest.mark.parametrize(
    ("expires", "ends"), [(LATER, False), (PAST, True), ("2026-11-29T01:00:00Z", True), ("x", True)]
)
def test_a_run_that_extended_the_time_is_believed(expires: str, ends: bool) -> None:
    assert bool(decided(held("a"), book=events("a", expires=expires))["past"]) is ends


def test_disks_and_addresses_do_not_expire() -> None:
    assert decided(held("a", kind="file system"), held("b", kind="address"))["past"] == []


def test_what_serves_requests_is_kept_unless_it_is_to_be_ended_hard() -> None:
    running: dict[str, reap.Said] = {"id-a": {"open": 3, "idle": "", "follows": ""}}
    found = decided(held("a"), said=running)
    assert found["past"] == found["doubtful"] == [] and found["protected"][0].endswith(": 3 request(s) run")
    assert [one["ids"] for one in decided(held("a"), said=running, hard=True)["past"]] == [["id-a"]]


@pytest.mark.parametrize("said", [{}, {"id-a": reap.Said(open=None, idle="", follows="", active="")}])
def test_a_host_that_does_not_say_whether_requests_run_is_kept_in_doubt(said: dict[str, reap.Said]) -> None:
    found = decided(held("a"), said=said)
    assert found["past"] == found["protected"] == []
    assert "its host does not say whether requests run (glm_reap_hard=true" in found["doubtful"][0]
    assert [one["ids"] for one in decided(held("a"), said=said, hard=True)["past"]] == [["id-a"]]


@pytest.mark.parametrize("expires", ["", LATER, PAST])
def test_what_nobody_has_asked_for_long_is_past_its_time(expires: str) -> None:
    idle = reap.Said(open=0, idle="no request since 2026-11-29T06:00:00Z", follows="", active="")
    busy = reap.Said(open=0, idle="", follows="", active="")
    found = decided(held("a", expires=expires), held("b", expires=""), said={"id-a": idle, "id-b": busy})
    assert [one["ids"] for one in found["past"]] == [["id-a"]]
    why = f"expires {PAST}" if expires == PAST else "no request since 2026-11-29T06:00:00Z"
    assert found["past"][0]["described"].endswith(f"{why})")
    kept = decided(held("a", expires=expires, protected=True), said={"id-a": idle})
    assert kept["past"] == [] and kept["protected"]
    stranger = decided(held("a", expires=expires), book=[], said={"id-a": idle})
    assert stranger["past"] == [] and "no ledger here has it" in stranger["doubtful"][0]


@pytest.mark.parametrize(
    "text",
    ["", "no such file", "{}", "[]", '{"open": true, "idle": "", "follows": ""}', '{"open": 1, "idle": ""}',
     '{"open": 1.5, "idle": "", "follows": ""}', '{"open": 1, "idle": "", "follows": null}'],
)  # fmt: skip
def test_what_is_no_answer_says_nothing(text: str) -> None:
    assert reap.said_in(text) is None
    said = {"open": None, "idle": "x", "follows": "", "active": "2026-11-29T06:00:00Z"}
    assert reap.said_in(json.dumps(said)) == said
    for earlier in ({}, {"active": "lately"}, {"active": None}):
        assert reap.said_in(json.dumps({"open": None, "idle": "x", "follows": "", **earlier})) == {**said, "active": ""}


def test_the_first_host_of_a_replica_answers_for_the_others() -> None:
    busy, follower = (
        reap.Said(open=2, idle="", follows="", active=""),
        reap.Said(open=None, idle="", follows="10.0.0.1", active=""),
    )
    lost = reap.Said(open=None, idle="", follows="10.0.0.9", active="")
    answers = [
        ("head", ["10.0.0.1", "203.0.113.1"], busy),
        ("worker", ["10.0.0.2"], follower),
        ("x", ["10.0.0.3"], lost),
    ]
    assert reap.by_id(answers) == {"head": busy, "worker": busy}
