# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances are past their time and may be ended, and which are kept all the same, with the reason. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.cost import Book, Item


class Past(TypedDict):
    """What of a fleet is past its time and may be ended."""

    provider: str
    fleet: str
    ids: list[str]
    described: str


class Decision(TypedDict):
    """``past`` may be ended; ``protected`` and ``doubtful`` are past their time and kept, a sentence each."""

    past: list[Past]
    protected: list[str]
    doubtful: list[str]


def at_work(books: Iterable[Book]) -> frozenset[str]:
    """The ids of instances whose run is still there on this machine: it may just be deploying to them."""
    lives = (life for book in books for life in ledger.open_of(book.events))
    return frozenset(life.id for life in lives if life.id and run_alive.is_running(life.run))


class Said(TypedDict):
    """What a host says of itself, see ``report`` in ``module_utils/serving/expiry.py``."""

    open: Optional[int]
    """Requests that run or wait; None when the host does not know."""
    idle: str
    """Since when nobody has asked it, if that is for longer than it may be; else empty."""
    follows: str
    """Address of the host that answers for it, as the first one of a replica over several does; else empty."""
    active: str
    """When a request was last seen there, ISO 8601 in UTC; empty where the host does not know or say it."""


NOTHING_SERVED = Said(open=0, idle="", follows="", active="")


def said_in(text: str) -> Optional[Said]:
    """The answer of a host; None for what is none."""
    try:
        answer = json.loads(text)
        number, idle, follows = answer["open"], answer["idle"], answer["follows"]
        # Hosts that were deployed with an earlier version do not say it.
        active = str(answer.get("active") or "")
    except (ValueError, KeyError, TypeError):
        return None
    whole = isinstance(number, int) and not isinstance(number, bool)
    right = (number is None or whole) and isinstance(idle, str) and isinstance(follows, str)
    if not right:
        return None
    known = active if ledger.moment(active) is not None else ""
    return Said(open=number, idle=printable(idle), follows=printable(follows), active=known)


def by_id(answers: Iterable[tuple[str, Collection[str], Said]]) -> dict[str, Said]:
    """What each instance is known to do, from ``(id, its addresses, what its host said)``.

    A host that follows another does what that one does; of one whose leader has not answered nothing is known.
    """
    found = list(answers)
    of_address = {address: said for _id, addresses, said in found for address in addresses if not said["follows"]}
    known = {one: of_address.get(said["follows"]) if said["follows"] else said for one, _addresses, said in found}
    return {one: said for one, said in known.items() if said is not None}


def decide(
    items: Iterable[Item],
    unrecorded: bool,
    busy: Collection[str] = (),
    elsewhere: Optional[Mapping[str, str]] = None,
    said: Optional[Mapping[str, Said]] = None,
    hard: bool = False,
) -> Decision:
    """What is to be done about each instance with a moment of expiry.

    ``unrecorded``: see ``_doubt``. ``busy``: ids of what a run is at work on. ``elsewhere``: ids in accounts that the
    modules of this run do not reach, with the account's name. ``said``: by id, what the hosts answered. ``hard``: end
    also what serves requests, or whose host does not say.
    """
    answers = said or {}
    found: dict[tuple[str, str], list[Item]] = {}
    protected, doubtful = [], []
    for item in items:
        answer = answers.get(item["id"])
        idle = bool(answer and answer["idle"])
        if item["kind"] != "instance" or not (item["expired"] or item["unreadable"] or idle):
            continue
        over = item["expired"] or idle
        doubt = _doubt(item, unrecorded, idle)
        if item["protected"] and over:
            protected.append(f"{_described(item, answer)}: protected by its tag")
        elif item["id"] in busy and over:
            protected.append(f"{_described(item, answer)}: the run that launched it is still at work")
        elif answer and answer["open"] and over and not hard:
            protected.append(f"{_described(item, answer)}: {answer['open']} request(s) run")
        elif elsewhere and item["id"] in elsewhere:
            where = elsewhere[item["id"]]
            doubtful.append(f"{_described(item)}: it is in {where} of the inventory; run reap.yml with that key")
        elif doubt:
            doubtful.append(f"{_described(item)}: {doubt}")
        elif not hard and (answer is None or answer["open"] is None):
            doubtful.append(
                f"{_described(item)}: its host does not say whether requests run (glm_reap_hard=true ends it even so)"
            )
        else:
            found.setdefault((item["provider"], item["fleet"] or ""), []).append(item)
    past = [
        Past(
            provider=provider,
            fleet=fleet,
            ids=[item["id"] for item in members],
            described="; ".join(_described(item, answers.get(item["id"])) for item in members),
        )
        for (provider, fleet), members in sorted(found.items())
    ]
    return {"past": past, "protected": protected, "doubtful": doubtful}


def _doubt(item: Item, unrecorded: bool, idle: bool) -> str:
    """Why it is kept; a tag cannot change, so only the ledger knows whether a run has extended the time since."""
    if item["unreadable"] and not idle:
        return "its tag glm-expires is no moment in UTC such as 2026-11-29T08:00:00Z"
    if not item["fleet"]:
        return "it has no tag glm-fleet"
    if not item["recorded"] and not unrecorded:
        return "no ledger here has it, and a run may have extended its time (glm_reap_unrecorded=true ends it even so)"
    return ""


def _described(item: Item, answer: Optional[Said] = None) -> str:
    price = "price unknown" if item["usd_per_hour"] is None else f"{item['usd_per_hour']:.2f} USD per hour"
    named = f"{item['name']} ({item['id']}, fleet {item['fleet'] or '(none)'}"
    when = answer["idle"] if answer and answer["idle"] and not item["expired"] else f"expires {item['expires']}"
    return printable(f"{named}, {price}, {when})")
