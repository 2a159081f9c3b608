# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""End what was shown and confirmed: containers of a fleet with the elastic IPs that were allocated for them.

Bare-metal nodes end in the same way, see nodes.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Dict, List, Set

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ending, ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, AuthError, RateLimited
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.fleet import CONSOLE, Fleet, states_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import ADDRESS, GOING, status_of
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised


class Kind:
    """Machines or elastic IPs, as ``ending.Ending`` ends them: one request for each."""

    def __init__(self, fleet: Fleet, delete: Callable[[str], None]) -> None:
        self.fleet = fleet
        self.delete = delete
        # Whose end was accepted, or answered with a 404, whatever lists have shown since.
        self.accepted: Set[str] = set()

    def end_request(self, ids: List[str]) -> Set[str]:
        """Ask once that these end; which of them the answer names."""
        for identifier in ids:
            # To ask again for the end of what ends is refused by some APIs.
            if identifier in self.accepted and status_of(self.fleet.machines.get(identifier, {})) == GOING:
                continue
            try:
                self.delete(identifier)
            except ApiError as error:
                refused = not (error.absent or error.outcome_unknown or isinstance(error, (AuthError, RateLimited)))
                # A server ends slowly, and in a status that nobody publishes: the list has the last word.
                if refused and identifier in self.accepted:
                    continue
                if error.absent:
                    self.accepted.add(identifier)
                raise
            self.accepted.add(identifier)
        return set(ids)

    def look(self) -> Dict[str, bool]:
        """Everything in the account, and that it is there: what still ends is not gone."""
        self.fleet.record.answered |= self.accepted
        self.fleet.look()
        return dict.fromkeys([*self.fleet.machines, *self.fleet.addresses], True)


class Absent:
    """The state ``absent``."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def absent(self) -> None:
        """End what was confirmed, and nothing else."""
        if self.fleet.module.check_mode:
            self.fleet.look()
            self.tell(self.fleet.own(self.fleet.params["name"]))
        with self.fleet.alone("end"):
            self.fleet.look()
            lives = self.fleet.own(self.fleet.params["name"])
            self.refuse_unconfirmed(lives)
            shown = self.shown(lives)
            self.end_all(lives)
        self.fleet.end(bool(lives), (life.name for life in lives), (), **shown)

    def tell(self, lives: List[ledger.Life]) -> None:
        """End a run in check mode."""
        self.fleet.end(bool(lives), (life.name for life in lives), (), **self.shown(lives))

    def shown(self, lives: List[ledger.Life]) -> Dict[str, List[object]]:
        """What a person confirms."""
        return {
            "containers": [self.fleet.summary_of(life) for life in lives if life.type != ADDRESS],
            "elastic_ips": [
                self.fleet.summary_of_address({"id": life.id, "name": life.name, **self.fleet.row_of(life)})
                for life in lives
                if life.type == ADDRESS
            ],
            "ids": [life.id for life in lives],
        }

    def refuse_unconfirmed(self, lives: List[ledger.Life]) -> None:
        """Fail unless these are the ids that were shown and confirmed. What is gone already needs no more."""
        given = self.fleet.params["confirmed"]
        if given is None:
            self.fleet.fail(
                "end",
                "confirmed: expected the ids that were shown, found none; nothing was ended.",
                "run in check mode, look at what it names, and give its ids as confirmed.",
            )
        ids, confirmed = {life.id: life.name for life in lives}, set(given)
        gone = {life.id for life in self.fleet.record.all_lives() if life.until}
        changes = [("joined", set(ids) - confirmed), ("not of this fleet", confirmed - set(ids) - gone)]
        said = [
            f"{word}: {', '.join(f'{ids.get(key, key)} ({key})' for key in sorted(found))}"
            for word, found in changes
            if found
        ]
        if said:
            self.fleet.fail(
                "end",
                f"confirmed: expected the fleet as it was shown, found {'; '.join(said)}. Nothing was ended.",
                "run in check mode again, and look at what it names.",
            )

    def end_all(self, lives: List[ledger.Life]) -> None:
        """End the containers, then release the elastic IPs of those that are gone; fails, and names what is left."""
        left = end(self.fleet, [life for life in lives if life.type != ADDRESS], self.fleet.api.delete_container)
        addresses = [life for life in lives if life.type == ADDRESS]
        # Bound to what is still there, also by somebody else, it is in use.
        used = [life for life in addresses if self.fleet.row_of(life).get("instanceID") in self.fleet.machines]
        left.update(
            end(self.fleet, [life for life in addresses if life not in used], self.fleet.api.release_elastic_ip),
            **{life.id: "it is bound to a container that is still there" for life in used},
        )
        refuse_left(self.fleet, lives, left)


def end(fleet: Fleet, lives: List[ledger.Life], delete: Callable[[str], None]) -> Dict[str, str]:
    """End these and no others, again until the account shows them no more; what is left, with the reason."""
    for life in lives:
        fleet.record.ending(life, "ended by request")
    outcome = ending.Ending(
        Kind(fleet, delete),
        [life.id for life in lives],
        fleet.params["wait_timeout"],
        fleet.params["wait_interval"],
        lambda done, left: fleet.report(
            f"{done} of {len(lives)} gone, waiting for {states_of(fleet, [life for life in lives if life.id in left])}"
        ),
        time.sleep,
        time.monotonic,
    ).run(until_gone=True)
    fleet.changed = fleet.changed or bool(outcome.gone)
    return outcome.left


def refuse_left(fleet: Fleet, lives: List[ledger.Life], left: Dict[str, str]) -> None:
    """Fail when some of these are still there; ``left`` has the reason of each."""
    if left:
        states = states_of(fleet, [life for life in lives if life.id in left])
        fleet.fail(
            "end",
            f"{advised(' '.join(dict.fromkeys(left.values())), '')} Expected to be gone, found: {states}.",
            f"run again; ending twice does no harm. What is prepaid cannot end before its term; look at {CONSOLE}.",
        )
