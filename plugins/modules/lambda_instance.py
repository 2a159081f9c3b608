# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: launch, restart or terminate the instances of one fleet. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lambda_instance
short_description: Launch, replace, restart or terminate the Lambda Cloud instances of a fleet
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Counts the instances with the tag C(glm-fleet=<fleet>), and C(glm-role=<role>) if O(role) is set, and launches
    what is missing, one paced request each, or restarts or terminates them. Instances without the tag are left alone,
    unless the ledger on this controller says that this fleet launched them; those are terminated with it.
  - Run it once for a whole fleet, on C(localhost). Runs of one user for the same fleet wait for each other; instances
    that runs on two machines launched under one name are recognised, and all but one terminated.
  - A launch whose answer was lost is looked up by name and tag, never repeated blindly.
  - Launching costs money from the first minute. Each failure names what is left running and its price per hour.
extends_documentation_fragment:
  - glm.fleet.lambda_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    description: Reads what exists and changes nothing. RV(launched) and RV(terminated) then name what would be done.
  diff_mode:
    support: full
  idempotent:
    support: partial
    description: O(state=restarted) restarts each time.
options:
  state:
    description:
      - V(present) launches until O(count) instances exist. O(surplus) says what happens to more than that.
      - V(restarted) restarts every instance of the fleet, and refuses if one of them cannot restart now.
      - V(absent) terminates every instance of the fleet, and repeats it until the account shows them gone or going, at
        most for O(wait_timeout). Their local disks are lost. Launches of this user for the fleet stop before their next
        request. What has the tag C(glm-protect) is left out, and refused if O(only) names it.
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
        counted, restarted or terminated, and new ones get it. Without it, all instances of the fleet are.
    type: str
  run:
    description:
      - With O(state=present), value of the tag C(glm-run) of what is launched. Where the module runs on the controller
        its action names the process of ansible-playbook, and nothing more is launched once that is gone.
      - With O(state=restarted) and O(state=absent), only the instances that have it are changed.
    type: str
  count:
    description: Desired number of instances of the fleet. Booting, active and unhealthy ones count.
    type: int
    default: 1
  only:
    description:
      - With O(state=restarted) and O(state=absent), only the instances with these names or ids. An empty list, or an
        entry that is no instance of the fleet, is an error, and nothing is changed. One that is going already is not.
    type: list
    elements: str
  confirmed:
    description:
      - Ids that were shown, for example by a run in check mode, and confirmed. With O(state=absent) exactly these are
        terminated, with O(surplus=terminate) no others. If the fleet changed meanwhile, the module fails and terminates
        nothing. Without it, what is terminated is what the other options mean at that moment.
    type: list
    elements: str
  unprotect:
    description:
      - Names or ids of instances that may be terminated although they have the tag C(glm-protect). Tags cannot be
        changed after a launch.
    type: list
    elements: str
  unless_extended_since:
    description:
      - With O(state=absent), leave out, with a warning, what by the ledger of the fleet a run has extended the
        time of beyond now, since this moment in UTC. O(confirmed) may name more than is terminated then.
    type: str
    version_added: 0.2.0
  surplus:
    description:
      - What happens to instances beyond O(count). V(terminate) ends unhealthy ones first, then those with the highest
        numbers, and leaves out what has the tag C(glm-protect).
    type: str
    choices: [keep, terminate]
    default: keep
  replace:
    description:
      - Unhealthy instances of the fleet, for example because their GPUs failed acceptance. They are terminated and no
        longer counted, so that others are launched for them. One that no longer exists is skipped.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: The instance's id.
        type: str
        required: true
      reason:
        description: What was found; saved as evidence.
        type: str
        required: true
      evidence:
        description: What else to save, such as the verdict of M(glm.fleet.node_acceptance).
        type: dict
  replacements:
    description:
      - How many instances launched by this run may be replaced because they did not come up; they ended, became
        unhealthy, or have no address within O(wait_timeout). Beyond that the run fails.
    type: int
    default: 0
  evidence_dir:
    description:
      - Folder on the controller. What was known about each instance that was replaced is saved in
        C(<name>-<first 8 of the id>.json) in it.
    type: path
  max_hourly_usd:
    description:
      - Most that all instances of the fleet, of all roles, may cost per hour. A launch that could lead to more, at the
        price of the most expensive O(instance_type), is refused before anything is launched.
    type: float
  max_monthly_usd:
    description:
      - Most that all instances of the fleet may cost in this month (UTC). A launch that could lead to more by the end
        of the month is refused before anything is launched. What the fleet has cost is read from its ledger here, and
        from the tags of instances that others launched; what runs counts until it expires or the month ends.
    type: float
    version_added: 0.2.0
  max_hours:
    description:
      - Hours after which a new instance may be ended. It gets the tag C(glm-expires) with that moment, which
        the API cannot change later.
    type: float
    version_added: 0.2.0
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
      - Names of file systems to attach. A region that lacks one of them is not tried. With O(state=absent) they are
        named in RV(remaining).
      - They can be made with M(glm.fleet.lambda_filesystem).
    type: list
    elements: str
    default: []
  firewall_rulesets:
    description:
      - Names of firewall rulesets for new instances. A region that lacks one of them is not tried, so that no instance
        is more open than meant. Without any, the account's own rules apply.
      - They can be made with M(glm.fleet.lambda_firewall_ruleset).
    type: list
    elements: str
    default: []
  user_data:
    description: cloud-init user data of any form, up to 1 MB; with O(host_keys), some 1 kB less.
    type: str
  host_keys:
    description:
      - Give each new instance an ed25519 host key of its own by cloud-init, made here. It is added to O(user_data), as
        parts of a MIME multi-part document where that is not empty. User data that sets C(ssh_keys) itself is left as
        it is, with a warning.
      - Only the public half stays on the controller, in O(host_keys_dir). M(glm.fleet.host_key) accepts no other key.
      - Needs O(host_keys_dir), C(ssh-keygen), and an image whose cloud-init sets host keys.
    type: bool
    default: false
  host_keys_dir:
    description:
      - Folder on the controller with C(<id>.pub), the public host key of each instance. It is removed with the
        instance.
    type: path
  name_prefix:
    description:
      - Instances are named C(<prefix>-<number>), with the lowest free numbers. The default is C(glm-<fleet>), or
        C(glm-<fleet>-<role>) if O(role) is set.
    type: str
  tags:
    description:
      - More tags for new instances. Keys begin with a lower case letter and go on with lower case letters, digits,
        C(-) and C(:). The module itself sets C(glm-fleet), C(glm-role), C(glm-run), C(glm-expires) and C(glm-launched),
        the time of the launch.
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
    description: Seconds to wait for that, and for another run for this fleet. A replacement gets the full time again.
    type: int
    default: 1500
  wait_interval:
    description: Seconds between two checks of the instances.
    type: float
    default: 5
  progress_file:
    description: File in which to keep what is waited for. Set by the action plugin, which prints it every ten seconds.
    type: path
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
- name: Run two instances with eight B200 each
  glm.fleet.lambda_instance:
    fleet: production
    count: 2
    region: [us-east-1, us-south-2]
    instance_type: [gpu_8x_b200_sxm6]
    ssh_key_names: [deploy]
  register: __launched

