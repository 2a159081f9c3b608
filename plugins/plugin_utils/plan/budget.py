# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serving a model costs: seconds to start, bytes of disk, dollars."""

from __future__ import annotations

import math

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.drain import Drain
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Disk, Phases, Price, Timeouts

# Half of what acceptance asks of a disk. A start that is given days is never ended.
_SLOWEST_MB_S = 100


def weights_bytes(choice: Choice) -> int:
    """Bytes of the weights that are fetched."""
    form = choice.checkpoint
    return memory.checkpoint_bytes(choice.model.config, form.weights, form.mtp, form.mtp_weights)


def start_seconds(choice: Choice) -> int:
    """Until the endpoint must answer."""
    parts = phases(choice)
    margin = choice.engine.timeouts.margin_seconds
    return parts["load"] + parts["compile"] + parts["capture"] + parts["warmup"] + margin


def phases(choice: Choice) -> Phases:
    """What a start is made of."""
    budget = choice.engine.timeouts
    measured = choice.disk["read_mb_s"] if choice.disk else None
    # A disk that was measured to be slower has the time that it needs.
    rate = min(budget.load_bytes_per_second, max(measured or math.inf, _SLOWEST_MB_S) * 10**6)
    return {
        "load": math.ceil(weights_bytes(choice) / rate),
        "compile": budget.compile_seconds,
        "capture": budget.capture_seconds,
        "warmup": budget.warmup_seconds,
    }


def timeouts(choice: Choice, end: Drain) -> Timeouts:
    """Limits of the unit."""
    return {
        "start_seconds": start_seconds(choice),
        "longest_answer_seconds": end.longest,
        "drain_seconds": end.seconds,
        # An engine that cuts answers off needs no time for them.
        "stop_seconds": choice.engine.stop.seconds + (end.seconds if end.drains else 0),
        "phases": phases(choice),
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
