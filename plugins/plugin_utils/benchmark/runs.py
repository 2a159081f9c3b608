# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a workload and a serving plan to the client's runs: which program, with which arguments, in which order.

Every run has a seed of its own. With a common one the second run, or the next point, would find the prompts of the
first in the engine's prefix cache and measure that.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import address, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal, unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog, Point, Workload
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import ENGINE_ADDRESS
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Mount, Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.replica import (
    engine_key_file,
    probe_address,
    snapshot_in,
)

RESULTS = "/results"
TOKENIZER = "/tokenizer"
_INTERFACES = {"chat": ("openai-chat", "/v1/chat/completions"), "completions": ("openai", "/v1/completions")}


class RunError(Refusal):
    """The benchmark cannot be run like this; the text says what was expected, what was found, and what to do."""


@dataclass(frozen=True)
class Client:
    """The program that measures. ``image`` is None where it is started on the host itself.

    ``tokenizer`` is the model's snapshot as the program sees it, ``results`` the folder it writes to, ``host`` the
    machine it runs on where that is not the one that serves.
    """

    program: str
    image: Optional[str]
    tokenizer: str
    results: str
    host: str = ""


def workload(known: Catalog, name: str, own: Mapping[str, Any], scale: float = 1.0) -> Workload:
    """The workload of that name, the user's own before the catalogue's, made smaller by ``scale``.

    Raises RunError.
    """
    try:
        mine = catalog.workloads(dict(own), "benchmark_workloads")
    except CatalogError as exc:
        raise RunError(str(exc)) from exc
    everything = {**known.workloads, **mine}
    if name not in everything:
        raise RunError(f"expected glm_workload to be one of {', '.join(everything)}, found {name!r}")
    if not 0 < scale <= 1:
        raise RunError(f"expected benchmark_scale above 0 and at most 1, found {scale:g}")
    return _scaled(everything[name], scale) if scale < 1 else everything[name]


def _scaled(workload: Workload, scale: float) -> Workload:
    def less(number: int) -> int:
        return max(1, math.ceil(number * scale))

    points = [
        Point(less(point.prompts), None if point.parallel is None else less(point.parallel))
        for point in workload.points
    ]
    unique = list(dict.fromkeys(points))
    note = f"Scaled down by benchmark_scale {scale:g}: a rehearsal of the workload, not comparable with any result."
    return replace(
        workload,
        input_tokens=less(workload.input_tokens),
        output_tokens=less(workload.output_tokens),
        points=unique,
        notes=[*workload.notes, note],
    )


def client(plan: Plan, folder: str, image: str, program: str, host: str = "", tokenizer: str = "") -> Client:
    """What measures this replica: a program of the user's, else the engine's own client, else the client image.

    One engine's client measures all: the sources did so, and figures of two clients are not comparable. ``host`` is
    another machine than the one that serves; ``tokenizer`` a folder there in the place of the weights' snapshot.

    Raises RunError.
    """
    known = tokenizer or snapshot(plan, plan["paths"]["hf_home"])
    kind, engine, own = plan["runtime"]["kind"], plan["engine"]["name"], has_client(plan)
    measuring, measures = catalog.load().measuring
    if program:
        return Client(program, None, known, folder, host)
    if kind == "venv" and host:
        raise RunError(
            f"expected a program that measures on {host}: bare metal has no image of the client",
            f"set benchmark_client_path to the {measures.program} program of an environment there",
        )
    if kind == "venv" and own:
        return Client(f"{plan['runtime']['path']}/{measures.path}", None, known, folder)
    if kind == "venv":
        raise RunError(
            f"expected a program that measures: {engine} without containers has none of {measuring.title}'s",
            f"set benchmark_client_path to the {measures.program} program of an environment on the host",
        )
    chosen = plan["image"]["reference"] if plan["image"] and own else image
    if not chosen:
        raise RunError(
            f"expected benchmark_client_image to name an image of {measuring.title} to measure {engine} with, "
            "found none"
        )
    inside = TOKENIZER if tokenizer else snapshot(plan, _weights_mount(plan)["target"])
    return Client(measures.program, chosen, inside, RESULTS, host)


