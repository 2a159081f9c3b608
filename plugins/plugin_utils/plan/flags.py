# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each engine version's command line takes: check arguments by name and value, merge them, render them.

Tables live in ``catalog/engines/<engine>/flags/<version>.json``; tools/flag_tables.py makes them from the
engine's own parser.
Arguments are mappings of flag name (with or without dashes, ``_`` for ``-`` allowed) to value:

* ``true`` gives the bare flag, ``false`` its ``--no-`` form (or nothing, where there is none), ``null`` removes it;
* a list gives several values; a mapping gives ``--flag.key value`` pairs or one JSON text, as the engine takes it.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError

# vLLM 0.33.0 pairs --enable-x with --disable-x (EnableDisableAction in vllm/utils/argparse_utils.py).
_INVERSE = {"enable": "disable", "disable": "enable"}

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([kmgKMG]?)(?:i?B)?")
_WHOLE = re.compile(r"-\d+")
# Text that is read as itself after a dotted name: true, 12 and 4k (which is 4,000) are not, and are quoted as JSON.
_PLAIN = re.compile(r"(?!(?:true|false|null|NaN|Infinity)$)[A-Za-z_/][\w./:@-]*")
_KEY = re.compile(r"[A-Za-z_][\w-]*")

# Engine arguments by name, with or without dashes; a value is text, a number, a bool, a list, a mapping or null.
Arguments = Mapping[str, Any]


class FlagError(ValueError):
    """An argument that this engine version would refuse; the text says why, ``flag`` is its name with dashes."""

    def __init__(self, text: str, flag: str) -> None:
        super().__init__(text)
        self.flag = flag


def number(value: Any) -> Optional[float]:
    """A number as the engines read it, such as 64, 0.9, 25.6k or 24G; None for what is none."""
    found = _NUMBER.fullmatch(str(value).strip())
    return float(found.group(1)) * _UNITS[found.group(2)] if found else None


@dataclass(frozen=True)
class Option:
    """One option of one engine version."""

    names: tuple[str, ...]
    nargs: Any
    choices: Optional[tuple[str, ...]]
    type: Optional[str]
    deprecated: bool

    @functools.cached_property
    def key(self) -> str:
        """The name that identifies the option whatever alias was written."""
        return self.names[0]

    @property
    def negative(self) -> Optional[str]:
        """The form that turns a switch off, if it has one: ``--no-x``, or the other one of a pair enable, disable."""
        return next(iter(self.negatives), None)

    @functools.cached_property
    def negatives(self) -> tuple[str, ...]:
        """Every name that says the opposite of ``key``."""
        prefix, _dash, rest = self.key[2:].partition("-")
        inverse = f"--{_INVERSE[prefix]}-{rest}" if prefix in _INVERSE else None
        return tuple(name for name in self.names if name.startswith("--no-") or name == inverse)


@dataclass(frozen=True)
class Table:
    """All options of one engine version, by every name."""

    engine: str
    version: str
    options: Mapping[str, Option]
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]
    root: Path

    def find(self, name: str) -> Option:
        """The option called ``name``.

        Raises FlagError, with the nearest names or the versions that have it, when this version does not.
        """
        flag = spelled(name).split(".", 1)[0]
        # vLLM's short aliases have several letters and one dash: -tp.
        found = self.options.get(flag) or self.options.get(flag[1:])
        if found is None:
            raise FlagError(self._unknown(flag), flag)
        return found

    def _unknown(self, flag: str) -> str:
        text = f"{self.engine} {self.version} has no option {flag}"
        elsewhere = self._elsewhere(flag)
        if elsewhere:
            return f"{text}; it exists in {self.engine} {elsewhere}. Remove it, or choose such a version"
        # What was cut off or appended counts more than similar letters.
        known = sorted(self.options)
        starts = [name for name in known if name.startswith(flag)]
        close = starts[:3] or nearest(flag, known, cutoff=0.75)
        hint = f"did you mean {' or '.join(close)}?" if close else "nor one with a similar name"
        return f"{text}; {hint}"

    def _elsewhere(self, flag: str) -> str:
        """The versions that have it, as runs of neighbours."""
        tables = [path.stem for path in (self.root / self.engine / "flags").glob("*.json")]
        tables.sort(key=versions.order)
        runs = itertools.groupby(tables, lambda version: flag in load(self.engine, version, self.root).options)
        having = [list(run) for has, run in runs if has]
        return " and ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in having)


