#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway thinks of the replicas behind it, and waiting until it has noticed a change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_view
short_description: Which replicas a gateway sends requests to
version_added: 0.2.0
description:
  - Asks the running gateway of this host which replicas it sends new requests to, and how many it has open with each.
  - With O(state) it waits until the gateway sees O(replicas) so. A replica is taken out at the front door of its own
    host, which answers C(/ready) accordingly, so that every gateway and balancer learns of it. Whoever restarts an
    engine waits for what gateways see, not for what the door says.
options:
  socket:
    description: Socket of the master process of the gateway's HAProxy.
    type: path
    default: /run/glm-gateway/master.sock
  replicas:
    description: >-
      Names of replicas that are meant, as RV(replicas) has them. One that the gateway does not know gets no requests
      from it, and is not waited for.
    type: list
    elements: str
    default: []
  state:
    description: >-
      What to wait for. V(in) is that new requests go to all of them, V(out) that none does; V(any) waits for nothing.
    type: str
    choices: [any, in, out]
    default: any
  timeout:
    description: Seconds to wait.
    type: int
    default: 15
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Does not wait, because nothing was changed that could be noticed.
  diff_mode:
    support: N/A
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Wait until the gateway sends nothing to the host
  glm.fleet.gateway_view:
    replicas: [glm-1-0]
    state: out
"""

RETURN = r"""
running:
  description: Whether a gateway runs here. None is waited for where systemd says that it does not.
  returned: success
  type: bool
replicas:
  description: >-
    Of each replica whether it is C(in), its C(status) and what its last C(check) found, both in HAProxy's words,
    and how many requests are C(open) and C(waiting) for it.
  returned: success
  type: dict
  sample: {"glm-1-0": {"in": true, "status": "UP", "check": "Layer7 check passed", "open": 12, "waiting": 0}}
admitted:
  description: Those of O(replicas) that the gateway sends new requests to, by the names that they have there.
  returned: success
  type: list
  elements: str
  sample: [glm-1-0]
phase:
  description: What failed.
  returned: failure
  type: str
  sample: gateway
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end


def look(params: dict[str, Any], wait: bool) -> dict[str, Any]:
    """What the gateway sees, once that is what is wanted. Raises Unmet."""
    socket = Path(params["socket"])
    if wait and params["state"] != "any":
        gateway.wait(socket, params["replicas"], params["state"] == "in", params["timeout"])
    found = gateway.view(socket)
    return {
        "changed": False,
        "running": found is not None,
        "replicas": found or {},
        "admitted": gateway.admitted(found or {}, params["replicas"]),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": gateway.SOCKET},
            "replicas": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["any", "in", "out"], "default": "any"},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    end(module, "gateway", lambda: look(module.params, not module.check_mode))


if __name__ == "__main__":
    main()
