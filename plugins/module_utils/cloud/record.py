# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run writes into its fleet's ledger: each launch before and after its request, each end, and what is missing.

What the account shows, and what proves that one of its rows is ours, differs between clouds: see their own folders.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Dict, List, Optional, Set

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# Two lists without a row, so far apart, prove that what nobody ended here is gone; one may be wrong.
APART_SECONDS = 180.0


class Record:
    """The ledger of one fleet, for one account and run. ``warn`` shows what could not be written."""

    def __init__(
        self, provider: str, fleet: str, account: str, run: Optional[str], warn: Callable[[str], None]
    ) -> None:
        self.fleet = fleet
        self.account = account
        self.run = run or ""
        self.warn = warn
        self.book = ledger.Ledger(provider, fleet)
        # What listings have shown: such an id is not late.
        self.seen: Set[str] = set()
        # Whose end the API has accepted, or answered that there is no such instance, since they were listed last.
        self.answered: Set[str] = set()

    def asked(self, name: str, moment: str, **more: Any) -> None:
        """An instance is about to be asked for. Raises Unmet where that cannot be kept: then it must not be.

        ``more``: its type, region and price as in events, and whether it is protected.
        """
        self.book.append(self._event("asked", names=[name], launch=ledger.launch_key(name, moment), **more))

    def launched(self, name: str, moment: str, ids: List[str], why: str = "") -> None:
        """The request was answered with these ids."""
        self._write("launched", names=[name], ids=ids, launch=ledger.launch_key(name, moment), why=why)

    def unknown(self, name: str, moment: str, why: str) -> None:
        """The request may have made an instance."""
        self._write("unknown", names=[name], launch=ledger.launch_key(name, moment), why=why)

    def refused(self, name: str, moment: str, why: str) -> None:
        """The request made nothing."""
        self._write("refused", names=[name], launch=ledger.launch_key(name, moment), why=why)

    def check(self, read_only: bool = False) -> None:
        """Raise Unmet for a ledger of several machines that cannot be read: it must not look like an empty one.

        Once it was read, the run goes on by what it has read and written, with a warning. Unless ``read_only``, what an
        earlier run could not bring to the others goes there now.
        """
        if not self.book.shared:
            return
        try:
            self.book.read()
        except Unmet as error:
            if self.book.known is None:
                raise
            self.warn(f"fleet {self.fleet}, ledger: {error}")
        if not read_only:
            try:
                self.book.sync()
            except Unmet as error:
                self.warn(f"fleet {self.fleet}, ledger: {error}")

    def alone(self) -> None:
        """Go by this machine's own events where those of others cannot be read: they have what its runs launched."""
        if self.book.shared:
            with contextlib.suppress(Unmet):
                self.book.known = self.book.own()

    def lives(self) -> List[ledger.Life]:
        """Everything that this account's ledger of the fleet knows; nothing where it cannot be read, with a warning."""
        return [life for life in self.all_lives() if life.account == self.account]

    def all_lives(self) -> List[ledger.Life]:
        """Those of other keys, too: one account may have several, one after the other.

        Raises Unmet for a ledger of several machines that was never read.
        """
        return ledger.lives_of(self.events())

    def events(self) -> List[ledger.Event]:
        """What ``all_lives`` are of."""
        try:
            return self.book.read()
        except Unmet as error:
            if self.book.shared and self.book.known is None:
                raise
            self.warn(f"fleet {self.fleet}, ledger: {error}")
            return self.book.known or []

    def _missing(self, life: ledger.Life) -> None:
        """It is not listed. A listing can be late or wrong, so that one without the row proves nothing by itself."""
        of_it: Dict[str, Any] = {"names": [life.name], "ids": [life.id] if life.id else [], "launch": life.launch}
        if life.id in self.answered or life.why == ledger.GOING:
            self._write("gone", **of_it, why="not listed any more")
        elif life.id not in self.seen and not is_late(life):
            return
        elif not life.missing:
            self._write("missing", **of_it, why="not listed")
        elif time.time() - ledger.seconds_of(life.missing) >= APART_SECONDS:
            self._write("gone", **of_it, why="not listed any more" if life.id else "never listed")

    def _event(self, kind: ledger.Kind, **more: Any) -> ledger.Event:
        return ledger.event(kind, **{"fleet": self.fleet, "account": self.account, "run": self.run, **more})

    def _write(self, kind: ledger.Kind, **more: Any) -> None:
        """Write what has happened already; that it cannot be kept undoes nothing."""
        try:
            self.book.append(self._event(kind, **more))
        except ledger.NotShared as error:
            self.warn(f"fleet {self.fleet}, ledger: {kind} {', '.join(more['names'])}: {error}")
        except Unmet as error:
            self.warn(f"fleet {self.fleet}, ledger: {kind} {', '.join(more['names'])} was not kept: {error}")


def is_late(life: ledger.Life) -> bool:
    """Whether it was asked for so long ago that a list would show it."""
    return time.time() - ledger.seconds_of(life.since) > ledger.LATE_SECONDS
