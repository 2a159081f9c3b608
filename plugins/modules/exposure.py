# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: exposure
short_description: List what a host listens on and who may talk to its engines, or try what another one listens on
version_added: 0.2.0
description:
  - Without O(places), lists every listening TCP socket of the host that is not on loopback, and whose it is.
  - With O(places), which is such a list of another host, tries each socket from here, and asks each front door among
    them without a key, with a wrong one, with O(api_key), and on a route that is not for clients.
  - M(glm.fleet.endpoint_check) tries the same from the controller and judges both. UDP is not looked at.
author: glm.fleet contributors !UNKNOWN
options:
  addresses:
    description: Names and addresses of the host by which others reach it. A socket on all addresses is listed for each.
    type: list
    elements: str
    default: []
  replicas:
    description: Without O(places), numbers of the replicas of which to see who may talk to them.
    type: list
    elements: int
    default: []
  places:
    description: What to try, as RV(places) of the other host.
    type: list
    elements: dict
  doors:
    description: Ports among O(places) where a front door answers clients.
    type: list
    elements: int
    default: []
  api_key:
    description: The key for these doors.
    type: str
  tls_name:
    description: Name or address that the doors' certificate must be for. Without it they are asked by plain HTTP.
    type: str
  tls_authorities:
    description: Certificates, as PEM, of the authorities that may sign it. By default those that the host trusts.
    type: str
    default: ""
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Changes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: List what the host listens on
  glm.fleet.exposure:
    addresses: [10.0.0.5, 192.0.2.7]
  register: listening

- name: Try it from another host
  glm.fleet.exposure:
    places: "{{ listening['places'] }}"
    doors: [8000]
    api_key: "{{ glm_api_key }}"
  delegate_to: gpu-2
"""

RETURN = r"""
places:
  description:
    - Listening sockets, each with C(address), C(port), C(process) in words, and C(unit), the collection's own that it
      belongs to, empty for others, and none where it could not be seen whose it is.
  returned: without O(places)
  type: list
  elements: dict
walls:
  description:
    - For each of O(replicas) the control group of its slice (C(group)), the networks that systemd refuses and
      lets in there (C(denied), C(allowed)), the control groups of its running C(processes) (C(unit), C(container)), and
      the addresses of the host and the container (C(own)). Instead of all these C(problem) where they were not seen.
  returned: without O(places)
  type: list
  elements: dict
outcomes:
  description: What came of each of O(places), V(open), V(refused), V(silent), or the system's own words.
  returned: with O(places)
  type: list
  elements: str
answers:
  description: HTTP status of each question to each open door, by C(address:port).
  returned: with O(places)
  type: dict
seconds:
  description: How long it took.
  returned: always
  type: float
"""

import functools
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import exposure, walls
from ansible_collections.glm.fleet.plugins.module_utils.serving.occupancy import Runner
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust


def work(params: dict[str, Any]) -> dict[str, Any]:
    """What the host listens on, or what came of trying."""
    begun = time.monotonic()
    if params["places"] is None:
        # What replicas of a host have in common, its addresses, is asked once.
        ask = functools.cache(commands.run)
        found: dict[str, Any] = {
            "places": exposure.places(commands.run, params["addresses"]),
            "walls": [around(ask, replica) for replica in params["replicas"]],
        }
    else:
        name = params["tls_name"]
        trust = Trust(name, params["tls_authorities"]) if name else None
        found = {**exposure.seen(params["places"], params["doors"], params["api_key"], trust)}
    return {"changed": False, "seconds": round(time.monotonic() - begun, 2), **found}


def around(ask: Runner, replica: int) -> Mapping[str, Any]:
    """Who may talk to a replica, or why that could not be seen."""
    try:
        return walls.seen(ask, replica)
    except QuotingError as exc:
        return {"replica": replica, "problem": str(exc)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "default": []},
            "replicas": {"type": "list", "elements": "int", "default": []},
            "places": {"type": "list", "elements": "dict"},
            "doors": {"type": "list", "elements": "int", "default": []},
            "api_key": {"type": "str", "no_log": True},
            "tls_name": {"type": "str"},
            "tls_authorities": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    end(module, "verify", lambda: work(module.params))


if __name__ == "__main__":
    main()
