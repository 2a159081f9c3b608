# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance types a model can be served on, told before one is launched. Pure but for the planner's catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.lambda_cloud import hosts as lambda_hosts
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

# Instances get a private address when they boot; until then any does (RFC 5737).
_SOME_ADDRESS = "192.0.2.1"


@dataclass
class Verdict:
    """Which types the model fits on, in the order asked for; why not on the others; and what would be served."""

    fitting: list[str] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    plans: dict[str, str] = field(default_factory=dict)


def instance_of(name: str, offered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The host variables that the inventory would give an instance of this type, as far as a plan reads them.

    ``offered``: rows as lambda_instance_type_info returns them. Raises PlanError for a type that nobody offers or that
    has no accelerators.
    """
    row = next((row for row in offered if row.get("name") == name), None)
    if row is None:
        raise planner.PlanError(
            advised(
                "the account is not offered this type", "see ansible localhost -m glm.fleet.lambda_instance_type_info"
            )
        )
    kind = {"name": name, "gpu_description": row.get("gpu_description"), "specs": {"gpus": row.get("gpus")}}
    hardware = lambda_hosts.hardware_of(kind)
    if not hardware.accelerator:
        raise planner.PlanError(advised("it has no accelerators", "name a type that has"))
    return {
        "glm_host_instance_type": name,
        "glm_host_accelerator": hardware.accelerator,
        "glm_host_accelerator_count": hardware.total,
        "glm_host_architecture": hardware.architecture,
        "glm_host_private_address": _SOME_ADDRESS,
        "lambda_instance_type": name,
        "lambda_accelerator": hardware.accelerator,
        "lambda_accelerator_count": hardware.total,
        "lambda_architecture": hardware.architecture,
        "lambda_private_ip": _SOME_ADDRESS,
    }


def judge(
    wanted: Sequence[str],
    offered: Sequence[Mapping[str, Any]],
    count: int,
    intent_of: Callable[[dict[str, Any]], dict[str, Any]],
    plans_of: Callable[[dict[str, Any]], list[Plan]],
) -> Verdict:
    """Plan each wanted type for a fleet of ``count`` instances.

    ``intent_of``: host variables -> arguments of serving_plan; ``plans_of``: those -> plans. Both raise PlanError.
    """
    verdict = Verdict()
    for name in dict.fromkeys(wanted):
        try:
            intent = intent_of(instance_of(name, offered))
            _require_whole_replicas(count, int(intent.get("nodes", 1)))
            plans = plans_of(intent)
        except planner.PlanError as error:
            verdict.dropped.append({"instance_type": name, "reason": str(error)})
            continue
        verdict.fitting.append(name)
        verdict.plans[name] = plans[0]["memory"]["arithmetic"]
    return verdict


def _require_whole_replicas(count: int, nodes: int) -> None:
    if nodes > 1 and count % nodes:
        raise planner.PlanError(
            advised(
                f"glm_nodes {nodes} puts {nodes} hosts together, but {count} are asked for",
                f"set glm_launch_count to a multiple of {nodes}",
            )
        )
