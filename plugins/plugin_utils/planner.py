# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intent + accelerators + catalogue -> serving plan, or a refusal that says why and what would work.

Pure: no network, no host, no clock; the same input gives the same plan. The plan's schema is in docs/architecture.md.
Knowledge is in ``catalog/``; here is only how facts combine.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog as cat
from ansible_collections.glm.fleet.plugins.plugin_utils import flags, issues, memory

SCHEMA = 1
CONTAINER_PORT = 8000
CONTAINER_HF_HOME = "/root/.cache/huggingface"
CONTAINER_CACHE = "/var/cache/glm"

_DEVICES = {"nvidia": ["nvidia.com/gpu=all"]}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*")


class PlanError(ValueError):
    """The intent cannot work; the text has what was asked, why it fails, with numbers, and what to do next."""


@dataclass(frozen=True)
class Intent:
    """What is asked for. None means the catalogue's choice."""

    model: str
    accelerator: str
    accelerator_count: int
    precision: str = "fp8"
    engine: Optional[str] = None
    engine_version: Optional[str] = None
    image_variant: Optional[str] = None
    profile: str = "agentic"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    served_model_name: Optional[str] = None
    listen_address: str = "127.0.0.1"
    listen_port: int = 8000
    data_dir: str = "/var/lib/glm"
    config_dir: str = "/etc/glm"
    revision: str = "main"
    replica: int = 0
    driver_version: Optional[str] = None


@dataclass(frozen=True)
class _Parallel:
    """How the GPUs of one host are used. ``attention`` GPUs share one copy of the attention weights."""

    tensor: int
    pipeline: int
    data: int
    expert: int
    gpus: int
    attention: int
    experts_over: int
    dense: int


@dataclass(frozen=True)
class _Memory:
    """Result of the arithmetic for one GPU; GiB unless a name says otherwise. ``problem`` is empty when it fits.

    ``remedy`` is what would help against the problem; empty when no setting would.
    """

    weights: float
    kv_bytes: int
    kv_format: str
    fraction: float
    pool: float
    tokens: int
    problem: str
    remedy: str
    arithmetic: str


class _Choice:
    """The catalogue entries that an intent names."""

    def __init__(self, intent: Intent, known: cat.Catalog) -> None:
        self.intent, self.known = intent, known
        self.model: cat.Model = _look_up(intent.model, known.models, "model", "glm_model")
        self.checkpoint = _look_up(
            intent.precision, self.model.precisions, f"precision of {self.model.name}", "glm_precision"
        )
        self.accelerator: cat.Accelerator = _look_up(
            intent.accelerator, known.accelerators, "accelerator", "glm_accelerator"
        )
        engines = {name: known.engines[name] for name in self.model.engines}
        preferred = min(engines, key=lambda name: engines[name].preference)
        self.engine: cat.Engine = _look_up(intent.engine or preferred, engines, "engine", "glm_engine")
        self.version = _version(self.model, self.engine, intent.engine_version)
        _look_up(intent.profile, known.profiles, "profile", "glm_profile")

    @property
    def title(self) -> str:
        """What was asked, in a few words."""
        return (
            f"{self.model.name} {self.intent.precision} on {self.intent.accelerator_count}x {self.accelerator.name} "
            f"with {self.engine.name} {self.version}"
        )

    def refuse(self, why: str, next_step: str = "") -> NoReturn:
        """Raise the refusal, with what is known to work when no better step is known."""
        stop = "" if why.endswith("?") else "."
        raise PlanError(f"{self.title}: {why}{stop} Next: {next_step or self.alternatives()}.")

    def alternatives(self) -> str:
        """The nearest combinations that have a recipe: same accelerator first, then same precision and engine."""
        intent = self.intent

        def distance(recipe: cat.Recipe, accelerator: str) -> tuple[bool, bool, bool, bool]:
            return (
                accelerator != self.accelerator.name,
                recipe.precision != intent.precision,
                recipe.engine != self.engine.name,
                recipe.profile != intent.profile,
            )

        found = sorted(
            (distance(recipe, name), f"{recipe.count}x {name} ({recipe.precision}, {recipe.engine}, {recipe.profile})")
            for recipe in self.known.recipes
            if recipe.model == self.model.name
            for name in recipe.accelerators
        )
        nearest = [text for _distance, text in found[:4]]
        return f"{self.model.name} is known to work on {'; '.join(nearest)}"


