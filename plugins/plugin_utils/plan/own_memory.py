# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine keeps of each GPU for itself, how sure that is, and the margin that a plan leaves. Pure arithmetic.

Weights and KV cache are exact; this is the one size that is estimated: activations and graphs by what a step holds,
workspaces by the longest request. The terms are the catalogue's (``own_memory`` in engine.yml). Where starts of the
same configuration reported it (starts.py), their figures are used instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Optional, TypeVar

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Ranged
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

# No plan promises the last GiB: a start that is short by one block fails after all weights were loaded.
MARGIN_GIB: Final = 2.0
MARGIN_SHARE: Final = 0.05

R = TypeVar("R", bound=Ranged)


@dataclass(frozen=True)
class Load:
    """What an engine is asked to take: ``tokens`` of a step, requests at a time, drafts of each step.

    None where the arguments do not say. ``tensor``, ``attention`` and ``data`` divide the GPUs, as in fit.Parallel.
    """

    tokens: Optional[int]
    sequences: Optional[int]
    drafts: int
    tensor: int
    attention: int
    data: int


@dataclass(frozen=True)
class Own:
    """GiB of each GPU that the engine itself needs, and by how much that may be off.

    ``starts``: how many hosts' starts reported it; 0 where it is estimated.
    """

    gib: float
    uncertainty: float
    starts: int = 0


@dataclass(frozen=True)
class Reading:
    """What a start left out of the KV cache beside the weights, in GiB of each GPU, with requests of up to ``context``.

    None where the engine was asked to find out how long they may be.
    """

    taken_gib: float
    context: Optional[int]


def estimate(choice: Choice, load: Load, context: int) -> Own:
    """What the engine needs for itself with requests of up to ``context`` tokens."""
    known, config = choice.engine.own_memory, choice.model.config
    step = next(
        rule
        for rule in known.steps
        if rule.holds(choice.version)
        and choice.accelerator.memory_gib >= rule.least_memory_gib
        and choice.accelerator.architecture not in rule.except_architectures
    )
    sequences = load.sequences or step.sequences
    # A step takes no more than all requests at their longest.
    tokens = min(load.tokens or step.tokens, sequences * context)
    rows = min(sequences * (1 + load.drafts), tokens)
    # Logits, sorted logits and probabilities of what is sampled, in FP32, which each GPU has whole.
    sampled = 3 * 4 * rows * config.vocab_size
    activations = tokens * memory.activation_bytes_per_token(config, load.tensor, load.attention, load.data)
    sparse = config.index_n_heads > 0
    graphs = _first(known.graphs, choice.version)
    captured = min(2 * rows, known.most_sequences_captured)
    gib = (
        known.fixed_gib
        + (known.per_gpu_gib * load.tensor if load.tensor > 1 else 0)
        + (known.sparse_gib if sparse else 0)
        + (graphs.fixed_gib + graphs.mib_per_sequence * captured / 1024 if graphs else 0)
        + (sampled + activations) / memory.GIB
        + (_workspace(choice, context) / memory.GIB if sparse else 0)
    )
    return Own(gib, known.uncertainty * gib)


def needed(choice: Choice, load: Load, context: int, readings: Sequence[Reading]) -> Own:
    """The most that a start took, one with shorter requests with the workspaces of longer ones; else the estimate."""
    estimated = estimate(choice, load, context)
    if not readings:
        return estimated
    found = [
        one.taken_gib + max(0.0, estimated.gib - estimate(choice, load, one.context or context).gib) for one in readings
    ]
    return Own(max(found), max(found) - min(found), len(found))


def margin(own: Own, pool: float) -> float:
    """GiB of a KV cache of ``pool`` GiB that no request is promised: what the estimate may be off by, or more."""
    return max(MARGIN_GIB, MARGIN_SHARE * pool, own.uncertainty)


def steps_of_context(choice: Choice) -> list[int]:
    """Contexts up to which a workspace grows evenly, in order."""
    rules = choice.engine.own_memory.context_workspaces
    return sorted(rule.most_context for rule in rules if rule.most_context and rule.holds(choice.version))


def _workspace(choice: Choice, context: int) -> int:
    for rule in choice.engine.own_memory.context_workspaces:
        if rule.holds(choice.version) and context <= (rule.most_context or context):
            return rule.bytes * context
    return 0


def _first(rules: Sequence[R], version: str) -> Optional[R]:
    return next((rule for rule in rules if rule.holds(version)), None)
