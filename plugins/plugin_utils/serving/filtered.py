# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether everything of a replica is where systemd filters who may talk to it, by what was seen on its host. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import walls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

_LOOPBACK = ["127.0.0.0/8", "::1/128"]
_EVERYBODY = ["0.0.0.0/0", "::/0"]
_NEXT = "restart the replica (systemctl restart), whose guard sets the filter and says what stands in the way"


def judged(plan: Plan, seen: Mapping[str, Any]) -> Finding:
    """The finding ``filtered`` about a replica: ``seen`` is its entry in ``walls`` of the module exposure."""
    name = walls.slice_of(int(plan["replica"]))
    expected = f"every process of the replica in {name}, which lets in the replica's own hosts only"
    if "processes" not in seen:
        return finding.not_proven("verify", "filtered", expected, str(seen.get("problem") or "nobody looked"))
    wanted = ["unit", *(["container"] if plan["runtime"]["kind"] == "container" else [])]
    processes = seen["processes"]
    missing = [what for what in wanted if what not in processes]
    if missing:
        found = f"no process of the {' and of the '.join(missing)} was seen"
        return finding.not_proven("verify", "filtered", expected, found)
    outside = [what for what in wanted if not processes[what].startswith(f"{seen['group']}/")]
    problems = [] if seen["group"] else ["systemd has no control group of it"]
    problems += [f"the {what} is in {processes[what]}, outside of it" for what in outside]
    if set(walls.networks(seen["denied"])) != set(walls.networks(_EVERYBODY)):
        problems.append(f"it refuses {' '.join(seen['denied']) or 'nobody'}")
    own = walls.networks([*_LOOPBACK, *seen["own"], *plan["node"]["addresses"]])
    more = [str(one) for one in walls.networks(seen["allowed"]) if one not in own]
    if more:
        problems.append(f"it lets in {', '.join(more)} as well")
    if problems:
        return finding.failed("verify", expected, "; ".join(problems), _NEXT, check="filtered")
    others = [peer for peer in plan["node"]["addresses"] if peer not in seen["own"]]
    found = f"{' and '.join(wanted)} in {seen['group']}; let in: the host itself{''.join(f', {one}' for one in others)}"
    return finding.judged("verify", "filtered", True, expected, found, seconds=0.0)