def listen_address(bind: str, private_address: Optional[str]) -> str:
    """The address an endpoint is published on: ``private``, ``loopback``, ``public`` or an IP address as it is.

    Raises PlanError when there is no private address, or the text is no address.
    """
    if bind == "private":
        if private_address:
            return listen_address(private_address, None)
        raise PlanError(
            "the endpoint shall be bound to the private address, but the inventory knows none. Next: set glm_bind to "
            "loopback, public or an address of the host."
        )
    known = {"loopback": "127.0.0.1", "public": "0.0.0.0"}
    if bind in known:
        return known[bind]
    try:
        return str(ipaddress.ip_address(bind))
    except ValueError:
        raise PlanError(
            f"{bind!r} is neither private, loopback, public nor an IP address. Next: set glm_bind to one of these."
        ) from None


def make(intent: Intent, known: cat.Catalog, lock: Optional[Mapping[str, Any]] = None) -> dict[str, Any]:
    """The serving plan (schema 1). ``lock`` is what lockfile.read returned.

    Raises PlanError for an intent that cannot work and CatalogError for a broken catalogue.
    """
    choice = _Choice(intent, known)
    _check_intent(choice)
    _check_capabilities(choice)
    recipe = _recipe(choice)
    table = flags.load(choice.engine.name, choice.version, known.root / "flags")
    arguments, shown = _arguments(choice, recipe, table)
    parallel = _parallel(choice, table, arguments)
    size = _memory(choice, table, arguments, parallel)
    if size.problem:
        choice.refuse(size.problem, size.remedy)
    image = _image(choice, lock or {})
    known_issues = _known_issues(choice, arguments)
    revision = _revision(choice, lock or {})
    served = _served_name(choice)
    return {
        "schema": SCHEMA,
        "replica": intent.replica,
        "model": {
            "name": choice.model.name,
            "precision": intent.precision,
            "repository": choice.checkpoint.repository,
            "revision": revision,
            "requested_revision": intent.revision,
            "architecture": choice.model.architecture,
            "model_type": choice.model.model_type,
            "weights_bytes": _weights_bytes(choice),
            "license": choice.model.license,
            "context_length": choice.model.context_length,
        },
        "accelerator": {
            "name": choice.accelerator.name,
            "count": intent.accelerator_count,
            "vendor": choice.accelerator.vendor,
            "architecture": choice.accelerator.architecture,
            "memory_gib": round(choice.accelerator.memory_gib, 2),
        },
        "engine": {"name": choice.engine.name, "version": choice.version},
        "profile": intent.profile,
        "image": image,
        "served_model_name": served,
        "listen": {
            "address": intent.listen_address,
            "port": intent.listen_port,
            "container_port": CONTAINER_PORT,
        },
        "command": _command(choice, revision, served, flags.render(table, arguments, shown)),
        "env": _env(choice, recipe),
        "secret": _secret(choice.engine.secret),
        "devices": list(_DEVICES[choice.accelerator.vendor]),
        **_files(choice),
        "memory": _memory_record(choice, table, arguments, parallel, size),
        "parallel": {
            "tensor": parallel.tensor,
            "pipeline": parallel.pipeline,
            "data": parallel.data,
            "expert": parallel.expert,
        },
        "timeouts": _timeouts(choice),
        "stop": {"success_exit_status": list(choice.engine.stop.success_exit_status)},
        "contract": _contract(choice, table, arguments),
        "disk": _disk(choice),
        "prices": _prices(choice),
        "known_issues": known_issues,
        "sources": [*choice.model.sources, *(str(source) for source in recipe.sources)],
        "notes": _notes(choice, recipe, table, arguments, parallel),
    }


# --- what the intent names -------------------------------------------------------------------------------------------


