# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an endpoint listens."""

from __future__ import annotations

import ipaddress
from typing import Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Listen

CONTAINER_PORT = 8000


def listen_address(bind: str, private_address: Optional[str]) -> str:
    """The address an endpoint is published on: ``private``, ``loopback``, ``public`` or an IP address as it is.

    Raises PlanError when there is no private address, or the text is no address.
    """
    if bind == "private":
        if private_address:
            return listen_address(private_address, None)
        raise PlanError(
            "the endpoint is to be bound to the private address, but the inventory has none",
            "set glm_bind to loopback, public or an address of the host",
        )
    known = {"loopback": "127.0.0.1", "public": "0.0.0.0"}
    if bind in known:
        return known[bind]
    try:
        return str(ipaddress.ip_address(bind))
    except ValueError:
        raise PlanError(
            f"{bind!r} is neither private, loopback, public nor an IP address", "set glm_bind to one of these"
        ) from None


def on_host_network(intent: Intent) -> bool:
    """Engines on several hosts open ports to each other that cannot be named beforehand."""
    return intent.runtime == "venv" or intent.nodes > 1


def listen(intent: Intent) -> Listen:
    """The ``listen`` of a plan."""
    port = intent.listen_port + intent.replica
    return {
        "address": intent.listen_address,
        "port": port,
        "container_port": port if on_host_network(intent) else CONTAINER_PORT,
    }
