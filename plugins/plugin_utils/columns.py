# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of text with their columns one below the other: the form of every table that people read."""

from __future__ import annotations

from collections.abc import Sequence

_BETWEEN = "  "


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row; all have as many cells as the first."""
    columns = widths(rows)
    return [_BETWEEN.join(cell.ljust(width) for cell, width in zip(row, columns, strict=True)).rstrip() for row in rows]


def ruled(rows: Sequence[Sequence[str]]) -> list[str]:
    """The same with a rule below the first row, the titles."""
    titles, *others = aligned(rows)
    return [titles, _BETWEEN.join("-" * width for width in widths(rows)), *others]


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Characters of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
