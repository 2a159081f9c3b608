"""Follow the statements of one module or function for tools/route_reader.py: what becomes of its apps and routers."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from tools.route_values import (
    ANY,
    METHODS,
    WEBSOCKET,
    Declared,
    Function,
    Holder,
    Imported,
    Module,
    Mounted,
    ReadError,
    RoutesOf,
    calls_in,
    dotted,
    is_none,
    negated,
)

if TYPE_CHECKING:
    from tools.route_reader import Reader

# What FastAPI serves by itself: the argument that moves or removes it, its usual path, the attribute that holds it.
_OWN = {
    "openapi_url": "/openapi.json",
    "docs_url": "/docs",
    "swagger_ui_oauth2_redirect_url": "/docs/oauth2-redirect",
    "redoc_url": "/redoc",
}
# Methods of an app or a router that add no route.
_HARMLESS = {"add_middleware", "middleware", "exception_handler", "add_exception_handler", "on_event", "openapi"}
# Calls outside the engine that are given its app, by the end of their name: the routes that they add.
_OUTSIDE: dict[str, list[tuple[str, list[str]]]] = {
    "Instrumentator.instrument": [],
    "Instrumentator.expose": [("/metrics", ["GET"])],
    # model_hosting_container_standards 0.1.16, sagemaker/sagemaker_router.py: a route per registered handler.
    "model_hosting_container_standards.sagemaker.bootstrap": [
        ("/ping", ["GET"]),
        ("/invocations", ["POST"]),
        ("/adapters", ["POST"]),
        ("/adapters/{adapter_name}", ["DELETE"]),
    ],
    "uvicorn.run": [],
    "uvicorn.Config": [],
    # Packages that were installed beside the engine; its images hold none.
    "plugin.attach_router": [],
    "FastAPIInstrumentor.instrument_app": [],
    "getattr": [],
    "isinstance": [],
    "hasattr": [],
}


class Scope:
    """The names of one module or function while its statements are followed."""

    def __init__(self, reader: Reader, module: Module, names: dict[str, Any]) -> None:
        self.reader = reader
        self.module = module
        self.names = names
        self.returned: Any = None

    def at(self, node: ast.AST) -> str:
        """File and line."""
        return self.reader.at(self.module, node)

    def run(self, node: ast.stmt, when: tuple[str, ...]) -> None:
        """Follow one statement."""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._function(node, when)
        elif isinstance(node, ast.If):
            self._if(node, when)
        elif isinstance(node, (ast.With, ast.AsyncWith, ast.For, ast.AsyncFor, ast.While)):
            self._calls_of(node, when)
            self._loop(node)
            self.reader.block(self, [*node.body, *getattr(node, "orelse", [])], when)
        elif isinstance(node, ast.Try):
            handlers = [inner for handler in node.handlers for inner in handler.body]
            self.reader.block(self, [*node.body, *handlers, *node.orelse, *node.finalbody], when)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node, when)
        elif isinstance(node, ast.Return):
            self._calls_of(node, when)
            value = self.value(node.value)
            self.returned = value if isinstance(value, Holder) else self.returned
        elif not isinstance(node, ast.ClassDef):
            self._calls_of(node, when)

    def _loop(self, node: ast.stmt) -> None:
        """Know the variable of ``for route in (*router.routes, *other.routes)``."""
        if not isinstance(node, ast.For) or not isinstance(node.target, ast.Name):
            return
        listed = node.iter.elts if isinstance(node.iter, (ast.Tuple, ast.List)) else [node.iter]
        parts = [part.value if isinstance(part, ast.Starred) else part for part in listed]
        owners = [self.value(part.value) for part in parts if isinstance(part, ast.Attribute) and part.attr == "routes"]
        holders = tuple(owner for owner in owners if isinstance(owner, Holder))
        if holders:
            self.names[node.target.id] = RoutesOf(holders)

    def _if(self, node: ast.If, when: tuple[str, ...]) -> None:
        self._calls_of(node.test, when)
        test = ast.unparse(node.test)
        if "__name__" in test or test == "TYPE_CHECKING":
            return
        self.reader.block(self, node.body, (*when, test))
        self.reader.block(self, node.orelse, (*when, negated(node.test)))

    def _import(self, node: Union[ast.Import, ast.ImportFrom]) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                self.names[name] = Imported(alias.name if alias.asname else name, None)
            return
        base = node.module or ""
        if node.level:
            package = self.module.name.split(".")
            up = node.level - (self.module.path.name == "__init__.py")
            package = package[: len(package) - up] if up else package
            base = ".".join([*package, *([node.module] if node.module else [])])
        for alias in node.names:
            if alias.name == "*":
                self.names.update(self.reader.names_of(base))
            else:
                self.names[alias.asname or alias.name] = Imported(base, alias.name)

    def _assign(self, node: Union[ast.Assign, ast.AnnAssign], when: tuple[str, ...]) -> None:
        made = self._made(node.value, when)
        if made is None:
            made = self._calls_of(node, when)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if not isinstance(target, ast.Name):
                continue
            known = self.names.get(target.id)
            if isinstance(made, Holder) and isinstance(known, Holder) and made is not known:
                # The app of another branch: what is done with it later is done with either.
                known.routes += made.routes
            elif made is not None:
                self.names[target.id] = made
            elif node.value is not None and not isinstance(known, Holder):
                value = self.value(node.value)
                self.names[target.id] = value if isinstance(value, Holder) else node.value

    def _made(self, node: Optional[ast.expr], when: tuple[str, ...]) -> Any:
        """The app, router or mount that a call makes; None for every other expression."""
        if not isinstance(node, ast.Call):
            return None
        kind = dotted(node.func).rpartition(".")[2]
        if kind == "FastAPI":
            return Holder(routes=list(self._own(node, when)))
        if kind == "APIRouter":
            return Holder(prefix=self._text_argument(node, "prefix"))
        if kind == "Mount" and node.args:
            return Mounted(self.text(node.args[0]))
        return None

    def _own(self, node: ast.Call, when: tuple[str, ...]) -> Iterator[Declared]:
        given = {word.arg: word.value for word in node.keywords}
        paths = {}
        for name, usual in _OWN.items():
            value = given.get(name)
            if isinstance(value, ast.IfExp):  # not disabled for certain
                value = next((one for one in (value.body, value.orelse) if not is_none(one)), value.body)
            if value is None:
                paths[name] = usual
            elif not is_none(value):
                paths[name] = self.text(value)
        if "openapi_url" not in paths:
            return
        if "docs_url" not in paths:
            paths.pop("swagger_ui_oauth2_redirect_url", None)
        for path in paths.values():
            yield Declared(path, ("GET", "HEAD"), self.at(node), when)

    def _function(self, node: Union[ast.FunctionDef, ast.AsyncFunctionDef], when: tuple[str, ...]) -> None:
        self.names[node.name] = Function(self.module, node)
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Attribute):
                continue
            holder = self.value(decorator.func.value)
            if isinstance(holder, Holder):
                self._method(holder, decorator, when, node)

    # --- calls -----------------------------------------------------------------------------------------------------

    def _calls_of(self, node: ast.AST, when: tuple[str, ...]) -> Any:
        """Follow the calls of an expression or of the head of a statement; the holder that the last one gives."""
        last = None
        for call in calls_in(node):
            made = self._call(call, when)
            last = made if made is not None else last
        return last

    def _call(self, node: ast.Call, when: tuple[str, ...]) -> Any:
        func = node.func
        if isinstance(func, ast.Attribute):
            target = func.value
            if isinstance(target, ast.Attribute) and target.attr in ("router", "routes"):
                inner = self.value(target.value)
                if isinstance(inner, Holder):
                    return self._routes_call(inner, node, when)
            holder = self.value(target)
            if isinstance(holder, Holder):
                return self._method(holder, node, when, None)
        positional = [self.value(value) for value in node.args]
        named = {word.arg: self.value(word.value) for word in node.keywords if word.arg}
        if not any(isinstance(value, Holder) for value in (*positional, *named.values())):
            return None
        ours, returned = self.reader.call(self._callee(func), positional, named, when)
        return returned if ours else self._outside(node, [*positional, *named.values()], when)

    def _callee(self, func: ast.expr) -> Any:
        """The function that a call names: a name, or an attribute of an imported module."""
        if isinstance(func, ast.Name):
            return self.names.get(func.id)
        if isinstance(func, ast.Attribute):
            owner = self.reader.resolve(self._callee(func.value))
            if isinstance(owner, Imported):
                base = owner.module if owner.name is None else f"{owner.module}.{owner.name}"
                return Imported(base, func.attr)
        return None

    def _outside(self, node: ast.Call, values: Sequence[Any], when: tuple[str, ...]) -> None:
        name = dotted(node.func)
        callee = self._callee(node.func)
        if isinstance(callee, Imported) and callee.name is not None:
            name = f"{callee.module}.{callee.name}"
        added = next((routes for end, routes in _OUTSIDE.items() if f".{name}".endswith(f".{end}")), None)
        if added is None:
            raise ReadError(
                f"{self.at(node)}: {name} is given the app, and its source is not in the wheel. Find out which routes "
                "it adds and list it in _OUTSIDE of tools/route_scope.py"
            )
        for holder in values:
            if isinstance(holder, Holder):
                holder.routes += [Declared(path, tuple(methods), self.at(node), when) for path, methods in added]

    def _routes_call(self, holder: Holder, node: ast.Call, when: tuple[str, ...]) -> None:
        method = node.func.attr  # type: ignore[attr-defined]
        if method in ("append", "insert"):
            mounted = self.value(node.args[-1]) or self._made(node.args[-1], when)
            if not isinstance(mounted, Mounted):
                raise ReadError(f"{self.at(node)}: a route is appended that is not a Mount: {ast.unparse(node)}")
            holder.routes.append(Declared(mounted.path, (ANY,), self.at(node), when))
        elif method not in ("index", "copy"):
            self._method(holder, node, when, None)

    def _method(
        self,
        holder: Holder,
        node: ast.Call,
        when: tuple[str, ...],
        handler: Optional[Union[ast.FunctionDef, ast.AsyncFunctionDef]],
    ) -> None:
        """A call of a method of an app or router, as a decorator or by itself."""
        method = node.func.attr  # type: ignore[attr-defined]
        if method in _HARMLESS:
            return
        if method in ("include_router", "mount", "host"):
            self._attach(holder, method, node, when)
            return
        copied = self._copied(node)
        if copied is not None:
            holder.included += [(router, "", when) for router in copied.holders]
            return
        if method in METHODS:
            methods: tuple[str, ...] = (method.upper(),)
        elif method in ("websocket", "add_api_websocket_route", "add_websocket_route", "websocket_route"):
            methods = (WEBSOCKET,)
        elif method in ("api_route", "add_api_route"):
            methods = self._methods(node, ("GET",))
        elif method in ("route", "add_route"):
            methods = self._methods(node, ("GET", "HEAD"))
        else:
            raise ReadError(f"{self.at(node)}: unknown method .{method}() of an app; does it add routes?")
        path = self._word(node, "path", 0)
        if path is None:
            raise ReadError(f"{self.at(node)}: a route without a path: {ast.unparse(node)}")
        if handler is None and len(node.args) > 1:
            function = self.reader.resolve(self._callee(node.args[1]))
            handler = function.node if isinstance(function, Function) else None
        holder.routes.append(Declared(self.text(path), methods, self.at(node), when, handler))

    def _attach(self, holder: Holder, method: str, node: ast.Call, when: tuple[str, ...]) -> None:
        if method == "host":
            raise ReadError(f"{self.at(node)}: routes by host name are not read")
        if method == "mount":
            path = self._word(node, "path", 0)
            if path is None:
                raise ReadError(f"{self.at(node)}: a mount without a path: {ast.unparse(node)}")
            holder.routes.append(Declared(self.text(path), (ANY,), self.at(node), when))
            return
        router = self.value(self._word(node, "router", 0))
        if not isinstance(router, Holder):
            raise ReadError(f"{self.at(node)}: {ast.unparse(node)} includes what is not known to be a router")
        holder.included.append((router, self._text_argument(node, "prefix"), when))

    def _copied(self, node: ast.Call) -> Optional[RoutesOf]:
        """The routers whose routes ``add_api_route(route.path, ...)`` repeats in a loop."""
        path = self._word(node, "path", 0)
        if isinstance(path, ast.Attribute) and path.attr == "path" and isinstance(path.value, ast.Name):
            found = self.names.get(path.value.id)
            return found if isinstance(found, RoutesOf) else None
        return None

    def _methods(self, node: ast.Call, usual: tuple[str, ...]) -> tuple[str, ...]:
        given = self._word(node, "methods", None)
        if given is None:
            return usual
        try:
            value = ast.literal_eval(given)
        except ValueError:
            raise ReadError(f"{self.at(node)}: methods cannot be evaluated: {ast.unparse(given)}") from None
        return tuple(sorted(str(method).upper() for method in value))

    # --- values ----------------------------------------------------------------------------------------------------

    def value(self, node: Optional[ast.expr]) -> Any:
        """The holder or mount that an expression names; None for every other."""
        if isinstance(node, ast.Await):
            return self.value(node.value)
        if isinstance(node, (ast.Name, ast.Attribute)):
            found = self.reader.resolve(self._callee(node))
            return found if isinstance(found, (Holder, Mounted)) else None
        return None

    def _word(self, node: ast.Call, name: str, position: Optional[int]) -> Optional[ast.expr]:
        found = next((word.value for word in node.keywords if word.arg == name), None)
        if found is None and position is not None and len(node.args) > position:
            return node.args[position]
        return found

    def _text_argument(self, node: ast.Call, name: str) -> str:
        found = self._word(node, name, None)
        return "" if found is None else self.text(found)

    def text(self, node: ast.expr, depth: int = 0) -> str:
        """The text that an expression is. A path that only an environment variable gives is ``$NAME``."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.FormattedValue) else part for part in node.values]
            return "".join(self.text(part, depth) for part in parts)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left, depth) + self.text(node.right, depth)
        if isinstance(node, ast.Call) and dotted(node.func) in ("os.environ.get", "os.getenv") and node.args:
            if len(node.args) > 1:
                return self.text(node.args[1], depth)
            return f"${self.text(node.args[0], depth)}"
        if isinstance(node, ast.Attribute) and node.attr in _OWN:
            return _OWN[node.attr]
        if isinstance(node, (ast.Name, ast.Attribute)) and depth < 20:
            found = self.reader.resolve(self._callee(node))
            if isinstance(found, ast.expr):
                return self.text(found, depth + 1)
        raise ReadError(f"{self.at(node)}: the path cannot be evaluated: {ast.unparse(node)}")
