#!/usr/bin/env python3
"""Make docs/routes.md, what passes the front door per engine version, from the catalogue's routes. ::

python tools/routes_page.py             # write the page
python tools/routes_page.py --check     # exit 1 when the committed one differs
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.serving.routes import shape
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from tools import made_files

PAGE = ROOT / "docs" / "routes.md"
HEAD = """\
# What passes the front door
Made by `tools/routes_page.py` from `catalog/routes.yml` and the tables in `catalog/engines/*/routes/`; do not edit it
here. How the tables are made: [engines.md](engines.md#routes).

Everything that is not in the first table is 404 at the door, with a key or without. One answer is the door's own and
asks for no key: `GET /ready`, which says whether a replica takes new requests ([door.md](door.md#readiness)).
"""
BEYOND = """
## What engines serve beyond it
Routes of each version (rows of its table), by what the engine itself asks for. Without a door, what asks for the key of
clients is open to every client, and what asks for nothing is open to everybody who reaches the port. Some are there in
some settings only: the tables say when.

"""


def page(known: Catalog) -> str:
    """The whole page: what passes, what does not and why, and both by engine and version."""
    parts = [HEAD, _table(("for", "route", "clients"), _purposes(known))]
    parts += ["\n## What does not, although it looks useful\n"]
    parts += [_table(("route", "why"), ((f"`{path}`", reason.strip()) for path, reason in known.withheld.items()))]
    parts += ["\n## By version\n", _table(("versions", "pass", "the version has no"), _alike(known))]
    parts += [BEYOND]
    titles = ("version", "routes", "pass the door", "other, for the clients' key", "for nothing", "for the admin key")
    parts += [_table(titles, _counts(known))]
    return "".join(parts)


def _table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _purposes(known: Catalog) -> Iterator[tuple[str, str, str]]:
    for purpose in known.purposes.values():
        paths = ", ".join(f"`{'/'.join(methods)} {path}`" for path, methods in purpose.routes.items())
        yield purpose.title, paths, ", ".join(purpose.clients)


def _ordered(engine: Engine) -> list[str]:
    return sorted(engine.versions, key=versions.order)


def _alike(known: Catalog) -> Iterator[tuple[str, str, str]]:
    """Runs of versions that pass the same."""
    for engine in known.engines.values():
        doors = [(version, routes.door(known, engine.name, version)) for version in _ordered(engine)]
        for _same, run in itertools.groupby(doors, lambda pair: pair[1]):
            (first, made), *rest = run
            lacking = [known.purposes[name].title for name in made["lacking"]]
            missing = ", ".join([*lacking, *made["shortfalls"]]) or "-"
            paths = ", ".join(f"`{route['path']}`" for route in made["routes"])
            yield f"{engine.title} {first}{f' to {rest[-1][0]}' if rest else ''}", paths, missing


def _counts(known: Catalog) -> Iterator[tuple[str, int, int, int, int, int]]:
    for engine in known.engines.values():
        for version in _ordered(engine):
            table = routes.load(engine.name, version)
            door = routes.door(known, engine.name, version)
            passing = {(shape(route["path"]), method) for route in door["routes"] for method in route["methods"]}
            served = [route for route in table if not _passes(route, passing)]
            guards = [route.guard for route in served]
            admin = sum(route.administrative for route in served)
            yield (
                f"{engine.title} {version}", len(table), len(table) - len(served), guards.count("key"),
                guards.count("none"), admin,
            )  # fmt: skip


def _passes(route: routes.Route, passing: set[tuple[str, str]]) -> bool:
    return any((shape(route.path), method) in passing for method in route.methods)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or compare it. Returns the exit status."""
    return made_files.main(__doc__, lambda: {PAGE: page(catalog.load())}, "python tools/routes_page.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
