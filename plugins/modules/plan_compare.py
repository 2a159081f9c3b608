#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``plan_compare``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan_compare
short_description: Compare hardware, engines and profiles for a model
version_added: 0.2.0
description:
  - Plans a model on every accelerator of the catalogue with every engine and profile, and prints one table.
  - A row has whether it fits, the tokens of its KV cache, what was measured here or published, the lowest price, and
    what a million tokens of answers cost when the host is busy all the time.
  - Runs on the controller, needs no connection and changes nothing.
options:
  model:
    description: Name of a model in the catalogue.
    type: str
    required: true
  precision:
    description: Form of the weights. Without it C(fp8), or the first that the model has.
    type: str
    default: ""
  repository:
    description: Repository of the weights, where it is not the catalogue's.
    type: str
  model_config:
    description: A C(config.json) on the controller, of a model that the catalogue does not know.
    type: path
  accelerator:
    description: Accelerator of which O(accelerator_count) are compared. Of the others whole hosts are.
    type: str
    default: ""
  accelerator_count:
    description: How many of O(accelerator) a host has. V(0) for whole hosts.
    type: int
    default: 0
  catalog:
    description: Folders on the controller with your own entries. See M(glm.fleet.serving_plan).
    type: list
    elements: path
    default: []
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
- name: Compare what GLM-5.2 could be served on
  glm.fleet.plan_compare:
    model: GLM-5.2
  run_once: true
"""

RETURN = r"""
rows:
  description: The rows of the table. A row that does not fit has a reason, and no figures.
  type: list
  elements: dict
  returned: success
"""
