# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Terminate an instance of a fleet that is unhealthy or was launched twice, and keep what was found."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Dict, List

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import RECONCILE_LOOKS, Members


class Replacing:
    """Terminates instances. Two runs on two machines may launch under one name; then all but one of these go, too."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet

    def losing_twins(self) -> Dict[str, str]:
        """What shares its name with something that this run launched and has to go: its id -> the id that stays.

        Names are free when they are chosen, so a run elsewhere chose the same one at that moment. All runs keep the
        lowest id.
        """
        ids: Dict[str, List[str]] = {name: [] for name in self.fleet.own.values()}
        for item in self.fleet.known_members():
            twins = ids.get(item.get("name") or "")
            if twins is not None:
                twins.append(item["id"])
        return {twin: min(twins) for twins in ids.values() for twin in twins if twin != min(twins)}

    def counted(self) -> List[lambda_api.Instance]:
        """The members that stay when all runs are through."""
        losing = self.losing_twins()
        return [item for item in self.fleet.known_members() if item["id"] not in losing]

    def give_back_twins(self) -> None:
        """Terminate what this run launched and a run elsewhere keeps another for."""
        for twin, keeper in self.losing_twins().items():
            if twin in self.fleet.own:
                self.give_back_own(twin, keeper)

    def give_back_own(self, own: str, other: str) -> None:
        item = next(item for item in self.fleet.known if item["id"] == own)
        self.give_back(self.entry(item, f"another run launched {other} under the same name"))

    def outlast_twins(self, looks: int) -> None:
        """Let a run elsewhere terminate its twins; when it has ended without having seen ours, terminate ours."""
        if looks < RECONCILE_LOOKS:
            time.sleep(self.fleet.params["wait_interval"])
            return
        for twin, keeper in self.losing_twins().items():
            if keeper in self.fleet.own:
                self.give_back_own(keeper, twin)
                # That run may have done the same at this moment; then both have to be launched again.
                self.fleet.replacements_left += 1

    @staticmethod
    def entry(instance: lambda_api.Instance, reason: str) -> Dict[str, Any]:
        """What is reported and kept about an instance that is terminated."""
        moment = _lambda_fleet.stamp(time.time())
        return {"instance": _lambda_fleet.summary_of(instance), "reason": reason, "time": moment}

    def give_back(self, entry: Dict[str, Any]) -> None:
        """Keep the evidence, then terminate the instance unless it is going away already."""
        instance = entry["instance"]
        if self.fleet.params["evidence_dir"]:
            given = [item.get("evidence") for item in self.fleet.params["replace"] if item["id"] == instance["id"]]
            entry["evidence"] = self.keep_evidence({**entry, "found": given[0]} if given and given[0] else entry)
        self.fleet.replaced.append(entry)
        if instance["status"] not in lambda_api.GONE:
            self.fleet.terminate([instance["id"]])
        self.fleet.own.pop(instance["id"], None)
        # Without waiting there was no second look.
        self.fleet.known = [item for item in self.fleet.known if item["id"] != instance["id"]]

    def keep_evidence(self, entry: Dict[str, Any]) -> str:
        instance = entry["instance"]
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", instance["name"]) or "instance"
        path = Path(self.fleet.params["evidence_dir"]) / f"{plain}-{instance['id'][:8]}.json"
        try:
            files.write_json(path, entry)
        except OSError as error:
            self.fleet.fail(
                "evidence",
                f"{path} cannot be written: {error.strerror}; {instance['name']} ({instance['id']}) was kept.",
                "set evidence_dir to a folder that can be written.",
            )
        return str(path)
