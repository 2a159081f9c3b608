# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lines of the kernel log mean for a node (``catalog/kernel_log.yml``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import ROOT

Action = Literal["ignore", "program", "reset", "reboot", "replace"]
# From the least to the most; those before the first of AGAINST are notes.
ACTIONS: tuple[Action, ...] = ("ignore", "program", "reset", "reboot", "replace")
AGAINST = frozenset(ACTIONS[2:])
_BUS = r"(?:at )?(?:PCI:)?(?P<device>(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?)"


@dataclass(frozen=True)
class Xid:
    """Xids that mean the same; see the head of the file."""

    name: str
    numbers: list[int]
    action: Action
    words: dict[str, Action] = field(default_factory=dict)
    settled_by: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Sxids:
    """SXids; see the head of the file."""

    action: Action
    always_fatal: list[list[int]]


@dataclass(frozen=True)
class Rule:
    """Lines that mean the same; see the head of the file."""

    name: str
    patterns: list[str]
    action: Action
    settled_by: Optional[str] = None
    next: Optional[str] = None


@dataclass(frozen=True)
class Table:
    """The whole file."""

    xids: list[Xid]
    recovery: dict[str, Action]
    sxids: Sxids
    lines: list[Rule]

    def xid(self, number: int) -> Optional[Xid]:
        """The row of an Xid, or None."""
        return next((row for row in self.xids if number in row.numbers), None)


@lru_cache(maxsize=4)
def load(root: Path = ROOT) -> Table:
    """The table. Raises CatalogError, also for an Xid in two rows and for a pattern that is none."""
    table = record(Table, root / "kernel_log.yml")
    seen: set[int] = set()
    for row in table.xids:
        twice = seen.intersection(row.numbers)
        if twice:
            raise CatalogError(f"catalog/kernel_log.yml: xids: {min(twice)} is in two rows")
        seen.update(row.numbers)
    for pattern in _patterns(table):
        try:
            compiled(pattern)
        except re.error as error:
            raise CatalogError(f"catalog/kernel_log.yml: lines: {pattern} is no pattern: {error}") from None
    return table


def _patterns(table: Table) -> Iterator[str]:
    for rule in table.lines:
        yield from (*rule.patterns, *([rule.settled_by] if rule.settled_by else []))


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of the file, with a PCI address for ``{bus}``."""
    return re.compile(pattern.replace("{bus}", _BUS))
