# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogue says about an engine: releases, images, options, start and stop, what it writes and shows.

An engine is a folder of ``catalog/engines``: the keys of its files are the fields of Engine. Nothing else in the
product knows an engine by its name.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Optional, Union

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.meanings import Meanings


@dataclass(frozen=True, kw_only=True)
class Ranged:
    """What holds for versions from ``since`` (included) to ``below`` (excluded); an absent bound does not bind."""

    since: Optional[str] = None
    below: Optional[str] = None

    def holds(self, version: str) -> bool:
        """Whether it does for this version of the engine."""
        return versions.in_range(version, self.since, self.below)


@dataclass(frozen=True)
class Variant:
    """What an image variant is built for. ``runtime`` is cuda or rocm; ``architectures`` restricts it to these.

    ``min_driver`` is None where no oldest driver is published.
    """

    runtime: Literal["cuda", "rocm"]
    version: Optional[str] = None
    min_driver: Optional[str] = None
    architectures: Optional[list[str]] = None

    @property
    def vendor(self) -> str:
        """Whose accelerators it runs on."""
        return {"cuda": "nvidia", "rocm": "amd"}[self.runtime]


@dataclass(frozen=True)
class Image:
    """A published image: its tag, and its repository where that is not the engine's own. A text is a tag."""

    tag: str
    repository: Optional[str] = None

    @classmethod
    def of_text(cls, text: str) -> Image:
        """The image whose tag the text is."""
        return cls(text)


@dataclass(frozen=True)
class Transformers:
    """Bounds that an engine version's own metadata sets for transformers."""

    at_least: str
    below: Optional[str] = None


