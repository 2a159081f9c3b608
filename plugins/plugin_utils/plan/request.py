# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked of a serving plan, from Ansible's arguments to the planner. Pure, but it reads the lock file."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import check, table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks, lockfile, own, starts, tls
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
    """Refuse mistyped names among the variables of a plan, and those of roles that are read no more. Raises Unmet."""
    unknown = check.unknown_names(table.load(), variables)
    if unknown:
        raise check.refusal(table.load(), dict.fromkeys(unknown, ""))
    gone = table.moved().keys() & variables.keys()
    if gone:
        raise check.no_longer_read(table.moved(), dict.fromkeys(gone, ""))


def plans_of(given: Mapping[str, Any], host: str = "") -> list[Plan]:
    """The plans of a host's replicas for arguments of ARGUMENTS that are set; ``host`` is its name, where there is one.

    Raises Unmet, PlanError, CatalogError.
    """
    args = dict(given)
    if "accelerator" not in args or "accelerator_count" not in args:
        raise Unmet(*_NO_ACCELERATOR)
    lock_file, folders = args.pop("lock_file", None), args.pop("catalog", ())
    public = args.get("public_address")
    listens = planner.listen_address(args.pop("bind"), args.pop("private_address", None), public)
    asked = tls.asked(listens, public, args.pop("tls", "auto"), args.pop("tls_names", []))
    intent = planner.Intent(
        listen_address=listens, listen_port=args.pop("port"), tls=asked[0], tls_names=asked[1],
        starts=starts.read(lock_file) if lock_file else {},
        disk=disks.of_host(lock_file, host) if lock_file else None, **args,
    )  # fmt: skip
    tls.require_orderable(intent)
    return planner.make_all(intent, own.known(folders), lockfile.read(lock_file) if lock_file else None)


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
    group = fleet[first : first + nodes]
    addresses = _between({name: _address_of(name, variables.get(name, {})) for name in group})
    return {"node_rank": rank, "head_address": addresses[0], "node_addresses": addresses}


def _address_of(host: str, variables: Mapping[str, Any]) -> str:
    """Where the other hosts of its replica reach a host; its name where no variable says."""
    names = ("glm_private_address", "glm_host_private_address", "ansible_host")
    return str(next((variables[name] for name in names if variables.get(name)), host))


def _between(named: Mapping[str, str]) -> list[str]:
    """The addresses by which the hosts of a replica talk to each other, from each host's own.

    Raises PlanError for those of a network that others are in: what engines say to each other (torch's store, NCCL,
    ZMQ) takes no key and is not encrypted. Names are refused, too: each host's filter lets in addresses, and who
    answers for a name may change.
    """
    advice = (
        "set glm_private_address of each of these hosts to its address in a network that only they are in: the cloud's "
        "private one, or one of a tunnel between them (WireGuard); or serve each host on its own with glm_nodes 1"
    )
    for host, where in named.items():
        problem = address.public_because(where)
        if problem:
            raise planner.PlanError(
                f"the hosts of a replica talk to each other without a key and unencrypted, and {host} would do so at "
                f"{where}, which is {problem}",
                advice,
            )
    addresses = [str(ipaddress.ip_address(where)) for where in named.values()]
    listed = ", ".join(f"{host} {where}" for host, where in zip(named, addresses, strict=True))
    if len(set(addresses)) < len(addresses):
        raise planner.PlanError(f"hosts of one replica have the same address: {listed}", advice)
    if len({":" in where for where in addresses}) > 1:
        raise planner.PlanError(
            f"hosts of one replica are to talk by IPv4 and by IPv6: {listed}",
            "set glm_private_address of each of these hosts to addresses of one kind",
        )
    return addresses
