# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module: make or end containers of one fleet on GMI Cloud. Runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gmi_container
short_description: Make or end GPU containers of a fleet on GMI Cloud (experimental)
version_added: 0.2.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Makes one container of a product in a data centre unless there is one of its name, with an elastic IP if wanted, or
    ends containers that were shown and confirmed, and releases the elastic IPs that were allocated for them.
  - "B(Experimental): written from the vendor's published pages and clients of others, and tested against a simulator
    that is made from these, not against a live account. Facts that only one source has: how elastic IPs are allocated
    and bound. Firewalls are left to the console, because nobody publishes how they are bound."
  - This API has no tags. What belongs to a fleet is what its ledger on this controller says was made for it, and is
    named C(glm-<fleet>-...). Anything else is left alone.
  - What costs money is asked for once, and kept in the ledger before and after. Without an answer it is looked for by
    its name, and not asked for again until it is found or proven never to have been made. RV(unsettled) names it.
  - A container is no host for a deploy, which needs systemd and Docker. The API's price has no documented unit, so the
    price is unknown unless O(price_usd_per_hour) gives it.
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
    support: full
options:
  state:
    description:
      - V(present) makes the container O(name) unless there is one.
      - V(absent) ends the containers of the fleet, or the one of O(name), and repeats it until the account does not
        show them any more, at most for O(wait_timeout). Then it releases the elastic IPs that this module allocated
        for them. All data in the containers is lost. It needs O(confirmed).
    type: str
    choices: [present, absent]
    default: present
  fleet:
    description: Name of the fleet. It is part of the names of its containers, C(glm-<fleet>-...).
    type: str
    default: default
  name:
    description:
      - Name of the container. It begins with C(glm-<fleet>-). Needed with O(state=present).
    type: str
  confirmed:
    description:
      - Ids that were shown by a run in check mode, RV(ids), and confirmed. With O(state=absent) exactly these end. If
        there are others by then, the module fails and ends nothing. Those that are gone already are passed over.
    type: list
    elements: str
  idc:
    description: Data centre (IDC), such as C(us-denver-1). Needed to make a container.
    type: str
  product:
    description: Product, such as C(container.h200.x1); accounts have different ones. Needed to make a container.
    type: str
  image:
    description:
      - Address of an image without credentials. Containers are made from templates, so a template of it is made, named
        by the image, and used again later. It costs nothing and stays. This or O(template_id) is needed to make a
        container.
    type: str
  template_id:
    description: Id of a template, such as one that was made in the console for an image with credentials.
    type: str
  command:
    description: Command of the container. Whether it replaces the image's entry point is not documented.
    type: str
  args:
    description: Its arguments. The API shows them in clear to whoever may read the account.
    type: list
    elements: str
    default: []
  env:
    description: Variables of its environment. The API shows them in clear to whoever may read the account.
    type: dict
    default: {}
  secret_env:
    description:
      - More of them, whose values are in no output of this module. The API shows them in clear all the same.
    type: dict
  ssh_public_keys:
    description:
      - Public keys for ssh, given in the variable C(SSH_KEY), which the vendor's images read.
    type: list
    elements: str
    default: []
  ssh_key_ids:
    description: Ids of ssh keys that are registered in the console.
    type: list
    elements: str
    default: []
  ports:
    description: Ports of the container to open; the API takes at most 5.
    type: list
    elements: dict
    default: []
    suboptions:
      container_port:
        description: The port in the container.
        type: int
        required: true
      port:
        description: The port outside. Without it, the cloud chooses.
        type: int
      protocol:
        description: Its protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
  elastic_ip_product:
    description:
      - Product of an elastic IP to allocate and bind to the container once it runs, unless it has one. It costs money
        of its own, by the minute. Nothing comes in before a firewall is bound in the console, too.
    type: str
  price_usd_per_hour:
    description:
      - What the console shows as the price of the whole container per hour, for the ledger, so that C(cost.yml) can
        count it.
    type: float
  elastic_ip_price_usd_per_hour:
    description: The same for the elastic IP that is allocated.
    type: float
  max_hourly_usd:
    description:
      - The most that the fleet may cost per hour, with what is to be made, at the prices that were given. What has no
        known price is within no limit.
    type: float
  max_monthly_usd:
    description:
      - The budget of the fleet for each month (UTC). What its ledger says it has cost, what runs and what is to be made
        until the end of the month must be within it, or nothing is made.
    type: float
  wait:
    description: With O(state=present), wait until the container runs.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for that, for the end of containers, and for another run for this fleet.
    type: int
    default: 900
  wait_interval:
    description: Seconds between two looks at the account.
    type: float
    default: 5
  run:
    description:
      - The run that makes it, for the ledger, so that a later one can say what a run that was killed left. Set by the
        action plugin.
    type: str
  progress_file:
    description: File in which to keep what is waited for. Set by the action plugin, which prints it every ten seconds.
    type: path
