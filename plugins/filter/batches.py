# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts serve at the same time when several of them form one replica; each filter has a YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

from ansible.errors import AnsibleFilterError

from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet

# Where hosts are counted when they are ready to serve. An empty list of hosts would mean all of them to ansible.
PREPARED = ["glm_prepared"]
NO_HOST = ["glm_prepared:!glm_prepared"]


def batches(serial: Union[int, str, Sequence[Any]], hosts: int, nodes: int) -> list[Any]:
    """Each batch as a whole number of groups of ``nodes`` hosts, at least one; percentages are of ``hosts``."""
    sizes = list(serial) if isinstance(serial, Sequence) and not isinstance(serial, str) else [serial]
    if int(nodes) < 2:
        return sizes
    return [max(1, _hosts(size, int(hosts)) // int(nodes)) * int(nodes) for size in sizes]


def _hosts(size: Any, hosts: int) -> int:
    text = str(size).strip()
    try:
        wanted = int(float(text[:-1]) / 100 * hosts) if text.endswith("%") else int(text)
    except ValueError as exc:
        raise AnsibleFilterError(f"glm.fleet.batches: glm_serial has {text!r}, no number or percentage") from exc
    # 0 means all of them, as it does to ansible.
    return wanted or (0 if text.endswith("%") else hosts)


def whole_groups(
    fleet: Sequence[str], present: Sequence[str], nodes: int, canary: str = "", out: Sequence[str] = ()
) -> list[str]:
    """The hosts of ``fleet`` in its order, less those of groups that lack one; all of PREPARED if each serves alone.

    The group of ``canary`` comes first, then those of hosts that take no requests (``out``), so that no other is out
    beside them. Raises AnsibleFilterError where the canary is not present.
    """
    size, there = int(nodes), set(present)
    groups = [list(fleet[start : start + size]) for start in range(0, len(fleet), max(size, 1))]
    whole = [group for group in groups if there.issuperset(group)]
    first = [group for group in whole if canary in group]
    if canary and there and not first:
        found = ", ".join(host for group in whole for host in group) or "none"
        text = unmet(
            f"{canary} to be a host that is ready to serve, with all others of its replica",
            found,
            "choose one of these, or look above why that host is not",
        )
        raise AnsibleFilterError(f"glm_canary: {text}")
    first += [group for group in whole if group not in first and not set(out).isdisjoint(group)]
    if size < 2:
        return [*(host for group in first for host in group), *PREPARED]
    return [host for group in [*first, *(group for group in whole if group not in first)] for host in group] or NO_HOST


class FilterModule:
    """The filters that deploy in batches."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"batches": batches, "whole_groups": whole_groups}
