# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of the catalogue: models, accelerators, recipes, known issues, prices, workloads, published results.

The dataclasses here and in engine.py *are* the schema of ``catalog/``. Adding a model, an accelerator or a recipe is
adding data; code changes only when a new *kind* of fact is needed.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import (
    BenchmarkClient,
    Engine,
    EnvValue,
    Image,
    Ranged,
    Variant,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.questions import Questions


@dataclass(frozen=True)
class Checkpoint:
    """One form of a model's weights. ``repository`` is None where it is not published: users name their own.

    ``mtp`` is whether the multi-token-prediction layer is in it, ``mtp_weights`` its format where that is not the
    usual one of ``weights`` (see catalog/memory.py). ``alternatives`` are other repositories of the same form.
    ``block``: the weights are scaled in blocks this wide, and no GPU may get a part of one.
    """

    repository: Optional[str]
    weights: memory.WeightFormat
    served_name: str
    mtp: bool = True
    mtp_weights: Optional[memory.WeightFormat] = None
    block: Optional[int] = None
    alternatives: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def needs(self) -> list[str]:
        """Features an accelerator must have: every format but BF16 is one."""
        return [] if self.weights == "bf16" else [self.weights]


@dataclass(frozen=True)
class ModelEngine:
    """What a model asks of one engine. ``images`` replaces the engine's own for some versions (variant: tag)."""

    min_version: str
    recommended: str
    too_old: str = ""
    images: dict[str, dict[str, Image]] = field(default_factory=dict)


@dataclass(frozen=True)
class Parsers:
    """Names of the tool call and reasoning parsers."""

    tool: Optional[str] = None
    reasoning: Optional[str] = None


@dataclass(frozen=True)
class Mtp:
    """Multi-token prediction: layers in the checkpoint, tokens to draft.

    ``steps``: draft steps of an engine that counts them and not tokens, where they should differ from ``tokens``.
    """

    layers: int
    tokens: int
    steps: Optional[int] = None

    @property
    def draft_steps(self) -> int:
        """Speculative steps; with one branch per step the engine verifies one token more."""
        return self.tokens if self.steps is None else self.steps


@dataclass(frozen=True)
class Thinking:
    """Request body extras for each thinking mode; ``off`` is None where thinking cannot be turned off.

    ``on`` is interleaved thinking, ``preserved`` also keeps the thinking of earlier turns. ``efforts`` are the levels
    that ``reasoning_effort`` takes, the default last.
    """

    default: bool
    on: dict[str, Any]
    off: Optional[dict[str, Any]] = None
    preserved: Optional[dict[str, Any]] = None
    efforts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sampling:
    """The author's sampling parameters for one kind of work; what is None is not published."""

    temperature: float
    thinking: str
    max_new_tokens: Optional[int] = None
    top_p: Optional[float] = None
    context_length: Optional[int] = None


@dataclass(frozen=True)
class Model:
    """One model."""

    name: str
    architecture: str
    model_type: str
    license: str
    context_length: int
    min_transformers: str
    needs: list[str]
    config: memory.Config
    precisions: dict[str, Checkpoint]
    engines: dict[str, ModelEngine]
    parsers: Parsers
    mtp: Mtp
    thinking: Thinking
    sampling: dict[str, Sampling]
    sources: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator; ``memory_mib`` is what its driver reports.

    ``aliases`` are other names it may be asked for by. ``min_driver`` is None where no oldest driver is published.
    ``rented_in``: how many of them a rented host may have, besides ``per_host``.
    """

    name: str
    vendor: str
    architecture: str
    memory_mib: int
    features: list[str]
    fabric: str
    per_host: int
    min_driver: Optional[str]
    source: str
    note: str = ""
    aliases: list[str] = field(default_factory=list)
    rented_in: list[int] = field(default_factory=list)

    @property
    def counts(self) -> list[int]:
        """How many of them a host may have, the fewest first."""
        return sorted({*self.rented_in, self.per_host})

    @property
    def memory_gib(self) -> float:
        """Memory of one accelerator in GiB."""
        return self.memory_mib / 1024


@dataclass(frozen=True)
class Source:
    """Who says so, and when it was read or published."""

    who: str
    date: Optional[datetime.date] = None

    def __str__(self) -> str:
        return f"{self.who} ({self.date})" if self.date else self.who


@dataclass(frozen=True)
class Layer(Ranged):
    """Arguments and environment that hold for every plan its selectors match; an absent selector matches all.

    A value that starts with ``$`` is filled in by plan/recipes.py (``$tensor``, ``$context``, ``$tool_parser``,
    …); one that is filled with nothing is left out.
    """

    engine: str
    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, EnvValue] = field(default_factory=dict)
    models: Optional[list[str]] = None
    model_types: Optional[list[str]] = None
    precisions: Optional[list[str]] = None
    accelerators: Optional[list[str]] = None
    architectures: Optional[list[str]] = None
    vendors: Optional[list[str]] = None
    profiles: Optional[list[str]] = None
    mtp: Optional[bool] = None
    multi_node: Optional[bool] = None
    # Whether the GPUs form a pipeline.
    pipeline: Optional[bool] = None
    notes: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """What a benchmark is about: tokens per second and milliseconds; None is what was not published."""

    generation: float
    per_user: Optional[float] = None
    total: Optional[float] = None
    ttft_mean_ms: Optional[float] = None
    ttft_p99_ms: Optional[float] = None
    tpot_mean_ms: Optional[float] = None
    tpot_p99_ms: Optional[float] = None
    itl_mean_ms: Optional[float] = None
    itl_p99_ms: Optional[float] = None


@dataclass(frozen=True)
class Measured:
    """What a recipe achieved: at most ``users`` requests of a workload at a time; ``hardware`` as it was seen."""

    date: datetime.date
    workload: str
    users: int
    engine_version: str
    hardware: str
    figures: Figures


@dataclass(frozen=True)
class OperatingPoint:
    """An operating point as its publisher calls it, and the requests at once that such points are measured with there.

    That is not to say that figures of this very cell were published.
    """

    name: str
    least: int
    most: int


@dataclass(frozen=True)
class Recipe(Ranged):
    """A published cell: these models on these accelerators, ``count`` per host on each of ``nodes`` hosts.

    ``args`` are laid over the layers; ``tensor``, ``data`` and ``data_attention`` are how the GPUs are divided where
    that is not plain tensor parallelism over all of them. ``departs``: published arguments that it does not take, by
    name, with the reason.
    """

    models: list[str]
    precisions: list[str]
    engine: str
    profiles: list[str]
    accelerators: list[str]
    count: int
    sources: list[Source]
    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, EnvValue] = field(default_factory=dict)
    nodes: int = 1
    tensor: Optional[int] = None
    data: int = 1
    data_attention: int = 1
    notes: list[str] = field(default_factory=list)
    departs: dict[str, str] = field(default_factory=dict)
    point: Optional[OperatingPoint] = None
    measured: Optional[Measured] = None


@dataclass(frozen=True)
class Profile:
    """A kind of work, of up to ``users`` requests at once (None: of any number).

    ``context`` is the most tokens a request gets where no recipe says otherwise (None: all). ``workload`` is what
    measures it: a plan says when its KV cache does not hold all requests of that at once.
    """

    text: str
    users: Optional[int] = None
    context: Optional[int] = None
    workload: Optional[str] = None


@dataclass(frozen=True)
class Apply:
    """What a workaround changes: engine arguments (None removes one) and environment variables."""

    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownIssue(Ranged):
    """A defect that some plans meet; an absent selector matches everything. Matched by plugin_utils/plan/issues.py.

    ``models`` and ``model_types`` are alternatives of one selector, so are ``accelerators`` and ``architectures``.
    ``arguments`` has names without dashes (``speculative-config.method`` reaches into a mapping) and a value, a list of
    values, "*" for any value, or None for an argument that is absent; all of them must match. ``date`` is when the fact
    was published or, failing that, read.
    """

    id: str
    status: Literal["workaround", "broken"]
    text: str
    link: str
    date: Optional[datetime.date] = None
    engine: Optional[str] = None
    models: Optional[list[str]] = None
    model_types: Optional[list[str]] = None
    precisions: Optional[list[str]] = None
    accelerators: Optional[list[str]] = None
    architectures: Optional[list[str]] = None
    arguments: Optional[dict[str, Any]] = None
    apply: Optional[Apply] = None


@dataclass(frozen=True)
class Price:
    """What a provider charges for a whole host."""

    provider: str
    accelerator: str
    count: int
    usd_per_hour: float
    source: str
    date: Optional[datetime.date] = None


@dataclass(frozen=True)
class ManagedPrice:
    """What a managed API charges, USD per million tokens: by direction, or ``blended`` for all alike."""

    provider: str
    model: str
    source: str
    input: Optional[float] = None
    output: Optional[float] = None
    blended: Optional[float] = None
    date: Optional[datetime.date] = None


@dataclass(frozen=True)
class StoragePrice:
    """What an object store charges for what lies in it; ``host`` is a pattern (``*``) for the host of its address."""

    provider: str
    host: str
    usd_per_gib_month: float
    source: str
    date: Optional[datetime.date] = None


@dataclass(frozen=True)
class Point:
    """One measurement of a workload: ``prompts`` requests, ``parallel`` at a time (None: all at once)."""

    prompts: int
    parallel: Optional[int] = None

    @property
    def users(self) -> int:
        """How many requests are under way at once."""
        return self.prompts if self.parallel is None else min(self.parallel, self.prompts)


@dataclass(frozen=True)
class Workload:
    """What a benchmark sends: random tokens, every request alike. ``prefix_caching`` None: as the engine is served."""

    name: str
    text: str
    interface: Literal["chat", "completions"]
    input_tokens: int
    output_tokens: int
    points: list[Point]
    source: Source
    request_rate: Optional[float] = None
    prefix_caching: Optional[bool] = None
    command: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """A result that somebody else published for a point of a workload. ``prompts`` is None where it was not said."""

    workload: str
    prompts: Optional[int]
    parallel: Optional[int]
    model: str
    precision: str
    accelerator: Optional[str]
    count: Optional[int]
    engine: str
    source: Source
    figures: Figures
    engine_version: str = ""
    doubt: str = ""


@dataclass(frozen=True)
class Purpose:
    """What clients use an engine for, and the routes it takes: methods by path.

    In a path ``{name}`` is one segment and ``{name:path}`` one or more.

    ``title`` is how people read it; ``clients`` are those that are known to need it.
    """

    name: str
    title: str
    routes: dict[str, list[Literal["GET", "POST", "PUT", "DELETE"]]]
    clients: list[str]


@dataclass(frozen=True)
class Shortfall(Ranged):
    """What these versions of an engine do not have of a purpose, although they serve its routes."""

    purpose: str
    engine: str
    lacks: str


@dataclass(frozen=True)
class Catalog:
    """Everything in ``catalog/`` but the tables of flags and routes: plugin_utils/plan reads those it needs."""

    root: Path
    models: dict[str, Model]
    accelerators: dict[str, Accelerator]
    engines: dict[str, Engine]
    variants: dict[str, Variant]
    profiles: dict[str, Profile]
    layers: list[Layer]
    recipes: list[Recipe]
    known_issues: list[KnownIssue]
    prices: list[Price]
    managed: list[ManagedPrice]
    storage: list[StoragePrice]
    workloads: dict[str, Workload]
    published: list[Published]
    purposes: dict[str, Purpose]
    shortfalls: list[Shortfall]
    # Path: why it does not pass the front door.
    withheld: dict[str, str]
    questions: Questions

    @property
    def accelerator_kinds(self) -> dict[str, Accelerator]:
        """Each accelerator once, by its name: aliases are keys of their own in ``accelerators``."""
        return {entry.name: entry for entry in self.accelerators.values()}

    @property
    def measuring(self) -> tuple[Engine, BenchmarkClient]:
        """The engine whose client measures every engine, and that client."""
        return next(
            (engine, engine.benchmark_client) for engine in self.engines.values() if engine.benchmark_client is not None
        )
