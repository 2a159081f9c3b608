# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Door from the words of a run to ``plugin_utils/cloud/targets.py``."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ending_target
short_description: The instances that a run means to end
version_added: 0.2.0
description:
  - Gives what C(glm_hosts), C(--limit), C(glm_terminate_only) and C(glm_terminate_run) mean together, and whether the
    inventory shows the fleet C(glm_fleet_name).
  - These words only narrow. One that is given but empty or null, or that matches nothing, is a problem, never the whole
    fleet; so is a part of one that takes hosts away (C(!name)) and matches none. An empty C(glm_fleet_name) or
    C(glm_launch_role) is a problem, too.
options:
  _terms:
    description: None.
author:
  - glm.fleet contributors (@glm-fleet)
"""

EXAMPLES = r"""
- name: Refuse words that mean nothing
  ansible.builtin.assert:
    that: lookup('glm.fleet.ending_target').problem == ''
"""

RETURN = r"""
_raw:
  description:
    - One mapping. C(only) has names or ids, C(run) the value of the tag glm-run, or null.
    - C(problem) says why nothing may be ended, C(mismatch) why nothing may be launched either; empty if there is none.
  type: list
  elements: dict
"""

from typing import Any

from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible.plugins.lookup import LookupBase
from ansible.template import Templar

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import targets
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.inventory import NARROWED
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table

# What chooses the fleet or part of it, with a default that an empty value must not fall back to.
_CHOOSING = ("glm_fleet_name", "glm_launch_role")


class LookupModule(LookupBase):  # type: ignore[misc]
    """The words of this run."""

    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Entry point of the lookup."""
        self._variables = variables or {}
        self._known = table.load()
        words = targets.Words(
            fleet=str(self._given("glm_fleet_name") or self._known["glm_fleet_name"].default),
            empty=[name for name in _CHOOSING if str(self._given(name)).strip() == ""],
            hosts=self._given("glm_hosts"),
            limit=self._variables.get("ansible_limit"),
            only=self._given("glm_terminate_only"),
            run=self._given("glm_terminate_run"),
        )
        answer: dict[str, Any] = {"only": None, "run": None, "problem": "", "mismatch": ""}
        try:
            targets.require_fleet(words.fleet, NARROWED.values())
        except Unmet as error:
            answer["mismatch"] = answer["problem"] = str(error)
            return [answer]
        try:
            found = targets.target(words, split_host_pattern, self._manager().list_hosts_of, self._variables_of)
        except Unmet as error:
            answer["problem"] = str(error)
        else:
            answer.update(only=found.only, run=found.run)
        return [answer]

    def _given(self, name: str) -> Any:
        """The value of a public variable, empty for null; None when neither it nor an old name of it is set."""
        templar = Templar(loader=self._loader, variables=self._variables)
        for word in table.names(self._known, name):
            if word in self._variables:
                found = templar.template(self._variables[word])
                return "" if found is None else found
        return None

    def _variables_of(self, host: str) -> Any:
        return self._variables["hostvars"][host]

    def _manager(self) -> _Hosts:
        return _Hosts(self._loader, self._variables.get("groups") or {})


class _Hosts:
    """The hosts of a run by pattern, whatever --limit says."""

    def __init__(self, loader: Any, groups: dict[str, list[str]]) -> None:
        self._manager = InventoryManager(loader, parse=False)
        for group, hosts in groups.items():
            self._manager.add_group(group)
            for host in hosts:
                self._manager.add_host(host, group=group)

    def list_hosts_of(self, pattern: Any) -> list[str]:
        """The hosts that a pattern means."""
        return [host.name for host in self._manager.get_hosts(pattern=pattern)]
