# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which known issues a plan meets, and what their workarounds change.

A planner asks twice: ``find`` with the recipe's arguments, then, after ``remedy`` and the user's own arguments were
merged over them, again. What is ``broken`` the second time is refused; everything found either time is worth reporting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Apply, Catalog, KnownIssue
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import conditions
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.recipes import Cell


def of_cell(known: Catalog, cell: Cell) -> list[KnownIssue]:
    """The issues of a cell, in the catalogue's order, whatever its arguments are."""
    model, accelerator = cell.model, cell.accelerator
    return [
        issue
        for issue in known.known_issues
        if issue.engine in (None, cell.engine)
        and issue.holds(cell.version)
        and _selected((issue.models, model.name), (issue.model_types, model.model_type))
        and _selected((issue.precisions, cell.precision))
        and _selected((issue.accelerators, accelerator.name), (issue.architectures, accelerator.architecture))
    ]


def find(issues: Sequence[KnownIssue], arguments: Mapping[str, Any]) -> list[KnownIssue]:
    """Those of a cell's issues that apply when it is served so.

    ``arguments`` are engine arguments by name, with or without leading dashes, as a recipe or flags.merge has them; a
    value may be a mapping (``speculative-config``).
    """
    given = {_plain(name): value for name, value in arguments.items()}
    return [
        issue
        for issue in issues
        if all(conditions.holds(_value(given, name), wanted) for name, wanted in (issue.arguments or {}).items())
    ]


def remedy(found: Iterable[KnownIssue]) -> Apply:
    """Everything the workarounds of these issues change; where two name the same thing, the later one holds."""
    args: dict[str, Any] = {}
    env: dict[str, str] = {}
    for issue in found:
        if issue.apply:
            args.update(issue.apply.args)
            env.update(issue.apply.env)
    return Apply(args, env)


def _selected(*selectors: tuple[Optional[Sequence[str]], str]) -> bool:
    """Whether no selector is set, or one that is set holds the value."""
    stated = [(wanted, value) for wanted, value in selectors if wanted is not None]
    return not stated or any(value in wanted for wanted, value in stated)


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-")


def _value(given: Mapping[str, Any], name: str) -> Any:
    """The value of an argument; a dotted name reaches into a mapping, or is given dotted itself. None when absent."""
    head, *rest = name.split(".")
    value = given.get(_plain(head))
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    return given.get(_plain(name)) if value is None else value
