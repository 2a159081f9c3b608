# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What whole accounts cost: what they hold now, and what the ledgers of fleets recorded, as a report and as lines.

What is not known is said as such and never counted as nothing: a sum without a part that is not known is "at least".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, spending
from ansible_collections.glm.fleet.plugins.plugin_utils import columns
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Holding, Seen

NO_FLEET = "(none)"
UNKNOWN = "unknown"
TITLES = (
    "FLEET",
    "KIND",
    "NAME",
    "STATUS",
    "TYPE",
    "REGION",
    "USD/H",
    "AGE",
    "IDLE",
    "USD SO FAR",
    "EXPIRES",
    "OWNER",
    "NOTE",
)


class Sum(TypedDict):
    """Money. ``at_least``: a part of it is not known, so that it may be more."""

    usd: float
    at_least: bool


class Item(TypedDict):
    """Something that an account holds. None: not known."""

    provider: str
    kind: Literal["instance", "file system", "address"]
    id: str
    name: str
    fleet: Optional[str]
    owner: Optional[str]
    status: Optional[str]
    region: Optional[str]
    type: Optional[str]
    usd_per_hour: Optional[float]
    estimated: bool
    since: Optional[str]
    hours: Optional[float]
    last_active: Optional[str]
    """When its host last saw a request, by its own word; None where no host was asked, or none knows."""
    idle_hours: Optional[float]
    cost: Optional[Sum]
    """Up to now; of a file system, whose size changes, it is not known."""
    expires: Optional[str]
    """By its tag, or later if a run has extended it."""
    expired: bool
    unreadable: bool
    """The tag is no moment."""
    recorded: bool
    """Whether a ledger here has it, which knows whether it was extended."""
    protected: bool


class Entry(TypedDict):
    """An instance of a fleet's ledger."""

    id: str
    name: str
    type: str
    region: str
    since: str
    until: str
    """Empty while it is not proven gone."""
    stopped: bool
    """Whether the account showed it gone or terminating, and so bills it no more."""
    listed: Optional[bool]
    """None: the account that it was launched on was not read."""
    why: str
    """Why it ended, or is about to."""
    cost: Sum


class FleetCost(TypedDict):
    """What a fleet costs and has cost: recorded in its ledger here, and of what runs without being in it."""

    provider: str
    fleet: str
    instances: int
    usd_per_hour: Sum
    spent: Sum
    months: dict[str, Sum]
    possible: Sum
    """What launches without an outcome may have cost, not in ``spent``."""
    usd_per_million_tokens: Optional[float]
    """At most: counted answers of this month only."""
    history: list[Entry]


class CostReport(TypedDict):
    """``cost.json``. ``ok``: all of it could be read, and nothing is past its time or budget."""

    schema: Literal[1]
    kind: Literal["cost"]
    ok: bool
    at: str
    usd_per_hour: Sum
    items: list[Item]
    fleets: list[FleetCost]
    problems: list[str]


@dataclass(frozen=True)
class Book:
    """The ledger of a fleet as it was read; ``problem``: why it could not be."""

    provider: str
    fleet: str
    events: Sequence[ledger.Event] = ()
    problem: str = ""


@dataclass(frozen=True)
class Tokens:
    """What clients used in this month, as counted up to a moment."""

    tokens: int
    until: float


@dataclass
class Wanted:
    """What the report is to go by: the budget of one fleet in each month, its clients' tokens, what hosts said."""

    fleet: str = ""
    usd_per_month: Optional[float] = None
    tokens: Optional[Tokens] = None
    nothing_expired: bool = True
    """Whether something that is past its time is a problem."""
    active: Mapping[str, str] = field(default_factory=dict)
    """By id, when the host of an instance last saw a request; ISO 8601 in UTC."""


@dataclass(frozen=True)
class _Known:
    """What was seen and asked for, beside what is of one fleet."""

    there: Mapping[tuple[str, str], Holding]
    """What the accounts hold, by provider and id."""
    read: frozenset[tuple[str, str]]
    """Provider and account, where all instances were listed."""
    unread: frozenset[str]
    """Providers with an account where they were not."""
    faults: Mapping[tuple[str, str], str]
    """What is wrong with the ledger of a fleet, by provider and fleet."""
    wanted: Wanted
    now: float

    def listed(self, provider: str, life: ledger.Life) -> Optional[bool]:
        """Whether the account shows it; None when nobody looked."""
        if (provider, life.id) in self.there:
            return True
        return False if (provider, life.account) in self.read else None


