"""The commands, hardware and figures of public guides, read from tests/unit/sources/data. Shapes and their checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import yaml

ROOT = Path(__file__).resolve().parents[1]
# Why something differs. `recipe` is an engine argument that the recipe we follow adds; `managed-by-plan` is everything
# else that the plan decides by itself.
CLASSES = (
    "missing-flag", "renamed", "deprecated", "unsafe", "does-not-fit", "default-already", "managed-by-plan", "recipe",
    "wrong-claim",
)  # fmt: skip
KINDS = ("serve", "container", "install", "pull", "advice", "configuration", "other")
DATA = ROOT / "tests" / "unit" / "sources" / "data"
Intent = dict[str, Any]


class SourceError(ValueError):
    """The data or a command line in it has a shape that this module does not know; the text names the entry."""


@dataclass(frozen=True)
class Reason:
    """Why some items differ."""

    what: list[str]
    reason: str
    why: str
    claim: Optional[str] = None
    proof: Optional[Intent] = None


@dataclass(frozen=True)
class Literal:
    """The intent taken to the letter of the guide: with ``change`` the plan is refused with ``refusal`` in its text."""

    change: Intent
    refusal: str


@dataclass(frozen=True)
class Entry:
    """One command, hardware configuration or piece of advice of a source. ``command`` is normalised to one line."""

    id: str
    title: str
    kind: str
    command: str = ""
    engine_version: Optional[str] = None
    intent: Intent = field(default_factory=dict)
    expect: str = "planned"
    refusal: str = ""
    differences: list[Reason] = field(default_factory=list)
    literal: list[Literal] = field(default_factory=list)
    status: str = ""
    place: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A figure that a source states. ``figure`` says how to compute it, see ``compute``."""

    id: str
    text: str
    claimed: Any
    figure: dict[str, Any]
    verdict: str
    unit: str = ""
    why: str = ""


@dataclass(frozen=True)
class Source:
    """One source document."""

    id: str
    title: str
    entries: list[Entry]
    claims: list[Claim]


@dataclass(frozen=True)
class Group:
    """Differences that hold for all commands of a kind, explained once."""

    id: str
    title: str
    when: dict[str, list[str]]
    differences: list[Reason]


@dataclass(frozen=True)
class Difference:
    """One computed difference; None is absent."""

    what: str
    source: Optional[str]
    ours: Optional[str]


def sources() -> list[Source]:
    """Every source, in the order of their numbers. Raises SourceError."""
    found = []
    for path in sorted(DATA.glob("[0-9]*.yml")):
        data = _yaml(path)
        found.append(
            Source(
                id=data["id"],
                title=data["title"],
                entries=[_entry(entry, path.name) for entry in data["commands"]],
                claims=[_record(Claim, claim, path.name) for claim in data["claims"]],
            )
        )
    return found


@functools.lru_cache(maxsize=1)
def groups() -> list[Group]:
    """What is explained once for many commands."""
    path = DATA / "common.yml"
    return [
        Group(entry["id"], entry["title"], entry["when"], [_reason(item, path.name) for item in entry["differences"]])
        for entry in _yaml(path)["groups"]
    ]


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _record(kind: Any, data: Mapping[str, Any], where: str) -> Any:
    names = {item.name for item in dataclasses.fields(kind)}
    unknown = set(data) - names
    if unknown:
        raise SourceError(f"{where}: {data.get('id', data)}: unknown keys {sorted(unknown)}; known are {sorted(names)}")
    return kind(**data)


def _reason(data: Mapping[str, Any], where: str) -> Reason:
    values = {("reason" if key == "class" else key): value for key, value in data.items()}
    what = values["what"]
    found: Reason = _record(Reason, {**values, "what": [what] if isinstance(what, str) else what}, where)
    if found.reason not in CLASSES:
        raise SourceError(f"{where}: {found.what}: class {found.reason!r}; known are {', '.join(CLASSES)}")
    return found


def _entry(data: Mapping[str, Any], where: str) -> Entry:
    values = dict(data)
    values["command"] = " ".join(str(values.get("command", "")).split())
    values["differences"] = [_reason(item, where) for item in values.get("differences", [])]
    values["literal"] = [_record(Literal, item, where) for item in values.get("literal", [])]
    found: Entry = _record(Entry, values, where)
    if found.kind not in KINDS or found.expect not in ("planned", "refused"):
        raise SourceError(f"{where}: {found.id}: kind {found.kind!r}, expect {found.expect!r}")
    return found
