# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart or terminate the instances of a fleet that are meant, and nothing else."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, locks
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import name_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# What Lambda asks for each GiB in use, attached or not; the API does not say it.
STORAGE_USD_PER_GIB_MONTH = 0.20


class Ending:
    """The states ``restarted`` and ``absent``."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet

    def chosen(self, phase: str) -> List[lambda_api.Instance]:
        """The members that the options ``only`` and ``run`` mean; fails when one of these means nothing."""
        # Without its tag, or not listed yet, it can be ended, as it costs money; nothing else is done with it.
        members = self.fleet.endable() if phase == "terminate" else self.fleet.members()
        only, run = self.fleet.params["only"], self.fleet.params["run"]
        if only is not None:
            members = self.named(phase, members, only)
        if run is None:
            return members
        launched = {life.id for life in self.fleet.record.lives() if life.run == run}
        chosen = [item for item in members if self.run_of(item) == run or item["id"] in launched]
        if not run or not (launched or any(self.run_of(item) == run for item in self.fleet.known)):
            self.fleet.fail(
                phase,
                f"run: expected instances with the tag {_lambda_fleet.RUN_TAG}={run}, found none; nothing was changed.",
                "correct the value, or leave it out.",
            )
        return chosen

    @staticmethod
    def run_of(instance: lambda_api.Instance) -> Optional[str]:
        """Which run launched it, by its tag."""
        return lambda_api.tags_of(instance).get(_lambda_fleet.RUN_TAG)

    def named(self, phase: str, members: List[lambda_api.Instance], only: List[str]) -> List[lambda_api.Instance]:
        """The members with these names or ids. What is going already needs no more than a word."""
        if not only:
            self.fleet.fail(
                phase,
                "only: expected names or ids, found an empty list; nothing was changed.",
                "name the instances, or leave the option out to mean the whole fleet.",
            )
        going = {
            word
            for item in self.fleet.known
            if self.fleet.is_member(item) and not _lambda_fleet.exists(item)
            for word in (item["id"], item.get("name"))
        }
        # What the ledger knows and nothing shows has gone.
        going |= {life.id for life in self.fleet.record.lives() if life.id}
        words = {word for item in members for word in (item["id"], item.get("name"))}
        unmatched = [entry for entry in only if entry not in words]
        unknown = [entry for entry in unmatched if entry not in going]
        if unknown:
            self.fleet.fail(
                phase,
                f"only: expected names or ids of instances of this fleet, found {', '.join(map(repr, unknown))}; it "
                f"has {', '.join(name_of(item) for item in members) or 'none'}; nothing was changed.",
                "correct the name.",
            )
        if unmatched:
            self.fleet.module.warn(f"fleet {self.fleet.name}, {phase}: {', '.join(unmatched)}: going or gone already.")
        return [item for item in members if {item["id"], item.get("name")} & set(only)]

    def restarted(self) -> None:
        """Restart the chosen members, all or none, and wait until they are active again."""
        members = self.chosen("restart")
        names = [name_of(item) for item in members]
        self.refuse_busy(members)
        if members and not self.fleet.module.check_mode:
            self.restart([item["id"] for item in members])
            members = [item for item in self.fleet.members() if name_of(item) in names]
        self.fleet.end(
            bool(names),
            members,
            self.fleet.known_members(),
            restarted=names,
            diff={"before": {}, "after": {"restarted": names}},
        )

    def refuse_busy(self, members: List[lambda_api.Instance]) -> None:
        busy = []
        for item in members:
            actions = item.get("actions")
            action = actions.get("restart") if isinstance(actions, dict) else None
            if isinstance(action, dict) and action.get("available") is False:
                busy.append(f"{name_of(item)} ({action.get('reason_code') or item.get('status')})")
        if busy:
            self.fleet.fail(
                "restart",
                f"expected instances that can restart, found {', '.join(busy)}; none was restarted.",
                "wait until these are active, or leave them out with only.",
            )

    def restart(self, ids: List[str]) -> None:
        try:
            self.fleet.api.restart(ids)
            self.fleet.changed = True
        except lambda_api.LambdaError as error:
            statuses = {item["id"]: item.get("status") for item in self.fleet.members()}
            if not error.outcome_unknown or any(statuses.get(identifier) != "booting" for identifier in ids):
                self.fleet.fail(
                    "restart", str(error), "look at the instances, then run again if they were not restarted."
                )
            self.fleet.changed = True
        start = time.monotonic()
        while self.fleet.params["wait"]:
            down = [item for item in self.fleet.members() if item["id"] in ids and item.get("status") != "active"]
            there = {item["id"] for item in self.fleet.known_members()}
            if not down and there.issuperset(ids):
                return
            if time.monotonic() - start > self.fleet.params["wait_timeout"] or not there.issuperset(ids):
                states = _lambda_fleet.states_of(item for item in self.fleet.known if item["id"] in ids)
                self.fleet.fail(
                    "restart", f"expected active instances, found: {states}.", "replace those that do not come up."
                )
            self.fleet.report(
                f"{len(ids) - len(down)} of {len(ids)} active, waiting for {_lambda_fleet.states_of(down)}"
            )
            time.sleep(self.fleet.params["wait_interval"])

    def absent(self) -> None:
        """Terminate the chosen members; those going away already are left alone, as the API refuses them."""
        if self.fleet.module.check_mode:
            self.end_absent(*self.to_end())
        whole = self.fleet.params["only"] is None and self.fleet.params["run"] is None
        announced = locks.announce_end(self.fleet.api.base_url, self.fleet.name) if whole else contextlib.nullcontext()
        with announced, self.fleet.alone("terminate"):
            members, protected = self.to_end()
            self.fleet.refuse_unconfirmed(members, all_of_them=not self.fleet.params["unless_extended_since"])
            if members:
                self.fleet.terminate([item["id"] for item in members], "terminated by request")
        self.end_absent(members, protected)

    def to_end(self) -> Tuple[List[lambda_api.Instance], List[lambda_api.Instance]]:
        """What is to end, and what is left out because it is protected; naming that is refused."""
        members = self.chosen("terminate")
        if self.fleet.params["only"] is not None:
            self.fleet.refuse_protected(members)
        protected = self.fleet.protected(members)
        free = [item for item in members if item not in protected]
        since = self.fleet.params["unless_extended_since"]
        return self.without_extended(free, since) if since else free, protected

    def without_extended(self, members: List[lambda_api.Instance], since: str) -> List[lambda_api.Instance]:
        """Those whose time no run has extended since whoever chose them looked at the ledger."""
        try:
            events = self.fleet.record.book.read()
        except Unmet as error:
            self.fleet.fail("terminate", f"expected {error.expected}, found {error.found}.", error.next_step)
        moment = ledger.moment(since)
        if self.fleet.record.book.shared and moment is not None:
            # By the clock of whoever extended it.
            since = ledger.stamp(moment - ledger.CLOCK_SECONDS)
        newer = [event for event in events if event["at"] >= since]
        kept = [item for item in members if (ledger.extended_to(newer, item["id"]) or 0.0) > time.time()]
        if kept:
            names = ", ".join(map(name_of, kept))
            self.fleet.module.warn(
                f"fleet {self.fleet.name}, terminate: kept, because a run has extended its time: {names}"
            )
        return [item for item in members if item not in kept]

    def end_absent(self, members: List[lambda_api.Instance], protected: List[lambda_api.Instance]) -> None:
        names = [name_of(item) for item in members]
        ended = {item["id"] for item in members}
        running = [item for item in self.fleet.known_endable() if item["id"] not in ended]
        self.fleet.end(
            bool(members),
            members,
            running,
            terminated=names,
            running=[name_of(item) for item in running],
            protected=[name_of(item) for item in protected],
            unsettled=self.fleet.unsettled(),
            recorded=len(self.fleet.record.lives()),
            remaining=self.remaining(members),
            diff={"before": {"instances": names}, "after": {"instances": []}},
        )

    def remaining(self, members: List[lambda_api.Instance]) -> Optional[Dict[str, Any]]:
        """File systems of these and of the fleet, and its rulesets, which all stay; None when they are not known."""
        places = {
            (lambda_api.region_of(item), name) for item in members for name in item.get("file_system_names") or []
        }
        own = set(self.fleet.params["file_system_names"])
        try:
            file_systems = [
                _stored(row)
                for row in self.fleet.api.list_file_systems()
                if row["name"] in own or (lambda_api.region_of(row), row["name"]) in places
            ]
            rulesets = [
                {"name": row["name"], "region": lambda_api.region_of(row)}
                for row in self.fleet.api.list_firewall_rulesets()
                if row["name"] == f"glm-{self.fleet.name}"
            ]
        except lambda_api.LambdaError as error:
            self.fleet.module.warn(f"fleet {self.fleet.name}, terminate: what stays could not be listed: {error}")
            return None
        return {"file_systems": file_systems, "firewall_rulesets": rulesets}


def _stored(row: Dict[str, Any]) -> Dict[str, Any]:
    """What is returned of a file system that stays."""
    used = row.get("bytes_used")
    gib = used / 2**30 if isinstance(used, (int, float)) else None
    return {
        "name": row["name"],
        "region": lambda_api.region_of(row),
        "gib_used": None if gib is None else round(gib, 1),
        "usd_per_month": None if gib is None else round(gib * STORAGE_USD_PER_GIB_MONTH, 2),
    }
