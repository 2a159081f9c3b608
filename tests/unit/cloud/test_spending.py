"""What a ledger's instances cost, to the cent: histories made by hand, and that recorded spend never falls."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, spending

Line = tuple[Any, ...]


def at(text: str) -> str:
    """``11-29 07:30`` of 2026, or with a year and seconds, as in events."""
    date, clock = text.split()
    date = date if date.count("-") == 2 else f"2026-{date}"
    return f"{date}T{clock if clock.count(':') == 2 else f'{clock}:00'}Z"


def event(kind: ledger.Kind, when: str, name: str, price: Any = None, identifier: str = "", why: str = "") -> Any:
    more = {"names": [name], "ids": [identifier] if identifier else [], "usd_per_hour": price, "why": why}
    launch = "" if kind in ("ending", "gone") and identifier else name
    return ledger.event(kind, fleet="f", account="a", run="r", at=at(when), launch=launch, **more)


def asked(when: str, name: str, price: Any) -> Any:
    return event("asked", when, name, price)


def launched(when: str, name: str) -> Any:
    return event("launched", when, name, identifier=f"id-{name}")


def ending(when: str, name: str, price: Any = None) -> Any:
    return event("ending", when, name, price, f"id-{name}", "terminate")


def going(when: str, name: str) -> Any:
    return event("ending", when, name, identifier=f"id-{name}", why=ledger.GOING)


def missing(when: str, name: str) -> Any:
    return event("missing", when, name, identifier=f"id-{name}", why="not listed")


def seen(when: str, name: str, price: Any = None) -> Any:
    return event("seen", when, name, price, f"id-{name}")


def gone(when: str, name: str) -> Any:
    return event("gone", when, name, identifier=f"id-{name}", why="not listed any more")


def said(amount: spending.Amount) -> str:
    return f"{'at least ' if amount.at_least else ''}{amount.cents():.2f} USD"


def months_of(spent: list[spending.Spent]) -> dict[str, spending.Amount]:
    return spending.by_month(one.bill for one in spent if one.certain)


NOW = "12-02 00:00"
HISTORIES: dict[str, tuple[list[Any], str, dict[str, str], str, str]] = {
    # events, now, months, total, what launches without an outcome may cost
    "nothing was launched": ([], NOW, {}, "0.00 USD", "0.00 USD"),
    "an hour and a half": (
        [asked("11-29 07:00", "x", 53.52), launched("11-29 07:00:05", "x"), gone("11-29 08:30", "x")],
        NOW, {"2026-11": "80.28 USD"}, "80.28 USD", "0.00 USD",
    ),
    "a begun minute is billed whole": (
        # 31 minutes at 6.99: 3.6115
        [asked("11-29 07:00", "x", 6.99), launched("11-29 07:00:05", "x"), gone("11-29 07:30:01", "x")],
        NOW, {"2026-11": "3.61 USD"}, "3.61 USD", "0.00 USD",
    ),
    "over the end of a month": (
        # 30 minutes in each month at 10.00, though the months begin in the middle of nothing
        [asked("11-30 23:30", "x", 10), launched("11-30 23:30", "x"), gone("12-01 00:30", "x")],
        NOW, {"2026-11": "5.00 USD", "2026-12": "5.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "a minute over the end of a month belongs where it began": (
        [asked("11-30 23:59:30", "x", 60), launched("11-30 23:59:30", "x"), gone("12-01 00:00:20", "x")],
        NOW, {"2026-11": "1.00 USD"}, "1.00 USD", "0.00 USD",
    ),
    "over the end of a year, for two months": (
        # 24 h + 744 h + 12 h at 1.29
        [asked("2026-11-30 00:00", "x", 1.29), launched("2026-11-30 00:00", "x"), gone("2027-01-01 12:00", "x")],
        "2027-02-01 00:00", {"2026-11": "30.96 USD", "2026-12": "959.76 USD", "2027-01": "15.48 USD"},
        "1006.20 USD", "0.00 USD",
    ),
    "a leap day": (
        # 29 days of February 2028 at 2.00
        [asked("2028-02-01 00:00", "x", 2), launched("2028-02-01 00:00", "x"), gone("2028-03-01 00:00", "x")],
        "2028-03-02 00:00", {"2028-02": "1392.00 USD"}, "1392.00 USD", "0.00 USD",
    ),
    "the price rose while it ran": (
        # It is known from 09:00 on; 2 h at 3.78, 1 h at 4.29
        [asked("11-29 07:00", "x", 3.78), launched("11-29 07:00", "x"), ending("11-29 09:00", "x", 4.29),
         gone("11-29 10:00", "x")],
        NOW, {"2026-11": "11.85 USD"}, "11.85 USD", "0.00 USD",
    ),
    "the price was not known before": (
        [asked("11-29 07:00", "x", None), launched("11-29 07:00", "x"), ending("11-29 09:00", "x", 4),
         gone("11-29 10:00", "x")],
        NOW, {"2026-11": "12.00 USD"}, "12.00 USD", "0.00 USD",
    ),
    "the price of one of two is never known": (
        [asked("11-29 07:00", "x", None), launched("11-29 07:00", "x"), gone("11-29 10:00", "x"),
         asked("11-29 07:00", "y", 1), launched("11-29 07:00", "y"), gone("11-29 10:00", "y")],
        NOW, {"2026-11": "at least 3.00 USD"}, "at least 3.00 USD", "0.00 USD",
    ),
    "a price that is none": (
        [asked("11-29 07:00", "x", float("nan")), launched("11-29 07:00", "x"), gone("11-29 10:00", "x"),
         asked("11-29 07:00", "y", -5), launched("11-29 07:00", "y"), gone("11-29 10:00", "y")],
        NOW, {"2026-11": "at least 0.00 USD"}, "at least 0.00 USD", "0.00 USD",
    ),
    "never ended": (
        # 2 h of November and 24 h of December
        [asked("11-30 22:00", "x", 53.52), launched("11-30 22:00:04", "x")],
        NOW, {"2026-11": "107.04 USD", "2026-12": "1284.48 USD"}, "1391.52 USD", "0.00 USD",
    ),
    "its end was asked for and never seen": (
        [asked("12-01 22:00", "x", 10), launched("12-01 22:00", "x"), ending("12-01 23:00", "x")],
        NOW, {"2026-12": "20.00 USD"}, "20.00 USD", "0.00 USD",
    ),
    "billed until the account showed it terminating, however late somebody looked again": (
        [asked("11-29 20:00", "x", 10), launched("11-29 20:00", "x"), ending("11-29 21:00", "x"),
         going("11-29 21:01", "x"), gone("12-01 21:00", "x")],
        NOW, {"2026-11": "10.17 USD"}, "10.17 USD", "0.00 USD",
    ),
    "terminating and never looked at again": (
        [asked("11-29 20:00", "x", 10), launched("11-29 20:00", "x"), going("11-29 21:00", "x")],
        NOW, {"2026-11": "10.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "about to be ended again after it was terminating": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), going("12-01 21:00", "x"),
         ending("12-01 22:00", "x"), gone("12-01 23:00", "x")],
        NOW, {"2026-12": "30.00 USD"}, "30.00 USD", "0.00 USD",
    ),
    "gone without our doing": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), gone("12-01 21:00", "x")],
        NOW, {"2026-12": "10.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "refused, then launched at another price in the same second": (
        [asked("12-01 20:00", "x", 99), event("refused", "12-01 20:00", "x"), asked("12-01 20:00", "x", 10),
         launched("12-01 20:00", "x"), gone("12-01 21:00", "x")],
        NOW, {"2026-12": "10.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "refused": (
        [asked("12-01 20:00", "x", 99), event("refused", "12-01 20:00", "x")], NOW, {}, "0.00 USD", "0.00 USD",
    ),
    "no outcome": (
        [asked("12-01 23:00", "x", 10), event("unknown", "12-01 23:01", "x")], NOW, {}, "0.00 USD", "10.00 USD",
    ),
    "killed before the answer": ([asked("12-01 23:30", "x", 10)], NOW, {}, "0.00 USD", "5.00 USD"),
    "no outcome, found later": (
        [asked("12-01 20:00", "x", 10), event("unknown", "12-01 20:01", "x"), launched("12-01 20:05", "x"),
         gone("12-01 22:00", "x")],
        NOW, {"2026-12": "20.00 USD"}, "20.00 USD", "0.00 USD",
    ),
    "no outcome, never listed": (
        [asked("12-01 20:00", "x", 10), event("unknown", "12-01 20:01", "x"), event("gone", "12-01 20:40", "x")],
        NOW, {}, "0.00 USD", "0.00 USD",
    ),
    "seen again after it was gone": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), gone("12-01 21:00", "x"),
         ending("12-01 22:00", "x"), gone("12-01 22:30", "x")],
        NOW, {"2026-12": "25.00 USD"}, "25.00 USD", "0.00 USD",
    ),
    "launched elsewhere, ended here": (
        [ending("12-01 20:00", "x", 10), gone("12-01 20:30", "x")],
        NOW, {"2026-12": "at least 5.00 USD"}, "at least 5.00 USD", "0.00 USD",
    ),
    "not listed once, and gone when that was proven": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), missing("12-01 21:00", "x"),
         gone("12-01 23:00", "x")],
        NOW, {"2026-12": "10.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "not listed once, and there all the same": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), missing("12-01 21:00", "x"),
         seen("12-01 23:00", "x")],
        NOW, {"2026-12": "40.00 USD"}, "40.00 USD", "0.00 USD",
    ),
    "gone by mistake": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), gone("12-01 21:00", "x"),
         seen("12-01 23:00", "x", 20)],
        # Nobody saw the price before 23:00.
        NOW, {"2026-12": "50.00 USD"}, "50.00 USD", "0.00 USD",
    ),
    "launched elsewhere, found by its tags, ended here": (
        [seen("12-01 20:00", "x", 10), ending("12-01 21:00", "x", 10), gone("12-01 22:00", "x")],
        NOW, {"2026-12": "20.00 USD"}, "20.00 USD", "0.00 USD",
    ),
    "kept by a run that came to its end after it was ended": (
        [asked("12-01 20:00", "x", 10), launched("12-01 20:00", "x"), going("12-01 21:00", "x"),
         event("kept", "12-01 21:01", "x", identifier="id-x")],
        NOW, {"2026-12": "10.00 USD"}, "10.00 USD", "0.00 USD",
    ),
    "the clock stepped back": (
        [asked("12-01 20:00", "x", 60), launched("12-01 20:00", "x"), gone("12-01 19:00", "x")],
        NOW, {"2026-12": "1.00 USD"}, "1.00 USD", "0.00 USD",
    ),
    "half a cent goes up": (
        # 3 minutes at 0.10: 0.005
        [asked("12-01 20:00", "x", 0.1), launched("12-01 20:00", "x"), gone("12-01 20:03", "x")],
        NOW, {"2026-12": "0.01 USD"}, "0.01 USD", "0.00 USD",
    ),
    "sums are rounded, not their parts": (
        # three times 0.333… of a cent
        [one for name in "xyz" for one in (asked("12-01 20:00", name, 0.2), launched("12-01 20:00", name),
                                           gone("12-01 20:01", name))],
        NOW, {"2026-12": "0.01 USD"}, "0.01 USD", "0.00 USD",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_made_by_hand_is_right_to_the_cent(name: str) -> None:
    events, now, months, total, possible = HISTORIES[name]
    spent = spending.spent_of(events, ledger.seconds_of(at(now)))
    assert {month: said(amount) for month, amount in months_of(spent).items()} == months
    assert said(spending.sum_of(spent)) == total
    assert said(spending.sum_of(spent, certain=False)) == possible


def test_a_torn_ledger_counts_what_was_asked_for_as_possible() -> None:
    events = [asked("12-01 23:00", "x", 10), launched("12-01 23:00", "x"), asked("12-01 23:30", "y", 10)]
    lines = [json.dumps(one).encode() for one in events]
    torn = [*lines, json.dumps(launched("12-01 23:30", "y")).encode()[:50]]
    spent = spending.spent_of(ledger.events_in(torn), ledger.seconds_of(at(NOW)))
    assert said(spending.sum_of(spent)) == "10.00 USD"
    assert said(spending.sum_of(spent, certain=False)) == "5.00 USD"


def test_a_launch_of_several_instances_costs_each() -> None:
    made = ledger.event("launched", fleet="f", account="a", run="", at=at("12-01 20:00"), names=["x"], ids=["1", "2"],
                        launch="x")  # fmt: skip
    spent = spending.spent_of([asked("12-01 20:00", "x", 10), made], ledger.seconds_of(at("12-01 21:00")))
    assert said(spending.sum_of(spent)) == "20.00 USD"


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ("gone without our doing", "not listed any more"),
        ("billed until the account showed it terminating, however late somebody looked again", "terminate"),
        ("terminating and never looked at again", ledger.GOING),
        ("its end was asked for and never seen", "terminate"),
        ("never ended", ""),
        ("no outcome", ""),
    ],
)
def test_what_ended_says_why(history: str, why: str) -> None:
    spent = spending.spent_of(HISTORIES[history][0], ledger.seconds_of(at(NOW)))
    assert [one.why for one in spent] == [why]


@pytest.mark.parametrize(
    ("moment", "month"),
    [("2028-02-29 23:59:59", "2028-02-01 2028-03-01"), ("2026-12-31 23:59:59", "2026-12-01 2027-01-01"),
     ("2027-01-01 00:00", "2027-01-01 2027-02-01")],
)  # fmt: skip
def test_months_are_those_of_the_calendar(moment: str, month: str) -> None:
    found = spending.month_of(ledger.seconds_of(at(moment)))
    assert " ".join(ledger.stamp(end)[:10] for end in found) == month


START = int(ledger.seconds_of(at("2028-02-27 00:00")))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ledger.KINDS), st.sampled_from("xyz"), st.integers(0, 40 * 3600),
        st.sampled_from([None, 0.1, 6.99, 53.52, 0, -1]), st.booleans(), st.sampled_from(["", ledger.GOING]),
    ),
    max_size=12,
)  # fmt: skip


def made_of(kind: ledger.Kind, name: str, when: int, price: Any, by_id: bool, why: str) -> ledger.Event:
    with_id = kind in ("launched", "seen") or (kind in ("ending", "missing", "gone", "kept") and by_id)
    more = {"names": [name], "ids": [f"id-{name}"] if with_id else [], "usd_per_hour": price, "launch": name}
    return ledger.event(kind, fleet="f", account="a", run="r", why=why, at=ledger.stamp(when), **more)


@given(STEPS, st.integers(0, 40 * 24 * 3600))
@example([("launched", "x", 0, 6.99, False, ""), ("launched", "x", 0, 0.1, False, "")], 0)
def test_recorded_spend_never_falls(steps: list[Line], later: int) -> None:
    """Whatever is written and however time goes on, in total and in each month; and months add up to the total."""
    events: list[ledger.Event] = []
    now, before, months = START, Fraction(0), dict[str, Fraction]()
    for kind, name, wait, price, by_id, why in [*steps, ("", "", later, None, False, "")]:
        now += wait
        if kind:
            events.append(made_of(kind, name, now, price, by_id, why))
        spent = spending.spent_of(events, now)
        found = {month: amount.usd for month, amount in months_of(spent).items()}
        assert spending.sum_of(spent).usd >= before
        assert all(found.get(month, 0) >= usd for month, usd in months.items())
        assert sum(found.values()) == spending.sum_of(spent).usd
        before, months = spending.sum_of(spent).usd, found


@given(st.lists(st.integers(0, 3 * 24 * 3600), min_size=1, max_size=6), st.integers(1, 4 * 24 * 3600))
def test_parts_of_a_time_add_up(cuts: list[int], length: int) -> None:
    bill = spending.Bill(START + 17, START + 17 + length, ((START, Fraction(7, 3)), (START + 5000, Fraction(11))))
    edges = [START, *(START + cut for cut in sorted(cuts)), START + 10 * 24 * 3600]
    parts = [bill.between(begin, end) for begin, end in zip(edges, edges[1:], strict=False)]
    assert spending.total(parts) == bill.total()
