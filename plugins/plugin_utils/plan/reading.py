# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command line read back into the arguments of a recipe: the inverse of flags.render, without what the plan owns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags


def arguments(table: flags.Table, engine: Engine, words: Sequence[str]) -> dict[str, Any]:
    """The arguments in ``words`` by name without dashes, as recipes have them. Raises FlagError."""
    found: dict[str, Any] = {}
    written: dict[str, str] = {}
    for flag, values in _options(words):
        option = table.find(flag)
        value = _value(option, values, dotted="." in flag)
        written[option.key] = option.key if flag == option.negative else flag.partition(".")[0]
        if flag == option.negative:
            value = False
        found = flags.merge(table, found, {flag if "." in flag else option.key: value})
    own = owned(table, engine)
    return {written[key].lstrip("-"): value for key, value in found.items() if key not in own}


def different(table: flags.Table, engine: Engine, planned: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """The arguments of a plan, by canonical name, that are others than those of a recipe. Raises FlagError."""
    wanted = flags.merge(table, flags.respelled(table, recipe, engine.renames), {})
    own = owned(table, engine)
    return [key for key in {**planned, **wanted} if key not in own and str(planned.get(key)) != str(wanted.get(key))]


def _options(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("--"):
            found.append((word, []))
        elif found:
            # Before the first option stand the program and, for some engines, the model.
            found[-1][1].append(word)
    return found


def _value(option: flags.Option, values: Sequence[str], dotted: bool) -> Any:
    if not values:
        return True
    if len(values) > 1 or option.nargs not in (0, 1, "?"):
        return [_scalar(option, value) for value in values]
    [value] = values
    if dotted or value.startswith("{"):
        return _json(value)
    return _scalar(option, value)


def _scalar(option: flags.Option, value: str) -> Any:
    return _json(value) if option.type in ("int", "float") else value


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def owned(table: flags.Table, engine: Engine) -> set[str]:
    """Canonical names of what the plan sets whatever the recipe says: places, names, clocks, hosts."""
    options = engine.options
    names = {
        *engine.meanings.owned, *engine.clocks.options, options.served_model_name, options.host, options.port,
        *engine.multi_node.args, *engine.multi_node.worker, "--config", options.model, engine.stop.drain_option,
    }  # fmt: skip
    known = (table.options.get(flags.spelled(name)) for name in names if name)
    return {option.key for option in known if option}
