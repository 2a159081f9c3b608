# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a plan's arguments divide the GPUs, and whether weights and KV cache then fit. Pure arithmetic."""

from __future__ import annotations

import bisect
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, own_memory, recipes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Memory


@dataclass(frozen=True)
class Parallel:
    """How the GPUs of a replica are used.

    ``attention`` GPUs share one copy of the attention weights, ``experts_over`` one set of experts, ``tensor`` one copy
    of everything else.
    """

    tensor: int
    pipeline: int
    data: int
    expert: int
    gpus: int
    attention: int
    experts_over: int


@dataclass(frozen=True)
class Fit:
    """Result of the arithmetic for one GPU; GiB unless a name says otherwise. ``problem`` is empty when it fits.

    ``remedy`` is what would help against the problem; empty when no setting would. ``own`` is what the engine keeps for
    itself, ``margin`` what of the GPU no request is promised, ``spare`` what is left beside one of the longest.
    ``per_rank`` is how many tokens one data-parallel rank holds; ``longest`` how long a request may be that leaves the
    margin, None where the length of a request is not the problem. ``starts``: how many starts reported what the engine
    takes; ``offered``: how long a request may be by what they reported, where the estimate makes it shorter; ``usual``:
    the pool by them or by the estimate, whichever is larger.
    """

    weights: float
    kv_bytes: int
    kv_format: str
    fraction: float
    own: own_memory.Own
    margin: float
    spare: float
    pool: float
    tokens: int
    per_rank: int
    problem: str
    remedy: str
    arithmetic: str
    longest: Optional[int]
    starts: int
    usual: float
    offered: Optional[int] = None


def argument(table: flags.Table, arguments: flags.Arguments, flag: Optional[str]) -> Any:
    """The value of an option by any of its names; a dotted name reaches into a mapping. None when it is absent."""
    if flag is None:
        return None
    head, dot, rest = flag.partition(".")
    option = table.options.get(head)
    if option is None:
        return None
    value = arguments.get(option.key)
    for part in rest.split(".") if dot else ():
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(choice: Choice, table: flags.Table, arguments: flags.Arguments, flag: Optional[str], absent: int) -> int:
    value = argument(table, arguments, flag)
    if value is None:
        return absent
    number = int(value)
    if number < 1:
        choice.refuse(f"{flag} is {value!r}", "set it to 1 or more in glm_engine_args")
    return number


