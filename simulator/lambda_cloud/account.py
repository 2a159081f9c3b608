"""The catalogue calls, ssh keys, file systems, fabric partitions and the audit log."""

from __future__ import annotations

import base64
import binascii
import datetime
import shutil
import struct
import subprocess
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path

from simulator.lambda_cloud import catalogue
from simulator.lambda_cloud.errors import ApiError, invalid, missing
from simulator.lambda_cloud.types import Call, FabricRecord, FileSystemRecord, Json, Page, SshKeyRecord
from simulator.lambda_cloud.world import ALIVE, OWNER, World, page, refuse_money

KEY_TYPES = (
    "ssh-rsa",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def list_instance_types(world: World, call: Call) -> Json:
    """GET /instance-types: every type, with the regions that could start one right now."""
    with world.lock:
        return {
            name: {
                "instance_type": kind.view(),
                "regions_with_capacity_available": [
                    catalogue.region_view(region)
                    for region in world.capacity[name]
                    if world.free_capacity(name, region) != 0
                ],
            }
            for name, kind in world.config.instance_types.items()
        }


def list_images(world: World, call: Call) -> list[Json]:
    """GET /images: a row for each family, region and architecture."""
    return catalogue.images()


def list_regions(world: World, call: Call) -> list[Json]:
    """GET /regions."""
    return [catalogue.region_view(name) for name in catalogue.REGIONS]


# SSH keys


def list_ssh_keys(world: World, call: Call) -> list[Json]:
    """GET /ssh-keys."""
    with world.lock:
        return [asdict(record) for record in world.state.ssh_keys.values()]


def add_ssh_key(world: World, call: Call) -> Json:
    """POST /ssh-keys: register a public key, or make a pair whose private half is in this answer only."""
    name = call.body["name"]
    private_key: str | None = None
    if "public_key" in call.body:
        public_key = call.body["public_key"].strip()
        _check_public_key(public_key)
    else:
        private_key, public_key = _generate_key(name)
    with world.lock:
        if any(record.name == name for record in world.state.ssh_keys.values()):
            raise invalid(f"name: an SSH key named '{name}' exists already")
        record = SshKeyRecord(uuid.uuid4().hex, name, public_key)
        world.state.ssh_keys[record.id] = record
        world.audit("ssh_key", "created", [record.id])
    shown = asdict(record)
    if private_key is not None:
        shown["private_key"] = private_key
    return shown


def delete_ssh_key(world: World, call: Call) -> Json:
    """DELETE /ssh-keys/{id}; hosts that were launched with it keep it."""
    with world.lock:
        if world.state.ssh_keys.pop(call.params["id"], None) is None:
            raise ApiError("global/not-found", "The SSH key does not exist.")
        world.audit("ssh_key", "deleted", [call.params["id"]])
    return {}


def _check_public_key(line: str) -> None:
    """Refuse what sshd would not read: a one-line OpenSSH key whose data begins with its own type."""
    parts = line.split(None, 2)
    if "\n" in line or len(parts) < 2 or parts[0] not in KEY_TYPES:
        raise invalid("public_key: not an OpenSSH public key")
    try:
        blob = base64.b64decode(parts[1], validate=True)
        (length,) = struct.unpack(">I", blob[:4])
    except (binascii.Error, struct.error):
        raise invalid("public_key: the key data is damaged") from None
    if blob[4 : 4 + length] != parts[0].encode() or len(blob) <= 4 + length:
        raise invalid("public_key: the key data is damaged")


def _generate_key(name: str) -> tuple[str, str]:
    """A fresh private key (PEM) and its public line; without ssh-keygen the call fails as the provider's own fault."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise ApiError("global/internal-error", "The simulator needs ssh-keygen to make a key pair.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        subprocess.run(
            [program, "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-C", name, "-f", str(path)],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        return path.read_text(), path.with_suffix(".pub").read_text().strip()


# File systems


def list_file_systems(world: World, call: Call) -> list[Json]:
    """GET /file-systems (with a hyphen): each read brings a file system closer to its release."""
    with world.lock:
        views = [_file_system_view(world, record) for record in world.state.file_systems.values()]
        for record in world.state.file_systems.values():
            if record.release_reads > 0:
                record.release_reads -= 1
                world.changed()
        return views


def create_file_system(world: World, call: Call) -> Json:
    """POST /filesystems (without one): names are unique within a region."""
    refuse_money(world)
    name, region = call.body["name"], world.need_region(call.body["region"])
    with world.lock:
        existing = world.state.file_systems.values()
        if any(record.name == name and record.region == region for record in existing):
            raise ApiError("global/duplicate", f"A file system named '{name}' exists already in {region}.")
        quota = world.settings.file_system_quota
        if quota is not None and len(existing) >= quota:
            raise ApiError("global/quota-exceeded", f"The account may have {quota} file systems.")
        record = FileSystemRecord(uuid.uuid4().hex, name, region, world.timestamp())
        world.state.file_systems[record.id] = record
        world.audit("filesystem", "created", [record.id])
        return _file_system_view(world, record)


def delete_file_system(world: World, call: Call) -> Json:
    """DELETE /filesystems/{id}: refused while in use, which it stays for a while after its instances ended."""
    with world.lock:
        record = world.state.file_systems.get(call.params["id"])
        if record is None:
            raise missing("The file system does not exist.")
        if _in_use(world, record):
            raise ApiError("filesystems/filesystem-in-use", f"File system '{record.name}' is in use.")
        del world.state.file_systems[record.id]
        world.audit("filesystem", "deleted", [record.id])
        return {"deleted_ids": [record.id]}


def _in_use(world: World, record: FileSystemRecord) -> bool:
    attached = any(
        item["id"] == record.id
        for instance in world.state.instances.values()
        if instance.status in ALIVE
        for item in instance.file_systems
    )
    return attached or record.release_reads > 0 or world.clock() < record.release_at


def _file_system_view(world: World, record: FileSystemRecord) -> Json:
    return {
        "id": record.id,
        "name": record.name,
        "mount_point": f"/lambda/nfs/{record.name}",
        "created": record.created,
        "created_by": dict(OWNER),
        "is_in_use": _in_use(world, record),
        "region": catalogue.region_view(record.region),
        "bytes_used": record.bytes_used,
    }


# Fabric partitions


def create_fabric(world: World, call: Call) -> Json:
    """POST /fabric."""
    region = world.need_region(call.body["region"])
    with world.lock:
        workspace = call.body.get("workspace_id", "default")
        record = FabricRecord(uuid.uuid4().hex, call.body["name"], region, world.timestamp(), workspace)
        world.state.fabrics[record.id] = record
        world.audit("fabric", "created", [record.id])
        return _fabric_view(record)


def rename_fabric(world: World, call: Call) -> Json:
    """POST /fabric/{id}."""
    with world.lock:
        record = world.state.fabrics.get(call.params["id"])
        if record is None:
            raise ApiError("global/not-found", "The fabric partition does not exist.")
        record.name = call.body["name"]
        world.audit("fabric", "updated", [record.id])
        return _fabric_view(record)


def delete_fabric(world: World, call: Call) -> Json:
    """DELETE /fabric/{id}."""
    with world.lock:
        if world.state.fabrics.pop(call.params["id"], None) is None:
            raise ApiError("global/not-found", "The fabric partition does not exist.")
        world.audit("fabric", "deleted", [call.params["id"]])
    return {}


def _fabric_view(record: FabricRecord) -> Json:
    return {
        "id": record.id,
        "created": record.created,
        "name": record.name,
        "workspace_id": record.workspace_id,
        "region": catalogue.region_view(record.region),
    }


# Audit log


def list_audit_events(world: World, call: Call) -> Page:
    """GET /audit-events: oldest first, filtered by time (inclusive) and by ``service.resource``."""
    start, end = _moment(call, "start"), _moment(call, "end")
    wanted = call.first("resource_type")
    with world.lock:
        rows = [
            dict(event)
            for event in world.state.audit_events
            if (start is None or _parse(event["event_time"]) >= start)
            and (end is None or _parse(event["event_time"]) <= end)
            and (wanted is None or f"{event['service_name']}.{event['resource_name']}" == wanted)
        ]
        return Page(*page(world, rows, call.first("page_token")))


def _moment(call: Call, key: str) -> datetime.datetime | None:
    value = call.first(key)
    if value is None:
        return None
    try:
        moment = _parse(value)
    except ValueError:
        raise invalid(f"{key}: Input should be a valid ISO 8601 time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


def _parse(value: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
