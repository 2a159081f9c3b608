# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which settings of a plan its engine does not take together, why, and which change makes it start.

The rules are ``engines/<engine>/combinations.yml``: what the engine itself refuses at its start, or crashes on.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.combinations import FACTS
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Combination
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import conditions, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

# How many ways to change a plan are tried before the refusal offers other hardware instead.
_TRIES = 12


@dataclasses.dataclass(frozen=True)
class Broken:
    """A rule that a plan breaks: the settings that break it, in words, and the changes it offers."""

    rule: Combination
    found: list[str]
    changes: list[dict[str, Any]]


def broken(choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: plan_fit.Parallel) -> list[Broken]:
    """The rules of this version that the plan breaks, in the catalogue's order."""
    known: dict[str, Any] = dict(_facts(choice, divided))

    def value(name: str) -> Any:
        if name not in known:
            known[name] = plan_fit.argument(table, arguments, _spelled(choice, table, name))
        return known[name]

    return [
        Broken(
            rule,
            _settings(choice, table, rule, value),
            [changed for change in rule.changes if (changed := _respelled(choice, table, change, value)) is not None],
        )
        for rule in choice.engine.combinations
        if all(conditions.holds(value(name), wanted, value) for name, wanted in rule.when.items())
        and rule.holds(choice.version)
    ]


def refuse(choice: Choice, found: Sequence[Broken]) -> NoReturn:
    """Refuse the plan, with each rule's reason and the first change with which it plans."""
    why = "; ".join(": ".join([*filter(None, [flags.listed(one.found)]), one.rule.reason]) for one in found)
    picks = itertools.product(*(one.changes for one in found))
    for pick in itertools.islice(picks, _TRIES):
        change = {name: value for part in pick for name, value in part.items()}
        if choice.plans_with(change):
            choice.refuse(why, flags.advice(change))
    choice.refuse(why, "; ".join(one.rule.next for one in found if one.rule.next))


def _settings(choice: Choice, table: flags.Table, rule: Combination, value: conditions.Lookup) -> list[str]:
    """The options that the rule is about, as they are; one that is absent counts where the rule says so."""
    said = []
    for name, wanted in rule.when.items():
        if name.partition(".")[0] in FACTS:
            continue
        given, spelled = value(name), _spelled(choice, table, name).removeprefix("--")
        if given is not None:
            said.append(f"{spelled} {flags.written(given)}")
        elif wanted is None or isinstance(wanted, Mapping):
            said.append(f"no {spelled}")
    return said


def _spelled(choice: Choice, table: flags.Table, name: str) -> str:
    """The option as this version calls it; a name that it has not under either stays."""
    head, dot, rest = flags.spelled(name).partition(".")
    if head not in table.options:
        head = choice.engine.renames.get(head, head)
    return head + dot + rest


def _respelled(
    choice: Choice, table: flags.Table, change: Mapping[str, Any], value: conditions.Lookup
) -> Optional[dict[str, Any]]:
    """What the change sets otherwise than it is, as this version calls it; None where the version lacks one of them."""
    found: dict[str, Any] = {}
    for name, wanted in change.items():
        spelled = _spelled(choice, table, name)
        if wanted is None and value(name) is None:
            continue
        if spelled.partition(".")[0] not in table.options:
            return None
        found[spelled.removeprefix("--")] = conditions.filled(wanted, value)
    return found or None


def _facts(choice: Choice, divided: plan_fit.Parallel) -> dict[str, Any]:
    """The facts of catalog/combinations.py by name."""
    checkpoint, accelerator, intent = choice.checkpoint, choice.accelerator, choice.intent
    return {
        **_of_model(choice.model.config),
        "model.type": choice.model.model_type,
        "model.tool_parser": choice.model.parsers.tool,
        "model.mtp_steps": choice.model.mtp.draft_steps,
        "gpu.architecture": accelerator.architecture,
        "gpu.vendor": accelerator.vendor,
        "weights.format": checkpoint.weights,
        "weights.block": checkpoint.block,
        "weights.mtp": checkpoint.mtp,
        "parallel.tensor": divided.tensor,
        "parallel.pipeline": divided.pipeline,
        "parallel.data": divided.data,
        "parallel.expert": divided.expert,
        "parallel.attention": divided.attention,
        "parallel.data_attention": divided.tensor // divided.attention,
        "parallel.nodes": intent.nodes,
        "plan.runtime": intent.runtime,
        "plan.served_name": intent.served_model_name,
        "plan.own_image": intent.image,
        "plan.mounts": [
            pattern
            for mount in intent.extra_mounts
            if (path := str(mount.get("target") or mount.get("source") or ""))
            for pattern in (glob.escape(path), f"{glob.escape(path.rstrip('/'))}/*")
        ],
    }


@functools.lru_cache(maxsize=64)
def _of_model(config: memory.Config) -> Mapping[str, Any]:
    found = {**dataclasses.asdict(config), "sparse": config.index_n_heads > 0, "latent": config.is_mla}
    return {f"model.{name}": value for name, value in found.items()}