def report(seen: Iterable[Seen], books: Iterable[Book], wanted: Wanted, now: float) -> CostReport:
    """All of it. The order is that of names."""
    accounts, ledgers = list(seen), list(books)
    there = {(item.provider, item.id): item for one in accounts for item in one.held}
    spent = {
        (book.provider, book.fleet): [
            _as_listed(one, there.get((book.provider, one.life.id)), now) for one in spending.spent_of(book.events, now)
        ]
        for book in ledgers
    }
    recorded = {one.life.id: one for found in spent.values() for one in found if one.certain}
    held = sorted(
        (item for one in accounts for item in one.held), key=lambda item: (item.fleet or "~", item.kind != "instance")
    )
    bills = {item.id: _bill(item, recorded.get(item.id), now) for item in held}
    extended = {item.id: _extended(item, ledgers) for item in held}
    # Of what was launched elsewhere a run elsewhere may know more than the ledger here.
    ours = {key for key, one in recorded.items() if not one.life.adopted}
    items = [_item(item, bills[item.id], item.id in ours, extended[item.id], wanted.active, now) for item in held]
    known = _Known(
        there=there,
        read=frozenset((one.provider, one.account) for one in accounts if one.whole),
        unread=frozenset(one.provider for one in accounts if not one.whole),
        faults=_faults(accounts, ledgers),
        wanted=wanted,
        now=now,
    )
    fleets = []
    for provider, fleet in sorted({*spent, *((item.provider, item.fleet) for item in held if item.fleet)}):
        mine = [item for item in held if (item.provider, item.fleet) == (provider, fleet) and item.kind == "instance"]
        strangers = [bills[item.id] for item in mine if item.id not in recorded]
        found = spent.get((provider, fleet), [])
        fleets.append(_fleet(provider, fleet, mine, found, strangers, known))
    problems = [
        f"{one.provider}: {part} could not be read: {why}" for one in accounts for part, why in one.unread.items()
    ]
    problems += [f"{provider}, fleet {fleet}: {fault}" for (provider, fleet), fault in sorted(known.faults.items())]
    problems += [
        f"{item['name']} ({item['id']}) is past its time {item['expires']}"
        for item in items
        if item["expired"] and wanted.nothing_expired
    ]
    problems += _over_budget(fleets, wanted, now)
    unread = spending.Amount(at_least=any(one.unread for one in accounts))
    return {
        "schema": 1,
        "kind": "cost",
        "ok": not problems,
        "at": ledger.stamp(now),
        "usd_per_hour": _sum(spending.total([unread, *map(_per_hour, held)])),
        "items": items,
        "fleets": fleets,
        "problems": problems,
    }


def lines(found: CostReport) -> list[str]:
    """The report for a terminal."""
    rows = [TITLES, *(_row(item) for item in found["items"])]
    shown = [*columns.aligned(rows), ""] if found["items"] else ["Nothing that costs money was listed.", ""]
    for fleet in found["fleets"]:
        shown += _lines_of_fleet(fleet)
    shown.append(f"All together: {_text(found['usd_per_hour'])} per hour at {found['at']}.")
    if any(item["estimated"] for item in found["items"]):
        shown.append("~: estimated, because the cloud's API does not say the price.")
    return shown


# The rest is in the file.
_ENDED_SHOWN = 5
_NOT_LISTED = {False: "but not listed: its end is not proven", None: "and its account was not read"}


def _lines_of_fleet(fleet: FleetCost) -> list[str]:
    head = f"{fleet['provider']}, fleet {fleet['fleet']}: "
    now = (
        f"{fleet['instances']} instance(s) at {_text(fleet['usd_per_hour'])} per hour; recorded {_text(fleet['spent'])}"
    )
    months = ", ".join(f"{month}: {_text(found)}" for month, found in list(fleet["months"].items())[-3:])
    shown = [f"{head}{now}{f' ({months})' if months else ''}"]
    if fleet["possible"]["usd"] or fleet["possible"]["at_least"]:
        shown.append(f"{head}launches without a known outcome may have cost {_text(fleet['possible'])} more")
    if fleet["usd_per_million_tokens"] is not None:
        shown.append(
            f"{head}at most {fleet['usd_per_million_tokens']:.2f} USD per million tokens that were counted this month"
        )
    shown += [
        f"{head}{one['name']} ({one['id'] or 'no id'}) is open in the ledger, {_NOT_LISTED[one['listed']]}"
        for one in fleet["history"]
        if not one["until"] and not one["listed"] and not one["stopped"]
    ]
    ended = [one for one in fleet["history"] if one["stopped"] and one["id"]]
    shown += [
        f"{head}{one['name']} ({one['id']}, {one['type'] or 'type unknown'}) ended, since {one['since']}: "
        f"{_text(one['cost'])}; {one['why'] or 'why is not known'}"
        for one in ended[-_ENDED_SHOWN:]
    ]
    if len(ended) > _ENDED_SHOWN:
        shown.append(f"{head}{len(ended) - _ENDED_SHOWN} more have ended before: see cost.json")
    return shown