- name: Replace one whose GPUs failed, and save what was found
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

- name: See what would be terminated
  glm.fleet.lambda_instance:
    fleet: production
    state: absent
  check_mode: true
  register: seen

- name: Terminate that, and nothing that joined meanwhile
  glm.fleet.lambda_instance:
    fleet: production
    state: absent
    confirmed: "{{ seen.instances | map(attribute='id') }}"
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
      age_hours: 0.23
      cost_usd: 12.49
launched:
  description:
    - Names of the instances that this run launched, or in check mode would launch. Those are not in RV(instances) and
      not in RV(price_usd_per_hour).
  returned: state is present
  type: list
  elements: str
launched_ids:
  description: Ids of the instances that this run launched and did not terminate.
  returned: state is present
  type: list
  elements: str
launch_price_usd_per_hour:
  description: In check mode, what RV(launched) would add at most to the price per hour; null when that is not known.
  returned: state is present, in check mode
  type: float
replaced:
  description: The instances that this run terminated because they were unhealthy, or in check mode would.
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
      description: When it was terminated, in UTC.
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
ending:
  description: The instances in RV(terminated), as in RV(instances).
  returned: state is present
  type: list
  elements: dict
protected:
  description: Names of instances that were left out because of the tag C(glm-protect).
  returned: state is absent
  type: list
  elements: str
