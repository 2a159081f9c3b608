# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model is served on the GPUs there are: the division that fits best, arguments for it, notes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Optional

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import alignment, memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Apply, KnownIssue, Recipe
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import (
    budget,
    combinations,
    flags,
    issues,
    loading,
    meaning,
    recipes,
    repositories,
    set_pool,
    starts,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

# Below this many tokens a request is too short to be worth a host; the plan refuses instead of shortening further.
SHORTEST_CONTEXT = 16384
# How many throughput requests of the profile's length a rank should hold: with fewer, a long one blocks all others.
LEAST_REQUESTS = 2
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Served:
    """One way to serve that was worked out: arguments by canonical name, how to spell them, and what follows."""

    recipe: Optional[Recipe]
    composed: recipes.Composed
    arguments: dict[str, Any]
    shown: dict[str, str]
    divided: plan_fit.Parallel
    size: plan_fit.Fit
    met: list[KnownIssue]
    env: dict[str, str]
    notes: list[str]
    remedy: Apply
    """What workarounds of known issues changed, before the user's own words."""
    loader: loading.Loader


def serve(choice: Choice, table: flags.Table) -> Served:
    """The best way to divide the GPUs that fits. Raises PlanError with the arithmetic of the most sparing one."""
    _check_capabilities(choice)
    _check_managed(choice, table)
    cell = choice.cell
    recipe = recipes.published(choice.known, cell)
    ways = recipes.layouts(cell, recipe, choice.engine.options.data_attention is not None)
    if not ways:
        _refuse_division(choice)
    tried: list[Served] = []
    broken: list[combinations.Broken] = []
    for served in _preferred(choice, (_attempt(choice, table, recipe, way) for way in ways), recipe):
        tried.append(served)
        if served.size.problem:
            continue
        found = combinations.broken(choice, table, served.arguments, served.divided)
        if not found:
            return served
        broken = broken or found
    if broken:
        combinations.refuse(choice, broken)
    if recipe is None and choice.model.config.num_attention_heads % cell.gpus:
        _refuse_division(choice)
    sparing = min(tried, key=lambda served: served.size.weights)
    problem, wider = sparing.size.problem, 2 * sparing.divided.tensor
    cut = _cut(choice, wider) if recipe is None and cell.gpus % wider == 0 else None
    choice.refuse(f"{problem}; a wider group would cut the weights: {cut}" if cut else problem, sparing.size.remedy)


def _preferred(choice: Choice, attempts: Iterator[Served], recipe: Optional[Recipe]) -> Iterable[Served]:
    """The divisions, best first. For throughput those whose ranks hold some requests each, the most tokens in all ranks
    together first; then the others by what one rank holds.
    """
    if recipe or choice.intent.profile != "throughput":
        return attempts
    least = LEAST_REQUESTS * choice.context_goal

    def room(served: Served) -> tuple[bool, int]:
        roomy = served.size.per_rank >= least
        return roomy, served.size.tokens if roomy else served.size.per_rank

    return sorted(attempts, key=room, reverse=True)


def _refuse_division(choice: Choice) -> NoReturn:
    config, gpus = choice.model.config, choice.cell.gpus
    smaller = "smaller groups do not hold the weights" if choice.intent.nodes == 1 else "a replica takes all of them"
    cut = _cut(choice, gpus)
    valid = memory.valid_tensor_parallel(config, replicate_kv=True)
    if gpus in valid and cut:
        choice.refuse(f"tensor parallelism over {gpus} GPUs cuts through the weights ({cut}), and {smaller}")
    possible = ", ".join(str(size) for size in valid if not _cut(choice, size))
    choice.refuse(
        f"tensor parallelism over {gpus} GPUs does not divide the {config.num_attention_heads} attention heads "
        f"(possible: {possible}), and {smaller}"
    )


def _cut(choice: Choice, width: int) -> Optional[alignment.Misfit]:
    """What a tensor group of that width would cut through even with whole experts."""
    return recipes.misfit(choice.cell, recipes.Layout(width), 1)


def _check_capabilities(choice: Choice) -> None:
    """Refuse what no arguments could change: kernels that do not exist."""
    accelerator = choice.accelerator
    lacking = [need for need in (*choice.model.needs, *choice.checkpoint.needs) if need not in accelerator.features]
    if lacking:
        because = f"; {accelerator.note}" if accelerator.note else ""
        choice.refuse(f"{accelerator.name} ({accelerator.architecture}) lacks {', '.join(lacking)}{because}")


def _attempt(choice: Choice, table: flags.Table, recipe: Optional[Recipe], way: recipes.Layout) -> Served:
    served = _worked_out(choice, table, recipe, way)
    change, note = _for_margin(choice, table, served)
    if not change:
        return served
    again = _worked_out(choice, table, recipe, way, change)
    notes = [note.format(size=again.size), *_offer(choice, served.size)]
    return dataclasses.replace(again, notes=[*again.notes, *notes])


def _offer(choice: Choice, size: plan_fit.Fit) -> list[str]:
    """What the starts of the fleet leave room for, where the estimate is more careful."""
    if size.offered is None:
        return []
    option = choice.engine.options.context
    return [
        f"That is by the estimate; what starts of this fleet reported leaves room for {size.offered:,} tokens: set "
        f"{option.removeprefix('--')} to {size.offered} in glm_engine_args to have them."
    ]


def _for_margin(choice: Choice, table: flags.Table, served: Served) -> tuple[dict[str, Any], str]:
    """Arguments that leave the margin where the layers and the recipe do not, and a note; empty where nothing does.

    What the user wrote stays, and so does the published fraction of an engine whose own memory lies outside of it.
    """
    size, options, own = served.size, choice.engine.options, choice.own_options
    if size.longest is not None and size.longest >= SHORTEST_CONTEXT and flags.spelled(options.context) not in own:
        asked = plan_fit.context_of(choice, table, served.arguments)
        holder = "rank" if served.divided.data > 1 else "replica"
        return {options.context.removeprefix("--"): size.longest}, (
            f"{options.context} is {size.longest:,} and not {asked:,} tokens: the KV cache of one {holder} holds "
            "{size.per_rank:,}"
            + (", and {size.margin:.1f} GiB of each GPU are left as a margin." if size.margin else ".")
        )
    derived = served.recipe is None and flags.spelled(options.memory_fraction) not in own
    if not choice.engine.own_memory.inside and size.spare < size.margin and derived:
        fraction = math.floor(100 * (1 - (size.own.gib + size.margin) / choice.accelerator.memory_gib)) / 100
        return {options.memory_fraction.removeprefix("--"): fraction}, (
            f"{options.memory_fraction} is {fraction} and not {size.fraction}: {size.own.gib:.1f} GiB of each GPU are "
            "for graphs and workspaces, and {size.margin:.1f} GiB a margin."
        )
    return {}, ""


def _worked_out(
    choice: Choice, table: flags.Table, recipe: Optional[Recipe], way: recipes.Layout,
    changed: Optional[Mapping[str, Any]] = None,
) -> Served:  # fmt: skip
    composed = recipes.compose(choice.layers, choice.cell, recipe, way, choice.context_goal)
    if choice.beside:
        composed = replace(composed, args=repositories.placed(composed.args, choice.beside))
    loader = loading.choose(choice, composed.args)
    given = {**loader.args, **composed.args, **(changed or {}), **_node_arguments(choice)}
    base = flags.respelled(table, {**given, **_clocks(choice, table, given)}, choice.engine.renames)
    try:
        planned = flags.merge(table, base, {})
    except flags.FlagError as exc:
        _refuse_recipe(choice, exc)
    expected = issues.find(choice.issues, planned)
    remedy = issues.remedy(expected)
    override = choice.intent.engine_args
    try:
        override = meaning.read(choice.engine, table, override)
        arguments = flags.merge(table, {**planned, **remedy.args}, override)
        # With a shorter context they are the ones that were checked.
        if changed is None:
            meaning.check(choice.engine, table, arguments)
    except flags.FlagError as exc:
        try:
            meaning.check(choice.engine, table, planned)
        except flags.FlagError as own:
            _refuse_recipe(choice, own)
        choice.refuse(
            f"glm_engine_args: {exc}",
            choice.engine.replaced_options.get(exc.flag)
            or "correct glm_engine_args; null removes an argument of the recipe",
        )
    _check_parsers(choice, table, arguments)
    _check_code(choice, table, arguments)
    met = issues.find(choice.issues, arguments)
    for issue in met:
        if issue.status == "broken":
            choice.refuse(f"{issue.text.rstrip('.')} ({issue.link})")
    env = {
        name: entry.value
        for name, entry in {**choice.engine.env, **composed.env}.items()
        if entry.holds(choice.version)
    }
    seconds = _clock_seconds(choice)
    clocks = {name: str(max(seconds, int(env.get(name, 0)))) for name in choice.engine.clocks.env}
    divided = plan_fit.parallel(choice, table, arguments)
    size = plan_fit.fit(choice, table, arguments, divided, starts.readings(choice, table, arguments, divided))
    kept = list({issue.id: issue for issue in (*expected, *met) if issue.status != "broken"}.values())
    return Served(
        recipe=recipe,
        composed=composed,
        arguments=arguments,
        shown=_shown(table, [*base, *remedy.args, *override]),
        divided=divided,
        size=set_pool.sized(choice, table, arguments, divided, size),
        met=kept,
        env={**env, **clocks, **remedy.env},
        notes=[*composed.notes, *_hasty(choice, table, arguments)],
        remedy=remedy,
        loader=loader,
    )


def _refuse_recipe(choice: Choice, error: flags.FlagError) -> NoReturn:
    choice.refuse(f"the recipe does not suit this release: {error}", "choose another glm_engine_version")


def _clock_seconds(choice: Choice) -> int:
    """The start budget in whole hours, rounded up.

    The value is in the unit and in the key of vLLM's compile cache: a budget that changes a little restarts nothing.
    """
    return -(-budget.start_seconds(choice) // 3600) * 3600


def _clocks(choice: Choice, table: flags.Table, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that end a start: none ends it before the plan does, and a recipe may allow more."""
    seconds = _clock_seconds(choice)
    named = {flags.spelled(name): value for name, value in given.items()}
    return {
        option.removeprefix("--"): max(seconds, int(named.get(option, 0)))
        for option in choice.engine.clocks.options
        if option in table.options
    }


def _hasty(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> list[str]:
    """What to say about a clock of the engine that the user set shorter than the start budget."""
    seconds = budget.start_seconds(choice)
    given = {
        option: plan_fit.argument(table, arguments, option)
        for option in choice.engine.clocks.options
        if option in table.options
    }
    return [
        f"{option} is {value} s in glm_engine_args: the engine may end a start that the plan gives {seconds:,} s."
        for option, value in given.items()
        if _NUMBER.fullmatch(str(value)) and float(value) < seconds
    ]


def _shown(table: flags.Table, names: Sequence[str]) -> dict[str, str]:
    """How each option is printed: as the recipe or the user wrote it, where this version knows that name."""
    shown = {}
    for name in names:
        spelled = flags.spelled(name).split(".", 1)[0]
        option = table.find(name)
        shown[option.key] = spelled if spelled in option.names and spelled not in option.negatives else option.key
    return shown


def _node_arguments(choice: Choice) -> dict[str, Any]:
    """The arguments about its hosts for an engine that spans several; empty for one host."""
    intent, several = choice.intent, choice.engine.multi_node
    if intent.nodes == 1:
        return {}
    head = intent.head_address or "HEAD"
    fills = {
        "$nodes": intent.nodes, "$rank": intent.node_rank, "$head": head, "$port": several.port,
        "$head_port": f"{address.bracketed(head)}:{several.port}",
    }  # fmt: skip
    wanted = {**several.args, **(several.worker if intent.node_rank else {})}
    return {name: fills.get(value, value) if isinstance(value, str) else value for name, value in wanted.items()}


def _check_managed(choice: Choice, table: flags.Table) -> None:
    for name in choice.intent.engine_args:
        try:
            option = table.find(name)
        except flags.FlagError:
            continue  # reported with the other problems of glm_engine_args
        instead = meaning.owned(choice.engine, option)
        if instead is not None:
            choice.refuse(f"glm_engine_args may not hold {flags.spelled(name)}: the plan sets it", f"use {instead}")
        if meaning.class_of(choice.engine, option) is None:
            choice.refuse(
                f"glm_engine_args: the catalogue does not say what {flags.spelled(name)} means for a plan",
                f"name it in catalog/engines/{choice.engine.name}/meanings.yml, or leave it out",
            )


def _check_parsers(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> None:
    """Parser names: vLLM looks at them only when it starts, so a wrong one would cost a whole start."""
    options = choice.engine.options
    for flag, known in ((options.tool_parser, table.tool_parsers), (options.reasoning_parser, table.reasoning_parsers)):
        value = plan_fit.argument(table, arguments, flag)
        if value is not None and str(value) not in known:
            choice.refuse(
                f"{choice.engine.name} {choice.version} has no {flag.lstrip('-')} {value!r}",
                f"set {flag.lstrip('-')} in glm_engine_args to one of {', '.join(known)}",
            )


def _check_code(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> None:
    """What would run code of the repository, which is as trustworthy as everybody who can write to it."""
    if choice.intent.allow_unsafe_weights:
        return
    for name, value in arguments.items():
        option = table.find(name)
        if meaning.runs_code(choice.engine, option, value):
            choice.refuse(
                f"{option.key} {flags.written(value)} runs code that is in the repository of the weights",
                f"leave {option.key.lstrip('-')} out of glm_engine_args, or set glm_allow_unsafe_weights=true if you "
                "trust whoever writes to that repository",
            )


def notes_of(choice: Choice, table: flags.Table, served: Served) -> list[str]:
    """What a reader of the plan should know before the start: sentences, the catalogue's first."""
    notes = [*served.notes, *choice.model.notes]
    if choice.checkpoint.note:
        notes.append(choice.checkpoint.note)
    idle = choice.cell.gpus - served.divided.gpus
    if idle:
        notes.append(f"{idle} of {choice.cell.gpus} GPUs stay idle.")
    if choice.intent.gpus:
        left = choice.intent.accelerator_count - len(choice.usable)
        notes.append(
            f"{left} of the host's {choice.intent.accelerator_count} GPUs are left to others; prices are the host's."
        )
    context = plan_fit.context_of(choice, table, served.arguments)
    if not choice.engine.requires_full_context and context is not None and served.size.per_rank < context:
        notes.append(
            f"The KV cache of one {'rank' if served.divided.data > 1 else 'replica'} holds {served.size.per_rank:,} "
            f"tokens: {choice.engine.name} answers longer requests with an error, although the model takes {context:,}."
        )
    size, options = served.size, choice.engine.options
    if not choice.engine.own_memory.inside and size.spare < 0:
        outside = (1 - size.fraction) * choice.accelerator.memory_gib
        notes.append(
            f"{options.memory_fraction} {size.fraction} leaves {outside:.1f} GiB for graphs and workspaces, where "
            f"{size.own.gib:.0f} GiB are usual; lower it if the start runs out of memory."
        )
    if size.longest is not None:
        notes.append(
            f"{options.context} as it is set leaves {size.spare:.1f} GiB of each GPU, less than the margin of "
            f"{size.margin:.1f} GiB: the start fails if the engine needs {size.spare:.1f} GiB more than estimated. At "
            f"{size.longest:,} tokens it would not."
        )
    if address.is_wildcard(choice.intent.listen_address):
        notes.append(
            f"glm_bind is public: port {choice.intent.listen_port + choice.intent.replica} is open on every address of "
            "the host, the public one, too. Let the cloud's firewall admit only your clients, give each its key, and "
            "use TLS: over plain http keys and prompts can be read on the way."
        )
    if served.divided.pipeline > 1 and not choice.intent.rdma:
        notes.append(
            f"Is there RDMA (InfiniBand or RoCE) between the {choice.intent.nodes} hosts? glm_rdma does not say so, "
            f"and each host is a stage of a pipeline (TP{served.divided.tensor} x PP{served.divided.pipeline}). With "
            "glm_rdma true all GPUs are one tensor group, which answers each user faster."
        )
    if choice.intent.nodes > 1 and not choice.intent.head_address:
        notes.append("HEAD in the command stands for the first host's private address.")
    for key in served.arguments:
        if table.options[key].deprecated:
            notes.append(f"{key} is deprecated in {choice.engine.name} {choice.version}.")
    notes += meaning.notes(choice.engine, table, choice.intent.engine_args)
    return notes
