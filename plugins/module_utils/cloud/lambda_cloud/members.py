# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances of one fleet as a run has seen and changed them, and how a run fails. Knows no desired state."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Set

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import FLEET_TAG, exists
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised

# A launch whose answer was lost shows up in the listing within seconds, or not at all.
RECONCILE_LOOKS = 4


class Members:
    """The instances of one fleet, as of the last look at the account, and what this run did to them."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.module = module
        self.params = module.params
        self.api = api
        self.name = self.params["fleet"]
        self.role = self.params["role"]
        self.prefix = self.params["name_prefix"] or "-".join(filter(None, ["glm", self.name, self.role]))
        self.changed = False
        # What this run launched and did not terminate: id -> name.
        self.own: Dict[str, str] = {}
        self.listed: Set[str] = set()
        self.replaced: List[Dict[str, Any]] = []
        self.replacements_left: int = self.params["replacements"]
        self.terminated: List[str] = []
        self.known: List[lambda_api.Instance] = []
        self.looked = False

    def members(self) -> List[lambda_api.Instance]:
        """Ask for the fleet's existing instances, by name, and remember the whole answer in ``known``."""
        self.known = self.api.list_instances()
        self.looked = True
        self.listed.update(item["id"] for item in self.known)
        return self.known_members()

    def known_members(self) -> List[lambda_api.Instance]:
        """The fleet's existing instances of the role, as of the last look."""
        return _lambda_fleet.in_order(item for item in self.known if exists(item) and self.is_member(item))

    def is_member(self, instance: lambda_api.Instance) -> bool:
        tags = lambda_api.tags_of(instance)
        return tags.get(FLEET_TAG) == self.name and self.role in (None, tags.get(_lambda_fleet.ROLE_TAG))

    def unlisted(self) -> Dict[str, str]:
        """What this run launched and no listing has shown yet: id -> name."""
        return {key: name for key, name in self.own.items() if key not in self.listed}

    def untagged(self) -> Dict[str, str]:
        """What this run launched and the API lists without the fleet's tags: id -> name."""
        lost = [item["id"] for item in self.known if exists(item) and not self.is_member(item)]
        return {key: name for key, name in self.own.items() if key in lost}

    def other_fleets(self) -> Dict[str, int]:
        """How many existing instances each other fleet has, as of the last look at the account."""
        values = [lambda_api.tags_of(item).get(FLEET_TAG) for item in self.known if exists(item)]
        return dict(sorted(Counter(value for value in values if value not in (None, self.name)).items()))

    def report(self, progress: str) -> None:
        """Write what is waited for and how far it is, for the action to print."""
        if self.params["progress_file"]:
            with contextlib.suppress(OSError):
                files.write_text(Path(self.params["progress_file"]), progress)

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the run; says what is left running and what it costs, as far as the API can be asked."""
        fresh = True
        try:
            members = self.members()
        except lambda_api.LambdaError:
            fresh, members = False, self.known_members()
        left = _lambda_fleet.bill(members if self.looked else None, fresh)
        for state, own in (("not listed", self.unlisted()), (f"without the tag {FLEET_TAG}", self.untagged())):
            if own:
                left += f" Launched but {state}: {', '.join(f'{name} ({key})' for key, name in own.items())}."
        self.module.fail_json(
            msg=advised(f"fleet {self.name}, {phase}: {problem} {left}", next_step),
            changed=self.changed,
            instances=[_lambda_fleet.summary_of(item) for item in members],
            price_usd_per_hour=_lambda_fleet.price_of(members),
            launched=sorted(self.own.values()),
            launched_ids=sorted(self.own),
            replaced=self.replaced,
            terminated=self.terminated,
        )
        raise AssertionError("fail_json returned")

    def refuse_strays(self) -> None:
        """Fail when an instance has a name but no tag of this fleet: counted by tag, it would be launched again."""
        pattern = re.compile(re.escape(self.prefix) + r"-[0-9]+")
        strays = [
            item
            for item in self.known
            if exists(item) and pattern.fullmatch(item.get("name") or "") and FLEET_TAG not in lambda_api.tags_of(item)
        ]
        if strays:
            self.fail(
                "launch",
                f"expected instances with this fleet's names to carry the tag {FLEET_TAG}, found none on: "
                f"{_lambda_fleet.states_of(strays)}. Either the API dropped the tag or somebody else named them so.",
                "terminate them in the console if they are not needed, or set another name_prefix.",
            )

    def terminate(self, ids: List[str]) -> None:
        """Terminate the instances and, if wanted, wait until they are going away."""
        problem = ""
        try:
            self.api.terminate(ids)
            self.changed = True
        except lambda_api.LambdaError as error:
            # An instance that ended a moment ago makes the API refuse them all; the listing has the truth.
            problem = f"{error} "
        if not (problem or self.params["wait"]):
            return
        start = time.monotonic()
        while True:
            left = [item for item in self.members() if item["id"] in ids]
            if not left:
                self.changed = True
                return
            if problem or time.monotonic() - start > self.params["wait_timeout"]:
                states = _lambda_fleet.states_of(left)
                self.fail("terminate", f"{problem}Expected to be gone, found: {states}.", "run again.")
            self.report(f"{len(ids) - len(left)} of {len(ids)} terminated, waiting for {_lambda_fleet.states_of(left)}")
            time.sleep(self.params["wait_interval"])
