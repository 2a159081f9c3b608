# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machines and elastic IPs of a GMI Cloud organisation mean for the ledger of a fleet.

This API has no tags, so the ledger alone says what is ours. What was asked for without an answer is recognised by its
name, which was free before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, record

PROVIDER = "gmi"
# The type under which a ledger has elastic IPs, which cost money of their own.
ADDRESS = "elastic-ip"
# And bare-metal nodes, which nothing here makes, so that they are in it once their end was asked for.
NODE = "bare-metal"
ENDED = frozenset({"terminated", "deleted", "released"})
# A container shows it while it ends, but also for a moment during a restart.
GOING = "terminating"
# How far the clocks of the cloud and of this machine may be apart.
CLOCK_SECONDS = 600.0

Row = Dict[str, Any]


class Record(record.Record):
    """The ledger of one fleet, for one account and run. ``warn`` shows what could not be written."""

    def __init__(self, fleet: str, account: str, run: Optional[str], warn: Callable[[str], None]) -> None:
        super().__init__(PROVIDER, fleet, account, run, warn)

    def ending(self, life: ledger.Life, why: str) -> None:
        """The end of it is about to be asked for."""
        self._write("ending", names=[life.name], ids=[life.id], why=why)

    def adopt(self, node: Row, usd_per_hour: Optional[float]) -> ledger.Life:
        """A bare-metal node that the ledger does not have is about to be ended."""
        found = {"names": [node["name"] or ""], "ids": [node["id"]], "type": NODE, "region": node["idc"] or ""}
        self._write("seen", **found, usd_per_hour=usd_per_hour, why="made elsewhere")
        return ledger.lives_of([self._event("seen", **found, usd_per_hour=usd_per_hour)])[0]

    def look(
        self, containers: Optional[Iterable[Row]], addresses: Iterable[Row], nodes: Optional[Iterable[Row]] = None
    ) -> None:
        """All of these were listed: bind ids to lost answers, and close what is gone. None: that was not listed."""
        shown = {ADDRESS: _by_id(addresses)}
        shown.update({} if containers is None else {"": _by_id(containers)})
        shown.update({} if nodes is None else {NODE: _by_id(nodes)})
        every = {key: row for rows in shown.values() for key, row in rows.items()}
        self.seen.update(every)
        self.answered.difference_update(key for key, row in every.items() if status_of(row) not in (*ENDED, GOING))
        lives = self.all_lives()
        known = {life.id for life in lives}
        for life in lives:
            rows = shown.get(life.type if life.type in (ADDRESS, NODE) else "")
            if rows is None:
                continue
            if life.id in rows:
                self._listed(life, rows[life.id])
            elif not life.until and not life.id and life.launch:
                self._settle(life, [row for key, row in rows.items() if key not in known])
            elif not life.until and life.account == self.account:
                self._missing(life)

    def _listed(self, life: ledger.Life, row: Row) -> None:
        """The account shows it, whatever the ledger says, and whichever key it was made with."""
        if status_of(row) in ENDED:
            if not life.until:
                self._write("gone", names=[life.name], ids=[life.id], why=status_of(row))
        elif life.until or life.missing or life.account != self.account:
            self._write("seen", names=[life.name], ids=[life.id], why="listed again")

    def _settle(self, life: ledger.Life, rows: List[Row]) -> None:
        """Find what a request without an answer made. Of several with its name, none is known to be it."""
        named = [row for row in rows if row.get("name") == life.name]
        if len(named) == 1 and _may_be(named[0], life):
            found = {"names": [life.name], "ids": [named[0]["id"]], "launch": life.launch}
            self._write("launched", **found, why="found by its name")
        elif not named and life.account == self.account:
            self._missing(life)


def status_of(row: Mapping[str, Any]) -> str:
    """Its status, in the API's words but small letters."""
    return str(row.get("status") or "").lower()


def _may_be(row: Row, life: ledger.Life) -> bool:
    """Whether nothing that it says of itself speaks against it being what was asked for."""
    kind = row.get("product") if life.type != ADDRESS else None
    created = ledger.moment(row.get("createdAt"))
    too_old = created is not None and created < ledger.seconds_of(life.since) - CLOCK_SECONDS
    return row.get("idc") in (None, life.region) and kind in (None, life.type) and not too_old


def _by_id(rows: Iterable[Row]) -> Dict[str, Row]:
    return {row["id"]: row for row in rows}
