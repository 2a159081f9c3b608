# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load ``catalog/*.yml`` into typed records and refuse a file that has the wrong shape.

The dataclasses below *are* the schema: a key that no field has, a field without a key, or a value of another type is an
error that names file, entry and key. Adding a model, an accelerator, an engine version or a recipe is adding data; code
changes only when a new *kind* of fact is needed.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory

ROOT = Path(__file__).resolve().parents[3] / "catalog"

T = TypeVar("T")


class CatalogError(ValueError):
    """A catalogue file is missing, is not YAML, or breaks the schema; the text names file, entry and key."""


@dataclass(frozen=True)
class Checkpoint:
    """One form of a model's weights. ``repository`` is None where nobody publishes it: one's own must be named.

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
    """Multi-token prediction: layers in the checkpoint, tokens to draft; ``steps`` where SGLang should draft others."""

    layers: int
    tokens: int
    steps: Optional[int] = None

    @property
    def sglang_steps(self) -> int:
        """SGLang's speculative steps; with one branch per step it verifies one token more."""
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

    @property
    def memory_gib(self) -> float:
        """Memory of one accelerator in GiB."""
        return self.memory_mib / 1024


@dataclass(frozen=True)
class Variant:
    """What an image variant is built for. ``runtime`` is cuda or rocm; ``architectures`` restricts it to these.

    ``min_driver`` is None where no oldest driver is published.
    """

    runtime: str
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
    """What an engine calls the options that the planner must know."""

    model: Optional[str]
    served_model_name: str
    host: str
    port: str
    context: str
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
    tool_parser: str
    reasoning_parser: str


@dataclass(frozen=True)
class KvFormat:
    """A rule: with this KV cache dtype (from this version, on these architectures) the cache has that layout.

    ``sparse``: only for models with (true) or without (false) sparse attention.
    """

    dtype: str
    format: str
    since: Optional[str] = None
    architectures: Optional[list[str]] = None
    sparse: Optional[bool] = None


@dataclass(frozen=True)
class Timeouts:
    """How long the phases of a start may take."""

    load_bytes_per_second: int
    compile_seconds: int
    capture_seconds: int
    warmup_seconds: int
    margin_seconds: int


@dataclass(frozen=True)
class Stop:
    """How an engine ends: seconds it gets, and exit statuses or signals that are no failure."""

    seconds: int
    success_exit_status: list[str]


@dataclass(frozen=True)
class EngineContract:
    """What clients see of an engine."""

    reasoning_field: str
    health_path: str


@dataclass(frozen=True)
class EnvValue:
    """An environment variable's value, for versions ``since`` (included) to ``below`` (excluded)."""

    value: str
    since: Optional[str] = None
    below: Optional[str] = None


@dataclass(frozen=True)
class Secret:
    """How the API key reaches an engine without showing in its arguments."""

    kind: str
    name: Optional[str] = None
    option: Optional[str] = None
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

    ``worker`` is only for the hosts without an API of their own; ``port`` is where the hosts meet.
    """

    args: dict[str, Any]
    worker: dict[str, Any]
    port: int


@dataclass(frozen=True)
class Engine:
    """One inference engine."""

    name: str
    default_version: str
    default_reason: str
    preference: int
    preference_reason: str
    image: str
    image_rule: str
    command: list[str]
    options: Options
    speculation_with_mtp: list[str]
    default_memory_fraction: float
    overhead_inside_gib: float
    overhead_outside_gib: float
    requires_full_context: bool
    secret: Secret
    # Options the plan sets, with what to use instead; options that documents name in vain, with what to use instead.
    managed_options: dict[str, str]
    replaced_options: dict[str, str]
    # New name of an option: the name it has in versions without the new one.
    renames: dict[str, str]
    env: dict[str, EnvValue]
    cache_env: dict[str, str]
    kv_formats: list[KvFormat]
    timeouts: Timeouts
    stop: Stop
    contract: EngineContract
    package: Package
    multi_node: MultiNode
    image_bytes: int
    versions: dict[str, EngineVersion]
    # What an image gets whose own transformers does not know the model.
    transformers_fix: Optional[str] = None


@dataclass(frozen=True)
class Source:
    """Who says so, and when it was read or published."""

    who: str
    date: Optional[datetime.date] = None

    def __str__(self) -> str:
        return f"{self.who} ({self.date})" if self.date else self.who


@dataclass(frozen=True)
class Layer:
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
    since: Optional[str] = None
    below: Optional[str] = None
    notes: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """A published cell: these models on these accelerators, ``count`` per host on each of ``nodes`` hosts.

    ``args`` are laid over the layers; ``tensor``, ``data`` and ``data_attention`` are how the GPUs are divided where
    that is not plain tensor parallelism over all of them.
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
    since: Optional[str] = None
    below: Optional[str] = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Profile:
    """A kind of work. ``context`` is the most tokens a request gets where no recipe says otherwise (None: all)."""

    text: str
    context: Optional[int] = None


