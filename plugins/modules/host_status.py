#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: See what a host serves, in one look
version_added: 0.2.0
description:
  - Sees what runs as each replica of O(plans). This is what was observed, whatever the plans say. What could not be
    read is null, and C(problems) of its replica says why.
  - Changes nothing. M(glm.fleet.endpoint_check) compares it with the plan.
author: glm.fleet contributors !UNKNOWN
options:
  plans:
    description: The serving plans of the host, one for each replica.
    type: list
    elements: dict
    default: []
  whole:
    description:
      - Also read the units, requests and speed, the releases, the front door, the gateway, the driver and the lease
        of the host,
        each within a few seconds and side by side.
    type: bool
    default: false
  sample_seconds:
    description: With O(whole), seconds between two readings of the counter of tokens.
    type: float
    default: 1
  tls_ca:
    description:
      - File on the controller with the certificates of the authorities that sign the doors' certificates. Empty means
        those that the host trusts.
    type: path
  replicas:
    description: Where to look, for each replica. Set by the action plugin from O(plans), and so are the next ones.
    type: list
    elements: dict
    default: []
  rules:
    description: What the lines of the engine's log mean.
    type: dict
    default: {}
  metrics:
    description: What engines call their metrics.
    type: list
    elements: dict
    default: []
  door:
    description: Where the front door of the host is.
    type: dict
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
  action:
    details: It knows the plans and the catalogue.
"""

EXAMPLES = r"""
- name: See what runs
  glm.fleet.host_status:
    plans: "{{ ansible_facts['glm_plans'] }}"
"""

RETURN = r"""
replicas:
  description:
    - For each replica C(replica), its number, C(since), when it began to serve, C(engine) and C(version), as the engine
      says, C(image) and C(digests) of its container, C(words) of its command, C(environment) of the names that the plan
      sets, C(unplanned) names, checksums of the C(files) now and of those that it was C(started) from, how often it
      C(ended) by itself, and C(problems).
    - With O(whole) also C(unit), as M(glm.fleet.serving_status) describes it, and C(load), with C(running) and
      C(waiting) requests, C(kv_usage) and C(tokens_per_second).
  returned: success
  type: list
  elements: dict
release:
  description: The number of the release that runs; null where it is none, or where that cannot be read.
  returned: without O(whole)
  type: int
releases:
  description: The release that passed last (C(good)) and the number of the C(running) one, null where it is none.
  returned: with O(whole)
  type: dict
door:
  description: Requests in each replica, whether new ones are admitted, and when the certificate ends.
  returned: with O(whole)
  type: dict
gateway:
  description: >-
    Whether a gateway is C(running), the C(replicas) as M(glm.fleet.gateway_view) returns them, and when its certificate
    ends; empty where none is installed.
  returned: with O(whole)
  type: dict
driver:
  description: Version of the GPUs' driver that is loaded.
  returned: with O(whole)
  type: str
lease:
  description: The record of the run that has the host (C(/run/glm/lease.json)); null where any run may take it.
  returned: with O(whole)
  type: dict
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.serving import look as looking
from ansible_collections.glm.fleet.plugins.module_utils.serving import running


def look(params: dict[str, Any]) -> dict[str, Any]:
    """What there is on the host."""
    if params["whole"]:
        return {"changed": False, **looking.whole(params)}
    replicas = [running.seen(commands.run, running.Wanted(**wanted)) for wanted in params["replicas"]]
    return {"changed": False, "replicas": replicas, "release": looking.release_of(replicas)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plans": {"type": "list", "elements": "dict", "default": []},
            "whole": {"type": "bool", "default": False},
            "sample_seconds": {"type": "float", "default": 1},
            "tls_ca": {"type": "path"},
            "replicas": {"type": "list", "elements": "dict", "default": []},
            "rules": {"type": "dict", "default": {}},
            "metrics": {"type": "list", "elements": "dict", "default": []},
            "door": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    module.exit_json(**look(module.params))


if __name__ == "__main__":
    main()
