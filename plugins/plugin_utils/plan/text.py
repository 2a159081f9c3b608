# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serving plans as text for people (one block per distinct plan) and as one JSON file for machines."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import image as plan_image
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan, Price

_WIDTH = 118
_RECIPES = {
    "published": "published for exactly this cell{but}; see the sources",
    "adapted": "published for exactly this cell{but}; see the sources",
    "own": "of your own catalogue, for exactly this cell{but}; see the sources",
    "derived": "derived from the recipes of its neighbours; none is published for exactly this cell",
}
_LABEL = 12


def report(plans: Mapping[str, Plan]) -> list[str]:
    """Lines that describe the plans of all hosts; what is served alike shares a block, whatever its place."""
    groups: dict[str, list[str]] = {}
    for host, plan in plans.items():
        groups.setdefault(_sameness(plan), []).append(host)
    lines: list[str] = []
    for hosts in groups.values():
        lines += ["", *_block(plans[hosts[0]])] if lines else _block(plans[hosts[0]])
        where = [f"{host} {_endpoint(plans[host])}" for host in hosts]
        lines += _row("endpoint", "; ".join(where))
    return lines


def _sameness(plan: Plan) -> str:
    """Equal for replicas of one host, hosts of one replica, and hosts that differ in their address only."""
    alike = [
        plan["model"], plan["engine"], plan["profile"], plan["recipe"], plan["image"], plan["runtime"],
        plan["parallel"], plan["memory"], plan["contract"], plan["replicas"],
        [plan["loading"][name] for name in ("disk", "filesystem", "reason")],
    ]  # fmt: skip
    accelerator = {**plan["accelerator"], **({"indices": []} if plan["replicas"] > 1 else {})}
    listen, node = plan["listen"], plan["node"]
    place = {*map(str, (listen["container_port"], node["rank"])), "--headless"}
    words = [word for word in plan["command"] if word not in place and not word.endswith("/engine.yaml")]
    env = {name: value for name, value in plan["env"].items() if not name.endswith("_VISIBLE_DEVICES")}
    return json.dumps([alike, accelerator, words, env, node["count"], plan["known_issues"]], sort_keys=True)


def keep(path: Path, plans: Mapping[str, Plan], write: bool = True) -> bool:
    """Write ``{"schema": 1, "hosts": {host: plan}}`` to ``path`` in one step; True when the content differs."""
    text = json.dumps({"schema": 1, "hosts": plans}, indent=2, sort_keys=True) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if write:
        files.write_text(path, text)
    return True


def _endpoint(plan: Plan) -> str:
    if plan["node"]["rank"]:
        return f"answers at the first host of its replica ({plan['node']['head_address'] or 'not known yet'})"
    return tls.url(plan)


def _block(plan: Plan) -> list[str]:
    model, accelerator = plan["model"], plan["accelerator"]
    memory, times, disk = plan["memory"], plan["timeouts"], plan["disk"]
    title = (
        f"{model['name']} {model['precision']} with {plan['engine']['name']} {plan['engine']['version']} "
        f"on {_hardware(plan)} ({plan['profile']})"
    )
    revision = model["revision"] or f"{model['requested_revision']}, not locked to a commit yet"
    parts = times["phases"]
    phases = (
        f"load {_minutes(parts['load'])}, compile {_minutes(parts['compile'])}, "
        f"capture {_minutes(parts['capture'])}, warmup {_minutes(parts['warmup'])}"
    )
    size = model["weights_bytes"]
    rows = [
        (
            "fits",
            f"yes: {memory['weights_per_gpu_gib']:.1f} GiB of weights and {memory['kv_pool_gib_per_gpu']:.1f} GiB of "
            f"KV cache on each GPU of {accelerator['memory_gib']:.1f} GiB",
        ),
        (
            "KV cache",
            f"{memory['kv_bytes_per_token']:,} bytes per token ({memory['kv_format']}), {memory['token_pool']:,} "
            f"tokens = {memory['full_length_requests']:.1f} requests of {model['context_length']:,}",
        ),
        ("divided", _division(plan)),
        ("price", "; ".join(_price(price, plan["node"]["count"]) for price in plan["prices"])),
        ("served as", plan["served_model_name"]),
        ("passes", _passes(plan)),
        (
            "weights",
            f"{model['repository']} ({revision}), {size / 1e9:,.1f} GB = {size / 2**30:,.1f} GiB, {model['license']}",
        ),
        *_beside(plan),
        *_program(plan),
        ("arithmetic", memory["arithmetic"]),
        ("memory", _host_memory(plan)),
        ("disk", f"{disk['free_bytes_needed'] / 1e9:,.0f} GB free before the first fetch"),
        ("loading", _loading(plan)),
        ("start", f"within {_minutes(times['start_seconds'])} ({phases})"),
        ("stop", _stop(plan)),
        ("command", shlex.join(plan["command"])),
        ("environment", " ".join(f"{name}={value}" for name, value in plan["env"].items())),
        ("for", f"up to {users} requests at once" if (users := plan["recipe"]["users"]) else ""),
        ("recipe", _recipe(plan)),
        ("measured", _measured(plan)),
        *(("note", note) for note in plan["notes"]),
        *(("known issue", f"{issue['text']} {issue['link']}") for issue in plan["known_issues"]),
        *(("source", source) for source in plan["sources"]),
    ]
    lines = [title, "-" * len(title)]
    for label, text in rows:
        lines += _row(label, text) if text else []
    return lines


def _recipe(plan: Plan) -> str:
    """What the arguments rest on."""
    found, point = plan["recipe"], plan["recipe"]["point"]
    adapted = ", ".join(f"{one['argument']} ({one['reason']})" for one in found["adapted"])
    text = _RECIPES[found["basis"]].format(but=f", but for {adapted}" if adapted else "")
    return (
        f"{text}. Its point: {point['name']}, {point['least']} to {point['most']} requests at once" if point else text
    )