@dataclass(frozen=True)
class Apply:
    """What a workaround changes: engine arguments (None removes one) and environment variables."""

    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownIssue:
    """A defect that some plans meet; an absent selector matches everything. Matched by plugin_utils/plan/issues.py.

    ``models`` and ``model_types`` are alternatives of one selector, so are ``accelerators`` and ``architectures``.
    ``arguments`` has names without dashes (``speculative-config.method`` reaches into a mapping) and a value, a list of
    values, "*" for any value, or None for an argument that is absent; all of them must match. ``date`` is when the fact
    was published or, failing that, read.
    """

    id: str
    status: str
    text: str
    link: str
    date: Optional[datetime.date] = None
    engine: Optional[str] = None
    since: Optional[str] = None
    below: Optional[str] = None
    models: Optional[list[str]] = None
    model_types: Optional[list[str]] = None
    precisions: Optional[list[str]] = None
    accelerators: Optional[list[str]] = None
    architectures: Optional[list[str]] = None
    arguments: Optional[dict[str, Any]] = None
    apply: Optional[Apply] = None


@dataclass(frozen=True)
class Price:
    """What a provider asks for a whole host."""

    provider: str
    accelerator: str
    count: int
    usd_per_hour: float
    source: str
    date: Optional[datetime.date] = None


@dataclass(frozen=True)
class ManagedPrice:
    """What a managed API asks, USD per million tokens: by direction, or ``blended`` for all alike."""

    provider: str
    model: str
    source: str
    input: Optional[float] = None
    output: Optional[float] = None
    blended: Optional[float] = None
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
    interface: typing.Literal["chat", "completions"]
    input_tokens: int
    output_tokens: int
    points: list[Point]
    source: Source
    request_rate: Optional[float] = None
    prefix_caching: Optional[bool] = None
    command: str = ""
    notes: list[str] = field(default_factory=list)


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
class Catalog:
    """Everything in ``catalog/``; flag tables are read by plugin_utils/plan/flags.py when a plan needs one."""

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
    workloads: dict[str, Workload]
    published: list[Published]


