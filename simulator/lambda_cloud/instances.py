"""Instances: read, rename, restart, terminate, and how their status moves over reads and time."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from simulator.lambda_cloud import catalogue
from simulator.lambda_cloud.backend import HostState
from simulator.lambda_cloud.errors import ApiError, missing
from simulator.lambda_cloud.types import INSTANCE_STATUSES, Call, InstanceRecord, InstanceStatus, Json
from simulator.lambda_cloud.world import LOG, World

OPTIONAL_KEYS = (
    "name",
    "ip",
    "private_ip",
    "hostname",
    "jupyter_token",
    "jupyter_url",
    "tags",
    "file_system_mounts",
    "firewall_rulesets",
)
ACTIONS = ("migrate", "rebuild", "restart", "cold_reboot", "terminate")


# Reading


def list_instances(world: World, call: Call) -> list[Json]:
    """GET /instances; ``cluster_id`` of a cluster that the account does not have is forbidden."""
    cluster = call.first("cluster_id")
    with world.lock:
        chosen = [record.id for record in world.state.instances.values() if _listed(world, record, cluster)]
        if cluster is not None and not chosen:
            raise ApiError("global/forbidden", "You have no access to this cluster.")
    return _read(world, chosen)


def get_instance(world: World, call: Call) -> Json:
    """GET /instances/{id}."""
    world.instance(call.params["id"])
    views = _read(world, [call.params["id"]])
    if not views:
        raise missing("The instance does not exist.")
    return views[0]


def _listed(world: World, record: InstanceRecord, cluster: str | None) -> bool:
    if cluster is not None:
        return record.cluster_id == cluster
    if world.clock() - record.launched_at < world.settings.listing_lag_seconds:
        return False
    return record.cluster_id is None or world.settings.cluster_members_in_plain_list


def _read(world: World, ids: list[str]) -> list[Json]:
    """Let time pass for the instances, then show those that are still there."""
    with world.lock:
        polled = [
            identifier
            for identifier in ids
            if (record := world.state.instances.get(identifier)) is not None
            and not record.pinned
            and not record.hostless
            and record.status in ("booting", "active", "unhealthy")
            and not world.busy(identifier)
        ]
    hosts = {identifier: world.poll(identifier) for identifier in polled}
    views: list[Json] = []
    with world.lock:
        for identifier in ids:
            record = world.state.instances.get(identifier)
            if record is None:
                continue
            _advance(world, record, hosts.get(identifier))
            if identifier in world.state.instances:
                views.append(view(world, record))
    return views


def view(world: World, record: InstanceRecord) -> Json:
    """The API's Instance schema. Unset optional keys are absent (or null, when the settings say so)."""
    kind = world.config.instance_types[record.instance_type]
    running = record.status in ("active", "unhealthy")
    shown: Json = {
        "id": record.id,
        "name": record.name,
        "ip": record.ip,
        "private_ip": record.private_ip,
        "status": record.status,
        "ssh_key_names": list(record.ssh_key_names),
        "file_system_names": [item["name"] for item in record.file_systems],
        "file_system_mounts": [
            {"mount_point": item["mount_point"], "file_system_id": item["id"]} for item in record.file_systems
        ]
        or None,
        "region": catalogue.region_view(record.region),
        "instance_type": kind.view(),
        "hostname": record.hostname if record.hostname_given or record.ip else None,
        "jupyter_token": record.jupyter_token if running else None,
        "jupyter_url": f"https://{record.id}.jupyter.invalid/?token={record.jupyter_token}" if running else None,
        "actions": _actions(record),
        "tags": [dict(tag) for tag in record.tags] or None,
        "firewall_rulesets": [{"id": identifier} for identifier in record.firewall_rulesets] or None,
    }
    for key in OPTIONAL_KEYS:
        if shown[key] is None and not world.settings.null_optionals:
            del shown[key]
    shown.update(record.overrides)
    for key in record.omit:
        shown.pop(key, None)
    return shown


def _actions(record: InstanceRecord) -> Json:
    """Which actions are open, with the reason when they are not."""
    reason: tuple[str, str] | None = None
    open_actions: tuple[str, ...] = ()
    if record.status in ("terminating", "terminated", "preempted"):
        reason = ("vm-is-terminating", "The instance is terminating or has ended.")
        open_actions = ("terminate",) if record.status == "preempted" else ()
    elif record.restarting:
        reason = ("vm-action-in-progress", "Another action is in progress.")
        open_actions = ("terminate",)
    elif record.status == "booting":
        reason = ("vm-has-not-launched", "The instance has not launched yet.")
        open_actions = ("terminate",)
    actions: Json = {}
    for name in ACTIONS:
        if reason is None or name in open_actions:
            actions[name] = {"available": True}
        else:
            actions[name] = {"available": False, "reason_code": reason[0], "reason_description": reason[1]}
    return actions


