"""What the reader of routes works with: routes, apps and routers, imports, functions; questions to a syntax tree."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, TypeGuard, Union

METHODS = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}
# A mounted app decides by itself; so may a route of Starlette without methods for a class.
ANY = "ANY"
WEBSOCKET = "WEBSOCKET"


class ReadError(RuntimeError):
    """Source that the reader does not understand; the text starts with file and line."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """One route: its path and methods, the function that answers, where it stands, and the conditions there."""

    path: str
    methods: tuple[str, ...]
    source: str
    when: tuple[str, ...] = ()
    handler: Optional[Union[ast.FunctionDef, ast.AsyncFunctionDef]] = None


@dataclasses.dataclass
class Holder:
    """An app or a router: what is declared on it, and the routers that it includes with their prefix."""

    prefix: str = ""
    routes: list[Declared] = dataclasses.field(default_factory=list)
    included: list[tuple[Holder, str, tuple[str, ...]]] = dataclasses.field(default_factory=list)

    def all(self) -> Iterator[Declared]:
        """Its own routes and those of what it includes, with prefixes and conditions."""
        for route in self.routes:
            yield dataclasses.replace(route, path=self.prefix + route.path)
        for router, prefix, when in self.included:
            for route in router.all():
                path = self.prefix + prefix + route.path
                yield dataclasses.replace(route, path=path, when=tuple(dict.fromkeys((*when, *route.when))))


@dataclasses.dataclass(frozen=True)
class Imported:
    module: str
    name: Optional[str]  # None: the module itself


@dataclasses.dataclass(frozen=True)
class Mounted:
    """``Mount(path, app)`` before it is appended to an app's routes."""

    path: str


@dataclasses.dataclass(frozen=True)
class RoutesOf:
    """The variable of a loop over the routes of routers."""

    holders: tuple[Holder, ...]


@dataclasses.dataclass(frozen=True)
class Function:
    module: Module
    node: Union[ast.FunctionDef, ast.AsyncFunctionDef]


@dataclasses.dataclass(eq=False)
class Module:
    name: str
    path: Path
    tree: ast.Module
    names: dict[str, Any] = dataclasses.field(default_factory=dict)
    ran: bool = False


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """The calls of an expression or statement, inner ones first, without nested functions and blocks."""
    for name, field in ast.iter_fields(node):
        if name in ("body", "orelse", "finalbody", "handlers", "decorator_list") and isinstance(node, ast.stmt):
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST) and not isinstance(child, (ast.Lambda, ast.stmt)):
                yield from calls_in(child)
    if isinstance(node, ast.Call):
        yield node


def adds_a_route(node: ast.AST) -> TypeGuard[ast.Call]:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return False
    path = node.args[0]
    adds = node.func.attr in METHODS | {"api_route", "websocket", "add_api_route", "add_route", "mount"}
    return adds and isinstance(path, ast.Constant) and str(path.value).startswith("/")


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of names and attributes; calls in between are left out."""
    if isinstance(node, ast.Call):
        return dotted(node.func)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        # Instrumentator(...).add().instrument(app): what was built matters, and the method called last.
        return f"{owner.split('.')[0] if isinstance(node.value, ast.Call) else owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def negated(test: ast.expr) -> str:
    """The opposite of a condition."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return ast.unparse(test.operand)
    return f"not ({ast.unparse(test)})"