def _fleet(
    provider: str,
    fleet: str,
    held: Sequence[Holding],
    spent: Sequence[spending.Spent],
    strangers: Sequence[Optional[spending.Bill]],
    known: _Known,
) -> FleetCost:
    more = [bill for bill in strangers if bill is not None]
    unread = provider in known.unread
    lacking = spending.Amount(at_least=unread or (provider, fleet) in known.faults or len(more) < len(strangers))
    months = spending.by_month([*(one.bill for one in spent if one.certain), *more])
    if lacking.at_least:
        # Nobody knows of which month a part is missing.
        names = sorted({*months, ledger.stamp(known.now)[:7]})
        months = {month: months.get(month, spending.NOTHING) + lacking for month in names}
    per_hour = spending.total([spending.Amount(at_least=unread), *map(_per_hour, held)])
    tokens = known.wanted.tokens if fleet == known.wanted.fleet else None
    return {
        "provider": provider,
        "fleet": fleet,
        "instances": len(held),
        "usd_per_hour": _sum(per_hour),
        "spent": _sum(spending.total([lacking, spending.sum_of(spent), *(bill.total() for bill in more)])),
        "months": {month: _sum(amount) for month, amount in months.items()},
        "possible": _sum(spending.sum_of(spent, certain=False)),
        # A part of the money that is not known would make it dearer than "at most" says.
        "usd_per_million_tokens": None if lacking.at_least else _per_million(spent, more, tokens),
        "history": [_entry(one, known.listed(provider, one.life)) for one in spent],
    }


def _per_million(
    spent: Sequence[spending.Spent], more: Sequence[spending.Bill], counted: Optional[Tokens]
) -> Optional[float]:
    """Spending of this month up to the moment of the count; what nobody counted can only make it cheaper."""
    if counted is None or counted.tokens <= 0:
        return None
    begin, _end = spending.month_of(counted.until)
    bills = [*(one.bill for one in spent if one.certain), *more]
    money = spending.total(bill.between(begin, counted.until) for bill in bills)
    return None if money.at_least or not money.usd else spending.cents(money.usd * 1_000_000 / counted.tokens)


def _over_budget(fleets: Iterable[FleetCost], wanted: Wanted, now: float) -> list[str]:
    limit, month = wanted.usd_per_month, ledger.stamp(now)[:7]
    if limit is None:
        return []
    found = [(one, one["months"].get(month)) for one in fleets if one["fleet"] == wanted.fleet]
    said = {
        False: f", more than its budget of {limit:.2f} USD",
        True: f": that it is within its budget of {limit:.2f} USD is not known",
    }
    return [
        f"{one['provider']}, fleet {one['fleet']}: {_text(cost)} in {month}{said[cost['usd'] <= limit]}"
        for one, cost in found
        if cost is not None and (cost["usd"] > limit or cost["at_least"])
    ]


def _faults(accounts: Iterable[Seen], ledgers: Iterable[Book]) -> dict[tuple[str, str], str]:
    """What is wrong with the ledger of a fleet, by provider and fleet."""
    unkept = {
        (one.provider, fleet): f"what was seen could not be kept: {why}"
        for one in accounts
        for fleet, why in one.unkept.items()
    }
    unread = {
        (book.provider, book.fleet): f"the ledger could not be read: {book.problem}" for book in ledgers if book.problem
    }
    return {**unkept, **unread}


def _as_listed(one: spending.Spent, item: Optional[Holding], now: float) -> spending.Spent:
    """Billed up to now if the account shows it, whatever the ledger says; at the account's price where it has none."""
    if item is None:
        return one
    price = spending.price(item.usd_per_hour)
    prices = one.bill.prices or (() if price is None else ((one.bill.begin, price),))
    return replace(one, bill=replace(one.bill, end=max(one.bill.end, math.ceil(now)), prices=prices))