running:
  description: Names of the fleet's instances that were left running, or in check mode would be.
  returned: state is absent
  type: list
  elements: str
unsettled:
  description:
    - Names of launches that were never answered, as the ledger on this controller has them. They may still turn up.
  returned: state is present or absent
  type: list
  elements: str
recorded:
  description: How many launches of the fleet the ledger on this controller knows, those without an answer included.
  returned: state is absent
  type: int
remaining:
  description:
    - What the terminated instances, O(file_system_names) and the launches of the fleet leave behind, which the module
      never deletes. Null when it could not be listed.
  returned: state is absent
  type: dict
  sample:
    file_systems:
      - name: weights
        region: us-east-1
        gib_used: 704.1
        usd_per_month: 140.82
    firewall_rulesets:
      - name: glm-production
        region: us-east-1
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
    - Distinguishes a mistyped O(fleet) from a fleet that is gone.
  returned: success
  type: dict
  sample: {staging: 2}
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import module as _lambda_module
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.ending import Ending
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.members import Members
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.present import Present

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    # "one request per 12 seconds" (API description, 1.10.0)
    "launch_interval": {"type": "float", "default": 12},
    "state": {"type": "str", "choices": ["present", "restarted", "absent"], "default": "present"},
    "fleet": {"type": "str", "default": "default"},
    "role": {"type": "str"},
    "run": {"type": "str"},
    "count": {"type": "int", "default": 1},
    "only": {"type": "list", "elements": "str"},
    "confirmed": {"type": "list", "elements": "str"},
    "unprotect": {"type": "list", "elements": "str"},
    "unless_extended_since": {"type": "str"},
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
    "max_monthly_usd": {"type": "float"},
    "max_hours": {"type": "float"},
    "region": {"type": "list", "elements": "str", "default": []},
    "instance_type": {"type": "list", "elements": "str", "default": []},
    "image_family": {"type": "str", "default": "gpu-base-24-04"},
    "ssh_key_names": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "file_system_names": {"type": "list", "elements": "str", "default": []},
    "firewall_rulesets": {"type": "list", "elements": "str", "default": []},
    "user_data": {"type": "str", "no_log": True},
    "host_keys": {"type": "bool", "default": False, "no_log": False},
    "host_keys_dir": {"type": "path", "no_log": False},
    "name_prefix": {"type": "str"},
    "tags": {"type": "dict", "default": {}},
    "wait": {"type": "bool", "default": True},
    "wait_for": {"type": "str", "choices": ["address", "ssh"], "default": "address"},
    "ssh_port": {"type": "int", "default": 22},
    "wait_timeout": {"type": "int", "default": 1500},
    "wait_interval": {"type": "float", "default": 5},
    "progress_file": {"type": "path"},
}


class Fleet:
    """One fleet and the states that it can be put in; each ends the module."""

    def __init__(self, module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
        self.members = Members(module, api)
        ending = Ending(self.members)
        self.present = Present(self.members).present
        self.restarted = ending.restarted
        self.absent = ending.absent


def act(module: AnsibleModule, api: lambda_api.LambdaApi) -> None:
    """Reach the desired state."""
    for option in ("count", "replacements"):
        if module.params[option] < 0:
            module.fail_json(msg=f"{option}: expected 0 or more, found {module.params[option]}")
    if module.params["host_keys"] and not module.params["host_keys_dir"]:
        module.fail_json(msg="host_keys: expected host_keys_dir, where their public halves are kept, found none")
    fleet = Fleet(module, api)
    try:
        getattr(fleet, module.params["state"])()
    except lambda_api.LambdaError as error:
        fleet.members.fail(
            module.params["state"], str(error), "correct the cause and run again; nothing is launched twice."
        )


def main() -> None:
    """Run the module."""
    _lambda_module.run(lambda params: f"fleet {params['fleet']}", ARGUMENTS, act)


if __name__ == "__main__":
    main()
