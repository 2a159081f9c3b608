"""The budget of a month: spent, running, to be launched, and what is not known; by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import budget, ledger

# Ten hours before the month ends.
NOW = ledger.seconds_of("2026-11-30T14:00:00Z")
HOUR = 3600.0


def running(name: str = "x", price: Any = 10.0, **more: Any) -> budget.Running:
    return budget.Running(f"id-{name}", name, price, **more)


def life(
    name: str, hours: float, price: Any = 10.0, made: bool = True, gone: Any = None, account: str = "a"
) -> list[Any]:
    def event(kind: ledger.Kind, before: float, **more: Any) -> ledger.Event:
        at = ledger.stamp(NOW - before * HOUR)
        return ledger.event(kind, fleet="f", account=account, run="r", names=[name], launch=name, at=at, **more)

    found = [event("asked", hours, usd_per_hour=price)]
    if made:
        found.append(event("launched", hours, ids=[f"id-{name}"]))
    if gone is not None:
        found.append(event("gone", gone, ids=[f"id-{name}"]))
    return found


def extended(events: list[ledger.Event], until: float) -> list[ledger.Event]:
    more = {"ids": ["id-x"], "names": ["x"], "expires": ledger.stamp(until), "at": ledger.stamp(NOW - HOUR)}
    return [*events, ledger.event("kept", fleet="f", account="a", run="r", **more)]


def ended_here(price: Any) -> list[Any]:
    """Launched nobody knows when, and ended two hours ago."""
    more: dict[str, Any] = {"fleet": "f", "account": "a", "run": "r", "names": ["x"], "ids": ["id-x"]}
    asked = ledger.event("ending", at=ledger.stamp(NOW - 3 * HOUR), usd_per_hour=price, **more)
    return [asked, ledger.event("gone", at=ledger.stamp(NOW - 2 * HOUR), **more)]


def forecast(events: Any = (), *listed: budget.Running, leaving: Any = (), **wish: Any) -> budget.Forecast:
    wanted = budget.Wish(**{"number": 1, "type": "t", "usd_per_hour": 10.0, **wish})
    return budget.forecast(events, "a", listed, set(leaving), wanted, NOW)


def parts(found: budget.Forecast) -> tuple[float, float, float, list[str]]:
    return float(found.spent), float(found.running), float(found.more), list(found.unknown)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (forecast(), (0, 0, 100, [])),
        (forecast(number=3, usd_per_hour=53.52), (0, 0, 1605.6, [])),
        (forecast(expires=NOW + 4 * HOUR), (0, 0, 40, [])),
        (forecast(expires=NOW + 400 * HOUR), (0, 0, 100, [])),
        # What ran and is gone, and what still runs.
        (forecast(life("x", 5, gone=2)), (30, 0, 100, [])),
        (forecast(life("x", 5), running()), (50, 100, 100, [])),
        (forecast(life("x", 5), running(expires=NOW + HOUR)), (50, 10, 100, [])),
        # Past its time, but nobody has ended it.
        (forecast(life("x", 5), running(expires=NOW - HOUR)), (50, 100, 100, [])),
        (forecast(extended(life("x", 5), NOW + 3 * HOUR), running(expires=NOW + HOUR)), (50, 30, 100, [])),
        (forecast(extended(life("x", 5), NOW + HOUR), running(expires=NOW + 3 * HOUR)), (50, 30, 100, [])),
        (forecast(extended(life("x", 5), NOW + 3 * HOUR), running()), (50, 100, 100, [])),
        (forecast(life("x", 5), running(), leaving=["id-x"]), (50, 0, 100, [])),
        # The price rose: what is spent was spent at the old one.
        (forecast(life("x", 5), running(price=20.0)), (50, 200, 100, [])),
        # October is another month's.
        (forecast(life("x", 24 * 40, gone=24 * 35)), (0, 0, 100, [])),
        # From 31 October, 10:00, to 1 November, 14:00: fourteen hours of them count.
        (forecast(life("x", 24 * 30 + 4, gone=24 * 29)), (140, 0, 100, [])),
        # No outcome: it may run, and go on.
        (forecast(life("x", 1, made=False)), (10, 100, 100, [])),
        (forecast(life("x", 1, made=False, account="b")), (10, 0, 100, [])),
        # Launched and not listed yet.
        (forecast(life("x", 1)), (10, 100, 100, [])),
        # Launched elsewhere: by its tag, and all month where the tag is missing.
        (forecast((), running(since=NOW - 3 * HOUR)), (30, 100, 100, [])),
        (forecast((), running()), (7100, 100, 100, [])),
        # It has ended since, here; whether it was there before the month began is nobody's knowledge.
        (forecast(ended_here(10.0)), (7080, 0, 100, [])),
        (forecast(ended_here(None)), (0, 0, 100, ["what has ended"])),
        # Unknown prices.
        (forecast(usd_per_hour=None), (0, 0, 0, ["t"])),
        (forecast((), running(price=None)), (0, 0, 100, ["x"])),
        (forecast(life("x", 5, price=None, gone=2)), (0, 0, 100, ["what has ended"])),
        (forecast((), running(price=None), leaving=["id-x"]), (0, 0, 100, ["what has ended"])),
    ],
)
def test_a_month_comes_to_what_was_worked_out_by_hand(found: budget.Forecast, expected: Any) -> None:
    assert parts(found) == expected


def test_a_refusal_shows_the_arithmetic_and_the_limit_itself_is_allowed() -> None:
    found = forecast(life("x", 5), running())
    wish = budget.Wish(1, "t", 10.0)
    assert found.refusal(250.0, wish) == ""
    assert found.refusal(249.99, wish) == (
        "expected at most 249.99 USD in 2026-11 (max_monthly_usd), found 50.00 spent + 100.00 for what runs (1) + "
        "100.00 for 1 t for 10.0 hours = 250.00 USD."
    )


def test_what_is_not_known_is_never_within_a_budget() -> None:
    refusal = forecast((), running(price=None)).refusal(1e9, budget.Wish(1, "t", 10.0))
    assert "The price of x is not known." in refusal
