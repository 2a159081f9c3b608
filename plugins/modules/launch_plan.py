#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``launch_plan``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: launch_plan
short_description: Find the instance types that the fleet's model fits on, before one is launched
version_added: 0.1.0
description:
  - Makes the serving plan that M(glm.fleet.serving_plan) would make on an instance of each type, with the variables
    that such an instance would have in the inventory, and says which types it can be made for and why not for others.
  - Never fails for a type that does not fit. Whether that matters depends on whether anything has to be launched.
  - Runs on the controller, needs no connection and no network, changes nothing and works in check mode.
  - To be called from the role P(glm.fleet.plan#role), whose defaults it reads.
options:
  instance_types:
    description: Names of the types to plan, in the order in which they would be tried.
    type: list
    elements: str
    required: true
  offered:
    description:
      - What the account is offered, as the cloud's module of instance types returns it, for instance
        RV(glm.fleet.lambda_instance_type_info#module:instance_types).
    type: list
    elements: dict
    required: true
  provider:
    description: The cloud, as in C(glm_host_provider).
    type: str
    required: true
  count:
    description: Desired number of instances of the fleet; with C(glm_nodes), it has to be a multiple of that.
    type: int
    default: 1
  group:
    description: Inventory group whose variables apply to new instances, besides those of its type.
    type: str
    default: glm_fleet
  file_systems:
    description:
      - File systems that are attached to each instance. Without one, a type whose own disk does not hold the weights is
        left out.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
    description: Changes nothing.
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: List the instance types on offer
  glm.fleet.lambda_instance_type_info:
    instance_type: [gpu_8x_b200_sxm6, gpu_8x_h100_sxm5]
  register: __types

- name: Plan before renting
  glm.fleet.launch_plan:
    instance_types: [gpu_8x_b200_sxm6, gpu_8x_h100_sxm5]
    offered: "{{ __types.instance_types }}"
    provider: lambda
  register: __plan
"""

RETURN = r"""
fitting:
  description: The types that a plan can be made for, in the given order.
  returned: success
  type: list
  elements: str
  sample: [gpu_8x_b200_sxm6]
dropped:
  description: The other types.
  returned: success
  type: list
  elements: dict
  contains:
    instance_type: {description: Name of the type., type: str, returned: always}
    reason: {description: The planner's refusal with its arithmetic., type: str, returned: always}
reasons:
  description: Why a plan can be made for none of RV(dropped), in one paragraph.
  returned: success
  type: str
plans:
  description: For each fitting type the memory arithmetic of its plan.
  returned: success
  type: dict
"""