def _look_up(name: str, known: Mapping[str, Any], kind: str, variable: str) -> Any:
    if name in known:
        return known[name]
    close = cat.nearest(name, known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise PlanError(
        f"unknown {kind} {name!r}.{hint} Next: set {variable} to one the catalogue knows: {', '.join(known)}."
    )


def _version(model: cat.Model, engine: cat.Engine, asked: Optional[str]) -> str:
    version = asked or engine.default_version
    wants = model.engines[engine.name]
    if cat.version_key(version) < cat.version_key(wants.min_version):
        because = f" ({wants.too_old})" if wants.too_old else ""
        raise PlanError(
            f"{engine.name} {version} cannot serve {model.name}: it needs {engine.name} {wants.min_version} or "
            f"newer{because}. Next: leave glm_engine_version empty, or set it to {wants.recommended}."
        )
    if version in engine.versions:
        return version
    order = sorted(engine.versions, key=cat.version_key)
    raise PlanError(
        f"unknown {engine.name} version {version!r}; the catalogue has no flag table of it. Next: set "
        f"glm_engine_version to one of {', '.join(order)}."
    )


def _check_intent(choice: _Choice) -> None:
    intent = choice.intent
    if intent.accelerator_count < 1:
        choice.refuse(f"{intent.accelerator_count} accelerators", "set glm_accelerator_count to what the host has")
    if not 1 <= intent.listen_port <= 65535:
        choice.refuse(f"{intent.listen_port} is not a TCP port", "set glm_port to a number from 1 to 65535")
    if intent.served_model_name is not None and not _SERVED_NAME.fullmatch(intent.served_model_name):
        choice.refuse(
            f"{intent.served_model_name!r} is not usable as a model name in requests",
            "set glm_served_model_name to letters, digits and . _ - / :",
        )
    for variable, path in (("glm_data_dir", intent.data_dir), ("config_dir", intent.config_dir)):
        if not path.startswith("/"):
            choice.refuse(f"{path!r} is not an absolute path on the host", f"set {variable} to one")


def _check_capabilities(choice: _Choice) -> None:
    """Refuse what no recipe could change: kernels that do not exist, weights that do not fit, heads that do not divide.

    Runs before the recipe is looked up, so that the answer is the reason and not "no recipe".
    """
    accelerator, count = choice.accelerator, choice.intent.accelerator_count
    lacking = [need for need in choice.model.needs if need not in accelerator.features]
    if lacking:
        because = f"; {accelerator.note}" if accelerator.note else ""
        choice.refuse(f"{accelerator.name} ({accelerator.architecture}) lacks {', '.join(lacking)}{because}")
    if _matching(choice):
        return
    heads = choice.model.config.num_attention_heads
    if heads % count:
        valid = [str(n) for n in range(1, heads + 1) if heads % n == 0]
        choice.refuse(
            f"tensor parallelism over {count} GPUs does not divide the {heads} attention heads "
            f"(possible: {', '.join(valid)})"
        )
    plain = _Parallel(count, 1, 1, 1, count, count, count, count)
    kv_format = _kv_format(choice, "auto")
    size = _arithmetic(choice, plain, choice.engine.default_memory_fraction, True, kv_format, None)
    if size.problem:
        choice.refuse(size.problem, size.remedy)


# --- recipe and arguments --------------------------------------------------------------------------------------------


def _matching(choice: _Choice) -> list[cat.Recipe]:
    """Recipes for this model, precision, engine version, accelerator and count, whatever the profile."""
    intent = choice.intent
    return [
        recipe
        for recipe in choice.known.recipes
        if recipe.model == choice.model.name
        and recipe.precision == intent.precision
        and recipe.engine == choice.engine.name
        and choice.accelerator.name in recipe.accelerators
        and recipe.count == intent.accelerator_count
        and cat.in_range(choice.version, recipe.since, recipe.below)
    ]


def _recipe(choice: _Choice) -> cat.Recipe:
    found = _matching(choice)
    for recipe in found:
        if recipe.profile == choice.intent.profile:
            return recipe
    if found:
        profiles = ", ".join(recipe.profile for recipe in found)
        choice.refuse(f"no recipe for the profile {choice.intent.profile}", f"set glm_profile to {profiles}")
    hosts = ""
    if choice.intent.accelerator_count > choice.accelerator.per_host:
        hosts = (
            f"; a host has {choice.accelerator.per_host} {choice.accelerator.name}, and one replica over several hosts "
            "is not in the catalogue"
        )
    choice.refuse(f"the memory would do, but no recipe says how to serve it{hosts}")


def _arguments(
    choice: _Choice, recipe: cat.Recipe, table: flags.Table
) -> tuple[dict[str, Any], dict[str, str]]:
    """Merged arguments by canonical name, and how to spell each."""
    override = choice.intent.engine_args
    try:
        _check_managed(choice, table)
        arguments = flags.merge(table, recipe.args, override)
        flags.check(table, arguments)
    except flags.FlagError as exc:
        instead = choice.engine.replaced_options.get(exc.flag)
        choice.refuse(
            f"glm_engine_args: {exc}",
            instead or "correct glm_engine_args; null removes an argument of the recipe",
        )
    shown = {}
    for name in [*recipe.args, *override]:
        spelled = flags.spelled(name).split(".", 1)[0]
        option = table.find(name)
        shown[option.key] = spelled if spelled in option.names and spelled != option.negative else option.key
    _check_parsers(choice, table, arguments)
    return arguments, shown


def _check_managed(choice: _Choice, table: flags.Table) -> None:
    managed = choice.engine.managed_options
    for name in choice.intent.engine_args:
        aliases = set(table.find(name).names)
        for option, instead in managed.items():
            if option in aliases:
                choice.refuse(f"glm_engine_args may not hold {flags.spelled(name)}: the plan sets it", f"use {instead}")


def _check_parsers(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any]) -> None:
    """Parser names: vLLM looks at them only when it starts, so a wrong one would cost a whole start."""
    options = choice.engine.options
    for flag, known in ((options.tool_parser, table.tool_parsers), (options.reasoning_parser, table.reasoning_parsers)):
        value = _argument(table, arguments, flag)
        if value is not None and str(value) not in known:
            choice.refuse(
                f"{choice.engine.name} {choice.version} has no {flag.lstrip('-')} {value!r}",
                f"set {flag.lstrip('-')} in glm_engine_args to one of {', '.join(known)}",
            )