def nearest(word: str, known: typing.Iterable[str], count: int = 3, cutoff: float = 0.5) -> list[str]:
    """The known words most like ``word``, best first, whatever their case."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[found] for found in difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=cutoff)]


@functools.lru_cache(maxsize=8)
def load(root: Path = ROOT) -> Catalog:
    """Read and check the whole catalogue; kept for the life of the process.

    Raises CatalogError.
    """
    engines = _read(root / "engines.yml", {"variants", "engines"})
    recipes = _read(root / "recipes.yml", {"profiles", "layers", "recipes"})
    prices = _read(root / "prices.yml", {"prices", "managed"})
    single = ("models", "accelerators", "known_issues", "workloads", "published")
    entries = {name: _read(root / f"{name}.yml", {name})[name] for name in single}
    found = Catalog(
        root=root,
        models=_named(Model, entries["models"], "models.yml", "models"),
        accelerators=_with_aliases(_named(Accelerator, entries["accelerators"], "accelerators.yml", "accelerators")),
        engines=_named(Engine, engines["engines"], "engines.yml", "engines"),
        variants=_build(dict[str, Variant], engines["variants"], "engines.yml: variants"),
        profiles=_build(dict[str, Profile], recipes["profiles"], "recipes.yml: profiles"),
        layers=_build(list[Layer], recipes["layers"], "recipes.yml: layers"),
        recipes=_build(list[Recipe], recipes["recipes"], "recipes.yml: recipes"),
        known_issues=_build(list[KnownIssue], entries["known_issues"], "known_issues.yml: known_issues"),
        prices=_build(list[Price], prices["prices"], "prices.yml: prices"),
        managed=_build(list[ManagedPrice], prices["managed"], "prices.yml: managed"),
        workloads=workloads(entries["workloads"], "workloads.yml"),
        published=_build(list[Published], entries["published"], "published.yml: published"),
    )
    _check_references(found)
    return found


def workloads(data: Any, file: str) -> dict[str, Workload]:
    """Workloads by name, from the catalogue or from a variable that is called ``file`` in messages.

    Raises CatalogError.
    """
    found = _named(Workload, data, file, "workloads")
    for name, workload in found.items():
        where = f"{file}: workloads.{name}"
        sizes = [workload.input_tokens, workload.output_tokens]
        sizes += [size for point in workload.points for size in (point.prompts, point.users)]
        if not workload.points:
            raise CatalogError(f"catalog/{where}.points: expected at least one, found none")
        if min(sizes) < 1:
            raise CatalogError(f"catalog/{where}: expected lengths and numbers of 1 or more, found {min(sizes)}")
    return found


def _read(path: Path, keys: set[str]) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as exc:
        raise CatalogError(f"catalog/{path.name}: cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise CatalogError(f"catalog/{path.name}: is not YAML: {exc}") from exc
    if not isinstance(data, dict) or set(data) != keys:
        found = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise CatalogError(f"catalog/{path.name}: expected the top-level keys {sorted(keys)}, found {found}")
    return data


def record(kind: type[T], path: Path) -> T:
    """A catalogue file of its own as one record: its top-level keys are the fields of ``kind``. Raises CatalogError."""
    hints = typing.get_type_hints(kind)
    data = _read(path, set(hints))
    return kind(**{key: _build(hints[key], value, f"{path.name}: {key}") for key, value in data.items()})


def _named(kind: type[T], data: Any, file: str, section: str) -> dict[str, T]:
    if not isinstance(data, dict):
        raise CatalogError(f"catalog/{file}: {section}: expected a mapping, found {_type_name(data)}")
    return {
        str(name): _record(kind, {"name": str(name), **_mapping(entry, f"{file}: {section}.{name}")},
                           f"{file}: {section}.{name}")
        for name, entry in data.items()
    }  # fmt: skip


def _with_aliases(found: dict[str, Accelerator]) -> dict[str, Accelerator]:
    """The accelerators, also under their aliases."""
    named = dict(found)
    for name, accelerator in found.items():
        for alias in accelerator.aliases:
            if alias in named:
                raise CatalogError(f"catalog/accelerators.yml: accelerators.{name}.aliases: {alias} is taken")
            named[alias] = accelerator
    return named


def _mapping(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise CatalogError(f"catalog/{where}: expected a mapping, found {_type_name(data)}")
    return data


def _record(kind: type[T], data: Any, where: str) -> T:
    data = _mapping(data, where)
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in hints:
            close = nearest(str(key), hints, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise CatalogError(f"catalog/{where}: unknown key {key!r}{hint}")
    required = {
        item.name
        for item in dataclasses.fields(kind)  # type: ignore[arg-type]
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    # A field that may be None may be left out as well.
    missing = sorted(name for name in required - set(data) if not _optional(hints[name]))
    if missing:
        raise CatalogError(f"catalog/{where}: missing key {', '.join(missing)}")
    absent = dict.fromkeys(required - set(data))
    values = {key: _build(hints[key], value, f"{where}.{key}") for key, value in data.items()}
    return kind(**values, **absent)


def _optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType) and type(None) in typing.get_args(hint)


def _build(hint: Any, data: Any, where: str) -> Any:
    """Check ``data`` against a type hint and turn mappings into records."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return data
    if _optional(hint):
        return None if data is None else _build(args[0], data, where)
    if origin is list:
        if not isinstance(data, list):
            raise CatalogError(f"catalog/{where}: expected a list, found {_type_name(data)}")
        return [_build(args[0], item, f"{where}[{index}]") for index, item in enumerate(data)]
    if origin is typing.Literal:
        if data not in args:
            raise CatalogError(f"catalog/{where}: expected one of {', '.join(args)}, found {data!r}")
        return data
    if origin is dict:
        return {str(key): _build(args[1], value, f"{where}.{key}") for key, value in _mapping(data, where).items()}
    if hint is Image and isinstance(data, str):
        return Image(data)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast("type[Any]", hint), data, where)
    # bool is an int to Python, not to a reader of YAML.
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise CatalogError(f"catalog/{where}: expected {hint.__name__}, found {_type_name(data)} {data!r}")
    return data


def _type_name(data: Any) -> str:
    return "nothing" if data is None else type(data).__name__


