# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the ``glm_*`` variables of a run are those of the table: names, types, where they are set, old names.

Pure. Values are looked at as they were written: a template is not evaluated, and no value of a secret is ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet, printable, unmet
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest
from ansible_collections.glm.fleet.plugins.module_utils.versions import older
from ansible_collections.glm.fleet.plugins.plugin_utils.intent.table import PREFIX, Kind, Table, Variable

_PAGE = "docs/variables.md lists all"


# Who sees what is set in a place: play headers, too; the controller and hosts; hosts only.
Reach = Literal["all", "controller", "hosts"]


@dataclass(frozen=True)
class Place:
    """Where variables are set, in words for people, and who sees them there."""

    words: str
    reach: Reach
    variables: Mapping[str, Any]


@dataclass
class Verdict:
    """Errors of a run, and old names it uses as (text, release from which the name is refused)."""

    errors: list[str] = field(default_factory=list)
    deprecations: list[tuple[str, str]] = field(default_factory=list)


def judge(table: Table, places: Iterable[Place], release: str, moved: Optional[Mapping[str, str]] = None) -> Verdict:
    """Judge the variables of all places for a ``release`` of the collection, such as ``0.2.0``.

    ``moved``: variables of roles that are read no more, and what to set instead. One error names all unknown
    variables. A name in several places, the strongest first, is named with the first.
    """
    verdict = Verdict()
    first: dict[str, Place] = {}
    unseen: dict[str, Place] = {}
    gone: dict[str, str] = {}
    for place in places:
        for name in map(str, place.variables):
            if name in (moved or {}):
                gone.setdefault(name, place.words)
            if not name.startswith(PREFIX):
                continue
            strongest = first.setdefault(name, place)
            if strongest.reach != "all" and name in table and not _seen(table[name], place.reach):
                unseen.setdefault(name, place)
    unknown = {name: place.words for name, place in first.items() if name not in table}
    if unknown:
        verdict.errors.append(str(refusal(table, unknown)))
    if gone and moved:
        verdict.errors.append(str(no_longer_read(moved, gone)))
    for name in sorted(first.keys() & table.keys()):
        _judge_known(table[name], first[name], release, verdict)
    verdict.errors.extend(_misplaced(table[name], unseen[name]) for name in sorted(unseen))
    return verdict


def unknown_names(table: Table, variables: Mapping[str, Any]) -> list[str]:
    """The names among ``variables`` that begin like public ones and are none. Facts are no variables."""
    facts = variables.get("ansible_facts") or {}
    return [name for name in variables if name.startswith(PREFIX) and name not in table and name not in facts]


def refusal(table: Table, unknown: Mapping[str, str]) -> Unmet:
    """The error for unknown names; ``unknown``: name -> where it is set, or nothing."""
    known = [name for name, variable in table.items() if not variable.replaced_by]

    def described(name: str) -> str:
        close = nearest(name, known, 1, cutoff=0.6)
        notes = [unknown[name], f"did you mean {close[0]}?" if close else ""]
        shown = "; ".join(note for note in notes if note)
        return f"{printable(name)} ({shown})" if shown else printable(name)

    return Unmet(
        "only variables of the collection among those that begin with glm_",
        ", ".join(described(name) for name in sorted(unknown)),
        f"correct or remove them ({_PAGE})",
    )


def no_longer_read(moved: Mapping[str, str], found: Mapping[str, str]) -> Unmet:
    """The error for old variables of roles; ``found``: name -> where it is set, or nothing."""
    shown = (f"{name} ({found[name]})" if found[name] else name for name in sorted(found))
    instead = ", ".join(dict.fromkeys(moved[name] for name in sorted(found)))
    return Unmet("only variables that a role reads", f"{', '.join(shown)}, which none does", f"set {instead} instead")


def _judge_known(variable: Variable, place: Place, release: str, verdict: Verdict) -> None:
    name, value = variable.name, place.variables[variable.name]
    if variable.replaced_by:
        removed = variable.removed_in or ""
        if not older(release, removed):
            found = f"{name} ({place.words}), which was removed in {removed}"
            verdict.errors.append(unmet("", found, f"set {variable.replaced_by} instead"))
            return
        text = f"{name} ({place.words}) has a new name. Set {variable.replaced_by} instead"
        verdict.deprecations.append((f"{text}; the old name works until {removed}.", removed))
    problem = _problem(variable, value)
    if problem:
        found = f"{printable(value, limit=80)!r} ({place.words})"
        verdict.errors.append(unmet(f"{problem} for {name}", found, f"correct it ({_PAGE})"))


def _seen(variable: Variable, reach: Reach) -> bool:
    return reach == "all" or (not variable.header and (reach == "controller" or not variable.controller))


def _misplaced(variable: Variable, place: Place) -> str:
    name = variable.name
    if variable.header:
        wanted, next_step = "as an extra variable, since it is read before any host is known", ""
    else:
        wanted = "as an extra variable or of the group all, since it is read on the controller, for the whole fleet"
        next_step = ", or set it in group_vars/all"
    return unmet(f"{name} {wanted}", f"it in {place.words}", f"give it with -e {name}=...{next_step}")


def _problem(variable: Variable, value: Any) -> str:
    """What was expected in the place of a value that was written out; empty where it is right or not known yet."""
    if variable.secret or not _literal(value) or value in (None, ""):
        return ""
    if not _is_of(variable.type, value):
        return f"a value of type {variable.type}"
    if variable.elements and isinstance(value, list) and not all(_is_of(variable.elements, item) for item in value):
        return f"a list of values of type {variable.elements}"
    if variable.choices and str(value) not in variable.choices:
        return f"one of {', '.join(variable.choices)}"
    return ""


def _is_of(kind: Kind, value: Any) -> bool:
    """Whether Ansible would take a value for an argument of this type. It would write out a list as a string."""
    if kind in ("str", "path") and isinstance(value, (list, dict)):
        return False
    try:
        DEFAULT_TYPE_VALIDATORS[kind](value)
    except (TypeError, ValueError):
        return False
    return True


def _literal(value: Any) -> bool:
    """Whether a value is written out, to its last part. What is no plain value (something from a vault) is not."""
    if isinstance(value, Mapping):
        return all(_literal(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_literal(item) for item in value)
    if isinstance(value, str):
        return not re.search(r"\{[{%#]", value)
    return value is None or isinstance(value, (bool, int, float))
