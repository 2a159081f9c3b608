# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that modules of the front door share."""

from __future__ import annotations


class ModuleDocFragment:
    """``extends_documentation_fragment: glm.fleet.door``; the module says whether O(listen) is required."""

    DOCUMENTATION = r"""
options:
  listen:
    description: Where the door listens.
    type: list
    elements: dict
    suboptions:
      address:
        description: IP address of the host.
        type: str
        required: true
      port:
        description: TCP port.
        type: int
        required: true
      variable:
        description: Variable that moves the port.
        type: str
        required: true
"""