@functools.lru_cache(maxsize=64)
def load(engine: str, version: str, root: Path = catalog.ROOT / "engines") -> Table:
    """Read one table; kept for the life of the process.

    Raises CatalogError when there is no table of that version.
    """
    path = root / engine / "flags" / f"{version}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise CatalogError(
            f"catalog/engines/{engine}/flags/{path.name}: cannot be read ({exc}); "
            f"make it with tools/flag_tables.py {engine}:{version}"
        ) from exc
    options = {}
    for row in data["options"]:
        choices = row.get("choices")
        option = Option(
            names=tuple(row["names"]),
            nargs=row.get("nargs", 1),
            choices=None if choices is None else tuple(choices),
            type=row.get("type"),
            deprecated=row.get("deprecated", False),
        )
        options.update(dict.fromkeys(option.names, option))
    return Table(engine, version, options, tuple(data["tool_parsers"]), tuple(data["reasoning_parsers"]), root)


@functools.lru_cache(maxsize=4096)
def spelled(name: str) -> str:
    """``tensor_parallel_size`` and ``--tensor-parallel-size`` are the same; what follows a dot is kept as it is."""
    head, dot, rest = str(name).strip().lstrip("-").partition(".")
    dashes = "-" if len(head) == 1 else "--"
    return dashes + head.replace("_", "-") + dot + rest


