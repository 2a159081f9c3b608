# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of the host that a replica takes: shared memory, processes with their pinned buffers, what is offloaded.

Pure arithmetic. The catalogue does not know how much memory hosts have: what is needed is compared with that once
there is a host (plugin_utils/host/checks.py).
"""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import OffloadTier
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.arguments import Served
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import HostMemory


def host_memory(choice: Choice, table: flags.Table, served: Served) -> HostMemory:
    """The ``host_memory`` of a plan, of this host alone. Raises PlanError for a size that is no number."""
    container, gpus = choice.engine.container, choice.count
    shared = container.shared_memory_gib_per_gpu * gpus
    processes = container.process_memory_gib_per_gpu * gpus
    offloaded = sum(_tier(choice, table, served, tier) for tier in choice.engine.offload_tiers)
    return {
        "shared_memory_gib": shared,
        "processes_gib": processes,
        "offloaded_gib": round(offloaded, 2),
        "needed_gib": round(shared + processes + offloaded, 2),
    }


def _tier(choice: Choice, table: flags.Table, served: Served, tier: OffloadTier) -> float:
    """GiB of the host that one kind of offloading takes."""
    given = served.arguments
    if tier.switch and plan_fit.argument(table, given, tier.switch) is not True:
        return 0.0
    size = _number(choice, tier.option, plan_fit.argument(table, given, tier.option))
    # Each counts for all GPUs of a tensor group together, or for one.
    groups = served.divided.data if tier.of_group else choice.cell.gpus
    if size:
        return size * tier.bytes / memory.GIB * groups / choice.intent.nodes
    if tier.ratio is None:
        return 0.0
    ratio = _number(choice, tier.ratio, plan_fit.argument(table, given, tier.ratio)) or tier.default_ratio
    return ratio * served.size.pool * choice.count


def _number(choice: Choice, option: str, value: Any) -> float:
    try:
        return max(0.0, float(value or 0))
    except (TypeError, ValueError):
        choice.refuse(f"{option} is {value!r}", "set it to a number in glm_engine_args")
