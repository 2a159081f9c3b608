#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a served model questions whose answers show that nothing is broken between its weights and its API."""

from __future__ import annotations

DOCUMENTATION = r"""
module: quality_check
short_description: Run a smoke test of what a served model can do
version_added: 0.1.0
description:
  - Asks an endpoint, on its host, with the author's sampling parameters for each kind of work, in each thinking mode,
    for tool calls over several turns, and for a number hidden in a long prompt. Needs only Python's standard library.
  - Finds broken templates, parsers, caches and kernels. It ranks no models.
options:
  plan:
    description: The serving plan of the replica. Its contract has the parameters.
    type: dict
    required: true
  checks:
    description: Checks to run.
    type: list
    elements: str
    choices: [sampling, thinking_interleaved, thinking_preserved, thinking_off, tool_turns, needle]
    default: [sampling, thinking_interleaved, thinking_preserved, thinking_off, tool_turns, needle]
  address:
    description: Address of the endpoint as seen from the host.
    type: str
    required: true
  api_key:
    description: The endpoint's key.
    type: str
  needle_tokens:
    description: Tokens of the text in which the number is hidden; less in a shorter context.
    type: int
    default: 32000
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 600
  max_tokens:
    description: Most tokens of one answer.
    type: int
    default: 4096
  strict:
    description: Whether a failed check fails the task. Otherwise RV(ok) says so.
    type: bool
    default: true
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: In check mode no request is sent and the task is skipped.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Run the quick checks
  glm.fleet.quality_check:
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    address: "{{ ansible_facts['glm_plans'][0]['listen']['address'] }}"
    checks: [sampling, thinking_off, tool_turns]
    api_key: "{{ lookup('glm.fleet.api_key', '~/.local/state/glm-fleet/default/api_key') }}"
"""

RETURN = r"""
ok:
  description: Whether every check passed.
  type: bool
  returned: always
checks:
  description: One entry per check, in the order they ran.
  type: list
  elements: dict
  returned: always
  contains:
    phase:
      description: V(quality).
      type: str
    check:
      description: Name of the check.
      type: str
    outcome:
      description: V(passed), V(failed), or V(not_proven) where there was nothing to check; RV(checks[].found) says why.
      type: str
    expected:
      description: What the contract requires.
      type: str
    found:
      description: What the endpoint did.
      type: str
    next:
      description: What to do. Empty when the check passed.
      type: str
    seconds:
      description: How long it took.
      type: float
  sample:
    - phase: quality
      check: needle
      outcome: passed
      expected: a number hidden in a long prompt is found again
      found: found in 31874 prompt tokens
      next: ""
      seconds: 3.1
"""
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.serving.endpoint import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.quality import KINDS, Asked, run_quality


def asked(params: dict[str, Any]) -> Asked:
    """What the task asks, and of which endpoint."""
    plan = params["plan"]
    contract = plan["contract"]
    endpoint = Endpoint(
        address=params["address"],
        port=int(plan["listen"]["port"]),
        model=plan["served_model_name"],
        api_key=params["api_key"],
        reasoning_field=contract["reasoning_field"],
        thinking_on=contract["thinking_on"],
        thinking_off=contract.get("thinking_off") or None,
        timeout=params["timeout"],
        max_tokens=params["max_tokens"],
        reasoning_parser=contract.get("reasoning_parser") or "",
        tool_parser=contract.get("tool_parser") or "",
    )
    return Asked(
        endpoint=endpoint,
        kinds=tuple(params["checks"]),
        sampling=contract.get("sampling") or {},
        thinking_preserved=contract.get("thinking_preserved"),
        needle_tokens=params["needle_tokens"],
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "plan": {"type": "dict", "required": True},
            "checks": {"type": "list", "elements": "str", "choices": list(KINDS), "default": list(KINDS)},
            "address": {"type": "str", "required": True},
            "api_key": {"type": "str", "no_log": True},
            "needle_tokens": {"type": "int", "default": 32000, "no_log": False},
            "timeout": {"type": "int", "default": 600},
            "max_tokens": {"type": "int", "default": 4096, "no_log": False},
            "strict": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, ok=False, checks=[], msg="check mode: no request was sent")
    checks = run_quality(asked(module.params))
    ok = finding.verdict_ok(checks)
    if not ok and module.params["strict"]:
        module.fail_json(msg=finding.summary(checks, "quality"), changed=False, ok=False, checks=checks)
    module.exit_json(changed=False, ok=ok, checks=checks)


if __name__ == "__main__":
    main()
