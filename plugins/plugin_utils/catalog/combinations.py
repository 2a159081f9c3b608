# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of ``engines/<engine>/combinations.yml`` may speak of, and whether they do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Combination, Engine

# Facts of a plan that are no arguments; plan/combinations.py fills them.
FACTS: dict[str, frozenset[str]] = {
    # config.json of the model, and what follows from it.
    "model": frozenset(
        {item.name for item in dataclasses.fields(memory.Config)}
        | {"type", "sparse", "latent", "tool_parser", "mtp_steps"}
    ),
    "gpu": frozenset({"architecture", "vendor"}),
    "weights": frozenset({"format", "block", "mtp"}),
    # GPUs over which attention, all else and whole experts are divided, and ranks of data-parallel attention.
    "parallel": frozenset({"tensor", "pipeline", "data", "expert", "attention", "data_attention", "nodes"}),
    # ``mounts``: patterns of the paths that users show the container.
    "plan": frozenset({"runtime", "served_name", "own_image", "mounts"}),
}
OPERATORS = frozenset({"not", "like", "above", "below", "not_multiple_of"})
_SOURCE = re.compile(r"\S+\.(py|pyi):\d+ \(\S+\)")


def check(engine: Engine, where: str) -> None:
    """Raise CatalogError for a rule that speaks of what there is not, or that would always or never help."""
    seen: set[str] = set()
    for rule in engine.combinations:
        place = f"{where}: combinations.{rule.id}"
        if rule.id in seen:
            raise CatalogError(f"{place}: expected one rule of this id, found two")
        seen.add(rule.id)
        if not rule.when or bool(rule.changes) == bool(rule.next) or not all(rule.changes):
            raise CatalogError(f"{place}: expected conditions, and either changes or next")
        if not _SOURCE.fullmatch(rule.source):
            raise CatalogError(f"{place}.source: expected file:line (release), found {rule.source!r}")
        release = rule.source.rpartition("(")[2].rstrip(")")
        if release not in engine.versions or not rule.holds(release):
            raise CatalogError(f"{place}.source: the rule does not hold in {release}, or nobody knows that version")
        for name in _names(rule):
            head, dot, rest = name.partition(".")
            if dot and head in FACTS and rest not in FACTS[head]:
                raise CatalogError(f"{place}: unknown fact {name!r}; known are {', '.join(sorted(FACTS[head]))}")
        for operator in _operators(rule.when.values()):
            if operator not in OPERATORS:
                known = ", ".join(sorted(OPERATORS))
                raise CatalogError(f"{place}: unknown comparison {operator!r}; known are {known}")


def _names(rule: Combination) -> Iterator[str]:
    yield from rule.when
    for value in (*rule.when.values(), *(value for change in rule.changes for value in change.values())):
        for operand in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(operand, str) and operand.startswith("$"):
                yield operand[1:]


def _operators(conditions: Any) -> Iterator[str]:
    for condition in conditions:
        if isinstance(condition, Mapping):
            yield from condition
