# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which routes of an engine version pass the front door: what clients use, met with what that version serves.

Tables live in ``catalog/engines/<engine>/routes/<version>.json``; tools/route_tables.py makes them from the source of
the engine. What clients use is in ``catalog/routes.yml``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ansible_collections.glm.fleet.plugins.module_utils.serving.routes import shape
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Door, DoorRoute

Guard = Literal["none", "key", "admin", "admin_only"]


@dataclass(frozen=True)
class Route:
    """One route of an engine: ``guard`` is what the engine itself asks for, ``when`` the conditions in its source."""

    path: str
    methods: tuple[str, ...]
    guard: Guard
    source: str
    when: tuple[str, ...] = ()

    @property
    def administrative(self) -> bool:
        """Whether the engine keeps it for those who run it."""
        return self.guard in ("admin", "admin_only")


@functools.lru_cache(maxsize=64)
def load(engine: str, version: str, root: Path = catalog.ROOT / "engines") -> tuple[Route, ...]:
    """Every route of an engine version, by path; kept for the life of the process.

    Raises CatalogError when there is no table of that version.
    """
    path = root / engine / "routes" / f"{version}.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["routes"]
        return tuple(
            Route(row["path"], tuple(row["methods"]), row["guard"], row["source"], tuple(row.get("when", ())))
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CatalogError(
            f"catalog/engines/{engine}/routes/{path.name}: cannot be read ({type(exc).__name__}: {exc}); "
            f"make it with tools/route_tables.py {engine}:{version}"
        ) from exc


@functools.lru_cache(maxsize=64)
def _by_shape(engine: str, version: str, root: Path) -> dict[str, list[Route]]:
    found: dict[str, list[Route]] = {}
    for route in load(engine, version, root):
        found.setdefault(shape(route.path), []).append(route)
    return found


def door(known: records.Catalog, engine: str, version: str) -> Door:
    """What passes the front door of this version, and what it lacks of what clients use.

    A purpose is lacking when the version has none of its routes. Raises CatalogError when there is no table of the
    version, and when it keeps for administrators what clients are said to use.
    """
    served = _by_shape(engine, version, known.root / "engines")
    found: list[DoorRoute] = []
    lacking: list[str] = []
    for purpose in known.purposes.values():
        passing = [
            DoorRoute(path=path, methods=methods, purpose=purpose.name)
            for path, wanted in purpose.routes.items()
            if (methods := _served(served.get(shape(path), ()), path, wanted, f"{engine} {version}"))
        ]
        found += passing
        if not passing:
            lacking.append(purpose.name)
    short = [
        f"{one.lacks} in {known.purposes[one.purpose].title}"
        for one in known.shortfalls
        if one.engine == engine and one.purpose not in lacking and one.holds(version)
    ]
    return {"routes": found, "lacking": lacking, "shortfalls": short}


def _served(rows: Sequence[Route], path: str, wanted: Sequence[str], version: str) -> list[str]:
    """Which of the wanted methods the version serves at a path, of which these are its routes."""
    kept = next((route for route in rows if route.administrative and set(route.methods) & set(wanted)), None)
    if kept:
        raise CatalogError(
            f"catalog/routes.yml: {path} is for administrators in {version} ({kept.source}); remove it there"
        )
    served = {method for route in rows for method in route.methods}
    return [method for method in wanted if method in served]
