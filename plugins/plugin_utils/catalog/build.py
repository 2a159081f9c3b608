# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build typed records from YAML: a dataclass is the schema.

A key that no field has, a field without a key, or a value of another type is an error that names file, entry and key.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean

T = TypeVar("T")


class CatalogError(QuotingError, ValueError):
    """A catalogue file is missing, is not YAML, or breaks the schema; the text names file, entry and key."""


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _OnceLoader(_LOADER):  # type: ignore[misc, valid-type]
    """Refuses a key that stands twice in a mapping, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _value in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def read(path: Path, keys: set[str]) -> dict[str, Any]:
    """A catalogue file that has exactly these top-level keys. Raises CatalogError."""
    data: dict[str, Any] = _parsed(path, f"catalog/{path.name}")
    if not isinstance(data, dict) or set(data) != keys:
        found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise CatalogError(f"catalog/{path.name}: expected the top-level keys {sorted(keys)}, found {found}")
    return data


def read_some(path: Path, keys: set[str]) -> dict[str, Any]:
    """A file of a team's catalogue: it has some of these top-level keys, each once. Raises CatalogError."""
    data = _parsed(path, str(path), _OnceLoader)
    found = _mapping({} if data is None else data, str(path))
    for key in found:
        if key not in keys:
            raise CatalogError(f"{path}: {_unknown_key(key, keys)}; known are {', '.join(sorted(keys))}")
    return found


def _parsed(path: Path, where: str, loader: Any = _LOADER) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError) as exc:
        raise CatalogError(f"{where}: cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise CatalogError(f"{where}: is not YAML: {exc}") from exc


def record(kind: type[T], path: Path) -> T:
    """A catalogue file of its own as one record: its top-level keys are the fields of ``kind``. Raises CatalogError."""
    hints = _hints(kind)  # type: ignore[arg-type]
    data = read(path, set(hints))
    return kind(**{key: build(hints[key], value, f"catalog/{path.name}: {key}") for key, value in data.items()})


def folder(kind: type[T], path: Path) -> T:
    """A folder of the catalogue as one record: it is the record's ``name``, the keys of its files the other fields.

    Raises CatalogError.
    """
    where = f"catalog/{path.parent.name}/{path.name}"
    data: dict[str, Any] = {"name": path.name}
    places = {"name": where}
    for file in sorted(path.glob("*.yml")):
        for key, value in _mapping(_parsed(file, f"{where}/{file.name}"), f"{where}/{file.name}").items():
            if key in data:
                raise CatalogError(f"{where}/{file.name}: {key} is already in {places[key].removeprefix('catalog/')}")
            data[key], places[key] = value, f"{where}/{file.name}: {key}"
    return _record(kind, data, where, places)


def _mapping(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CatalogError(f"{where}: expected a mapping, found {_type_name(data)}")
    return data


def _unknown_key(key: Any, known: Iterable[str]) -> str:
    return f"unknown key {key!r}{did_you_mean(str(key), known)}"


def _record(kind: type[T], data: Any, where: str, places: Mapping[str, str] | None = None, base: Any = None) -> T:
    """``places``: where each key stands, if not all are in ``where``. ``base``: the record to lay the data over."""
    data = _mapping(data, where)
    hints = _hints(kind)  # type: ignore[arg-type]
    for key in data:
        if key not in hints:
            raise CatalogError(f"{where}: {_unknown_key(key, hints)}")
    places = places or {key: f"{where}.{key}" for key in data}
    values = {key: build(hints[key], value, places[key], getattr(base, key, None)) for key, value in data.items()}
    if base is not None:
        changed: T = dataclasses.replace(base, **values)
        return changed
    missing = sorted(required(kind, hints) - set(data))
    if missing:
        raise CatalogError(f"{where}: missing key {', '.join(missing)}")
    absent = dict.fromkeys(set(_without_default(kind)) - set(data))
    return kind(**values, **absent)


def required(kind: Any, hints: Mapping[str, Any]) -> set[str]:
    """The fields of a record that need a key. One that may be None may be left out, even without a default."""
    return {name for name in _without_default(kind) if not _optional(hints[name])}


def _without_default(kind: Any) -> list[str]:
    return [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a record's fields. To evaluate the annotations takes longer than to build a record with them."""
    return typing.get_type_hints(kind)


def _optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint)


def build(hint: Any, data: Any, where: str, base: Any = None) -> Any:
    """``data`` as a type hint says, with records for mappings; ``where``: file and entry. Raises CatalogError.

    A record that may be written as one word has a class method ``of_text``; one with a ``name`` in a mapping is called
    as its key. ``base`` is what the data is laid over: records and mappings keep what the data does not name, all else
    is replaced.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if _optional(hint):
        return None if data is None else build(args[0], data, where, base)
    if origin is list:
        if not isinstance(data, list):
            raise CatalogError(f"{where}: expected a list, found {_type_name(data)}")
        return [build(args[0], item, f"{where}[{index}]") for index, item in enumerate(data)]
    if origin is tuple:
        return tuple(build(list[args[0]], data, where))  # type: ignore[valid-type]
    if origin is typing.Literal:
        if data not in args:
            raise CatalogError(f"{where}: expected one of {', '.join(args)}, found {data!r}")
        return data
    if origin is dict:
        kept: dict[str, Any] = base or {}
        entries = [(str(key), value) for key, value in _mapping(data, where).items()]
        laid = {
            key: build(args[1], _knowing(args[1], key, value), f"{where}.{key}", kept.get(key))
            for key, value in entries
        }
        return {**kept, **laid}
    if isinstance(data, str) and hasattr(hint, "of_text"):
        return hint.of_text(data)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast("type[Any]", hint), data, where, base=base)
    # bool is an int to Python, not to a reader of YAML.
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise CatalogError(f"{where}: expected {hint.__name__}, found {_type_name(data)} {data!r}")
    return data


def _knowing(hint: Any, key: Any, data: Any) -> Any:
    return {"name": str(key), **data} if _has_name(hint) and isinstance(data, dict) else data


def _has_name(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and any(item.name == "name" for item in dataclasses.fields(hint))


def _type_name(data: Any) -> str:
    return "nothing" if data is None else type(data).__name__
