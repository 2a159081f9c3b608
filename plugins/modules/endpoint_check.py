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
  - Asks an OpenAI-compatible endpoint on the host questions whose answers are known, whole and as streams, with
    thinking on and off, with tools, many at once and after a long prompt, and judges what it answers. The checks are
    described in the collection's documentation, C(docs/verify.md). Needs only Python's standard library.
  - The part that runs on the controller takes what is promised from O(plan) and what is asked from the catalogue,
    checks that the port is closed where it should be, and writes a report.
  - All checks run even if one fails; the task then fails and names each failed check.
options:
  plan:
    description:
      - The serving plan, from which the options below take their values unless they are given. A summary of it goes
        into the report. Without it only what is given here is expected.
    type: dict
  checks:
    description:
      - "Which checks to make: V(contract) is the name, the context and the key; V(answers) are single questions, whole
        and as streams; V(sampling) is the author's parameters; V(parallel) is many questions at once; V(needle) is a
        long prompt, twice; V(engine) is what the engine says of itself in its log and metrics."
    type: list
    elements: str
    choices:
      [contract, answers, sampling, thinking_interleaved, thinking_preserved, tool_turns, parallel, needle, engine]
    default:
      [contract, answers, sampling, thinking_interleaved, thinking_preserved, tool_turns, parallel, needle, engine]
  strict:
    description: Whether a failed check fails the task. Otherwise RV(ok) says so.
    type: bool
    default: true
  address:
    description: Address the endpoint listens on, as seen from the host.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the endpoint.
    type: int
    default: 8000
  engine_port:
    description:
      - Port of 127.0.0.1 where the host asks the engine itself for its health and metrics, which are not for clients.
        Without it the endpoint is asked.
    type: int
  model:
    description: Name under which the model must be served. Required without O(plan).
    type: str
  api_key:
    description: The endpoint's key. Without it the checks of the key are left out.
    type: str
  tls_name:
    description:
      - DNS name or address that the endpoint's certificate must be for. Without it the endpoint is asked by plain HTTP.
    type: str
  tls_authorities:
    description: Certificates, as PEM, of the authorities that may sign it. By default those that the host trusts.
    type: str
    default: ""
  tls_ca:
    description: File on the controller that O(tls_authorities) are read from.
    type: path
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
  thinking_preserved:
    description: What to add to a request so that earlier thoughts stay in the prompt. V({}) where that is not possible.
    type: dict
    default: {}
  sampling:
    description: The author's parameters for each kind of work, with the thinking mode they are for.
    type: dict
    default: {}
  context:
    description: Tokens that a request must be allowed to have.
    type: int
  context_share:
    description: Share of the promised context that the long prompt has.
    type: float
    default: 0.04
  needle_tokens:
    description: Tokens of the long prompt, instead of O(context_share).
    type: int
    default: 8000
  prefix_cache:
    description: Whether a repeated prompt must come out of the prefix cache.
    type: bool
    default: false
  unit:
    description: The engine's systemd unit on this host. Without it what the engine says of itself is not looked at.
    type: str
  secret_files:
    description: Files on the host whose values are removed from every line that is quoted.
    type: list
    elements: path
    default: []
  promised:
    description: What the engine must say of itself, and what its lines and metrics mean, as the catalogue has it.
    type: dict
    default: {}
  ranks:
    description: Data-parallel ranks, each of which has a prefix cache of its own.
    type: int
    default: 1
  routes:
    description: Routes that pass the front door, each with C(path) and C(methods). Without them none is tried.
    type: list
    elements: dict
    default: []
  known_routes:
    description: Routes that this version of the engine has, beside those that it lists itself.
    type: list
    elements: dict
    default: []
  questions:
    description: What to ask, as in C(catalog/questions.yml). By default the catalogue's.
    type: dict
  tool_call:
    description: Whether to check tool calls.
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
    description: Most tokens of one answer with thinking. Less is used if the context is shorter.
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
  eval:
    description:
      - Whether to make the mini-eval when every other check passed. Sums and tool calls are asked in parallel, and
        counted.
    type: bool
    default: false
  eval_scores:
    description: File on the controller with the scores of earlier versions. Without it only half must be right.
    type: path
  eval_margin:
    description: Share of the questions that a score may lose against the best one in O(eval_scores).
    type: float
    default: 0.05
  places:
    description:
      - What the host listens on, as M(glm.fleet.exposure) lists it. The controller tries each, and nothing of the
        collection's but the front door may be open to it. Without it nothing is tried.
    type: list
    elements: dict
  meant:
    description:
      - Where the host is meant to be open, as C(address) and C(port). Those without C(door=false) are asked as clients
        do it.
    type: list
    elements: dict
    default: []
  neighbour:
    description: What another host of the fleet got that tried O(places), with its name as C(host). It is judged, too.
    type: dict
    default: {}
  ssh_port:
    description: Port of the host's ssh server, as others reach it, which shows that an address can be reached.
    type: int
  walls:
    description:
      - Where the processes of the replica are and what systemd filters there, as M(glm.fleet.exposure) sees it. Judged
        with O(plan).
    type: dict
  running:
    description: What runs as the replica, as M(glm.fleet.host_status) sees it. Judged with O(plan).
    type: dict
  report:
    description: File on the controller to write the verdict to, as JSON.
    type: path
  lock_file:
    description:
      - The fleet's lock file on the controller. Beside it is kept what the start reported of the GPUs' memory, for
        later plans of the same configuration. Without it nothing is kept.
    type: path
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
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
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    address: "{{ ansible_facts['glm_plans'][0]['listen']['address'] }}"
    closed_address: "{{ ansible_host }}"
    report: "reports/{{ inventory_hostname }}.json"

