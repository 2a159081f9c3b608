# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a fleet stays within its budget of the month if more is launched: the arithmetic, and its words.

Counted are what the fleet has cost this month (UTC), launches without an outcome too, what runs until it expires or the
month ends, and what is to be launched for as long. A price that is not known is no price within a budget. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import List, Optional, Set

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, spending


@dataclass(frozen=True)
class Running:
    """An instance that costs money now. ``since`` and ``expires`` are seconds since 1970; None: not known, or never."""

    id: str
    name: str
    usd_per_hour: Optional[float]
    since: Optional[float] = None
    expires: Optional[float] = None


@dataclass(frozen=True)
class Wish:
    """Instances that are to be launched, at the price of the most expensive candidate."""

    number: int
    type: str
    usd_per_hour: Optional[float]
    expires: Optional[float] = None


@dataclass(frozen=True)
class Forecast:
    """What a month comes to. ``unknown``: what has no known price, so that it may come to more."""

    month: str
    spent: Fraction
    running: Fraction
    staying: int
    more: Fraction
    hours: Fraction
    unknown: Sequence[str]

    @property
    def most(self) -> Fraction:
        """All of it."""
        return self.spent + self.running + self.more

    def refusal(self, limit: float, wish: Wish) -> str:
        """Why this is too much, with the arithmetic; empty when it is within the limit."""
        if not self.unknown and self.most <= Fraction(str(limit)):
            return ""
        parts = [
            f"{spending.cents(self.spent):.2f} spent",
            f"{spending.cents(self.running):.2f} for what runs ({self.staying})",
            f"{spending.cents(self.more):.2f} for {wish.number} {wish.type} for {float(self.hours):.1f} hours",
        ]
        doubt = f" The price of {', '.join(self.unknown)} is not known." if self.unknown else ""
        return (
            f"expected at most {limit:.2f} USD in {self.month} (max_monthly_usd), found {' + '.join(parts)} = "
            f"{spending.cents(self.most):.2f} USD.{doubt}"
        )


def wish_of(wanted: Sequence[Running]) -> Wish:
    """Different things that are to be made together."""
    prices = [spending.price(item.usd_per_hour) for item in wanted]
    known = [price for price in prices if price is not None]
    usd = float(sum(known, Fraction(0))) if len(known) == len(prices) else None
    return Wish(1, " with ".join(item.name for item in wanted), usd)


def hourly_refusal(limit: Optional[float], there: Sequence[Running], wanted: Sequence[Running]) -> str:
    """Why these together cost too much per hour, with the sum; empty when they do not, or there is no limit."""
    if limit is None:
        return ""
    prices = [(item.name, spending.price(item.usd_per_hour)) for item in (*there, *wanted)]
    unknown = [name for name, price in prices if price is None]
    usd = sum((price for _name, price in prices if price is not None), Fraction(0))
    if not unknown and usd <= Fraction(str(limit)):
        return ""
    doubt = f" The price of {', '.join(unknown)} is not known." if unknown else ""
    return (
        f"expected at most {limit:.2f} USD per hour (max_hourly_usd), found that {len(there)} there and "
        f"{' with '.join(item.name for item in wanted)} come to {spending.cents(usd):.2f}.{doubt}"
    )


def forecast(
    events: Iterable[ledger.Event], account: str, listed: Sequence[Running], leaving: Set[str], wish: Wish, now: float
) -> Forecast:
    """What the month of ``now`` comes to.

    ``listed`` is what the account shows of the fleet, ``leaving`` the ids of what this run ends. A launch of this
    account that is open in the ledger and not listed may still turn up, and counts as running.
    """
    begin, end = spending.month_of(now)
    kept = list(events)
    recorded = spending.spent_of(kept, now)
    there = {item.id for item in listed}
    unseen = [
        Running(one.life.id, one.life.name, _last_price(one.bill))
        for one in recorded
        if not one.stopped and one.life.account == account and one.life.id not in there
    ]
    staying = [item for item in [*listed, *unseen] if item.id not in leaving or not item.id]
    # Of what was there before its first event no more than this month's hours can be missing.
    bills = [
        replace(one.bill, begin=begin, begun_before=False) if _old(one.bill, begin) else one.bill for one in recorded
    ]
    strangers = _strangers(listed, {one.life.id for one in recorded}, begin, now)
    spent = spending.total(bill.between(begin, end) for bill in [*bills, *strangers])
    prices = [(item, spending.price(item.usd_per_hour)) for item in staying]
    wanted = spending.price(wish.usd_per_hour)
    unknown = [item.name for item, price in prices if price is None] + ([wish.type] if wanted is None else [])
    if spent.at_least and not unknown:
        unknown = ["what has ended"]
    hours = _hours(now, end, wish.expires)
    return Forecast(
        month=ledger.stamp(now)[:7],
        spent=spent.usd,
        running=sum(((price or 0) * _hours(now, end, _expires(item, kept)) for item, price in prices), Fraction(0)),
        staying=len(staying),
        more=(wanted or Fraction(0)) * hours * wish.number,
        hours=hours,
        unknown=unknown,
    )


def _old(bill: spending.Bill, begin: int) -> bool:
    return bill.begun_before and bill.begin > begin


def _strangers(listed: Iterable[Running], recorded: Set[str], begin: int, now: float) -> List[spending.Bill]:
    """The bills of instances that are not in the ledger; from the month's begin, when their launch is not known."""
    found = []
    for item in listed:
        if item.id not in recorded:
            price, since = spending.price(item.usd_per_hour), int(begin if item.since is None else item.since)
            found.append(spending.Bill(since, int(now), () if price is None else ((since, price),)))
    return found


def _expires(item: Running, events: Iterable[ledger.Event]) -> Optional[float]:
    """When it may be ended; what has no such moment is not given one by a run."""
    extended = ledger.extended_to(events, item.id)
    return item.expires if item.expires is None or extended is None else max(item.expires, extended)


def _last_price(bill: spending.Bill) -> Optional[float]:
    return float(bill.prices[-1][1]) if bill.prices else None


def _hours(now: float, end: float, expires: Optional[float]) -> Fraction:
    # What is past its time and still runs may go on.
    until = end if expires is None or expires <= now else min(end, expires)
    return Fraction(max(0, int(until) - int(now)), 3600)
