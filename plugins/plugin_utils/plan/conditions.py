# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogue says about a value: whether an argument, or a fact of a plan, is as a rule or an issue has it.

catalog/known_issues.yml and the combinations of the engines are written in these conditions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Optional

ANY = "*"

# What the value of a condition's name may be looked up by: ``$name`` in a comparison.
Lookup = Callable[[str], Any]


def nothing(_name: str) -> None:
    """The lookup of conditions that compare with no other value."""
    return


def holds(value: Any, wanted: Any, lookup: Lookup = nothing) -> bool:
    """Whether ``value`` is as ``wanted``: a value, one of a list, ``*`` (any but none), null (none), or a comparison.

    A comparison is a mapping, all of whose entries must hold: ``not`` any of these, ``like`` a pattern of file names,
    or one of several, ``above``, ``below``, ``not_multiple_of`` a number. ``$name`` is the value that ``lookup`` finds,
    of ``like`` maybe a list; what is no number compares with nothing.
    """
    if isinstance(wanted, Mapping):
        return all(_compares(value, operator, operand, lookup) for operator, operand in wanted.items())
    if wanted == ANY:
        return value is not None
    options = wanted if isinstance(wanted, list) else [wanted]
    return any(_same(value, filled(option, lookup)) for option in options)


def filled(wanted: Any, lookup: Lookup) -> Any:
    """The value itself, or the one that ``$name`` stands for."""
    return lookup(wanted[1:]) if isinstance(wanted, str) and wanted.startswith("$") else wanted


def _same(value: Any, option: Any) -> bool:
    """Arguments come from YAML, JSON or text: 8 and "8" are the same value, and an absent one is only like null."""
    return (value is None) == (option is None) and str(value).casefold() == str(option).casefold()


def _compares(value: Any, operator: str, operand: Any, lookup: Lookup) -> bool:
    if operator == "not":
        return not holds(value, operand, lookup)
    if operator == "like":
        return value is not None and any(
            fnmatch.fnmatchcase(str(value), pattern)
            for part in _list(operand)
            for pattern in _list(filled(part, lookup))
        )
    left, right = _number(value), _number(filled(operand, lookup))
    if left is None or right is None:
        return False
    if operator == "above":
        return left > right
    return left < right if operator == "below" else right != 0 and left % right != 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> Optional[float]:
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
