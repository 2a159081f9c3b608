#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a serving unit from its files on disk, or restart it when they changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_unit
short_description: Start a host's serving units, or restart those whose files changed
version_added: 0.1.0
description:
  - Compares each unit's files with the record that the unit made of them when it was started, and starts it, restarts
    it or leaves it alone. An interrupted run is therefore finished by the next one.
  - Stops and disables serving units of earlier plans that this one has no replica for, and says so. Only units that the
    role glm.fleet.serve wrote are touched; they carry a section C([X-GlmFleet]).
  - Runs C(systemctl daemon-reload) only when systemd says that a unit on disk is newer than the one it knows.
  - Before anything is stopped, refuses with a name when another program has a port or the GPUs' memory.
  - Does not wait for the engines. M(glm.fleet.serving_wait) does.
options:
  replicas:
    description: The units of the plan, one for each replica on the host.
    type: list
    elements: dict
    required: true
    suboptions:
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
        description: Address the engine will listen on.
        type: str
        required: true
      port:
        description: Port the engine will listen on.
        type: int
        required: true
      stop_seconds:
        description: How long systemd gives the unit to stop.
        type: int
        default: 900
      gpus:
        description: Indices of the GPUs the replica uses.
        type: list
        elements: int
        default: []
      weights:
        description:
          - Records of the verification of the weights, and of each repository beside them.
          - A replica that runs since before files were replaced restarts.
        type: list
        elements: path
        default: []
        version_added: 0.2.0
  restart:
    description: Restarts what runs although nothing changed, too.
    type: bool
    default: false
  unwritten:
    description: Files that a check run would have written before. They count as changed.
    type: list
    elements: path
    default: []
  vendor:
    description: Whose GPUs the host has.
    type: str
    choices: [nvidia, amd]
    default: nvidia
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
- name: Start the replica
  glm.fleet.serving_unit:
    replicas:
      - unit: glm-serve-0.service
        files:
          - /etc/systemd/system/glm-serve-0.service
          - /etc/glm/serve-0.env
          - /etc/glm/serve-0.secret.env
        address: 127.0.0.1
        port: 18000
        stop_seconds: 700
        gpus: [0, 1, 2, 3, 4, 5, 6, 7]
"""

RETURN = r"""
replicas:
  description: What was done with each unit, or would be done in check mode, and why.
  type: list
  elements: dict
  returned: success
  sample: [{unit: glm-serve-0.service, action: restart, reasons: [/etc/glm/serve-0.env changed]}]
retired:
  description: Units of earlier plans that were stopped and disabled.
  type: list
  elements: str
  returned: success
  sample: [glm-serve-1.service]
phase:
  description: What failed.
  type: str
  returned: failure
  sample: serve, preflight
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.files import read_json
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Unmet, advised, unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands as _host_commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy as _occupancy
from ansible_collections.glm.fleet.plugins.module_utils.serving import running as _running
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving
from ansible_collections.glm.fleet.plugins.module_utils.weights import store as _weights_store

RUNNING = ("active", "activating", "reloading")
UNITS = Path("/etc/systemd/system")
# Longer than a unit may take: systemd itself kills what is left when the limits of its parts are over.
STOP_FACTOR = 3
STOP_SLACK_SECONDS = 60


@dataclass
class Replica:
    """One unit of the plan: what it needs, what systemd says of it, what has to be done and why."""

    unit: str
    files: list[str]
    address: str
    port: int
    gpus: list[int]
    stop_seconds: int = 900
    weights: Sequence[str] = ()
    properties: dict[str, str] = field(default_factory=dict)
    action: str = "none"
    reasons: list[str] = field(default_factory=list)

    @property
    def enabled(self) -> bool:
        """Whether the unit starts with the host."""
        return self.properties.get("UnitFileState") == "enabled"


def changed_files(files: Sequence[str], record: Path, unwritten: Collection[str] = ()) -> list[str]:
    """Which files differ from those the running replica was started from; all of them when it left no record."""
    started = read_json(record)
    return [
        file for file in files if file in unwritten or started is None or started.get(file) != _running.checksum(file)
    ]


def reloaded(weights: Sequence[str], record: Path) -> bool:
    """Whether a replica that runs has loaded its weights as they are now: wrong files may have been replaced since."""
    try:
        return all(_weights_store.replaced_at(Path(one)) <= record.stat().st_mtime for one in weights)
    except OSError:
        # Without a record of its start it is restarted anyway.
        return True


def decide(properties: dict[str, str], changed: Sequence[str], restart: bool = False) -> tuple[str, list[str]]:
    """``(start|restart|none, reasons)`` from systemd's view, the changed files, and whether to restart anyway."""
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
    return ("restart", ["a restart is wanted"]) if restart else ("none", [])


def surplus(planned: Collection[str], folder: Path = UNITS) -> list[str]:
    """Serving units that the role wrote for an earlier plan and that this one does not have."""
    found = []
    for path in sorted(folder.glob("glm-serve-*.service")):
        if path.name in planned or not re.fullmatch(r"glm-serve-\d+\.service", path.name):
            continue
        if "\n[X-GlmFleet]\n" in path.read_text(encoding="utf-8", errors="replace"):
            found.append(path.name)
    return found


