"""Support tickets: enough of the ticket calls for a client to page, comment, close and attach."""

from __future__ import annotations

import uuid

from simulator.lambda_cloud.errors import ApiError, invalid, missing
from simulator.lambda_cloud.types import Call, Json, TicketRecord
from simulator.lambda_cloud.validation import TICKET_SEVERITIES, TICKET_STATUSES, TICKET_TYPES
from simulator.lambda_cloud.world import World, page

LINK_SECONDS = 3600
UPLOAD_STATUSES = ("pending", "uploaded", "failed", "deleted")


def list_tickets(world: World, call: Call) -> Json:
    """GET /tickets: repeated filters are alternatives; newest first by default."""
    status = _choice(call, "status", TICKET_STATUSES)
    kind = _choice(call, "type", TICKET_TYPES)
    severity = _choice(call, "severity", TICKET_SEVERITIES)
    order = (_choice(call, "order_by", ("created_at", "updated_at")) or ["created_at"])[0]
    direction = (_choice(call, "direction", ("asc", "desc")) or ["desc"])[0]
    with world.lock:
        chosen = [
            record
            for record in world.state.tickets.values()
            if (not status or record.status in status)
            and (not kind or record.type in kind)
            and (not severity or record.severity in severity)
        ]
        chosen.sort(key=lambda record: str(getattr(record, order)), reverse=direction == "desc")
        rows, token = page(world, [_view(record) for record in chosen], call.first("page_token"))
    return {"tickets": rows, "page_token": token}


def _choice(call: Call, key: str, allowed: tuple[str, ...]) -> list[str]:
    values = call.query.get(key, [])
    for value in values:
        if value not in allowed:
            raise invalid(f"{key}: Input should be one of {', '.join(allowed)}")
    return values


def create_ticket(world: World, call: Call) -> Json:
    """POST /tickets."""
    body = call.body
    if body["type"] == "incident" and "severity" not in body:
        raise invalid("severity: Field required when type is incident")
    with world.lock:
        if "instance_id" in body:
            world.instance(body["instance_id"])
        now = world.timestamp()
        record = TicketRecord(
            id=uuid.uuid4().hex,
            subject=body["subject"],
            description=body["description"],
            type=body["type"],
            created_at=now,
            updated_at=now,
            severity=body.get("severity"),
        )
        world.state.tickets[record.id] = record
        world.audit("ticket", "created", [record.id])
        return {key: value for key, value in _view(record).items() if key not in _DETAILS}


_DETAILS = ("subject", "description", "updated_at", "resolved_at", "comments")


def get_ticket(world: World, call: Call) -> Json:
    """GET /tickets/{ticket_id}."""
    with world.lock:
        return _view(_need(world, call))


def change_ticket(world: World, call: Call) -> Json:
    """PATCH /tickets/{ticket_id}: comment, raise or lower severity, or solve; answered with 202."""
    with world.lock:
        record = _need(world, call)
        now = world.timestamp()
        if "comment" in call.body:
            comment = {"body": call.body["comment"]["body"], "author": "owner@example.com", "created_at": now}
            record.comments.append(comment)
        record.severity = call.body.get("severity", record.severity)
        if "status" in call.body:
            record.status, record.resolved_at = call.body["status"], now
        record.updated_at = now
        world.audit("ticket", "updated", [record.id])
    return {}


def _need(world: World, call: Call) -> TicketRecord:
    record = world.state.tickets.get(call.params["ticket_id"])
    if record is None:
        raise ApiError("global/not-found", "The ticket does not exist.", suggestion="Check the ticket id.")
    return record


def _view(record: TicketRecord) -> Json:
    shown: Json = {
        "id": record.id,
        "subject": record.subject,
        "description": record.description,
        "type": record.type,
        "severity": record.severity,
        "status": record.status,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "resolved_at": record.resolved_at,
        "comments": [dict(comment) for comment in record.comments],
    }
    return {key: value for key, value in shown.items() if value is not None}


# Attachments


def list_attachments(world: World, call: Call) -> Json:
    """GET /tickets/{ticket_id}/attachments, optionally of one upload status."""
    wanted = _choice(call, "status", UPLOAD_STATUSES)
    with world.lock:
        rows = [dict(item) for item in _need(world, call).attachments.values()]
    return {"attachments": [row for row in rows if not wanted or row["upload_status"] in wanted]}


def start_attachment(world: World, call: Call) -> Json:
    """POST /tickets/{ticket_id}/attachments: announce a file and get the address to PUT it to."""
    with world.lock:
        record = _need(world, call)
        identifier = uuid.uuid4().hex
        record.attachments[identifier] = {
            "id": identifier,
            "filename": call.body["filename"],
            "content_type": call.body["content_type"],
            "size_bytes": call.body["size_bytes"],
            "upload_status": "pending",
            "created_at": world.timestamp(),
        }
        world.audit("ticket", "updated", [record.id])
    return {
        "attachment_id": identifier,
        "upload_url": f"{call.base_url}/_storage/{identifier}",
        "upload_method": "PUT",
        "upload_status": "pending",
        "expires_in": LINK_SECONDS,
    }


def complete_attachment(world: World, call: Call) -> Json:
    """POST …/complete: the file must have arrived in the announced size."""
    with world.lock:
        item = _attachment(world, call)
        content = world.uploads.get(item["id"])
        if content is None or len(content) != item["size_bytes"]:
            raise invalid(f"attachment: expected an upload of {item['size_bytes']} bytes")
        item["upload_status"] = "uploaded"
        item["uploaded_at"] = world.timestamp()
        world.changed()
        return dict(item)


def download_attachment(world: World, call: Call) -> Json:
    """GET …/download: an address that gives the file."""
    with world.lock:
        item = _attachment(world, call)
        if item["upload_status"] != "uploaded":
            raise missing("The attachment has not been uploaded.")
    return {"download_url": f"{call.base_url}/_storage/{item['id']}", "expires_in": LINK_SECONDS}


def delete_attachment(world: World, call: Call) -> Json:
    """DELETE …/{attachment_id}."""
    with world.lock:
        item = _attachment(world, call)
        world.uploads.pop(item["id"], None)
        del _need(world, call).attachments[item["id"]]
        world.changed()
    return {}


def _attachment(world: World, call: Call) -> Json:
    item = _need(world, call).attachments.get(call.params["attachment_id"])
    if item is None:
        raise missing("The attachment does not exist.")
    return item


def is_announced(world: World, identifier: str) -> bool:
    """Whether an upload to this address belongs to an attachment that some ticket announced."""
    with world.lock:
        return any(identifier in record.attachments for record in world.state.tickets.values())
