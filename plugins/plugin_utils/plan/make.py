# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intent + accelerators + catalogue -> serving plan, or a refusal that says why and what would work.

Pure: no network, no host, no clock; the same input gives the same plan. The plan's schema is in docs/architecture.md.
Knowledge is in ``catalog/``; here is only how facts combine.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import address, versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import (
    Catalog,
    KnownIssue,
    Recipe,
    Sampling,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import choice as plan_choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, issues, recipes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.image import image as _image
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.image import newer_packages

__all__ = ["CONTAINER_PORT", "SCHEMA", "Intent", "PlanError", "listen_address", "make", "make_all"]

SCHEMA = 2
CONTAINER_PORT = 8000
CONTAINER_HF_HOME = "/root/.cache/huggingface"
CONTAINER_CACHE = "/var/cache/glm"
# Below this many tokens a request is too short to be worth a host; the plan refuses instead of shortening further.
SHORTEST_CONTEXT = 16384
# How many throughput requests of the profile's length a rank should hold before it counts as a good division.
BUSY_REQUESTS = 8

_COMMIT = re.compile(r"[0-9a-f]{40}")
_VISIBLE_DEVICES = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES"}


@dataclass(frozen=True)
class _Served:
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


def make_all(intent: Intent, known: Catalog, lock: Optional[Mapping[str, Any]] = None) -> list[dict[str, Any]]:
    """A plan for each replica on the host, in order. Raises as ``make``."""
    return [
        make(dataclasses.replace(intent, replica=replica), known, lock) for replica in range(max(1, intent.replicas))
    ]


def make(
    intent: Intent, known: Catalog, lock: Optional[Mapping[str, Any]] = None, advise: bool = True
) -> dict[str, Any]:
    """The serving plan (schema 2) of one replica. ``lock`` is what lockfile.read returned.

    Raises PlanError for an intent that cannot work and CatalogError for a broken catalogue. Without ``advise`` a
    refusal does not look for what would work instead, which takes a tenth of a second.
    """
    choice = Choice(intent, known)
    if advise:
        choice.alternatives = lambda: _alternatives(choice)
    plan_choice.check(choice)
    table = flags.load(choice.engine.name, choice.version, known.root / "flags")
    served = _serve(choice, table)
    image = _image(choice, lock or {}) if intent.runtime == "container" else None
    revision = _revision(choice, lock or {})
    name = intent.served_model_name or choice.checkpoint.served_name
    port = intent.listen_port + intent.replica
    return {
        "schema": SCHEMA,
        "replica": intent.replica,
        "replicas": intent.replicas,
        "runtime": _runtime(choice),
        "node": _node(choice),
        "recipe": {"basis": "published" if served.recipe else "derived", "profile": intent.profile},
        "model": {
            "name": choice.model.name,
            "precision": choice.intent.precision,
            "repository": choice.repository,
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
            "indices": choice.indices,
        },
        "engine": {"name": choice.engine.name, "version": choice.version},
        "profile": intent.profile,
        "image": image,
        "served_model_name": name,
        "listen": {
            "address": intent.listen_address,
            "port": port,
            "container_port": port if _on_host_network(intent) else CONTAINER_PORT,
        },
        "command": _command(choice, revision, name, flags.render(table, served.arguments, served.shown)),
        "env": _env(choice, served),
        "secret": _secret(choice),
        **_devices(choice),
        **_files(choice),
        "memory": plan_fit.record(choice, served.size),
        "parallel": {
            "tensor": served.divided.tensor,
            "pipeline": served.divided.pipeline,
            "data": served.divided.data,
            "expert": served.divided.expert,
        },
        "timeouts": _timeouts(choice),
        "stop": {"success_exit_status": list(choice.engine.stop.success_exit_status)},
        "contract": _contract(choice, table, served.arguments),
        "disk": _disk(choice),
        "prices": _prices(choice),
        "known_issues": [
            {"id": issue.id, "status": issue.status, "text": issue.text, "link": issue.link} for issue in served.met
        ],
        "sources": [*choice.model.sources, *(str(source) for source in served.composed.sources)],
        "notes": _notes(choice, table, served),
    }


# --- how to serve it -------------------------------------------------------------------------------------------------


def _serve(choice: Choice, table: flags.Table) -> _Served:
    """The best way to divide the GPUs that fits. Raises PlanError with the arithmetic of the most sparing one."""
    _check_capabilities(choice)
    _check_managed(choice, table)
    cell = choice.cell
    recipe = recipes.published(choice.known, cell)
    ways = recipes.layouts(cell, recipe)
    if not ways:
        _refuse_division(choice)
    tried: list[_Served] = []
    for way in ways:
        served = _attempt(choice, table, recipe, way)
        if not served.size.problem and _roomy(choice, served):
            return served
        tried.append(served)
    fitting = [served for served in tried if not served.size.problem]
    if fitting:
        return fitting[-1] if choice.intent.profile == "throughput" else fitting[0]
    if recipe is None and choice.model.config.num_attention_heads % cell.gpus:
        _refuse_division(choice)
    sparing = min(tried, key=lambda served: served.size.weights)
    choice.refuse(sparing.size.problem, sparing.size.remedy)


def _roomy(choice: Choice, served: _Served) -> bool:
    """Whether a division for throughput leaves each rank room for many requests; others need none."""
    if served.recipe or choice.intent.profile != "throughput":
        return True
    return served.size.per_rank >= BUSY_REQUESTS * choice.context_wish


def _refuse_division(choice: Choice) -> None:
    heads, gpus = choice.model.config.num_attention_heads, choice.cell.gpus
    valid = [str(size) for size in memory.valid_tensor_parallel(choice.model.config, replicate_kv=True)]
    choice.refuse(
        f"tensor parallelism over {gpus} GPUs does not divide the {heads} attention heads (possible: "
        f"{', '.join(valid)}), and smaller groups do not hold the weights"
    )


def _check_capabilities(choice: Choice) -> None:
    """Refuse what no arguments could change: kernels that do not exist."""
    accelerator = choice.accelerator
    lacking = [need for need in (*choice.model.needs, *choice.checkpoint.needs) if need not in accelerator.features]
    if lacking:
        because = f"; {accelerator.note}" if accelerator.note else ""
        choice.refuse(f"{accelerator.name} ({accelerator.architecture}) lacks {', '.join(lacking)}{because}")


def _attempt(choice: Choice, table: flags.Table, recipe: Optional[Recipe], way: recipes.Layout) -> _Served:
    served = _worked_out(choice, table, recipe, way, choice.context_wish)
    shorter = served.size.per_rank // 1024 * 1024
    if not served.size.short_of_context or not served.composed.fills_context or shorter < SHORTEST_CONTEXT:
        return served
    if flags.spelled(choice.engine.options.context) in {flags.spelled(name) for name in choice.intent.engine_args}:
        return served
    again = _worked_out(choice, table, recipe, way, shorter)
    note = (
        f"{choice.engine.options.context} is {shorter:,} and not {choice.context_wish:,} tokens: the KV cache of one "
        f"{'rank' if again.divided.data > 1 else 'replica'} holds {served.size.per_rank:,}."
    )
    return dataclasses.replace(again, notes=[*again.notes, note])


def _worked_out(
    choice: Choice, table: flags.Table, recipe: Optional[Recipe], way: recipes.Layout, context: int
) -> _Served:
    composed = recipes.compose(choice.known, choice.cell, recipe, way, context)
    base = flags.respelled(table, {**composed.args, **_node_arguments(choice)}, choice.engine.renames)
    try:
        planned = flags.merge(table, base, {})
        flags.check(table, planned)
    except flags.FlagError as exc:
        choice.refuse(f"the recipe does not suit this release: {exc}", "choose another glm_engine_version")
    expected = _issues(choice, planned)
    remedy = issues.remedy(expected)
    override = choice.intent.engine_args
    try:
        arguments = flags.merge(table, {**planned, **remedy.args}, override)
        flags.check(table, arguments)
    except flags.FlagError as exc:
        choice.refuse(
            f"glm_engine_args: {exc}",
            choice.engine.replaced_options.get(exc.flag)
            or "correct glm_engine_args; null removes an argument of the recipe",
        )
    _check_parsers(choice, table, arguments)
    met = _issues(choice, arguments)
    for issue in met:
        if issue.status == "broken":
            choice.refuse(f"{issue.text.rstrip('.')} ({issue.link})")
    env = {
        name: entry.value
        for name, entry in {**choice.engine.env, **composed.env}.items()
        if versions.in_range(choice.version, entry.since, entry.below)
    }
    divided = plan_fit.parallel(choice, table, arguments)
    told = list({issue.id: issue for issue in (*expected, *met) if issue.status != "broken"}.values())
    return _Served(
        recipe=recipe,
        composed=composed,
        arguments=arguments,
        shown=_shown(table, [*base, *remedy.args, *override]),
        divided=divided,
        size=plan_fit.fit(choice, table, arguments, divided),
        met=told,
        env={**env, **remedy.env},
        notes=list(composed.notes),
    )


def _issues(choice: Choice, arguments: Mapping[str, Any]) -> list[KnownIssue]:
    return issues.find(
        choice.known, choice.engine.name, choice.version, choice.model, choice.intent.precision, choice.accelerator,
        arguments,
    )  # fmt: skip


def _shown(table: flags.Table, names: Sequence[str]) -> dict[str, str]:
    """How each option is printed: as the recipe or the user wrote it, where this version knows that name."""
    shown = {}
    for name in names:
        spelled = flags.spelled(name).split(".", 1)[0]
        option = table.find(name)
        shown[option.key] = spelled if spelled in option.names and spelled != option.negative else option.key
    return shown


def _node_arguments(choice: Choice) -> dict[str, Any]:
    """What an engine that spans hosts is told about them; empty for one host."""
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
    managed = dict(choice.engine.managed_options)
    for name in choice.engine.multi_node.args:
        managed[flags.spelled(name)] = "glm_nodes, which knows the hosts"
    for name in choice.intent.engine_args:
        try:
            aliases = set(table.find(name).names)
        except flags.FlagError:
            continue  # told with the other problems of glm_engine_args
        for option, instead in managed.items():
            if option in aliases:
                choice.refuse(f"glm_engine_args may not hold {flags.spelled(name)}: the plan sets it", f"use {instead}")


def _check_parsers(choice: Choice, table: flags.Table, arguments: Mapping[str, Any]) -> None:
    """Parser names: vLLM looks at them only when it starts, so a wrong one would cost a whole start."""
    options = choice.engine.options
    for flag, known in ((options.tool_parser, table.tool_parsers), (options.reasoning_parser, table.reasoning_parsers)):
        value = plan_fit.argument(table, arguments, flag)
        if value is not None and str(value) not in known:
            choice.refuse(
                f"{choice.engine.name} {choice.version} has no {flag.lstrip('-')} {value!r}",
                f"set {flag.lstrip('-')} in glm_engine_args to one of {', '.join(known)}",
            )


# --- what would work instead -----------------------------------------------------------------------------------------


def _alternatives(choice: Choice) -> str:
    """The nearest things that do work: same accelerator first, then same precision and engine."""
    found = [text for text, intent in _neighbours(choice) if _works(intent, choice.known)]
    shown = list(itertools.islice(found, 4))
    if not shown:
        return f"nothing in the catalogue serves {choice.model.name}; see docs/planner.md"
    return f"{choice.model.name} would work on {'; '.join(shown)}"


def _neighbours(choice: Choice) -> Iterator[tuple[str, Intent]]:
    asked, known = choice.intent, choice.known
    # Aliases are keys of their own.
    accelerators = {entry.name: entry for entry in known.accelerators.values()}
    cells = []
    for accelerator, precision, engine, nodes in itertools.product(
        accelerators.values(), choice.model.precisions, choice.model.engines, (1, 2)
    ):
        distance = (
            accelerator.name != choice.accelerator.name,
            nodes > 1,
            precision != asked.precision,
            engine != choice.engine.name,
        )
        cells.append((sum(distance), distance, accelerator, precision, engine, nodes))
    for _sum, _distance, accelerator, precision, engine, nodes in sorted(cells, key=lambda cell: cell[:2]):
        hosts = f"{nodes} hosts of " if nodes > 1 else ""
        text = f"{hosts}{accelerator.per_host}x {accelerator.name} ({precision}, {engine})"
        yield (
            text,
            dataclasses.replace(
                asked, accelerator=accelerator.name, accelerator_count=accelerator.per_host, precision=precision,
                engine=engine, engine_version=None, image_variant=None, engine_args={}, nodes=nodes, node_rank=0,
                replicas=1, replica=0, driver_version=None,
            ),
        )  # fmt: skip


def _works(intent: Intent, known: Catalog) -> bool:
    try:
        choice = Choice(intent, known)
        plan_choice.check(choice)
        table = flags.load(choice.engine.name, choice.version, known.root / "flags")
        _serve(choice, table)
        if intent.runtime == "container":
            _image(choice, {})
    except PlanError:
        return False
    return True


# --- command, environment, files -------------------------------------------------------------------------------------


def _on_host_network(intent: Intent) -> bool:
    """Engines on several hosts open ports to each other that cannot be named beforehand."""
    return intent.runtime == "venv" or intent.nodes > 1


def _runtime(choice: Choice) -> dict[str, Any]:
    intent, package = choice.intent, choice.engine.package
    venv = intent.runtime == "venv"
    return {
        "kind": intent.runtime,
        "network": "host" if _on_host_network(intent) else "bridge",
        "path": _venv_path(choice) if venv else None,
        "package": f"{package.name}=={choice.version}" if venv else None,
        "python": package.python if venv else None,
        "index_urls": package.index_urls.get(choice.accelerator.vendor, []) if venv else [],
        "overrides": newer_packages(choice) if venv else [],
    }


def _venv_path(choice: Choice) -> str:
    return f"{choice.intent.engine_dir.rstrip('/')}/{choice.engine.name}-{choice.version}"


def _node(choice: Choice) -> dict[str, Any]:
    intent = choice.intent
    return {
        "count": intent.nodes,
        "rank": intent.node_rank,
        "head_address": intent.head_address,
        "interface": intent.interface,
        "port": choice.engine.multi_node.port,
    }


def _paths(choice: Choice) -> dict[str, str]:
    """Folders on the host."""
    data = choice.intent.data_dir.rstrip("/")
    return {
        "data": data,
        "hf_home": f"{data}/huggingface",
        "cache": f"{data}/cache/{choice.engine.name}-{choice.version}",
        "config": choice.intent.config_dir.rstrip("/"),
        "engines": choice.intent.engine_dir.rstrip("/"),
    }


def _inside(choice: Choice) -> tuple[str, str]:
    """Where the engine sees weights and caches: in its container, or on the host."""
    if choice.intent.runtime == "venv":
        paths = _paths(choice)
        return paths["hf_home"], paths["cache"]
    return CONTAINER_HF_HOME, CONTAINER_CACHE


def _revision(choice: Choice, lock: Mapping[str, Any]) -> Optional[str]:
    asked = choice.intent.revision
    if _COMMIT.fullmatch(asked):
        return asked
    entry = (lock.get("models") or {}).get(f"{choice.repository}@{asked}") or {}
    commit: Optional[str] = entry.get("commit")
    return commit


def _command(choice: Choice, revision: Optional[str], served: str, arguments: Sequence[str]) -> list[str]:
    engine, options, intent = choice.engine, choice.engine.options, choice.intent
    path = choice.repository
    if revision:
        folder = "models--" + path.replace("/", "--")
        path = f"{_inside(choice)[0]}/hub/{folder}/snapshots/{revision}"
    words = list(engine.command)
    if intent.runtime == "venv":
        program, *rest = engine.package.command
        words = [f"{_venv_path(choice)}/{program}", *rest]
    words += [*([options.model] if options.model else []), path]
    words += [options.served_model_name, served]
    # In a container every address of it: docker publishes the port on listen.address only.
    host, port = ("0.0.0.0", CONTAINER_PORT)
    if _on_host_network(intent):
        host, port = intent.listen_address, intent.listen_port + intent.replica
    words += [options.host, host, options.port, str(port)]
    secret = _secret(choice)
    if secret["kind"] == "config":
        words += ["--config", secret["container_path"]]
    return [*words, *arguments]


def _env(choice: Choice, served: _Served) -> dict[str, str]:
    intent = choice.intent
    hf_home, cache = _inside(choice)
    found = {"HF_HOME": hf_home, **served.env}
    for name, folder in choice.engine.cache_env.items():
        found[name] = f"{cache}/{folder}"
    if intent.interface:
        found.update(dict.fromkeys(("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"), intent.interface))
    if intent.replicas > 1 and (intent.runtime == "venv" or choice.accelerator.vendor == "amd"):
        found[_VISIBLE_DEVICES[choice.accelerator.vendor]] = ",".join(str(index) for index in choice.indices)
    return dict(sorted(found.items()))


def _secret(choice: Choice) -> dict[str, str]:
    secret = choice.engine.secret
    path = secret.container_path
    if path and choice.intent.runtime == "venv":
        path = f"/run/glm-serve-{choice.intent.replica}/engine.yaml"
    parts = {"name": secret.name, "option": secret.option, "container_path": path}
    return {"kind": secret.kind, **{key: value for key, value in parts.items() if value is not None}}


def _devices(choice: Choice) -> dict[str, list[str]]:
    """What a container gets of the host: CDI names for NVIDIA, device nodes and groups for AMD."""
    if choice.accelerator.vendor == "nvidia":
        names = ["all"] if choice.intent.replicas == 1 else [str(index) for index in choice.indices]
        cdi = [f"nvidia.com/gpu={name}" for name in names]
        return {"devices": cdi, "device_nodes": [], "device_groups": [], "security_options": []}
    return {
        "devices": [],
        "device_nodes": ["/dev/kfd", "/dev/dri"],
        "device_groups": ["video", "render"],
        # ROCm maps memory of other processes of the container, which Docker's default filter forbids (AMD's guide).
        "security_options": ["seccomp=unconfined"],
    }


def _files(choice: Choice) -> dict[str, Any]:
    paths = _paths(choice)
    mounts = [
        {"source": paths["hf_home"], "target": CONTAINER_HF_HOME, "read_only": True},
        # Every compile cache lies below it (see env), so kernels are built once per engine version.
        {"source": paths["cache"], "target": CONTAINER_CACHE, "read_only": False},
    ]
    return {"mounts": mounts if choice.intent.runtime == "container" else [], "paths": paths}


# --- the rest of the plan --------------------------------------------------------------------------------------------


def _weights_bytes(choice: Choice) -> int:
    form = choice.checkpoint
    return memory.checkpoint_bytes(choice.model.config, form.weights, form.mtp, form.mtp_weights)


def _timeouts(choice: Choice) -> dict[str, Any]:
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


def _contract(choice: Choice, table: flags.Table, arguments: Mapping[str, Any]) -> dict[str, Any]:
    thinking, options = choice.model.thinking, choice.engine.options
    return {
        "reasoning_field": choice.engine.contract.reasoning_field,
        "tool_parser": plan_fit.argument(table, arguments, options.tool_parser),
        "reasoning_parser": plan_fit.argument(table, arguments, options.reasoning_parser),
        "thinking_default": thinking.default,
        "thinking_on": thinking.on,
        "thinking_off": thinking.off,
        "thinking_preserved": thinking.preserved,
        "reasoning_efforts": list(thinking.efforts),
        "sampling": {name: _known_fields(sampling) for name, sampling in choice.model.sampling.items()},
        "health_path": choice.engine.contract.health_path,
    }


def _known_fields(sampling: Sampling) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(sampling).items() if value is not None}


