#!/usr/bin/env python3
"""Regenerate catalog/engines/<engine>/routes/<version>.json from the source in each engine version's wheel.

Needs no engine: tools/route_reader.py follows the syntax tree. Each route has its path, its methods, the source line,
the conditions under which the source adds it (``when``), and what the engine itself asks for (``guard``):

- none: nothing, not even the key of clients;
- key: the key of clients;
- admin: the admin key, and the key of clients where no admin key is set;
- admin_only: the admin key. ::

    python tools/route_tables.py                     # every version the catalogue knows
    python tools/route_tables.py vllm:0.32.0         # one
    python tools/route_tables.py --check             # exit 1 when a committed table differs
"""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simulator.engines import wheels
from tools import version_tables
from tools.route_reader import Reader
from tools.route_values import WEBSOCKET, Declared, ReadError

Guard = Callable[[Declared], str]


@dataclasses.dataclass(frozen=True)
class Server:
    """Where an engine makes the app that it serves, and how it guards it.

    ``modules``: where the app is made, the first that has it (engines move their files). ``made_by``: the function that
    returns it; None where it is the module's own ``app``. ``others``: folders of other servers in the same wheel.
    """

    modules: list[str]
    made_by: Optional[str]
    guard: Callable[[Reader], Guard]
    others: tuple[str, ...] = ()


def _by_prefix(reader: Reader) -> Guard:
    """The key is asked for below some prefixes, by the class AuthenticationMiddleware."""
    [(module, middleware)] = reader.classes("AuthenticationMiddleware", "vllm/entrypoints")
    guarded = tuple(_prefixes(module, middleware, "url_path"))
    sockets = any(isinstance(node, ast.Constant) and node.value == "websocket" for node in ast.walk(middleware))

    def guard(route: Declared) -> str:
        asked = route.path.startswith(guarded) and (sockets or WEBSOCKET not in route.methods)
        return "key" if asked else "none"

    return guard


def _by_level(reader: Reader) -> Guard:
    """The key is asked for everywhere but below some prefixes; handlers that a decorator marks want the admin's."""
    _path, tree = reader.tree("sglang.srt.utils.auth") or ("", ast.Module([], []))
    open_below = tuple(_prefixes(tree, tree, "path"))
    levels = {"NORMAL": "key", "ADMIN_OPTIONAL": "admin", "ADMIN_FORCE": "admin_only"}

    def guard(route: Declared) -> str:
        # The middleware passes whatever is not plain HTTP.
        if route.path.startswith(open_below) or WEBSOCKET in route.methods:
            return "none"
        for decorator in route.handler.decorator_list if route.handler else ():
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith("auth_level"):
                level = ast.unparse(decorator.args[0]).rpartition(".")[2]
                if level not in levels:
                    raise ReadError(f"{route.source}: unknown level of authentication {level}")
                return levels[level]
        return "key"

    return guard


SERVERS = {
    "vllm": Server(["vllm.entrypoints.launchers.app", "vllm.entrypoints.openai.api_server"], "build_app", _by_prefix),
    "sglang": Server(["sglang.srt.entrypoints.http_server"], None, _by_level, ("sglang/multimodal_gen",)),
}


def _prefixes(module: ast.Module, where: ast.AST, variable: str) -> Iterator[str]:
    """The texts in ``variable.startswith(...)``: one, several, or a constant of the module."""
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: list[str] = []
    for node in ast.walk(where):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{variable}.startswith":
            given = node.args[0]
            value = ast.literal_eval(constants[given.id] if isinstance(given, ast.Name) else given)
            found += [value] if isinstance(value, str) else list(value)
    if not found:
        raise ReadError(f"the guard of the routes compares {variable} with no prefix; it has another shape now")
    yield from found


def read(engine: str, version: str, source: Optional[Path] = None) -> list[dict[str, object]]:
    """The rows of one table, by path. Raises ReadError for source that cannot be evaluated."""
    server = SERVERS[engine]
    reader = Reader(source or wheels.fetch_source(engine, version))
    module = next((name for name in server.modules if reader.defines(name, server.made_by)), server.modules[0])
    found = reader.app(module, server.made_by)
    reader.refuse_strays(found, server.others)
    guard = server.guard(reader)
    return [_row(route, guard(route)) for route in found]


def _row(route: Declared, guard: str) -> dict[str, object]:
    row: dict[str, object] = {"path": route.path, "methods": list(route.methods), "guard": guard}
    return {**row, "source": route.source, **({"when": list(route.when)} if route.when else {})}


def render(engine: str, version: str) -> str:
    """The text of one table: a route per line, so that a new version is a readable diff."""
    rows = ",\n".join("  " + json.dumps(row) for row in read(engine, version))
    head = f' "engine": {json.dumps(engine)}, "version": {json.dumps(version)},'
    return f'{{\n{head}\n "routes": [\n{rows}\n ]\n}}\n'


if __name__ == "__main__":
    sys.exit(version_tables.main(__doc__, "routes", "path", render))