def _argument(table: flags.Table, arguments: Mapping[str, Any], flag: Optional[str]) -> Any:
    """The value of an option by any of its names; a dotted name reaches into a mapping. None when it is absent."""
    if flag is None:
        return None
    head, *rest = flag.split(".")
    if head not in table.options:
        return None
    value = arguments.get(table.options[head].key)
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any], flag: Optional[str], absent: int) -> int:
    value = _argument(table, arguments, flag)
    if value is None:
        return absent
    number = int(value)
    if number < 1:
        choice.refuse(f"{flag} is {value!r}", "set it to 1 or more in glm_engine_args")
    return number


# --- parallelism and memory ------------------------------------------------------------------------------------------


def _parallel(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any]) -> _Parallel:
    options = choice.engine.options
    tensor, pipeline, data = (
        _number(choice, table, arguments, flag, 1) for flag in (options.tensor, options.pipeline, options.data)
    )
    data_attention = _argument(table, arguments, options.data_attention) is True
    # With data-parallel attention the ranks of the tensor group are divided; otherwise each has its own GPUs.
    gpus = tensor * pipeline * (1 if data_attention else data)
    count = choice.intent.accelerator_count
    if gpus > count:
        choice.refuse(
            f"tensor {tensor} x pipeline {pipeline} x data {data} parallelism needs {gpus} GPUs, the host has {count}",
            f"lower {options.tensor} or {options.data} in glm_engine_args so that their product is at most {count}",
        )
    heads = choice.model.config.num_attention_heads
    attention = tensor // data if data_attention else tensor
    if heads % tensor or attention < 1 or (data_attention and tensor % data):
        choice.refuse(
            f"{options.tensor} {tensor} with data parallelism {data} does not divide the {heads} attention heads",
            f"set {options.tensor} to a divisor of {heads}, and data-parallel attention to a divisor of that",
        )
    expert = _number(choice, table, arguments, options.expert_size, 1)
    if _argument(table, arguments, options.expert_switch) is True:
        expert = tensor * data
    return _Parallel(
        tensor=tensor,
        pipeline=pipeline,
        data=data,
        expert=expert,
        gpus=gpus,
        attention=attention,
        experts_over=tensor if data_attention else tensor * data,
        dense=tensor,
    )


