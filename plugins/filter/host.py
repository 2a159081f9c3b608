# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Doors from the roles to what is known about hosts; each filter is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import apt_keys
from ansible_collections.glm.fleet.plugins.plugin_utils.host import checks, docker, driver, nvidia, rocm


def _door(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for the facts of a host, which may lack what a filter needs."""

    @wraps(function)
    def opened(facts: Any, *args: Any, **kwargs: Any) -> Any:
        name = f"glm.fleet.{function.__name__}"
        if not isinstance(facts, Mapping):
            raise AnsibleFilterError(f"{name}: expected the facts of glm.fleet.gpu_facts")
        try:
            return function(facts, *args, **kwargs)
        except KeyError as exc:
            raise AnsibleFilterError(f"{name}: the facts or the plans have no {exc}") from exc

    return opened


class FilterModule:
    """The filters about what a host has and lacks."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "busy_gpus": _door(driver.busy_gpus),
            "cdi_outputs": _door(checks.cdi_outputs),
            "described": finding.describe,
            "docker_work": docker.work,
            "host_problems": _door(checks.host_problems),
            "nvidia_problems": nvidia.unproven,
            "nvidia_work": nvidia.work,
            "rocm_problems": rocm.unproven,
            "rocm_work": rocm.work,
            "with_fingerprints": apt_keys.with_fingerprints,
        }