def _weights_mount(plan: Plan) -> Mount:
    return next(mount for mount in plan["mounts"] if mount["source"] == plan["paths"]["hf_home"])


def endpoint_address(plan: Plan, own: str, host: str, reached_at: str) -> str:
    """Where the client reaches the endpoint of a plan: on the host that serves, or from ``host``.

    ``own`` is the user's word; ``reached_at`` is where Ansible reaches the serving host, taken for an endpoint that
    listens on all addresses.

    Raises RunError for an endpoint that another machine cannot reach.
    """
    listens = ipaddress.ip_address(plan["listen"]["address"])
    if own:
        return own
    if plan["tls"] and not (host and listens.is_loopback):
        # One that the certificate is for, and this host's own: a name may be a balancer's.
        return plan["tls"]["names"][0] if listens.is_unspecified else str(listens)
    if not host:
        return probe_address(plan["listen"]["address"])
    if listens.is_loopback:
        raise RunError(
            unmet(
                f"an endpoint that {host} can reach",
                f"one bound to {listens}",
                "deploy with glm_bind set to the private address, or leave benchmark_client_host empty",
            )
        )
    return reached_at if listens.is_unspecified else str(listens)


def engine_of(plan: Plan) -> dict[str, Any]:
    """Where the host that serves asks the engine itself, whose metrics are not for clients."""
    place = {"address": ENGINE_ADDRESS, "port": plan["listen"]["engine_port"]}
    return {**place, "key_file": engine_key_file(plan), "metrics": "/metrics"}


def monitor_of(plan: Plan, monitor_address: str, monitor_port: int, reached_at: str) -> Optional[dict[str, Any]]:
    """Where another host asks for the engine's metrics; None when the monitoring is on loopback.

    ``reached_at`` is the address of the endpoint, taken for a monitoring that listens on all addresses.
    """
    listens = ipaddress.ip_address(monitor_address)
    if listens.is_loopback:
        return None
    place = {"address": reached_at if listens.is_unspecified else monitor_address, "port": monitor_port}
    return {**place, "key_file": "", "metrics": f"/metrics/{int(plan['replica'])}"}


def container(plan: Plan, client: Client, served_by: str, tokenizer: str = "") -> Optional[dict[str, str]]:
    """What the client's container needs of its host; None where the client runs without one."""
    if client.image is None:
        return None
    # On a host of its own a client may measure several others, one after the other.
    owner = f"{re.sub('[^A-Za-z0-9_.-]', '-', served_by)}-" if client.host else ""
    mount: Mount = {"source": tokenizer, "target": TOKENIZER, "read_only": True} if tokenizer else _weights_mount(plan)
    return {
        "name": f"glm-benchmark-{owner}{int(plan['replica'])}",
        "image": client.image,
        "source": mount["source"],
        "target": mount["target"],
        "results": client.results,
    }


def snapshot(plan: Plan, hf_home: str) -> str:
    """The folder of the model's files: the client needs the tokenizer in it.

    Raises RunError.
    """
    found = snapshot_in(hf_home, plan)
    if found is None:
        raise RunError(unmet("the lock file to know the model's commit", "none", "deploy first"))
    return found


