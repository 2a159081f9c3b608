"""Whether an engine's own parser reads what we render as it was meant: values, and not only acceptance."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, meaning
from simulator.engines import parser_loader, wheels

# What each parser wants beside the option at hand. vLLM takes --enable-auto-tool-choice only with a tool parser.
_USUAL = {"vllm": ("acme/model",), "sglang": ("--model-path", "acme/model")}
_COMPANY = {"--enable-auto-tool-choice": ("--tool-call-parser", "glm45")}
# JSON of every kind, with text that reads like something else.
_MAPPING = {"name": "a b", "digits": "12", "size": "4k", "yes": "true", "on": True, "deep": {"n": 3}, "list": [1, "x"]}
_FREE_FORM = (None, "str", "loads", "_parse_type", "union_dict_and_str")
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Probe:
    """One option with one value: what is meant, and the words it is rendered to (none: it cannot be said)."""

    option: flags.Option
    value: Any
    words: tuple[str, ...] | None


@dataclasses.dataclass
class Found:
    """What a parser made of probes: how many had the value that was meant, those refused, and those that differ."""

    same: int = 0
    unsaid: int = 0
    refused: list[str] = dataclasses.field(default_factory=list)
    differ: list[str] = dataclasses.field(default_factory=list)


def probes(table: flags.Table, engine: Engine) -> Iterator[Probe]:
    """Every option with values of each kind it takes: switches with true and with false."""
    for option in dict.fromkeys(table.options.values()):
        for value in _values(option, engine):
            arguments = {option.key: value}
            try:
                meaning.check(engine, table, arguments)
                words = tuple(flags.render(table, arguments, {}, engine.mappings))
            except flags.FlagError:
                yield Probe(option, value, None)
            else:
                yield Probe(option, value, words)


def _values(option: flags.Option, engine: Engine) -> list[Any]:
    if option.nargs == 0:
        return [True, False]
    one: list[Any]
    if option.choices is not None:
        one = list(option.choices)
    elif meaning.named(engine.meanings.mappings, option) or meaning.named(engine.meanings.mappings_or_text, option):
        # The others have keys of their own.
        return [_MAPPING] if option.type in _FREE_FORM else []
    else:
        numbers: dict[str | None, list[Any]] = {"int": [7], "float": [0.5]}
        one = numbers.get(option.type, [7, "two words"])
    return [[value] for value in one] if option.nargs in ("+", "*") else one


def ask(engine: Engine, version: str, wanted: Sequence[Probe], python: Path) -> Found:
    """What the parser of a version makes of the probes that have words."""
    source = wheels.fetch_source(engine.name, version)
    dests = destinations(engine.name, version, python)
    # An old name that sets another option says it in that one's words.
    shared = {dest for dest, count in collections.Counter(dests.values()).items() if count > 1}
    said = [
        one
        for one in wanted
        if one.words is not None
        and meaning.owned(engine, one.option) is None
        and not (one.option.deprecated and dests[one.option.key] in shared)
    ]
    lines = [(*_USUAL[engine.name], *_COMPANY.get(one.option.key, ()), *(one.words or ())) for one in said]
    found = Found(unsaid=len(wanted) - len(said))
    answers = parser_loader.parse_many(engine.name, version, source, lines, python)
    for probe, answer in zip(said, answers, strict=True):
        title = f"{probe.option.key}: {probe.value!r}"
        if not answer.ok:
            found.refused.append(f"{title}: {answer.message}")
            continue
        if probe.option.deprecated and answer.namespace.get(dests[probe.option.key]) is None:
            # Accepted and without effect, as the engine itself says of it.
            found.unsaid += 1
            continue
        wrong = differences({probe.option.key: probe.value}, answer.namespace, dests)
        found.differ += wrong
        found.same += not wrong
    return found


def destinations(engine: str, version: str, python: Path) -> dict[str, str]:
    """The name under which the parser keeps the value of each option."""
    rows = parser_loader.describe(engine, version, wheels.fetch_source(engine, version), python)
    return {row["names"][0]: row["dest"] for row in rows}


def defaults(engine: str, version: str, python: Path) -> dict[str, Any]:
    """What each option is where nobody gives it, without values that only a stand-in stands for."""
    rows = parser_loader.describe(engine, version, wheels.fetch_source(engine, version), python)
    return {row["names"][0]: row["default"] for row in rows if " object at 0x" not in str(row["default"])}


def switches(table: flags.Table, engine: Engine) -> list[Probe]:
    """The probes of switches: true and false of each."""
    return [probe for probe in probes(table, engine) if probe.option.nargs == 0]


def differences(meant: Mapping[str, Any], parsed: Mapping[str, Any], dests: Mapping[str, str]) -> list[str]:
    """Where the values that a parser found are not the ones that were meant; ``dests``: option to name of its value."""
    return [
        f"{key}: {value!r} became {parsed.get(dests[key])!r}"
        for key, value in meant.items()
        if not _same(value, parsed.get(dests[key]))
    ]


def _same(meant: Any, found: Any) -> bool:
    if isinstance(meant, bool) or isinstance(found, bool):
        return meant is found
    if isinstance(found, str) and found.startswith("<") and "_Anything object" in found:
        return True  # A stand-in read it, so nobody can tell.
    if isinstance(meant, Mapping):
        if isinstance(found, str) and found.startswith("{"):
            found = json.loads(found)
        return isinstance(found, Mapping) and all(key in found and _same(meant[key], found[key]) for key in meant)
    if isinstance(meant, list):
        return isinstance(found, list) and len(meant) == len(found) and all(map(_same, meant, found))
    if isinstance(found, list) and len(found) == 1:
        return _same(meant, found[0])
    return str(meant) == str(found) or (_number(meant) is not None and _number(meant) == _number(found))


def _number(value: Any) -> float | None:
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?(?:e-?\d+)?)([kmgKMG]?)", str(value))
    return float(found.group(1)) * _UNITS.get(found.group(2), 1) if found else None
