# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments and environment of one cell (model, precision, accelerator, engine, profile) out of the catalogue's layers.

Pure: what is known about a cell in, merged data out. Whether it fits, and what the flags are called, is decided by
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import alignment, memory, records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import EnvValue
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.overlay import OwnRecipe


@dataclass(frozen=True)
class Cell:
    """What a recipe is looked up by. ``count`` GPUs of each of ``nodes`` hosts serve one replica.

    ``rdma``: the hosts are known to have RDMA between them, as those of published recipes do.
    """

    model: records.Model
    precision: str
    accelerator: records.Accelerator
    count: int
    nodes: int
    engine: str
    version: str
    profile: str
    rdma: bool = False

    @property
    def checkpoint(self) -> records.Checkpoint:
        """The form of the weights."""
        return self.model.precisions[self.precision]

    @property
    def gpus(self) -> int:
        """GPUs of one replica, on all its hosts."""
        return self.count * self.nodes


@dataclass(frozen=True)
class Layout:
    """How the GPUs of a replica are divided: a tensor group, ``data`` copies of it, ranks of attention within it.

    ``pipeline`` tensor groups hold a part of the layers each.
    ``whole_experts``: they are spread over the tensor group instead of divided.
    """

    tensor: int
    data: int = 1
    data_attention: int = 1
    pipeline: int = 1
    whole_experts: bool = False


@dataclass(frozen=True)
class Composed:
    """What the layers, and a published recipe if there is one, say about a cell."""

    args: dict[str, Any]
    env: dict[str, EnvValue]
    notes: list[str]
    sources: list[records.Source]
    said: dict[str, Union[records.Layer, records.Recipe]]
    """The last part that says each argument."""


def covers(recipe: records.Recipe, cell: Cell) -> bool:
    """Whether the recipe is for this cell, whatever the engine's version."""
    return (
        recipe.engine == cell.engine
        and cell.model.name in recipe.models
        and cell.precision in recipe.precisions
        and cell.accelerator.name in recipe.accelerators
        and (recipe.count, recipe.nodes) == (cell.count, cell.nodes)
        and cell.profile in recipe.profiles
        # A team's recipe is for its own hosts, whatever is between them.
        and (cell.nodes == 1 or cell.rdma or isinstance(recipe, OwnRecipe))
    )


def published(known: records.Catalog, cell: Cell) -> Optional[records.Recipe]:
    """The published recipe for exactly this cell, or None."""
    for recipe in known.recipes:
        if covers(recipe, cell) and recipe.holds(cell.version):
            return recipe
    return None


