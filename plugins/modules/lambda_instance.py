# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: give one fleet the wanted number of instances, restart or terminate them. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance
short_description: Launch, replace, restart or terminate the Lambda Cloud instances of a fleet
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Counts the instances with the tag C(glm-fleet=<fleet>), and C(glm-role=<role>) if O(role) is set, and launches
    what is missing, one paced request each, or restarts or terminates them. Instances without the tag are left alone.
  - Run it once for a whole fleet, on C(localhost). Runs of one user for the same fleet wait for each other; instances
    that runs on two machines launched under one name are recognised, and all but one given back.
  - A launch whose answer was lost is looked up by name and tag, never repeated blindly.
  - Launching costs money from the first minute. Each failure names what is left running and its price per hour.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    description: Asks what exists and sends nothing. RV(launched) and RV(terminated) then name what would be done.
  diff_mode:
    support: full
  idempotent:
    support: partial
    description: O(state=restarted) restarts each time.
options:
  state:
    description:
      - V(present) launches until O(count) instances exist. What becomes of more than that is for O(surplus) to say.
      - V(restarted) restarts every instance of the fleet, and refuses if one of them cannot restart now.
      - V(absent) terminates every instance of the fleet. Their local disks are lost.
    type: str
    choices: [present, restarted, absent]
    default: present
  fleet:
    description: Value of the tag C(glm-fleet) that marks the instances of this fleet.
    type: str
    default: default
  role:
    description:
      - Value of the tag C(glm-role), for a fleet whose instances do different things. Only instances with it are
        counted, restarted or terminated, and new ones get it. Without it, all instances of the fleet are meant.
    type: str
  run:
    description:
      - With O(state=present), value of the tag C(glm-run) of what is launched. With O(state=restarted) and
        O(state=absent), only the instances that have it are meant.
    type: str
  count:
    description: How many instances the fleet should have. Booting, active and unhealthy ones count.
    type: int
    default: 1
  only:
    description: With O(state=restarted) and O(state=absent), only the instances with these names or ids.
    type: list
    elements: str
    default: []
  surplus:
    description:
      - What becomes of instances beyond O(count). V(terminate) ends unhealthy ones first, then those with the highest
        numbers.
    type: str
    choices: [keep, terminate]
    default: keep
  replace:
    description:
      - Instances of the fleet that are no good, for instance because their GPUs failed acceptance. They are terminated
        and no longer counted, so that others are launched for them. One that is gone already is passed over.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: The instance's id.
        type: str
        required: true
      reason:
        description: What was found; kept as evidence.
        type: str
        required: true
      evidence:
        description: What else to keep, such as the verdict of M(glm.fleet.node_acceptance).
        type: dict
  replacements:
    description:
      - How many instances launched by this run may be given back and launched again because they did not come up; they
        ended, became unhealthy, or have no address within O(wait_timeout). Beyond that the run fails.
    type: int
    default: 0
  evidence_dir:
    description:
      - Folder on the controller. What was known about each instance that was replaced is kept in
        C(<name>-<first 8 of the id>.json) in it.
    type: path
  max_hourly_usd:
    description:
      - Most that all instances of the fleet, of all roles, may cost per hour. A launch that could lead to more, at the
        price of the dearest of O(instance_type), is refused before anything is launched.
    type: float
  region:
    description: Regions to try, in order. Needed to launch.
    type: list
    elements: str
    default: []
  instance_type:
    description:
      - Instance types to try, in order, each in all regions. Needed to launch.
      - Only a lack of capacity leads to the next candidate; any other refusal ends the run.
    type: list
    elements: str
    default: []
  image_family:
    description: Image family. Always sent, because the default image of the API differs between regions.
    type: str
    default: gpu-base-24-04
  ssh_key_names:
    description: Names of ssh keys registered with Lambda. The API accepts exactly one. Needed to launch.
    type: list
    elements: str
    default: []
  file_system_names:
    description:
      - Names of file systems to attach. A region that lacks one of them is not tried.
      - They can be made with M(glm.fleet.lambda_filesystem).
    type: list
    elements: str
    default: []
  firewall_rulesets:
    description:
      - Names of firewall rulesets for new instances. A region that lacks one of them is not tried, so that no instance
        is more open than meant. Without any, the account's own rules hold.
      - They can be made with M(glm.fleet.lambda_firewall_ruleset).
    type: list
    elements: str
    default: []
  user_data:
    description: cloud-init user data, up to 1 MB.
    type: str
  name_prefix:
    description:
      - Instances are named C(<prefix>-<number>), with the lowest free numbers. The default is C(glm-<fleet>), or
        C(glm-<fleet>-<role>) if O(role) is set.
    type: str
  tags:
    description:
      - More tags for new instances. Keys begin with a lower case letter and go on with lower case letters, digits,
        C(-) and C(:). The module itself sets C(glm-fleet), C(glm-role), C(glm-run) and C(glm-launched), the time of the
        launch.
    type: dict
    default: {}
  wait:
    description:
      - Wait until every instance of the fleet is up (O(wait_for)), or, when terminating, is going away.
      - Instances that were unhealthy before this run are not waited for.
    type: bool
    default: true
  wait_for:
    description: What makes an instance count as up; an V(address), or V(ssh) that answers there.
    type: str
    choices: [address, ssh]
    default: address
  ssh_port:
    description: The port of ssh.
    type: int
    default: 22
  wait_timeout:
    description: Seconds to wait for that, and for another run for this fleet. A replacement gets this time anew.
    type: int
    default: 1500
  wait_interval:
    description: Seconds between two looks at the instances.
    type: float
    default: 5
  launch_interval:
    description:
      - Seconds between two launches with one key, all processes of the user together. Lambda allows one per 12 s.
    type: float
    default: 12
