# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From Lambda Cloud instances to inventory hosts: name, address and describe them. Pure logic, no ansible."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud.api import price_usd_per_hour, tags_of
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import (
    Host,
    first_private,
    is_address,
    mapping,
    number,
)

# What an inventory needs of an instance. Everything else, above all the live credentials jupyter_token and jupyter_url,
# is dropped as soon as an answer arrives, so that it cannot reach host variables or a cache file.
KEPT_FIELDS = frozenset(
    {
        "id", "name", "ip", "private_ip", "hostname", "status", "region", "instance_type", "tags", "actions",
        "ssh_key_names", "file_system_names",
    }
)  # fmt: skip

_GPU_DESCRIPTION = re.compile(r"(?P<name>.*?)\s*\((?P<memory>\d+)\s*G(?:i)?B", re.IGNORECASE)
_TYPE_NAME = re.compile(r"gpu_(?P<count>\d+)x_(?P<name>[a-z0-9]+)")
# Lambda names no country, and its API's descriptions are prose. Only what the region's name itself says counts.
_COUNTRIES = {"us-": "US", "australia-": "AU"}
_VENDOR_WORDS = re.compile(r"\b(nvidia|tesla|quadro|geforce)\b", re.IGNORECASE)


def kept(instance: Mapping[str, Any]) -> dict[str, Any]:
    """The instance without what an inventory does not need."""
    return {key: instance[key] for key in KEPT_FIELDS if key in instance}


def with_clusters(
    instances: Iterable[Mapping[str, Any]], clusters: Mapping[str, Iterable[Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """The instances of an account and those of its clusters, each once, with what an inventory needs of them.

    Members of a cluster get ``cluster_id`` and ``cluster_role``: ``head`` without GPUs and with a public address, else
    ``compute``. Compute nodes take no connection from outside, so those with a private address get as ``jump`` the
    ``id`` and ``address`` of a head: the same one for all of a cluster as long as it lives.
    """
    merged = {str(instance["id"]): kept(instance) for instance in instances}
    for cluster, listed in clusters.items():
        members = [{**kept(member), "cluster_id": cluster} for member in listed]
        for member in members:
            head = is_address(member.get("ip")) and hardware_of(member.get("instance_type")).total == 0
            member["cluster_role"] = "head" if head else "compute"
        heads = [member for member in members if member["cluster_role"] == "head"]
        # One that serves, if any; by id, so that all runs take the same.
        heads.sort(key=lambda member: (member.get("status") != "active", str(member["id"])))
        for member in members:
            if heads and member["cluster_role"] == "compute" and first_private([member.get("private_ip")]):
                member["jump"] = {"id": str(heads[0]["id"]), "address": heads[0]["ip"]}
        merged.update((str(member["id"]), member) for member in members)
    return list(merged.values())


def spec(instance: Mapping[str, Any], name: str) -> Optional[float]:
    """A number among the specs of the instance's type, such as ``vcpus``."""
    return number(mapping(mapping(instance.get("instance_type")).get("specs")).get(name))


class Hardware(NamedTuple):
    """What an instance type is made of.

    ``total`` is how many accelerators there are. ``memory_gib`` is the memory of one as the vendor sells it
    (B200: 180), not what is usable.
    """

    accelerator: Optional[str]
    total: int
    memory_gib: Optional[int]
    architecture: str


def hardware_of(instance_type: object) -> Hardware:
    """Derive the accelerators from ``gpu_description`` ("B200 (180 GB SXM6)"), else from the type's name.

    The API names no architecture for an instance. Grace machines (GH200, GB200, GB300) are arm64; all others, unknown
    ones included, are taken for x86_64.
    """
    kind = mapping(instance_type)
    gpus = number(mapping(kind.get("specs")).get("gpus"))
    return _hardware(text_of(kind.get("name")) or "", text_of(kind.get("gpu_description")) or "", gpus)


# The thousands of instances of a fleet are of a few types.
@lru_cache
def _hardware(type_name: str, description: str, gpus: Optional[float]) -> Hardware:
    named = _TYPE_NAME.match(type_name)
    described = _GPU_DESCRIPTION.match(description)
    count = int(gpus) if gpus is not None else int(named["count"]) if named else 0
    if count == 0:
        return Hardware(None, 0, None, "x86_64")
    name = _accelerator_name(described["name"]) if described else None
    if not name and named:
        name = named["name"].upper()
    memory = int(described["memory"]) if described else None
    # The catalogue's A100 is the one with 80 GB; Lambda sells both under one name.
    if name == "A100" and memory == 40:
        name = "A100-40GB"
    arm = bool(name and re.match(r"G[HB]\d", name))
    return Hardware(name, count, memory, "arm64" if arm else "x86_64")


def _accelerator_name(description: str) -> str:
    """ "NVIDIA RTX A6000" -> "A6000", "Tesla V100" -> "V100", "RTX 6000" -> "RTX6000"."""
    name = "".join(_VENDOR_WORDS.sub(" ", description).split())
    return re.sub(r"^RTX(?=A\d)", "", name)


def country_of(region: Optional[str]) -> Optional[str]:
    """The country that the name of a region says, such as ``US``, or None."""
    return next((country for prefix, country in _COUNTRIES.items() if (region or "").startswith(prefix)), None)


def host_of(instance: Mapping[str, Any]) -> Host:
    """The instance in neutral words."""
    kind = mapping(instance.get("instance_type"))
    hardware = hardware_of(kind)
    region = text_of(mapping(instance.get("region")).get("name"))
    return Host(
        id=str(instance["id"]),
        name=text_of(instance.get("name")),
        provider="lambda",
        status=text_of(instance.get("status")),
        instance_type=text_of(kind.get("name")),
        accelerator=hardware.accelerator,
        accelerator_count=hardware.total,
        architecture=hardware.architecture,
        public_address=text_of(instance.get("ip")),
        private_address=first_private([instance.get("private_ip")]),
        region=region,
        country=country_of(region),
        tags=tags_of(instance),
        price_usd_per_hour=price_usd_per_hour(instance),
    )


def unavailable_actions(instance: Mapping[str, Any]) -> dict[str, str]:
    """The actions that the API would refuse now, each with its reason code ("" when it gives none)."""
    actions = mapping(instance.get("actions"))
    return {
        name: text_of(action.get("reason_code")) or ""
        for name, action in actions.items()
        if isinstance(action, dict) and action.get("available") is False
    }