@dataclass(frozen=True)
class EngineVersion:
    """One release: what it promises, and its images by variant (of those that fit, the first is the default)."""

    transformers: Transformers
    images: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What an engine calls the options that the planner must know; None where it has none of the kind."""

    model: Optional[str]
    served_model_name: str
    host: str
    port: str
    context: str
    # Most tokens of a step, most requests at a time.
    step_tokens: str
    sequences: str
    memory_fraction: str
    tensor: str
    pipeline: str
    data: str
    data_attention: Optional[str]
    data_attention_size: Optional[str]
    expert_size: Optional[str]
    expert_switch: Optional[str]
    expert_backend: Optional[str]
    kv_cache_dtype: str
    speculation: str
    # Tokens that are drafted at a time.
    drafts: str
    # What sets the size of a rank's KV cache by hand: in tokens, in bytes of each GPU, in blocks.
    pool_tokens: Optional[str]
    pool_bytes: Optional[str]
    pool_blocks: Optional[str]
    tool_parser: str
    reasoning_parser: str


@dataclass(frozen=True)
class KvFormat(Ranged):
    """A rule: with this KV cache dtype (in these versions, on these architectures) the cache has that layout.

    ``sparse``: only for models with (true) or without (false) sparse attention.
    """

    dtype: str
    format: str
    architectures: Optional[list[str]] = None
    sparse: Optional[bool] = None


@dataclass(frozen=True)
class Step(Ranged):
    """What a step holds where nothing is set, on GPUs of that memory (GiB) or more, except on some architectures."""

    tokens: int
    sequences: int
    least_memory_gib: float = 0
    except_architectures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Graphs(Ranged):
    """Memory of CUDA graphs: so much for any, and so much more for each sequence of the largest."""

    fixed_gib: float
    mib_per_sequence: float


@dataclass(frozen=True)
class ContextWorkspace(Ranged):
    """Bytes of workspace for each token of the longest request, with sparse attention and a context of that or less."""

    bytes: int
    most_context: Optional[int] = None


@dataclass(frozen=True)
class OwnMemory:
    """What an engine keeps of each GPU for itself, as a function of what it is asked to serve.

    ``inside``: it lies inside the fraction that ``memory_fraction`` gives the engine, else outside of it.
    ``fixed_gib``: libraries, fragments and whatever the other terms do not explain. ``per_gpu_gib``: buffers between
    GPUs, for each of a tensor group. ``sparse_gib``: logits of sparse attention's indexer. ``uncertainty``: share of
    the sum by which it may be off. For ``steps``, ``graphs`` and ``context_workspaces`` the first that holds counts.
    """

    inside: bool
    fixed_gib: float
    per_gpu_gib: float
    sparse_gib: float
    most_sequences_captured: int
    uncertainty: float
    steps: list[Step]
    graphs: list[Graphs]
    context_workspaces: list[ContextWorkspace]


@dataclass(frozen=True)
class Combination(Ranged):
    """Settings that these versions do not take together: the start fails, or the first request.

    ``when`` is what must hold at once: conditions (plan/conditions.py) on options, named without dashes (a dotted name
    reaches into a mapping), and on facts of the plan, ``FACTS`` of catalog/combinations.py. ``changes`` are for
    glm_engine_args; each makes it start by itself, the best one first; a value ``$name`` is that option's or fact's.
    ``next`` is what to do where no argument helps. ``source`` is where the engine says so, file, line and release, and
    ``says`` a part of that line.
    ``proof``: ``run`` was tried with the engine's own code of that release, ``read`` needs a GPU.
    """

    id: str
    when: dict[str, Any]
    reason: str
    changes: list[dict[str, Any]]
    source: str
    says: str
    proof: Literal["run", "read"]
    next: str = ""


@dataclass(frozen=True)
class Timeouts:
    """How long the phases of a start may take."""

    load_bytes_per_second: int
    compile_seconds: int
    capture_seconds: int
    warmup_seconds: int
    margin_seconds: int


@dataclass(frozen=True)
class Clocks:
    """What ends a start after seconds of the engine: variables, and options of the versions that have them."""

    env: list[str]
    options: list[str]


@dataclass(frozen=True)
class LoadRule(Ranged):
    """How weights are loaded from such a disk, and why. Without ``args`` the engine's own way is right there.

    ``filesystems`` and ``precisions``: only with one of these. ``in_memory``: only where the host's memory holds the
    weights. ``source`` is where it was measured, or the engine's own line; ``date`` is when that was read.
    """

    disk: Literal["network", "local"]
    because: str
    source: str
    date: datetime.date
    args: dict[str, Any] = field(default_factory=dict)
    filesystems: Optional[list[str]] = None
    precisions: Optional[list[str]] = None
    in_memory: bool = False


@dataclass(frozen=True)
class Loading:
    """The options that say how weights are loaded, and rules for them; the first rule that holds counts.

    Where a recipe or a user says one of the options, no rule does.
    """

    options: list[str]
    rules: list[LoadRule]


@dataclass(frozen=True)
class Stop:
    """How an engine ends: exit statuses or signals that are no failure, and what becomes of requests that run.

    ``drain_option`` gives them seconds, where a version has it; an engine without one lets them end anyway.
    """

    # What it needs to end, beside what runs.
    seconds: int
    success_exit_status: list[str]
    drain_option: Optional[str]


@dataclass(frozen=True)
class EngineContract:
    """What clients see of an engine."""

    reasoning_field: str
    health_path: str
    # What answers 200 at once while the engine takes requests, however busy it is.
    alive_path: str


@dataclass(frozen=True)
class EnvValue(Ranged):
    """An environment variable's value."""

    value: str


@dataclass(frozen=True)
class Secret:
    """How the API key reaches an engine without showing in its arguments, or in what Docker says of its container.

    ``container_path``: the file with it; a shell there reads it into the variable ``name``.
    ``admin_option``: the option for a key of its own that administration then needs, in versions that have it.
    """

    kind: str
    name: Optional[str] = None
    option: Optional[str] = None
    admin_option: Optional[str] = None
    container_path: Optional[str] = None


