# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of public variables, ``catalog/variables.yml``, and what is made from it for plugins. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import build

PREFIX = "glm_"
FILE = Path(__file__).parents[3] / "catalog" / "variables.yml"

Section = Literal["fleet", "model", "engine", "endpoint", "deploy", "keys", "launch", "terminate", "outside", "host"]
Kind = Literal["str", "int", "float", "bool", "list", "dict", "path", "raw"]


@dataclass(frozen=True)
class Variable:
    """One public variable; its fields are described in ``catalog/variables.yml``."""

    name: str
    section: Section
    type: Kind
    text: str
    default: Any = None
    computed: Optional[str] = None
    elements: Optional[Kind] = None
    choices: Optional[list[str]] = None
    example: Optional[str] = None
    option: Optional[str] = None
    secret: bool = False
    header: bool = False
    controller: bool = False
    since: str = "0.1.0"
    replaced_by: Optional[str] = None
    removed_in: Optional[str] = None

    def argument(self) -> dict[str, Any]:
        """Its argument spec. A computed default, an empty one and none at all are no default of an argument."""
        spec: dict[str, Any] = {"type": self.type}
        if self.elements:
            spec["elements"] = self.elements
        if self.default not in (None, "") and not self.computed:
            spec["default"] = self.default
        return spec


@dataclass(frozen=True)
class Content:
    """What the file holds."""

    of_roles: dict[str, str]
    variables: dict[str, Variable]


Table = Mapping[str, Variable]


def load(path: Path = FILE) -> Table:
    """The table by name; read once in the life of the process. Raises CatalogError."""
    return _content(path).variables


def moved(path: Path = FILE) -> Mapping[str, str]:
    """Variables of roles that no role reads any more, and what to set instead. Raises CatalogError."""
    return _content(path).of_roles


@functools.lru_cache(maxsize=1)
def _content(path: Path) -> Content:
    return build.record(Content, path)


def options(table: Table) -> dict[str, Variable]:
    """The variables that set an option of serving_plan, by that option."""
    return {variable.option: variable for variable in table.values() if variable.option}


def names(table: Table, name: str) -> list[str]:
    """The names under which a variable may be set, best first: its own, then its old ones."""
    return [name, *(entry.name for entry in table.values() if entry.replaced_by == name)]