seealso:
  - module: glm.fleet.lambda_instance_type_info
  - module: glm.fleet.lambda_filesystem
  - module: glm.fleet.lambda_firewall_ruleset
  - module: glm.fleet.lambda_ssh_key
  - plugin: glm.fleet.lambda_cloud
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Have two instances with eight B200 each
  glm.fleet.lambda_instance:
    fleet: production
    count: 2
    region: [us-east-1, us-south-2]
    instance_type: [gpu_8x_b200_sxm6]
    ssh_key_names: [deploy]
  register: __launched

- name: Replace one whose GPUs failed, and keep what was found
  glm.fleet.lambda_instance:
    fleet: production
    count: 2
    region: [us-east-1, us-south-2]
    instance_type: [gpu_8x_b200_sxm6]
    ssh_key_names: [deploy]
    replace:
      - id: 0920582c7ff041399e34823a0be62549
        reason: 7 of 8 GPUs
    evidence_dir: ~/.local/state/glm-fleet/production/evidence
    max_hourly_usd: 120

- name: Give them back
  glm.fleet.lambda_instance:
    fleet: production
    state: absent
"""

RETURN = r"""
instances:
  description:
    - The fleet's instances, by name. With O(state=absent), those that were terminated, or in check mode would be.
  returned: always
  type: list
  elements: dict
  sample:
    - id: 0920582c7ff041399e34823a0be62549
      name: glm-production-1
      status: active
      region: us-east-1
      instance_type: gpu_8x_b200_sxm6
      ip: 203.0.113.4
      private_ip: 10.19.0.4
      hostname: null
      tags: {glm-fleet: production, glm-launched: 20261121T072721Z}
      price_usd_per_hour: 53.52
      cost_usd: 12.49
launched:
  description:
    - Names of the instances that this run launched, or in check mode would launch. Those are not in RV(instances) and
      not in RV(price_usd_per_hour).
  returned: state is present
  type: list
  elements: str
launched_ids:
  description: Ids of the instances that this run launched and did not give back.
  returned: state is present
  type: list
  elements: str
launch_price_usd_per_hour:
  description: In check mode, what RV(launched) would add at most to the price per hour; null when that is not known.
  returned: state is present, in check mode
  type: float
replaced:
  description: The instances that this run gave back because they were no good, or in check mode would.
  returned: state is present
  type: list
  elements: dict
  contains:
    instance:
      description: The instance as in RV(instances).
      type: dict
    reason:
      description: What was found.
      type: str
    time:
      description: When it was given back, in UTC.
      type: str
    evidence:
      description: The file that holds this entry, if O(evidence_dir) is set.
      type: str
surplus:
  description: Names of instances beyond O(count) that were kept.
  returned: state is present
  type: list
  elements: str
restarted:
  description: Names of the instances that this run restarted, or in check mode would restart.
  returned: state is restarted
  type: list
  elements: str
terminated:
  description: Names of the instances that this run terminated, or in check mode would terminate.
  returned: state is present or absent
  type: list
  elements: str
price_usd_per_hour:
  description: Price per hour of all instances of the fleet that exist after the run.
  returned: always
  type: float
cost_usd_so_far:
  description:
    - What the instances in RV(instances) have cost since they were launched, by price and the tag C(glm-launched). An
      estimate; instances that this module did not launch count as nothing.
  returned: success
  type: float
other_fleets:
  description:
    - How many instances of the account carry another value of the tag C(glm-fleet), by that value. They are never
      touched. Empty when there are none.
    - Tells a mistyped O(fleet) from a fleet that is gone.
  returned: success
  type: dict
  sample: {staging: 2}
