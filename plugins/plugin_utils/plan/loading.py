# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an engine loads the weights from the disk that they are on: the rule of its catalogue that holds, and why.

Pure. Where the disk is not known, or nothing is known of such a disk, nothing is added: the engine's own way is what
everybody else has, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import LoadRule
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import budget, flags, issues
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import DiskClass, Loading

# Of the host's memory, what the processes of the engine leave; vLLM asks for as much before it reads ahead.
_SHARE = 0.9


@dataclass(frozen=True)
class Loader:
    """What was chosen, and why in a sentence."""

    disk: DiskClass
    because: str
    source: Optional[str] = None
    args: Mapping[str, Any] = field(default_factory=dict)


def choose(choice: Choice, given: Mapping[str, Any]) -> Loader:
    """The loader for the disk of the weights. ``given``: the arguments of layers and recipe, which go before it."""
    disk = choice.disk
    where = disk_class(choice)
    names = {flags.spelled(name) for name in (*given, *choice.intent.engine_args)}
    said = [option for option in choice.engine.loading.options if option in names]
    if said:
        return Loader(where, f"{', '.join(said)} is set: nothing is added")
    if disk is None:
        return Loader(where, "the disk of the weights is not known yet, a deploy keeps it: nothing is added")
    if where == "unknown":
        return Loader(where, f"nothing is known of {disk['filesystem'] or 'this disk'}: nothing is added")
    for rule in choice.engine.loading.rules:
        if not _holds(rule, choice, where, disk["filesystem"]):
            continue
        if rule.args and _known_wrong(choice, given, rule):
            continue
        problem = _does_not_fit(choice, disk["memory_gib"]) if rule.in_memory else ""
        if problem:
            return Loader(where, f"{problem}: nothing is added")
        return Loader(where, rule.because, rule.source, rule.args)
    return Loader(
        where,
        f"no figure is known of {choice.engine.name} {choice.version} on {disk['filesystem']}: nothing is added",
    )


def record(choice: Choice, loader: Loader) -> Loading:
    """The ``loading`` of a plan."""
    disk = choice.disk
    return {
        "disk": loader.disk,
        "filesystem": disk["filesystem"] if disk else None,
        "kind": disk["kind"] if disk else None,
        "read_mb_s": disk["read_mb_s"] if disk else None,
        "measured_at": disk["measured_at"] if disk else None,
        "options": sorted(flags.spelled(name) for name in loader.args),
        "reason": loader.because,
        "source": loader.source,
    }


def disk_class(choice: Choice) -> DiskClass:
    """What loaders differ by."""
    kind = choice.disk["kind"] if choice.disk else None
    return "unknown" if kind is None else "network" if kind == "network" else "local"


def _holds(rule: LoadRule, choice: Choice, where: DiskClass, filesystem: str) -> bool:
    return (
        rule.disk == where
        and rule.holds(choice.version)
        and (rule.filesystems is None or filesystem in rule.filesystems)
        and (rule.precisions is None or choice.intent.precision in rule.precisions)
    )


def _known_wrong(choice: Choice, given: Mapping[str, Any], rule: LoadRule) -> bool:
    """Whether a known issue is met with these arguments, and not without them."""
    before = {issue.id for issue in issues.find(choice.issues, given)}
    return any(issue.id not in before for issue in issues.find(choice.issues, {**given, **rule.args}))


def _does_not_fit(choice: Choice, host_gib: float) -> str:
    """Why the host's memory does not hold all files at once; empty where it does."""
    container = choice.engine.container
    taken = (container.shared_memory_gib_per_gpu + container.process_memory_gib_per_gpu) * choice.count
    weights, room = budget.weights_bytes(choice) / memory.GIB, _SHARE * (host_gib - taken)
    if weights <= room:
        return ""
    return (
        f"{weights:,.0f} GiB of weights are more than the {max(room, 0):,.0f} GiB of memory that the host has for files"
    )
