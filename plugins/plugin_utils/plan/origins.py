# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who says each argument of a plan, and which of them are others than the recipe's: what may be called published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.overlay import OwnRecipe
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Layer, Recipe
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, reading
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.arguments import Served
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Adapted, Basis, Origin, Point


def basis(recipe: Optional[Recipe], adapted: Sequence[Adapted]) -> Basis:
    """What the arguments of a plan rest on; a published recipe only where none of its arguments is another one."""
    if recipe is None:
        return "derived"
    if isinstance(recipe, OwnRecipe):
        return "own"
    return "adapted" if adapted else "published"


def origins(choice: Choice, table: flags.Table, served: Served) -> dict[str, Origin]:
    """Who says each argument but those about places, names, hosts and clocks, by option. Raises FlagError."""
    wanted, changed = _wanted(choice, table, served), _changed(choice, table, served)
    parts: Mapping[str, Any] = flags.respelled(table, served.composed.said, choice.engine.renames)
    said = {table.find(name).key: _of_part(part) for name, part in parts.items()}
    own = reading.owned(table, choice.engine)
    found: dict[str, Origin] = {}
    for key, value in served.arguments.items():
        if key in own:
            continue
        kept = said.get(key, "plan") if str(wanted.get(key)) == str(value) else "plan"
        found[served.shown.get(key, key)] = changed.get(key, kept)
    return found


def adapted(choice: Choice, table: flags.Table, served: Served) -> list[Adapted]:
    """Where the plan departs from its recipe, by option, with the reason; empty without one. Raises FlagError."""
    recipe = served.recipe
    if recipe is None:
        return []
    wanted, changed = _wanted(choice, table, served), _changed(choice, table, served)
    own = reading.owned(table, choice.engine)
    reasons = {
        served.shown.get(key, key): _WHY[changed.get(key, "plan")]
        for key in (*served.arguments, *(key for key in wanted if key not in served.arguments))
        if key not in own and str(wanted.get(key)) != str(served.arguments.get(key))
    }
    departs = {flags.spelled(name): why for name, why in recipe.departs.items()}
    return [{"argument": name, "reason": why} for name, why in {**departs, **reasons}.items()]


def point(recipe: Optional[Recipe]) -> Optional[Point]:
    """The operating point of a recipe, where its publisher has several."""
    found = recipe.point if recipe else None
    if found is None:
        return None
    made: Point = {"name": found.name, "least": found.least, "most": found.most}
    return made


def notes(choice: Choice, recipe: Optional[Recipe]) -> list[str]:
    """What to know of a recipe that was published for fewer requests at once than the profile is for."""
    users, found = choice.known.profiles[choice.intent.profile].users, recipe.point if recipe else None
    if found is None or users is None or users <= found.most:
        return []
    return [
        f"The recipe was published as {found.name}, with figures for {found.least} to {found.most} requests at once; "
        f"{choice.intent.profile} is for up to {users}. Measure that with benchmark.yml, or compare the profiles with "
        "plan.yml -e glm_compare=true."
    ]


def _wanted(choice: Choice, table: flags.Table, served: Served) -> dict[str, Any]:
    """The arguments of the layers and the recipe, by canonical name."""
    return flags.merge(table, flags.respelled(table, served.composed.args, choice.engine.renames), {})


_WHY: Mapping[Origin, str] = {
    "yours": "glm_engine_args",
    "known_issue": "the workaround of a known issue",
    "plan": "what fits with its margin",
}


def _changed(choice: Choice, table: flags.Table, served: Served) -> dict[str, Origin]:
    """Who changes an argument after the layers and the recipe, by canonical name."""
    return {
        **{table.find(name).key: "known_issue" for name in served.worked_around},
        **{table.find(name).key: "yours" for name in choice.intent.engine_args},
    }


def _of_part(part: Union[Layer, Recipe]) -> Origin:
    if isinstance(part, OwnRecipe):
        return "own"
    return "recipe" if isinstance(part, Recipe) else "catalogue"
