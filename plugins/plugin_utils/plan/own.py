# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue with a team's folders laid over it, whose arguments are checked as it is read.

So a misspelt flag is an error of the file, and not of the plan that meets it one day.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine, EnvValue, Ranged
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.overlay import OwnRecipe
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, KnownIssue, Recipe
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import (
    extras,
    flags,
    meaning,
    reading,
    recipes,
    repositories,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.arguments import Served
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import MeasuredHere


def known(folders: Sequence[str] = ()) -> Catalog:
    """The catalogue for plans; ``folders`` is glm_catalog, the last one wins. Raises CatalogError."""
    return _checked(tuple(folders)) if folders else catalog.load()


def measured(choice: Choice, table: flags.Table, served: Served) -> Optional[MeasuredHere]:
    """What was measured with the recipe of a plan, and whether the plan is still what was measured."""
    recipe = served.recipe
    found = recipe.measured if recipe else None
    if recipe is None or found is None:
        return None
    said = {**served.loader.args, **repositories.placed(recipe.args, choice.beside)}
    changed = choice.intent.engine_env or reading.different(table, choice.engine, served.arguments, said)
    made: MeasuredHere = {
        "date": str(found.date),
        "workload": found.workload,
        "users": found.users,
        "engine_version": found.engine_version,
        "hardware": found.hardware,
        "tokens_per_second": found.figures.generation,
        "ttft_mean_ms": found.figures.ttft_mean_ms,
        "same": not changed and choice.version == found.engine_version,
    }
    return made


def sources(recipe: Optional[Recipe]) -> list[str]:
    """Where a team's recipe stands."""
    return [recipe.place] if isinstance(recipe, OwnRecipe) else []


@functools.lru_cache(maxsize=8)
def _checked(folders: tuple[str, ...]) -> Catalog:
    before = known(folders[:-1])
    found, folder = catalog.load(folders=folders), Path(folders[-1]).expanduser()
    for own in found.recipes:
        if isinstance(own, OwnRecipe) and own not in before.recipes:
            _check(found, found.engines[own.engine], own, own.args, f"{own.place}.args")
            _check_env(found.engines[own.engine], own.env, f"{own.place}.env")
    for index, layer in enumerate(found.layers[len(before.layers) :]):
        where = f"{folder}/recipes.yml: layers[{index}]"
        _check(found, found.engines[layer.engine], layer, layer.args, f"{where}.args")
        _check_env(found.engines[layer.engine], layer.env, f"{where}.env")
    for issue in found.known_issues:
        if issue not in before.known_issues:
            _check_issue(found, issue, f"{folder}/known_issues.yml: {issue.id}")
    for name, model in found.models.items():
        if model is not before.models.get(name):
            _check_parsers(found, name, f"{folder}/models.yml: models.{name}.parsers")
    return found


def _check_issue(found: Catalog, issue: KnownIssue, where: str) -> None:
    """Its arguments exist in one of the engines it may be of."""
    named = {f"{where}.arguments": dict.fromkeys(issue.arguments or {})}
    if issue.apply:
        named[f"{where}.apply.args"] = dict(issue.apply.args)
    engines = [found.engines[issue.engine]] if issue.engine else list(found.engines.values())
    if issue.apply:
        _check_env(
            engines[0], {name: EnvValue(value=value) for name, value in issue.apply.env.items()}, f"{where}.apply.env"
        )
    for place, args in named.items():
        for name, value in args.items():
            problems = [_problem(found, engine, issue, name, value) for engine in engines]
            if all(problems):
                raise CatalogError(f"{place}.{name}: {problems[0]}")


def _check_env(engine: Engine, env: Mapping[str, EnvValue], where: str) -> None:
    for name, entry in env.items():
        problem = extras.environment_problem(engine, name, entry.value)
        if problem:
            raise CatalogError(f"{where}.{name}: {problem}")


def _check(found: Catalog, engine: Engine, holds: Ranged, args: Mapping[str, Any], where: str) -> None:
    for name, value in args.items():
        try:
            recipes.check_fills(value)
        except CatalogError as exc:
            raise CatalogError(f"{where}.{name}: {exc}") from exc
        problem = _managed(found, engine, name) or _problem(found, engine, holds, name, value)
        if problem:
            raise CatalogError(f"{where}.{name}: {problem}")


def _managed(found: Catalog, engine: Engine, name: str) -> str:
    """Why an argument is not for a recipe: the plan sets it."""
    table = flags.load(engine.name, engine.default_version, found.root / "engines")
    option = table.options.get(flags.spelled(name).split(".", 1)[0])
    instead = meaning.owned(engine, option) if option else engine.meanings.owned.get(flags.spelled(name))
    return f"the plan sets {flags.spelled(name)}; use {instead}" if instead is not None else ""


def _problem(found: Catalog, engine: Engine, holds: Ranged, name: str, value: Any) -> str:
    """What is wrong with an argument in every version that it is for; empty where one takes it."""
    first = ""
    for table in _tables(found, engine, holds):
        given = flags.respelled(table, {name: value}, engine.renames)
        try:
            merged = flags.merge(table, given, {})
            if not _filled(value):
                flags.check(table, merged)
        except flags.FlagError as exc:
            first = first or str(exc)
            continue
        problem = _parser(table, engine, merged)
        if not problem:
            return ""
        first = first or problem
    return first or f"no known version of {engine.name} is in its range"


def _tables(found: Catalog, engine: Engine, holds: Ranged) -> Iterator[flags.Table]:
    """Of the versions that it holds for, the default one first, then the newest."""
    newest = sorted(engine.versions, key=versions.order, reverse=True)
    for version in sorted(newest, key=lambda one: one != engine.default_version):
        if holds.holds(version):
            yield flags.load(engine.name, version, found.root / "engines")


def _filled(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else [value]
    return any(isinstance(one, str) and one.startswith("$") for one in values)


def _parser(table: flags.Table, engine: Engine, arguments: Mapping[str, Any]) -> str:
    """What is wrong with the name of a parser, which vLLM's command line takes whatever it is."""
    options = engine.options
    for flag, names in ((options.tool_parser, table.tool_parsers), (options.reasoning_parser, table.reasoning_parsers)):
        option = table.options.get(flag)
        value: Optional[Any] = arguments.get(option.key) if option else None
        if value is not None and not _filled(value) and str(value) not in names:
            return _unknown_parser(table, str(value), names)
    return ""


def _check_parsers(found: Catalog, name: str, where: str) -> None:
    """The parsers of a model exist in the versions that it recommends."""
    model = found.models[name]
    for engine, wants in model.engines.items():
        table = flags.load(engine, wants.recommended, found.root / "engines")
        for kind, value, names in (
            ("tool", model.parsers.tool, table.tool_parsers),
            ("reasoning", model.parsers.reasoning, table.reasoning_parsers),
        ):
            if value is not None and value not in names:
                raise CatalogError(f"{where}.{kind}: {_unknown_parser(table, value, names)}")


def _unknown_parser(table: flags.Table, value: str, names: Sequence[str]) -> str:
    return f"{table.engine} {table.version} has no parser {value!r}{did_you_mean(value, names)}"
