"""Every command line that the planner can produce: the supported matrix, enumerated from the catalogue."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import arguments, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

Line = tuple[str, ...]


@dataclass
class Planned:
    """The plans of one engine version: distinct command lines with one example each, and why others were refused."""

    engine: str
    version: str
    cells: int = 0
    lines: dict[Line, str] = field(default_factory=dict)
    # What the arguments of each line are meant to be, by canonical name.
    meant: dict[Line, dict[str, Any]] = field(default_factory=dict)
    parsers: set[tuple[str, Optional[str]]] = field(default_factory=set)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)


def intents(known: Catalog, engine: str, version: str) -> Iterator[planner.Intent]:
    """Every model, precision, accelerator, profile, number of hosts, replicas and runtime for one engine version."""
    for model, accelerator, profile in itertools.product(
        known.models.values(), known.accelerators.values(), known.profiles
    ):
        if engine not in model.engines:
            continue
        for precision, form in model.precisions.items():
            usual = planner.Intent(
                model.name, accelerator.name, accelerator.per_host, precision=precision, engine=engine,
                engine_version=version, profile=profile, repository=None if form.repository else "acme/own-weights",
            )  # fmt: skip
            yield usual
            yield replace(usual, runtime="venv")
            for count in {1, 2, 4} - {accelerator.per_host}:
                if count < accelerator.per_host:
                    yield replace(usual, accelerator_count=count)
            if accelerator.per_host % 2 == 0:
                yield replace(usual, replicas=2, replica=1)
            for rank in (0, 1):
                yield replace(usual, nodes=2, node_rank=rank, head_address="10.0.0.1", interface="ens3", rdma=rank == 0)


def plan_all(known: Catalog, engine: str, version: str, wanted: Sequence[planner.Intent] = ()) -> Planned:
    """Plan the whole matrix of one version (or only ``wanted``). Any error but a refusal with a next step escapes."""
    found = Planned(engine, version)
    for intent in wanted or intents(known, engine, version):
        found.cells += 1
        title = f"{intent.model} {intent.precision} {intent.accelerator_count}x {intent.accelerator} {intent.profile}"
        try:
            made = planner.make(intent, known, advise=False)
        except planner.PlanError as refusal:
            assert "Next: " in str(refusal), f"{title}: a refusal must say what to do next: {refusal}"
            found.refused[_reason(str(refusal))] += 1
            continue
        line = tuple(made["command"])
        if line not in found.lines:
            found.lines[line] = title
            found.meant[line] = _meant(intent, known)
        found.parsers |= {
            ("tool", made["contract"]["tool_parser"]),
            ("reasoning", made["contract"]["reasoning_parser"]),
        }
    return found


def _meant(intent: planner.Intent, known: Catalog) -> dict[str, Any]:
    choice = Choice(intent, known)
    return arguments.serve(choice, flags.load(choice.engine.name, choice.version, known.root / "engines")).arguments


def _reason(text: str) -> str:
    for sign in ("lacks", "does not fit", "cannot serve", "does not divide", "no published image", "fewer than"):
        if sign in text:
            return sign
    return "other"
