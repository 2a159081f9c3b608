# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: bring the instances of one fleet up to a number, or terminate them. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance
short_description: Launch or terminate the Lambda Cloud instances of a fleet
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Counts the instances that carry the tag C(glm-fleet=<fleet>) and launches what is missing, one paced request each,
    or terminates all of them. Instances without the tag are never touched.
  - Run it once for a whole fleet, on C(localhost).
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
    support: full
options:
  state:
    description:
      - V(present) launches until O(count) instances exist. It never terminates surplus ones.
      - V(absent) terminates every instance of the fleet. Their local disks are lost.
    type: str
    choices: [present, absent]
    default: present
  fleet:
    description: Value of the tag C(glm-fleet) that marks the instances of this fleet.
    type: str
    default: default
  count:
    description: How many instances the fleet should have. Booting, active and unhealthy ones count.
    type: int
    default: 1
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
    description: Names of file systems to attach. They exist in one region only.
    type: list
    elements: str
    default: []
  user_data:
    description: cloud-init user data, up to 1 MB.
    type: str
  name_prefix:
    description: Instances are named C(<prefix>-<number>), with the lowest free numbers. The default is C(glm-<fleet>).
    type: str
  tags:
    description:
      - More tags for new instances. Keys begin with a lower case letter and go on with lower case letters, digits,
        C(-) and C(:).
    type: dict
    default: {}
  wait:
    description: Wait until every instance of the fleet has an address, or, when terminating, is going away.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for that.
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
      tags: {glm-fleet: production}
      price_usd_per_hour: 53.52
launched:
  description:
    - Names of the instances that this run launched, or in check mode would launch. Those are not in RV(instances) and
      not in RV(price_usd_per_hour).
  returned: state is present
  type: list
  elements: str
terminated:
  description: Names of the instances that this run terminated, or in check mode would terminate.
  returned: state is absent
  type: list
  elements: str
price_usd_per_hour:
  description: Price per hour of all instances of the fleet that exist after the run.
  returned: always
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

import re
import time
from collections import Counter
from typing import Any, Callable, Dict, List, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import _lambda_module, lambda_api

FLEET_TAG = "glm-fleet"
TAG_KEY = re.compile(r"[a-z][a-z0-9:-]{1,54}")
NAME_LIMIT = 64
# A launch whose answer was lost shows up in the listing within seconds, or not at all.
RECONCILE_LOOKS = 4
RATE_LIMIT_TRIES = 3

ARGUMENTS = {
    "launch_interval": {"type": "float", "default": 12},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "fleet": {"type": "str", "default": "default"},
    "count": {"type": "int", "default": 1},
    "region": {"type": "list", "elements": "str", "default": []},
    "instance_type": {"type": "list", "elements": "str", "default": []},
    "image_family": {"type": "str", "default": "gpu-base-24-04"},
    "ssh_key_names": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "file_system_names": {"type": "list", "elements": "str", "default": []},
    "user_data": {"type": "str", "no_log": True},
    "name_prefix": {"type": "str"},
    "tags": {"type": "dict", "default": {}},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 1500},
    "wait_interval": {"type": "float", "default": 5},
}


def summary_of(instance: lambda_api.Instance) -> Dict[str, Any]:
    """What is returned of an instance; nothing else leaves the module (the API's answer holds live credentials)."""
    region = instance.get("region")
    kind = instance.get("instance_type")
    return {
        "id": instance["id"],
        "name": instance.get("name") or "",
        "status": instance.get("status"),
        "region": region.get("name") if isinstance(region, dict) else None,
        "instance_type": kind.get("name") if isinstance(kind, dict) else None,
        "ip": instance.get("ip") or None,
        "private_ip": instance.get("private_ip") or None,
        "hostname": instance.get("hostname") or None,
        "tags": lambda_api.tags_of(instance),
        "price_usd_per_hour": lambda_api.price_usd_per_hour(instance),
    }


def exists(instance: lambda_api.Instance) -> bool:
    """Whether the instance is there to stay. An unknown status counts: launching once too often costs money."""
    return instance.get("status") not in lambda_api.GONE


