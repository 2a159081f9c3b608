# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way in which instances end, on any cloud: by id, and again until the account shows that they are gone.

Ending by id can be repeated without harm: a request that was refused, lost or answered with an error only means that
the instance still costs money. A launch is the opposite and is never repeated.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Protocol, Set

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api

# An instance that is shown as running so long after its end was accepted is ended again.
ACCEPTED_SECONDS = 30.0
# A single instance that is refused so often for a reason of its own is given up, and named.
REFUSALS = 3
# Answers to ids that end already, or that are busy.
_UNCERTAIN = frozenset({"global/unknown", "global/conflict"})


class Account(Protocol):
    """What ending needs of a cloud. Both methods raise ``CloudError``."""

    def end_request(self, ids: List[str]) -> Collection[str]:
        """Ask once that these end; which of them the answer names."""

    def look(self) -> Dict[str, bool]:
        """Every instance of the account: its id, and whether it is there to stay."""


@dataclass
class Outcome:
    """What became of the ids: ``accepted`` by the API, ``gone`` by the account's own list, ``left`` with the reason."""

    accepted: List[str] = field(default_factory=list)
    gone: List[str] = field(default_factory=list)
    left: Dict[str, str] = field(default_factory=dict)


class Ending:
    """One attempt to end some ids, with the patience to see it through. ``seconds`` bounds it, waits included."""

    def __init__(
        self,
        account: Account,
        ids: Iterable[str],
        seconds: float,
        interval: float,
        report: Callable[[int, List[str]], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = account
        self.ids = list(dict.fromkeys(ids))
        self.left = list(self.ids)
        self.interval = interval
        self.report = report
        self.sleep = sleep
        self.clock = clock
        self.deadline = clock() + seconds
        self.accepted: Dict[str, float] = {}
        self.absent: Set[str] = set()
        self.refusals: Dict[str, int] = {}
        self.trouble: Dict[str, _cloud_api.CloudError] = {}
        self.hopeless: Optional[_cloud_api.CloudError] = None
        self.together = True

    def run(self, until_gone: bool) -> Outcome:
        """End them. Without ``until_gone`` the API's word is enough."""
        rounds = 0
        while self.left:
            rounds += 1
            self.ask()
            if not until_gone and all(identifier in self.accepted for identifier in self.left):
                break
            self.see()
            over = self.clock() >= self.deadline
            if not self.left or self.hopeless or over or not self.open():
                break
            self.report(len(self.ids) - len(self.left), self.left)
            self.sleep(max(0.0, min(self.pause(rounds), self.deadline - self.clock())))
        accepted = [identifier for identifier in self.left if identifier in self.accepted and not until_gone]
        return Outcome(
            accepted=accepted,
            gone=[identifier for identifier in self.ids if identifier not in self.left],
            left={identifier: self.reason(identifier) for identifier in self.left if identifier not in accepted},
        )

    def open(self) -> List[str]:
        """What may be asked for again."""
        return [identifier for identifier in self.left if self.refusals.get(identifier, 0) < REFUSALS]

    def due(self) -> List[str]:
        """What has to be asked for now: all that is left but what the API accepted a moment ago."""
        now = self.clock()
        return [
            identifier
            for identifier in self.open()
            if identifier not in self.accepted or now - self.accepted[identifier] >= ACCEPTED_SECONDS
        ]

    def ask(self) -> None:
        """Ask for what is due, together or, once that was refused, one by one: one id can make an API refuse all."""
        due = self.due()
        if len(due) > 1 and self.together:
            self.request(due)
            if self.together or self.hopeless:
                return
            due = self.due()
        for identifier in due:
            if not self.hopeless:
                self.request([identifier])

    def request(self, ids: List[str]) -> None:
        """Ask once, and keep what was answered."""
        try:
            named = set(self.account.end_request(ids))
        except (_cloud_api.AuthError, _cloud_api.FinalAnswer) as error:
            self.hopeless = error
            self.trouble.update(dict.fromkeys(ids, error))
        except _cloud_api.CloudError as error:
            self.trouble.update(dict.fromkeys(ids, error))
            if _is_refusal(error):
                self.together = False
                self.refused(ids, error)
        else:
            for identifier in ids:
                if identifier in named:
                    self.accepted[identifier] = self.clock()
                    self.trouble.pop(identifier, None)
                else:
                    self.trouble[identifier] = _cloud_api.BadAnswer("the API answered, but does not name it as ended.")

    def refused(self, ids: List[str], error: _cloud_api.CloudError) -> None:
        if len(ids) > 1:
            return
        if isinstance(error, _cloud_api.ApiError) and error.absent:
            self.absent.update(ids)
        elif not (isinstance(error, _cloud_api.ApiError) and error.code in _UNCERTAIN):
            self.refusals[ids[0]] = self.refusals.get(ids[0], 0) + 1

    def see(self) -> None:
        """Look at the account. An answer that does not come proves nothing, nor does a list without a row."""
        try:
            listed = self.account.look()
        except _cloud_api.CloudError as error:
            for identifier in self.left:
                self.trouble.setdefault(identifier, error)
            return
        proven = self.absent | set(self.accepted)
        self.left = [identifier for identifier in self.left if listed.get(identifier, identifier not in proven)]

    def pause(self, rounds: int) -> float:
        """Seconds until the next look: after trouble longer each time, or what the API asked for."""
        errors = [self.trouble[identifier] for identifier in self.left if identifier in self.trouble]
        if not errors:
            return self.interval
        asked = [error.retry_after for error in errors if isinstance(error, _cloud_api.RateLimited)]
        if asked and asked[0] is not None:
            return asked[0]
        backoff: float = min(2.0 ** min(rounds - 1, 10), _cloud_api.BACKOFF_CAP)
        return backoff

    def reason(self, identifier: str) -> str:
        error = self.trouble.get(identifier) or self.hopeless
        return str(error) if error else "the API accepted its end, but the account still shows it"


def _is_refusal(error: _cloud_api.CloudError) -> bool:
    """Whether the API understood the request and would not do it, so that asking for less may help."""
    if not isinstance(error, _cloud_api.ApiError) or isinstance(error, _cloud_api.RateLimited):
        return False
    return (400 <= error.status < 500 and error.status != 408) or error.code in _UNCERTAIN
