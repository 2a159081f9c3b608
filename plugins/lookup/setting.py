# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Door from variables to ``plugin_utils/intent/table.py``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: setting
short_description: The value of a public variable, or its default
version_added: 0.2.0
description:
  - Gives the value of a variable of the collection (C(glm_*)). Where it is not set, or empty, that is the value of an
    old name of it, or its default. So play headers and tasks that see no defaults of a role need not repeat them.
  - C(docs/variables.md) lists all variables with their defaults.
options:
  _terms:
    description: Name of the variable. Exactly one.
    required: true
notes:
  - Further keywords are variables that count in the place of those that are set.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Work on the fleet
  hosts: "{{ lookup('glm.fleet.setting', 'glm_hosts') }}"
  tasks:
    - name: Show where the key of another fleet is
      ansible.builtin.debug:
        msg: "{{ lookup('glm.fleet.setting', 'glm_api_key_file', glm_fleet_name='blue') }}"
"""

RETURN = r"""
_raw:
  description: The value.
  type: list
  elements: raw
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.template import Templar

from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core 2.18 trusts every string

    def trust_as_template(value: Any) -> Any:
        """The value as it is."""
        return value


class LookupModule(LookupBase):  # type: ignore[misc]
    """One variable, one value."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Entry point of the lookup."""
        known = table.load()
        if len(terms) != 1 or terms[0] not in known:
            raise AnsibleLookupError(f"glm.fleet.setting: expected the name of one variable, found {terms}")
        given = {**(variables or {}), **kwargs}
        templar = Templar(loader=self._loader, variables=given)
        for name in table.names(known, terms[0]):
            found = templar.template(given.get(name))
            if found not in (None, ""):
                return [found]
        variable = known[terms[0]]
        return [templar.template(trust_as_template(variable.default)) if variable.computed else variable.default]
