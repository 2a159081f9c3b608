#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``fleet_report``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Print and save the verdict of a whole fleet
version_added: 0.1.0
description:
  - Prints one line per host, the endpoints that were verified and a request to paste. The key is never printed.
  - Uses the verdicts that the role C(verify) registered in this run. A host without one counts as not verified, so
    the report of an earlier run cannot stand in for it.
  - Fails if any host is not verified.
options:
  hosts:
    description: The hosts that should be serving.
    type: list
    elements: str
    required: true
  state_dir:
    description: Folder on the controller. The verdict goes to C(reports/fleet.json) in it.
    type: path
    required: true
  api_key_file:
    description: File with the endpoint's key, named in the request to paste. By default C(api_key) in O(state_dir).
    type: path
  begin:
    description:
      - Only write that no host is verified yet. For the start of a run, because Ansible ends a run in which a whole
        batch failed before it gets to the report.
    type: bool
    default: false
  gateways:
    description:
      - Hosts that run a gateway. The address of each one that this run brought up is printed, and the request to paste
        goes to the first.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - glm.fleet.attributes
  - glm.fleet.attributes.action
attributes:
  check_mode:
    support: full
    details: In check mode nothing was verified and the task is skipped.
  diff_mode:
    support: none
  idempotent:
    support: full
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Show the fleet
  glm.fleet.fleet_report:
    hosts: "{{ groups['glm_fleet'] }}"
    state_dir: ~/.local/state/glm-fleet/default
"""

RETURN = r"""
ok:
  description: Whether every host was verified.
  type: bool
  returned: always
report:
  description: The file that was written.
  type: str
  returned: always
hosts:
  description: The hosts that the run is about.
  type: list
  elements: str
  returned: with O(begin)
begin:
  description: Whether this only began the report.
  type: bool
  returned: with O(begin)
"""
