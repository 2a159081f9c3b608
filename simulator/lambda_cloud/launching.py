"""Launching an instance: what a request must say, and the host that boots for it."""

from __future__ import annotations

import contextlib
import re
import secrets
import uuid
from typing import Any

from simulator.lambda_cloud import catalogue
from simulator.lambda_cloud.backend import CapacityError, FileSystemMount, LaunchSpec
from simulator.lambda_cloud.errors import INSUFFICIENT_CAPACITY, WRONG_REGION, ApiError, invalid, missing
from simulator.lambda_cloud.types import Call, InstanceRecord, Json
from simulator.lambda_cloud.world import ALIVE, LOG, World, refuse_money


def launch(world: World, call: Call) -> Json:
    """POST /instance-operations/launch: one instance for each call, whose id is new even for the same body."""
    refuse_money(world)
    with contextlib.ExitStack() as stack:
        with world.lock:
            record, spec = _prepare(world, call.body)
            world.state.instances[record.id] = record
            world.use_capacity(record.instance_type, record.region, 1)
            stack.enter_context(world.host_call(record.id))
            world.save()
        _start(world, record, spec)
    with world.lock:
        world.audit("instance", "launched", [record.id], instance_type=record.instance_type, region=record.region)
    return {"instance_ids": [record.id]}


def _start(world: World, record: InstanceRecord, spec: LaunchSpec) -> None:
    """Boot the host; when that fails the record is gone again and the caller gets the API error."""
    try:
        world.backend.launch(spec)
    except Exception as error:
        _undo(world, record)
        if isinstance(error, CapacityError):
            raise _no_capacity() from error
        LOG.exception("the backend could not launch %s", record.id)
        raise ApiError("provider/internal-unavailable", "The host could not be started.") from error


def _undo(world: World, record: InstanceRecord) -> None:
    with world.lock:
        world.state.instances.pop(record.id, None)
        world.use_capacity(record.instance_type, record.region, -1)


def _no_capacity() -> ApiError:
    return ApiError(INSUFFICIENT_CAPACITY, "Not enough capacity for this launch.")


def _prepare(world: World, body: Json) -> tuple[InstanceRecord, LaunchSpec]:
    """Resolve every name of a launch and check quota and capacity, in the order in which errors are reported."""
    region = world.need_region(body["region_name"])
    kind = world.config.instance_types.get(body["instance_type_name"])
    if kind is None:
        raise missing(f"Instance type '{body['instance_type_name']}' does not exist.", status=400)
    public_keys = [_public_key(world, name) for name in body["ssh_key_names"]]
    mounts = _mounts(world, body, region)
    rulesets = _rulesets(world, body, region)
    family = _image_family(body.get("image"), region, kind.architecture)
    alive = sum(1 for record in world.state.instances.values() if record.status in ALIVE)
    if world.settings.instance_quota is not None and alive >= world.settings.instance_quota:
        raise ApiError("global/quota-exceeded", f"The account may run {world.settings.instance_quota} instances.")
    if world.free_capacity(kind.name, region) == 0:
        raise _no_capacity()
    tags = [] if world.settings.drop_tags else list(body.get("tags", []))
    now = world.clock()
    identifier = uuid.uuid4().hex
    record = InstanceRecord(
        id=identifier,
        region=region,
        instance_type=kind.name,
        ssh_key_names=list(body["ssh_key_names"]),
        image_family=family,
        jupyter_token=secrets.token_hex(16),
        launched_at=now,
        status_at=now,
        name=None if world.settings.drop_names else body.get("name"),
        hostname=body.get("hostname") or _hostname(body.get("name", ""), identifier),
        hostname_given="hostname" in body,
        file_systems=mounts,
        tags=tags,
        firewall_rulesets=rulesets,
    )
    spec = LaunchSpec(
        id=record.id,
        name=body.get("name", ""),
        hostname=record.hostname,
        region=region,
        instance_type=kind.spec(),
        image_family=family,
        ssh_public_keys=public_keys,
        user_data=body.get("user_data"),
        tags={tag["key"]: tag["value"] for tag in body.get("tags", [])},
        file_systems=[FileSystemMount(item["id"], item["name"], item["mount_point"]) for item in mounts],
    )
    return record, spec


def _hostname(name: str, instance_id: str) -> str:
    """A valid host name when the launch gave none: the name's letters, else the id's first digits."""
    cleaned = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63]
    return cleaned or f"vm-{instance_id[:12]}"


def _public_key(world: World, name: str) -> str:
    for key in world.state.ssh_keys.values():
        if key.name == name:
            return key.public_key
    raise missing(f"SSH key '{name}' does not exist.")


def _mounts(world: World, body: Json, region: str) -> list[Json]:
    """The file systems of a launch, by name (at their own mount point) and by id (where the caller says)."""
    mounts: list[Json] = []
    by_name = {item.name: item for item in world.state.file_systems.values() if item.region == region}
    elsewhere = {item.name for item in world.state.file_systems.values()} - set(by_name)
    for name in body.get("file_system_names", []):
        if name in elsewhere:
            raise ApiError(WRONG_REGION, f"File system '{name}' is in another region than {region}.")
        if name not in by_name:
            raise missing(f"File system '{name}' does not exist.")
        mounts.append({"id": by_name[name].id, "name": name, "mount_point": f"/lambda/nfs/{name}"})
    for entry in body.get("file_system_mounts", []):
        found = world.state.file_systems.get(entry["file_system_id"])
        if found is None:
            raise missing(f"File system '{entry['file_system_id']}' does not exist.")
        if found.region != region:
            raise ApiError(WRONG_REGION, f"File system '{found.name}' is in another region than {region}.")
        mounts = [item for item in mounts if item["id"] != found.id]
        mounts.append({"id": found.id, "name": found.name, "mount_point": entry["mount_point"]})
    points = [item["mount_point"] for item in mounts]
    if len(set(points)) != len(points):
        raise invalid("file_system_mounts: two file systems have the same mount_point")
    return mounts


def _rulesets(world: World, body: Json, region: str) -> list[str]:
    chosen: list[str] = []
    for entry in body.get("firewall_rulesets", []):
        ruleset = world.state.rulesets.get(entry["id"])
        if ruleset is None:
            raise missing(f"Firewall ruleset '{entry['id']}' does not exist.")
        if ruleset.region != region:
            raise invalid(f"firewall_rulesets: ruleset '{ruleset.name}' is not in region {region}")
        chosen.append(ruleset.id)
    return chosen


def _image_family(image: Any, region: str, architecture: str) -> str:
    """The family of the image that a launch asks for; it must exist in the region for the architecture."""
    if image is None:
        return catalogue.default_family(region)
    local = [row for row in catalogue.images() if row["region"]["name"] == region]
    key = "id" if "id" in image else "family"
    rows = [row for row in local if row[key] == image[key]]
    if not rows:
        raise missing(f"Image {key} '{image[key]}' does not exist in {region}.")
    if all(row["architecture"] != architecture for row in rows):
        raise invalid(f"image: '{rows[0]['name']}' with id '{rows[0]['id']}' is not for {architecture}")
    family: str = rows[0]["family"]
    return family
