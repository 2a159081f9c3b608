# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a front door let pass what it should and nothing else, of all the routes that an engine has?

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. What the engine has is what it
says itself (``/openapi.json``), and what the table of its version says, which also knows routes that it does not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.serving.client import CheckError, Endpoint, ask, glance

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MOST_NAMED = 5
Route = tuple[str, str]
# What the door answers itself, without a key.
_OF_DOOR: Route = ("GET", "/ready")


def check(door: Endpoint, passing: Sequence[Mapping[str, Any]], known: Iterable[Mapping[str, Any]]) -> str:
    """Ask the door for every route. Raises CheckError for one that passes and should not, or the other way round.

    ``passing`` are the plan's routes, ``known`` those of the table; each has ``path`` and ``methods``.
    """
    allowed = [(method, shape(row["path"])) for row in passing for method in row["methods"]]
    shown = _of_engine(door.of_engine)
    every = sorted({*_rows(known), *_rows(passing), *shown} - {_OF_DOOR})
    _require(door, every, allowed, None, 401)
    # Only now: a door that lets an administrator's route pass must not be asked for it with a key.
    _require(door, [route for route in every if (route[0], shape(route[1])) not in allowed], allowed, door.api_key, 404)
    own = f"{len(shown)} of its own list" if shown else "which shows no list of its own"
    return (
        f"{len(every)} routes of the engine, {own}: {len(allowed)} for clients ask for a key, the others are not found"
    )


def _rows(rows: Iterable[Mapping[str, Any]]) -> list[Route]:
    return [(method, str(row["path"])) for row in rows for method in row["methods"] if method in METHODS]


def _of_engine(engine: Endpoint) -> list[Route]:
    """The routes that an engine lists itself; none when it lists none without a key."""
    answer = glance(engine, "/openapi.json")
    paths = answer.body.get("paths") if answer and answer.status == 200 and isinstance(answer.body, dict) else None
    if not isinstance(paths, dict):
        return []
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        if isinstance(methods, dict)
        for method in methods
        if method.upper() in METHODS
    ]


def _require(door: Endpoint, every: Sequence[Route], allowed: Sequence[Route], key: Any, keyed: int) -> None:
    """Raises CheckError unless clients' routes answer ``keyed``, and the others 404."""
    wrong = []
    for method, path in every:
        wanted = keyed if (method, shape(path)) in allowed else 404
        status = ask(door, method, re.sub(r"\{[^}]*\}", "x", path), {} if method != "GET" else None, key).status
        if status != wanted:
            wrong.append(f"{method} {path} answers {status}, not {wanted}")
    if wrong:
        how = "without a key" if key is None else "with a client's key"
        more = f", and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise CheckError(
            f"{how}: {', '.join(wrong[:_MOST_NAMED])}{more}",
            "run deploy.yml, which writes the front door's configuration; stop the endpoint until then if it is public",
        )


def shape(path: str) -> str:
    """A path without the names of its parameters: ``/v1/models/{model:path}`` and ``/v1/models/{id}`` are alike."""
    return re.sub(r"\{[^}]*\}", "{}", path)
