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
    description: The door's socket for administrators.
    type: path
    required: true
  listen:
    description: Where the door listens.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: IP address of the host.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      variable:
        description: Variable that moves the port.
        type: str
        required: true
  timeout:
    description: Seconds until the door must serve its configuration.
    type: int
    default: 60
extends_documentation_fragment:
  - glm.fleet.attributes
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
    socket: /run/glm-door/admin.sock
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
import re
import socket
import time
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy, status

POLL_SECONDS = 0.1
ANSWER_SECONDS = 5
# What the unit leaves of the file it was started from, as sha256sum writes it.
STARTED = "started"


def wanted_mark(config: Path) -> Optional[str]:
    """The checksum that a configuration has of itself; None where there is no file yet."""
    found = re.search(r"^\s*description (\S+)$", files.read_text(config), re.MULTILINE)
    return found.group(1) if found else None


def served_mark(path: str) -> Optional[str]:
    """The checksum of the configuration that the running door serves; None when it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(path)
            connection.sendall(b"show info\n")
            with connection.makefile("r", encoding="utf-8") as answer:
                lines = dict(line.rstrip("\n").partition(": ")[::2] for line in answer)
    except OSError:
        return None
    return lines.get("description")


def started_from(unit_file: Path, folder: Path) -> bool:
    """Whether the running door was started from the unit that is on disk."""
    try:
        now = hashlib.sha256(unit_file.read_bytes()).hexdigest()
    except OSError:
        return False
    return files.read_text(folder / STARTED).partition(" ")[0] == now


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
    return served_mark(params["socket"]) == wanted_mark(Path(params["config"])) and not was_replaced(params["unit"])


def was_replaced(unit: str) -> bool:
    """Whether the running program is one that an upgrade of the package has removed. A reload starts the new one."""
    pid = commands.run(["systemctl", "show", unit, "--property=MainPID", "--value"]).stdout.strip()
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).endswith(" (deleted)")
    except OSError:
        return False


def require_ports(params: dict[str, Any], check_mode: bool) -> None:
    """Raise Unmet when the door could not listen where it should."""
    for place in params["listen"]:
        address, port, variable = place["address"], place["port"], place["variable"]
        problem = occupancy.address_problem(address)
        if problem:
            raise Unmet(f"{address} to be an address of this host", problem, "set glm_bind, or glm_monitor_address")
        owner = occupancy.port_owner(commands.run, address, port)
        # In check mode an engine of an earlier release is still where the door will be.
        leaves = owner and check_mode and owner.unit
        if owner and owner.unit != params["unit"] and not leaves:
            raise Unmet(f"{address} port {port} to be free", owner.words, f"stop it, or choose another {variable}")


def systemctl(*words: str) -> None:
    done = commands.run(["systemctl", *words], timeout=120)
    if not done.ok:
        raise Unmet(
            f"systemd to take {done.command}",
            f"that it failed with {done.rc}: {done.evidence()}",
            "journalctl -u glm-door on the host, then run the role door again",
        )


def wait_until_served(params: dict[str, Any]) -> None:
    """Return when the running door serves the configuration on disk. Raises Unmet."""
    deadline = time.monotonic() + params["timeout"]
    while not is_current(params):
        if time.monotonic() >= deadline:
            state = status.show_unit(commands.run, params["unit"]).get("ActiveState", "unknown")
            raise Unmet(
                f"{params['unit']} to serve {params['config']} within {params['timeout']} s",
                f"it still serves an older one, or nothing; the unit is {state}",
                f"journalctl -u {params['unit']} on the host says why",
            )
        time.sleep(POLL_SECONDS)


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
        require_ports(params, module.check_mode)
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
    place = {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "variable": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "glm-door.service"},
            "unit_file": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "socket": {"type": "path", "required": True},
            "listen": {"type": "list", "elements": "dict", "required": True, "options": place},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    end(module, "door, start", lambda: brought(module))


if __name__ == "__main__":
    main()