def _memory(
    choice: _Choice, table: flags.Table, arguments: Mapping[str, Any], parallel: _Parallel
) -> _Memory:
    options = choice.engine.options
    fraction = float(_argument(table, arguments, options.memory_fraction) or choice.engine.default_memory_fraction)
    if not 0 < fraction <= 1:
        choice.refuse(f"{options.memory_fraction} is {fraction}", "set it between 0 and 1 in glm_engine_args")
    dtype = str(_argument(table, arguments, options.kv_cache_dtype) or "auto")
    context = _context(choice, table, arguments)
    return _arithmetic(
        choice, parallel, fraction, _drafts(choice, table, arguments), _kv_format(choice, dtype), context
    )


def _drafts(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any]) -> bool:
    """Whether the engine loads the MTP layer."""
    method = _argument(table, arguments, choice.engine.options.speculation)
    return method is not None and str(method) in choice.engine.speculation_with_mtp


def _kv_format(choice: _Choice, dtype: str) -> str:
    for rule in choice.engine.kv_formats:
        if (
            rule.dtype == dtype
            and cat.in_range(choice.version, rule.since, None)
            and (rule.architectures is None or choice.accelerator.architecture in rule.architectures)
        ):
            return rule.format
    known = sorted({rule.dtype for rule in choice.engine.kv_formats})
    choice.refuse(
        f"the KV cache of {choice.model.name} cannot be {dtype!r}",
        f"set {choice.engine.options.kv_cache_dtype} in glm_engine_args to one of {', '.join(known)}",
    )


def _context(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any]) -> Optional[int]:
    """Tokens one request may have, or None when the engine is asked to find out."""
    flag = choice.engine.options.context
    value = _argument(table, arguments, flag)
    if value is None:
        return choice.model.context_length
    text = str(value)
    if text in ("auto", "-1"):
        return None
    units = {"k": 1000, "m": 1000**2, "K": 1024, "M": 1024**2}
    found = re.fullmatch(r"([0-9.]+)([kKmM]?)", text)
    if not found:
        choice.refuse(f"{flag} is {text!r}", "set it to a number of tokens in glm_engine_args")
    context = int(float(found.group(1)) * units.get(found.group(2), 1))
    if not 0 < context <= choice.model.context_length:
        choice.refuse(
            f"{flag} is {context} tokens, the model was made for {choice.model.context_length}",
            f"set {flag} to at most {choice.model.context_length} in glm_engine_args",
        )
    return context