@dataclass(frozen=True)
class Package:
    """The engine as a Python package: the Python it is for, the program it installs, extra indexes by vendor.

    ``disk_bytes`` is what it takes with all it needs.
    """

    name: str
    python: str
    command: list[str]
    disk_bytes: int
    index_urls: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MultiNode:
    """Arguments of an engine that spans hosts; ``$nodes``, ``$rank``, ``$head``, ``$port``, ``$head_port`` are filled.

    ``worker`` is only for the hosts without an API of their own; ``port`` is where the hosts meet; ``address_env`` is
    the variable with the address by which the others know this host, which an engine would guess otherwise.
    """

    args: dict[str, Any]
    worker: dict[str, Any]
    port: int
    address_env: str


@dataclass(frozen=True)
class Container:
    """What the engine's container may do, besides its GPUs and mounts.

    ``user`` is a number, as an image need not know names. ``writable``: folders in memory; the rest of the image is
    read-only. ``processes`` counts threads, too.
    ``shared_memory_gib_per_gpu`` bounds /dev/shm, which takes memory only as it fills; ``process_memory_gib_per_gpu``
    is what its processes take besides, with their pinned buffers. ``imports``: modules of the engine that the probe of
    an image loads under these limits.
    """

    user: str
    user_reason: str
    writable: list[str]
    processes: int
    shared_memory_gib_per_gpu: int
    process_memory_gib_per_gpu: int
    imports: list[str]


@dataclass(frozen=True)
class OffloadTier:
    """An option that moves weights or KV cache to the memory of the host, in units of ``bytes``.

    Its size is that of one GPU, or with ``of_group`` that of a data-parallel rank. Without one, ``ratio`` is the option
    for its size as a multiple of a GPU's KV cache. ``switch``: without this option nothing is moved.
    """

    option: str
    bytes: int
    of_group: bool = False
    switch: Optional[str] = None
    ratio: Optional[str] = None
    default_ratio: float = 0


@dataclass(frozen=True)
class ImageTags(Ranged):
    """Tags by variant of the versions in a range, where the project documents a rule; ``$version`` is filled."""

    tags: dict[str, str]


@dataclass(frozen=True)
class BenchmarkClient:
    """A program of an engine that measures endpoints of every engine.

    ``program`` is its name in the image, ``path`` its place in a virtual environment, ``env`` its environment.
    """

    program: str
    path: str
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric(Ranged):
    """One of our figures in an engine's ``/metrics``: its name there and how several ranks become one value.

    ``labels``: the value is the product of these labels, and not that of the metric.
    """

    name: Literal[
        "running", "waiting", "finished", "prompt_tokens", "generation_tokens", "prefix_queries", "prefix_hits",
        "drafts", "draft_tokens", "accepted_tokens", "acceptance_length", "preemptions", "pool_tokens", "kv_usage",
    ]  # fmt: skip
    metric: str
    ranks: Literal["sum", "largest"] = "sum"
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LogPhase(Ranged):
    """Lines (a regular expression) that an engine writes in a phase of its start.

    ``detail`` is filled with the groups of the pattern, where they matched. ``source``: where the line is written.
    """

    phase: Literal[
        "starting the engine", "loading weights", "allocating the KV cache", "compiling kernels", "capturing graphs",
        "warming up", "waiting for the first answer",
    ]  # fmt: skip
    pattern: str
    detail: str = ""
    source: str = ""


@dataclass(frozen=True)
class LogCause(Ranged):
    """Lines (a regular expression) that say why a start failed: the cause in words, and what to do next.

    Both are filled with the groups of the pattern. ``source``: where the line is written, and in which release.
    """

    pattern: str
    cause: str
    next: str
    source: str = ""


@dataclass(frozen=True)
class LogWrapper(Ranged):
    """Lines (a regular expression) that are never the cause: what only says that something failed, or is harmless."""

    pattern: str
    source: str = ""


