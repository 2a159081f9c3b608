#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``fleet_status``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_status
short_description: Show what every host of a fleet is doing
version_added: 0.2.0
description:
  - Prints one row for each replica, one for each gateway, and what is wrong, and keeps the same as JSON in
    C(status.json) of O(state_dir).
  - Uses what M(glm.fleet.host_status) registered as C(__status_seen) on each host in this run. A host without an answer
    is a row that says so.
  - Fails when a host or a gateway is not well, so that a timer can run it.
author: glm.fleet contributors !UNKNOWN
options:
  hosts:
    description: The hosts that should be serving.
    type: list
    elements: str
    required: true
  gateways:
    description: The hosts that should run a gateway.
    type: list
    elements: str
    default: []
  state_dir:
    description: The fleet's state folder.
    type: path
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Keeps no file.
  diff_mode:
    support: N/A
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Show the fleet
  glm.fleet.fleet_status:
    hosts: "{{ groups['glm_fleet'] }}"
    state_dir: ~/.local/state/glm-fleet/default
"""

RETURN = r"""
report:
  description: What is shown, as in C(docs/schemas/status.schema.json).
  type: dict
  returned: success
path:
  description: The file that it is kept in.
  type: str
  returned: always
"""