def _arithmetic(
    choice: _Choice, parallel: _Parallel, fraction: float, mtp: bool, kv_format: str, context: Optional[int]
) -> _Memory:
    config, engine = choice.model.config, choice.engine
    hbm = choice.accelerator.memory_gib
    weights_format: Any = choice.checkpoint.weights
    stored = memory.weights_per_gpu(
        config, weights_format, parallel.experts_over, mtp, parallel.attention, parallel.dense
    )
    absorbed = memory.absorbed_per_gpu(config, parallel.attention, mtp)
    stored_gib, absorbed_gib = (size / parallel.pipeline / memory.GIB for size in (stored, absorbed))
    weights = stored_gib + absorbed_gib
    kv_bytes = math.ceil(
        memory.kv_bytes_per_token(config, kv_format, parallel.attention, mtp) / parallel.pipeline
    )
    static, outside = fraction * hbm, (1 - fraction) * hbm
    pool = static - engine.overhead_inside_gib - weights
    per_rank = memory.token_pool(pool * memory.GIB, kv_bytes)
    tokens = per_rank * parallel.data
    precision, spec = choice.intent.precision, "with MTP" if mtp else "without MTP"
    parts = f"{stored_gib:.1f} + {absorbed_gib:.2f} GiB of weights per GPU ({precision}, {spec}, TP{parallel.tensor})"
    limit = f"{fraction:.2f} x {hbm:.2f} GiB = {static:.1f} GiB"
    inside = f" + {engine.overhead_inside_gib:.0f} GiB for activations and graphs" if engine.overhead_inside_gib else ""
    needed = weights + engine.overhead_inside_gib
    problem = remedy = ""
    if needed >= static:
        problem = f"it does not fit: {parts}{inside} = {needed:.1f} GiB, but {limit} is available"
        if weights > hbm:
            problem += f" (the whole GPU has {hbm:.2f} GiB)"
    elif outside < engine.overhead_outside_gib:
        problem = (
            f"{engine.options.memory_fraction} {fraction} leaves {outside:.1f} GiB for graphs and workspaces, "
            f"{engine.name} needs {engine.overhead_outside_gib:.0f} GiB"
        )
        highest = math.floor(100 * (1 - engine.overhead_outside_gib / hbm)) / 100
        remedy = f"set {engine.options.memory_fraction} to at most {highest} in glm_engine_args"
    elif engine.requires_full_context and context is not None and per_rank < context:
        problem = (
            f"the KV cache holds {per_rank:,} tokens ({limit}, less {parts}{inside}, leaves {pool:.1f} GiB at "
            f"{kv_bytes:,} bytes per token), fewer than the {context:,} tokens of one request"
        )
        remedy = f"lower {engine.options.context} or raise {engine.options.memory_fraction} in glm_engine_args"
    arithmetic = (
        f"{limit} for weights and KV cache. {parts}{inside} leave {pool:.1f} GiB per GPU for KV; one token takes "
        f"{kv_bytes:,} bytes ({kv_format}), so the pool holds {tokens:,} tokens"
        + (f" ({per_rank:,} per data-parallel rank)" if parallel.data > 1 else "")
        + f" = {tokens / choice.model.context_length:.1f} requests of {choice.model.context_length:,} tokens."
    )
    return _Memory(weights, kv_bytes, kv_format, fraction, pool, tokens, problem, remedy, arithmetic)


def _memory_record(
    choice: _Choice, table: flags.Table, arguments: Mapping[str, Any], parallel: _Parallel, size: _Memory
) -> dict[str, Any]:
    return {
        "weights_per_gpu_gib": round(size.weights, 2),
        "kv_bytes_per_token": size.kv_bytes,
        "kv_format": size.kv_format,
        "static_fraction": size.fraction,
        "kv_pool_gib_per_gpu": round(size.pool, 2),
        "token_pool": size.tokens,
        "full_length_requests": round(size.tokens / choice.model.context_length, 2),
        "fits": True,
        "arithmetic": size.arithmetic,
    }


# --- image, command, files -------------------------------------------------------------------------------------------


def _image(choice: _Choice, lock: Mapping[str, Any]) -> dict[str, Any]:
    intent, engine = choice.intent, choice.engine
    release = engine.versions[choice.version]
    wants = choice.model.engines[engine.name]
    tags = wants.images.get(choice.version) or release.images
    if not tags:
        usable = [
            version
            for version, entry in engine.versions.items()
            if (wants.images.get(version) or entry.images)
            and cat.version_key(version) >= cat.version_key(wants.min_version)
        ]
        choice.refuse(
            f"no published image of {engine.name} {choice.version} is known",
            f"set glm_engine_version to {wants.recommended} (images are known for {', '.join(usable)})",
        )
    _check_transformers(choice, release, model_image=choice.version in wants.images)
    variant = intent.image_variant or next(iter(tags))
    if variant not in tags:
        choice.refuse(
            f"{engine.name} {choice.version} has no image variant {variant!r}",
            f"set glm_image_variant to one of {', '.join(tags)}, or leave it empty",
        )
    drivers = {name: _min_driver(choice, name) for name in tags}
    _check_driver(choice, variant, drivers)
    entry = (lock.get("images") or {}).get(f"{engine.image}:{tags[variant]}") or {}
    digest = entry.get("digest")
    return {
        "repository": engine.image,
        "tag": tags[variant],
        "digest": digest,
        "variant": variant,
        "cuda": choice.known.cuda[variant].version,
        "min_driver": drivers[variant],
        "reference": f"{engine.image}@{digest}" if digest else f"{engine.image}:{tags[variant]}",
        "min_transformers": choice.model.min_transformers,
    }