# The passing of time


def _advance(world: World, record: InstanceRecord, host: HostState | None) -> None:
    """Move one instance on by one read. The caller holds the lock."""
    if record.pinned:
        return
    record.reads += 1
    if record.status in ("terminating", "terminated"):
        _advance_end(world, record)
    elif host is not None:
        _advance_life(world, record, host)


def _advance_life(world: World, record: InstanceRecord, host: HostState) -> None:
    settings = world.settings
    now = world.clock()
    age = now - record.launched_at
    if host.ip and host.ip != record.ip and age >= settings.address_seconds:
        record.ip, record.private_ip = host.ip, host.private_ip
        world.changed()
    if host.phase == "failed":
        if record.status != "unhealthy":
            LOG.warning("host of instance %s failed: %s", record.id, host.detail or "no reason given")
        record.restarting = False
        set_status(world, record, "unhealthy")
    elif host.phase == "booting":
        # A reboot from inside the guest is invisible to the provider: active stays active.
        record.ready_at = None
        early = settings.active_at_address and record.ip is not None and not record.restarting
        if early and record.status == "booting":
            set_status(world, record, "active")
    else:
        record.ready_at = now if record.ready_at is None else record.ready_at
        waited = now - record.ready_at >= settings.active_lag_seconds and age >= settings.boot_seconds
        if record.ip is not None and (waited or record.status == "active"):
            record.restarting = False
            set_status(world, record, "active")


def _advance_end(world: World, record: InstanceRecord) -> None:
    settings = world.settings
    elapsed = world.clock() - record.status_at
    if record.status == "terminating":
        if not record.host_gone and not world.busy(record.id):
            remove_host(world, record)
        if record.host_gone and record.reads > settings.terminating_reads and elapsed >= settings.terminating_seconds:
            _end(world, record)
    elif record.reads > settings.terminated_reads and elapsed >= settings.terminated_seconds:
        world.forget(record.id)


def _end(world: World, record: InstanceRecord) -> None:
    """Terminated: the address is gone and the file systems begin their release."""
    record.ip = record.private_ip = None
    set_status(world, record, "terminated")
    record.reads = 1
    for item in record.file_systems:
        attached = world.state.file_systems.get(item["id"])
        if attached is not None:
            attached.release_reads = world.settings.release_reads
            attached.release_at = world.clock() + world.settings.release_seconds


def set_status(world: World, record: InstanceRecord, status: InstanceStatus) -> None:
    """Change the status and start counting its reads; no-op when it is the same."""
    if record.status != status:
        record.status = status
        record.status_at = world.clock()
        record.reads = 0
        world.changed()


def remove_host(world: World, record: InstanceRecord) -> None:
    """Let the backend remove the host in the background and give its capacity back. The caller holds the lock."""

    def gone() -> None:
        if not record.host_gone:
            record.host_gone = True
            world.use_capacity(record.instance_type, record.region, -1)

    if record.hostless:
        record.host_gone = True
    elif not record.host_gone:
        world.in_background(record.id, world.backend.terminate, gone)


# Changing


def rename(world: World, call: Call) -> Json:
    """POST /instances/{id}: only the name can change, and an empty one is allowed."""
    with world.lock:
        record = world.instance(call.params["id"])
        if "name" in call.body:
            record.name = call.body["name"]
            record.overrides.pop("name", None)
            world.audit("instance", "updated", [record.id])
        return view(world, record)


def _chosen(world: World, ids: list[str]) -> list[InstanceRecord]:
    """All the named instances or an error, before any of them is touched."""
    return [world.instance(identifier) for identifier in dict.fromkeys(ids)]


def restart(world: World, call: Call) -> Json:
    """POST /instance-operations/restart: only instances that have launched and are idle; else a conflict."""
    with world.lock:
        records = _chosen(world, call.body["instance_ids"])
        for record in records:
            if not _actions(record)["restart"]["available"]:
                raise ApiError("global/conflict", f"Instance {record.id} is {record.status} and cannot restart now.")
        for record in records:
            record.restarting = True
            record.ready_at = None
            set_status(world, record, "booting")
            if not record.hostless:
                world.in_background(record.id, world.backend.restart, world.changed)
        world.audit("instance", "restarted", [record.id for record in records])
        return {"restarted_instances": [view(world, record) for record in records]}