"""

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, NoReturn, Optional, Set, Tuple

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.fleet import FLEET_TAG, exists, name_of

TAG_KEY = re.compile(r"[a-z][a-z0-9:-]{1,54}")
NAME_LIMIT = 64
# A launch whose answer was lost shows up in the listing within seconds, or not at all.
RECONCILE_LOOKS = 4
RATE_LIMIT_TRIES = 3

ARGUMENTS = {
    "launch_interval": {"type": "float", "default": 12},
    "state": {"type": "str", "choices": ["present", "restarted", "absent"], "default": "present"},
    "fleet": {"type": "str", "default": "default"},
    "role": {"type": "str"},
    "run": {"type": "str"},
    "count": {"type": "int", "default": 1},
    "only": {"type": "list", "elements": "str", "default": []},
    "surplus": {"type": "str", "choices": ["keep", "terminate"], "default": "keep"},
    "replace": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "id": {"type": "str", "required": True},
            "reason": {"type": "str", "required": True},
            "evidence": {"type": "dict"},
        },
    },
    "replacements": {"type": "int", "default": 0},
    "evidence_dir": {"type": "path"},
    "max_hourly_usd": {"type": "float"},
    "region": {"type": "list", "elements": "str", "default": []},
    "instance_type": {"type": "list", "elements": "str", "default": []},
    "image_family": {"type": "str", "default": "gpu-base-24-04"},
    "ssh_key_names": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "file_system_names": {"type": "list", "elements": "str", "default": []},
    "firewall_rulesets": {"type": "list", "elements": "str", "default": []},
    "user_data": {"type": "str", "no_log": True},
    "name_prefix": {"type": "str"},
    "tags": {"type": "dict", "default": {}},
    "wait": {"type": "bool", "default": True},
    "wait_for": {"type": "str", "choices": ["address", "ssh"], "default": "address"},
    "ssh_port": {"type": "int", "default": 22},
    "wait_timeout": {"type": "int", "default": 1500},
    "wait_interval": {"type": "float", "default": 5},
}


class Fleet:
    """The instances of one fleet, and what can be done with them."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.module = module
        self.params = module.params
        self.api = api
        self.name = self.params["fleet"]
        self.role = self.params["role"]
        self.prefix = self.params["name_prefix"] or "-".join(filter(None, ["glm", self.name, self.role]))
        self.changed = False
        # What this run launched and did not give back: id -> name.
        self.own: Dict[str, str] = {}
        self.listed: Set[str] = set()
        self.replaced: List[Dict[str, Any]] = []
        self.replacements_left: int = self.params["replacements"]
        self.terminated: List[str] = []
        self.known: List[lambda_api.Instance] = []
        self.looked = False
        # Region -> ids of the wanted firewall rulesets; regions that lack something wanted are left out.
        self.regions: Dict[str, List[str]] = {}

    # Looking.

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

    def other_fleets(self) -> Dict[str, int]:
        """How many existing instances each other fleet has, as of the last look at the account."""
        values = [lambda_api.tags_of(item).get(FLEET_TAG) for item in self.known if exists(item)]
        return dict(sorted(Counter(value for value in values if value not in (None, self.name)).items()))

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the run; says what is left running and what it costs, as far as the API can be asked."""
        fresh = True
        try:
            members = self.members()
        except lambda_api.LambdaError:
            fresh, members = False, self.known_members()
        left = _lambda_fleet.bill(members if self.looked else None, fresh)
        if self.unlisted():
            left += (
                f" Launched but not listed: {', '.join(f'{name} ({key})' for key, name in self.unlisted().items())}."
            )
        self.module.fail_json(
            msg=f"fleet {self.name}, {phase}: {problem} {left} Next: {next_step}",
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

    # Present.

    def present(self) -> None:
        """Give back what is no good or too much, launch what is missing, and wait until all are up."""
        if self.module.check_mode:
            members = self.members()
            self.tell_plan([name_of(item) for item in members], *self.planned(members))
        before = self.change()
        members = self.wait_until_up() if self.params["wait"] else self.settled()
        names = [name_of(item) for item in members] + sorted(self.unlisted().values())
        self.module.exit_json(
            changed=self.changed,
            instances=[_lambda_fleet.summary_of(item) for item in members],
            launched=sorted(self.own.values(), key=natural),
            launched_ids=sorted(self.own),
            replaced=self.replaced,
            surplus=names[self.params["count"] :],
            terminated=self.terminated,
            price_usd_per_hour=_lambda_fleet.price_of(members),
            cost_usd_so_far=_lambda_fleet.cost_of(members),
            other_fleets=self.other_fleets(),
            diff={"before": {"instances": before}, "after": {"instances": names}},
        )

    def planned(
        self, members: List[lambda_api.Instance]
    ) -> Tuple[List[Dict[str, Any]], List[lambda_api.Instance], List[str], List[lambda_api.Instance]]:
        """What would be replaced (with reasons), terminated, launched, and stays. Refuses what cannot be done."""
        victims = self.victims(members)
        bad = {instance["id"] for instance, _reason in victims}
        good = [item for item in members if item["id"] not in bad]
        missing = max(0, self.params["count"] - len(good) - len(self.unlisted()))
        names = self.free_names(missing)
        if names:
            self.refuse_strays()
            self.require_launch_options()
            self.refuse_cost(len(names), bad)
        surplus = self.too_many(good)
        ended = {item["id"] for item in surplus}
        entries = [self.entry(instance, reason) for instance, reason in victims]
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
        self.module.exit_json(
            changed=bool(entries or surplus or names),
            instances=[_lambda_fleet.summary_of(item) for item in staying],
            launched=names,
            launched_ids=[],
            launch_price_usd_per_hour=self.launch_price(len(names)),
            replaced=entries,
            surplus=stay[self.params["count"] :],
            terminated=[name_of(item) for item in surplus],
            price_usd_per_hour=_lambda_fleet.price_of(staying),
            cost_usd_so_far=_lambda_fleet.cost_of(staying),
            other_fleets=self.other_fleets(),
            diff={"before": {"instances": before}, "after": {"instances": [*stay, *names]}},
        )

    def change(self) -> List[str]:
        """Bring the number right, alone among the runs of this user for this fleet; returns who was there before."""
        with _lambda_fleet.only_run(self.api.base_url, self.name, self.params["wait_timeout"]) as alone:
            if not alone:
                self.fail(
                    "launch",
                    f"another run for this fleet has been launching for more than {self.params['wait_timeout']} s.",
                    "wait until it has ended, then run again.",
                )
            members = self.members()
            entries, surplus, names, _staying = self.planned(members)
            for entry in entries:
                self.give_back(entry)
            if surplus:
                self.end_surplus(surplus)
            if names:
                self.launch_missing()
            return [name_of(item) for item in members]

    def victims(self, members: List[lambda_api.Instance]) -> List[Tuple[lambda_api.Instance, str]]:
        """The instances to replace that are still there, with the reason."""
        reasons = {entry["id"]: entry["reason"] for entry in self.params["replace"]}
        return [(item, reasons[item["id"]]) for item in members if item["id"] in reasons]

    def too_many(self, members: List[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """The instances beyond the wanted number that are to end."""
        number = len(members) - self.params["count"]
        if self.params["surplus"] == "keep" or number <= 0:
            return []
        unhealthy = [item for item in members if item.get("status") == "unhealthy"]
        others = [item for item in members if item.get("status") != "unhealthy"]
        return _lambda_fleet.in_order([*others, *unhealthy][-number:])

    def end_surplus(self, surplus: List[lambda_api.Instance]) -> None:
        self.terminate([item["id"] for item in surplus])
        self.terminated += [name_of(item) for item in surplus]

    def settled(self) -> List[lambda_api.Instance]:
        """The members right after the launches, when nobody wants to wait for them."""
        members = self.members()
        self.refuse_strays()
        return members

    # Launching.

    def require_launch_options(self) -> None:
        absent = [name for name in ("region", "instance_type", "ssh_key_names") if not self.params[name]]
        if absent:
            self.fail("launch", f"to launch, {', '.join(absent)} must be set.", f"set {', '.join(absent)}.")
        bad = [key for key in self.params["tags"] if not TAG_KEY.fullmatch(str(key)) or key in _lambda_fleet.OWN_TAGS]
        if bad:
            self.fail(
                "launch",
                f"tags: {', '.join(map(str, bad))} cannot be used as a key.",
                "use 2 to 55 lower case letters, digits, - and :, beginning with a letter, and not "
                f"{', '.join(_lambda_fleet.OWN_TAGS)}.",
            )
        if not self.regions:
            self.require_ssh_keys()
        self.regions = self.usable_regions()

    def require_ssh_keys(self) -> None:
        """Fail for a key that the account does not have: a run in check mode would not find out otherwise."""
        known = {row["name"] for row in self.api.list_ssh_keys()}
        absent = [name for name in self.params["ssh_key_names"] if name not in known]
        if absent:
            self.fail(
                "launch",
                f"expected ssh keys of the account, found none named {', '.join(absent)}; it has "
                f"{', '.join(sorted(known)) or 'none'}.",
                "register the key with lambda_ssh_key, or name another in ssh_key_names.",
            )

    def usable_regions(self) -> Dict[str, List[str]]:
        """The regions that have all wanted file systems and firewall rulesets, with the ids of the latter."""
        file_systems, rulesets = set(self.params["file_system_names"]), self.params["firewall_rulesets"]
        attachable = self.api.list_file_systems() if file_systems else []
        have = {(lambda_api.region_of(row), row["name"]) for row in attachable}
        usable_rules = self.api.list_firewall_rulesets() if rulesets else []
        ids = {(lambda_api.region_of(row), row["name"]): row["id"] for row in usable_rules}
        usable: Dict[str, List[str]] = {}
        lacks: List[str] = []
        for region in self.params["region"]:
            lacking = [f"file system {name}" for name in sorted(file_systems) if (region, name) not in have]
            lacking += [f"firewall ruleset {name}" for name in rulesets if (region, name) not in ids]
            if lacking:
                lacks.append(f"{region} has no {' and no '.join(lacking)}")
            else:
                usable[region] = [ids[region, name] for name in rulesets]
        if not usable:
            self.fail(
                "launch",
                f"expected a region with everything that instances are launched with; {'; '.join(lacks)}.",
                "make what is missing (lambda_filesystem, lambda_firewall_ruleset), or name another region.",
            )
        if lacks:
            self.module.warn(f"fleet {self.name}, launch: regions that are not tried: {'; '.join(lacks)}.")
        return usable

    def dearest(self) -> Tuple[Optional[float], str]:
        """The price per hour of the dearest candidate and its name; no price when one is not known."""
        kinds = self.api.list_instance_types()
        price, dearest = 0.0, ""
        for name in self.params["instance_type"]:
            row = kinds.get(name)
            known = lambda_api.price_usd_per_hour(row) if isinstance(row, dict) else None
            if known is None:
                return None, name
            if known >= price:
                price, dearest = known, name
        return price, dearest

    def launch_price(self, number: int) -> Optional[float]:
        """What that many launches would add at most to the price per hour."""
        if not number:
            return 0.0
        price, _name = self.dearest()
        return None if price is None else round(price * number, 2)

    def refuse_cost(self, number: int, leaving: Set[str]) -> None:
        """Fail when that many launches could lead to more than ``max_hourly_usd``."""
        limit = self.params["max_hourly_usd"]
        if limit is None:
            return
        price, kind = self.dearest()
        if price is None:
            self.fail("cost", f"the price of {kind} is not known, but max_hourly_usd is set.", "correct the type.")
        fleet = [item for item in self.known if exists(item) and lambda_api.tags_of(item).get(FLEET_TAG) == self.name]
        staying = [item for item in fleet if item["id"] not in leaving]
        unknown = [name_of(item) for item in staying if lambda_api.price_usd_per_hour(item) is None]
        running = _lambda_fleet.price_of(staying)
        most = running + price * number
        if unknown or most > limit + 0.005:
            doubt = f" The price of {', '.join(unknown)} is not known." if unknown else ""
            self.fail(
                "cost",
                f"expected at most {limit:.2f} USD per hour (max_hourly_usd); {len(staying)} running cost "
                f"{running:.2f}, and {number} {kind} at {price:.2f} could make it {most:.2f}.{doubt}",
                "launch fewer, leave out the dearest type, or raise the limit.",
            )

    def free_names(self, number: int) -> List[str]:
        """The lowest unused names. Those of instances that are going away count as used, so that a name is unique."""
        used = {item.get("name") for item in self.known} | set(self.own.values())
        used |= {entry["instance"]["name"] for entry in self.replaced}
        names: List[str] = []
        candidate = 0
        while len(names) < number:
            candidate += 1
            name = f"{self.prefix}-{candidate}"
            if name not in used:
                names.append(name)
        if names and len(names[-1]) > NAME_LIMIT:
            self.fail("launch", f"the name {names[-1]} has more than {NAME_LIMIT} characters.", "shorten name_prefix.")
        return names

    def launch_missing(self) -> None:
        """Launch until the number is right, looking at the account again after each launch."""
        while len(self.counted()) + len(self.unlisted()) < self.params["count"]:
            self.launch(self.free_names(1)[0])
            self.members()
            self.refuse_strays()
            self.give_back_twins()

    def launch(self, name: str) -> None:
        """Launch one instance in the first candidate that has capacity."""
        refused = []
        for kind in self.params["instance_type"]:
            for region in self.regions:
                if self.try_launch(name, kind, region):
                    return
                refused.append(f"{kind} in {region}")
        self.fail(
            "launch",
            f"no capacity for {name}. Tried {', '.join(refused)}.",
            "add regions or instance types, or run again later; what exists is counted, not launched twice.",
        )

    def try_launch(self, name: str, kind: str, region: str) -> bool:
        """Ask once; False when this candidate has no capacity."""
        request = self.launch_request(name, kind, region)
        for attempt in range(1, RATE_LIMIT_TRIES + 1):
            try:
                self.own.update(dict.fromkeys(self.api.launch(request), name))
                self.changed = True
                return True
            except lambda_api.CapacityError:
                return False
            except lambda_api.RateLimited as error:
                # A 429 was refused before anything happened, so it alone may be asked again.
                if attempt == RATE_LIMIT_TRIES:
                    self.fail("launch", f"{name}: {error}", "run again when nothing else uses this key.")
                time.sleep(error.retry_after if error.retry_after is not None else self.params["launch_interval"])
            except lambda_api.LambdaError as error:
                if error.outcome_unknown and self.turned_up(name):
                    return True
                self.refuse_strays()
                self.fail("launch", f"{name} ({kind} in {region}): {error}", self.after_failed_launch(name, error))
        return False

    @staticmethod
    def after_failed_launch(name: str, error: lambda_api.LambdaError) -> str:
        if error.outcome_unknown:
            return (
                f"no instance named {name} has turned up, but one may still. "
                "Run again in a minute; what exists is counted, not launched twice."
            )
        return "correct the request and run again."

    def launch_request(self, name: str, kind: str, region: str) -> Dict[str, Any]:
        tags = {**self.params["tags"], FLEET_TAG: self.name}
        tags[_lambda_fleet.LAUNCHED_TAG] = _lambda_fleet.stamp(time.time())
        if self.role:
            tags[_lambda_fleet.ROLE_TAG] = self.role
        if self.params["run"]:
            tags[_lambda_fleet.RUN_TAG] = self.params["run"]
        request: Dict[str, Any] = {
            "region_name": region,
            "instance_type_name": kind,
            "ssh_key_names": self.params["ssh_key_names"],
            "name": name,
            "image": {"family": self.params["image_family"]},
            "tags": [{"key": str(key), "value": str(value)} for key, value in sorted(tags.items())],
        }
        for option in ("file_system_names", "user_data"):
            if self.params[option]:
                request[option] = self.params[option]
        if self.regions[region]:
            request["firewall_rulesets"] = [{"id": identifier} for identifier in self.regions[region]]
        return request

    def turned_up(self, name: str) -> bool:
        """Whether an instance with this unique name and the fleet's tag is listed after a launch without an answer."""
        for look in range(RECONCILE_LOOKS):
            if look:
                time.sleep(self.params["wait_interval"])
            try:
                # The name was free before this launch, so what has it now is what was asked for.
                found = [item["id"] for item in self.members() if item.get("name") == name]
            except lambda_api.LambdaError as error:
                self.module.warn(f"fleet {self.name}: looking for {name} after a launch without an answer: {error}")
                continue
            if found:
                self.own.update(dict.fromkeys(found, name))
                self.changed = True
                return True
        return False

    # Runs elsewhere.

    def losing_twins(self) -> Dict[str, str]:
        """What shares its name with something that this run launched and shall go: its id -> the id that stays.

        Names are free when they are chosen, so a run elsewhere chose the same one at that moment. All runs keep the
        lowest id.
        """
        ids: Dict[str, List[str]] = {name: [] for name in self.own.values()}
        for item in self.known_members():
            if item.get("name") in ids:
                ids[item["name"]].append(item["id"])
        return {twin: min(twins) for twins in ids.values() for twin in twins if twin != min(twins)}

    def counted(self) -> List[lambda_api.Instance]:
        """The members that stay when all runs are through."""
        losing = self.losing_twins()
        return [item for item in self.known_members() if item["id"] not in losing]

    def give_back_twins(self) -> None:
        """Give back what this run launched and a run elsewhere keeps another for."""
        for twin, keeper in self.losing_twins().items():
            if twin in self.own:
                self.give_back_own(twin, keeper)

    def give_back_own(self, own: str, other: str) -> None:
        item = next(item for item in self.known if item["id"] == own)
        self.give_back(self.entry(item, f"another run launched {other} under the same name"))

    def outlast_twins(self, looks: int) -> None:
        """Let a run elsewhere give back its twins; when it has ended without having seen ours, give ours back."""
        if looks < RECONCILE_LOOKS:
            time.sleep(self.params["wait_interval"])
            return
        for twin, keeper in self.losing_twins().items():
            if keeper in self.own:
                self.give_back_own(keeper, twin)
                # That run may have done the same at this moment; then both have to be launched again.
                self.replacements_left += 1

    # Replacing.

    @staticmethod
    def entry(instance: lambda_api.Instance, reason: str) -> Dict[str, Any]:
        """What is told and kept about an instance that is given back."""
        moment = _lambda_fleet.stamp(time.time())
        return {"instance": _lambda_fleet.summary_of(instance), "reason": reason, "time": moment}

    def give_back(self, entry: Dict[str, Any]) -> None:
        """Keep the evidence, then terminate the instance unless it is going away already."""
        instance = entry["instance"]
        if self.params["evidence_dir"]:
            told = [item.get("evidence") for item in self.params["replace"] if item["id"] == instance["id"]]
            entry["evidence"] = self.keep_evidence({**entry, "found": told[0]} if told and told[0] else entry)
        self.replaced.append(entry)
        if instance["status"] not in lambda_api.GONE:
            self.terminate([instance["id"]])
        self.own.pop(instance["id"], None)
        # Without waiting nobody has looked again.
        self.known = [item for item in self.known if item["id"] != instance["id"]]

    def keep_evidence(self, entry: Dict[str, Any]) -> str:
        instance = entry["instance"]
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", instance["name"]) or "instance"
        path = Path(self.params["evidence_dir"]) / f"{plain}-{instance['id'][:8]}.json"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            self.fail(
                "evidence",
                f"{path} cannot be written: {error.strerror}; {instance['name']} ({instance['id']}) was kept.",
                "set evidence_dir to a folder that can be written.",
            )
        return str(path)

    # Waiting.

    def wait_until_up(self) -> List[lambda_api.Instance]:
        """Return the members once each is up; gives back and launches again what is not, as often as it may."""
        deadlines: Dict[str, float] = {}
        start = time.monotonic()
        looks_at_twins = 0
        while True:
            self.members()
            self.refuse_strays()
            self.give_back_twins()
            members, unlisted = self.counted(), self.unlisted()
            broken = self.broken()
            waiting = [] if broken else self.not_up(members)
            now = time.monotonic()
            limits = {
                key: deadlines.setdefault(key, now + self.params["wait_timeout"]) for key in self.awaited(waiting)
            }
            late = [item for item in waiting if now > limits[item["id"]]]
            lost = [name for key, name in unlisted.items() if now > limits[key]]
            missing = 0 if waiting or unlisted else max(0, self.params["count"] - len(members))
            if broken:
                self.replace_broken(broken, now - start)
            elif late or lost:
                self.replace_late(late, lost, now - start)
            elif missing:
                self.replace_missing(missing, len(members))
            elif not waiting and not unlisted and self.losing_twins():
                looks_at_twins += 1
                self.outlast_twins(looks_at_twins)
            elif not waiting and not unlisted:
                return members
            else:
                time.sleep(self.params["wait_interval"])

    def awaited(self, waiting: List[lambda_api.Instance]) -> List[str]:
        """The ids of what is waited for."""
        return [*(item["id"] for item in waiting), *self.unlisted()]

    def broken(self) -> List[Tuple[lambda_api.Instance, str]]:
        """What this run launched and is no good, with the reason."""
        known = {item["id"]: item for item in self.known}
        found: List[Tuple[lambda_api.Instance, str]] = []
        for identifier, name in self.own.items():
            item = known.get(identifier)
            if item is None and identifier in self.listed:
                found.append(({"id": identifier, "name": name, "status": "terminated"}, "no longer listed"))
            elif item is not None and (not exists(item) or item.get("status") == "unhealthy"):
                found.append((item, f"{item.get('status')} while it was waited for"))
        return found

    def not_up(self, members: List[lambda_api.Instance]) -> List[lambda_api.Instance]:
        """The members that are still to come up."""
        return [item for item in members if item.get("status") != "unhealthy" and not self.is_up(item)]

    def is_up(self, instance: lambda_api.Instance) -> bool:
        address = instance.get("ip")
        if not address:
            return False
        if self.params["wait_for"] == "address":
            return True
        was_up = instance["id"] not in self.own and instance.get("status") == "active"
        return was_up or _lambda_fleet.answers_ssh(address, self.params["ssh_port"])

    def replace_broken(self, broken: List[Tuple[lambda_api.Instance, str]], seconds: float) -> None:
        """Give these back and launch others, or fail when no more may be replaced."""
        if len(broken) > self.replacements_left:
            self.fail(
                "wait",
                f"expected new instances to come up, found after {seconds:.0f} s: "
                f"{_lambda_fleet.states_of(item for item, _reason in broken)}.",
                "run again to launch others for those that ended; name the ids of unhealthy ones in replace.",
            )
        self.replacements_left -= len(broken)
        for item, reason in broken:
            self.give_back(self.entry(item, reason))
        self.change()

    def replace_late(self, late: List[lambda_api.Instance], lost: List[str], seconds: float) -> None:
        """Give back what did not come up in time, or fail when it may not be replaced."""
        what = "an address" if self.params["wait_for"] == "address" else "ssh that answers"
        if lost or any(item["id"] not in self.own for item in late) or len(late) > self.replacements_left:
            hanging = [_lambda_fleet.states_of(late)] if late else []
            hanging += [f"{name} was launched but is not listed" for name in lost]
            self.fail(
                "wait",
                f"expected every instance to have {what} after {seconds:.0f} s, found none on: {'; '.join(hanging)}.",
                "run again with the ids of those that hang in replace, or look at them in the console.",
            )
        reason = f"{what} expected within {self.params['wait_timeout']} s, found none"
        self.replace_broken([(item, reason) for item in late], seconds)

    def replace_missing(self, missing: int, number: int) -> None:
        """Launch others for instances that were there before this run and have gone meanwhile, or fail."""
        if missing > self.replacements_left:
            gone = [item for item in self.known if self.is_member(item) and not exists(item)]
            self.fail(
                "wait",
                f"expected {self.params['count']} instances, found {number}; others ended meanwhile: "
                f"{_lambda_fleet.states_of(gone) or 'they are no longer listed'}.",
                "run again to launch others for them.",
            )
        self.replacements_left -= missing
        self.change()

    # Restarting and terminating.

    def chosen(self) -> List[lambda_api.Instance]:
        """The members that the options ``only`` and ``run`` mean."""
        only, run = set(self.params["only"]), self.params["run"]
        return [
            item
            for item in self.members()
            if (not only or {item["id"], item.get("name")} & only)
            and run in (None, lambda_api.tags_of(item).get(_lambda_fleet.RUN_TAG))
        ]

    def restarted(self) -> None:
        """Restart the chosen members, all or none, and wait until they are active again."""
        members = self.chosen()
        names = [name_of(item) for item in members]
        self.refuse_busy(members)
        if members and not self.module.check_mode:
            self.restart([item["id"] for item in members])
            members = [item for item in self.members() if name_of(item) in names]
        self.module.exit_json(
            changed=bool(names),
            instances=[_lambda_fleet.summary_of(item) for item in members],
            restarted=names,
            price_usd_per_hour=_lambda_fleet.price_of(self.known_members()),
            cost_usd_so_far=_lambda_fleet.cost_of(members),
            other_fleets=self.other_fleets(),
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
            self.fail(
                "restart",
                f"expected instances that can restart, found {', '.join(busy)}; none was restarted.",
                "wait until these are active, or leave them out with only.",
            )

    def restart(self, ids: List[str]) -> None:
        try:
            self.api.restart(ids)
            self.changed = True
        except lambda_api.LambdaError as error:
            statuses = {item["id"]: item.get("status") for item in self.members()}
            if not error.outcome_unknown or any(statuses.get(identifier) != "booting" for identifier in ids):
                self.fail("restart", str(error), "look at the instances, then run again if they were not restarted.")
            self.changed = True
        start = time.monotonic()
        while self.params["wait"]:
            down = [item for item in self.members() if item["id"] in ids and item.get("status") != "active"]
            there = {item["id"] for item in self.known_members()}
            if not down and there.issuperset(ids):
                return
            if time.monotonic() - start > self.params["wait_timeout"] or not there.issuperset(ids):
                states = _lambda_fleet.states_of(item for item in self.known if item["id"] in ids)
                self.fail(
                    "restart", f"expected active instances, found: {states}.", "replace those that do not come up."
                )
            time.sleep(self.params["wait_interval"])

    def absent(self) -> None:
        """Terminate the chosen members; those going away already are left alone, as the API refuses them."""
        members = self.chosen()
        names = [name_of(item) for item in members]
        if members and not self.module.check_mode:
            self.terminate([item["id"] for item in members])
        ended = set() if self.module.check_mode else {item["id"] for item in members}
        self.module.exit_json(
            changed=bool(members),
            instances=[_lambda_fleet.summary_of(item) for item in members],
            terminated=names,
            price_usd_per_hour=_lambda_fleet.price_of(i for i in self.known_members() if i["id"] not in ended),
            cost_usd_so_far=_lambda_fleet.cost_of(members),
            other_fleets=self.other_fleets(),
            diff={"before": {"instances": names}, "after": {"instances": []}},
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
            time.sleep(self.params["wait_interval"])


def natural(name: str) -> Tuple[int, str]:
    """Sorts numbered names of one prefix by their number."""
    number = re.search(r"[0-9]+$", name)
    return (int(number.group()) if number else 0, name)


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Reach the wanted state."""
    for option in ("count", "replacements"):
        if module.params[option] < 0:
            module.fail_json(msg=f"{option}: expected 0 or more, found {module.params[option]}")
    fleet = Fleet(module, api)
    states: Dict[str, Callable[[], None]] = {
        "present": fleet.present,
        "restarted": fleet.restarted,
        "absent": fleet.absent,
    }
    try:
        states[module.params["state"]]()
    except lambda_api.LambdaError as error:
        fleet.fail(module.params["state"], str(error), "correct the cause and run again; nothing is launched twice.")


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda params: f"fleet {params['fleet']}", ARGUMENTS, act)


if __name__ == "__main__":
    main()
