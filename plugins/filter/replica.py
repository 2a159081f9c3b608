# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the replicas of a host: units and files, the door in front of them, the client that measures.

Each is documented in the YAML file of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import (
    change,
    door,
    expiry,
    gateway,
    quoting,
    replica,
    shipped,
)


def benchmark_client(plan: Plan, own: Mapping[str, Any] | None = None, folders: Sequence[str] = ()) -> dict[str, Any]:
    """The plan with the image of the client that measures in the place of the engine's."""
    return benchmark_runs.client_plan(catalog.load(folders=folders), plan, own or {})


def benchmark_snapshot(plan: Plan) -> str:
    """Where the weights, and with them the tokenizer, lie on the host that serves."""
    return benchmark_runs.snapshot(plan, plan["paths"]["hf_home"])


def benchmark_has_client(plan: Plan) -> bool:
    """Whether the plan's engine has the client that measures."""
    return benchmark_runs.has_client(plan)


def _failing(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def opened(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except QuotingError as exc:
            raise AnsibleFilterError(f"glm.fleet.{function.__name__}: {exc}") from exc

    return opened


class FilterModule:
    """The filters, which fail as filters do."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        functions = (
            change.release_changes,
            door.door,
            expiry.expiry_orders,
            gateway.default_gateways,
            gateway.gateway,
            gateway.gateway_doors,
            gateway.gateway_peers,
            quoting.systemd_exec,
            replica.env_file,
            replica.replica,
            replica.secret_file,
            replica.unlocked,
            shipped.shipped_program,
            benchmark_client,
            benchmark_snapshot,
            benchmark_has_client,
        )
        return {function.__name__: _failing(function) for function in functions}
