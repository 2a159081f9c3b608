# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse public variables that do not exist. Documented in ``plugins/modules/check_variables.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible.inventory.group import Group
from ansible.inventory.host import Host
from ansible.utils.display import Display
from ansible.vars.plugins import get_vars_from_inventory_sources, get_vars_from_path

from ansible_collections.glm.fleet.plugins.module_utils.versions import COLLECTION
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import check, table, tags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.store import ledgers, state

_FLEET = "glm_fleet"

display = Display()


class ActionModule(FleetAction):
    """No connection, nothing changed; no template of what is checked is evaluated and no secret is read."""

    LABEL = "preflight"
    PLACE = "controller"
    ARGUMENTS = {"hosts": {"type": "raw", "required": True}}
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        verdict = check.judge(table.load(), self._places(self._args["hosts"]), COLLECTION, table.moved())
        for text, removed_in in verdict.deprecations:
            # The version stands in the table of variables.
            # pylint: disable-next=collection-invalid-deprecated-version
            display.deprecated(text, version=removed_in, collection_name="glm.fleet")
        if strange := tags.unknown(self._task_vars.get("ansible_run_tags") or ()):
            display.warning(strange)
        if verdict.errors:
            raise self._failure("\n".join(verdict.errors))
        return {"changed": False, **self._reached()}

    def _reached(self) -> dict[str, Any]:
        """The store of the fleet's state, where it has one, after it was read: a run without it ends here."""
        store = state.current()
        if store is None:
            return {}
        store.read(lockfile.NAME)
        store.etags(f"{ledgers.FOLDER}/")
        where = store.place
        return {"state_store": {"address": str(where), "endpoint": where.endpoint, "region": where.region}}

    def _places(self, pattern: Any) -> Iterator[check.Place]:
        """Everywhere that variables of the run are set, the strongest first, and last what the play itself sets."""
        manager = self._task.get_variable_manager()
        yield check.Place("an extra variable", "all", manager.extra_vars)
        inventory = manager._inventory
        controller = inventory.get_host("localhost")
        # Without an inventory there is no group of the fleet, and ansible would warn about it.
        absent = pattern == _FLEET and _FLEET not in inventory.groups
        hosts = [] if absent else inventory.get_hosts(pattern, ignore_limits=True, ignore_restrictions=True)
        for host in {controller.name: controller, **{host.name: host for host in hosts}}.values():
            reach: check.Reach = "controller" if host is controller else "hosts"
            yield check.Place(f"host {host.name}", reach, self._own_variables(host))
        # What will be launched is in groups that may be empty, or not there, yet.
        fleet = inventory.groups.get(_FLEET) or Group(_FLEET)
        seen = {"all", *(group.name for group in controller.get_groups())}
        meant = {fleet.name, *(group.name for group in fleet.get_ancestors())}
        names = seen | meant | {group.name for host in hosts for group in host.get_groups()}
        for name in sorted(names):
            group = inventory.groups.get(name) or Group(name)
            yield check.Place(f"group {name}", "controller" if name in seen else "hosts", self._own_variables(group))
        facts = self._task_vars.get("ansible_facts") or {}
        yield check.Place(
            "the play", "all", {name: self._task_vars[name] for name in self._task_vars if name not in facts}
        )

    def _own_variables(self, entity: Host | Group) -> dict[str, Any]:
        """The variables of a host or a group itself: from the inventory, and from files beside it and the playbook."""
        sources = self._task.get_variable_manager()._inventory._sources
        return {
            **entity.vars,
            **get_vars_from_inventory_sources(self._loader, sources, [entity], "task"),
            **get_vars_from_path(self._loader, self._loader.get_basedir(), [entity], "task"),
        }
