"""What changes the simulated GMI Cloud: containers, templates and elastic IPs by their published schema, and nodes.

Stricter than what is published: an unknown key is refused, as is the end of what ends already, so that a client that
sends or repeats too much is found out. What a request for an action of a node says is not published: here it is what
clients guess, unless a test sets another (``World.action_key``).
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Callable
from typing import Any

from simulator.gmi_cloud.world import IDCS, Json, World

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_. -]{0,253}[A-Za-z0-9])?")
MOST_PORTS = 5


class Nobody:
    """What no value is: the type of keys that are not known."""


class Refused(Exception):
    """The status and the message of the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def change(world: World, method: str, parts: list[str], body: Any, org: str) -> Any:
    """Do it, and return the body of the answer. Raises Refused."""
    changes: dict[tuple[str, ...], Callable[..., Any]] = {
        ("POST", "containers"): _create_container,
        ("POST", "templates"): _create_template,
        ("POST", "elastic-ips"): _allocate,
        ("DELETE", "containers", "*"): _delete_container,
        ("POST", "baremetals", "*", "action"): _act,
        ("DELETE", "baremetals", "*"): _delete_node,
        ("DELETE", "elastic-ips", "*"): _release,
        ("POST", "elastic-ips", "*", "associate"): _associate,
    }
    found = changes.get((method, *(part if place != 1 else "*" for place, part in enumerate(parts))))
    if found is None:
        raise Refused(405, "the simulator does not do that")
    with world.lock:
        return found(world, body, org, *parts[1:2])


def _create_container(world: World, body: Any, org: str) -> list[Json]:
    _require(body, {"count": int, "idc": str, "product": str, "name": str, "templateId": str}, {
        "args": list, "command": str, "envs": list, "ports": list, "sshKeyIdList": list,
    })  # fmt: skip
    if not NAME.fullmatch(body["name"]) or body["count"] < 1:
        raise Refused(400, "name or count is not valid")
    _require_product(world, "containers", body)
    if body["templateId"] not in [item["id"] for item in world.templates]:
        raise Refused(404, f"template {body['templateId']} not found")
    for row in body.get("envs", []):
        _require(row, {"name": str, "value": str}, {})
    ports = body.get("ports", [])
    for row in ports:
        _require(row, {"containerPort": int, "protocol": str}, {"port": int})
        if row["protocol"] not in ("TCP", "UDP") or not 0 < row["containerPort"] < 65536:
            raise Refused(400, f"port {row} is not valid")
    if len(ports) > MOST_PORTS or len({row["containerPort"] for row in ports}) < len(ports):
        raise Refused(400, f"at most {MOST_PORTS} ports, and no two equal")
    made = []
    for _number in range(body["count"]):
        record = world.container_record(body["name"], body["product"], idc=body["idc"], orgId=org)
        record.update({key: body.get(key, record[key]) for key in ("templateId", "envs", "ports", "args", "command")})
        now = datetime.datetime.fromtimestamp(world.clock(), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        record.update(status="creating", createdAt=now, modifiedAt=now)
        world.containers.append(record)
        world.looks_left[record["id"]] = world.looks
        made.append({"id": record["id"]})
    return made


def _create_template(world: World, body: Any, org: str) -> Json:
    _require(body, {"name": str, "path": str}, {"description": str, "credential": dict, "status": str})
    world.templates.append({"id": str(uuid.uuid4()), "orgId": org, **body})
    return {"id": world.templates[-1]["id"]}


def _delete_container(world: World, _body: Any, org: str, identifier: str) -> Json:
    record = _own(world.containers, org, identifier)
    if record["status"] == "terminating":
        raise Refused(400, "the container is terminating")
    record["status"] = "terminating"
    world.looks_left[identifier] = world.looks
    return {"id": identifier}


def _act(world: World, body: Any, org: str, identifier: str) -> Json:
    record = _own(world.baremetals, org, identifier)
    _require(body, {world.action_key: str}, {})
    begun = {"start": ("stopped", "starting"), "stop": ("active", "stopping")}.get(body[world.action_key])
    if begun is None or record["status"] != begun[0]:
        raise Refused(400, f"no such action of a node that is {record['status']}")
    record["status"] = begun[1]
    world.looks_left[identifier] = world.looks
    return {}


def _delete_node(world: World, _body: Any, org: str, identifier: str) -> Json:
    record = _own(world.baremetals, org, identifier)
    if identifier in world.prepaid:
        raise Refused(400, f"prepaid until {world.prepaid[identifier]}")
    if record["status"] == "deprovisioning":
        raise Refused(409, "the node is deprovisioning")
    record["status"] = "deprovisioning"
    world.looks_left[identifier] = world.looks
    return {}


def _allocate(world: World, body: Any, org: str) -> list[Json]:
    _require(body, {"idc": str, "count": int, "name": str, "product": str}, {})
    _require_product(world, "elastic-ips", body)
    record = world.address_record(f"203.0.113.{100 + len(world.elastic_ips)}", None)
    record.update(name=body["name"], idc=body["idc"], product=body["product"], orgId=org)
    world.elastic_ips.append(record)
    return [{"id": record["id"]}]


def _associate(world: World, body: Any, org: str, identifier: str) -> Json:
    _require(body, {"instanceID": str, "instanceType": str}, {})
    record = _own(world.elastic_ips, org, identifier)
    if _own(world.containers, org, body["instanceID"])["status"] != "running":
        raise Refused(400, "the container does not run")
    record.update(status="associated", **body)
    return {}


def _release(world: World, _body: Any, org: str, identifier: str) -> Json:
    record = _own(world.elastic_ips, org, identifier)
    if record["instanceID"]:
        raise Refused(400, "the elastic IP is associated")
    world.elastic_ips.remove(record)
    return {}


def _own(where: list[Json], org: str, identifier: str) -> Json:
    for item in where:
        if item["id"] == identifier and item["orgId"] == org:
            return item
    raise Refused(404, f"{identifier} not found")


def _require_product(world: World, kind: str, body: Json) -> None:
    if body["idc"] not in [idc["idcId"] for idc in IDCS]:
        raise Refused(400, f"no such idc: {body['idc']}")
    if (body["product"], body["idc"]) not in [(item["name"], item["idc"]) for item in world.products[kind]]:
        raise Refused(400, f"no such product: {body['product']}")


def _require(body: Any, needed: dict[str, type], allowed: dict[str, type]) -> None:
    if not isinstance(body, dict):
        raise Refused(400, "expected an object")
    for key, kind in needed.items():
        if not isinstance(body.get(key), kind):
            raise Refused(400, f"{key} is required")
    for key, value in body.items():
        if not isinstance(value, {**needed, **allowed}.get(key, Nobody)):
            raise Refused(400, f"{key} is not valid")
