# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would work in the place of an intent that cannot."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import arguments, flags, image, lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import choice as plan_choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError


def alternatives(choice: Choice) -> str:
    """The nearest things that do work: same accelerator first, then same precision and engine."""
    found = [text for text, intent in _neighbours(choice) if _works(intent, choice.known)]
    shown = list(itertools.islice(found, 4))
    if not shown:
        return f"nothing in the catalogue serves {choice.model.name}; see docs/planner.md"
    return f"{choice.model.name} would work on {'; '.join(shown)}"


def _neighbours(choice: Choice) -> Iterator[tuple[str, Intent]]:
    asked, known = choice.intent, choice.known
    # Aliases are keys of their own.
    accelerators = {entry.name: entry for entry in known.accelerators.values()}
    cells = []
    for accelerator, precision, engine, nodes in itertools.product(
        accelerators.values(), choice.model.precisions, choice.model.engines, (1, 2)
    ):
        distance = (
            accelerator.name != choice.accelerator.name,
            nodes > 1,
            precision != asked.precision,
            engine != choice.engine.name,
        )
        cells.append((sum(distance), distance, accelerator, precision, engine, nodes))
    for _sum, _distance, accelerator, precision, engine, nodes in sorted(cells, key=lambda cell: cell[:2]):
        hosts = f"{nodes} hosts of " if nodes > 1 else ""
        replicas = ", glm_replicas 1" if asked.replicas > 1 else ""
        text = f"{hosts}{accelerator.per_host}x {accelerator.name} ({precision}, {engine}{replicas})"
        yield (
            text,
            dataclasses.replace(
                asked, accelerator=accelerator.name, accelerator_count=accelerator.per_host, precision=precision,
                engine=engine, engine_version=None, image_variant=None, engine_args={}, nodes=nodes, node_rank=0,
                replicas=1, replica=0, driver_version=None,
            ),
        )  # fmt: skip


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
