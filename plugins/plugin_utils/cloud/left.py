# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs left behind that still costs money, by the ledgers: at the end of a run, and at the start of the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.cloud.ledger import Life
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, advised
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import providers
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.give_back import HOURS

Books = list[tuple[ledger.Ledger, list[ledger.Event]]]


class Place(NamedTuple):
    """A fleet in a cloud."""

    provider: str
    fleet: str


def read(warn: Callable[[str], object], shared: Optional[bool] = None) -> Books:
    """All ledgers of this machine with their events; ``warn`` gets those that cannot be read.

    ``shared``: only those that were brought to a store, or only the others. Where the events of other machines cannot
    be read, this one's have all that it launched.
    """
    found: Books = []
    for book in ledger.ledgers(own=True):
        if shared is not None and shared != ledger.shared_mark(book.path).exists():
            continue
        try:
            found.append((book, book.read()))
        except Unmet as error:
            warn(str(error))
            if book.shared:
                found.append((book, book.own()))
    return found


def of_run(books: Books, run: str) -> dict[Place, list[Life]]:
    """What this run asked for and what is not proven gone, by place."""
    return _by_place(books, lambda life: life.run == run)


def of_dead_runs(books: Books) -> dict[Place, list[Life]]:
    """What runs that did not come to their end left, by place."""
    return _by_place(books, _is_left)


def keep(books: Books, ids: Collection[str], run: str) -> None:
    """Write that a run came to its end and left these instances running. Raises Unmet where that cannot be kept."""
    alone: Optional[ledger.NotShared] = None
    for book, events in books:
        for life in ledger.open_of(events):
            # What it asked to end is not what it leaves running, though the end may not be seen yet.
            ended = life.why == ledger.GOING or (life.state == "ending" and life.ended_by == run)
            if life.id in ids and life.state != "kept" and not ended:
                more: dict[str, Any] = {"names": [life.name], "ids": [life.id], "why": "the run came to its end"}
                try:
                    book.append(ledger.event("kept", fleet=life.fleet, account=life.account, run=run, **more))
                except ledger.NotShared as error:
                    alone = error
    if alone is not None:
        raise alone


def at_the_end(lives: Iterable[Life], place: Place, now: float, inventory: str, log: Optional[str]) -> str:
    """One sentence for a run that ends before its time, with this inventory.

    ``log``: of the process that terminates them, if there is one.
    """
    next_step = f"run again, which counts them, or terminate them: {_command(place, inventory)}"
    if log and _guarded(place):
        next_step = f"wait: a second process terminates them, for up to {HOURS:g} hours, and logs to {log}"
    return advised(f"fleet {place.fleet}: this run leaves {ledger.described(lives, now)}", f"{next_step}.")


def at_the_start(lives: Iterable[Life], place: Place, now: float) -> str:
    """What the next run says of it."""
    given = list(lives)
    next_step = f"launch again, which counts them, or terminate them: {_command(place, '<its inventory>')}."
    if _guarded(place) and any(life.ended_by and run_alive.is_alive(life.ended_by) for life in given):
        next_step = (
            f"wait: a second process of that run is terminating them, for up to {HOURS:g} hours, and nothing is "
            "launched for this fleet meanwhile."
        )
    return advised(
        f"fleet {place.fleet}: a run that did not come to its end left, as far as its ledger knows, "
        f"{ledger.described(given, now)}",
        next_step,
    )


def _command(place: Place, inventory: str) -> str:
    if _guarded(place):
        return f"ansible-playbook terminate.yml -i {inventory} -e glm_fleet_name={place.fleet}"
    return providers.named(place.provider).ended_by


def _guarded(place: Place) -> bool:
    """Whether the playbooks and the guard of a deploy end instances of this cloud."""
    return providers.named(place.provider).launcher is not None


def _by_place(books: Books, wanted: Callable[[Life], bool]) -> dict[Place, list[Life]]:
    found: dict[Place, list[Life]] = {}
    for book, events in books:
        # Whether a run of another machine is still there cannot be known here.
        runs = {event["run"] for event in book.own()} if book.shared else None
        lives = [life for life in ledger.open_of(events) if wanted(life) and (runs is None or life.run in runs)]
        if lives:
            found.setdefault(Place(book.provider, book.fleet), []).extend(lives)
    return found


def _is_left(life: Life) -> bool:
    """Whether nobody looks after it: a run that was there to the end keeps it, one that is there still does."""
    if life.state == "kept" or life.why == ledger.GOING or life.adopted:
        return False
    return not run_alive.is_alive(life.run)
