# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the arguments of a plan come from: its recipe, who says each, and what is another one than was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, Union

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.overlay import OwnRecipe
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Layer
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Recipe as Published
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, own, reading
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.arguments import Served
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Adapted, Basis, Origin, Point, Recipe

# Why an argument is another one than the recipe's, by who says it.
_WHY: Mapping[Origin, str] = {
    "yours": "glm_engine_args",
    "known_issue": "the workaround of a known issue",
    "plan": "what fits with its margin",
}


def recipe(choice: Choice, table: flags.Table, served: Served) -> Recipe:
    """What a plan says of where its arguments come from. Raises FlagError."""
    composed, found = served.composed, served.recipe
    other = reading.different(table, choice.engine, served.arguments, {**served.loader.args, **composed.args})
    says: dict[str, Origin] = {
        **_by_key(choice, table, {name: _of_part(part) for name, part in composed.said.items()}),
        **_by_key(choice, table, dict.fromkeys(served.loader.args, "disk")),
        **dict.fromkeys(other, "plan"),
        **_by_key(choice, table, dict.fromkeys(served.remedy.args, "known_issue")),
        **_by_key(choice, table, dict.fromkeys(choice.intent.engine_args, "yours")),
    }
    places = reading.owned(table, choice.engine)
    reasons = {
        **{flags.spelled(name): why for name, why in (found.departs if found else {}).items()},
        **{served.shown.get(key, key): _WHY[says[key]] for key in other},
        **dict.fromkeys(served.remedy.env, _WHY["known_issue"]),
        **dict.fromkeys(map(str, choice.intent.engine_env), "glm_engine_env"),
    }
    adapted: list[Adapted] = [{"argument": name, "reason": why} for name, why in reasons.items()]
    return {
        "basis": _basis(found, bool(adapted)),
        "adapted": adapted if found else [],
        "origins": {served.shown.get(key, key): says.get(key, "plan") for key in served.arguments if key not in places},
        "measured": own.measured(choice, table, served),
        "profile": choice.intent.profile,
        "users": choice.known.profiles[choice.intent.profile].users,
        "point": _point(found),
    }


def notes(choice: Choice, served: Served) -> list[str]:
    """What to know of a plan for fewer requests at once than its profile is for."""
    return [*_fewer_published(choice, served.recipe), *_fewer_held(choice, served)]


def _fewer_published(choice: Choice, found: Optional[Published]) -> list[str]:
    users, point = choice.known.profiles[choice.intent.profile].users, found.point if found else None
    if point is None or users is None or users <= point.most:
        return []
    return [
        f"The recipe was published as {point.name}, which its publisher measures with {point.least} to {point.most} "
        f"requests at once; {choice.intent.profile} is for up to {users}. Measure that with benchmark.yml, or compare "
        "the profiles with plan.yml -e glm_compare=true."
    ]


def _fewer_held(choice: Choice, served: Served) -> list[str]:
    name = choice.known.profiles[choice.intent.profile].workload
    if name is None:
        return []
    workload = choice.known.workloads[name]
    size = workload.input_tokens + workload.output_tokens
    at_once = max(point.parallel or 1 for point in workload.points)
    held = served.size.tokens // size
    if held >= at_once:
        return []
    return [
        f"The KV cache holds {served.size.tokens:,} tokens: {held} of the {at_once} requests of {size:,} tokens that "
        f"the workload {name} has at once. The others wait, or are computed again. GPUs with more memory hold more, "
        "and so does an FP8 KV cache, where the engine has one for these GPUs (kv-cache-dtype in glm_engine_args)."
    ]


def _basis(found: Optional[Published], changed: bool) -> Basis:
    if found is None:
        return "derived"
    if isinstance(found, OwnRecipe):
        return "own"
    return "adapted" if changed else "published"


def _point(found: Optional[Published]) -> Optional[Point]:
    if found is None or found.point is None:
        return None
    made: Point = {"name": found.point.name, "least": found.point.least, "most": found.point.most}
    return made


def _by_key(choice: Choice, table: flags.Table, said: Mapping[str, Origin]) -> dict[str, Origin]:
    """The same by canonical name."""
    named: Mapping[str, Any] = flags.respelled(table, said, choice.engine.renames)
    return {table.find(name).key: origin for name, origin in named.items()}


def _of_part(part: Union[Layer, Published]) -> Origin:
    if isinstance(part, OwnRecipe):
        return "own"
    return "recipe" if isinstance(part, Published) else "catalogue"