def parallel(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> Parallel:
    """How the arguments divide the GPUs. Raises PlanError when the host has too few, or the heads do not divide."""
    options = choice.engine.options
    tensor, pipeline, data = (
        _number(choice, table, arguments, flag, 1) for flag in (options.tensor, options.pipeline, options.data)
    )
    within = _number(choice, table, arguments, options.data_attention_size, 1)
    data_attention = within > 1 or argument(table, arguments, options.data_attention) is True
    if within > 1:
        data = within
    heads = choice.model.config.num_attention_heads
    attention = tensor // data if data_attention else tensor
    if heads % tensor or attention < 1 or (data_attention and tensor % data):
        choice.refuse(
            f"{options.tensor} {tensor} with data parallelism {data} does not divide the {heads} attention heads",
            f"set {options.tensor} to a divisor of {heads}, and data-parallel attention to a divisor of that",
        )
    # vLLM's data-parallel ranks share one set of experts; SGLang's plain ones are whole copies.
    experts_over = tensor * data if options.data_attention is None else tensor
    divided = Parallel(
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        expert=_expert(choice, table, arguments, experts_over),
        # With data-parallel attention the ranks of the tensor group are divided; otherwise each has its own GPUs.
        gpus=tensor * pipeline * (1 if data_attention else data),
        attention=attention,
        experts_over=experts_over,
    )
    _check_alignment(choice, divided)
    count = choice.cell.gpus
    if divided.gpus > count:
        has = f"the host has {count}" if choice.intent.nodes == 1 else f"the hosts have {count}"
        choice.refuse(
            f"tensor {tensor} x pipeline {pipeline} x data {data} parallelism needs {divided.gpus} GPUs, {has}",
            f"lower {options.tensor} or {options.data} in glm_engine_args so that their product is at most {count}",
        )
    return divided


def _check_alignment(choice: Choice, divided: Parallel) -> None:
    """Refuse a division that cuts through blocks or groups of the weights, with one that does not."""
    options, cell = choice.engine.options, choice.cell
    layout = recipes.Layout(divided.tensor, data_attention=divided.tensor // divided.attention)
    cut = recipes.misfit(cell, layout, divided.experts_over // divided.expert)
    if cut is None:
        return
    changes: list[dict[str, Any]] = []
    if options.expert_switch:
        changes.append({options.expert_switch: True})
    elif options.expert_size:
        changes.append({options.expert_size: divided.tensor})
    changes += [{options.tensor: width} for width in _divisors(divided.tensor)[1:]]
    changes += [{options.tensor: width, options.data: cell.gpus // width} for width in _divisors(cell.gpus)]
    change = next((change for change in changes if choice.plans_with(change)), None)
    choice.refuse(str(cut), flags.advice(change) if change else "")


def _divisors(number: int) -> list[int]:
    """From the largest on."""
    return [size for size in range(number, 0, -1) if number % size == 0]


def _expert(choice: Choice, table: flags.Table, arguments: flags.Arguments, experts_over: int) -> int:
    """GPUs over which whole experts are spread; 1 when each expert is split instead."""
    options = choice.engine.options
    backend = argument(table, arguments, options.expert_backend)
    # SGLang's all-to-all backends set the size by themselves.
    if argument(table, arguments, options.expert_switch) is True or backend not in (None, "none"):
        return experts_over
    size, experts = _number(choice, table, arguments, options.expert_size, 1), choice.model.config.n_routed_experts
    if experts_over % size or experts % size:
        choice.refuse(
            f"{options.expert_size} {size} does not divide both the {experts_over} GPUs and the {experts} experts",
            f"set {options.expert_size} in glm_engine_args to a divisor of {math.gcd(experts_over, experts)}",
        )
    return size


def fit(
    choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: Parallel,
    readings: Sequence[own_memory.Reading] = (),
) -> Fit:  # fmt: skip
    """Whether it fits. Raises PlanError for values that mean nothing; what does not fit is in the result.

    What starts reported (``readings``) takes the place of the estimate, but changes no argument that the plan chose: a
    fleet that was just deployed would differ from its plan.
    """
    options = choice.engine.options
    asked = argument(table, arguments, options.memory_fraction)
    fraction = choice.engine.default_memory_fraction if asked is None else float(asked)
    if not 0 < fraction <= 1:
        choice.refuse(f"{options.memory_fraction} is {fraction}", "set it between 0 and 1 in glm_engine_args")
    dtype = str(argument(table, arguments, options.kv_cache_dtype) or "auto")
    context = context_of(choice, table, arguments)
    given = (
        choice, divided, _load(choice, table, arguments, divided), fraction, _drafts(choice, table, arguments),
        _kv_format(choice, dtype), context,
    )  # fmt: skip
    estimated = _arithmetic(*given, ())
    if not readings:
        return estimated
    seen = _arithmetic(*given, readings)
    seen = dataclasses.replace(seen, usual=max(seen.pool, estimated.pool))
    # Whether it fits at all is for those to say who started.
    hopeless = any(one.problem and one.longest is None for one in (estimated, seen))
    if hopeless or _is_users_own(choice, options.context):
        return seen
    room = seen.longest if seen.longest is not None or seen.problem else context
    more = room is not None and estimated.longest is not None and room > estimated.longest
    return dataclasses.replace(
        seen, problem=estimated.problem, remedy=estimated.remedy, longest=estimated.longest,
        offered=room if more else None,
    )  # fmt: skip


def _load(choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: Parallel) -> own_memory.Load:
    options = choice.engine.options
    tokens = _tokens(argument(table, arguments, options.step_tokens))
    drafts = argument(table, arguments, options.drafts)
    # Ranks of one tensor group share its steps and its requests.
    ranks = divided.tensor // divided.attention
    sequences = _number(choice, table, arguments, options.sequences, 0)
    if tokens is not None:
        # Below one: the engine does not divide long prompts.
        tokens = max(1, tokens // ranks) if tokens > 0 else choice.model.context_length
    return own_memory.Load(
        tokens=tokens,
        sequences=max(1, sequences // ranks) if sequences else None,
        drafts=int(drafts) if drafts is not None else 0,
        tensor=divided.tensor,
        attention=divided.attention,
        data=divided.data,
    )


def _tokens(value: Any) -> Optional[int]:
    """A number of tokens as the engines read it, such as 8k or 1.5M; None for what is none."""
    units = {"": 1, "k": 1000, "m": 1000**2, "K": 1024, "M": 1024**2}
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmM]?)", str(value))
    return int(float(found.group(1)) * units[found.group(2)]) if found else None


def _drafts(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> bool:
    """Whether the engine loads the MTP layer."""
    method = argument(table, arguments, choice.engine.options.speculation)
    return choice.checkpoint.mtp and method is not None and str(method) in choice.engine.speculation_with_mtp


def _kv_format(choice: Choice, dtype: str) -> str:
    sparse = choice.model.config.index_n_heads > 0
    for rule in choice.engine.kv_formats:
        if (
            rule.dtype == dtype
            and rule.sparse in (None, sparse)
            and rule.holds(choice.version)
            and (rule.architectures is None or choice.accelerator.architecture in rule.architectures)
        ):
            return rule.format
    known = sorted({rule.dtype for rule in choice.engine.kv_formats})
    choice.refuse(
        f"the KV cache of {choice.model.name} cannot be {dtype!r}",
        f"set {choice.engine.options.kv_cache_dtype} in glm_engine_args to one of {', '.join(known)}",
    )


def context_of(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> Optional[int]:
    """Tokens one request may have, or None when the engine is asked to find out."""
    flag = choice.engine.options.context
    value = argument(table, arguments, flag)
    if value is None:
        return choice.model.context_length
    text = str(value)
    if text in ("auto", "-1"):
        return None
    context = _tokens(text)
    if context is None:
        choice.refuse(f"{flag} is {text!r}", "set it to a number of tokens in glm_engine_args")
    if not 0 < context <= choice.model.context_length:
        choice.refuse(
            f"{flag} is {context} tokens, the model was made for {choice.model.context_length}",
            f"set {flag} to at most {choice.model.context_length} in glm_engine_args",
        )
    return context


def _arithmetic(
    choice: Choice,
    divided: Parallel,
    load: own_memory.Load,
    fraction: float,
    mtp: bool,
    kv_format: str,
    context: Optional[int],
    readings: Sequence[own_memory.Reading],
) -> Fit:
    config, engine = choice.model.config, choice.engine
    hbm = choice.accelerator.memory_gib
    stored = memory.weights_per_gpu(
        config, choice.checkpoint.weights, divided.experts_over, mtp, divided.attention, divided.tensor,
        choice.checkpoint.mtp_weights,
    )  # fmt: skip
    absorbed = memory.absorbed_per_gpu(config, divided.attention, mtp)
    of_weights, of_cache = memory.largest_stage(config, divided.pipeline)
    stored_gib, absorbed_gib = (size * of_weights / memory.GIB for size in (stored, absorbed))
    weights = stored_gib + absorbed_gib
    kv_bytes = math.ceil(memory.kv_bytes_per_token(config, kv_format, divided.attention, mtp) * of_cache)
    static, inside = fraction * hbm, engine.own_memory.inside
    own = own_memory.needed(choice, load, context or choice.model.context_length, readings if inside else ())
    # What an engine has outside of its share takes nothing of the share, unless its starts say so.
    taken = own.gib if inside else max((one.taken_gib for one in readings), default=0.0)
    pool = static - taken - weights
    margin = own_memory.margin(own, pool if inside else 0.0)
    per_rank = memory.token_pool(pool * memory.GIB, kv_bytes)
    tokens = per_rank * divided.data
    one = (context or 0) * kv_bytes / memory.GIB if engine.requires_full_context else 0.0
    spare = pool - one if inside else hbm - static - own.gib
    groups = f"TP{divided.tensor}" + (f" x PP{divided.pipeline}" if divided.pipeline > 1 else "")
    precision, spec = choice.intent.precision, "with MTP" if mtp else "without MTP"
    parts = f"{stored_gib:.1f} + {absorbed_gib:.2f} GiB of weights per GPU ({precision}, {spec}, {groups})"
    limit = f"{fraction:.2f} x {hbm:.2f} GiB = {static:.1f} GiB"
    itself = f"{own.gib:.1f} GiB ({sureness(own)}) for activations, graphs and workspaces"
    beside = f" + {itself}" if inside else ""
    if readings and not inside:
        beside = f" + {taken:.1f} GiB ({_reported(len(readings))}) beside them"
    problem = remedy = ""
    longest: Optional[int] = None
    if weights + taken >= static:
        problem = f"it does not fit: {parts}{beside} = {weights + taken:.1f} GiB, but {limit} is available"
        if weights > hbm:
            problem += f" (the whole GPU has {hbm:.2f} GiB)"
    elif not inside and spare < -own.uncertainty and _is_asked(choice, engine.options.memory_fraction):
        leaves = f"{engine.options.memory_fraction} {fraction} leaves {hbm - static:.1f} GiB"
        problem = f"{leaves}, and {engine.name} needs {itself}"
        highest = math.floor(100 * (1 - own.gib / hbm)) / 100
        remedy = f"set {engine.options.memory_fraction} to at most {highest} in glm_engine_args"
    elif engine.requires_full_context and context is not None and spare < margin:
        longest = _longest(choice, load, static - weights, kv_bytes, context, readings)
        theirs = _is_users_own(choice, engine.options.context)
        if spare < 0 or not theirs:
            problem = (
                f"the KV cache holds {per_rank:,} tokens ({limit}, less {parts}{beside}, leaves {pool:.1f} GiB at "
                f"{kv_bytes:,} bytes per token), fewer than the {context:,} tokens of one request"
                + ("" if theirs else f" and a margin of {margin:.1f} GiB")
            )
            remedy = f"lower {engine.options.context} or raise {engine.options.memory_fraction} in glm_engine_args"
    arithmetic = (
        f"{limit} for weights and KV cache. {parts}{beside} leave {pool:.1f} GiB per GPU for KV; one token takes "
        f"{kv_bytes:,} bytes ({kv_format}), so the pool holds {tokens:,} tokens"
        + (f" ({per_rank:,} per data-parallel rank)" if divided.data > 1 else "")
        + f" = {tokens / choice.model.context_length:.1f} requests of {choice.model.context_length:,} tokens."
        + (
            f" Beside one of {context:,} tokens"
            if one
            else f" Of {hbm - static:.1f} GiB outside, {itself}" * (not inside)
        )
        + (f", {spare:.1f} GiB are left; the margin is {margin:.1f} GiB." if one or not inside else "")
    )
    return Fit(
        weights, kv_bytes, kv_format, fraction, own, margin, spare, pool, tokens, per_rank, problem, remedy, arithmetic,
        longest, len(readings), pool,
    )  # fmt: skip


def sureness(own: own_memory.Own) -> str:
    """How sure a figure is, in words."""
    return _reported(own.starts) if own.starts else f"give or take {own.uncertainty:.1f}"


def _reported(starts: int) -> str:
    return f"reported by {starts} starts of this fleet" if starts > 1 else "reported by a start of this fleet"


def _longest(
    choice: Choice, load: own_memory.Load, room: float, kv_bytes: int, context: int,
    readings: Sequence[own_memory.Reading],
) -> int:  # fmt: skip
    """Tokens of the longest request, in steps of 1,024 below ``context``, that leaves the margin of ``room`` GiB."""

    def fits(thousands: int) -> bool:
        tokens = 1024 * thousands
        own = own_memory.needed(choice, load, tokens, readings)
        pool = room - own.gib
        return pool - tokens * kv_bytes / memory.GIB >= own_memory.margin(own, pool)

    tops = [context // 1024, *(top // 1024 for top in reversed(own_memory.steps_of_context(choice)) if top < context)]
    for high, low in zip(tops, [*tops[1:], 0], strict=True):
        # What holds at the beginning of an even stretch stops to hold once in it.
        found = low + bisect.bisect_left(range(low + 1, high + 1), True, key=lambda thousands: not fits(thousands))
        if found > low:
            return 1024 * found
    return 0


def _is_asked(choice: Choice, flag: str) -> bool:
    return flags.spelled(flag) in {flags.spelled(name) for name in choice.intent.engine_args}


def _is_users_own(choice: Choice, flag: str) -> bool:
    return flags.spelled(flag) in choice.own_options


def record(choice: Choice, size: Fit, configuration: Optional[str]) -> Memory:
    """The ``memory`` of a plan."""
    return {
        "weights_per_gpu_gib": round(size.weights, 2),
        "kv_bytes_per_token": size.kv_bytes,
        "kv_format": size.kv_format,
        "static_fraction": size.fraction,
        "own_gib": round(size.own.gib, 2),
        "own_uncertainty_gib": round(size.own.uncertainty, 2),
        "own_basis": "reported" if size.starts else "estimated",
        "starts": size.starts,
        "configuration": configuration,
        "margin_gib": round(size.margin, 2),
        "spare_gib": round(size.spare, 2),
        "kv_pool_gib_per_gpu": round(size.pool, 2),
        "token_pool": size.tokens,
        "full_length_requests": round(size.tokens / choice.model.context_length, 2),
        "fits": True,
        "arithmetic": size.arithmetic,
    }
