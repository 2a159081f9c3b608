# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: door_keys
short_description: Give a host's front door the keys that clients may use
version_added: 0.2.0
description:
  - Writes the maps of keys, of when they expire and of their limits, and puts them into every process of the running
    HAProxy, in one step for each map and without a restart. Processes that a reload left to end what they have open get
    them, too, because their connections can bring further requests.
  - Then it reads what the processes have, and fails when that is something else. So a key that was left out is refused
    when this module has ended well.
  - Where the door does not run, the files are written, and it reads them when it starts.
  - Files and processes are changed by one run at a time; others wait, also those that write the door's other files.
    Keys that are older than those which the host has, or come from another store, are refused.
author: glm.fleet contributors !UNKNOWN
options:
  store:
    description: What P(glm.fleet.client_keys#lookup) gives. All other keys are refused.
    type: dict
    required: true
    suboptions:
      keys:
        description: The keys.
        type: list
        elements: dict
        required: true
      generation:
        description: The state of the store that they are of; null where there is none.
        type: dict
  overrule:
    description: Whether the host takes the keys even if it has newer ones, or those of another store.
    type: bool
    default: false
  folder:
    description: Folder of the maps.
    type: path
    default: /etc/glm/door
  master:
    description: Socket of HAProxy's master process.
    type: path
    default: /run/glm-door/master.sock
  group:
    description: Group that may read the maps.
    type: str
    default: glm-door
  program:
    description: HAProxy. It must be 2.5 or newer where a key has a limit of tokens.
    type: path
    default: /usr/sbin/haproxy
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Compares files and processes with the keys.
  diff_mode:
    support: none
    details: RV(files) says what changes.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Give the door the keys of the fleet
  glm.fleet.door_keys:
    store: "{{ lookup('glm.fleet.client_keys', glm_state_dir, api_key=door_api_key) }}"
"""

RETURN = r"""
files:
  description: Files that were written (or would be).
  returned: success
  type: list
  elements: str
door:
  description: V(false) on a host that has no front door, where nothing was written.
  returned: when there is none
  type: bool
generation:
  description: Number of the state of the store that the host has now; null where there is no store.
  returned: success
  type: int
running:
  description: Whether the door runs. If not, it reads the files when it starts.
  returned: success
  type: bool
processes:
  description: The processes that have these keys, as read from them.
  returned: success
  type: list
  elements: int
phase:
  description: What failed.
  returned: failure
  type: str
  sample: door
"""

import json
import re
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import files, versions
from ansible_collections.glm.fleet.plugins.module_utils.door import generation, maps, owned
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master, Process, runs
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end

# What the host has got last.
RECORD = "generation.json"
UNIT_FILE = Path("/etc/systemd/system/glm-door.service")
DEPLOY = "deploy the host, so that it gets its front door"
TOKENS_SINCE = "2.5"
OLDER = "install that on the host, or take tokens_per_minute out of the limits of keys (glm_key_limits)"


def write(path: Path, text: str, group: int, check: bool) -> bool:
    """Write a map that differs, or that others could read; whether it did. Raises OSError."""
    if owned.holds(path, text, group):
        return False
    if not check:
        owned.write(path, text, group)
    return True


def write_all(folder: Path, wanted: maps.Maps, group: int, check: bool) -> list[str]:
    """The files that differed. Raises Unmet."""
    written = []
    for name, entries in wanted.items():
        path = folder / f"{name}.map"
        try:
            if write(path, maps.text(entries), group, check):
                written.append(str(path))
        except OSError as exc:
            raise Unmet(f"to write {path}", exc.strerror or str(exc), "fix that on the host and run again") from exc
    return written


def give(master: Master, process: Process, folder: Path, wanted: maps.Maps, check: bool) -> bool:
    """Make a process have the maps; whether it had others. Raises Unmet when it does not have them then."""
    known = master.files(process)
    changed = False
    for name, entries in wanted.items():
        file = str(folder / f"{name}.map")
        if file not in known:
            # An old process may have begun with a configuration that had only keys.
            if name == "keys" or (entries and not process.old):
                raise Unmet(f"process {process.pid} of HAProxy to read {file}", "it does not", DEPLOY)
            continue
        if master.entries(process, file) == entries:
            continue
        changed = True
        if not check:
            master.replace(process, file, entries)
            if master.entries(process, file) != entries:
                raise Unmet(f"process {process.pid} to have what {file} says", "other entries", "run again")
    return changed


def give_all(master: Master, folder: Path, wanted: maps.Maps, check: bool) -> tuple[bool, list[int]]:
    """Whether a process had other maps, and the processes that have these. Raises Unmet."""
    changed: list[bool] = []
    there = master.in_each(
        lambda process: changed.append(give(master, process, folder, wanted, check)), master.processes
    )
    return any(changed), sorted(process.pid for process in there)


def recorded(folder: Path) -> Optional[Generation]:
    """What the host has got last; None before the first. Raises Unmet when that cannot be read."""
    path = folder / RECORD
    next_step = "remove the file on the host, and push the newest keys (glm_keys_action=push)"
    text = files.text_of(path, next_step=next_step)
    try:
        return None if text is None else generation.parsed(json.loads(text), str(path), next_step)
    except ValueError as exc:
        raise Unmet(f"JSON in {path}", str(exc), next_step) from exc


def record(folder: Path, there: Optional[Generation], given: Optional[Generation]) -> None:
    """Keep what the host gets. Raises Unmet."""
    path = folder / RECORD
    try:
        if given is None:
            path.unlink(missing_ok=True)
        elif given != there:
            files.write_text(path, json.dumps(generation.dumped(given)), durable=True)
    except OSError as exc:
        raise Unmet(f"to write {path}", exc.strerror or str(exc), "fix that on the host and run again") from exc


def work(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Give the host the keys, unless it has newer ones. Raises Unmet."""
    folder = Path(params["folder"])
    if not folder.is_dir() and not UNIT_FILE.exists():
        # A host that only computes for another one, or was never deployed: no key opens anything there.
        return {"changed": False, "files": [], "door": False, "generation": None, "running": False, "processes": []}
    wanted = maps.of(params["store"]["keys"])
    given = generation.parsed(params["store"].get("generation"), "the generation of the keys", "see client_keys")
    group = owned.group_of(params["group"])
    if wanted["tokens"] and not check:
        require_tokens(params["program"])
    with owned.alone(folder):
        there = recorded(folder)
        if not params["overrule"]:
            generation.require_newer(there, given)
        if not check:
            # First: a run that ends after this lets no older keys in.
            record(folder, there, given)
        result = given_all(Path(params["master"]), folder, wanted, group, check)
    return {**result, "generation": given.number if given else None}


def given_all(socket: Path, folder: Path, wanted: maps.Maps, group: int, check: bool) -> dict[str, Any]:
    """Files first: a process that starts meanwhile reads the new ones."""
    written = write_all(folder, wanted, group, check)
    result: dict[str, Any] = {"changed": bool(written), "files": written, "running": runs(socket), "processes": []}
    if result["running"]:
        changed, result["processes"] = give_all(Master(socket), folder, wanted, check)
        result["changed"] = changed or bool(written)
    return result


def require_tokens(program: str) -> None:
    """Raise Unmet when HAProxy cannot limit tokens; a limit that nobody keeps must not look as if it were kept."""
    done = commands.run([program, "-v"])
    version = re.search(r"version (\d+\.\d+\S*)", done.stdout)
    if version is None or versions.older(version.group(1), TOKENS_SINCE):
        found = f"HAProxy {version.group(1)}" if version else f"no version ({done.evidence()})"
        raise Unmet(f"HAProxy {TOKENS_SINCE} or newer, which can limit tokens per minute", found, OLDER)


def main() -> None:
    store = {
        "keys": {"type": "list", "elements": "dict", "required": True, "no_log": False},
        "generation": {"type": "dict"},
    }
    module = AnsibleModule(
        argument_spec={
            "store": {"type": "dict", "required": True, "options": store},
            "overrule": {"type": "bool", "default": False},
            "folder": {"type": "path", "default": "/etc/glm/door"},
            "master": {"type": "path", "default": "/run/glm-door/master.sock"},
            "group": {"type": "str", "default": "glm-door"},
            "program": {"type": "path", "default": "/usr/sbin/haproxy"},
        },
        supports_check_mode=True,
    )
    end(module, "door", lambda: work(module.params, module.check_mode))


if __name__ == "__main__":
    main()
