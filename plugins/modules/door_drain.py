#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a host's front door say that replicas drain or serve, or read what it says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: door_drain
short_description: Have a host's front door say that its replicas drain
version_added: 0.2.0
description:
  - The door answers C(GET /ready) on the port of each replica, without a key, with 200 while it serves, 404 while it
    drains and 503 while its engine is down. Balancers and gateways read that. This sets or reads it.
  - Only readiness changes. A request that comes all the same is served.
  - A drain has an end, which HAProxy compares with the clock by itself. It survives a reload and a restart of the door.
  - With O(wait_seconds), waits until no request runs in these replicas, and prints how many are left. The wait ends
    early where requests still come from somebody who does not ask C(/ready).
options:
  state:
    description: V(draining) until O(seconds) from now, V(serving) at once, or V(read), which changes nothing.
    type: str
    choices: [draining, serving, read]
    default: read
  replicas:
    description: Numbers of the replicas. By default all that the door has.
    type: list
    elements: int
    default: []
  seconds:
    description: After so many seconds a drained replica serves again by itself.
    type: int
    default: 600
  wait_seconds:
    description: Wait at most so long, with O(state=draining), until no request runs.
    type: int
    default: 0
  folder:
    description: Folder of the door's files.
    type: path
    default: /etc/glm/door
  socket:
    description: Socket of HAProxy's master process.
    type: path
    default: /run/glm-door/master.sock
  group:
    description: Group that may read the door's files.
    type: str
    default: glm-door
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: In check mode nothing is waited for.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: A second V(draining) moves the end.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Take the host out of its balancers for an hour, and wait until nobody is served
  glm.fleet.door_drain:
    state: draining
    seconds: 3600
    wait_seconds: 600

- name: Let it serve again
  glm.fleet.door_drain:
    state: serving
"""

RETURN = r"""
replicas:
  description:
    - What the door says of each replica, as V(serving), V(draining) or V(down), C(until) when it drains (seconds since
      1970), C(open) requests, and all there were (C(taken)); null is not known.
  type: list
  elements: dict
  returned: success
  sample: [{name: engine-0, state: draining, until: 1764450000, open: 3, taken: 120}]
door:
  description: Whether the host has a front door, running or not.
  type: bool
  returned: success
asked:
  description: Whether anybody has asked C(/ready) since the door was started or reloaded.
  type: bool
  returned: success
running:
  description: Whether the door runs.
  type: bool
  returned: success
waited:
  description: Why the wait ended.
  type: str
  returned: when O(wait_seconds) is set
  sample: no request runs
phase:
  description: What failed.
  type: str
  returned: failure
  sample: door
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.door import drain
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

NO_DOOR: dict[str, Any] = {"door": False, "running": False, "asked": False, "replicas": []}


def work(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Set what is asked, and read. Raises Unmet."""
    folder = Path(params["folder"])
    if not folder.is_dir():
        # A host that only computes for another one, or was never deployed.
        return {"changed": False, **NO_DOOR}
    door = drain.Door(drain.Place(folder, Path(params["socket"]), group=params["group"]))
    before = door.view()
    names = [drain.name_of(number) for number in params["replicas"]] or [one.name for one in before.replicas]
    changed, caution = False, {}
    if params["state"] == "draining":
        changed = bool(names)
        if not check_mode:
            try:
                door.mark(names, int(time.time()) + params["seconds"])
            except drain.Older:
                # Before an upgrade. Requests that run are still worth waiting for.
                caution = {"caution": "door: it is of an earlier release, so balancers do not hear that it drains"}
    elif params["state"] == "serving":
        changed = any(one.until for one in before.replicas if one.name in names)
        if changed and not check_mode:
            door.mark(names, None)
    return {"changed": changed, **caution, "door": True, **drain.shown(before if check_mode else door.view())}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["draining", "serving", "read"], "default": "read"},
            "replicas": {"type": "list", "elements": "int", "default": []},
            "seconds": {"type": "int", "default": 600},
            "wait_seconds": {"type": "int", "default": 0},
            "folder": {"type": "path", "default": drain.FOLDER},
            "socket": {"type": "path", "default": drain.SOCKET},
            "group": {"type": "str", "default": drain.GROUP},
        },
        supports_check_mode=True,
    )
    end(module, "door", lambda: work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
