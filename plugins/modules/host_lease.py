#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a host: which run may change it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lease
short_description: Keep two runs from changing one host at the same time
version_added: 0.2.0
description:
  - Takes the lease of the host for this run, renews it, or releases it. Playbooks that change hosts take it before
    anything is changed, and renew it before they serve.
  - The record lies on the host, so it holds for every controller and every user. It names who runs what since when.
  - A host that another run holds is refused, with that run's name. When that run was started on this controller and its
    process has ended, the host is taken over at once.
  - A lease that was not renewed for 6 hours, by the host's own clock, is taken over by any run, with a warning that
    names whose it was.
  - A run that has lost a host to another is refused at its next renewal, also when the other has released it.
  - A restart of the host ends the lease.
options:
  state:
    description:
      - V(held) takes the lease or renews it.
      - V(released) ends it, if this run has it.
      - V(read) only says who holds the host. So does V(held) in check mode. Nobody does where any run may take it.
    type: str
    choices: [held, released, read]
    default: held
  unlock:
    description: Take the host from whoever holds it. Not to renew a lease that this run has lost.
    type: bool
    default: false
  path:
    description: The record.
    type: path
    default: /run/glm/lease.json
  run:
    description: The name of the run. The action plugin sets it.
    type: str
  by:
    description: Who started the run. The action plugin sets it.
    type: str
  playbook:
    description: What it runs. The action plugin sets it.
    type: str
  before:
    description: Whether this run has held the host before. The action plugin sets it.
    type: bool
    default: false
  gone:
    description: The name of a run that has ended. The action plugin sets it.
    type: str
    default: ""
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Only reads. A lease is the run's and not the host's, so taking it is never called a change.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Hold the host for this run
  glm.fleet.host_lease:

- name: Free the host
  glm.fleet.host_lease:
    state: released
"""

RETURN = r"""
lease:
  description: The record of this run. Null when it does not hold the host.
  type: dict
  returned: success
  sample:
    run: 5b2a61f0c9d1-4711-88213
    by: ann@desk-4
    playbook: deploy.yml
    since: "2026-11-29T08:00:00Z"
    renewed: "2026-11-29T08:12:40Z"
    released: ""
holder:
  description: The record of another run, which holds the host or has taken it over.
  type: dict
  returned: when there is one
caution:
  description: Who holds the host, or from whom it was taken over; also printed as a warning that names the host.
  type: str
  returned: when there is such a run
phase:
  description: What failed.
  type: str
  returned: failure
  sample: lease
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import lease
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end


def done(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """What the task asks for. Raises Unmet."""
    path, run = Path(params["path"]), params["run"] or ""
    try:
        if params["state"] == "released":
            if not check_mode:
                lease.release(path, run)
            return {"changed": False, "lease": None}
        if params["state"] == "read" or check_mode:
            return _seen(path, run)
        claim = lease.Claim(
            run=run,
            by=params["by"] or "",
            playbook=params["playbook"] or "",
            before=params["before"],
            gone=params["gone"],
            unlock=params["unlock"],
        )
        held, other = lease.hold(path, claim)
    except OSError as exc:
        raise Unmet(f"to write {path}", exc.strerror or exc, "run it with become, as root") from exc
    if other is None:
        return {"changed": False, "lease": held}
    caution = f"lease: taken over from {lease.holder_in_words(other)}"
    return {"changed": False, "lease": held, "holder": other, "caution": caution}


def _seen(path: Path, run: str) -> dict[str, Any]:
    found = lease.holder(path, run)
    if found is None:
        return {"changed": False, "lease": None}
    caution = f"lease: another run changes this host: {lease.holder_in_words(found)}"
    return {"changed": False, "lease": None, "holder": found, "caution": caution}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "released", "read"], "default": "held"},
            "unlock": {"type": "bool", "default": False},
            "path": {"type": "path", "default": str(lease.PATH)},
            "run": {"type": "str"},
            "by": {"type": "str"},
            "playbook": {"type": "str"},
            "before": {"type": "bool", "default": False},
            "gone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    end(module, "lease", lambda: done(module.params, module.check_mode))


if __name__ == "__main__":
    main()