class Fleet:
    """The instances of one fleet, and the two things that can be done with them."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.module = module
        self.params = module.params
        self.api = api
        self.name = self.params["fleet"]
        self.prefix = self.params["name_prefix"] or f"glm-{self.name}"
        self.changed = False
        self.launched: List[str] = []
        self.known: List[lambda_api.Instance] = []

    # Looking.

    def members(self) -> List[lambda_api.Instance]:
        """Ask for the fleet's existing instances, by name, and remember the whole answer in ``known``."""
        self.known = self.api.list_instances()
        mine = [item for item in self.known if exists(item) and lambda_api.tags_of(item).get(FLEET_TAG) == self.name]
        return sorted(mine, key=lambda item: (item.get("name") or "", item["id"]))

    def other_fleets(self) -> Dict[str, int]:
        """How many existing instances each other fleet has, as of the last look at the account."""
        values = [lambda_api.tags_of(item).get(FLEET_TAG) for item in self.known if exists(item)]
        return dict(sorted(Counter(value for value in values if value not in (None, self.name)).items()))

    def fail(self, phase: str, problem: str, next_step: str) -> NoReturn:
        """End the run; says what is left running and what it costs, as far as the API can be asked."""
        try:
            members: Optional[List[lambda_api.Instance]] = self.members()
        except lambda_api.LambdaError:
            members = None
        msg = f"fleet {self.name}, {phase}: {problem} {bill(members)} Next: {next_step}"
        summaries = [summary_of(item) for item in members or []]
        self.module.fail_json(msg=msg, changed=self.changed, instances=summaries, launched=self.launched)
        raise AssertionError("fail_json returned")

    def refuse_strays(self) -> None:
        """Fail when an instance has a name but no tag of this fleet: counted by tag, it would be launched again."""
        pattern = re.compile(re.escape(self.prefix) + r"-[0-9]+")
        strays = [
            item
            for item in self.known
            if exists(item)
            and pattern.fullmatch(item.get("name") or "")
            and FLEET_TAG not in lambda_api.tags_of(item)
        ]
        if strays:
            self.fail(
                "launch",
                f"expected instances with this fleet's names to carry the tag {FLEET_TAG}, found none on: "
                f"{states_of(strays)}. Either the API dropped the tag or somebody else named them so.",
                "terminate them in the console if they are not needed, or set another name_prefix.",
            )

    # Launching.

    def present(self) -> None:
        """Launch what is missing and wait for addresses."""
        members = self.members()
        missing = max(0, self.params["count"] - len(members))
        names = self.free_names(missing)
        if missing:
            self.refuse_strays()
            self.require_launch_options()
        before = sorted(item.get("name") or item["id"] for item in members)
        if not self.module.check_mode:
            for number, name in enumerate(names):
                self.launch(name)
                if number == 0:
                    self.members()
                    self.refuse_strays()
            members = self.wait_for_addresses() if self.params["wait"] else self.members()
        self.module.exit_json(
            changed=bool(names),
            instances=[summary_of(item) for item in members],
            launched=names,
            price_usd_per_hour=price_of(members),
            other_fleets=self.other_fleets(),
            diff={"before": {"instances": before}, "after": {"instances": sorted([*before, *names])}},
        )

    def require_launch_options(self) -> None:
        absent = [name for name in ("region", "instance_type", "ssh_key_names") if not self.params[name]]
        if absent:
            self.fail("launch", f"to launch, {', '.join(absent)} must be set.", f"set {', '.join(absent)}.")
        bad = [key for key in self.params["tags"] if not TAG_KEY.fullmatch(str(key)) or key == FLEET_TAG]
        if bad:
            self.fail(
                "launch",
                f"tags: {', '.join(map(str, bad))} cannot be used as a key.",
                f"use 2 to 55 lower case letters, digits, - and :, beginning with a letter, and not {FLEET_TAG}.",
            )

    def free_names(self, number: int) -> List[str]:
        """The lowest unused names. Those of instances that are going away count as used, so that a name is unique."""
        used = {item.get("name") for item in self.known}
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

    def launch(self, name: str) -> None:
        """Launch one instance in the first candidate that has capacity."""
        refused = []
        for kind in self.params["instance_type"]:
            for region in self.params["region"]:
                if self.try_launch(name, kind, region):
                    self.changed = True
                    self.launched.append(name)
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
                self.api.launch(request)
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
        return request

    def turned_up(self, name: str) -> bool:
        """Whether an instance with this unique name and the fleet's tag is listed after a launch without an answer."""
        for look in range(RECONCILE_LOOKS):
            if look:
                time.sleep(self.params["wait_interval"])
            try:
                if any(item.get("name") == name for item in self.members()):
                    return True
            except lambda_api.LambdaError as error:
                self.module.warn(f"fleet {self.name}: looking for {name} after a launch without an answer: {error}")
        return False

    # Waiting.

    def wait_for_addresses(self) -> List[lambda_api.Instance]:
        """Return the members once each has an address; fails when one goes away or time runs out."""
        start = time.monotonic()
        while True:
            members = self.members()
            seconds = time.monotonic() - start
            ended = [item for item in self.known if item.get("name") in self.launched and not exists(item)]
            if ended:
                self.fail(
                    "wait",
                    f"expected new instances to boot, found after {seconds:.0f} s: {states_of(ended)}.",
                    "run again to launch replacements.",
                )
            self.refuse_strays()
            waiting = [item for item in members if not item.get("ip")]
            unlisted = sorted(set(self.launched) - {item.get("name") or "" for item in members})
            if not waiting and not unlisted:
                return members
            if seconds + self.params["wait_interval"] > self.params["wait_timeout"]:
                hanging = [states_of(waiting)] if waiting else []
                hanging += [f"{name} was launched but is not listed" for name in unlisted]
                self.fail(
                    "wait",
                    f"expected every instance to have an address after {seconds:.0f} s, found none on: "
                    f"{'; '.join(hanging)}.",
                    "look at the instances in the console, terminate the ones that hang, and run again.",
                )
            time.sleep(self.params["wait_interval"])

    # Terminating.

    def absent(self) -> None:
        """Terminate all members; instances that are going away already are left alone, as the API refuses them."""
        members = self.members()
        names = [item.get("name") or item["id"] for item in members]
        if members and not self.module.check_mode:
            self.terminate([item["id"] for item in members])
        self.module.exit_json(
            changed=bool(members),
            instances=[summary_of(item) for item in members],
            terminated=names,
            price_usd_per_hour=price_of(members) if self.module.check_mode else 0.0,
            other_fleets=self.other_fleets(),
            diff={"before": {"instances": names}, "after": {"instances": []}},
        )

    def terminate(self, ids: List[str]) -> None:
        problem = ""
        try:
            self.api.terminate(ids)
            self.changed = True
        except lambda_api.LambdaError as error:
            problem = f"{error} "
            if not error.outcome_unknown:
                self.fail("terminate", problem.strip(), "correct the cause and run again.")
        if not (problem or self.params["wait"]):
            return
        start = time.monotonic()
        while True:
            left = [item for item in self.members() if item["id"] in ids]
            if not left:
                return
            if problem or time.monotonic() - start > self.params["wait_timeout"]:
                self.fail("terminate", f"{problem}Expected to be gone, found: {states_of(left)}.", "run again.")
            time.sleep(self.params["wait_interval"])


