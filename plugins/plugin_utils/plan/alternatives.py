# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would work in the place of an intent that cannot, the cheapest first."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Accelerator, Catalog, Price
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import arguments, flags, image, lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import choice as plan_choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError

_SHOWN = 4


@dataclass(frozen=True)
class Hardware:
    """Hosts that could be rented, and the least that the catalogue knows one to cost."""

    accelerator: Accelerator
    count: int
    nodes: int
    price: Optional[Price]

    @property
    def usd_per_hour(self) -> float:
        """For all hosts together; infinite where no price is known."""
        return self.nodes * self.price.usd_per_hour if self.price else math.inf

    def __str__(self) -> str:
        hosts = f"{self.nodes} hosts of " if self.nodes > 1 else ""
        return f"{hosts}{self.count}x {self.accelerator.name}"

    @property
    def cost(self) -> str:
        """The price in words, with the day it was read."""
        if self.price is None:
            return "no price known"
        of = f" of {self.price.date}" if self.price.date else ""
        return f"{self.usd_per_hour:.2f} USD/h at {self.price.provider}{of}"


def alternatives(choice: Choice) -> str:
    """What does work, in order of price; what has no known price comes last, fewer GPUs first."""
    shown: list[str] = []
    offered: set[tuple[str, str]] = set()
    for hardware in _hardware(choice):
        found = _found(choice, hardware)
        # More GPUs of a kind for the same weights are no other answer.
        if found and (hardware.accelerator.name, found[0]) not in offered:
            offered.add((hardware.accelerator.name, found[0]))
            replicas = ", glm_replicas 1" if choice.intent.replicas > 1 else ""
            shown.append(f"{hardware} ({', '.join(found)}{replicas}), {hardware.cost}")
        if len(shown) == _SHOWN:
            break
    if not shown:
        return f"nothing in the catalogue serves {choice.model.name}; see docs/planner.md"
    return f"{choice.model.name} would work on {'; '.join(shown)}"


def _hardware(choice: Choice) -> list[Hardware]:
    known = choice.known
    found = []
    for accelerator, nodes in itertools.product(known.accelerator_kinds.values(), (1, 2)):
        # Several hosts make sense where one is full, and has links between its own GPUs.
        for count in accelerator.counts if nodes == 1 else [accelerator.per_host][: accelerator.fabric != "none"]:
            prices = [price for price in known.prices if (price.accelerator, price.count) == (accelerator.name, count)]
            cheapest = min(prices, key=lambda price: price.usd_per_hour, default=None)
            found.append(Hardware(accelerator, count, nodes, cheapest))
    # The accelerator that was asked for before others of one price.
    mine = choice.accelerator.name
    return sorted(found, key=lambda one: (one.usd_per_hour, one.nodes, one.accelerator.name != mine, one.count))


def _found(choice: Choice, hardware: Hardware) -> Optional[tuple[str, str]]:
    """Form of the weights and engine that are nearest to the intent and work there; None where nothing does."""
    asked = choice.intent
    for precision, engine in _nearest(choice):
        if not _may_hold(choice, hardware, precision):
            continue
        intent = asked.elsewhere(
            accelerator=hardware.accelerator.name, accelerator_count=hardware.count, nodes=hardware.nodes,
            engine=engine, precision=precision,
            repository=asked.repository if precision == asked.precision else None,
        )  # fmt: skip
        if _works(intent, choice.known):
            return precision, engine
    return None


def _nearest(choice: Choice) -> Iterator[tuple[str, str]]:
    """Forms of the weights and engines: what was asked for first, then one of the two changed, then both."""
    asked = (choice.intent.precision, choice.engine.name)
    yield from sorted(
        itertools.product(choice.model.precisions, choice.model.engines),
        key=lambda pair: [ours != theirs for ours, theirs in zip(pair, asked, strict=True)],
    )


def _may_hold(choice: Choice, hardware: Hardware, precision: str) -> bool:
    """Whether kernels exist and all GPUs together have as many bytes as the weights: cheap to know beforehand."""
    form, accelerator = choice.model.precisions[precision], hardware.accelerator
    size = memory.checkpoint_bytes(choice.model.config, form.weights, False, form.mtp_weights)
    room = hardware.nodes * hardware.count * accelerator.memory_gib * memory.GIB
    return {*choice.model.needs, *form.needs} <= set(accelerator.features) and size < room


def plans_with(choice: Choice, change: Mapping[str, Any]) -> bool:
    """Whether the intent plans with these arguments laid over its own."""
    changed = {flags.spelled(name) for name in change}
    kept = {name: value for name, value in choice.intent.engine_args.items() if flags.spelled(name) not in changed}
    return _works(dataclasses.replace(choice.intent, engine_args={**kept, **change}), choice.known)


def _works(intent: Intent, known: Catalog) -> bool:
    try:
        choice = Choice(intent, known)
        plan_choice.check(choice)
        table = flags.load(choice.engine.name, choice.version, known.root / "engines")
        arguments.serve(choice, table)
        if intent.runtime == "container":
            image.image(choice, lockfile.empty())
    except PlanError:
        return False
    return True
