#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host's front door to what its files say: start it, reload it, restart it, or leave it alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: door_unit
short_description: Start a host's front door, or let it read its changed files
version_added: 0.2.0
description:
  - Asks the running HAProxy which configuration it serves, and compares that with the file. A changed configuration is
    read again, and a HAProxy that was upgraded replaced, without losing a connection; a changed unit restarts it. An
    interrupted run is finished by the next one.
  - Before anything is changed, refuses with a name when another program has one of the ports.
  - Returns when the running door serves the configuration on disk.
options:
  unit:
    description: Name of the unit.
    type: str
    default: glm-door.service
  unit_file:
    description: File of the unit.
    type: path
    required: true
  config:
    description: File of the configuration. Its line C(description) has the checksum that the running door is asked for.
    type: path
    required: true
  socket:
    description: Socket of HAProxy's master process.
    type: path
    required: true
  listen:
    required: true
  timeout:
    description: Seconds until the door must serve its configuration.
    type: int
    default: 60
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.door
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Start the door
  glm.fleet.door_unit:
    unit_file: /etc/systemd/system/glm-door.service
    config: /etc/glm/door/haproxy.cfg
    socket: /run/glm-door/master.sock
    listen: [{address: 10.0.0.5, port: 8000, variable: glm_port}]
"""

RETURN = r"""
action:
  description: What was done, or would be done in check mode - V(none), V(start), V(reload) or V(restart).
  type: str
  returned: success
phase:
  description: What failed.
  type: str
  returned: failure
  sample: door, start
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, files
from ansible_collections.glm.fleet.plugins.module_utils.door import gateway, staged
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy, status

# What the unit leaves of the file it was started from, as sha256sum writes it.
STARTED = "started"


def started_from(unit_file: Path, folder: Path) -> bool:
    """Whether the running door was started from the unit that is on disk."""
    now, started = files.text_of(unit_file), files.text_of(folder / STARTED)
    if now is None or started is None:
        return False
    return started.partition(" ")[0] == hashlib.sha256(now.encode()).hexdigest()


def decided(params: dict[str, Any]) -> str:
    """What has to be done: ``none``, ``start``, ``reload`` or ``restart``."""
    properties = status.show_unit(commands.run, params["unit"])
    if properties.get("ActiveState") not in ("active", "reloading"):
        return "start"
    if not started_from(Path(params["unit_file"]), Path(params["socket"]).parent):
        return "restart"
    return "none" if is_current(params) else "reload"


def is_current(params: dict[str, Any]) -> bool:
    """Whether the running door serves the configuration on disk, and is the HAProxy that is installed."""
    return not staged.unserved(params["socket"], Path(params["config"])) and not was_replaced(params["unit"])


def was_replaced(unit: str) -> bool:
    """Whether the running program is one that an upgrade of the package has removed. A reload starts the new one."""
    pid = commands.run(["systemctl", "show", unit, "--property=MainPID", "--value"]).stdout.strip()
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).endswith(" (deleted)")
    except OSError:
        return False


def systemctl(*words: str) -> None:
    commands.systemctl(*words, next_step="journalctl -u glm-door on the host, then run the role door again")


def wait_until_served(params: dict[str, Any]) -> None:
    """Return when the running door serves the configuration on disk. Raises Unmet."""

    def old_program() -> str:
        return "that the HAProxy runs which an upgrade has removed" if was_replaced(params["unit"]) else ""

    config, unit = Path(params["config"]), params["unit"]
    staged.wait_until_served(params["socket"], config, unit, params["timeout"], old_program)


def brought(module: AnsibleModule) -> dict[str, Any]:
    """Bring the door to what its files say. Raises Unmet."""
    params = module.params
    try:
        action = decided(params)
        properties = status.show_unit(commands.run, params["unit"])
    except RuntimeError as exc:
        raise Unmet("a host that was booted with systemd", exc, "look at systemctl status on the host") from exc
    enabled = properties.get("UnitFileState") == "enabled"
    if action != "none":
        occupancy.require_places(commands.run, params["unit"], params["listen"], module.check_mode)
    if not module.check_mode:
        if properties.get("NeedDaemonReload") == "yes":
            systemctl("daemon-reload")
        if not enabled:
            systemctl("--no-reload", "enable", params["unit"])
        if action != "none":
            systemctl(action, params["unit"])
            wait_until_served(params)
    return {"changed": action != "none" or not enabled, "action": action}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "glm-door.service"},
            "unit_file": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "listen": {**arguments.DOOR_LISTEN, "required": True},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    end(module, f"{gateway.front(module.params['unit'])}, start", lambda: brought(module))


if __name__ == "__main__":
    main()