@dataclass(frozen=True)
class LogRemark(Ranged):
    """Lines (a regular expression) that an engine writes which starts or serves, and that say how well it does.

    A pattern holds from the beginning of a line without its header (time, process, level): what a request quotes is no
    remark. ``says`` and ``next`` are filled with the groups. ``kind`` decides what verify makes of it:

    - pool: the first group is how many tokens the KV cache of one process holds;
    - backend: which of its kernels the engine chose; it is reported;
    - noted: speed or exactness is lost, but no setting changes that, or the command asks for it, or healthy starts
      write it: it is reported with its advice, and fails nothing;
    - failed: the engine fell back from what the plan promises, and the setting in ``next`` takes that away.
    """

    pattern: str
    kind: Literal["pool", "backend", "noted", "failed"]
    says: str = ""
    next: str = ""
    source: str = ""


Rule = Union[Metric, LogPhase, LogCause, LogWrapper, LogRemark]


@dataclass(frozen=True)
class Engine:
    """One inference engine. ``title`` is its name as its authors write it."""

    name: str
    title: str
    documentation: str
    default_version: str
    default_reason: str
    preference: int
    preference_reason: str
    image: str
    image_rule: str
    # What the image's entry point says before the command; shown to people, never run.
    entrypoint: list[str]
    command: list[str]
    # How an argument that is a mapping is spelled: --flag.key value for each leaf, or one JSON text.
    mappings: Literal["dotted", "json"]
    # Where a running engine says its release, as ``version`` of a JSON object.
    version_path: str
    options: Options
    # Words of a command line that switch the prefix cache off, in one version or another.
    no_prefix_cache: list[str]
    speculation_with_mtp: list[str]
    default_memory_fraction: float
    own_memory: OwnMemory
    offload_tiers: list[OffloadTier]
    requires_full_context: bool
    # Forms of weights that not every engine has kernels for: its oldest version that has them, null where none has.
    formats: dict[str, Optional[str]]
    secret: Secret
    # What each option means for a plan.
    meanings: Meanings
    # Options in documents that no version has, with what to use instead.
    replaced_options: dict[str, str]
    # New name of an option: the name it has in versions without the new one.
    renames: dict[str, str]
    env: dict[str, EnvValue]
    cache_env: dict[str, str]
    kv_formats: list[KvFormat]
    combinations: list[Combination]
    timeouts: Timeouts
    clocks: Clocks
    loading: Loading
    stop: Stop
    contract: EngineContract
    package: Package
    multi_node: MultiNode
    image_bytes: int
    container: Container
    versions: dict[str, EngineVersion]
    metrics: list[Metric]
    phases: list[LogPhase]
    causes: list[LogCause]
    # What follows from the failure of another process: the cause only where nothing better is in the log.
    cascades: list[LogCause]
    wrappers: list[LogWrapper]
    # What is written as an engine goes on, with no level that says so.
    harmless: list[LogWrapper]
    remarks: list[LogRemark]
    image_tags: list[ImageTags] = field(default_factory=list)
    benchmark_client: Optional[BenchmarkClient] = None
    # What an image gets whose own transformers does not know the model.
    transformers_fix: Optional[str] = None

    def metric_rules(self, version: str) -> list[dict[str, Any]]:
        """The metrics of a version as data, for the host that measures (module_utils/serving/metrics.py)."""
        return _of(version, self.metrics)

    def remark_rules(self, version: str) -> list[dict[str, Any]]:
        """What a version says of itself as data, for the host that verifies (module_utils/serving/own_words.py)."""
        return _of(version, self.remarks)

    def log_rules(self, version: Optional[str] = None) -> dict[str, list[dict[str, Any]]]:
        """The meaning of a version's log lines (of any, without one) as data (module_utils/serving/causes.py)."""
        kinds: dict[str, Iterable[Rule]] = {
            "phases": self.phases,
            "causes": self.causes,
            "cascades": self.cascades,
            "wrappers": self.wrappers,
            "harmless": self.harmless,
        }
        return {kind: _of(version, rules) for kind, rules in kinds.items()}


def _of(version: Optional[str], rules: Iterable[Rule]) -> list[dict[str, Any]]:
    matching = [asdict(rule) for rule in rules if version is None or rule.holds(version)]
    return [{key: value for key, value in rule.items() if key not in ("since", "below", "source")} for rule in matching]
