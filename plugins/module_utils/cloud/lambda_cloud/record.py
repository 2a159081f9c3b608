# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instances of a Lambda Cloud account mean for the ledger of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Dict, List, Optional, Set

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import (
    FLEET_TAG,
    LAUNCHED_TAG,
    RUN_TAG,
    exists,
    is_protected,
    launched_at,
    name_of,
)

PROVIDER = "lambda"
ENDED = frozenset({"terminated", "preempted"})


class Record(record.Record):
    """The ledger of one fleet, for one account and run. ``warn`` shows what could not be written."""

    def __init__(self, fleet: str, account: str, run: Optional[str], warn: Callable[[str], None]) -> None:
        super().__init__(PROVIDER, fleet, account, run, warn)

    def ending(self, instances: Iterable[lambda_api.Instance], why: str) -> None:
        """The end of these is about to be asked for."""
        for item in instances:
            self._write("ending", **_of(item), why=why)

    def end(self, api: lambda_api.LambdaApi, ids: List[str]) -> Set[str]:
        """Ask once that these end; which of them the answer names. What it proves counts at the next look."""
        try:
            named = {row["id"] for row in api.terminate(ids)} & set(ids)
        except ApiError as error:
            if error.absent and len(ids) == 1:
                self.answered.update(ids)
            raise
        self.answered.update(named)
        return named

    def look(self, listed: Iterable[lambda_api.Instance]) -> None:
        """The account was read: adopt what others launched, bind ids to lost answers, and close what is gone."""
        rows = {row["id"]: row for row in listed}
        self.seen.update(rows)
        self.answered.difference_update(key for key, row in rows.items() if exists(row))
        lives = self.all_lives()
        known = {life.id for life in lives}
        for life in lives:
            if life.id in rows:
                self._listed(life, rows[life.id])
            elif not life.id and life.launch and not life.until:
                known.add(self._settle(life, rows.values()))
            elif not life.until and life.account == self.account:
                self._missing(life)
        for key, row in rows.items():
            if key not in known and exists(row) and lambda_api.tags_of(row).get(FLEET_TAG) == self.fleet:
                self._adopt(row)

    def _listed(self, life: ledger.Life, row: lambda_api.Instance) -> None:
        """The account shows it, whatever the ledger says, and whichever key it was launched with."""
        status = str(row.get("status"))
        if status in ENDED:
            if not life.until:
                self._write("gone", names=[life.name], ids=[life.id], why=status)
            return
        going = status in lambda_api.GONE
        was_going = life.why == ledger.GOING and not life.until
        if life.until or life.missing or life.account != self.account or (was_going and not going):
            self._write("seen", **_of(row), why="listed again")
        if going and not was_going:
            self._write("ending", names=[life.name], ids=[life.id], why=ledger.GOING)

    def _adopt(self, row: lambda_api.Instance) -> None:
        """Launched elsewhere or before there was a ledger: it counts from its launch, as far as that is known."""
        begun = launched_at(row)
        more: Dict[str, Any] = {"launch": "", "at": None}
        if begun is not None:
            more = {"launch": _launch_of(row), "at": ledger.stamp(begun)}
        run = lambda_api.tags_of(row).get(RUN_TAG, "")
        self._write("seen", **{**_of(row), **more, "run": run}, why="not launched from here")

    def _settle(self, life: ledger.Life, rows: Collection[lambda_api.Instance]) -> str:
        """Find what a launch without an answer made, and return its id; a name is no proof, but a reason to doubt."""
        for row in rows:
            if lambda_api.tags_of(row).get(FLEET_TAG) == self.fleet and _launch_of(row) == life.launch:
                self._write("launched", names=[life.name], ids=[row["id"]], launch=life.launch, why="found by its tags")
                return row["id"]
        if life.account == self.account and not any(
            row.get("name") == life.name and FLEET_TAG not in lambda_api.tags_of(row) for row in rows
        ):
            self._missing(life)
        return ""


def _launch_of(row: lambda_api.Instance) -> str:
    return ledger.launch_key(row.get("name") or "", lambda_api.tags_of(row).get(LAUNCHED_TAG, ""))


def _of(row: lambda_api.Instance) -> Dict[str, Any]:
    """What an event says of an instance."""
    return {
        "names": [name_of(row)], "ids": [row["id"]], "region": lambda_api.region_of(row) or "",
        "type": lambda_api.type_of(row) or "", "usd_per_hour": lambda_api.price_usd_per_hour(row),
        "protected": is_protected(row),
    }  # fmt: skip
