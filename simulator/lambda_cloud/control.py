"""The control endpoint: faults, settings, seeded instances and counters. Not part of the provider's API."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from simulator.lambda_cloud import instances
from simulator.lambda_cloud.catalogue import check_capacity
from simulator.lambda_cloud.errors import ApiError, invalid
from simulator.lambda_cloud.faults import make_fault
from simulator.lambda_cloud.types import Json, Request, Response
from simulator.lambda_cloud.world import World

BASE = "/_simulator"
TOKEN_HEADER = "x-simulator-token"
# Of an instance; the others are secrets, or of no use in a log.
SHOWN = (
    "id", "name", "status", "region", "instance_type", "image_family", "ip", "host_gone", "hostless",
)  # fmt: skip


def respond(world: World, request: Request) -> Response:
    """Answer a control request. ``/health`` needs no token; everything else needs the control token."""
    path = request.path.removeprefix(BASE)
    if (request.method, path) == ("GET", "/health"):
        return _answer({"ok": True})
    token = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(token.encode(), world.config.control_token.encode()):
        raise ApiError("global/forbidden", "The X-Simulator-Token header is missing or wrong.")
    try:
        body = json.loads(request.body or b"{}")
        if not isinstance(body, dict):
            raise ValueError("body: expected an object")
        result = _dispatch(world, request.method, path, body)
    except ValueError as error:
        raise invalid(str(error)) from error
    finally:
        world.save()
    return _answer(result)


def _answer(data: Any) -> Response:
    return Response(200, json.dumps({"data": data}).encode())


def _dispatch(world: World, method: str, path: str, body: Json) -> Any:
    operations: dict[tuple[str, str], Callable[[World, Json], Any]] = {
        ("GET", "/state"): _state,
        ("GET", "/faults"): lambda world, _: world.faults.pending(),
        ("POST", "/faults"): lambda world, body: {"id": world.faults.add(make_fault(body))},
        ("DELETE", "/faults"): lambda world, _: world.faults.clear(),
        ("PATCH", "/settings"): _change_settings,
        ("PUT", "/capacity"): _set_capacity,
        ("POST", "/instances"): lambda world, body: {"instance_ids": instances.seed(world, body)},
        ("DELETE", "/instances"): lambda world, _: {"removed": instances.end_all(world)},
        ("DELETE", "/counters"): lambda world, _: world.pacing.reset(),
    }
    operation = operations.get((method, path))
    if operation is not None:
        return operation(world, body)
    collection, _, instance_id = path.rpartition("/")
    if (method, collection) == ("PATCH", "/instances"):
        return instances.adjust(world, instance_id, body)
    raise ApiError("global/not-found", f"The control endpoint has no {method} {path}.")


def _state(world: World, _: Json) -> Json:
    """Counters, settings and what exists; nothing secret, so that it may go into a log."""
    with world.lock:
        return {
            "pacing": world.pacing.report(),
            "faults": world.faults.pending(),
            "settings": dict(vars(world.settings)),
            "capacity_used": dict(world.state.capacity_used),
            "instances": [{key: getattr(record, key) for key in SHOWN} for record in world.state.instances.values()],
        }


def _change_settings(world: World, body: Json) -> Json:
    with world.lock:
        world.settings.change(body)
        return dict(vars(world.settings))


def _set_capacity(world: World, body: Json) -> Json:
    """Replace the capacity of the named types: ``{type: {region: count or null}}``."""
    checked = {name: check_capacity(name, regions) for name, regions in body.items()}
    unknown = set(checked) - set(world.capacity)
    if unknown:
        raise ValueError(f"capacity: unknown instance type(s) {', '.join(sorted(unknown))}")
    with world.lock:
        world.capacity.update(checked)
    return dict(checked)
