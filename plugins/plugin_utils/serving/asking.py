# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``endpoint_check`` asks on the host: a plan's promises and the catalogue's questions, as its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs, replica


def options(plan: Plan | None, share: float) -> dict[str, Any]:
    """The module's options for a plan, or without one for an endpoint about which nothing is known.

    ``share`` of the promised context is the length of the long prompt.
    """
    asked: dict[str, Any] = {"questions": dataclasses.asdict(catalog.load().questions)}
    return asked if plan is None else {**asked, **_promised(plan, share)}


def _promised(plan: Plan, share: float) -> Mapping[str, Any]:
    contract = plan["contract"]
    promised = contract["context_length"]
    return {
        # Where the host itself reaches its endpoint.
        "address": replica.probe_address(plan["listen"]["address"]),
        "unit": replica.unit_of(plan),
        "secret_files": [replica.secret_path(plan)],
        "promised": logs.own_words(plan),
        "port": plan["listen"]["port"],
        "engine_port": plan["listen"]["engine_port"],
        "tls_name": plan["tls"]["names"][0] if plan["tls"] else None,
        "model": plan["served_model_name"],
        "reasoning_field": contract["reasoning_field"],
        "thinking_on": contract["thinking_on"],
        "thinking_off": contract["thinking_off"] or {},
        "thinking_preserved": contract["thinking_preserved"] or {},
        "sampling": contract["sampling"],
        "tool_call": bool(contract["tool_parser"]),
        "tool_parser": contract["tool_parser"] or "",
        "reasoning_parser": contract["reasoning_parser"] or "",
        "health_path": contract["health_path"],
        "prefix_cache": prefix_caching(plan),
        "ranks": plan["parallel"]["data"],
        "routes": plan["door"]["routes"],
        "known_routes": [
            {"path": route.path, "methods": list(route.methods)}
            for route in routes.load(plan["engine"]["name"], plan["engine"]["version"], catalog.load().root / "engines")
            # One that only an environment variable names is not there without it.
            if route.path.startswith("/")
        ],
        **({"context": promised, "needle_tokens": int(promised * share)} if promised else {}),
    }


def prefix_caching(plan: Plan) -> bool:
    """Whether the replica is served with a prefix cache, which every engine has unless it is switched off."""
    return not set(catalog.load().engines[plan["engine"]["name"]].no_prefix_cache) & set(plan["command"])


def every_metric_rule() -> list[dict[str, Any]]:
    """The metrics of every engine, whose names differ: what runs may be another engine than planned."""
    known = catalog.load().engines.values()
    return [rule for engine in known for rule in engine.metric_rules(engine.default_version)]


def metric_rules(plan: Plan) -> list[dict[str, Any]]:
    """What the metrics of the replica's engine are called, as module_utils/serving/metrics.py takes it."""
    engine = plan["engine"]
    return catalog.load().engines[engine["name"]].metric_rules(engine["version"])