def states_of(instances: List[lambda_api.Instance]) -> str:
    return "; ".join(f"{item.get('name')} ({item['id']}) is {item.get('status')}" for item in instances)


def price_of(instances: List[lambda_api.Instance]) -> float:
    return round(sum(lambda_api.price_usd_per_hour(item) or 0.0 for item in instances), 2)


def bill(members: Optional[List[lambda_api.Instance]]) -> str:
    """One sentence on what is running and what it costs."""
    if members is None:
        return "What is left running could not be asked; look at https://cloud.lambda.ai/instances."
    if not members:
        return "Nothing of this fleet is running."
    names = ", ".join(f"{item.get('name') or item['id']} ({item.get('status')})" for item in members)
    return f"Left running, at {price_of(members):.2f} USD per hour: {names}."


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Reach the wanted state."""
    if module.params["count"] < 0:
        module.fail_json(msg=f"count: expected 0 or more, found {module.params['count']}")
    fleet = Fleet(module, api)
    action: Callable[[], None] = fleet.present if module.params["state"] == "present" else fleet.absent
    try:
        action()
    except lambda_api.LambdaError as error:
        fleet.fail(module.params["state"], str(error), "correct the cause and run again; nothing is launched twice.")


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda params: f"fleet {params['fleet']}", ARGUMENTS, act)


if __name__ == "__main__":
    main()
