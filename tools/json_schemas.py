#!/usr/bin/env python3
"""Make the JSON Schemas under docs/schemas/ from the types that the code itself is checked against.

Reports and plans are TypedDicts. What the catalogue holds are dataclasses; their schemas let editors complete and check
its files.

A class's docstring becomes its description, and so does a string that follows a key; ``Annotated[int, "bytes"]`` is an
int with its unit, which becomes a ``$comment``. ::

    python tools/json_schemas.py             # write every schema
    python tools/json_schemas.py --check     # exit 1 when a committed one differs
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import importlib
import inspect
import json
import sys
import textwrap
import types
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeGuard,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import required
from tools import made_files

FOLDER = ROOT / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
COLLECTION = "ansible_collections.glm.fleet.plugins"
# File, module and type; a type may be a Union of TypedDicts.
SCHEMAS: dict[str, tuple[str, str]] = {
    "plan.schema.json": ("plugin_utils.plan.schema", "Plan"),
    "report.schema.json": ("plugin_utils.report", "Report"),
    "status.schema.json": ("plugin_utils.serving.fleet", "StatusReport"),
}
_PRIMITIVES: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    Any: {},
    object: {},
    # As an editor sees it.
    datetime.date: {"type": "string", "format": "date"},
}


class Unsupported(TypeError):
    """A type that has no JSON Schema here."""


def json_schema(wanted: Any, title: str) -> dict[str, Any]:
    """The schema (2020-12) of a TypedDict, or of a Union of them. Every TypedDict within it is one of ``$defs``.

    Keys that no TypedDict declares are not allowed. Raises Unsupported for a type with no counterpart in JSON.
    """
    found: dict[str, dict[str, Any]] = {}
    top = _of(wanted, found)
    head = {"$schema": DIALECT, "title": title}
    return {**head, **top, "$defs": dict(sorted(found.items()))}


def _of(wanted: Any, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if is_typeddict(wanted):
        name = wanted.__name__
        if name not in found:
            found[name] = {}  # A type may hold itself.
            found[name] = _object(wanted, found)
        return {"$ref": f"#/$defs/{name}"}
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _record(wanted, found)
    if wanted in _PRIMITIVES:
        return dict(_PRIMITIVES[wanted])
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return {"const": args[0]} if len(args) == 1 else {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(arg, found) for arg in args]}
    if origin in (NotRequired, Required):
        return _of(args[0], found)
    if origin is Annotated:
        return {**_of(args[0], found), "$comment": args[1]}
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return {
            "type": "array",
            "prefixItems": [_of(arg, found) for arg in args],
            "minItems": len(args),
            "items": False,
        }
    if isinstance(origin, type) and issubclass(origin, Mapping) and args[0] is str:
        value = args[1]
        # A record in a mapping is called as its key.
        known = _record(value, found, {"name"}) if dataclasses.is_dataclass(value) else _of(value, found)
        return {"type": "object", "additionalProperties": known}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _of(args[0], found)}
    raise Unsupported(f"no JSON Schema for {wanted!r}")


def _record(wanted: Any, found: dict[str, dict[str, Any]], known: Collection[str] = ()) -> dict[str, Any]:
    """A dataclass as catalog/build.py reads it; the fields in ``known`` need no key."""
    name = wanted.__name__
    if name not in found:
        found[name] = {}
        found[name] = _fields(wanted, found, known)
    reference = {"$ref": f"#/$defs/{name}"}
    return {"anyOf": [{"type": "string"}, reference]} if hasattr(wanted, "of_text") else reference


def _fields(wanted: Any, found: dict[str, dict[str, Any]], known: Collection[str] = ()) -> dict[str, Any]:
    hints = get_type_hints(wanted)
    return {
        "type": "object",
        "description": _flowing(wanted.__doc__),
        "properties": {item.name: _of(hints[item.name], found) for item in dataclasses.fields(wanted)},
        "required": sorted(required(wanted, hints) - set(known)),
        "additionalProperties": False,
    }


def catalogue_schemas() -> dict[str, dict[str, Any]]:
    """The schemas of the catalogue's files, for editors: file name to schema. An engine's files share one."""
    load, engine, platforms, rocm, apt_keys, known, intent, kernel_log = (
        importlib.import_module(f"{COLLECTION}.plugin_utils.{name}")
        for name in (
            "catalog.load", "catalog.engine", "catalog.platforms", "catalog.rocm", "catalog.apt_keys", "catalog.known",
            "intent.table", "catalog.kernel_log",
        )
    )  # fmt: skip
    made = {stem: _keyed(keys) for stem, keys in load.FILES.items()}
    made["engine"] = _keyed(get_type_hints(engine.Engine), required=False, without=("name",))
    made["platforms"] = _keyed(get_type_hints(platforms.Table))
    made["apt_keys"] = _keyed(get_type_hints(apt_keys.Table))
    made["kernel_log"] = _keyed(get_type_hints(kernel_log.Table))
    made["known"] = _keyed(get_type_hints(known.Table))
    made["rocm"] = _keyed(get_type_hints(rocm.Matrix))
    made["variables"] = _keyed(get_type_hints(intent.Content))
    return {f"catalog/{stem}.schema.json": schema for stem, schema in made.items()}


def _keyed(keys: Mapping[str, Any], required: bool = True, without: Collection[str] = ()) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    properties = {key: _of(hint, found) for key, hint in keys.items() if key not in without}
    needed = {"required": sorted(properties)} if required else {}
    top = {"type": "object", "properties": properties, **needed, "additionalProperties": False}
    return {"$schema": DIALECT, **top, "$defs": dict(sorted(found.items()))}


def _object(wanted: Any, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    hints = get_type_hints(wanted, include_extras=True)
    texts = _key_texts(wanted)
    properties = {}
    for key, hint in hints.items():
        described = {"description": texts[key]} if key in texts else {}
        properties[key] = {**_of(hint, found), **described}
    doc = {"description": _flowing(wanted.__doc__)} if wanted.__doc__ else {}
    return {
        "type": "object",
        **doc,
        "properties": properties,
        "required": sorted(key for key, hint in hints.items() if _required(wanted, key, hint)),
        "additionalProperties": False,
    }


def _required(wanted: Any, key: str, hint: Any) -> bool:
    # With postponed annotations __required_keys__ knows the class's own "total" only.
    if get_origin(hint) in (NotRequired, Required):
        return get_origin(hint) is Required
    return key in wanted.__required_keys__


def _key_texts(wanted: Any) -> dict[str, str]:
    """The string after each key, of the class and of those of its module that it extends."""
    texts: dict[str, str] = {}
    # A TypedDict forgets what it extends.
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(wanted))).body
    if not isinstance(definition, ast.ClassDef):
        return texts
    for base in definition.bases:
        named = getattr(inspect.getmodule(wanted), base.id, None) if isinstance(base, ast.Name) else None
        if is_typeddict(named):
            texts.update(_key_texts(named))
    for key, text in zip(definition.body, definition.body[1:]):
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and _is_text(text):
            texts[key.target.id] = _flowing(ast.literal_eval(text.value))
    return texts


def _is_text(node: ast.stmt) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _flowing(text: str) -> str:
    return " ".join(text.split())


def rendered() -> dict[Path, str]:
    """The text of each schema file."""
    made = {}
    for name, (module, type_name) in SCHEMAS.items():
        wanted = getattr(importlib.import_module(f"{COLLECTION}.{module}"), type_name)
        made[name] = json_schema(wanted, f"glm.fleet {name.partition('.')[0]}")
    made.update(catalogue_schemas())
    return {FOLDER / name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schemas, or compare them. Returns the exit status."""
    return made_files.main(__doc__, rendered, "python tools/json_schemas.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