- name: Ask only what a long prompt does, at three fifths of the context
  glm.fleet.endpoint_check:
    plan: "{{ ansible_facts['glm_plans'][0] }}"
    checks: [needle]
    context_share: 0.6
"""

RETURN = r"""
token_pool:
  description: Tokens that the KV cache holds, by the engine's own word; 0 where it does not say.
  returned: success
  type: int
caution:
  description: What somebody should know although the check passed, such as a certificate that ends soon.
  returned: when there is something
  type: str
ok:
  description: Whether every check passed.
  type: bool
  returned: always
eval:
  description: What the mini-eval counted, before it was compared; null where it was not made.
  type: dict
  returned: success
  contains:
    asked:
      description: How many questions were asked.
      type: int
    right:
      description: How many answers were right.
      type: int
    parts:
      description: Right and asked, of the sums and of the tool calls.
      type: dict
    seconds:
      description: How long it took.
      type: float
    unanswered:
      description: How many had no answer at all.
      type: int
    wrong:
      description: The first few questions with a wrong answer, and what is wrong with it.
      type: list
      elements: str
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

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils import arguments, finding
from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.serving import evaluate, own_words
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.module_utils.serving.gate import Gate, made
from ansible_collections.glm.fleet.plugins.module_utils.serving.talk import Asked
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust

OF_ENDPOINT = [
    "address",
    "port",
    "model",
    "api_key",
    "reasoning_field",
    "thinking_on",
    "tool_call",
    "health_path",
    "timeout",
    "max_tokens",
    "reasoning_parser",
    "tool_parser",
]
OF_GATE = ["questions", "context", "needle_tokens", "sampling", "prefix_cache", "ranks", "routes", "known_routes"]


def asked(params: dict[str, Any]) -> Asked:
    """What the task asks, and of which endpoint."""
    name, port = params["tls_name"], params["engine_port"]
    endpoint = Endpoint(
        **{option: params[option] for option in OF_ENDPOINT},
        thinking_off=params["thinking_off"] or None,
        tls=Trust(name, params["tls_authorities"]) if name else None,
        engine=Endpoint("127.0.0.1", port, params["model"], timeout=params["timeout"]) if port else None,
    )
    return Asked(
        endpoint=endpoint,
        groups=tuple(params["checks"]),
        thinking_preserved=params["thinking_preserved"] or None,
        metrics=params["promised"].get("metrics", []),
        **{option: params[option] for option in OF_GATE},
    )


def main() -> None:
    module = AnsibleModule(argument_spec=arguments.ENDPOINT_CHECK, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, ok=False, checks=[], msg="check mode: no request was sent")
    key = module.params["api_key"] or ""
    if not (key.isascii() and key.isprintable()):
        expected = "an API key of printable ASCII characters, as HTTP headers have"
        module.fail_json(msg=f"verify: {finding.unmet(expected, 'another character in it', 'set another glm_api_key')}")
    gate = Gate(asked(module.params))
    known = module.params["promised"] and "engine" in module.params["checks"]
    unit = module.params["unit"] if known else None
    before = gate.talk.metrics() if unit else None
    checks, pool = made(gate), 0
    if unit:
        after, secrets = gate.talk.metrics(), module.params["secret_files"]
        heard = own_words.check(commands.run, unit, module.params["promised"], before, after, secrets)
        checks, pool = [*checks, *heard.findings], heard.token_pool
    ok = finding.verdict_ok(checks)
    if not ok and module.params["strict"]:
        module.fail_json(msg=finding.summary(checks, "verify"), changed=False, ok=False, checks=checks)
    # After a failure its answers would only cost time.
    counted = evaluate.score(gate.asked, gate.talk.context) if ok and module.params["eval"] else None
    caution = {"caution": f"verify: {'; '.join(gate.cautions)}"} if gate.cautions else {}
    module.exit_json(changed=False, ok=ok, checks=checks, eval=counted, token_pool=pool, **caution)


if __name__ == "__main__":
    main()
