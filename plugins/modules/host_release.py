#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_release
short_description: Keep what passed the gate on its host, or read what was kept
version_added: 0.2.0
description:
  - A release is the plans of a host's replicas, what was observed when they passed the gate, the C(glm_*) values that
    they were made from, without secrets, who had it pass and when. It lies in C(/var/lib/glm/releases/<number>), for
    root only, so that any controller can go back to it.
  - Numbers only grow. What has the same plans, and was observed to be the same, is the release that it was, with a new
    time. Ten are kept, the last that passed among them.
author: glm.fleet contributors !UNKNOWN
options:
  state:
    description: V(recorded) keeps what passed, V(read) returns what is kept.
    type: str
    choices: [recorded, read]
    default: recorded
  plans:
    description: The serving plans of the host, one for each replica.
    type: list
    elements: dict
    default: []
  seen:
    description: What runs, as RV(glm.fleet.host_status#module:replicas).
    type: list
    elements: dict
    default: []
  reports:
    description:
      - The reports of M(glm.fleet.endpoint_check) about each replica. With one that is not C(ok), or without any,
        nothing is kept.
    type: list
    elements: dict
    default: []
  number:
    description: With O(state=read), the release whose plans are returned.
    type: int
  release:
    description: What is kept beside the plans. Set by the action plugin.
    type: dict
  secret_files:
    description: Files on the host with secrets that must not be kept. Set by the action plugin.
    type: list
    elements: path
    default: []
  folder:
    description: Where releases are kept.
    type: path
    default: /var/lib/glm/releases
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Keeps nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Of what is kept already only the time changes, which is no change.
  action:
    details: It knows the variables and the controller.
"""

EXAMPLES = r"""
- name: Keep what passed
  glm.fleet.host_release:
    plans: "{{ ansible_facts['glm_plans'] }}"
    seen: "{{ __verify_seen['replicas'] }}"
    reports: "{{ __verify_result['results'] | map(attribute='report') }}"

- name: Read what is kept
  glm.fleet.host_release:
    state: read
"""

RETURN = r"""
number:
  description: The release that was kept, or null where nothing was; with O(state=read) O(number).
  type: int
  returned: success
good:
  description: The release that passed last; null before the first.
  type: int
  returned: success
releases:
  description: What is kept, oldest first, without the plans.
  type: list
  elements: dict
  returned: with O(state=read)
plans:
  description: The plans of release O(number).
  type: list
  elements: dict
  returned: with O(state=read) and O(number)
phase:
  description: What failed.
  type: str
  returned: failure
  sample: release
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import release


def done(module: AnsibleModule) -> dict[str, Any]:
    """Keep or read. Raises Unmet."""
    params = module.params
    store = release.Store(Path(params["folder"]))
    if params["state"] == "read":
        number = params["number"]
        plans = {} if number is None else {"plans": store.plans(number)}
        return {"changed": False, "number": number, "good": store.good(), "releases": store.releases(), **plans}
    if params["release"] is None or module.check_mode:
        return {"changed": False, "number": None, "good": store.good()}
    release.require_no_secret([params["release"], params["plans"]], params["secret_files"])
    made: release.Release = {**params["release"], "driver": gpu.driver()}  # type: ignore[typeddict-item]
    try:
        kept, new = store.keep(made, params["plans"])
    except OSError as exc:
        next_step = "free space there, and run deploy.yml again; the endpoint passed and serves"
        raise Unmet(f"to keep the release in {store.folder}", exc.strerror or exc, next_step) from exc
    return {"changed": new, "number": kept["number"], "good": kept["number"]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "read"], "default": "recorded"},
            "plans": {"type": "list", "elements": "dict", "default": []},
            "seen": {"type": "list", "elements": "dict", "default": []},
            "reports": {"type": "list", "elements": "dict", "default": []},
            "number": {"type": "int"},
            "release": {"type": "dict"},
            "secret_files": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "folder": {"type": "path", "default": "/var/lib/glm/releases"},
        },
        supports_check_mode=True,
    )
    end(module, "release", lambda: done(module))


if __name__ == "__main__":
    main()