def respelled(table: Table, arguments: Arguments, renames: Mapping[str, str]) -> dict[str, Any]:
    """The arguments under the names this version has: a new name (key of ``renames``) it lacks becomes the old one."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        old = renames.get(spelled(name))
        use_old = old in table.options and spelled(name) not in table.options
        found[old if old is not None and use_old else name] = value
    return found


def merge(table: Table, base: Arguments, override: Arguments) -> dict[str, Any]:
    """Arguments of ``base`` changed by ``override``; keys of the result are canonical option names.

    Mappings are merged key by key, null removes. ``--a.b`` as a name is the key ``b`` of the mapping ``a``.
    Raises FlagError for names this version does not have.
    """
    merged: dict[str, Any] = {}
    for arguments in (base, override):
        for name, value in arguments.items():
            option = table.find(name)
            key, value = option.key, _nested(name, value)
            if isinstance(value, bool) and spelled(name) in option.negatives:
                value = not value  # no-enable-x: true
            if isinstance(value, Mapping):
                # Null removes within a mapping, too, also where there was none.
                value = _deep(merged[key] if isinstance(merged.get(key), Mapping) else {}, value)
            merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def _nested(name: str, value: Any) -> Any:
    if "." in name:
        for part in reversed(spelled(name).split(".")[1:]):
            value = {part: value}
    return value


def _deep(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping):
            merged[key] = _deep(merged[key] if isinstance(merged.get(key), Mapping) else {}, value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def check(table: Table, arguments: Arguments) -> None:
    """Refuse values that this version's parser would refuse: number of values, choices, numbers.

    Raises FlagError.
    """
    for name, value in arguments.items():
        option = table.find(name)
        _check_shape(table, option, name, value)
        if isinstance(value, Mapping):
            _check_json(table, name, value)
        elif not isinstance(value, bool):
            for item in value if isinstance(value, list) else [value]:
                _check_word(table, name, item)
                _check_value(table, option, name, item)


def _check_shape(table: Table, option: Option, name: str, value: Any) -> None:
    problem = ""
    if option.nargs == 0 and not isinstance(value, bool):
        problem = f"is a switch; expected true, false or null, found {value!r}"
    elif option.nargs == 1 and isinstance(value, list):
        problem = f"takes one value, found the list {value!r}"
    elif option.nargs == "+" and value == []:
        problem = "needs a value, found an empty list; null removes it"
    elif (
        isinstance(option.nargs, int)
        and option.nargs > 1
        and not (isinstance(value, list) and len(value) == option.nargs)
    ):
        problem = f"takes {option.nargs} values, found {value!r}"
    # nargs '?' (an optional value) may stand alone.
    elif option.nargs not in (0, "?") and isinstance(value, bool):
        problem = f"needs a value, found {str(value).lower()}; null removes it"
    if problem:
        raise FlagError(f"{table.engine} {table.version}: {name} {problem}", name)


def _check_word(table: Table, name: str, value: Any) -> None:
    """Refuse what no word of a command line says: other kinds of values, nothing, and text like an option."""
    problem = ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        problem = f"takes text or a number, found {value!r}"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = f"cannot be {value}"
    elif not str(value).strip() or "\0" in str(value):
        problem = f"cannot be {value!r}; null removes it"
    elif str(value).startswith("-") and not _WHOLE.fullmatch(str(value)):
        problem = f"cannot be {str(value)!r}: what begins with a dash is read as an option"
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        problem = f"cannot be {value}: no engine counts that far"
    if problem:
        raise FlagError(f"{table.engine} {table.version}: {name} {problem}", name)


def _check_json(table: Table, name: str, value: Any) -> None:
    """Refuse a mapping with anything in it that JSON has no form for."""
    try:
        json.dumps(value, allow_nan=False)
        if all(isinstance(key, str) for key in _keys(value)):
            return
        problem = "its keys must be text"
    except (TypeError, ValueError) as exc:
        problem = str(exc)
    raise FlagError(f"{table.engine} {table.version}: {name} cannot be written as JSON: {problem}", name)


def _keys(value: Any) -> Iterable[Any]:
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _keys(item)
    yield from value if isinstance(value, Mapping) else ()


def _check_value(table: Table, option: Option, name: str, value: Any) -> None:
    text = str(value)
    if option.choices is not None and text not in option.choices:
        close = nearest(text, option.choices, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        problem = f"cannot be {text!r}{hint}; it takes {', '.join(option.choices)}"
        raise FlagError(f"{table.engine} {table.version}: {name} {problem}", name)
    number = {"int": int, "float": float}.get(option.type or "")
    if number is not None:
        try:
            number(text)
        except ValueError:
            kind = "a whole number" if number is int else "a number"
            problem = f"must be {kind}, found {text!r}"
            raise FlagError(f"{table.engine} {table.version}: {name} {problem}", name) from None


def render(table: Table, arguments: Arguments, shown: Mapping[str, str], mappings: str) -> list[str]:
    """The argument list. ``shown`` maps canonical names to the spelling to print (aliases read better).

    ``mappings``: how the engine takes those, ``dotted`` or ``json``.
    """
    argv: list[str] = []
    for key, value in arguments.items():
        option = table.find(key)
        argv += _words(option, shown.get(option.key, option.key), value, mappings)
    return argv


def _words(option: Option, flag: str, value: Any, mappings: str) -> list[str]:
    if value is True:
        return [flag]
    if value is False:
        return [option.negative] if option.negative else []
    if isinstance(value, list):
        return [flag, *(str(item) for item in value)]
    if isinstance(value, Mapping):
        if mappings == "dotted" and _reads_dotted(value):
            return [word for pair in _dotted(flag, value) for word in pair]
        return [flag, json.dumps(value, sort_keys=True)]
    return [flag, str(value)]


def _dotted(flag: str, value: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """``--flag.key value`` for each leaf: needs no quoting, so it survives unit files."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _dotted(f"{flag}.{key}", item)
        else:
            yield f"{flag}.{key}", item if isinstance(item, str) and _PLAIN.fullmatch(item) else json.dumps(item)


def _reads_dotted(value: Mapping[str, Any]) -> bool:
    """Whether every key and leaf can be said so: an empty mapping has no leaf, and a dot or = in a key divides it."""
    return bool(value) and all(
        _KEY.fullmatch(key) and (_reads_dotted(item) if isinstance(item, Mapping) else True)
        for key, item in value.items()
    )


def advice(change: Mapping[str, Any]) -> str:
    """The next step that sets these arguments, by any spelling of their names."""
    parts = [f"{spelled(name).removeprefix('--')} to {written(value)}" for name, value in change.items()]
    return f"set {listed(parts)} in glm_engine_args"


def listed(parts: Sequence[str]) -> str:
    """One, two and three: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)


def written(value: Any) -> str:
    """A value as YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
