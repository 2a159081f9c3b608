# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jinja filters for the role ``benchmark``: a thin layer over plugin_utils/benchmark/runs.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan


def benchmark_client(plan: Plan, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The plan with the image of the client that measures in the place of the engine's."""
    try:
        return benchmark_runs.client_plan(catalog.load(), plan, own or {})
    except (benchmark_runs.RunError, CatalogError) as exc:
        raise AnsibleFilterError(str(exc)) from exc


def benchmark_snapshot(plan: Plan) -> str:
    """Where the weights, and with them the tokenizer, lie on the host that serves."""
    try:
        return benchmark_runs.snapshot(plan, plan["paths"]["hf_home"])
    except benchmark_runs.RunError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def benchmark_has_client(plan: Plan) -> bool:
    """Whether the plan's engine has the client that measures."""
    try:
        return benchmark_runs.has_client(plan)
    except CatalogError as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "benchmark_client": benchmark_client,
            "benchmark_has_client": benchmark_has_client,
            "benchmark_snapshot": benchmark_snapshot,
        }
