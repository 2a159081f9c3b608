# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launch the instances that a fleet lacks: what that needs, what it may cost, and where there is capacity."""

from __future__ import annotations

import re
import time
from typing import Any, Dict, List, Optional, Set, Tuple

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import budget, ledger, locks, run_alive
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import FLEET_TAG, exists, name_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.identity import Identity
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import RECONCILE_LOOKS, Members
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

TAG_KEY = re.compile(r"[a-z][a-z0-9:-]{1,54}")
NAME_LIMIT = 64
RATE_LIMIT_TRIES = 3


class Launching:
    """Launches, one paced request each; a launch whose answer was lost is looked up, never repeated blindly."""

    def __init__(self, fleet: Members) -> None:
        self.fleet = fleet
        self.identity = Identity(fleet)
        # Region -> ids of the wanted firewall rulesets; regions that lack something wanted are left out.
        self.regions: Dict[str, List[str]] = {}
        self.kinds: Optional[Dict[str, Dict[str, Any]]] = None

    def require_launch_options(self) -> None:
        absent = [name for name in ("region", "instance_type", "ssh_key_names") if not self.fleet.params[name]]
        if absent:
            self.fleet.fail("launch", f"to launch, {', '.join(absent)} must be set.", f"set {', '.join(absent)}.")
        bad = [
            key for key in self.fleet.params["tags"] if not TAG_KEY.fullmatch(str(key)) or key in _lambda_fleet.OWN_TAGS
        ]
        if bad:
            self.fleet.fail(
                "launch",
                f"tags: {', '.join(map(str, bad))} cannot be used as a key.",
                "use 2 to 55 lower case letters, digits, - and :, beginning with a letter, and not "
                f"{', '.join(_lambda_fleet.OWN_TAGS)}.",
            )
        self.identity.require_room()
        if not self.regions:
            self.require_ssh_keys()
        self.regions = self.usable_regions()

    def require_ssh_keys(self) -> None:
        """Fail for a key that the account does not have: a run in check mode would not find out otherwise."""
        known = {row["name"] for row in self.fleet.api.list_ssh_keys()}
        absent = [name for name in self.fleet.params["ssh_key_names"] if name not in known]
        if absent:
            self.fleet.fail(
                "launch",
                f"expected ssh keys of the account, found none named {', '.join(absent)}; it has "
                f"{', '.join(sorted(known)) or 'none'}.",
                "register the key with lambda_ssh_key, or name another in ssh_key_names.",
            )

    def usable_regions(self) -> Dict[str, List[str]]:
        """The regions that have all wanted file systems and firewall rulesets, with the ids of the latter."""
        file_systems, rulesets = set(self.fleet.params["file_system_names"]), self.fleet.params["firewall_rulesets"]
        attachable = self.fleet.api.list_file_systems() if file_systems else []
        have = {(lambda_api.region_of(row), row["name"]) for row in attachable}
        usable_rules = self.fleet.api.list_firewall_rulesets() if rulesets else []
        ids = {(lambda_api.region_of(row), row["name"]): row["id"] for row in usable_rules}
        usable: Dict[str, List[str]] = {}
        lacks: List[str] = []
        for region in self.fleet.params["region"]:
            lacking = [f"file system {name}" for name in sorted(file_systems) if (region, name) not in have]
            lacking += [f"firewall ruleset {name}" for name in rulesets if (region, name) not in ids]
            if lacking:
                lacks.append(f"{region} has no {' and no '.join(lacking)}")
            else:
                usable[region] = [ids[region, name] for name in rulesets]
        if not usable:
            self.fleet.fail(
                "launch",
                f"expected a region with everything that instances are launched with; {'; '.join(lacks)}.",
                "make what is missing (lambda_filesystem, lambda_firewall_ruleset), or name another region.",
            )
        if lacks:
            self.fleet.module.warn(f"fleet {self.fleet.name}, launch: regions that are not tried: {'; '.join(lacks)}.")
        return usable

    def most_expensive(self) -> Tuple[Optional[float], str]:
        """The price per hour of the most expensive candidate and its name; no price when one is not known."""
        price, candidate = 0.0, ""
        for name in self.fleet.params["instance_type"]:
            known = self.price_of(name)
            if known is None:
                return None, name
            if known >= price:
                price, candidate = known, name
        return price, candidate

    def launch_price(self, number: int) -> Optional[float]:
        """What that many launches would add at most to the price per hour."""
        if not number:
            return 0.0
        price, _name = self.most_expensive()
        return None if price is None else round(price * number, 2)

    def refuse_cost(self, number: int, leaving: Set[str]) -> None:
        """Fail when that many launches could lead to more than ``max_hourly_usd``."""
        limit = self.fleet.params["max_hourly_usd"]
        if limit is None:
            return
        price, kind = self.most_expensive()
        if price is None:
            self.fleet.fail(
                "cost", f"the price of {kind} is not known, but max_hourly_usd is set.", "correct the type."
            )
        fleet = [
            item
            for item in self.fleet.known
            if exists(item) and lambda_api.tags_of(item).get(FLEET_TAG) == self.fleet.name
        ]
        staying = [item for item in fleet if item["id"] not in leaving]
        unknown = [name_of(item) for item in staying if lambda_api.price_usd_per_hour(item) is None]
        running = _lambda_fleet.price_of(staying)
        most = running + price * number
        if unknown or most > limit + 0.005:
            doubt = f" The price of {', '.join(unknown)} is not known." if unknown else ""
            self.fleet.fail(
                "cost",
                f"expected at most {limit:.2f} USD per hour (max_hourly_usd); {len(staying)} running cost "
                f"{running:.2f}, and {number} {kind} at {price:.2f} could make it {most:.2f}.{doubt}",
                "launch fewer, leave out the most expensive type, or raise the limit.",
            )

    def refuse_budget(self, number: int, leaving: Set[str]) -> None:
        """Fail when that many launches could bring the fleet past ``max_monthly_usd`` by the end of the month."""
        limit, now = self.fleet.params["max_monthly_usd"], time.time()
        if limit is None:
            return
        listed = [
            _lambda_fleet.running(item)
            for item in self.fleet.known
            if exists(item) and lambda_api.tags_of(item).get(FLEET_TAG) == self.fleet.name
        ]
        price, kind = self.most_expensive()
        wish = budget.Wish(number, kind, price, self.fleet.expires(now))
        try:
            events = self.fleet.record.book.read()
        except Unmet as error:
            self.fleet.fail("budget", f"expected {error.expected}, found {error.found}.", error.next_step)
        found = budget.forecast(events, self.fleet.api.account, listed, leaving, wish, now)
        refusal = found.refusal(limit, wish)
        if refusal:
            self.fleet.fail(
                "budget", refusal, "launch fewer or cheaper ones, set glm_max_hours, end others, or raise the budget."
            )

    def free_names(self, number: int) -> List[str]:
        """The lowest unused names. Those of instances that are going away count as used, so that a name is unique."""
        used = {item.get("name") for item in self.fleet.known} | set(self.fleet.own.values())
        used |= {entry["instance"]["name"] for entry in self.fleet.replaced}
        names: List[str] = []
        candidate = 0
        while len(names) < number:
            candidate += 1
            name = f"{self.fleet.prefix}-{candidate}"
            if name not in used:
                names.append(name)
        if names and len(names[-1]) > NAME_LIMIT:
            self.fleet.fail(
                "launch", f"the name {names[-1]} has more than {NAME_LIMIT} characters.", "shorten name_prefix."
            )
        return names

    def launch_missing(self) -> None:
        """Launch until the number is right, looking at the account again after each launch.

        What ends meanwhile is not launched again here: somebody may have ended it on purpose.
        """
        seen: Set[str] = set()
        while True:
            there, coming = {item["id"] for item in self.fleet.counted()}, set(self.fleet.unlisted())
            # A run elsewhere ends its twins of what stays.
            seen = (seen | there | set(self.fleet.own)) - set(self.fleet.losing_twins()) - self.given_back()
            if len(seen | there | coming) >= self.fleet.params["count"]:
                return
            self.launch(self.free_names(1)[0])
            self.fleet.members()
            self.fleet.refuse_strays()
            self.fleet.give_back_twins()

    def given_back(self) -> Set[str]:
        """What this run itself ended."""
        return {entry["instance"]["id"] for entry in self.fleet.replaced}

    def launch(self, name: str) -> None:
        """Launch one instance in the first candidate that has capacity."""
        refused = []
        for kind in self.fleet.params["instance_type"]:
            for region in self.regions:
                if self.try_launch(name, kind, region):
                    return
                refused.append(f"{kind} in {region}")
        self.fleet.fail(
            "launch",
            f"no capacity for {name}. Tried {', '.join(refused)}.",
            "add regions or instance types, or run again later; what exists is counted, not launched twice.",
        )

    def try_launch(self, name: str, kind: str, region: str) -> bool:
        """Ask once; False when this candidate has no capacity."""
        moment = _lambda_fleet.stamp(time.time())
        request = self.launch_request(name, kind, region, moment)
        there = len(self.fleet.counted()) + len(self.fleet.unlisted())
        self.fleet.report(f"{there} of {self.fleet.params['count']} launched, launching {name} ({kind} in {region})")
        self.keep_asked(name, kind, region, moment)
        for attempt in range(1, RATE_LIMIT_TRIES + 1):
            self.require_buyer(name, moment)
            try:
                ids = self.fleet.api.launch(request)
                self.fleet.record.launched(name, moment, ids)
                self.fleet.own.update(dict.fromkeys(ids, name))
                self.fleet.changed = True
                self.identity.launched(name, moment, ids)
                return True
            except lambda_api.CapacityError as error:
                self.refused(name, moment, error)
                return False
            except _cloud_api.RateLimited as error:
                # A 429 was refused before anything happened, so it alone may be asked again.
                if attempt == RATE_LIMIT_TRIES:
                    self.refused(name, moment, error)
                    self.fleet.fail("launch", f"{name}: {error}", "run again when nothing else uses this key.")
                time.sleep(error.retry_after if error.retry_after is not None else self.fleet.params["launch_interval"])
            except lambda_api.LambdaError as error:
                if not error.outcome_unknown:
                    self.refused(name, moment, error)
                else:
                    self.fleet.record.unknown(name, moment, str(error))
                    if self.turned_up(name):
                        return True
                self.fleet.refuse_strays()
                self.fleet.fail(
                    "launch", f"{name} ({kind} in {region}): {error}", self.after_failed_launch(name, error)
                )
        return False

    def keep_asked(self, name: str, kind: str, region: str, moment: str) -> None:
        """Keep on disk what is about to be asked for, or do not ask."""
        try:
            protected = _lambda_fleet.protects(self.fleet.params["tags"])
            more = {"type": kind, "region": region, "usd_per_hour": self.price_to_keep(kind), "protected": protected}
            self.fleet.record.asked(name, moment, **more)
        except Unmet as error:
            self.fleet.fail(
                "launch",
                f"{name}: expected {error.expected}, found {error.found}; it was not launched.",
                error.next_step,
            )

    def price_of(self, kind: str) -> Optional[float]:
        """The price per hour of a type; None when it is not known. A run asks for prices once."""
        if self.kinds is None:
            self.kinds = self.fleet.api.list_instance_types()
        row = self.kinds.get(kind)
        return lambda_api.price_usd_per_hour(row) if isinstance(row, dict) else None

    def price_to_keep(self, kind: str) -> Optional[float]:
        """The same for the ledger, which no launch waits for: None, too, when the prices cannot be had."""
        try:
            return self.price_of(kind)
        except lambda_api.LambdaError:
            self.kinds = {}
            return None

    def refused(self, name: str, moment: str, why: object) -> None:
        """Keep that the request made nothing."""
        self.fleet.record.refused(name, moment, str(why))
        self.identity.refused(name, moment)

    def require_buyer(self, name: str, moment: str) -> None:
        """Fail when the instance would be of no use: its run is gone, or its fleet is being terminated."""
        run = self.fleet.params["run"]
        if run and not run_alive.is_alive(run):
            found, next_step = f"the run {run} is gone", "run again."
        elif locks.end_announced(self.fleet.api.base_url, self.fleet.name):
            found = "another run is terminating this fleet"
            next_step = "wait until it has ended, then run again if the fleet is still wanted."
        else:
            return
        self.refused(name, moment, found)
        self.fleet.fail("launch", f"{found}; {name} was not launched.", next_step)

    @staticmethod
    def after_failed_launch(name: str, error: lambda_api.LambdaError) -> str:
        if error.outcome_unknown:
            return (
                f"no instance named {name} has turned up, but one may still. "
                "Run again in a minute; what exists is counted, not launched twice."
            )
        return "correct the request and run again."

    def launch_request(self, name: str, kind: str, region: str, moment: str) -> Dict[str, Any]:
        tags = {**self.fleet.params["tags"], FLEET_TAG: self.fleet.name}
        tags[_lambda_fleet.LAUNCHED_TAG] = moment
        expires = self.fleet.expires(time.time())
        if expires is not None:
            tags[ledger.EXPIRES_TAG] = ledger.stamp(expires)
        if self.fleet.role:
            tags[_lambda_fleet.ROLE_TAG] = self.fleet.role
        if self.fleet.params["run"]:
            tags[_lambda_fleet.RUN_TAG] = self.fleet.params["run"]
        request: Dict[str, Any] = {
            "region_name": region,
            "instance_type_name": kind,
            "ssh_key_names": self.fleet.params["ssh_key_names"],
            "name": name,
            "image": {"family": self.fleet.params["image_family"]},
            "tags": [{"key": str(key), "value": str(value)} for key, value in sorted(tags.items())],
        }
        if self.fleet.params["file_system_names"]:
            request["file_system_names"] = self.fleet.params["file_system_names"]
        user_data = self.identity.user_data(name, moment)
        if user_data:
            request["user_data"] = user_data
        if self.regions[region]:
            request["firewall_rulesets"] = [{"id": identifier} for identifier in self.regions[region]]
        return request

    def turned_up(self, name: str) -> bool:
        """Whether an instance with this unique name and the fleet's tag is listed after a launch without an answer."""
        for look in range(RECONCILE_LOOKS):
            if look:
                time.sleep(self.fleet.params["wait_interval"])
            try:
                # The name was free before this launch, so what has it now is what was asked for.
                found = [item["id"] for item in self.fleet.members() if item.get("name") == name]
            except lambda_api.LambdaError as error:
                self.fleet.module.warn(
                    f"fleet {self.fleet.name}: looking for {name} after a launch without an answer: {error}"
                )
                continue
            if found:
                self.fleet.own.update(dict.fromkeys(found, name))
                self.fleet.changed = True
                self.identity.find_lost()
                return True
        return False
