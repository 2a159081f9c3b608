# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What arguments mean, where flags.py knows how they are spelled: classes of options, values that say something.

``catalog/engines/<engine>/meanings.yml`` has the knowledge.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Optional, TypeVar

from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.meanings import Class, Need, Numbers
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.fit import argument

_DIGITS = re.compile(r"[+-]?[0-9]+")

T = TypeVar("T")


def class_of(engine: Engine, option: flags.Option) -> Optional[Class]:
    """The class of an option, whatever its name; None for one that the catalogue does not know."""
    return _row(engine.meanings.classes, option)


def owned(engine: Engine, option: flags.Option) -> Optional[str]:
    """What to use instead of an option that the plan sets; None for others."""
    return _row(engine.meanings.owned, option)


def named(names: Container[str], option: flags.Option) -> bool:
    """Whether one of the names is the option's."""
    return any(name in names for name in option.names)


def _row(rows: Mapping[str, T], option: flags.Option) -> Optional[T]:
    return next((rows[name] for name in option.names if name in rows), None)


def read(engine: Engine, table: flags.Table, arguments: flags.Arguments) -> dict[str, Any]:
    """The arguments with the mappings that are written as JSON text. Raises FlagError for text that is no JSON."""
    known = engine.meanings
    found = dict(arguments)
    for name, value in arguments.items():
        option = table.find(name)
        if not isinstance(value, str) or not value.lstrip().startswith("{") or "." in flags.spelled(name):
            continue
        if not named(known.mappings, option) and not named(known.mappings_or_text, option):
            continue
        try:
            found[name] = json.loads(value)
        except ValueError as exc:
            raise flags.FlagError(f"{flags.spelled(name)} is no JSON: {exc}", flags.spelled(name)) from None
    return found


def check(engine: Engine, table: flags.Table, arguments: flags.Arguments) -> None:
    """Refuse what the parser would refuse, what it would read as something else, and what means nothing.

    ``arguments`` are as flags.merge returns them. Raises FlagError.
    """
    flags.check(table, arguments)
    for name, value in arguments.items():
        option = table.find(name)
        problem = _problem(engine, option, value)
        if problem:
            raise flags.FlagError(f"{table.engine} {table.version}: {option.key} {problem}", option.key)
    _check_numbers(engine, table, arguments)
    _check_drafting(engine, table, arguments)
    _check_together(engine, table, arguments)


def _problem(engine: Engine, option: flags.Option, value: Any) -> str:
    known = engine.meanings
    retired = _row(known.retired, option)
    if retired is not None:
        return f"does nothing in this release but end the start; {retired}"
    only, mapping = named(known.mappings, option), isinstance(value, Mapping)
    if mapping and not only and not named(known.mappings_or_text, option):
        return f"takes no mapping, found {value!r}"
    if only and not mapping:
        return f"takes a mapping, or JSON text of one; found {value!r}"
    if value is False and option.negative is None and named(known.undecided, option):
        return (
            f"cannot be switched off: {engine.title} has no word for that, and decides by itself where the option is "
            "absent; null leaves it to the engine"
        )
    chats = _row(known.chat, option)
    if chats is not None and value not in chats:
        return f"{flags.written(value)} makes it an endpoint that answers no chats; a plan is for one that does"
    return ""


def runs_code(engine: Engine, option: flags.Option, value: Any) -> bool:
    """Whether a value has the engine run code that is in the weights' repository."""
    return str(value).casefold() in {str(one).casefold() for one in _row(engine.meanings.unsafe, option) or ()}


def _check_numbers(engine: Engine, table: flags.Table, arguments: flags.Arguments) -> None:
    for name, bounds in engine.meanings.numbers.items():
        value = argument(table, arguments, name)
        expected = "" if value is None else _expected(bounds, value, inside="." in name)
        if expected:
            raise flags.FlagError(f"{name} is {value!r}; expected {expected}: {bounds.because}", name)


def _expected(bounds: Numbers, value: Any, inside: bool) -> str:
    """What was expected, where the value is not that; empty where it is.

    What is ``inside`` of a mapping is read as JSON, which knows no 2k; the parser has read the others.
    """
    found = flags.number(value)
    most = math.inf if bounds.most is None else bounds.most
    known = found is not None and (found in bounds.also or bounds.least <= found <= most)
    digits = not inside or bool(_DIGITS.fullmatch(str(value)))
    if known and found is not None and not (bounds.whole and (found % 1 or not digits)):
        return ""
    kind = "a whole number" if bounds.whole else "a number"
    if bounds.most is None:
        return f"{kind} of {bounds.least:,.0f} or more"
    return f"{kind} from {bounds.least:,.0f} to {bounds.most:,.0f}"


def _check_drafting(engine: Engine, table: flags.Table, arguments: flags.Arguments) -> None:
    known, speculation = engine.meanings.drafting, engine.options.speculation
    head = speculation.split(".", 1)[0]
    value = argument(table, arguments, head)
    for key in value if isinstance(value, Mapping) else ():
        if key not in known.keys:
            raise flags.FlagError(f"{head} has no key {key!r}{_nearest(str(key), known.keys)}", head)
    method = argument(table, arguments, speculation)
    if method is not None and str(method) not in known.methods:
        text = f"{head}: {engine.title} drafts by no method {method!r}{_nearest(str(method), known.methods)}"
        raise flags.FlagError(text, head)


def _nearest(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known, f"; it takes {', '.join(known)}")


def _check_together(engine: Engine, table: flags.Table, arguments: flags.Arguments) -> None:
    if argument(table, arguments, engine.options.speculation) not in engine.speculation_with_mtp:
        return
    for names in engine.meanings.together:
        given = [name for name in names if argument(table, arguments, name) is not None]
        lacking = [name for name in names if name not in given and name in table.options]
        if given and lacking:
            text = f"{' and '.join(given)} without {' and '.join(lacking)}"
            raise flags.FlagError(f"{text}: {engine.title} ends at the start; set all or none", given[0])


def notes(engine: Engine, table: flags.Table, given: flags.Arguments) -> Iterator[str]:
    """What each argument of the user changes, as a sentence; what the plan does not see to is said."""
    counted = {name.split(".", 1)[0] for name in vars(engine.options).values() if name}
    for name, value in given.items():
        option = table.find(name)
        change = f"glm_engine_args changes {flags.spelled(name)}"
        kind = class_of(engine, option)
        if kind == "memory" and not named(counted, option):
            yield f"{change}, which changes what memory is taken; the arithmetic of the plan does not count it."
        elif kind == "contract" and not named(counted, option):
            yield f"{change}, which changes what clients get; verify expects what the model's own settings give."
        elif kind == "start" and _lacks(engine, option, value):
            yield f"{change}, which needs {_lacks(engine, option, value)}: the plan brings none."
        else:
            yield f"{change}."


_NEEDED = {
    "file": "a file or folder where the engine sees it",
    "package": "a package in the environment of the engine",
    "repository": "files of a second repository that glm_extra_repositories does not name, and the engine fetches none",
    "host": "another host",
}


def _lacks(engine: Engine, option: flags.Option, value: Any) -> str:
    need: Need = next(engine.meanings.start[name] for name in option.names if name in engine.meanings.start)
    if value in (None, False) or str(value) in need.without:
        return ""
    if need.needs == "repository" and str(value).rpartition("=")[2].startswith("/"):
        # A folder is no repository: glm_extra_repositories, a mount or an image of the user's own brings it.
        return ""
    # A template may be named or written out.
    return "" if need.needs == "file" and isinstance(value, str) and "/" not in value else _NEEDED[need.needs]
