"""Read every HTTP route of a Python server from its source, without importing it.

The reader follows the server's app as Python would: it runs through the statements of a module or function by their
syntax tree, knows which names are a FastAPI app or a router, follows imports, included routers and calls that are
given the app, and notes every route with where it stands and under which conditions. What it cannot follow or
evaluate is an error with file and line, so a table of routes is whole or it is not made.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from tools.route_scope import Scope
from tools.route_values import Declared, Function, Holder, Imported, Module, ReadError, adds_a_route, negated


class Reader:
    """Reads servers below ``root``, the unpacked source of one wheel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Optional[Module]] = {}
        self._called: set[tuple[int, tuple[int, ...]]] = set()

    def app(self, module: str, made_by: Optional[str] = None) -> list[Declared]:
        """The routes of the app that ``made_by`` returns, or of the module's own ``app``, sorted by path.

        With the module's own, what its functions do with it is read as well. Raises ReadError.
        """
        found = self._module(module)
        if found is None:
            raise ReadError(f"{module}: expected a module of the engine below {self.root}, found none")
        self._run(found)
        if made_by is not None:
            function = found.names.get(made_by)
            if not isinstance(function, Function):
                raise ReadError(f"{self.at(found, found.tree)}: expected a function {made_by}, found none")
            app = self._call_function(function, [], {}, ())
        else:
            app = found.names.get("app")
            for node in ast.walk(found.tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    self.block(Scope(self, found, dict(found.names)), node.body, ())
        if not isinstance(app, Holder):
            raise ReadError(f"{self.at(found, found.tree)}: expected an app of FastAPI, found none")
        unique: dict[tuple[str, tuple[str, ...], str], Declared] = {}
        for route in app.all():
            unique.setdefault((route.path, route.methods, route.source), route)
        return sorted(unique.values(), key=lambda route: (route.path, route.methods, route.source))

    def tree(self, module: str) -> Optional[tuple[str, ast.Module]]:
        """Path below the root and syntax tree of a module; None where the wheel has none."""
        found = self._module(module)
        return (str(found.path.relative_to(self.root)), found.tree) if found else None

    def defines(self, module: str, function: Optional[str]) -> bool:
        """Whether there is such a module, and it defines this function (None: any)."""
        found = self._module(module)
        if found is None:
            return False
        return function is None or any(getattr(node, "name", None) == function for node in found.tree.body)

    def classes(self, name: str, folder: str) -> list[tuple[ast.Module, ast.ClassDef]]:
        """Every class of this name below a folder, with its module."""
        sources = (path.read_bytes() for path in sorted((self.root / folder).rglob("*.py")))
        trees = [ast.parse(source) for source in sources if f"class {name}".encode() in source]
        return [(tree, node) for tree in trees for node in tree.body if getattr(node, "name", None) == name]  # type: ignore[misc]

    def refuse_strays(self, found: Sequence[Declared], others: Sequence[str] = ()) -> None:
        """Refuse a wheel with a route that was not reached, unless its file makes an app of its own.

        ``others``: folders of other servers. Raises ReadError.
        """
        reached = {route.source for route in found}
        for path in sorted(self.root.rglob("*.py")):
            place = path.relative_to(self.root).as_posix()
            source = path.read_text(encoding="utf-8", errors="replace")
            if not re.search("fastapi|starlette", source) or place.startswith(tuple(others)):
                continue
            if re.search(r"\bFastAPI\(|\bweb\.Application\(", source):
                continue
            strays = [node for node in ast.walk(ast.parse(source)) if adds_a_route(node)]
            missed = [f"{place}:{node.lineno}" for node in strays if f"{place}:{node.lineno}" not in reached]
            if missed:
                raise ReadError(f"{missed[0]}: a route that no app of the engine was seen to get")

    # --- modules and names -----------------------------------------------------------------------------------------

    def _module(self, name: str) -> Optional[Module]:
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            path = next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)
            self._modules[name] = Module(name, path, ast.parse(path.read_bytes())) if path else None
        return self._modules[name]

    def _run(self, module: Module) -> None:
        if not module.ran:
            module.ran = True
            self.block(Scope(self, module, module.names), module.tree.body, ())

    def block(self, scope: Scope, body: Sequence[ast.stmt], when: tuple[str, ...]) -> None:
        """Follow statements under the conditions ``when``."""
        for statement in body:
            scope.run(statement, when)
            if isinstance(statement, ast.If) and not statement.orelse and isinstance(statement.body[-1], ast.Return):
                when = (*when, negated(statement.test))

    def names_of(self, name: str) -> dict[str, Any]:
        """What ``from name import *`` gives; nothing for a module outside the engine."""
        module = self._module(name)
        if module is None:
            return {}
        self._run(module)
        return module.names

    def resolve(self, value: Any) -> Any:
        """What an imported name is in its own module; the import itself where that is outside the engine."""
        for _step in range(20):
            if not isinstance(value, Imported) or value.name is None:
                return value
            module = self._module(value.module)
            if module is None:
                return value
            self._run(module)
            found = module.names.get(value.name)
            if found is None:
                inner = self._module(f"{value.module}.{value.name}")
                return Imported(inner.name, None) if inner else value
            value = found
        return value

    def call(
        self, function: Any, positional: Sequence[Any], named: dict[str, Any], when: tuple[str, ...]
    ) -> tuple[bool, Any]:
        """Whether the function is the engine's, and the holder that it returns."""
        function = self.resolve(function)
        if not isinstance(function, Function):
            return False, None
        return True, self._call_function(function, positional, named, when)

    def _call_function(
        self, function: Function, positional: Sequence[Any], named: dict[str, Any], when: tuple[str, ...]
    ) -> Any:
        taken = function.node.args
        names = [argument.arg for argument in (*taken.posonlyargs, *taken.args)]
        bound = {**dict(zip(names, positional, strict=False)), **named}
        holders = tuple(id(value) for value in bound.values() if isinstance(value, Holder))
        key = (id(function.node), holders)
        if key in self._called:
            return None
        self._called.add(key)
        known = {name: value for name, value in bound.items() if value is not None}
        scope = Scope(self, function.module, {**function.module.names, **known})
        self.block(scope, function.node.body, when)
        return scope.returned

    def at(self, module: Module, node: ast.AST) -> str:
        """File and line."""
        return f"{module.path.relative_to(self.root)}:{getattr(node, 'lineno', 1)}"