def _check_references(found: Catalog) -> None:
    """Names in one file must exist in the other; versions must be known."""
    for name, model in found.models.items():
        _known(model.engines, found.engines, f"models.yml: models.{name}.engines", "engine")
        for scenario, sampling in model.sampling.items():
            modes = {mode for mode in ("on", "off", "preserved") if getattr(model.thinking, mode) is not None}
            where = f"models.yml: models.{name}.sampling.{scenario}.thinking"
            _known([sampling.thinking], dict.fromkeys(sorted(modes)), where, "thinking mode")
        _known(["default"], model.sampling, f"models.yml: models.{name}.sampling", "scenario")
        for engine, wants in model.engines.items():
            where = f"models.yml: models.{name}.engines.{engine}"
            # min_version may be older than the releases the catalogue has tables of.
            versions = [wants.recommended, *wants.images]
            _known(versions, found.engines[engine].versions, where, "version")
            for tags in wants.images.values():
                _known(tags, found.variants, where, "image variant")
    for name, engine_entry in found.engines.items():
        _known([engine_entry.default_version], engine_entry.versions, f"engines.yml: engines.{name}", "version")
        for version, release in engine_entry.versions.items():
            _known(release.images, found.variants, f"engines.yml: engines.{name}.versions.{version}", "image variant")
    for name, variant in found.variants.items():
        if variant.runtime not in ("cuda", "rocm"):
            raise CatalogError(f"catalog/engines.yml: variants.{name}: runtime is {variant.runtime!r}; cuda or rocm")
    for index, layer in enumerate(found.layers):
        where = f"recipes.yml: layers[{index}]"
        _known([layer.engine], found.engines, where, "engine")
        _known(layer.models or (), found.models, where, "model")
        _known(layer.accelerators or (), found.accelerators, where, "accelerator")
        _known(layer.profiles or (), found.profiles, where, "profile")
    for index, recipe in enumerate(found.recipes):
        where = f"recipes.yml: recipes[{index}]"
        _known([recipe.engine], found.engines, where, "engine")
        _known(recipe.models, found.models, where, "model")
        for model_name in recipe.models:
            _known(recipe.precisions, found.models[model_name].precisions, where, f"precision of {model_name}")
        _known(recipe.profiles, found.profiles, where, "profile")
        _known(recipe.accelerators, found.accelerators, where, "accelerator")
    for index, price in enumerate(found.prices):
        _known([price.accelerator], found.accelerators, f"prices.yml: prices[{index}]", "accelerator")
    for index, managed in enumerate(found.managed):
        where = f"prices.yml: managed[{index}]"
        _known([managed.model], found.models, where, "model")
        if (managed.blended is None) == (managed.input is None or managed.output is None):
            raise CatalogError(f"catalog/{where}: expected either blended, or input and output")
    for index, result in enumerate(found.published):
        _check_published(found, result, f"published.yml: published[{index}]")
    for issue in found.known_issues:
        where = f"known_issues.yml: {issue.id}"
        _known(issue.models or (), found.models, where, "model")
        _known(issue.accelerators or (), found.accelerators, where, "accelerator")
        _known([issue.engine] if issue.engine else (), found.engines, where, "engine")
        types_known = {model.model_type: model for model in found.models.values()}
        _known(issue.model_types or (), types_known, where, "model type")
        architectures = {item.architecture: item for item in found.accelerators.values()}
        _known(issue.architectures or (), architectures, where, "architecture")
        if issue.status not in ("workaround", "broken"):
            raise CatalogError(f"catalog/{where}: status is {issue.status!r}; expected workaround or broken")


def _check_published(found: Catalog, result: Published, where: str) -> None:
    _known([result.workload], found.workloads, where, "workload")
    _known([result.model], found.models, where, "model")
    _known([result.precision], found.models[result.model].precisions, where, f"precision of {result.model}")
    _known([result.accelerator] if result.accelerator else (), found.accelerators, where, "accelerator")
    _known([result.engine], found.engines, where, "engine")
    points = found.workloads[result.workload].points
    if not any(point.parallel == result.parallel and result.prompts in (None, point.prompts) for point in points):
        raise CatalogError(
            f"catalog/{where}: {result.workload} has no point of {result.prompts} prompts, {result.parallel} parallel"
        )


def _known(names: typing.Iterable[str], known: Mapping[str, Any], where: str, kind: str) -> None:
    for name in names:
        if name not in known:
            raise CatalogError(f"catalog/{where}: unknown {kind} {name!r}; known are {', '.join(known)}")
