# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: start, stop or end bare-metal nodes of GMI Cloud, by id. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gmi_baremetal
short_description: Start, stop or end bare-metal nodes of GMI Cloud by id (experimental)
version_added: 0.2.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Starts, stops or ends the bare-metal nodes whose ids are given, once the name of each was shown and confirmed, and
    no others. Nodes are made in the console.
  - "B(Experimental): written from the vendor's published paths, and tested against a simulator that is made from these,
    not against a live account."
  - That a node has actions, and under which path, is published. B(What the request for an action says is not). It is
    guessed to be an object with C(action), which is C(start) or C(stop); O(action_body) replaces it. Nor are a node's
    fields and the words for its status published; C(running) and C(active) count as started, C(stopped) as stopped.
  - Whether a stopped node goes on costing money is not published. Take it that it does.
  - The end of a node is asked for again until the account does not show it any more. All data on it is lost. What is
    prepaid cannot end before its term; the API's refusal is in the message. Elastic IPs that are bound to a node stay
    and cost money, so they are named, in RV(elastic_ips) and in a warning.
extends_documentation_fragment:
  - glm.fleet.gmi_auth
  - glm.fleet.cloud_connection
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: A node whose status is none of the words that count as started or stopped is asked for it again.
options:
  state:
    description:
      - V(started) and V(stopped) ask for the action of each node that is not so yet, and wait until the account shows
        that.
      - V(absent) ends them, and waits until the account does not show them.
    type: str
    choices: [started, stopped, absent]
    required: true
  ids:
    description:
      - Ids of the nodes, as the inventory has them in C(gmi_id). One that the account does not show is an error, unless
        the ledger has that it was ended.
    type: list
    elements: str
    required: true
  confirmed:
    description:
      - Which name each of O(ids) has, as RV(names) of a run in check mode has shown and somebody has confirmed. If one
        has another name by then, the module fails and changes nothing. Needed outside check mode.
    type: dict
  action_body:
    description: What to send for an action instead of the guess, once GMI Cloud has documented it.
    type: dict
  fleet:
    description: Name of the fleet in whose ledger on this controller the end of a node is kept.
    type: str
    default: default
  price_usd_per_hour:
    description:
      - With O(state=absent), what the console shows as the price of each node per hour, for the ledger. Without it, a
        monthly limit of the fleet refuses what is to be made in the same month, as the price of a part is not known.
    type: float
  wait:
    description: With O(state=started) and O(state=stopped), wait until the account shows it.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for that, for the end of nodes, and for another run for this fleet.
    type: int
    default: 900
  wait_interval:
    description: Seconds between two looks at the account.
    type: float
    default: 5
  progress_file:
    description: File in which to keep what is waited for. Set by the action plugin, which prints it every ten seconds.
    type: path
seealso:
  - module: glm.fleet.gmi_container
  - module: glm.fleet.gmi_info
  - plugin: glm.fleet.gmi_cloud
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: See what would end, and which elastic IPs would stay
  glm.fleet.gmi_baremetal:
    state: absent
    ids: [b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a]
  check_mode: true
  register: __seen

- name: End that node, if it has the name that was shown
  glm.fleet.gmi_baremetal:
    state: absent
    ids: [b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a]
    confirmed: "{{ __seen.names }}"

# The body of this request is a guess, {"action": "stop"}: the vendor publishes its path only.
- name: Stop a node
  glm.fleet.gmi_baremetal:
    state: stopped
    ids: [b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a]
    confirmed:
      b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a: metal-1

- name: Start it with the body that GMI Cloud has documented to you
  glm.fleet.gmi_baremetal:
    state: started
    ids: [b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a]
    confirmed:
      b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a: metal-1
    action_body:
      type: power_on
"""

RETURN = r"""
nodes:
  description: The nodes. With O(state=absent), as they were before; those that were gone already are left out.
  returned: success
  type: list
  elements: dict
  sample:
    - id: b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a
      name: metal-1
      status: active
      reason: null
      idc: us-denver-1
      product: baremetal.h200.x8
      created: null
      ip: 203.0.113.8
names:
  description: The name of each by its id, for O(confirmed).
  returned: success
  type: dict
  sample: {b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a: metal-1}
elastic_ips:
  description: The elastic IPs that are bound to them, and stay when they end.
  returned: success
  type: list
  elements: dict
  sample:
    - id: 0f3c9f8a-3f1e-4b0e-9e57-2f1f5f0f7b21
      name: metal-1-ip
      status: associated
      idc: us-denver-1
      ip: 203.0.113.8
      node_id: b0a4c6de-30f1-4d0a-9a52-6f1e2d3c4b5a
unsettled:
  description: Names of what the fleet's ledger has as asked for without an answer, as in M(glm.fleet.gmi_container).
  returned: always
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.fleet import Fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.module import AUTH_ARGUMENTS, GMI
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.nodes import Nodes

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "state": {"type": "str", "choices": ["started", "stopped", "absent"], "required": True},
    "ids": {"type": "list", "elements": "str", "required": True},
    "confirmed": {"type": "dict"},
    "action_body": {"type": "dict"},
    "fleet": {"type": "str", "default": "default"},
    "price_usd_per_hour": {"type": "float"},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 900},
    "wait_interval": {"type": "float", "default": 5},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**AUTH_ARGUMENTS, **ARGUMENTS}, supports_check_mode=True)
    api = GMI.connect(module, f"fleet {module.params['fleet']}", organization=module.params["organization"])
    fleet = Fleet(module, api, nodes=True)
    try:
        Nodes(fleet).bring()
    except CloudError as error:
        fleet.fail(module.params["state"], str(error), "correct the cause and run again; nothing is done twice.")


if __name__ == "__main__":
    main()
