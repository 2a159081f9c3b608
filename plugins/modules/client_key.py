#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``client_key``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: client_key
short_description: Add, rotate or revoke a client's key in the fleet's store
version_added: 0.2.0
description:
  - Changes C(keys.json) in O(state_dir), which holds the hash of each key, its times and its limits. The new key itself
    is written to C(keys/<name>) there, with mode 0600, to be handed out; it is never shown.
  - The key C(fleet) is the fleet's own, in O(api_key_file). It can be rotated, and is neither added nor revoked.
  - Hosts know nothing of it until M(glm.fleet.door_keys) gives them the keys.
options:
  action:
    description: What to do with the key.
    type: str
    choices: [add, rotate, revoke]
    required: true
  name:
    description: Name of the key.
    type: str
    required: true
  limits:
    description:
      - Limits of the new key, any of C(requests_per_minute), C(parallel) and C(tokens_per_minute). If it is not set, a
        rotated key keeps those of the one before.
    type: dict
  days:
    description: Days after which the new key is refused; 0 is never.
    type: float
    default: 0
  overlap_hours:
    description: Hours for which a rotated key is accepted beside the new one.
    type: float
    default: 24
  state_dir:
    description: The fleet's state folder.
    type: path
    required: true
  api_key:
    description: The fleet's own key.
    type: str
    required: true
  api_key_file:
    description: Where the fleet's own key is kept, which C(rotate) replaces for the name C(fleet).
    type: path
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: Makes no key.
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: C(revoke) is. C(add) refuses a name that has a key, and each C(rotate) makes a new one.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Make a key for a team
  glm.fleet.client_key:
    action: add
    name: team-a
    limits: {requests_per_minute: 60}
    state_dir: "{{ glm_state_dir }}"
    api_key: "{{ lookup('glm.fleet.api_key', glm_api_key_file) }}"
    api_key_file: "{{ glm_api_key_file }}"
"""

RETURN = r"""
path:
  description: Where the new key is. Empty in check mode and for C(revoke).
  returned: success
  type: str
"""
