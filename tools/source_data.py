"""The commands, hardware and figures of public guides, read from tests/unit/sources/data. Shapes and their checks."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional, get_args

import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import build

ROOT = Path(__file__).resolve().parents[1]
# Why something differs. `recipe` is an engine argument that the recipe we follow adds; `managed-by-plan` is everything
# else that the plan decides by itself.
Class = Literal[
    "missing-flag", "renamed", "deprecated", "unsafe", "does-not-fit", "default-already", "managed-by-plan", "recipe",
    "wrong-claim",
]  # fmt: skip
CLASSES: tuple[Class, ...] = get_args(Class)
DATA = ROOT / "tests" / "unit" / "sources" / "data"
Intent = dict[str, Any]


class SourceError(ValueError):
    """A command line in the data has a shape that is not known here; the text names the entry."""


@dataclass(frozen=True)
class Reason:
    """Why some items differ."""

    what: list[str]
    reason: Class
    why: str
    claim: Optional[str] = None
    proof: Optional[Intent] = None


@dataclass(frozen=True)
class ToTheLetter:
    """The intent taken to the letter of the guide: with ``change`` the plan is refused with ``refusal`` in its text."""

    change: Intent
    refusal: str


@dataclass(frozen=True)
class Entry:
    """One command, hardware configuration or piece of advice of a source."""

    id: str
    title: str
    kind: Literal["serve", "container", "install", "pull", "advice", "configuration", "other"]
    command: str = ""
    engine_version: Optional[str] = None
    intent: Intent = field(default_factory=dict)
    expect: Literal["planned", "refused"] = "planned"
    refusal: str = ""
    differences: list[Reason] = field(default_factory=list)
    literal: list[ToTheLetter] = field(default_factory=list)
    status: str = ""
    place: str = ""
    note: str = ""

    @property
    def compared(self) -> bool:
        """Whether it is a command of which ours is the counterpart."""
        return self.kind in ("serve", "container", "install", "pull")


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
    """Every source, in the order of their numbers. Raises CatalogError."""
    return [build(Source, _yaml(path), path.name) for path in sorted(DATA.glob("[0-9]*.yml"))]


@functools.lru_cache(maxsize=1)
def groups() -> list[Group]:
    """What is explained once for many commands."""
    found: list[Group] = build(list[Group], _yaml(DATA / "common.yml")["groups"], "common.yml")
    return found


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))
