# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the number of a fleet's instances right: replace, end, launch, and wait until all are up."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import name_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.launching import Launching
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.replacing import Replacing
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.waiting import Waiting


class Present:
    """The state ``present``."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet
        self.replacing = Replacing(fleet)
        self.launching = Launching(fleet, self.replacing)
        self.waiting = Waiting(fleet, self.replacing, self.change)

    def present(self) -> None:
        """Terminate what is unhealthy or too much, launch what is missing, and wait until all are up."""
        if self.fleet.module.check_mode:
            members = self.fleet.members()
            self.tell_plan([name_of(item) for item in members], *self.planned(members))
        before = self.change()
        members = self.waiting.wait_until_up() if self.fleet.params["wait"] else self.settled()
        names = [name_of(item) for item in members] + sorted(self.fleet.unlisted().values())
        self.fleet.module.exit_json(
            changed=self.fleet.changed,
            instances=[_lambda_fleet.summary_of(item) for item in members],
            launched=sorted(self.fleet.own.values(), key=natural),
            launched_ids=sorted(self.fleet.own),
            replaced=self.fleet.replaced,
            surplus=names[self.fleet.params["count"] :],
            terminated=self.fleet.terminated,
            price_usd_per_hour=_lambda_fleet.price_of(members),
            cost_usd_so_far=_lambda_fleet.cost_of(members),
            other_fleets=self.fleet.other_fleets(),
            diff={"before": {"instances": before}, "after": {"instances": names}},
        )

    def planned(
        self, members: List[lambda_api.Instance]
    ) -> Tuple[List[Dict[str, Any]], List[lambda_api.Instance], List[str], List[lambda_api.Instance]]:
        """What would be replaced (with reasons), terminated, launched, and stays. Refuses what cannot be done."""
        victims = self.victims(members)
        bad = {instance["id"] for instance, _reason in victims}
        good = [item for item in members if item["id"] not in bad]
        missing = max(0, self.fleet.params["count"] - len(good) - len(self.fleet.unlisted()))
        names = self.launching.free_names(missing)
        if names:
            self.fleet.refuse_strays()
            self.launching.require_launch_options()
            self.launching.refuse_cost(len(names), bad)
        surplus = self.too_many(good)
        ended = {item["id"] for item in surplus}
        entries = [self.replacing.entry(instance, reason) for instance, reason in victims]
        return entries, surplus, names, [item for item in good if item["id"] not in ended]

    def tell_plan(
        self,
        before: List[str],
        entries: List[Dict[str, Any]],
        surplus: List[lambda_api.Instance],
        names: List[str],
        staying: List[lambda_api.Instance],
    ) -> None:
        """End a run in check mode."""
        stay = [name_of(item) for item in staying]
        self.fleet.module.exit_json(
            changed=bool(entries or surplus or names),
            instances=[_lambda_fleet.summary_of(item) for item in staying],
            launched=names,
            launched_ids=[],
            launch_price_usd_per_hour=self.launching.launch_price(len(names)),
            replaced=entries,
            surplus=stay[self.fleet.params["count"] :],
            terminated=[name_of(item) for item in surplus],
            price_usd_per_hour=_lambda_fleet.price_of(staying),
            cost_usd_so_far=_lambda_fleet.cost_of(staying),
            other_fleets=self.fleet.other_fleets(),
            diff={"before": {"instances": before}, "after": {"instances": [*stay, *names]}},
        )

    def change(self) -> List[str]:
        """Bring the number right, alone among the runs of this user for this fleet; returns who was there before."""
        with _lambda_fleet.only_run(
            self.fleet.api.base_url, self.fleet.name, self.fleet.params["wait_timeout"]
        ) as alone:
            if not alone:
                timeout = self.fleet.params["wait_timeout"]
                self.fleet.fail(
                    "launch",
                    f"another run for this fleet has been launching for more than {timeout} s.",
                    "wait until it has ended, then run again.",
                )
            members = self.fleet.members()
            entries, surplus, names, _staying = self.planned(members)
            for entry in entries:
                self.replacing.give_back(entry)
            if surplus:
                self.end_surplus(surplus)
            if names:
                self.launching.launch_missing()
            return [name_of(item) for item in members]

    def victims(self, members: List[lambda_api.Instance]) -> List[Tuple[lambda_api.Instance, str]]:
        """The instances to replace that are still there, with the reason."""
        reasons = {entry["id"]: entry["reason"] for entry in self.fleet.params["replace"]}
        return [(item, reasons[item["id"]]) for item in members if item["id"] in reasons]

    def too_many(self, members: List[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """The instances beyond the desired number that are to end."""
        number = len(members) - self.fleet.params["count"]
        if self.fleet.params["surplus"] == "keep" or number <= 0:
            return []
        unhealthy = [item for item in members if item.get("status") == "unhealthy"]
        others = [item for item in members if item.get("status") != "unhealthy"]
        return _lambda_fleet.in_order([*others, *unhealthy][-number:])

    def end_surplus(self, surplus: List[lambda_api.Instance]) -> None:
        self.fleet.terminate([item["id"] for item in surplus])
        self.fleet.terminated += [name_of(item) for item in surplus]

    def settled(self) -> List[lambda_api.Instance]:
        """The members right after the launches, when they are not waited for."""
        members = self.fleet.members()
        self.fleet.refuse_strays()
        return members


def natural(name: str) -> Tuple[int, str]:
    """Sorts numbered names of one prefix by their number."""
    number = re.search(r"[0-9]+$", name)
    return (int(number.group()) if number else 0, name)
