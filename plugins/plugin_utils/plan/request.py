# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked of a serving plan, from Ansible's arguments to the planner. Pure, but it reads the lock file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import check, table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile, tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

_NO_ACCELERATOR = (
    "the host's accelerators",
    "none",
    "set glm_accelerator and glm_accelerator_count (for example B200 and 8), or use an inventory that knows them",
)


# What no variable sets, or not as its default says: a task names its model, and listens on loopback.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{option: variable.argument() for option, variable in table.options(table.load()).items()},
    "model": {"type": "str", "required": True},
    "bind": {"type": "str", "default": "loopback"},
    "public_address": {"type": "str"},
    "config_dir": {"type": "str", "default": "/etc/glm"},
    "engine_dir": {"type": "str", "default": "/opt/glm/engines"},
    "fleet_hosts": {"type": "list", "elements": "str", "default": []},
    "driver_version": {"type": "str"},
}


def require_known(variables: Mapping[str, Any]) -> None:
    """Refuse mistyped names among the variables that a plan is made from. Raises Unmet."""
    unknown = check.unknown_names(table.load(), variables)
    if unknown:
        raise check.refusal(table.load(), dict.fromkeys(unknown, ""))


def plans_of(given: Mapping[str, Any]) -> list[Plan]:
    """The plans of a host's replicas for arguments of ARGUMENTS that are set. Raises Unmet, PlanError, CatalogError."""
    args = dict(given)
    if "accelerator" not in args or "accelerator_count" not in args:
        raise Unmet(*_NO_ACCELERATOR)
    lock_file = args.pop("lock_file", None)
    address = planner.listen_address(args.pop("bind"), args.pop("private_address", None))
    asked = tls.asked(address, args.pop("public_address", None), args.pop("tls", "auto"), args.pop("tls_names", []))
    intent = planner.Intent(
        listen_address=address, listen_port=args.pop("port"), tls=asked[0], tls_names=asked[1], **args
    )
    return planner.make_all(intent, catalog.load(), lockfile.read(lock_file) if lock_file else None)


def node_of(host: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Which host of its replica this is, and where all of them are. Hosts are grouped in the inventory's order.

    Raises PlanError when the fleet cannot be grouped so.
    """
    fleet, nodes = args.pop("fleet_hosts", []), args.get("nodes", 1)
    if nodes < 2 or host not in fleet:
        return {}
    if len(fleet) % nodes:
        raise planner.PlanError(
            f"glm_nodes {nodes} puts {nodes} hosts together, but the fleet has {len(fleet)}",
            f"launch or leave out hosts until their number is a multiple of {nodes}",
        )
    rank = fleet.index(host) % nodes
    first = fleet.index(host) - rank
    variables = task_vars.get("hostvars") or {}
    addresses = [_address_of(name, variables.get(name, {})) for name in fleet[first : first + nodes]]
    return {"node_rank": rank, "head_address": addresses[0], "node_addresses": addresses}


def _address_of(host: str, variables: Mapping[str, Any]) -> str:
    """Where the other hosts of its replica reach a host; its name where no variable says."""
    names = ("glm_private_address", "glm_host_private_address", "ansible_host")
    return str(next((variables[name] for name in names if variables.get(name)), host))
