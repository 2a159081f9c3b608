"""What the simulated GMI Cloud holds, and the views of it that the API would give.

Built from the vendor's published pages (Cluster Engine API 2.4.0). Bare-metal nodes have no published schema: here they
look like containers, under field names that differ on purpose, so that a client that leans on one is found out.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

INFERENCE_SCOPE, CLUSTER_SCOPE = "ie_model", "ce_resource"

IDCS: list[Json] = [
    {"idcId": "us-denver-1", "name": "Denver", "country": "US", "countrySubdivision": "CO", "status": "available"},
    {"idcId": "sim-thailand-1", "name": "Bangkok", "country": "TH", "countrySubdivision": None, "status": "full"},
]


def container_product(gpu: str, count: int, price: float | None = None) -> Json:
    """A product such as ``container.h200.x8``."""
    return {
        "name": f"container.{gpu.lower()}.x{count}",
        "idc": "us-denver-1",
        "type": "container",
        "price": price,
        "valid": True,
        "spec": {"basic": [], "extra": []},
        "gpuModel": f"NVIDIA {gpu.upper()}",
        "productLine": "container",
    }


@dataclass
class Key:
    """An API key: what it may do and whose it is."""

    scope: str
    organization: str


@dataclass
class World:
    """All resources, and the keys that see them. ``enabled`` collections answer; others are 404 for the account."""

    keys: dict[str, Key] = field(default_factory=dict)
    containers: list[Json] = field(default_factory=list)
    baremetals: list[Json] = field(default_factory=list)
    elastic_ips: list[Json] = field(default_factory=list)
    templates: list[Json] = field(default_factory=list)
    products: dict[str, list[Json]] = field(
        default_factory=lambda: {
            "containers": [container_product("h200", count, 2.60 * count) for count in (1, 8)],
            "baremetals": [],
            "elastic-ips": [{"name": "eip.bgp", "idc": "us-denver-1", "type": "eip", "price": 1, "valid": True}],
        }
    )
    enabled: set[str] = field(default_factory=lambda: {"containers", "baremetals", "elastic-ips", "templates"})
    # After so many lists of machines one that is made or starts runs, one that stops is off, one that ends is gone.
    looks: int = 1
    looks_left: dict[str, int] = field(default_factory=dict)
    # By the id of a container.
    logs: dict[str, str] = field(default_factory=dict)
    # By the id of a node: until when it cannot be ended.
    prepaid: dict[str, str] = field(default_factory=dict)
    # What the request for an action of a node names it by.
    action_key: str = "action"
    clock: Callable[[], float] = time.time
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add_key(self, key: str, scope: str = CLUSTER_SCOPE, organization: str = "org-1") -> None:
        """Let a key in."""
        self.keys[key] = Key(scope, organization)

    def add_container(self, name: str, product: str = "container.h200.x8", **changes: Any) -> Json:
        """A running container; ``changes`` replace fields, ``None`` removes one."""
        return self._keep(self.containers, self.container_record(name, product), changes)

    def pass_time(self) -> None:
        """A list of machines is about to be read: what changes its state comes nearer to it."""
        for record in [*self.containers, *self.baremetals]:
            left = self.looks_left.get(record["id"])
            if left:
                self.looks_left[record["id"]] = left - 1
            elif left == 0:
                del self.looks_left[record["id"]]
                self._arrive(record)

    def _arrive(self, record: Json) -> None:
        arrived = {"creating": "running", "starting": "active", "stopping": "stopped"}.get(record["status"])
        if arrived:
            record["status"] = arrived
        elif record["status"] in ("terminating", "deprovisioning"):
            (self.containers if record in self.containers else self.baremetals).remove(record)
            for address in self.elastic_ips:
                if address["instanceID"] == record["id"]:
                    address.update(status="disassociated", instanceID=None, instanceType=None)

    def container_record(self, name: str, product: str, **changes: Any) -> Json:
        """A running container that is not in the world yet."""
        return {
            "id": str(uuid.uuid4()),
            "orgId": "org-1",
            "name": name,
            "idc": "us-denver-1",
            "product": product,
            "templateId": str(uuid.uuid4()),
            "status": "running",
            "reason": "",
            "createdAt": "2026-11-01T08:00:00Z",
            "modifiedAt": "2026-11-01T08:05:00Z",
            "publicIP": {"ipAddress": "", "status": "none"},
            "inboundIP": {"ipAddress": "10.20.0.5", "status": "ready"},
            "outboundIP": {"ipAddress": "198.51.100.9", "status": "ready"},
            "storages": [],
            "envs": [{"name": "HF_TOKEN", "value": "hf_container_secret"}],
            "ports": [{"containerPort": 22, "port": 22, "protocol": "tcp"}],
            "args": ["--token", "argument_secret"],
            "command": "",
            "sshKeyIdList": [],
            **changes,
        }

    def add_baremetal(self, name: str, **changes: Any) -> Json:
        """A bare-metal node, with the fewest fields that prose mentions."""
        record: Json = {
            "id": str(uuid.uuid4()),
            "orgId": "org-1",
            "name": name,
            "idcId": "us-denver-1",
            "productName": "baremetal.b200.x8",
            "status": "active",
            "privateIp": "10.30.0.7",
            "userData": "#cloud-config\npassword: node_secret\n",
        }
        return self._keep(self.baremetals, record, changes)

    def add_elastic_ip(self, address: str, instance: Json | None = None, kind: str = "container") -> Json:
        """An elastic IP, bound to ``instance`` if one is given."""
        return self._keep(self.elastic_ips, self.address_record(address, instance, kind), {})

    def address_record(self, address: str, instance: Json | None, kind: str = "container") -> Json:
        """An elastic IP that is not in the world yet."""
        return {
            "id": str(uuid.uuid4()),
            "orgId": "org-1",
            "status": "associated" if instance else "disassociated",
            "internetConnectionType": "BGP",
            "maxBandwidth": "100 Gbps",
            "name": f"eip-{address}",
            "idc": "us-denver-1",
            "ipAddress": address,
            "product": "eip.bgp",
            "instanceID": instance["id"] if instance else None,
            "instanceType": kind if instance else None,
        }

    def _keep(self, where: list[Json], record: Json, changes: Json) -> Json:
        record.update(changes)
        whole = {key: value for key, value in record.items() if value is not None or key == "instanceID"}
        with self.lock:
            where.append(whole)
        return whole
