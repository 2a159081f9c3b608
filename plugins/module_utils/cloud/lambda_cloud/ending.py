# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart or terminate the instances of a fleet that are meant, and nothing else."""

from __future__ import annotations

import time
from typing import List

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import name_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members


class Ending:
    """The states ``restarted`` and ``absent``."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet

    def chosen(self) -> List[lambda_api.Instance]:
        """The members that the options ``only`` and ``run`` mean."""
        only, run = set(self.fleet.params["only"]), self.fleet.params["run"]
        return [
            item
            for item in self.fleet.members()
            if (not only or {item["id"], item.get("name")} & only)
            and run in (None, lambda_api.tags_of(item).get(_lambda_fleet.RUN_TAG))
        ]

    def restarted(self) -> None:
        """Restart the chosen members, all or none, and wait until they are active again."""
        members = self.chosen()
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
        members = self.chosen()
        names = [name_of(item) for item in members]
        if members and not self.fleet.module.check_mode:
            self.fleet.terminate([item["id"] for item in members])
        ended = set() if self.fleet.module.check_mode else {item["id"] for item in members}
        self.fleet.end(
            bool(members),
            members,
            (item for item in self.fleet.known_members() if item["id"] not in ended),
            terminated=names,
            diff={"before": {"instances": names}, "after": {"instances": []}},
        )
