# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption of the endpoint: whose certificate, and for which names. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Literal, Optional

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan, Tls

_ORIGINS: Mapping[str, Literal["fleet", "own"]] = {"fleet": "fleet", "own": "own"}


def asked(listens: str, public: Optional[str], origin: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """Whose certificate and for which names, for an endpoint on the address ``listens``.

    ``origin`` and ``names`` are glm_tls and glm_tls_names; ``public`` is the host's address in the internet, if known.
    Raises PlanError for an endpoint that would be published unencrypted, or whose name nobody knows.
    """
    everywhere = address.is_wildcard(listens)
    chosen = origin
    if origin == "auto":
        chosen = "none" if ipaddress.ip_address(listens).is_loopback else "fleet"
    if chosen == "none":
        if everywhere:
            raise PlanError(
                "the endpoint is public, and keys and prompts would pass unencrypted",
                "set glm_tls to fleet or own, or glm_bind to private",
            )
        return chosen, []
    own = public if everywhere else listens
    known = list(dict.fromkeys([*names, *([own] if own else [])]))
    if not known:
        raise PlanError(
            "the endpoint is public, but no name or address of the host is known that a certificate could be for",
            "set glm_tls_names to what clients call the host",
        )
    return chosen, known


def url(plan: Plan, path: str = "/v1") -> str:
    """Where clients reach the plan's endpoint: by the name that its certificate is for, where it has one."""
    listen, encrypted = plan["listen"], plan["tls"]
    host = encrypted["names"][0] if encrypted else listen["address"]
    return address.url(host, listen["port"], path, listen["scheme"])


def tls(intent: Intent) -> Optional[Tls]:
    """The ``tls`` of a plan."""
    origin = _ORIGINS.get(intent.tls)
    if origin is None:
        return None
    return Tls(origin=origin, names=list(intent.tls_names))
