# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What instances cost, from the events of a ledger: exact, by month (UTC), and never less than the cloud bills.

Clouds bill in steps of one minute, from the health checks after a launch to the request to terminate. Nobody but the
cloud sees these two moments, so an instance counts here from its request until the account was read and showed it
terminating, or did not show it any more. A launch whose outcome is not known is no spending yet; it is counted as
possible. Money is in USD as fractions, which are rounded to cents only where they are shown, so that months add up to
their total. Standard library, pure.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Dict, List, Optional, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger

MINUTE = 60
_CENT = Decimal("0.01")


@dataclass(frozen=True)
class Amount:
    """A sum of money. ``at_least``: a part of it is not known, so that it may be more."""

    usd: Fraction = Fraction(0)
    at_least: bool = False

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.usd + other.usd, self.at_least or other.at_least)

    def cents(self) -> float:
        """In USD, to the cent."""
        return cents(self.usd)


NOTHING = Amount()


@dataclass(frozen=True)
class Bill:
    """What one instance costs. ``begin`` and ``end`` are seconds since 1970; ``end`` is a moment to come for a plan."""

    begin: int
    end: int
    # (from when, USD per hour); the first holds from the beginning. Empty: not known.
    prices: Tuple[Tuple[int, Fraction], ...]
    # It was there before the first that is known of it.
    begun_before: bool = False

    def minutes(self) -> int:
        """Each begun minute is billed whole, and one at least."""
        return max(1, -(-(self.end - self.begin) // MINUTE))

    def between(self, begin: float, end: float) -> Amount:
        """What the minutes cost that begin in this time."""
        if not self._minutes(begin, end):
            return NOTHING
        if not self.prices:
            return Amount(at_least=True)
        usd = Fraction(0)
        # The first minute stays at the first price, also when that changes in its first second.
        starts = [-math.inf, *(max(moment, self.begin + 1) for moment, _price in self.prices[1:]), math.inf]
        for (_moment, price), since, until in zip(self.prices, starts, starts[1:]):
            usd += price * self._minutes(max(begin, since), min(end, until)) / 60
        return Amount(usd, self.begun_before)

    def total(self) -> Amount:
        """What it costs from its beginning to its end."""
        return self.between(-math.inf, math.inf)

    def _minutes(self, begin: float, end: float) -> int:
        """How many of its minutes begin from ``begin`` on and before ``end``."""
        return max(0, self._begun(end) - self._begun(begin))

    def _begun(self, moment: float) -> int:
        """How many of its minutes begin before that moment."""
        if math.isinf(moment):
            return self.minutes() if moment > 0 else 0
        return min(self.minutes(), max(0, -(-(math.ceil(moment) - self.begin) // MINUTE)))


@dataclass(frozen=True)
class Spent:
    """What an instance has cost so far, and why it ended."""

    life: ledger.Life
    bill: Bill
    why: str
    """Why it ended, or is about to; empty while nothing is known to end it."""
    stopped: bool
    """Whether the account was seen to bill it no more."""

    @property
    def certain(self) -> bool:
        """Whether there was an instance: a launch without an answer may have made one."""
        return bool(self.life.id)


def spent_of(events: Iterable[ledger.Event], now: float) -> List[Spent]:
    """Each instance of the ledger with its bill up to ``now``; those that were never made are left out."""
    kept = list(events)
    lives = [life for life in ledger.lives_of(kept) if life.id or not life.until]
    written = _by_instance(kept)
    about = [(life, written[(life.id, "" if life.id else life.launch)]) for life in lives]
    return [_spent(life, found, now) for life, found in about]


def sum_of(spent: Iterable[Spent], certain: bool = True) -> Amount:
    """What instances cost; with ``certain`` false, what launches without an outcome may cost."""
    return total(one.bill.total() for one in spent if one.certain is certain)


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum."""
    return sum(amounts, NOTHING)


def by_month(bills: Iterable[Bill]) -> Dict[str, Amount]:
    """What instances cost in each month (UTC, ``2026-11``) in which they are billed, in order."""
    found: Dict[str, Amount] = {}
    for bill in bills:
        for month, begin, end in months(bill.begin, bill.begin + (bill.minutes() - 1) * MINUTE):
            found[month] = found.get(month, NOTHING) + bill.between(begin, end)
    return dict(sorted(found.items()))


def months(begin: float, end: float) -> Iterator[Tuple[str, int, int]]:
    """The months (UTC) from one moment to another, both included: name, first second, first second of the next."""
    start, after = month_of(begin)
    while start <= end:
        yield datetime.datetime.fromtimestamp(start, datetime.timezone.utc).strftime("%Y-%m"), start, after
        start, after = month_of(after)


def month_of(moment: float) -> Tuple[int, int]:
    """The first second of the month (UTC) of a moment, and that of the next month."""
    found = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    first = datetime.datetime(found.year, found.month, 1, tzinfo=datetime.timezone.utc)
    later = first + datetime.timedelta(days=31)
    after = datetime.datetime(later.year, later.month, 1, tzinfo=datetime.timezone.utc)
    return int(first.timestamp()), int(after.timestamp())


def price(value: object) -> Optional[Fraction]:
    """A price as a fraction; None for what is none (missing, negative, no number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        return None
    return Fraction(str(value))


def cents(usd: Fraction) -> float:
    """To the cent, half a cent up."""
    exact = Decimal(usd.numerator) / Decimal(usd.denominator)
    return float(exact.quantize(_CENT, ROUND_HALF_UP))


def _by_instance(events: Iterable[ledger.Event]) -> Dict[Tuple[str, str], List[ledger.Event]]:
    """What is written of each instance, by its id, and of each request without an id yet, by its launch."""
    by_id: Dict[str, List[ledger.Event]] = {}
    by_launch: Dict[str, List[ledger.Event]] = {}
    for item in events:
        ids = item["ids"] if item["event"] not in ("asked", "unknown") else []
        answered = item["event"] == "refused" or (item["event"] == "launched" and ids)
        request = by_launch.pop(item["launch"], []) if answered else []
        for identifier in ids:
            by_id.setdefault(identifier, list(request)).append(item)
        if not ids and item["event"] != "refused":
            by_launch.setdefault(item["launch"], []).append(item)
    return {
        **{(identifier, ""): written for identifier, written in by_id.items()},
        **{("", launch): written for launch, written in by_launch.items()},
    }


def _spent(life: ledger.Life, events: Sequence[ledger.Event], now: float) -> Spent:
    prices: List[Tuple[int, Fraction]] = []
    stopped: Optional[float] = None
    why, going = "", False
    for item in events:
        found, moment = price(item["usd_per_hour"]), ledger.seconds_of(item["at"])
        if found is not None and (not prices or prices[-1][1] != found):
            prices.append((int(moment), found))
        if item["event"] == "kept" and going:
            # A run that came to its end says nothing about what the account was seen to end.
            continue
        going = item["event"] == "ending" and item["why"] == ledger.GOING
        if item["event"] in ("missing", "gone") or going:
            stopped = moment if stopped is None else stopped
            why = why or ("" if item["event"] == "missing" else item["why"])
        else:
            stopped, why = None, item["why"] if item["event"] == "ending" else ""
    begin = int(ledger.seconds_of(life.since))
    begun_before = not any(item["event"] in ("asked", "launched", "unknown") or _dated(item) for item in events)
    end = math.ceil(now if stopped is None else stopped)
    return Spent(life, Bill(begin, end, tuple(prices), begun_before), why, stopped is not None)


def _dated(item: ledger.Event) -> bool:
    """Whether it is of an instance that was launched elsewhere, at a moment that its tag says."""
    return item["event"] == "seen" and bool(item["launch"])
