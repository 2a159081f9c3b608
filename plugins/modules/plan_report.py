#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``plan_report``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan_report
short_description: Print serving plans and save them as JSON
version_added: 0.1.0
description:
  - Prints the plans that M(glm.fleet.serving_plan) made in this run, one block for all hosts with the same plan.
  - Writes them to one JSON file. Plans hold no secrets.
  - Fails if a host has no plan.
options:
  hosts:
    description: Hosts that should have a plan.
    type: list
    elements: str
    required: true
  path:
    description: JSON file on the controller.
    type: path
    required: true
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
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Show the plans
  glm.fleet.plan_report:
    hosts: "{{ groups['glm_fleet'] }}"
    path: ~/.local/state/glm-fleet/default/reports/plan.json
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
hosts:
  description: Hosts with a plan.
  returned: always
  type: list
  elements: str
"""