def _bill(item: Holding, recorded: Optional[spending.Spent], now: float) -> Optional[spending.Bill]:
    """What it costs up to now: by the ledger, else by what the account says; None when that is not enough."""
    price = spending.price(item.usd_per_hour)
    if item.kind != "instance":
        return None
    if recorded is not None:
        return recorded.bill
    if item.since is None or price is None:
        return None
    return spending.Bill(int(item.since), math.ceil(now), ((int(item.since), price),))


def _extended(item: Holding, books: Iterable[Book]) -> Optional[float]:
    """To when a run has extended its time."""
    found = (ledger.extended_to(book.events, item.id) for book in books if book.provider == item.provider)
    return max((moment for moment in found if moment is not None), default=None)


def _item(
    item: Holding,
    bill: Optional[spending.Bill],
    recorded: bool,
    extended: Optional[float],
    active: Mapping[str, str],
    now: float,
) -> Item:
    asked = ledger.moment(active.get(item.id))
    since = float(bill.begin) if bill else item.since
    tagged = ledger.moment(item.expires)
    expires = tagged if tagged is None or extended is None else max(tagged, extended)
    return {
        "provider": item.provider,
        "kind": item.kind,
        "id": item.id,
        "name": item.name,
        "fleet": item.fleet or None,
        "owner": item.owner or None,
        "status": item.status or None,
        "region": item.region or None,
        "type": item.type or None,
        "usd_per_hour": None if item.usd_per_hour is None else round(item.usd_per_hour, 4),
        "estimated": item.estimated,
        "since": None if since is None else ledger.stamp(since),
        "hours": _hours(since, now),
        "last_active": None if asked is None else ledger.stamp(asked),
        "idle_hours": _hours(asked, now),
        "cost": _sum(bill.total()) if bill and bill.prices else None,
        "expires": (item.expires or None) if expires is None else ledger.stamp(expires),
        "expired": expires is not None and expires <= now,
        "unreadable": bool(item.expires) and expires is None,
        "recorded": recorded,
        "protected": item.protected,
    }


def _hours(since: Optional[float], now: float) -> Optional[float]:
    return None if since is None else round(max(0.0, now - since) / 3600, 2)


def _entry(one: spending.Spent, listed: Optional[bool]) -> Entry:
    life = one.life
    return {
        "id": life.id, "name": life.name, "type": life.type, "region": life.region, "since": life.since,
        "until": life.until, "stopped": one.stopped, "listed": listed, "why": one.why,
        "cost": _sum(one.bill.total()),
    }  # fmt: skip


def _per_hour(item: Holding) -> spending.Amount:
    price = spending.price(item.usd_per_hour)
    return spending.Amount(at_least=True) if price is None else spending.Amount(price)


def _sum(amount: spending.Amount) -> Sum:
    return {"usd": amount.cents(), "at_least": amount.at_least}


def _text(found: Sum) -> str:
    return f"{'at least ' if found['at_least'] else ''}{found['usd']:.2f} USD"


def _row(item: Item) -> tuple[str, ...]:
    price, cost = item["usd_per_hour"], item["cost"]
    notes = [word for word, holds in (("protected", item["protected"]), ("EXPIRED", item["expired"])) if holds]
    return (
        item["fleet"] or NO_FLEET,
        item["kind"],
        item["name"],
        item["status"] or UNKNOWN,
        item["type"] or UNKNOWN,
        item["region"] or UNKNOWN,
        UNKNOWN if price is None else f"{'~' if item['estimated'] else ''}{price:.2f}",
        _time(item["hours"]),
        _time(item["idle_hours"]) if item["kind"] == "instance" else "-",
        UNKNOWN if cost is None else f"{cost['usd']:.2f}{'+' if cost['at_least'] else ''}",
        item["expires"] or "-",
        item["owner"] or "-",
        ", ".join(notes),
    )


def _time(hours: Optional[float]) -> str:
    if hours is None:
        return UNKNOWN
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def tokens_in(rows: Iterable[Mapping[str, Any]]) -> int:
    """Tokens of the rows of a month's usage."""
    counts = [str(row.get(name) or "0") for row in rows for name in ("prompt_tokens", "completion_tokens")]
    return sum(int(count) for count in counts if count.isdigit())
