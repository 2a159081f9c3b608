# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start, stop and end bare-metal nodes: those whose ids were given, once id and name were shown and confirmed.

Nobody publishes what a request for an action says, nor the words for a node's status. So whether an action came about
is read from the account's list, and what is not understood is an error.
"""

from __future__ import annotations

import time
from typing import Any, Dict, FrozenSet, List, NoReturn

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, AuthError, CloudError, RateLimited
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import ending
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.fleet import CONSOLE, Fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import NODE, status_of

# What is sent for a state, and the statuses that show it: guesses, all of them.
ACTIONS = {"started": "start", "stopped": "stop"}
REACHED: Dict[str, FrozenSet[str]] = {"started": frozenset({"running", "active"}), "stopped": frozenset({"stopped"})}


class Nodes:
    """The nodes that were given. ``fleet`` says in whose ledger their end is kept."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.params = fleet.params
        self.state: str = self.params["state"]
        self.ids: List[str] = list(dict.fromkeys(self.params["ids"]))
        # What the ledger has as ended, and the account does not show.
        self.gone: List[str] = []

    def bring(self) -> None:
        """Bring them to the state, or in check mode say what that would change."""
        if self.fleet.module.check_mode:
            self.look()
            if self.params["confirmed"] is not None:
                self.refuse_unconfirmed()
            self.end(bool(self.due()), self.shown())
        with self.fleet.alone(self.state):
            self.look()
            self.refuse_unconfirmed()
            shown, due = self.shown(), self.due()
            if self.state == "absent":
                self.absent(due)
            else:
                for identifier in due:
                    self.act(identifier)
                self.wait(due)
                shown = self.shown()
        self.end(bool(due), shown)

    def look(self) -> None:
        """Look at the account; fails unless it shows each of the nodes, or the ledger knows what became of it."""
        self.fleet.look()
        recorded = {life.id: life for life in self.fleet.record.all_lives() if life.type == NODE}
        absent = [identifier for identifier in self.ids if identifier not in self.fleet.machines]
        self.gone = [identifier for identifier in absent if identifier in recorded and recorded[identifier].until]
        # What a run that was killed asked the end of: to ask again proves what became of it.
        open_ids = {life.id for life in self.fleet.open() if life.type == NODE and life.ended_by is not None}
        ended = {*self.gone, *open_ids} if self.state == "absent" else set()
        unknown = [identifier for identifier in absent if identifier not in ended]
        if unknown:
            there = [f"{row['name'] or 'no name'} ({key})" for key, row in self.fleet.machines.items()]
            self.fail(
                f"ids: expected ids of bare-metal nodes, found {', '.join(map(repr, unknown))}; the account has "
                f"{', '.join(there) or 'none'}. Nothing was changed.",
                "correct the id, or look at whether the key is for the right organisation.",
            )

    def due(self) -> List[str]:
        """Those that are not in the state yet, as far as their status says."""
        if self.state == "absent":
            return [identifier for identifier in self.ids if identifier not in self.gone]
        return [identifier for identifier in self.ids if not self.reached(identifier)]

    def reached(self, identifier: str) -> bool:
        """Whether its status is one that shows the state."""
        return self.status(identifier) in REACHED[self.state]

    def status(self, identifier: str) -> str:
        """Its status, for people; empty where it is not known."""
        return status_of(self.fleet.machines.get(identifier, {}))

    def refuse_unconfirmed(self) -> None:
        """Fail unless these are the nodes, with the names, that were shown and confirmed."""
        given = self.params["confirmed"]
        if given is None:
            self.fail(
                "confirmed: expected the name of each id as it was shown, found none. Nothing was changed.",
                "run in check mode, look at what it names, and give its names as confirmed.",
            )
        confirmed = {str(key): str(name or "") for key, name in given.items()}
        names = {key: self.name(key) for key in self.ids if key not in self.gone}
        said = [
            *(f"{key} is named {name!r}, not {confirmed[key]!r}" for key, name in names.items()
              if confirmed.get(key, name) != name),
            *(f"{key} ({name}) is not in confirmed" for key, name in names.items() if key not in confirmed),
            *(f"{key} is not in ids" for key in confirmed if key not in self.ids),
        ]  # fmt: skip
        if said:
            self.fail(
                f"confirmed: expected the nodes as they were shown, found: {'; '.join(said)}. Nothing was changed.",
                "run in check mode again, and look at what it names.",
            )

    def name(self, identifier: str) -> str:
        """Its name; what the ledger has of one that is not listed any more."""
        row = self.fleet.machines.get(identifier)
        lives = (life.name for life in self.fleet.record.all_lives() if life.id == identifier)
        return str(row["name"] or "") if row else next(lives, "")

    # Start and stop --------------------------------------------------------------------------------------------------

    def act(self, identifier: str) -> None:
        """Ask for the action of one; fails when it was refused, and the node is not in the state all the same."""
        try:
            self.fleet.api.act_on_baremetal(identifier, self.params["action_body"] or {"action": ACTIONS[self.state]})
        except CloudError as error:
            self.fleet.changed = self.fleet.changed or error.outcome_unknown
            self.fleet.look()
            if not self.reached(identifier) and not (error.outcome_unknown and self.params["wait"]):
                self.refused(identifier, error)
            self.fleet.module.warn(f"bare metal, {self.state}: {self.word(identifier)} after: {error}")
        self.fleet.changed = True

    def refused(self, identifier: str, error: CloudError) -> NoReturn:
        plain = isinstance(error, ApiError) and not isinstance(error, (AuthError, RateLimited))
        if not plain or error.outcome_unknown:
            self.fail(f"{self.word(identifier)}: {error}", "correct the cause and run again.")
        body = "action_body" if self.params["action_body"] else f'{{"action": "{ACTIONS[self.state]}"}}'
        self.fail(
            f"{self.word(identifier)}: {error} The path of this request is published, but not its body: {body} is a "
            "guess.",
            f"do it in the console ({CONSOLE}), or ask GMI Cloud for the body and give it as action_body.",
        )

    def wait(self, due: List[str]) -> None:
        """Look until the account shows all of them in the state; fails when that takes too long."""
        start = time.monotonic()
        while due:
            self.fleet.look()
            left = [identifier for identifier in due if not self.reached(identifier)]
            if not left or not self.params["wait"]:
                return
            words, waited = "; ".join(map(self.word, left)), time.monotonic() - start
            if waited > self.params["wait_timeout"]:
                self.fail(
                    f"expected nodes that are {self.state} ({' or '.join(sorted(REACHED[self.state]))}), found after "
                    f"{waited:.0f} s: {words}. It was asked for. Nobody publishes the words for a node's status, so "
                    "another one may mean the same.",
                    f"look at {CONSOLE}; with wait false, the answer to the request is enough.",
                )
            self.fleet.report(f"waiting for {words}")
            self.fleet.pause()

    # The end ---------------------------------------------------------------------------------------------------------

    def absent(self, due: List[str]) -> None:
        """End them, again until the account shows them no more."""
        there = {life.id: life for life in self.fleet.open()}
        price = self.params["price_usd_per_hour"]
        lives = [there.get(key) or self.fleet.record.adopt(self.fleet.machines[key], price) for key in due]
        left = ending.end(self.fleet, lives, self.fleet.api.delete_baremetal)
        ending.refuse_left(self.fleet, lives, left)

    # What is shown ---------------------------------------------------------------------------------------------------

    def shown(self) -> Dict[str, Any]:
        """What a person confirms; nothing else leaves the module."""
        there = [identifier for identifier in self.ids if identifier not in self.gone]
        bound = [row for row in self.fleet.addresses.values() if row.get("instanceID") in there]
        addresses = [self.fleet.summary_of_address(row) for row in bound]
        for address in addresses:
            address["node_id"] = address.pop("container_id")
        return {
            "nodes": [self.summary_of(identifier) for identifier in there],
            "names": {identifier: self.name(identifier) for identifier in there},
            "elastic_ips": addresses,
        }

    def summary_of(self, identifier: str) -> Dict[str, Any]:
        row = self.fleet.machines.get(identifier, {})
        bound = self.fleet.bound_to(identifier) or {}
        return {
            "id": identifier,
            "name": self.name(identifier),
            "status": self.status(identifier) or ("not known" if row else "not listed"),
            **{key: row.get(key) for key in ("reason", "idc", "product", "created")},
            "ip": bound.get("ipAddress"),
        }

    def word(self, identifier: str) -> str:
        """A node and its status, in a message."""
        return f"{self.name(identifier)} ({identifier}) is {self.summary_of(identifier)['status']}"

    def end(self, changed: bool, shown: Dict[str, Any]) -> NoReturn:
        """End the run; elastic IPs that stay are said, because they cost money."""
        stay = [row for row in shown["elastic_ips"] if row["id"] in self.fleet.addresses]
        if self.state == "absent" and stay:
            words = ", ".join(f"{row['name']} ({row['id']}, {row['ip']})" for row in stay)
            self.fleet.module.warn(
                f"bare metal, absent: the end of a node releases no elastic IP. These stay and cost money: {words}. "
                f"Release them at {CONSOLE}."
            )
        names = sorted(shown["names"].values())
        after: List[str] = [] if self.state == "absent" else names
        self.fleet.end(changed, names, after, **shown)

    def fail(self, problem: str, next_step: str) -> NoReturn:
        """End the run."""
        self.fleet.fail(self.state, problem, next_step)
