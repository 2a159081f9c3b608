#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a serving unit, short enough to be repeated every few seconds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_status
short_description: Report what a serving unit is doing
version_added: 0.1.0
description:
  - Reads systemd and the journal once and says in which phase of its start an engine is, or why it failed.
  - Changes nothing. To wait for an endpoint, use M(glm.fleet.serving_wait).
options:
  unit:
    description: Name of the unit.
    type: str
    required: true
  secret_files:
    description: Files on the host whose values are removed from every line that is returned.
    type: list
    elements: path
    default: []
  engine:
    description:
      - Whose log the unit writes, C(name) and C(version) as in the plan. The catalogue says what its lines mean. By
        default the lines of every engine are known.
    type: dict
  rules:
    description:
      - What lines of the engine's log mean. C(phases) is a list of C({phase, pattern, detail}), C(causes) and
        C(cascades) (what follows from the failure of another process) are lists of C({pattern, cause, next}),
        C(wrappers) (what only says that something failed) and C(harmless) (what is no failure) are lists of
        C({pattern}); patterns are Python's regular expressions. Set by the action plugin.
    type: dict
    default: {}
  log_lines:
    description: How many of the engine's lines around the cause to return when it failed.
    type: int
    default: 20
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  action:
    details: It knows the catalogue.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: See how far the engine is
  glm.fleet.serving_status:
    unit: glm-serve-0.service
    engine: {name: vllm, version: 0.32.0}
"""

RETURN = r"""
active_state:
  description: What systemd says, such as V(activating), V(active) or V(failed).
  type: str
  returned: always
  sample: activating
sub_state:
  description: The detailed state, such as V(start-pre), V(start-post), V(running) or V(auto-restart).
  type: str
  returned: always
result:
  description: Why the unit ended, such as V(exit-code) or V(timeout).
  type: str
  returned: always
exit_status:
  description: Exit status of the container in its last run.
  type: int
  returned: always
restarts:
  description: How often systemd started the unit again by itself.
  type: int
  returned: always
ended:
  description:
    - How often the engine ended although nobody stopped it (C(count)), how often of it in the last day since
      somebody started it (C(recent)), C(since) when that is kept, when it did so last (C(last_at)), in seconds since
      1970, and C(last_cause). Null where that is not known, as the host's record of it cannot be read.
  type: dict
  returned: always
  sample: {count: 2, recent: 1, since: 1764440000.0, last_at: 1764450000.0, last_cause: it was killed by SIGKILL}
phase:
  description: What the engine is doing.
  type: str
  returned: always
  sample: loading weights
detail:
  description: More about the phase, if the log says it.
  type: str
  returned: always
  sample: shards 17/142
elapsed_seconds:
  description: Seconds this start has taken so far, or took.
  type: int
  returned: always
cause:
  description: The likeliest reason for a failure. Empty while nothing failed.
  type: str
  returned: always
next:
  description: What to do about it.
  type: str
  returned: always
log:
  description: The engine's lines around the cause, without secrets; its last ones where no cause was found. Empty while
    nothing failed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.host import commands as _host_commands
from ansible_collections.glm.fleet.plugins.module_utils.serving import causes as _causes
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "secret_files": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "engine": {"type": "dict"},
            "rules": {"type": "dict", "default": {}},
            "log_lines": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )

    try:
        answer = _serving.describe(
            _host_commands.run,
            module.params["unit"],
            module.params["secret_files"],
            _causes.Rules(module.params["rules"]),
            module.params["log_lines"],
        )
    except (RuntimeError, OSError) as exc:
        module.fail_json(msg=f"serve: {exc}. Expected a host that was booted with systemd")
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
