"""The report of what accounts cost: what is not known is never nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import cost, holdings

NOW = ledger.seconds_of("2026-11-29T08:00:00Z")
HOUR = 3600.0


def held(name: str, **more: Any) -> holdings.Holding:
    given = {"kind": "instance", "fleet": "blue", "usd_per_hour": 10.0, "since": NOW - 2 * HOUR, **more}
    return holdings.Holding("lambda", id=f"id-{name}", name=name, **given)


def seen(*items: holdings.Holding, **unread: str) -> holdings.Seen:
    return holdings.Seen("lambda", "a", list(items), unread, whole="instances" not in unread)


def book(*names: str, fleet: str = "blue", usd: Any = 10.0, hours: float = 3, account: str = "a") -> cost.Book:
    events = []
    for name in names:
        at = ledger.stamp(NOW - hours * HOUR)
        more = {"fleet": fleet, "account": account, "run": "r", "names": [name], "launch": name, "at": at}
        events += [ledger.event("asked", usd_per_hour=usd, **more)]
        events += [ledger.event("launched", ids=[f"id-{name}"], **more)]
    return cost.Book("lambda", fleet, events)


def report(*items: holdings.Holding, books: Any = (), wanted: Any = None, **unread: str) -> cost.CostReport:
    return cost.report([seen(*items, **unread)], books, wanted or cost.Wanted("blue"), NOW)


def test_an_instance_costs_what_its_ledger_says_else_what_its_tag_says() -> None:
    found = report(held("a"), held("b"), books=[book("a")])
    assert {item["name"]: (item["hours"], item["cost"]) for item in found["items"]} == {
        "a": (3.0, {"usd": 30.0, "at_least": False}), "b": (2.0, {"usd": 20.0, "at_least": False}),
    }  # fmt: skip
    [fleet] = found["fleets"]
    assert found["ok"] and fleet["spent"] == {"usd": 50.0, "at_least": False}
    assert fleet["months"] == {"2026-11": {"usd": 50.0, "at_least": False}}
    assert found["usd_per_hour"] == {"usd": 20.0, "at_least": False}


@pytest.mark.parametrize(
    ("item", "cost_of_it", "price"),
    [
        (held("a", usd_per_hour=None), None, {"usd": 0.0, "at_least": True}),
        (held("a", usd_per_hour=float("nan")), None, {"usd": 0.0, "at_least": True}),
        (held("a", since=None), None, {"usd": 10.0, "at_least": False}),
    ],
)
def test_what_is_not_known_is_not_nothing(item: holdings.Holding, cost_of_it: Any, price: Any) -> None:
    found = report(item, held("b"))
    assert next(one for one in found["items"] if one["name"] == "a")["cost"] == cost_of_it
    assert found["usd_per_hour"] == {"usd": price["usd"] + 10.0, "at_least": price["at_least"]}
    assert found["fleets"][0]["spent"] == {"usd": 20.0, "at_least": True}
    shown = "\n".join(cost.lines(found))
    assert "unknown" in shown and "recorded at least 20.00 USD" in shown


def test_a_part_that_was_not_read_makes_every_sum_at_least_and_the_report_bad() -> None:
    found = report(held("a"), books=[book("a")], instances="HTTP 503")
    assert not found["ok"] and found["problems"] == ["lambda: instances could not be read: HTTP 503"]
    assert found["usd_per_hour"]["at_least"] and found["fleets"][0]["spent"]["at_least"]
    assert found["fleets"][0]["months"]["2026-11"]["at_least"]


@pytest.mark.parametrize(("part", "said"), [("problem", "could not be read"), ("unkept", "could not be kept")])
def test_a_ledger_that_cannot_be_used_is_a_problem_of_its_fleet_alone(part: str, said: str) -> None:
    green = cost.Book("lambda", "green", problem="denied" if part == "problem" else "")
    account = seen(held("a"))
    account.unkept = {"green": "full"}
    found = cost.report([account], [book("a"), green], cost.Wanted("blue"), NOW)
    [problem] = found["problems"]
    assert not found["ok"] and problem.startswith("lambda, fleet green: ") and said in problem
    assert {one["fleet"]: one["spent"]["at_least"] for one in found["fleets"]} == {"blue": False, "green": True}
    assert found["usd_per_hour"] == {"usd": 10.0, "at_least": False}


def test_what_the_ledger_says_is_gone_and_the_account_shows_goes_on_costing() -> None:
    gone = ledger.event("gone", fleet="blue", account="a", run="", ids=["id-a"], at=ledger.stamp(NOW - 2 * HOUR))
    events = [*book("a").events, gone]
    assert report(books=[cost.Book("lambda", "blue", events)])["fleets"][0]["spent"]["usd"] == 10.0
    assert report(held("a"), books=[cost.Book("lambda", "blue", events)])["fleets"][0]["spent"]["usd"] == 30.0


@pytest.mark.parametrize(
    ("account", "unread", "said"),
    [
        ("a", {}, "but not listed: its end is not proven"),
        ("a", {"instances": "HTTP 503"}, "and its account was not read"),
        ("a", {"file_systems": "HTTP 503"}, "but not listed: its end is not proven"),
        ("another key's", {}, "and its account was not read"),
    ],
)
def test_what_is_open_and_not_listed_is_named(account: str, unread: dict[str, str], said: str) -> None:
    recorded = book("a", "b", account=account)
    found = report(held("a"), books=[recorded], **unread)
    shown = "\n".join(cost.lines(found))
    assert f"b (id-b) is open in the ledger, {said}" in shown and "a (id-a) is open" not in shown
    listed = {one["name"]: one["listed"] for one in found["fleets"][0]["history"]}
    assert listed == {"a": True, "b": None if "not read" in said else False}


def test_what_belongs_to_no_fleet_is_in_the_table_and_the_total() -> None:
    disk = held("d", kind="file system", fleet="", usd_per_hour=0.0123456, estimated=True, type="45.1 GiB")
    found = report(held("box", fleet="", owner="ann", protected=True), disk)
    assert found["fleets"] == [] and found["usd_per_hour"]["usd"] == 10.01
    shown = cost.lines(found)
    box = next(line for line in shown if " box " in line)
    assert box.startswith("(none)") and "ann" in box and "protected" in box and "20.00" in box
    assert "~0.01" in "\n".join(shown) and "estimated" in shown[-1]


@pytest.mark.parametrize(
    ("expires", "past"),
    [("2026-11-29T08:00:00Z", True), ("2026-11-29T07:00:00Z", True), ("2026-11-29T08:00:01Z", False), ("soon", False),
     ("2026-11-28", False), ("", False)],
)  # fmt: skip
def test_what_is_past_its_time_makes_the_report_bad(expires: str, past: bool) -> None:
    found = report(held("a", expires=expires))
    assert found["items"][0]["expired"] is past and found["ok"] is not past


def test_a_budget_that_is_passed_makes_the_report_bad() -> None:
    for limit, ok in ((30.0, True), (29.99, False)):
        found = report(held("a"), books=[book("a")], wanted=cost.Wanted("blue", limit))
        assert found["ok"] is ok
    assert found["problems"] == ["lambda, fleet blue: 30.00 USD in 2026-11, more than its budget of 29.99 USD"]
    assert report(held("a"), books=[book("a")], wanted=cost.Wanted("green", 1.0))["ok"]


@pytest.mark.parametrize(
    ("items", "books"),
    [
        ([held("x", usd_per_hour=None)], [book("a")]),
        ([held("x", since=None)], []),
        ([], [book("a"), book("x", usd=None)]),
        ([], [cost.Book("lambda", "blue", problem="denied")]),
    ],
)
def test_what_is_not_known_is_never_within_a_budget(items: list[holdings.Holding], books: list[cost.Book]) -> None:
    found = report(*items, books=books, wanted=cost.Wanted("blue", 1000.0))
    assert found["problems"][-1].endswith("USD in 2026-11: that it is within its budget of 1000.00 USD is not known")
    assert found["problems"][-1].startswith("lambda, fleet blue: at least ")
    assert not [line for line in report(*items, books=books)["problems"] if "budget" in line]


@pytest.mark.parametrize(
    ("tokens", "until", "price"),
    # Two hours at 10.00 had passed when they were counted.
    [(4_000_000, NOW - HOUR, 5.0), (4_000_000, NOW, 7.5), (0, NOW, None)],
)
def test_tokens_cost_what_was_spent_up_to_their_count(tokens: int, until: float, price: Any) -> None:
    wanted = cost.Wanted("blue", None, cost.Tokens(tokens, until))
    found = report(held("a"), books=[book("a")], wanted=wanted)
    assert found["fleets"][0]["usd_per_million_tokens"] == price
    assert ("per million tokens" in "\n".join(cost.lines(found))) is (price is not None)
    others = report(held("a"), books=[book("a")], wanted=cost.Wanted("green", None, wanted.tokens))
    assert others["fleets"][0]["usd_per_million_tokens"] is None
    unknown = report(held("a"), books=[book("a", usd=None)], wanted=wanted)
    assert unknown["fleets"][0]["usd_per_million_tokens"] == price
    assert report(books=[book("a", usd=None)], wanted=wanted)["fleets"][0]["usd_per_million_tokens"] is None


def test_launches_without_an_outcome_are_said_apart() -> None:
    asked = ledger.event("asked", fleet="blue", account="a", run="", names=["x"], launch="x", usd_per_hour=5.0,
                         at=ledger.stamp(NOW - HOUR))  # fmt: skip
    found = report(books=[cost.Book("lambda", "blue", [asked])])
    assert found["fleets"][0]["spent"] == {"usd": 0.0, "at_least": False}
    assert "launches without a known outcome may have cost 5.00 USD more" in "\n".join(cost.lines(found))


def test_tokens_are_summed_over_keys_and_hosts() -> None:
    rows = [{"prompt_tokens": "10", "completion_tokens": "5"}, {"prompt_tokens": "", "completion_tokens": None}, {}]
    assert cost.tokens_in(rows) == 15


def test_how_long_nobody_asked_is_what_its_host_says_and_nothing_else() -> None:
    wanted = cost.Wanted("blue", active={"id-a": ledger.stamp(NOW - 5 * HOUR), "id-b": ""})
    found = report(held("a"), held("b"), held("c"), held("d", kind="file system"), wanted=wanted)
    idle = {item["name"]: (item["idle_hours"], item["last_active"]) for item in found["items"]}
    assert idle["a"] == (5.0, "2026-11-29T03:00:00Z") and {idle[name] for name in "bcd"} == {(None, None)}
    column = cost.lines(found)[0].index("IDLE")
    assert [line[column:].split("  ")[0] for line in cost.lines(found)[1:5]] == ["5.0 h", "unknown", "unknown", "-"]


def test_what_has_ended_is_shown_with_its_cost_and_reason_the_latest_last() -> None:
    names = [f"n{number}" for number in range(7)]
    whole = book(*names)
    for number, name in enumerate(names):
        at = ledger.stamp(NOW - HOUR + number)
        more = {"fleet": "blue", "account": "a", "run": "r", "names": [name], "ids": [f"id-{name}"], "at": at}
        whole.events.append(ledger.event("ending", why=f"reason {number}", **more))
        whole.events.append(ledger.event("gone", why="not listed any more", **more))
    shown = [line for line in cost.lines(report(books=[whole])) if "ended" in line]
    assert "n2 (id-n2, type unknown) ended, since 2026-11-29T05:00:00Z: 20.17 USD; reason 2" in shown[0]
    assert len(shown) == 6 and "n6 (" in shown[4] and shown[5].endswith("2 more have ended before: see cost.json")