def _measured(plan: Plan) -> str:
    """What was measured here with the recipe of the plan."""
    found = plan["recipe"]["measured"]
    if found is None:
        return ""
    first = "" if found["ttft_mean_ms"] is None else f", first token after {found['ttft_mean_ms']:,.0f} ms"
    differs = "" if found["same"] else f"; this plan has other arguments, or not {found['engine_version']}"
    return (
        f"here on {found['date']} ({found['hardware']}): {found['tokens_per_second']:,.0f} tokens/s out at "
        f"{found['users']} parallel{first} ({found['workload']}, {plan['engine']['name']} {found['engine_version']})"
        f"{differs}"
    )


def _host_memory(plan: Plan) -> str:
    """What a replica takes of the memory of its host."""
    host = plan["host_memory"]
    offloaded = f", {host['offloaded_gib']:g} GiB offloaded from the GPUs" if host["offloaded_gib"] else ""
    return (
        f"{host['needed_gib']:,.0f} GiB of the host: up to {host['shared_memory_gib']:g} GiB of shared memory, "
        f"{host['processes_gib']:g} GiB for processes and pinned buffers{offloaded}"
    )


def _loading(plan: Plan) -> str:
    """How the weights are loaded, and why."""
    found = plan["loading"]
    where = f"{found['disk']} ({found['filesystem']})" if found["filesystem"] else found["disk"]
    added = f"{', '.join(found['options'])}; " if found["options"] else ""
    return f"{where}: {added}{found['reason']}"


def _stop(plan: Plan) -> str:
    """What a stop does to requests that run."""
    times = plan["timeouts"]
    if not plan["stop"]["drains"]:
        return "ends every open answer at once"
    return (
        f"requests that run have {_minutes(times['drain_seconds'])} (the longest answer would take "
        f"{_minutes(times['longest_answer_seconds'])}); what is left then is ended"
    )


def _price(price: Price, hosts: int) -> str:
    each = f"{price['provider']} {price['usd_per_hour']:.2f} USD/h"
    return each if hosts == 1 else f"{each} a host, {hosts * price['usd_per_hour']:.2f} together"


def _hardware(plan: Plan) -> str:
    accelerator, node = plan["accelerator"], plan["node"]
    text = f"{accelerator['count']}x {accelerator['name']}"
    indices = accelerator["indices"]
    if plan["replicas"] == 1 and len(indices) < accelerator["count"]:
        return f"GPUs {', '.join(map(str, indices))} of {text}"
    if plan["replicas"] > 1:
        return f"{text}, {plan['replicas']} replicas"
    return f"{node['count']} hosts of {text}" if node["count"] > 1 else text


def _division(plan: Plan) -> str:
    by = plan["parallel"]
    kinds = {"tensor": by["tensor"], "pipeline": by["pipeline"], "data": by["data"], "expert": by["expert"]}
    sizes = [f"{kind} parallel {size}" for kind, size in kinds.items() if size > 1]
    text = ", ".join(sizes) if sizes else "one GPU"
    if plan["replicas"] > 1:
        text += f", {len(plan['accelerator']['indices'])} GPUs for each replica"
    return text


def _passes(plan: Plan) -> str:
    """The routes of clients, and what of them this version of the engine does not serve."""
    door = plan["door"]
    text = ", ".join(f"{'/'.join(route['methods'])} {route['path']}" for route in door["routes"])
    titles = {name: purpose.title for name, purpose in catalog.load().purposes.items()}
    lacking = [*(titles.get(name, name) for name in door["lacking"]), *door["shortfalls"]]
    version = f"{plan['engine']['name']} {plan['engine']['version']}"
    return f"{text}; {version} has no {', no '.join(lacking)}" if lacking else text


def _beside(plan: Plan) -> list[tuple[str, str]]:
    """What is fetched beside the model."""
    found = []
    for one in plan["extra_repositories"]:
        revision = one["revision"] or f"{one['requested_revision']}, not locked to a commit yet"
        size = f", {one['bytes'] / 1e9:,.1f} GB" if one["bytes"] is not None else ""
        found.append(("beside them", f"{one['repository']} ({revision}){size}"))
    return found


def _program(plan: Plan) -> list[tuple[str, str]]:
    """What runs the engine, and the oldest versions it needs."""
    runtime, image = plan["runtime"], plan["image"]
    if image is None:
        indexes = f" from {' '.join(runtime['index_urls'])} as well" if runtime["index_urls"] else ""
        added = f", with {' '.join(runtime['overrides'])}" if runtime["overrides"] else ""
        return [("package", f"{runtime['package']} in {runtime['path']} (Python {runtime['python']}){indexes}{added}")]
    built_for = f"CUDA {image['cuda']}" if image["cuda"] else f"ROCm {image['rocm'] or '(release not named)'}"
    if not image["variant"]:
        built_for = f"{'ROCm' if plan['accelerator']['vendor'] == 'amd' else 'CUDA'} (name it in glm_image_variant)"
    driver = f"driver {image['min_driver']} or newer" if image["min_driver"] else "no oldest driver is published"
    locked = "" if plan_image.locked(image) else "; not locked to a digest yet"
    fix = image["build"]
    build = f"; built from {fix['base']} with {' '.join(fix['packages'])}" if fix else ""
    return [
        ("image", f"{image['reference']}{build}{locked}"),
        ("needs", f"{built_for}, {driver}, transformers {image['min_transformers']} or newer in the image"),
    ]


def _row(label: str, text: str) -> list[str]:
    indent = " " * _LABEL
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _minutes(seconds: int) -> str:
    return f"{-(-seconds // 60)} min"