def runs(
    plan: Plan,
    workload: Workload,
    client: Client,
    reached_at: str,
    repeats: int,
    warmup: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The client's runs in order: one that warms the engine up, then every point ``repeats`` times.

    Each is ``{name, point, repeat, prompts, parallel, seed, result, argv}``; ``point`` is None for the warm-up.
    """
    url = address.url(reached_at, int(plan["listen"]["port"]), scheme=plan["listen"]["scheme"])
    planned: list[tuple[Optional[int], int, Point]] = []
    if warmup:
        users = min(warmup, max(point.users for point in workload.points))
        planned.append((None, 0, Point(users, users)))
    planned += [(number, repeat, point) for number, point in enumerate(workload.points) for repeat in range(repeats)]
    made = []
    for order, (number, repeat, point) in enumerate(planned):
        result = f"run-{order}.json"
        made.append(
            {
                "name": _name(number, repeat, point, repeats),
                "point": number,
                "repeat": repeat,
                "prompts": point.prompts,
                "parallel": point.parallel,
                "seed": seed + order,
                "result": result,
                "argv": _arguments(plan, workload, client, point, url, seed + order, result),
            }
        )
    return made


def _name(number: Optional[int], repeat: int, point: Point, repeats: int) -> str:
    if number is None:
        return f"warm-up, {point.prompts} prompts"
    together = "all at once" if point.parallel is None else f"{point.parallel} parallel"
    again = f", repeat {repeat + 1} of {repeats}" if repeats > 1 else ""
    return f"{point.prompts} prompts, {together}{again}"


def _arguments(
    plan: Plan,
    workload: Workload,
    client: Client,
    point: Point,
    url: str,
    seed: int,
    result: str,
) -> list[str]:
    backend, path = _INTERFACES[workload.interface]
    argv = ["bench", "serve", "--backend", backend, "--base-url", url, "--endpoint", path]
    argv += ["--model", client.tokenizer, "--served-model-name", plan["served_model_name"]]
    argv += ["--dataset-name", "random", "--random-input-len", str(workload.input_tokens)]
    argv += ["--random-output-len", str(workload.output_tokens), "--num-prompts", str(point.prompts)]
    if point.parallel is not None:
        argv += ["--max-concurrency", str(point.parallel)]
    if workload.request_rate is not None:
        argv += ["--request-rate", f"{workload.request_rate:g}"]
    argv += ["--ignore-eos", "--seed", str(seed), "--percentile-metrics", "ttft,tpot,itl,e2el"]
    argv += ["--metric-percentiles", "50,90,99", "--save-result", "--save-detailed"]
    return [*argv, "--result-dir", client.results, "--result-filename", result]


def has_client(plan: Plan) -> bool:
    """Whether the engine of the plan is the one whose client measures."""
    return catalog.load().measuring[0].name == plan["engine"]["name"]


def fingerprint(plan: Plan, workload: Workload, repeats: int, warmup: int) -> str:
    """Equal for calls that would measure the same, so that an interrupted one finds its job again."""
    served = {
        "model": plan["model"],
        "engine": plan["engine"],
        "command": plan["command"],
        "image": plan["image"],
        "listen": plan["listen"],
        "served_model_name": plan["served_model_name"],
    }
    text = json.dumps([served, asdict(workload), repeats, warmup], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def client_plan(known: Catalog, plan: Plan, own: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with the client's image in the place of the engine's, for the module that pulls images.

    The measuring engine's own image has the client. Else it is ``own``, or the catalogue's for the host's vendor: the
    default version's, or the newest there is.

    Raises RunError.
    """
    if plan["engine"]["name"] == known.measuring[0].name and not own:
        return dict(plan)
    if own:
        if set(own) != {"repository", "tag"}:
            raise RunError(f"expected benchmark_client_image to have repository and tag, found {sorted(own)}")
        chosen = dict(own)
    else:
        chosen = _default_image(known, plan)
    # It computes nothing, so that it need not know the model, nor fit the driver.
    image = {**chosen, "digest": None, "build": None, "min_transformers": None, "reference": None}
    disk = {**(plan.get("disk") or {}), "image_bytes": known.measuring[0].image_bytes}
    return {**plan, "image": image, "disk": disk}


def _default_image(known: Catalog, plan: Plan) -> dict[str, str]:
    (engine, _client), vendor = known.measuring, plan["accelerator"]["vendor"]
    newest_first = sorted(engine.versions, key=versions.order, reverse=True)
    for version in [engine.default_version, *newest_first]:
        for variant, image in engine.versions[version].images.items():
            if known.variants[variant].vendor == vendor:
                return {"repository": image.repository or engine.image, "tag": image.tag}
    raise RunError(
        unmet(f"the catalogue to have an image of {engine.title} for {vendor}", "none", "set benchmark_client_image")
    )