def terminate(world: World, call: Call) -> Json:
    """POST /instance-operations/terminate: ending what already ends gives the error seen in use."""
    with world.lock:
        records = _chosen(world, call.body["instance_ids"])
        if any(record.status in ("terminating", "terminated") for record in records):
            raise ApiError("global/unknown", "An unknown error occurred.")
        for record in records:
            record.pinned = False
            record.overrides.pop("status", None)
            set_status(world, record, "terminating")
            remove_host(world, record)
        world.audit("instance", "terminated", [record.id for record in records])
        return {"terminated_instances": [view(world, record) for record in records]}


# The control endpoint


def seed(world: World, values: Json) -> list[str]:
    """Add ``count`` instances without hosts, for tests of clients; returns their ids.

    ``instance_type``, ``region``, ``status``, ``cluster_id`` and ``tags`` shape them; ``name`` may hold ``{n}``.
    ``overrides`` replaces keys of the API's view as given, ``omit`` leaves keys out. Raises ValueError.
    """
    known = {"count", "instance_type", "region", "status", "name", "cluster_id", "tags", "overrides", "omit"}
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"instances: unknown key(s) {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    count, kind = values.get("count", 1), values.get("instance_type", "gpu_8x_b200_sxm6")
    region, status = values.get("region", "us-east-1"), values.get("status", "active")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"instances.count: expected at least 1, found {count!r}")
    if kind not in world.config.instance_types or region not in catalogue.REGIONS:
        raise ValueError(f"instances: unknown instance type {kind!r} or region {region!r}")
    _need_status(status)
    _need_shapes(values)
    ids: list[str] = []
    with world.lock:
        now = world.clock()
        for number in range(len(world.state.instances), len(world.state.instances) + count):
            has_address = status in ("active", "unhealthy")
            name = values.get("name", "seed-{n}")
            record = InstanceRecord(
                id=uuid.uuid4().hex,
                region=region,
                instance_type=kind,
                ssh_key_names=["seed"],
                image_family=catalogue.default_family(region),
                jupyter_token=secrets.token_hex(16),
                launched_at=now,
                status_at=now,
                status=status,
                name=None if name is None else str(name).replace("{n}", str(number)),
                hostname=f"seed-{number}",
                tags=[{"key": key, "value": value} for key, value in values.get("tags", {}).items()],
                ip=f"198.18.{number // 254 % 256}.{number % 254 + 1}" if has_address else None,
                private_ip=f"10.{20 + number // 65024}.{number // 254 % 256}.{number % 254 + 1}"
                if has_address
                else None,
                cluster_id=values.get("cluster_id"),
                pinned=True,
                hostless=True,
                overrides=dict(values.get("overrides", {})),
                omit=list(values.get("omit", [])),
            )
            world.state.instances[record.id] = record
            ids.append(record.id)
    return ids


def adjust(world: World, instance_id: str, values: Json) -> Json:
    """Change what the API shows of an instance: ``status`` (stays as set), ``overrides``, ``omit``.

    ``preempted`` also takes the host away, as the provider would. Raises ValueError for anything else.
    """
    unknown = set(values) - {"status", "overrides", "omit"}
    if unknown:
        raise ValueError(f"instance: unknown key(s) {', '.join(sorted(unknown))}; known: omit, overrides, status")
    _need_shapes(values)
    with world.lock:
        record = world.instance(instance_id)
        record.overrides.update(values.get("overrides", {}))
        record.omit = list(values.get("omit", record.omit))
        if "status" in values:
            status = _need_status(values["status"])
            if status == "preempted":
                remove_host(world, record)
                record.ip = record.private_ip = None
            record.pinned = True
            set_status(world, record, status)
        world.changed()
        return view(world, record)


def _need_shapes(values: Json) -> None:
    shapes: dict[str, type] = {"tags": dict, "overrides": dict, "omit": list}
    for key, kind in shapes.items():
        if key in values and not isinstance(values[key], kind):
            raise ValueError(f"instances.{key}: expected a {kind.__name__}, found {values[key]!r}")


def _need_status(status: Any) -> InstanceStatus:
    if status not in INSTANCE_STATUSES:
        raise ValueError(f"status: expected one of {', '.join(INSTANCE_STATUSES)}, found {status!r}")
    chosen: InstanceStatus = status
    return chosen


def end_all(world: World) -> int:
    """Terminate every host and wait until the backend has removed them; returns how many there were."""
    with world.lock:
        records = [record for record in world.state.instances.values() if not record.host_gone]
        for record in records:
            set_status(world, record, "terminating")
            remove_host(world, record)
    world.wait_idle([record.id for record in records])
    left = [record.id for record in records if not record.host_gone]
    if left:
        raise ValueError(f"the backend could not remove the hosts of {', '.join(left)}; see the simulator's log")
    with world.lock:
        for identifier in list(world.state.instances):
            world.forget(identifier)
    return len(records)
