# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a division of the GPUs cuts through what the weights are quantised in. Pure arithmetic.

Quantised weights are scaled in blocks (FP8: 128 x 128) or groups of inputs (INT4 of AWQ and W4AFP8: 128, NVFP4: 16,
MXFP4: 32). No GPU can get a part of one, so what tensor parallelism divides must be whole ones on each GPU; what is not
quantised must divide at all. In vLLM 0.32.0: validate_fp8_block_shape (line 1296 of fp8_utils.py in
model_executor/layers/quantization/utils) and auto_awq.py:819 beside it; SGLang has the same checks.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.memory import Config, Part, WeightFormat

# Values of a row that share a scale; FP8 is scaled in blocks only where the checkpoint says so.
_GROUPS: dict[WeightFormat, int] = {"int4": 128, "w4afp8": 128, "nvfp4": 16, "mxfp4": 32}
_EXPERTS_ONLY = ("nvfp4", "mxfp4")


class Split(NamedTuple):
    """A dimension that is divided between GPUs. ``inner``: each GPU gets a part of every row, not whole rows."""

    part: Part
    what: str
    size: int
    inner: bool


class Misfit(NamedTuple):
    """A division that does not come out even: what would be cut, in words."""

    split: Split
    over: int
    unit: int
    weights: WeightFormat

    def __str__(self) -> str:
        each = self.split.size / self.over
        kind = "FP8 blocks" if self.weights == "fp8" else f"{self.weights.upper()} groups"
        unit = f"not whole {kind} of {self.unit}" if self.unit > 1 else "not a whole number"
        return f"{self.split.size:,} {self.split.what} over {self.over} GPUs are {each:,.6g} each, {unit}"


@dataclasses.dataclass(frozen=True)
class Division:
    """Over how many GPUs each part is divided. ``experts`` 1: whole experts are spread over the GPUs."""

    attention: int
    experts: int
    others: int

    def of(self, part: Part) -> int:
        """The GPUs that share one copy of a part."""
        return {"attention": self.attention, "experts": self.experts}.get(part, self.others)


def misfit(config: Config, weights: WeightFormat, block: Optional[int], division: Division) -> Optional[Misfit]:
    """The first dimension that the division cuts through, or None. ``block``: as in the checkpoint's record."""
    for split in _splits(config):
        over = division.of(split.part)
        unit = _unit(config, weights, block, split)
        if over > 1 and split.size % (over * unit):
            return Misfit(split, over, unit, weights)
    return None


def _unit(config: Config, weights: WeightFormat, block: Optional[int], split: Split) -> int:
    """What a GPU's share must be a multiple of."""
    if split.part in config.plain or (weights in _EXPERTS_ONLY and split.part != "experts"):
        return 1
    if weights == "fp8" or (weights == "w4afp8" and split.part != "experts"):
        return block or 1
    group = _GROUPS.get(weights, 1) if split.inner else 1
    # What is no whole groups undivided either cannot have been quantised so.
    return 1 if split.size % group else group


@functools.lru_cache(maxsize=64)
def _splits(config: Config) -> tuple[Split, ...]:
    c = config
    heads = c.num_attention_heads
    found = []
    if c.is_mla:
        found += [
            Split("attention", "rows of the queries", heads * (c.qk_nope_head_dim + c.qk_rope_head_dim), False),
            Split("attention", "rows of keys and values", heads * (c.qk_nope_head_dim + c.v_head_dim), False),
            Split("attention", "columns of the attention's output", heads * c.v_head_dim, True),
        ]
    else:
        # KV heads are copied where there are more GPUs, so theirs are never cut.
        found += [
            Split("attention", "rows of the queries", heads * c.head_dim, False),
            Split("attention", "columns of the attention's output", heads * c.head_dim, True),
        ]
    widths: list[tuple[Part, str, int]] = [
        ("dense", "dense layers", c.intermediate_size if c.first_k_dense_replace else 0),
        ("shared", "shared experts", c.moe_intermediate_size * c.n_shared_experts),
        ("experts", "each expert", c.moe_intermediate_size),
    ]
    for part, what, width in widths:
        if width:
            found += [Split(part, f"rows of {what}", width, False), Split(part, f"columns of {what}", width, True)]
    return tuple(found)
