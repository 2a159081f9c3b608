# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Doors from the roles to ``plugin_utils/host/checks.py``; each filter is documented in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.host import checks as host_checks
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan


def host_problems(facts: Any, plans: Sequence[Plan], host: str, parts: Sequence[str]) -> str:
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("glm.fleet.host_problems: expected the facts of glm.fleet.gpu_facts")
    try:
        return host_checks.host_problems(facts, plans, host, parts)
    except KeyError as exc:
        raise AnsibleFilterError(f"glm.fleet.host_problems: the facts or the plans have no {exc}") from exc


def cdi_outputs(facts: Any, plans: Sequence[Plan]) -> list[str]:
    if not isinstance(facts, Mapping):
        raise AnsibleFilterError("glm.fleet.cdi_outputs: expected the facts of glm.fleet.gpu_facts")
    try:
        return host_checks.cdi_outputs(facts, plans)
    except KeyError as exc:
        raise AnsibleFilterError(f"glm.fleet.cdi_outputs: the facts or the plans have no {exc}") from exc


def described(findings: Sequence[Finding], host: str) -> str:
    return finding.describe(findings, host)


class FilterModule:
    """The filters that compare a host with its plans."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cdi_outputs": cdi_outputs, "described": described, "host_problems": host_problems}
