# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption of the endpoint: whose certificate, and for which names. Pure."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Literal, Optional

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Acme, Plan, Tls

_ORIGINS: Mapping[str, Literal["fleet", "own", "acme"]] = {"fleet": "fleet", "own": "own", "acme": "acme"}
# Where an authority asks whether a name is the host's (RFC 8555, http-01). It cannot be another port.
CHALLENGE_PORT = 80
# Where the door passes it on, on loopback. Who answers there can prove the name: below 1024, so that only root can.
ANSWER_PORT = 981
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})+", re.IGNORECASE)


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
                "set glm_tls to fleet, own or acme, or glm_bind to private",
            )
        return chosen, []
    if chosen == "acme":
        # Names of DNS have no case, and an authority issues them in small letters.
        return chosen, list(dict.fromkeys(name.lower() for name in names))
    own = public if everywhere else listens
    known = list(dict.fromkeys([*names, *([own] if own else [])]))
    if not known:
        raise PlanError(
            "the endpoint is public, but no name or address of the host is known that a certificate could be for",
            "set glm_tls_names to what clients call the host",
        )
    return chosen, known


def require_orderable(intent: Intent) -> None:
    """Refuse a certificate that no authority could issue to the host. Raises PlanError."""
    if intent.tls != "acme":
        return
    require_issuable(intent.listen_address, intent.tls_names, intent.acme_directory, intent.acme_agree)
    taken = _of_a_replica(intent)
    if taken:
        raise PlanError(f"glm_tls is acme, but {taken[0][0]}, which a replica has", f"set another {taken[0][1]}")


def require_issuable(listens: str, names: Sequence[str], directory: str, agreed: bool) -> None:
    """Refuse an order that no authority could fill, of what listens on the address ``listens``. Raises PlanError."""
    strange = [name for name in names if address.is_address(name) or not _NAME.fullmatch(name)]
    problem, next_step = "", "set glm_tls_names to the DNS names of this host, in its host_vars, or glm_tls to fleet"
    if not names:
        problem = "the host has no name that a certificate could be ordered for"
    elif strange:
        kind = "an address" if any(map(address.is_address, strange)) else "not the whole DNS name of one host"
        problem = f"a certificate is ordered for names, and {', '.join(map(repr, strange))} is {kind}"
    elif ipaddress.ip_address(listens).is_loopback:
        problem, next_step = "nobody reaches the host on loopback", "set glm_bind to public, or glm_tls to fleet"
    elif not address.is_wildcard(listens) and _is_lets_encrypt(directory):
        problem = f"Let's Encrypt cannot ask a host at {listens}, which is private"
        next_step = "set glm_bind to public, glm_acme_directory to an authority of your own, or glm_tls to fleet"
    elif urllib.parse.urlsplit(directory).scheme != "https":
        problem, next_step = f"{directory!r} is no https URL", "set glm_acme_directory to one"
    elif not agreed:
        problem = f"nobody has agreed to the terms of service of {directory}"
        next_step = "read them, then set glm_acme_agree to true"
    if problem:
        raise PlanError(f"glm_tls is acme, but {problem}", next_step)


def _of_a_replica(intent: Intent) -> list[tuple[str, str]]:
    """What needs a port that a replica has, and the variable that moves the replica."""
    needed = {
        CHALLENGE_PORT: f"the authority asks at port {CHALLENGE_PORT}",
        ANSWER_PORT: f"certbot answers at port {ANSWER_PORT} of loopback",
    }
    ranges = {"glm_port": intent.listen_port, "glm_engine_port": intent.engine_port}
    return [
        (what, variable)
        for port, what in needed.items()
        for variable, first in ranges.items()
        if first <= port < first + intent.replicas
    ]


def _is_lets_encrypt(directory: str) -> bool:
    host = urllib.parse.urlsplit(directory).hostname or ""
    return host == "letsencrypt.org" or host.endswith(".letsencrypt.org")


def notes(intent: Intent) -> list[str]:
    """What a reader of the plan should know about an ordered certificate."""
    if intent.tls != "acme":
        return []
    authority = urllib.parse.urlsplit(intent.acme_directory).hostname
    return [
        f"glm_tls is acme: {authority} asks at port {CHALLENGE_PORT} of {', '.join(intent.tls_names)}, at the first "
        "deploy and at each renewal. Let a firewall admit it there (a public authority asks from anywhere); on that "
        "port the door answers these questions and nothing else."
    ]


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
    acme: Optional[Acme] = None
    if origin == "acme":
        acme = asked_of(intent.listen_address, intent.public_address, intent.acme_directory, intent.acme_email)
    return Tls(origin=origin, names=list(intent.tls_names), acme=acme)


def asked_of(listens: str, public: Optional[str], directory: str, email: str) -> Acme:
    """From whom a certificate is ordered, and where its names should lead."""
    known = public if address.is_wildcard(listens) else listens
    return Acme(directory=directory, email=email, address=known or "")
