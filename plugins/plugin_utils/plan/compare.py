# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One model on every hardware, engine and profile of the catalogue: what fits, how fast it was seen, what it costs."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from ansible_collections.glm.fleet.plugins.plugin_utils import columns
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

_HEAD = ("hardware", "engine", "profiles", "fits", "tokens", "tokens/s out", "USD/h", "USD/M out")
_SECONDS_PER_HOUR, _MILLION = 3600, 1_000_000
_WIDTH = 118


@dataclass(frozen=True)
class Speed:
    """Tokens of answers per second, and who says so: ``measured`` here, or ``published`` by others."""

    tokens_per_second: float
    basis: str
    users: Optional[int] = None


@dataclass(frozen=True)
class Row:
    """One or more profiles that are served alike. ``reason`` is why it does not fit; ``usd`` is the lowest price."""

    hardware: str
    engine: str
    profiles: tuple[str, ...]
    tokens: Optional[int] = None
    speed: Optional[Speed] = None
    usd: Optional[float] = None
    reason: str = ""

    @property
    def usd_per_million(self) -> Optional[float]:
        """USD for a million tokens of answers, when the host is busy all the time."""
        if self.usd is None or self.speed is None:
            return None
        return self.usd / (self.speed.tokens_per_second * _SECONDS_PER_HOUR) * _MILLION


def rows(intent: Intent, known: Catalog) -> list[Row]:
    """Every accelerator, whole hosts of it (of the one that is asked for, as many as are asked), engine and profile.

    Raises PlanError for a model or precision that does not exist.
    """
    choice = Choice(
        dataclasses.replace(intent, accelerator=intent.accelerator or next(iter(known.accelerators))), known
    )
    accelerators = known.accelerator_kinds.values()
    asked = choice.accelerator if intent.accelerator and intent.accelerator_count else None
    found: list[Row] = []
    for accelerator, engine, profile in itertools.product(accelerators, choice.model.engines, known.profiles):
        count = intent.accelerator_count if accelerator is asked else accelerator.per_host
        cell = intent.elsewhere(accelerator=accelerator.name, accelerator_count=count, engine=engine, profile=profile)
        found.append(_row(cell, known))
    return _joined(found)


def _row(intent: Intent, known: Catalog) -> Row:
    hardware, engine = f"{intent.accelerator_count}x {intent.accelerator}", str(intent.engine)
    try:
        made = planner.make(intent, known, advise=False)
    except PlanError as error:
        what = error.why.partition(f" with {engine} ")[2].partition(": ")[2]
        return Row(hardware, engine, (intent.profile,), reason=what or error.why)
    prices = [price["usd_per_hour"] for price in made["prices"]]
    return Row(
        hardware,
        f"{engine} {made['engine']['version']}",
        (intent.profile,),
        made["memory"]["token_pool"],
        _measured(made) or _published(made, known),
        min(prices, default=None),
    )


def _measured(made: Plan) -> Optional[Speed]:
    found = made["recipe"]["measured"]
    return Speed(found["tokens_per_second"], "measured", found["users"]) if found and found["same"] else None


def _published(made: Plan, known: Catalog) -> Optional[Speed]:
    """The fastest that others published for this model, hardware and engine, whatever profile they served."""
    accelerator, model = made["accelerator"], made["model"]
    theirs = [
        result
        for result in known.published
        if (result.model, result.precision, result.engine)
        == (model["name"], model["precision"], made["engine"]["name"])
        and (result.accelerator, result.count) == (accelerator["name"], accelerator["count"])
    ]
    best = max(theirs, key=lambda result: result.figures.generation, default=None)
    return Speed(best.figures.generation, "published", best.parallel) if best else None


def _joined(found: Iterable[Row]) -> list[Row]:
    """Profiles that come to the same in one row; hardware on which nothing fits in one row, too."""
    joined: dict[Row, list[str]] = {}
    for row in found:
        joined.setdefault(dataclasses.replace(row, profiles=()), []).extend(row.profiles)
    return [dataclasses.replace(row, profiles=tuple(profiles)) for row, profiles in joined.items()]


def table(found: Sequence[Row]) -> list[str]:
    """The rows as lines for people."""
    cells = [_HEAD, *(_cells(row) for row in found)]
    lines = columns.aligned(cells)
    remarks = [
        line
        for row in found
        if row.reason
        for line in textwrap.wrap(
            f"{row.hardware} with {row.engine} ({', '.join(row.profiles)}): {row.reason}",
            _WIDTH,
            subsequent_indent="  ",
        )
    ]
    return [
        lines[0], "-" * len(lines[0]), *lines[1:],
        "", "Published figures are of the workload and settings of their source (docs/benchmark.md), not of a profile.",
        *(["", "Does not fit:", *remarks] if remarks else []),
    ]  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    speed, million = row.speed, row.usd_per_million
    rate = f"{speed.tokens_per_second:,.0f} {speed.basis}" if speed else "-"
    return (
        row.hardware, row.engine, ", ".join(row.profiles), "no" if row.reason else "yes",
        "-" if row.tokens is None else f"{row.tokens:,}",
        f"{rate} at {speed.users}" if speed and speed.users else rate,
        "-" if row.usd is None else f"{row.usd:.2f}", "-" if million is None else f"{million:.2f}",
    )  # fmt: skip
