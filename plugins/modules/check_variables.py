#!/usr/bin/python
# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin ``check_variables``, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_variables
short_description: Refuse public variables that do not exist
version_added: 0.2.0
description:
  - Names that begin with C(glm_) are those of the collection. One that it does not have is mistyped and would be
    silently ignored, so it is an error that gives the nearest name and says where it is set. All of them are named
    at once.
  - Looks at extra variables, at the variables of the play, and at those of the hosts and their groups. Values are
    checked for their type as they are written. No template is evaluated, and no secret is shown.
  - A variable that play headers read, before any host is known, is refused among the variables of hosts and groups,
    because play headers do not see those.
  - A variable that has a new name gives a deprecation warning, and an error from the release that the warning names.
  - Variables of roles of an earlier release that no role reads any more are refused with what to set instead.
  - Tags of the run that no role has give a warning, since ansible ignores them silently.
  - Where C(glm_state_store) names an object store, it is read once, so that a run that cannot reach the state of its
    fleet ends before it changes anything.
  - Every playbook of the collection does this first. C(docs/variables.md) lists all variables.
options:
  hosts:
    description: Pattern of the hosts whose variables are looked at, or a list of patterns.
    type: raw
    required: true
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
- name: Refuse mistyped variables before anything else
  glm.fleet.check_variables:
    hosts: glm_fleet
"""

RETURN = r"""
state_store:
  description: The store that was read. Its key pair is never returned.
  returned: when C(glm_state_store) is set
  type: dict
  contains:
    address:
      description: Bucket and prefix.
      type: str
      sample: s3://acme-fleets/blue
    endpoint:
      description: Address of the store; empty where boto3 finds it.
      type: str
    region:
      description: Region of the store; empty where boto3 finds it.
      type: str
"""