def _check_transformers(choice: _Choice, release: cat.EngineVersion, model_image: bool) -> None:
    below = release.transformers.below
    if model_image or below is None or cat.version_key(below) > cat.version_key(choice.model.min_transformers):
        return
    choice.refuse(
        f"its image holds transformers older than {below}, but {choice.model.name} needs "
        f"{choice.model.min_transformers} or newer",
        f"set glm_engine_version to {choice.model.engines[choice.engine.name].recommended}",
    )


def _min_driver(choice: _Choice, variant: str) -> str:
    """The newer of what the image's CUDA and the accelerator need."""
    return max(choice.known.cuda[variant].min_driver, choice.accelerator.min_driver, key=cat.version_key)


def _check_driver(choice: _Choice, variant: str, drivers: Mapping[str, str]) -> None:
    driver = choice.intent.driver_version
    if driver is None or cat.version_key(driver) >= cat.version_key(drivers[variant]):
        return
    older = [name for name, needs in drivers.items() if cat.version_key(driver) >= cat.version_key(needs)]
    cuda = choice.known.cuda[variant].version
    remedy = (
        f"set glm_image_variant to {older[0]} (CUDA {choice.known.cuda[older[0]].version}), or upgrade the driver"
        if older
        else f"upgrade the driver to {min(drivers.values(), key=cat.version_key)} or newer"
    )
    choice.refuse(f"the host has driver {driver}, the image's CUDA {cuda} needs {drivers[variant]} or newer", remedy)


def _revision(choice: _Choice, lock: Mapping[str, Any]) -> Optional[str]:
    asked = choice.intent.revision
    if _COMMIT.fullmatch(asked):
        return asked
    entry = (lock.get("models") or {}).get(f"{choice.checkpoint.repository}@{asked}") or {}
    commit: Optional[str] = entry.get("commit")
    return commit


def _served_name(choice: _Choice) -> str:
    return choice.intent.served_model_name or choice.checkpoint.served_name


def _command(choice: _Choice, revision: Optional[str], served: str, arguments: Sequence[str]) -> list[str]:
    engine, options = choice.engine, choice.engine.options
    repository = choice.checkpoint.repository
    path = repository
    if revision:
        folder = "models--" + repository.replace("/", "--")
        path = f"{CONTAINER_HF_HOME}/hub/{folder}/snapshots/{revision}"
    words = [*engine.command, *([options.model] if options.model else []), path]
    words += [options.served_model_name, served]
    # Every address of the container; docker publishes it on listen.address only.
    words += [options.host, "0.0.0.0", options.port, str(CONTAINER_PORT)]
    if engine.secret.kind == "config" and engine.secret.container_path:
        words += ["--config", engine.secret.container_path]
    return [*words, *arguments]


def _env(choice: _Choice, recipe: cat.Recipe) -> dict[str, str]:
    found = {"HF_HOME": CONTAINER_HF_HOME}
    for name, entry in {**choice.engine.env, **recipe.env}.items():
        if cat.in_range(choice.version, entry.since, entry.below):
            found[name] = entry.value
    for name, folder in choice.engine.cache_env.items():
        found[name] = f"{CONTAINER_CACHE}/{folder}"
    return dict(sorted(found.items()))


def _secret(secret: cat.Secret) -> dict[str, str]:
    parts = {"name": secret.name, "option": secret.option, "container_path": secret.container_path}
    return {"kind": secret.kind, **{key: value for key, value in parts.items() if value is not None}}