def layouts(cell: Cell, recipe: Optional[records.Recipe], divides_attention: bool) -> list[Layout]:
    """Ways to divide the GPUs, best first; empty when none is possible. A published recipe leaves no choice.

    One tensor group as wide as the attention heads allow answers each user fastest; what is left over becomes copies of
    it behind the same endpoint. For throughput, models with sparse attention divide the KV cache by request (their one
    latent head would be copied to every GPU) where the engine can (``divides_attention``); others run many small
    groups. Several hosts are one tensor group with RDMA between them where that cuts nothing, else each is a stage of a
    pipeline.
    """
    if recipe:
        tensor = recipe.tensor or recipe.count * recipe.nodes // recipe.data
        return [Layout(tensor, recipe.data, recipe.data_attention)]
    config, gpus = cell.model.config, cell.gpus

    def fits(layout: Layout) -> bool:
        # Copies with one set of experts spread them; copies of everything divide them like the rest.
        spread = layout.whole_experts or (layout.data > 1 and not divides_attention)
        return misfit(cell, layout, 1 if spread else layout.tensor) is None

    def usable(layout: Layout) -> Iterator[Layout]:
        yield from [way for way in (layout, replace(layout, whole_experts=True)) if fits(way)][:1]

    widths = [width for width in memory.valid_tensor_parallel(config, replicate_kv=True) if gpus % width == 0]
    if cell.nodes > 1:
        joined = list(usable(Layout(gpus))) if cell.rdma and gpus in widths else []
        if joined or cell.count not in widths or cell.nodes > config.num_hidden_layers:
            return joined
        return list(usable(Layout(cell.count, pipeline=cell.nodes)))
    wide_first = [way for width in sorted(widths, reverse=True) for way in usable(Layout(width, gpus // width))]
    if cell.profile != "throughput":
        return wide_first
    if not config.index_n_heads:
        return wide_first[::-1]
    split = Layout(gpus, data_attention=gpus) if divides_attention and gpus in widths else Layout(1, gpus)
    return [*([split] if fits(split) else []), *wide_first]


def misfit(cell: Cell, layout: Layout, experts: int) -> Optional[alignment.Misfit]:
    """What the layout would cut through, where each expert is divided over ``experts`` GPUs."""
    division = alignment.Division(layout.tensor // layout.data_attention, experts, layout.tensor)
    return alignment.misfit(cell.model.config, cell.checkpoint.weights, cell.checkpoint.block, division)


def layers(known: records.Catalog, cell: Cell) -> list[records.Layer]:
    """The layers for this cell, whatever its GPUs are divided into."""
    return [layer for layer in known.layers if _matches(layer, cell)]


def compose(
    matching: Sequence[records.Layer], cell: Cell, recipe: Optional[records.Recipe], layout: Layout, context: int
) -> Composed:
    """Merge the layers of a cell that suit the layout, then ``recipe``. ``context`` (tokens) fills ``$context``."""
    fills = _fills(cell, layout, context)
    suited = [layer for layer in matching if layer.pipeline in (None, layout.pipeline > 1)]
    args: dict[str, Any] = {}
    env: dict[str, EnvValue] = {}
    notes: list[str] = []
    sources: list[records.Source] = []
    said: dict[str, Union[records.Layer, records.Recipe]] = {}
    parts: list[Union[records.Layer, records.Recipe]] = [*suited, *([recipe] if recipe else [])]
    for part in parts:
        for name, value in part.args.items():
            filled = _filled(value, fills)
            if filled is None and value is not None:
                continue
            args[name], said[name] = filled, part
        env.update(part.env)
        sources += part.sources
    for part in parts:
        # What a later part took back needs no note.
        if not part.args or any(args.get(name) is not None for name in part.args):
            notes += part.notes
    return Composed(
        args={name: value for name, value in args.items() if value is not None},
        env=env,
        notes=list(dict.fromkeys(notes)),
        sources=list(dict.fromkeys(sources)),
        said=said,
    )


def _fills(cell: Cell, layout: Layout, context: int) -> dict[str, Any]:
    parsers, mtp = cell.model.parsers, cell.model.mtp

    def several(size: int) -> Optional[int]:
        return size if size > 1 else None

    spread = layout.data > 1 and layout.tensor * layout.data == cell.gpus
    return {
        "$tensor": layout.tensor,
        "$pipeline": several(layout.pipeline),
        "$data": several(layout.data),
        "$data_attention": several(layout.data_attention),
        "$data_attention_on": True if layout.data_attention > 1 else None,
        "$data_any": several(max(layout.data, layout.data_attention)),
        "$expert_on": True if layout.whole_experts or spread else None,
        "$expert_size": layout.tensor if layout.whole_experts else None,
        "$context": context,
        "$tool_parser": parsers.tool,
        "$reasoning_parser": parsers.reasoning,
        "$mtp_tokens": mtp.tokens,
        "$mtp_steps": mtp.draft_steps,
        "$mtp_drafts": mtp.draft_steps + 1,
    }


# What a value may be filled with: the keys of _fills.
FILLS = (
    "$tensor", "$pipeline", "$data", "$data_attention", "$data_attention_on", "$data_any", "$expert_on", "$expert_size",
    "$context", "$tool_parser", "$reasoning_parser", "$mtp_tokens", "$mtp_steps", "$mtp_drafts",
)  # fmt: skip


def check_fills(value: Any) -> None:
    """Raise CatalogError for a value that is to be filled with something unknown."""
    _filled(value, dict.fromkeys(FILLS))


def _filled(value: Any, fills: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, fills) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        if value not in fills:
            raise CatalogError(f"unknown value {value}; known are {', '.join(fills)}")
        return fills[value]
    return value


def _matches(layer: records.Layer, cell: Cell) -> bool:
    selectors: Sequence[tuple[Optional[Sequence[str]], str]] = (
        (layer.models, cell.model.name),
        (layer.model_types, cell.model.model_type),
        (layer.precisions, cell.precision),
        (layer.accelerators, cell.accelerator.name),
        (layer.architectures, cell.accelerator.architecture),
        (layer.vendors, cell.accelerator.vendor),
        (layer.profiles, cell.profile),
    )
    return (
        layer.engine == cell.engine
        and layer.holds(cell.version)
        and layer.mtp in (None, cell.checkpoint.mtp)
        and layer.multi_node in (None, cell.nodes > 1)
        and all(wanted is None or value in wanted for wanted, value in selectors)
    )
