#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_release
short_description: Keep what passed the gate on its host, read what was kept, or take it up again
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
    description:
      - V(recorded) keeps what passed, V(read) returns what is kept.
      - V(compared) says what the plans and the variables of this run would change of what passed last.
      - V(taken) makes the plans of a release those of the host (C(ansible_facts['glm_plans'])), so that the roles that
        follow serve it again. Of the host only the note of a rollback that was begun is changed.
    type: str
    choices: [recorded, read, compared, taken]
    default: recorded
  plans:
    description:
      - The serving plans of the host, one for each replica.
      - With O(state=taken), what the host is given up. A release that serves the same is not taken.
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
  intended:
    description:
      - Whether the variables of this run made the plans. What is put back, rolled or gone back to was made of others,
        which stay in its record.
    type: bool
    default: true
  number:
    description: The release whose plans are returned with O(state=read), or that is taken whatever O(choice) says.
    type: int
  choice:
    description:
      - With O(state=taken), V(last) takes the release that passed last, V(installed) the one whose files the host has.
      - V(before) takes what a rollback goes to. From the newest release that is the newest older one that serves
        something else, from what never passed the last that did, and from an older one, which a rollback went to,
        itself. A rollback that was begun is finished, so that all hosts end at the same release however often a run is
        interrupted.
    type: str
    choices: [last, installed, before]
    default: last
  schema:
    description: The schema that plans must have to be taken. Set by the action plugin.
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

- name: See what a deploy would change
  glm.fleet.host_release:
    state: compared
    plans: "{{ ansible_facts['glm_plans'] }}"
  register: compared

- name: Go back to the release before the one that runs
  glm.fleet.host_release:
    state: taken
    choice: before
"""

RETURN = r"""
number:
  description: The release that was kept or taken, or null where nothing was; with O(state=read) O(number).
  type: int
  returned: success
good:
  description: The release that passed last; null before the first.
  type: int
  returned: success
installed:
  description: The release whose files the host has; null where it is none.
  type: int
  returned: with O(state=taken)
releases:
  description: What is kept, oldest first, without the plans.
  type: list
  elements: dict
  returned: with O(state=read), and with O(state=taken) but for O(choice=last)
change:
  description:
    - What would change. C(release), C(by) and C(passed_at) say of which release (null where none passed), C(intent) and
      C(served) in words what, C(restarts) has the numbers of the replicas that would restart or end.
    - What a new release of the collection writes otherwise is not in it.
  type: dict
  returned: with O(state=compared)
  sample:
    release: 7
    by: ann@desk
    passed_at: "2026-11-29T08:00:00Z"
    intent: ["glm_profile: its default -> throughput"]
    served: ["--max-num-seqs: 22 -> 64"]
    restarts: [0]
plans:
  description: The plans of release O(number).
  type: list
  elements: dict
  returned: with O(state=read) and O(number)
ansible_facts:
  description: The plans of the release that was taken, as C(glm_plans).
  type: dict
  returned: with O(state=taken), when there is one
phase:
  description: What failed.
  type: str
  returned: failure
  sample: release
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from ansible_collections.glm.fleet.plugins.module_utils.host.module import end
from ansible_collections.glm.fleet.plugins.module_utils.serving import release, running


def done(module: AnsibleModule) -> dict[str, Any]:
    """Keep or read. Raises Unmet."""
    params = module.params
    store = release.Store(Path(params["folder"]))
    if params["state"] in ("read", "compared"):
        number = params["number"] if params["state"] == "read" else store.good()
        found: dict[str, Any] = {} if number is None else {"plans": store.plans(number)}
        releases = store.releases()
        if params["state"] == "compared":
            found["differing"] = differing(releases, number)
        return {"changed": False, "number": number, "good": store.good(), "releases": releases, **found}
    if params["state"] == "taken":
        return taken(store, params, module.check_mode)
    if params["release"] is None or module.check_mode:
        return {"changed": False, "number": None, "good": store.good()}
    release.require_no_secret([params["release"], params["plans"]], params["secret_files"])
    made: release.Release = {**params["release"], "driver": gpu.driver()}  # type: ignore[typeddict-item]
    try:
        kept, new = store.keep(made, params["plans"], params["intended"])
    except OSError as exc:
        next_step = "free space there, and run deploy.yml again; the endpoint passed and serves"
        raise Unmet(f"to keep the release in {store.folder}", exc.strerror or exc, next_step) from exc
    return {"changed": new, "number": kept["number"], "good": kept["number"]}


def differing(releases: Sequence[release.Release], number: Optional[int]) -> list[str]:
    """Files that the host has otherwise than when the release passed."""
    kept = next((one["observed"] for one in releases if one["number"] == number), [])
    return [file for each in kept for file, mark in each["files"].items() if running.checksum(file) != mark]


def taken(store: release.Store, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The release that is served again. Raises Unmet."""
    found: dict[str, Any] = {"changed": False, "number": None, "installed": None, "good": store.good()}
    if params["choice"] == "last":
        number = store.good()
    else:
        found["releases"] = store.releases()
        number = found["installed"] = store.installed(running.checksum)
        if params["choice"] == "before":
            number = store.before(number)
    number = params["number"] or number
    plans = [] if number is None else store.plans(number, params["schema"])
    if number is None or release.served(plans) == release.served(params["plans"]):
        return found
    if params["choice"] == "before" and not check:
        try:
            store.begin_back(number)
        except OSError as exc:
            raise Unmet(f"to write to {store.folder}", exc.strerror or exc, "free space there and run again") from exc
    return {**found, "number": number, "ansible_facts": {"glm_plans": plans}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["recorded", "read", "compared", "taken"], "default": "recorded"},
            "plans": {"type": "list", "elements": "dict", "default": []},
            "seen": {"type": "list", "elements": "dict", "default": []},
            "reports": {"type": "list", "elements": "dict", "default": []},
            "intended": {"type": "bool", "default": True},
            "number": {"type": "int"},
            "choice": {"type": "str", "choices": ["last", "installed", "before"], "default": "last"},
            "schema": {"type": "int"},
            "release": {"type": "dict"},
            "secret_files": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "folder": {"type": "path", "default": "/var/lib/glm/releases"},
        },
        supports_check_mode=True,
    )
    end(module, "release", lambda: done(module))


if __name__ == "__main__":
    main()