seealso:
  - module: glm.fleet.gmi_info
  - module: glm.fleet.gmi_baremetal
  - plugin: glm.fleet.gmi_cloud
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Run a container with one H200
  glm.fleet.gmi_container:
    fleet: research
    name: glm-research-1
    idc: us-denver-1
    product: container.h200.x1
    image: docker.io/vllm/vllm-openai:v0.11.2
    args: [--model, zai-org/GLM-4.7-Flash]
    secret_env:
      HF_TOKEN: "{{ hf_token }}"
    ports:
      - container_port: 8000

- name: See what would end
  glm.fleet.gmi_container:
    fleet: research
    state: absent
  check_mode: true
  register: seen

- name: End that, and nothing that joined meanwhile
  glm.fleet.gmi_container:
    fleet: research
    state: absent
    confirmed: "{{ seen.ids }}"
"""

RETURN = r"""
container:
  description: The container. Empty in check mode when there is none yet.
  returned: state is present
  type: dict
  sample:
    id: 5d4b0f0e-6a3a-4a0c-8d5c-0a6a4f6f0c11
    name: glm-research-1
    status: running
    reason: null
    idc: us-denver-1
    product: container.h200.x1
    template_id: 8a6c1a52-2f0b-4b61-9a39-5f6d3f1c7a10
    created: "2026-11-29T08:00:00Z"
    ip: 203.0.113.8
    price_usd_per_hour: null
elastic_ip:
  description: The elastic IP that is bound to it. Empty without O(elastic_ip_product), and in check mode.
  returned: state is present
  type: dict
  sample:
    id: 0f3c9f8a-3f1e-4b0e-9e57-2f1f5f0f7b21
    name: glm-research-1-ip
    status: associated
    idc: us-denver-1
    ip: 203.0.113.8
    container_id: 5d4b0f0e-6a3a-4a0c-8d5c-0a6a4f6f0c11
containers:
  description: The containers that were ended, or in check mode would be, as in RV(container).
  returned: state is absent
  type: list
  elements: dict
elastic_ips:
  description: The elastic IPs that were released, or in check mode would be, as in RV(elastic_ip).
  returned: state is absent
  type: list
  elements: dict
ids:
  description: The ids of both; with O(state=absent) for O(confirmed). Empty in check mode with O(state=present).
  returned: always
  type: list
  elements: str
unsettled:
  description: Names of what was asked for without an answer, as the ledger has them. It may exist and cost money.
  returned: always
  type: list
  elements: str
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import CloudError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.ending import Absent
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.fleet import Fleet
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.module import AUTH_ARGUMENTS, GMI
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.present import Present

ARGUMENTS: Dict[str, Dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "fleet": {"type": "str", "default": "default"},
    "name": {"type": "str"},
    "confirmed": {"type": "list", "elements": "str"},
    "idc": {"type": "str"},
    "product": {"type": "str"},
    "image": {"type": "str"},
    "template_id": {"type": "str"},
    "command": {"type": "str"},
    "args": {"type": "list", "elements": "str", "default": []},
    "env": {"type": "dict", "default": {}},
    "secret_env": {"type": "dict", "no_log": True},
    "ssh_public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "ssh_key_ids": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "ports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "container_port": {"type": "int", "required": True},
            "port": {"type": "int"},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
        },
    },
    "elastic_ip_product": {"type": "str"},
    "price_usd_per_hour": {"type": "float"},
    "elastic_ip_price_usd_per_hour": {"type": "float"},
    "max_hourly_usd": {"type": "float"},
    "max_monthly_usd": {"type": "float"},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 900},
    "wait_interval": {"type": "float", "default": 5},
    "run": {"type": "str"},
    "progress_file": {"type": "path"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**AUTH_ARGUMENTS, **ARGUMENTS},
        supports_check_mode=True,
        required_if=[("state", "present", ["name"])],
        mutually_exclusive=[("image", "template_id")],
    )
    api = GMI.connect(module, f"fleet {module.params['fleet']}", organization=module.params["organization"])
    fleet = Fleet(module, api)
    try:
        if module.params["state"] == "present":
            Present(fleet).present()
        else:
            Absent(fleet).absent()
    except CloudError as error:
        fleet.fail(module.params["state"], str(error), "correct the cause and run again; nothing is made twice.")


if __name__ == "__main__":
    main()
