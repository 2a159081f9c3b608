# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instance types a model can be served on, known before one is launched. Pure but for the planner's catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import HOST_PREFIX
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.provider import Provider
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.providers import launcher_of
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

# Instances get a private address when they boot; until then any does (RFC 5737).
_SOME_ADDRESS = "10.0.0.1"


@dataclass
class Verdict:
    """Which types the model fits on, in the order asked for; why not on the others; and what would be served."""

    fitting: list[str] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    plans: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> str:
        """Why the model does not fit on the others, in one paragraph."""
        return " ".join(f"{entry['instance_type']}: {entry['reason']}" for entry in self.dropped)


def instance_of(provider: Provider, name: str, offered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The host variables that the inventory would give an instance of this type, as far as a plan reads them.

    ``offered``: rows as the cloud's module of instance types returns them. Raises PlanError for a type that is
    not offered or that has no accelerators.
    """
    launcher = launcher_of(provider)
    row = _row(name, offered)
    if not row:
        raise planner.PlanError(
            "the account is not offered this type", f"see ansible localhost -m {launcher.instance_types}"
        )
    host = launcher.host_of_type(row)
    if not host["accelerator"]:
        raise planner.PlanError("it has no accelerators", "name a type that has")
    host["private_address"] = host["public_address"] = _SOME_ADDRESS
    neutral = {f"{HOST_PREFIX}{key}": value for key, value in host.items() if value}
    own = {f"{provider.name}_{key}": value for key, value in provider.own_names(host).items() if value}
    return {**neutral, **own}


def _row(name: str, offered: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((row for row in offered if row.get("name") == name), {})


def judge(
    wanted: Sequence[str],
    offered: Sequence[Mapping[str, Any]],
    count: int,
    intent_of: Callable[[dict[str, Any]], dict[str, Any]],
    plans_of: Callable[[dict[str, Any]], list[Plan]],
    provider: Provider,
    file_systems: Sequence[str] = (),
) -> Verdict:
    """Plan each wanted type of the cloud for a fleet of ``count`` instances.

    ``intent_of``: host variables -> arguments of serving_plan; ``plans_of``: those -> plans. Both raise PlanError.
    ``file_systems`` are attached to each instance.
    """
    verdict = Verdict()
    for name in dict.fromkeys(wanted):
        try:
            intent = intent_of(instance_of(provider, name, offered))
            _require_whole_replicas(count, int(intent.get("nodes", 1)))
            plans = plans_of(intent)
            _require_memory(_row(name, offered), plans)
            # Weights may lie on a file system that is attached.
            if not file_systems:
                _require_disk(_row(name, offered), plans)
        except (planner.PlanError, Unmet) as error:
            verdict.dropped.append({"instance_type": name, "reason": str(error)})
            continue
        verdict.fitting.append(name)
        verdict.plans[name] = plans[0]["memory"]["arithmetic"]
    return verdict


def _require_whole_replicas(count: int, nodes: int) -> None:
    if nodes > 1 and count % nodes:
        raise planner.PlanError(
            f"glm_nodes {nodes} puts {nodes} hosts together, but {count} are requested",
            f"set glm_launch_count to a multiple of {nodes}",
        )


def _require_memory(row: Mapping[str, Any], plans: Sequence[Plan]) -> None:
    """What all replicas take of the host's memory, where the cloud says how much an instance has."""
    needed, offloaded = (sum(plan["host_memory"][name] for plan in plans) for name in ("needed_gib", "offloaded_gib"))
    has = _gib(row, "memory_gib")
    if has and needed > has:
        less = "offload less in glm_engine_args, or " if offloaded else ""
        raise planner.PlanError(
            f"its {has:,.0f} GiB of memory are less than the {needed:,.0f} GiB of shared memory, processes and what is "
            f"offloaded ({offloaded:,.0f} GiB)",
            f"{less}take a type with more memory",
        )


def _require_disk(row: Mapping[str, Any], plans: Sequence[Plan]) -> None:
    """Weights and image, which replicas of a host share, where the cloud says how large the disk is."""
    weights, image = (
        max(plan["disk"][name] for plan in plans) / memory.GIB for name in ("weights_bytes", "image_bytes")
    )
    has = _gib(row, "storage_gib")
    if has and weights + image > has:
        raise planner.PlanError(
            f"its disk of {has:,.0f} GiB does not hold {weights:,.0f} GiB of weights and {image:,.0f} GiB of image",
            "take a type with a larger disk, or attach a file system for the weights (glm_launch_file_systems)",
        )


def _gib(row: Mapping[str, Any], name: str) -> float:
    """A size of an offered type; 0 where the cloud does not say."""
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
