# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan instance types before one is launched. Documented in ``plugins/modules/launch_plan.py``."""

from __future__ import annotations

import dataclasses
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.group import Group, to_safe_group_name
from ansible.inventory.host import Host
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.template import Templar

from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import launch as launch_plan
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import providers
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError


class ActionModule(FleetAction):
    """No connection, nothing changed. Never fails for a type that does not fit: the caller knows whether it matters."""

    LABEL = "plan"
    PLACE = "controller"
    ARGUMENTS = {
        "instance_types": {"type": "list", "elements": "str", "required": True},
        "offered": {"type": "list", "elements": "dict", "required": True},
        "provider": {"type": "str", "required": True},
        "count": {"type": "int", "default": 1},
        "group": {"type": "str", "default": "glm_fleet"},
        "file_systems": {"type": "list", "elements": "str", "default": []},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        try:
            provider = providers.named(args["provider"])
        except ValueError as error:
            raise self._failure(f"provider: {error}") from None
        verdict = launch_plan.judge(
            args["instance_types"],
            args["offered"],
            args["count"],
            lambda instance: self._intent(provider, instance, args["group"]),
            request.plans_of,
            provider,
            args["file_systems"],
        )
        return {"changed": False, **dataclasses.asdict(verdict), "reasons": verdict.reasons}

    def _intent(self, provider: Provider, instance: dict[str, Any], group: str) -> dict[str, Any]:
        """What would be asked of serving_plan on this instance. Raises PlanError for a value of the wrong kind."""
        variables = self._variables(provider, instance, group)
        request.require_known(variables)
        templar = Templar(loader=self._loader, variables=variables)
        # Without the lock file: which commit or digest a name means changes no arithmetic.
        options = {option: item.name for option, item in table.options(table.load()).items() if option != "lock_file"}
        values = {option: _value(templar, name) for option, name in options.items()}
        values["public_address"] = variables.get("glm_host_public_address")
        given = {option: value for option, value in values.items() if value not in (None, "")}
        checked = ArgumentSpecValidator(request.ARGUMENTS).validate(given)
        if checked.error_messages:
            raise PlanError("; ".join(checked.error_messages), "correct that variable")
        parameters = checked.validated_parameters
        return {key: value for key, value in parameters.items() if value not in (None, "") and key != "fleet_hosts"}

    def _variables(self, provider: Provider, instance: dict[str, Any], group: str) -> dict[str, Any]:
        """The variables that this instance would have in the inventory, those of its groups included.

        No host has them yet, and localhost is in none of these groups, so a host is made up for this alone.
        """
        manager = self._task.get_variable_manager()
        inventory = manager._inventory
        host = Host("instance-to-be")
        own = f"{provider.name}_"
        kinds = [(kind, instance.get(f"{own}{variable}")) for kind, variable in provider.groups.items()]
        groups = [to_safe_group_name(f"{own}{kind}_{value}") for kind, value in kinds if value]
        names = ["all", provider.name, group, *groups]
        for name in names:
            host.add_group(inventory.groups.get(name) or Group(name))
        host.vars = {**host.vars, **instance}
        role = self._task._role
        defaults = role.get_default_vars() if role else {}
        variables: dict[str, Any] = {**defaults, **manager.get_vars(host=host, include_hostvars=False)}
        return variables


def _value(templar: Any, name: str) -> Any:
    """The value of a variable, or None when it is only known on a host (it reads facts, say)."""
    try:
        return templar.template(templar.available_variables.get(name))
    except AnsibleError:
        return None
