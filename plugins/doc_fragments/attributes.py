# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attributes mean that every module of the collection declares."""

from __future__ import annotations


class ModuleDocFragment:
    """``extends_documentation_fragment: glm.fleet.attributes``; the module adds the ``support`` of each."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: In C(check_mode), changes nothing and says whether it would have changed something.
  diff_mode:
    description: In diff mode, returns what has changed, or in C(check_mode) what would change.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
"""

    # ``glm.fleet.attributes.action``: for modules with an action plugin of their own.
    ACTION = r"""
options: {}
attributes:
  action:
    description: Has an action plugin, which runs on the controller.
    support: full
"""
