#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring one serving unit to what its files on disk say, touching it only when they changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_unit
short_description: Start a serving unit, or restart it if its files changed
version_added: 0.1.0
description:
  - Compares the unit's files with the record that the unit made of them when it was started, and starts it, restarts
    it or leaves it alone. An interrupted run is therefore finished by the next one.
  - Runs C(systemctl daemon-reload) only when systemd says that the unit on disk is newer than the one it knows.
  - Before a start, refuses with a name when another program has the port or the GPUs' memory.
  - Does not wait for the engine. M(glm.fleet.serving_wait) does.
options:
  unit:
    description: Name of the unit.
    type: str
    required: true
  files:
    description: Files the replica is made from. A change in one of them means a restart.
    type: list
    elements: path
    required: true
  address:
    description: Address the endpoint will listen on.
    type: str
    required: true
  port:
    description: Port the endpoint will listen on.
    type: int
    required: true
  vendor:
    description: Whose GPUs the host has.
    type: str
    choices: [nvidia, amd]
    default: nvidia
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: none
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Start the replica
  glm.fleet.serving_unit:
    unit: glm-serve-0.service
    files:
      - /etc/systemd/system/glm-serve-0.service
      - /etc/glm/serve-0.env
      - /etc/glm/serve-0.secret.env
    address: 10.0.0.5
    port: 8000
"""

RETURN = r"""
action:
  description: What was done, or would be done in check mode.
  type: str
  returned: success
  sample: none
reasons:
  description: Why.
  type: list
  elements: str
  returned: success
  sample: [/etc/glm/serve-0.env changed]
phase:
  description: What failed.
  type: str
  returned: failure
  sample: serve, preflight
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import _host_commands, _occupancy, _serving

RUNNING = ("active", "activating", "reloading")


def changed_files(files: Sequence[str], record: Path) -> list[str]:
    """Which files differ from those the running replica was started from; all of them when it left no record."""
    try:
        started = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return list(files)
    return [file for file in files if started.get(file) != _checksum(file)]


def _checksum(file: str) -> Optional[str]:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def decide(properties: dict[str, str], changed: Sequence[str]) -> tuple[str, list[str]]:
    """``(start|restart|none, reasons)`` from systemd's view and the changed files."""
    current = properties.get("NeedDaemonReload") != "yes"
    if properties.get("ActiveState") not in RUNNING:
        # A start that waits for another unit will read the files as they are then.
        if _serving.is_queued(properties) and current:
            return "none", []
        return "start", [f"the unit is {properties.get('ActiveState', 'not installed')}"]
    if properties.get("SubState") == "auto-restart":
        return "restart", ["its last start failed and systemd was about to try again"]
    # Before the guard has made its record a start still reads the files as they are: nothing to compare with.
    if properties.get("SubState") == "start-pre" and current:
        return "none", []
    if changed:
        return "restart", [f"{file} changed" for file in changed]
    return "none", []


def container(unit: str) -> str:
    """Name of the unit's container and of its run-time folder."""
    return unit.removesuffix(".service")


def occupied(params: dict[str, Any], action: str) -> Optional[str]:
    """Why the replica could not start, or None. A replica that is up itself holds GPUs, and perhaps the port."""
    if action == "none":
        return None
    where = f"{params['address']} port {params['port']}"
    problem = _occupancy.address_problem(params["address"])
    if problem:
        return f"expected {params['address']} to be an address of this host: {problem}. Next: set glm_bind"
    owner = _occupancy.port_owner(_host_commands.run, params["address"], params["port"])
    if owner and not (action == "restart" and owner.startswith(f"the container {container(params['unit'])} (")):
        return f"expected {where} to be free, found {owner}. Next: stop it, or choose another glm_port"
    users = _occupancy.gpu_users(_host_commands.run, params["vendor"]) if action == "start" else []
    if users:
        return f"expected free GPU memory, found {'; '.join(users)}. Next: stop what holds it (nvidia-smi shows it)"
    return None


def fail(module: AnsibleModule, phase: str, text: str) -> NoReturn:
    """End the module; the action puts the host's name before the phase."""
    module.fail_json(msg=f"{phase}: {text}", phase=phase)


def systemctl(module: AnsibleModule, *words: str) -> None:
    done = _host_commands.run(["systemctl", *words], timeout=60)
    if not done.ok:
        fail(
            module,
            "serve, start",
            f"expected systemd to take {done.command}, found that it failed with {done.rc}: {done.evidence()}. Next: "
            f"systemctl status {module.params['unit']} on the host, then run the role serve again",
        )


def apply(module: AnsibleModule, unit: str, properties: dict[str, str], action: str) -> None:
    """Do what was decided; returns while the engine still loads."""
    if properties.get("NeedDaemonReload") == "yes":
        systemctl(module, "daemon-reload")
    if properties.get("UnitFileState") != "enabled":
        systemctl(module, "--no-reload", "enable", unit)
    if action != "none":
        # Failures of the past must not count against this start's one retry.
        _host_commands.run(["systemctl", "reset-failed", unit])
        systemctl(module, "--no-block", action, unit)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "vendor": {"type": "str", "choices": ["nvidia", "amd"], "default": "nvidia"},
        },
        supports_check_mode=True,
    )
    unit = module.params["unit"]
    try:
        properties = _serving.show_unit(_host_commands.run, unit)
    except (RuntimeError, OSError) as exc:
        fail(
            module,
            "serve, start",
            f"expected a host that was booted with systemd, found: {exc}. Next: look at systemctl status on the host",
        )
    record = Path("/run") / container(unit) / "started.json"
    action, reasons = decide(properties, changed_files(module.params["files"], record))
    # Before anything is stopped: what runs now goes on when its successor could not start.
    problem = occupied(module.params, action)
    if problem:
        fail(module, "serve, preflight", problem)
    enabled = properties.get("UnitFileState") == "enabled"
    if not module.check_mode:
        apply(module, unit, properties, action)
    module.exit_json(changed=action != "none" or not enabled, action=action, reasons=reasons)


if __name__ == "__main__":
    main()
