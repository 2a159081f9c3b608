#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``serving_wait``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_wait
short_description: Wait until a serving unit answers, and print its phases
version_added: 0.1.0
description:
  - Looks at a unit every few seconds from the controller and prints in which phase its engine is.
  - Ends as soon as the unit is active, which it is only after its engine answered a chat, or as soon as it failed. A
    failure carries the phase, the exit status, the likeliest cause, the next step and the engine's lines around it.
  - The one automatic retry of the unit is waited for and reported as a warning.
options:
  unit:
    description: Name of the unit.
    type: str
    required: true
  start_seconds:
    description: How long one start may take. The unit itself enforces it; here it is the budget that is shown.
    type: int
    required: true
  engine:
    description:
      - Whose log the unit writes, C(name) and C(version) as in the plan. The catalogue says what its lines mean. By
        default the lines of every engine are known.
    type: dict
  secret_files:
    description: Files on the host whose values are removed from every line that is shown.
    type: list
    elements: path
    default: []
  poll_seconds:
    description: Seconds between two checks.
    type: int
    default: 5
  heartbeat_seconds:
    description: Seconds between two lines about a phase that has not changed.
    type: int
    default: 10
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: In check mode nothing is waited for and the task is skipped.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Wait for the engine
  glm.fleet.serving_wait:
    unit: glm-serve-0.service
    engine: {name: vllm, version: 0.32.0}
    start_seconds: 2400
"""

RETURN = r"""
phase:
  description: V(ready), or the phase in which the start failed.
  type: str
  returned: always
start_seconds:
  description: Seconds the start took.
  type: int
  returned: success
waited_seconds:
  description: Seconds this task waited.
  type: int
  returned: success
retried:
  description: Whether the first start failed and the automatic retry succeeded.
  type: bool
  returned: success
cause:
  description: The likeliest reason.
  type: str
  returned: failure
"""
