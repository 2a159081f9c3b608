# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows of its own time, as far as that follows from its plans; its program acts on it.

The program is ``module_utils/serving/expiry.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.door import gateway
from ansible_collections.glm.fleet.plugins.module_utils.serving import walls
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan


def expiry_orders(plans: Sequence[Plan], door: Mapping[str, Any]) -> dict[str, Any]:
    """Where a host's program reads counters and reaches the door, from its plans and ``door`` (see ``door.door``).

    The further hosts of a replica over several answer no requests of their own: they have no ``replicas``, and
    ``follows`` is the address of the first.
    """
    engine = plans[0]["engine"]
    rules = catalog.load().engines[engine["name"]].metric_rules(engine["version"])
    return {
        "door": door["unit"],
        "socket": door["files"]["master"],
        # Whether the host runs one it sees itself: a gateway may come and go without a deploy of its time.
        "gateway": {"unit": gateway.UNIT, "socket": gateway.SOCKET, "backends": list(gateway.PROXIES)},
        "follows": "" if door["replicas"] else plans[0]["node"]["head_address"] or "",
        "replicas": [
            {
                "name": one["name"],
                "unit": walls.unit_of(one["number"]),
                # Two backends for each engine, see templates/glm-door.cfg.j2.
                "backends": [one["name"], f"{one['name']}-other"],
                "metrics": f"http://{door['monitor']}/metrics/{one['number']}",
                "rules": [rule for rule in rules if rule["name"] == "finished"],
            }
            for one in door["replicas"]
        ],
    }
