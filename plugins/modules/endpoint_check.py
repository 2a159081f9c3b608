#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove on a host that its endpoint serves the model as the plan promises."""

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_check
short_description: Prove that an endpoint serves what it should
version_added: 0.1.0
description:
  - Asks an OpenAI-compatible endpoint on the host for its models, a chat, reasoning with thinking on and none with
    thinking off, a parsed tool call, and for a refusal without the right key. Needs only Python's standard library.
  - The part that runs on the controller checks that the port is closed where it should be, and writes a report.
  - All checks run even if one fails; the task then fails and names each failed check.
options:
  address:
    description: Address the endpoint listens on, as seen from the host.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the endpoint.
    type: int
    default: 8000
  model:
    description: Name under which the model must be served.
    type: str
    required: true
  api_key:
    description: The endpoint's key. Without it the checks of the key are left out.
    type: str
  reasoning_field:
    description: Field of the answer that holds the reasoning. vLLM calls it V(reasoning), SGLang V(reasoning_content).
    type: str
    default: reasoning
  thinking_on:
    description: What to add to a request so that the model thinks.
    type: dict
    default: {}
  thinking_off:
    description: What to add to a request so that the model does not think. V({}) for a model that always thinks.
    type: dict
    default:
      chat_template_kwargs:
        enable_thinking: false
  tool_call:
    description: Whether to check a tool call.
    type: bool
    default: true
  health_path:
    description: Path of the engine's health check.
    type: str
    default: /health
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 300
  max_tokens:
    description: Most tokens of one answer. A thinking model needs room; less is used if the context is shorter.
    type: int
    default: 4096
  reasoning_parser:
    description: The parser that the engine should have been started with. A failed check of the reasoning names it.
    type: str
    default: ""
  tool_parser:
    description: The parser that the engine should have been started with. A failed check of a tool call names it.
    type: str
    default: ""
  closed_address:
    description:
      - Address of the host on which the port must not answer, tried from the controller.
      - Nothing is tried when the endpoint is meant to listen there.
    type: str
  report:
    description: File on the controller to write the verdict to, as JSON.
    type: path
  plan:
    description: The serving plan. A summary of it goes into the report.
    type: dict
extends_documentation_fragment:
  - glm.fleet.attributes
attributes:
  check_mode:
    support: full
    details: In check mode no request is sent and the task is skipped.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Check an endpoint by hand
  glm.fleet.endpoint_check:
    model: glm-5.1-fp8
    api_key: "{{ lookup('ansible.builtin.file', 'api_key') }}"

- name: Check the endpoint of a plan and keep the verdict
  glm.fleet.endpoint_check:
    address: "{{ ansible_facts['glm_plans'][0]['listen']['address'] }}"
    model: "{{ ansible_facts['glm_plans'][0]['served_model_name'] }}"
    closed_address: "{{ ansible_host }}"
    report: "reports/{{ inventory_hostname }}.json"
    plan: "{{ ansible_facts['glm_plans'][0] }}"
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
      description: V(verify).
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
    - phase: verify
      check: models
      outcome: passed
      expected: /v1/models lists exactly glm-5.1-fp8
      found: glm-5.1-fp8
      next: ""
      seconds: 0.01
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import endpoint as _endpoint

ENDPOINT_OPTIONS = {
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8000},
    "model": {"type": "str", "required": True},
    "api_key": {"type": "str", "no_log": True},
    "reasoning_field": {"type": "str", "default": "reasoning"},
    "thinking_on": {"type": "dict", "default": {}},
    "thinking_off": {"type": "dict", "default": {"chat_template_kwargs": {"enable_thinking": False}}},
    "tool_call": {"type": "bool", "default": True},
    "health_path": {"type": "str", "default": "/health"},
    "timeout": {"type": "int", "default": 300},
    "max_tokens": {"type": "int", "default": 4096, "no_log": False},
    "reasoning_parser": {"type": "str", "default": ""},
    "tool_parser": {"type": "str", "default": ""},
}


def main() -> None:
    # The last three are the action plugin's; they are here so that one documentation describes the whole.
    module = AnsibleModule(
        argument_spec=dict(
            ENDPOINT_OPTIONS, closed_address={"type": "str"}, report={"type": "path"}, plan={"type": "dict"}
        ),
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, ok=False, checks=[], msg="check mode: no request was sent")
    options = {name: module.params[name] for name in ENDPOINT_OPTIONS}
    options["thinking_off"] = options["thinking_off"] or None
    checks = _endpoint.run_checks(_endpoint.Endpoint(**options))
    if not finding.verdict_ok(checks):
        module.fail_json(msg=finding.summary(checks, "verify"), changed=False, ok=False, checks=checks)
    module.exit_json(changed=False, ok=True, checks=checks)


if __name__ == "__main__":
    main()
