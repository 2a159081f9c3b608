# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``/metrics`` of an engine (Prometheus' text format) as one small set of names.

This module util is PRIVATE to the collection. What an engine calls them is data of the catalogue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def parse(text: str, rules: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of one moment under our names; what the engine does not offer is absent.

    ``rules`` are the engine's, from its ``metrics.yml``: ``name`` is ours, ``metric`` theirs; several ranks are
    summed, or the largest counts (``ranks``); with ``labels`` the value is the product of these.
    """
    wanted: dict[str, list[Mapping[str, Any]]] = {}
    for rule in rules:
        wanted.setdefault(rule["metric"], []).append(rule)
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        for rule in wanted.get(match.group(1), ()):
            value = _product(match.group(2) or "", rule["labels"]) if rule["labels"] else number(match.group(3))
            if value is None:
                continue
            before = found.get(rule["name"], 0.0)
            found[rule["name"]] = max(before, value) if rule["ranks"] == "largest" else before + value
    return found


def _product(labels: str, names: Sequence[str]) -> Optional[float]:
    values = dict(_LABEL.findall(labels))
    numbers = [number(values.get(name, "")) for name in names]
    known = [number for number in numbers if number is not None]
    return math.prod(known) if len(known) == len(names) else None


def number(text: str) -> Optional[float]:
    """A number of a metric or a sensor; None for what is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
