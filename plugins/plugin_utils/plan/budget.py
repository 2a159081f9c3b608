# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serving a model costs: seconds to start, bytes of disk, dollars."""

from __future__ import annotations

import math

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Disk, Phases, Price, Timeouts


def weights_bytes(choice: Choice) -> int:
    """Bytes of the weights that are fetched."""
    form = choice.checkpoint
    return memory.checkpoint_bytes(choice.model.config, form.weights, form.mtp, form.mtp_weights)


def timeouts(choice: Choice) -> Timeouts:
    """Limits of the unit."""
    budget = choice.engine.timeouts
    load = math.ceil(weights_bytes(choice) / budget.load_bytes_per_second)
    phases: Phases = {
        "load": load,
        "compile": budget.compile_seconds,
        "capture": budget.capture_seconds,
        "warmup": budget.warmup_seconds,
    }
    return {
        "start_seconds": load
        + budget.compile_seconds
        + budget.capture_seconds
        + budget.warmup_seconds
        + budget.margin_seconds,
        "stop_seconds": choice.engine.stop.seconds,
        "phases": phases,
    }


def disk(choice: Choice) -> Disk:
    """Room that the host needs."""
    weights = weights_bytes(choice)
    engine = choice.engine
    program = engine.image_bytes if choice.intent.runtime == "container" else engine.package.disk_bytes
    # Twice: the download client and the container store each may hold a second copy for a while.
    return {"weights_bytes": weights, "image_bytes": program, "free_bytes_needed": 2 * (weights + program)}


def prices(choice: Choice) -> list[Price]:
    """What providers ask for such a host."""
    return [
        {"provider": price.provider, "usd_per_hour": price.usd_per_hour, "date": str(price.date or "")}
        for price in choice.known.prices
        if price.accelerator == choice.accelerator.name and price.count == choice.intent.accelerator_count
    ]
