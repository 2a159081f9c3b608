#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``keys_report``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: keys_report
short_description: Show the keys of a fleet, or whether its hosts have them
version_added: 0.2.0
description:
  - Reads from the variables of O(hosts) what M(glm.fleet.door_keys) (C(__keys_given)) or M(glm.fleet.door_usage)
    (C(__keys_usage)) answered there in this run.
  - After a push it fails when a host did not answer or failed, and names it, because a revoked key still works there.
  - For a list it prints every key with age, end, last use, what it used this month and its limits, and keeps what each
    host counted in C(usage/<month>.csv) of O(state_dir). A host that did not answer is named; nothing of it is a zero.
    A file there that has something else is left as it is, and named.
options:
  hosts:
    description: Hosts of the fleet.
    type: list
    elements: str
    required: true
  what:
    description: What was done on the hosts.
    type: str
    choices: [push, list]
    required: true
  state_dir:
    description: The fleet's state folder.
    type: path
    required: true
  api_key:
    description: The fleet's own key.
    type: str
    required: true
  api_key_file:
    description: Where the fleet's own key is kept, for its age.
    type: path
    required: true
  most_days:
    description: Age in days from which a key should be rotated; 0 is never.
    type: float
    default: 365
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Says which hosts would get the keys of the store as it is, without the change of a check run. Keeps no CSV.
  diff_mode:
    support: N/A
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Show what each key used
  glm.fleet.keys_report:
    hosts: "{{ groups['glm_fleet'] }}"
    what: list
    state_dir: "{{ glm_state_dir }}"
    api_key: "{{ lookup('glm.fleet.api_key', glm_api_key_file) }}"
    api_key_file: "{{ glm_api_key_file }}"
"""

RETURN = r"""
silent:
  description: Hosts that did not answer, or failed.
  returned: always
  type: list
  elements: str
files:
  description: CSV files of the months that the hosts counted.
  returned: when listing
  type: list
  elements: str
"""
