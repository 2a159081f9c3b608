# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guess which known name a mistyped one means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of a refusal: ``; did you mean …?`` with the nearest name, or ``otherwise`` where none is near."""
    close = nearest(word, known, 1)
    return f"; did you mean {close[0]}?" if close else otherwise


def nearest(word: str, known: Iterable[str], count: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known words most like ``word``, best first, whatever their case."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[found] for found in difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=cutoff)]
