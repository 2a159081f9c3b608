# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From GMI Cloud containers and bare-metal nodes to what an inventory needs of them. Pure logic, no ansible."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.spellings import first, known
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import Host, first_private

# Not inboundIP: nobody says which network that is on, and endpoints are published on the private address.
_PRIVATE = ("privateIP", "privateIp", "private_ip", "internalIP", "internalIp")
_PUBLIC = ("eipAddress", "publicIP", "publicIp", "public_ip")
_PRODUCT = re.compile(r"[a-z]+\.(?P<gpu>[a-z0-9]+)\.x(?P<count>\d+)", re.IGNORECASE)
_VENDOR_WORDS = re.compile(r"\b(nvidia|amd|instinct|tesla)\b", re.IGNORECASE)
_GRACE = re.compile(r"G[HB]\d")


class Machine(TypedDict):
    """One container or node. ``None``: the API does not (yet) say; it gives no price in a documented unit."""

    id: str
    kind: str
    name: Optional[str]
    status: Optional[str]
    reason: Optional[str]
    idc: Optional[str]
    country: Optional[str]
    product: Optional[str]
    created: Optional[str]
    inbound_ip: Optional[str]
    ip: Optional[str]
    private_ip: Optional[str]
    accelerator: Optional[str]
    accelerator_count: int
    architecture: str


def machines(
    containers: Iterable[Mapping[str, Any]],
    baremetals: Iterable[Mapping[str, Any]],
    elastic_ips: Iterable[Mapping[str, Any]],
    idcs: Iterable[Mapping[str, Any]],
    products: Iterable[Mapping[str, Any]] = (),
) -> list[Machine]:
    """Everything that runs, each joined with its elastic IP (by ``instanceID``), country and product."""
    addresses = {
        str(item["instanceID"]): first(item, ["ipAddress"])
        for item in elastic_ips
        if item.get("instanceID") and item.get("status") != "released"
    }
    countries = {str(item["idcId"]): text_of(item.get("country")) for item in idcs if item.get("idcId")}
    models = {str(item["name"]): text_of(item.get("gpuModel")) for item in products if item.get("name")}
    return [
        _machine(record, kind, addresses, countries, models)
        for kind, records in (("container", containers), ("baremetal", baremetals))
        for record in records
    ]


def _machine(
    record: Mapping[str, Any],
    kind: str,
    addresses: Mapping[str, Optional[str]],
    countries: Mapping[str, Optional[str]],
    models: Mapping[str, Optional[str]],
) -> Machine:
    facts = known(record)
    identity = str(record["id"])
    accelerator, count = accelerators(facts["product"], models.get(facts["product"] or ""))
    return Machine(
        id=identity,
        kind=kind,
        name=facts["name"],
        status=facts["status"],
        reason=facts["reason"],
        idc=facts["idc"],
        country=countries.get(facts["idc"] or ""),
        product=facts["product"],
        created=facts["created"],
        inbound_ip=facts["inbound_ip"],
        ip=addresses.get(identity) or first(record, _PUBLIC),
        private_ip=first_private(first(record, [spelling]) for spelling in _PRIVATE),
        accelerator=accelerator,
        accelerator_count=count,
        architecture="arm64" if _GRACE.match(accelerator or "") else "x86_64",
    )


def host_of(machine: Mapping[str, Any]) -> Host:
    """The machine in neutral words. This API has no tags, and no price in a documented unit."""
    return Host(
        id=machine["id"],
        name=machine["name"],
        provider="gmi",
        status=machine["status"],
        instance_type=machine["product"],
        accelerator=machine["accelerator"],
        accelerator_count=machine["accelerator_count"],
        architecture=machine["architecture"],
        public_address=machine["ip"],
        private_address=machine["private_ip"],
        region=machine["idc"],
        country=machine["country"],
        tags={},
        price_usd_per_hour=None,
    )


def accelerators(product: Optional[str], model: Optional[str]) -> tuple[Optional[str], int]:
    """``(name, count)`` from a product id such as ``container.h200.x8`` and, where listed, its ``gpuModel``.

    ``(None, 0)`` when the product does not say: nothing is guessed.
    """
    found = _PRODUCT.match(product or "")
    name = "".join(_VENDOR_WORDS.sub(" ", model).split()).upper() if model else None
    if found is None:
        return None, 0
    return name or found["gpu"].upper(), int(found["count"])