def _disk(choice: Choice) -> dict[str, int]:
    weights = _weights_bytes(choice)
    engine = choice.engine
    program = engine.image_bytes if choice.intent.runtime == "container" else engine.package.disk_bytes
    # Twice: the download client and the container store each may hold a second copy for a while.
    return {"weights_bytes": weights, "image_bytes": program, "free_bytes_needed": 2 * (weights + program)}


def _prices(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"provider": price.provider, "usd_per_hour": price.usd_per_hour, "date": str(price.date or "")}
        for price in choice.known.prices
        if price.accelerator == choice.accelerator.name and price.count == choice.intent.accelerator_count
    ]


def _notes(choice: Choice, table: flags.Table, served: _Served) -> list[str]:
    notes = [*served.notes, *choice.model.notes]
    if choice.checkpoint.note:
        notes.append(choice.checkpoint.note)
    idle = choice.cell.gpus - served.divided.gpus
    if idle:
        notes.append(f"{idle} of {choice.cell.gpus} GPUs stay idle.")
    context = plan_fit.context_of(choice, table, served.arguments)
    if not choice.engine.requires_full_context and context is not None and served.size.per_rank < context:
        notes.append(
            f"The KV cache of one {'rank' if served.divided.data > 1 else 'replica'} holds {served.size.per_rank:,} "
            f"tokens: {choice.engine.name} answers longer requests with an error, although the model takes {context:,}."
        )
    outside = (1 - served.size.fraction) * choice.accelerator.memory_gib
    if outside < choice.engine.overhead_outside_gib:
        notes.append(
            f"{choice.engine.options.memory_fraction} {served.size.fraction} leaves {outside:.1f} GiB for graphs and "
            f"workspaces, where {choice.engine.overhead_outside_gib:.0f} GiB are usual; lower it if the start runs out "
            "of memory."
        )
    if choice.intent.nodes > 1 and not choice.intent.head_address:
        notes.append("HEAD in the command stands for the first host's private address.")
    for key in served.arguments:
        if table.options[key].deprecated:
            notes.append(f"{key} is deprecated in {choice.engine.name} {choice.version}.")
    for name in choice.intent.engine_args:
        notes.append(f"glm_engine_args changes {flags.spelled(name)}.")
    return notes
