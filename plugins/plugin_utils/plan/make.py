# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intent + accelerators + catalogue -> serving plan, or a refusal that says why and what would work.

Pure: no network, no host, no clock; the same input gives the same plan. So a plan is never changed: when the lock file
has learned more, it is made again. Its shape is in schema.py, knowledge in ``catalog/``; the modules beside this one
know how facts combine, and here they become one plan.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import records
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import (
    alternatives,
    arguments,
    budget,
    command,
    drain,
    extras,
    files,
    flags,
    host_memory,
    image,
    loading,
    lockfile,
    origins,
    own,
    promises,
    repositories,
    routes,
    schema,
    starts,
    tls,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import choice as plan_choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.command import listen_address
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import SCHEMA, Plan

__all__ = ["SCHEMA", "Intent", "Plan", "PlanError", "listen_address", "make", "make_all"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


def make_all(intent: Intent, known: records.Catalog, lock: Optional[lockfile.LockData] = None) -> list[Plan]:
    """A plan for each replica on the host, in order. Raises as ``make``."""
    return [
        make(dataclasses.replace(intent, replica=replica), known, lock) for replica in range(max(1, intent.replicas))
    ]


def make(intent: Intent, known: records.Catalog, lock: Optional[lockfile.LockData] = None, advise: bool = True) -> Plan:
    """The serving plan of one replica. ``lock`` is what lockfile.read returned.

    Raises PlanError for an intent that cannot work and CatalogError for a broken catalogue. Without ``advise`` a
    refusal does not look for what would work instead, which takes a tenth of a second.
    """
    resolved: lockfile.LockData = {**lockfile.empty(), **lock} if lock else lockfile.empty()
    beside = repositories.extra(intent, resolved)
    intent = repositories.with_folders(intent, beside)
    choice = Choice(intent, known)
    choice.beside = beside
    if advise:
        choice.alternatives = lambda: alternatives.alternatives(choice)
        choice.plans_with = lambda change: alternatives.plans_with(choice, change)
    plan_choice.check(choice)
    repositories.require_others(choice, beside)
    table = flags.load(choice.engine.name, choice.version, known.root / "engines")
    served = arguments.serve(choice, table)
    words = flags.render(table, served.arguments, served.shown, choice.engine.mappings)
    revision = _revision(choice, resolved)
    name = intent.served_model_name or choice.checkpoint.served_name
    passed, mounted = command.passed(choice), files.mounts(choice)
    end = drain.drain(choice, table, plan_fit.context_of(choice, table, served.arguments))
    return {
        "schema": SCHEMA,
        "replica": intent.replica,
        "replicas": intent.replicas,
        "runtime": _runtime(choice),
        "node": _node(choice),
        "recipe": origins.recipe(choice, table, served),
        "model": _model(choice, revision),
        "extra_repositories": beside,
        "accelerator": _accelerator(choice),
        "engine": {"name": choice.engine.name, "version": choice.version},
        "profile": intent.profile,
        "image": image.image(choice, resolved) if intent.runtime == "container" else None,
        "served_model_name": name,
        "listen": command.listen(intent),
        "door": routes.door(known, choice.engine.name, choice.version),
        "tls": tls.tls(intent),
        "command": command.command(choice, revision, name, [*end.words, *words]),
        "env": extras.environment(choice, command.environment(choice, served.env)),
        "secret": command.secret(choice),
        "devices": passed.cdi,
        "device_nodes": passed.nodes,
        "device_groups": passed.groups,
        "confinement": command.confinement(choice),
        "mounts": [*mounted, *extras.mounts(choice, mounted)],
        "paths": files.paths(choice),
        "memory": plan_fit.record(
            choice, served.size, starts.configuration(choice, table, served.arguments, served.divided)
        ),
        "promises": promises.promises(choice, table, served),
        "parallel": {
            "tensor": served.divided.tensor,
            "pipeline": served.divided.pipeline,
            "data": served.divided.data,
            "expert": served.divided.expert,
        },
        "timeouts": budget.timeouts(choice, end),
        "stop": {"success_exit_status": list(choice.engine.stop.success_exit_status), "drains": end.drains},
        "contract": _contract(choice, table, served),
        "disk": budget.disk(choice),
        "loading": loading.record(choice, served.loader),
        "host_memory": host_memory.host_memory(choice, table, served),
        "prices": budget.prices(choice),
        "known_issues": [
            {"id": issue.id, "status": issue.status, "text": issue.text, "link": issue.link} for issue in served.met
        ],
        "sources": [
            *choice.model.sources,
            *own.sources(served.recipe),
            *(str(source) for source in served.composed.sources),
        ],
        "notes": [
            *arguments.notes_of(choice, table, served),
            *origins.notes(choice, served),
            *drain.notes(choice, end),
            *tls.notes(intent),
            *command.secret_notes(choice),
            *extras.notes(choice),
            *repositories.notes(served.arguments, beside),
        ],
    }


def _revision(choice: Choice, lock: lockfile.LockData) -> Optional[str]:
    asked = choice.intent.revision
    if _COMMIT.fullmatch(asked):
        return asked
    entry = lock["models"].get(lockfile.model_key(choice.repository, asked))
    return entry["commit"] if entry else None


def _model(choice: Choice, revision: Optional[str]) -> schema.ModelServed:
    return {
        "name": choice.model.name,
        "precision": choice.intent.precision,
        "repository": choice.repository,
        "revision": revision,
        "requested_revision": choice.intent.revision,
        "architecture": choice.model.architecture,
        "model_type": choice.model.model_type,
        "weights_bytes": budget.weights_bytes(choice),
        "license": choice.model.license,
        "context_length": choice.model.context_length,
    }


def _accelerator(choice: Choice) -> schema.AcceleratorUsed:
    return {
        "name": choice.accelerator.name,
        "count": choice.intent.accelerator_count,
        "vendor": choice.accelerator.vendor,
        "architecture": choice.accelerator.architecture,
        "memory_gib": round(choice.accelerator.memory_gib, 2),
        "indices": choice.indices,
    }


def _runtime(choice: Choice) -> schema.Runtime:
    intent, package = choice.intent, choice.engine.package
    if intent.runtime == "container":
        return {
            "kind": "container",
            "network": "host" if command.on_host_network(intent) else "bridge",
            "path": None,
            "package": None,
            "python": None,
            "index_urls": [],
            "overrides": [],
        }
    return {
        "kind": "venv",
        "network": "host",
        "path": files.venv_path(choice),
        "package": f"{package.name}=={choice.version}",
        "python": package.python,
        "index_urls": package.index_urls.get(choice.accelerator.vendor, []),
        "overrides": image.newer_packages(choice),
    }


def _node(choice: Choice) -> schema.Node:
    intent = choice.intent
    return {
        "count": intent.nodes,
        "rank": intent.node_rank,
        "head_address": intent.head_address,
        "addresses": list(intent.node_addresses),
        "interface": intent.interface,
        "port": choice.engine.multi_node.port,
    }


def _contract(choice: Choice, table: flags.Table, served: arguments.Served) -> schema.Contract:
    """What the endpoint promises its users."""
    thinking, options = choice.model.thinking, choice.engine.options
    return {
        "reasoning_field": choice.engine.contract.reasoning_field,
        "tool_parser": plan_fit.argument(table, served.arguments, options.tool_parser),
        "reasoning_parser": plan_fit.argument(table, served.arguments, options.reasoning_parser),
        "thinking_default": thinking.default,
        "thinking_on": thinking.on,
        "thinking_off": thinking.off,
        "thinking_preserved": thinking.preserved,
        "reasoning_efforts": list(thinking.efforts),
        "sampling": {name: _sampling(sampling) for name, sampling in choice.model.sampling.items()},
        "health_path": choice.engine.contract.health_path,
        "alive_path": choice.engine.contract.alive_path,
        "context_length": plan_fit.context_of(choice, table, served.arguments),
    }


def _sampling(known: records.Sampling) -> schema.Sampling:
    found: schema.Sampling = {"temperature": known.temperature, "thinking": known.thinking}
    if known.top_p is not None:
        found["top_p"] = known.top_p
    if known.max_new_tokens is not None:
        found["max_new_tokens"] = known.max_new_tokens
    if known.context_length is not None:
        found["context_length"] = known.context_length
    return found
