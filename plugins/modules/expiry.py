#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``expiry``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: expiry
short_description: Extend the time of hosts that expire
version_added: 0.2.0
description:
  - Writes into the ledger of each host's fleet that it may not be ended before O(hours) from now, and prints when.
    Tags cannot be changed after a launch, so C(reap.yml) looks into the ledger, too.
  - Hosts without the tag C(glm-expires) never expire and are left alone, and so are those that expire later
    anyway or whose end was asked for.
options:
  hosts:
    description: The hosts.
    type: list
    elements: str
    required: true
  hours:
    description: Hours from now. With V(0) nothing is extended.
    type: float
    required: true
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: N/A
    description: Each run extends the time.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Keep the fleet for eight hours from now
  glm.fleet.expiry:
    hosts: "{{ groups['glm_fleet'] }}"
    hours: 8
"""

RETURN = r"""
extended:
  description: The hosts whose time was extended.
  returned: success
  type: list
  elements: str
until:
  description: When the time of each host with the tag C(glm-expires) is over, as far as this controller knows.
  returned: success
  type: dict
  sample: {glm-default-1: "2026-11-29T08:00:00Z"}
"""
