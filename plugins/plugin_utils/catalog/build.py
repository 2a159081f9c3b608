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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest

T = TypeVar("T")


class CatalogError(QuotingError, ValueError):
    """A catalogue file is missing, is not YAML, or breaks the schema; the text names file, entry and key."""


def read(path: Path, keys: set[str]) -> dict[str, Any]:
    """A catalogue file that has exactly these top-level keys. Raises CatalogError."""
    data: dict[str, Any] = _parsed(path, f"catalog/{path.name}")
    if not isinstance(data, dict) or set(data) != keys:
        found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise CatalogError(f"catalog/{path.name}: expected the top-level keys {sorted(keys)}, found {found}")
    return data


def _parsed(path: Path, where: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as exc:
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


def _record(kind: type[T], data: Any, where: str, places: Mapping[str, str] | None = None) -> T:
    """``places``: where each key stands, if not all are in ``where``."""
    data = _mapping(data, where)
    hints = _hints(kind)  # type: ignore[arg-type]
    for key in data:
        if key not in hints:
            close = nearest(str(key), hints, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise CatalogError(f"{where}: unknown key {key!r}{hint}")
    missing = sorted(required(kind, hints) - set(data))
    if missing:
        raise CatalogError(f"{where}: missing key {', '.join(missing)}")
    absent = dict.fromkeys(set(_without_default(kind)) - set(data))
    places = places or {key: f"{where}.{key}" for key in data}
    values = {key: build(hints[key], value, places[key]) for key, value in data.items()}
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


def build(hint: Any, data: Any, where: str) -> Any:
    """``data`` as a type hint says, with records for mappings; ``where``: file and entry. Raises CatalogError.

    A record that may be written as one word has a class method ``of_text``; one with a ``name`` in a mapping is called
    as its key.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if _optional(hint):
        return None if data is None else build(args[0], data, where)
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
        entries = _mapping(data, where).items()
        return {str(key): build(args[1], _knowing(args[1], key, value), f"{where}.{key}") for key, value in entries}
    if isinstance(data, str) and hasattr(hint, "of_text"):
        return hint.of_text(data)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast("type[Any]", hint), data, where)
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