def _files(choice: _Choice) -> dict[str, Any]:
    intent = choice.intent
    data = intent.data_dir.rstrip("/")
    hf_home, cache = f"{data}/huggingface", f"{data}/cache/{choice.engine.name}-{choice.version}"
    return {
        "mounts": [
            {"source": hf_home, "target": CONTAINER_HF_HOME, "read_only": True},
            # Every compile cache lies below it (see env), so kernels are built once per engine version.
            {"source": cache, "target": CONTAINER_CACHE, "read_only": False},
        ],
        "paths": {"data": data, "hf_home": hf_home, "cache": cache, "config": intent.config_dir.rstrip("/")},
    }


# --- the rest of the plan --------------------------------------------------------------------------------------------


def _weights_bytes(choice: _Choice) -> int:
    weights_format: Any = choice.checkpoint.weights
    return memory.checkpoint_bytes(choice.model.config, weights_format)


def _timeouts(choice: _Choice) -> dict[str, Any]:
    budget = choice.engine.timeouts
    phases = {
        "load": math.ceil(_weights_bytes(choice) / budget.load_bytes_per_second),
        "compile": budget.compile_seconds,
        "capture": budget.capture_seconds,
        "warmup": budget.warmup_seconds,
    }
    return {
        "start_seconds": sum(phases.values()) + budget.margin_seconds,
        "stop_seconds": choice.engine.stop.seconds,
        "phases": phases,
    }


def _contract(choice: _Choice, table: flags.Table, arguments: Mapping[str, Any]) -> dict[str, Any]:
    thinking, options = choice.model.thinking, choice.engine.options
    default = choice.model.sampling["default"]
    return {
        "reasoning_field": choice.engine.contract.reasoning_field,
        "tool_parser": _argument(table, arguments, options.tool_parser),
        "reasoning_parser": _argument(table, arguments, options.reasoning_parser),
        "thinking_default": thinking.default,
        "thinking_on": thinking.on,
        "thinking_off": thinking.off,
        "thinking_preserved": thinking.preserved,
        "sampling": {
            key: value
            for key, value in (("temperature", default.temperature), ("top_p", default.top_p))
            if value is not None
        },
        "health_path": choice.engine.contract.health_path,
    }


def _disk(choice: _Choice) -> dict[str, int]:
    weights, image = _weights_bytes(choice), choice.engine.image_bytes
    # Twice: the download client and the container store each may hold a second copy for a while.
    return {"weights_bytes": weights, "image_bytes": image, "free_bytes_needed": 2 * (weights + image)}


def _prices(choice: _Choice) -> list[dict[str, Any]]:
    return [
        {"provider": price.provider, "usd_per_hour": price.usd_per_hour, "date": str(price.date or "")}
        for price in choice.known.prices
        if price.accelerator == choice.accelerator.name and price.count == choice.intent.accelerator_count
    ]


def _known_issues(choice: _Choice, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
    found = issues.find(
        choice.known, choice.engine.name, choice.version, choice.model, choice.intent.precision, choice.accelerator,
        arguments,
    )  # fmt: skip
    for issue in found:
        if issue.status == "broken":
            choice.refuse(f"{issue.text} ({issue.link})")
    return [{"id": issue.id, "status": issue.status, "text": issue.text, "link": issue.link} for issue in found]


def _notes(
    choice: _Choice, recipe: cat.Recipe, table: flags.Table, arguments: Mapping[str, Any], parallel: _Parallel
) -> list[str]:
    notes = list(recipe.notes)
    idle = choice.intent.accelerator_count - parallel.gpus
    if idle:
        notes.append(f"{idle} of {choice.intent.accelerator_count} GPUs stay idle.")
    for key in arguments:
        if table.options[key].deprecated:
            notes.append(f"{key} is deprecated in {choice.engine.name} {choice.version}.")
    for name in choice.intent.engine_args:
        notes.append(f"glm_engine_args changes {flags.spelled(name)}.")
    return notes
