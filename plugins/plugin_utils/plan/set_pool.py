# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A KV cache whose size is set, in bytes or tokens, and not what the share of the GPU leaves. Pure arithmetic."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, own_memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice


def option(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> Optional[str]:
    """The option by which glm_engine_args set the size of the KV cache in bytes or tokens; None where none does."""
    options = choice.engine.options
    names = (options.pool_bytes, options.pool_tokens)
    return next((name for name in names if flags.number(plan_fit.argument(table, arguments, name)) is not None), None)


def sized(
    choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: plan_fit.Parallel, found: plan_fit.Fit
) -> plan_fit.Fit:
    """What was found, with the KV cache that is set; as it is where none is."""
    flag = option(choice, table, arguments)
    if flag is None:
        return found
    given = flags.number(plan_fit.argument(table, arguments, flag)) or 0.0
    if flag == choice.engine.options.pool_tokens:
        # It makes a pool smaller, and never larger.
        per_rank = min(found.per_rank, int(given))
        said = f" {flag} lets the pool hold {per_rank * divided.data:,} tokens."
        return _with_pool(found, per_rank, divided, arithmetic=found.arithmetic + said)
    return _in_bytes(choice, found, given, flag, divided, plan_fit.context_of(choice, table, arguments))


def _in_bytes(
    choice: Choice, found: plan_fit.Fit, given: float, flag: str, divided: plan_fit.Parallel, context: Optional[int]
) -> plan_fit.Fit:
    hbm, pool = choice.accelerator.memory_gib, given / memory.GIB
    per_rank = memory.token_pool(given, found.kv_bytes)
    own = f"{found.own.gib:.1f} GiB ({plan_fit.sureness(found.own)}) for activations, graphs and workspaces"
    parts = f"{found.weights:.1f} GiB of weights, {own}, {pool:.1f} GiB of KV cache ({flag})"
    # An engine that finds out how long requests may be needs a token at least.
    total, asked = found.weights + found.own.gib + pool, context or 1
    problem = remedy = ""
    longest: Optional[int] = None
    if total > hbm:
        problem = f"it does not fit: {parts} = {total:.1f} GiB, but the GPU has {hbm:.2f} GiB"
        left = hbm - found.weights - found.own.gib - own_memory.margin(found.own, 0.0)
        most = math.floor(left * memory.GIB)
        remedy = f"set {flag} to at most {most} in glm_engine_args, or leave it out" if most > 0 else ""
    elif per_rank < asked:
        longest = per_rank // 1024 * 1024
        problem = (
            f"the KV cache of {pool:.1f} GiB that {flag} sets holds {per_rank:,} tokens at {found.kv_bytes:,} bytes "
            f"per token, fewer than {'one token' if asked == 1 else f'the {asked:,} tokens of one request'}"
        )
        remedy = f"set {flag} to {asked * found.kv_bytes} or more in glm_engine_args, or lower the context"
    arithmetic = (
        f"{parts} = {total:.1f} of {hbm:.2f} GiB per GPU; one token takes {found.kv_bytes:,} bytes "
        f"({found.kv_format}), so the pool holds {per_rank * divided.data:,} tokens."
    )
    # What is set is exact: it leaves no margin, and needs none.
    spare = pool - asked * found.kv_bytes / memory.GIB
    return _with_pool(
        found, per_rank, divided, problem=problem, remedy=remedy, longest=longest, arithmetic=arithmetic, margin=0.0,
        spare=spare,
    )  # fmt: skip


def _with_pool(found: plan_fit.Fit, per_rank: int, divided: plan_fit.Parallel, **more: Any) -> plan_fit.Fit:
    pool = per_rank * found.kv_bytes / memory.GIB
    return dataclasses.replace(found, pool=pool, usual=pool, per_rank=per_rank, tokens=per_rank * divided.data, **more)