def in_use(properties: dict[str, str]) -> bool:
    """Whether a unit runs, or would after the next boot."""
    return properties.get("ActiveState") in RUNNING or properties.get("UnitFileState") == "enabled"


def occupied(replica: Replica, vendor: str, leaving: Collection[str]) -> Optional[str]:
    """Why the replica could not start, or None. What the units in ``leaving`` hold is free by then."""
    if replica.action == "none":
        return None
    where = f"{replica.address} port {replica.port}"
    problem = _occupancy.address_problem(replica.address)
    if problem:
        return advised(f"expected {replica.address} to be an address of this host: {problem}", "set glm_bind")
    owner = _occupancy.port_owner(_host_commands.run, replica.address, replica.port)
    if owner and owner.unit not in leaving:
        return unmet(f"{where} to be free", owner.words, "stop it, or choose another glm_engine_port")
    if replica.action == "restart":
        return None  # it holds its GPUs itself
    users = _occupancy.gpu_users(_host_commands.run, vendor, replica.gpus, leaving)
    if users:
        tool = {"nvidia": "nvidia-smi", "amd": "rocm-smi --showpids"}[vendor]
        return unmet("free GPU memory", "; ".join(users), f"stop what holds it ({tool} shows it)")
    return None


def apply(replicas: Sequence[Replica], retired: Sequence[str]) -> None:
    """Do what was decided; returns while the engines still load."""
    patience = STOP_FACTOR * max((replica.stop_seconds for replica in replicas), default=900) + STOP_SLACK_SECONDS

    def systemctl(*words: str) -> None:
        next_step = f"systemctl status {words[-1]} on the host, then run the role serve again"
        _host_commands.systemctl(*words, next_step=next_step, timeout=patience)

    if any(replica.properties.get("NeedDaemonReload") == "yes" for replica in replicas):
        systemctl("daemon-reload")
    if retired:
        systemctl("--no-reload", "disable", *retired)
    absent = [replica.unit for replica in replicas if not replica.enabled]
    if absent:
        systemctl("--no-reload", "enable", *absent)
    restarts = [replica.unit for replica in replicas if replica.action == "restart"]
    starts = [replica.unit for replica in replicas if replica.action != "none"]
    if retired or starts != restarts or len(restarts) > 1:
        # What one replica leaves another may be waiting for: GPUs, ports.
        leaving = [*retired, *restarts]
        if leaving:
            systemctl("stop", *leaving)
        restarts = []
    if starts:
        # Failures of the past must not count against this start's one retry.
        _host_commands.run(["systemctl", "reset-failed", *starts])
        systemctl("--no-block", "restart" if restarts else "start", *starts)


def look(
    planned: Sequence[dict[str, Any]], restart: bool = False, unwritten: Collection[str] = ()
) -> tuple[list[Replica], list[str]]:
    """The planned units with what has to be done, and those of earlier plans that are still in use."""
    replicas = [Replica(**given) for given in planned]
    try:
        for replica in replicas:
            replica.properties = _serving.show_unit(_host_commands.run, replica.unit)
            record = _running.record_of(replica.unit)
            changed = changed_files(replica.files, record, unwritten)
            changed += [] if reloaded(replica.weights, record) else ["the weights"]
            replica.action, replica.reasons = decide(replica.properties, changed, restart)
        old = surplus([replica.unit for replica in replicas])
        return replicas, [unit for unit in old if in_use(_serving.show_unit(_host_commands.run, unit))]
    except (RuntimeError, OSError) as exc:
        raise Unmet("a host that was booted with systemd", exc, "look at systemctl status on the host") from exc


def brought(module: AnsibleModule) -> dict[str, Any]:
    """Bring the units to what the plan says. Raises Unmet."""
    replicas, retired = look(*(module.params[name] for name in ("replicas", "restart", "unwritten")))
    leaving = [*retired, *(replica.unit for replica in replicas if replica.action == "restart")]
    # Before anything is stopped: what runs now goes on when its successor could not start.
    for replica in replicas:
        problem = occupied(replica, module.params["vendor"], leaving)
        if problem:
            raise QuotingError(problem, phase="serve, preflight")
    changed = bool(retired) or any(replica.action != "none" or not replica.enabled for replica in replicas)
    if not module.check_mode:
        apply(replicas, retired)
    if retired:
        done = "would be stopped and disabled" if module.check_mode else "was stopped and disabled"
        for unit in retired:
            module.warn(f"serve: {unit} {done}: the plan has {len(replicas)} replica(s) on this host")
    return {
        "changed": changed,
        "replicas": [{"unit": one.unit, "action": one.action, "reasons": one.reasons} for one in replicas],
        "retired": retired,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "replicas": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "unit": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "required": True},
                    "stop_seconds": {"type": "int", "default": 900},
                    "gpus": {"type": "list", "elements": "int", "default": []},
                    "weights": {"type": "list", "elements": "path", "default": []},
                },
            },
            "restart": {"type": "bool", "default": False},
            "unwritten": {"type": "list", "elements": "path", "default": []},
            "vendor": {"type": "str", "choices": ["nvidia", "amd"], "default": "nvidia"},
        },
        supports_check_mode=True,
    )
    end(module, "serve, start", lambda: brought(module))


if __name__ == "__main__":
    main()
