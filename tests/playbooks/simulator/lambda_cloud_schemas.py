"""What the Lambda Cloud API's answers must look like, written down apart from the simulator that makes them.

JSON Schemas from the facts of the vendor's OpenAPI document 1.10.0. Objects are closed: a key that the document
does not have is a failure.
"""

from __future__ import annotations

from typing import Any

import jsonschema

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
HEX_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
TIME: Schema = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": sorted(required),
        "additionalProperties": False,
    }


def list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
EMPTY = record({})
REGION = record({"name": TEXT, "description": TEXT})
SPECS = record({"vcpus": WHOLE, "memory_gib": WHOLE, "storage_gib": WHOLE, "gpus": WHOLE})
INSTANCE_TYPE = record(
    {"name": TEXT, "description": TEXT, "gpu_description": TEXT, "price_cents_per_hour": WHOLE, "specs": SPECS}
)
ACTION = record(
    {"available": FLAG},
    {
        "reason_code": one_of("vm-has-not-launched", "vm-is-too-old", "vm-is-terminating", "vm-action-in-progress"),
        "reason_description": TEXT,
    },
)
ACTIONS = record(dict.fromkeys(("migrate", "rebuild", "restart", "cold_reboot", "terminate"), ACTION))
INSTANCE = record(
    {
        "id": HEX_ID,
        "status": one_of("booting", "active", "unhealthy", "terminated", "terminating", "preempted"),
        "ssh_key_names": list_of(TEXT),
        "file_system_names": list_of(TEXT),
        "region": REGION,
        "instance_type": INSTANCE_TYPE,
        "actions": ACTIONS,
    },
    {
        "name": {"type": "string", "maxLength": 64},
        "ip": {"type": "string", "format": "ipv4"},
        "private_ip": {"type": "string", "format": "ipv4"},
        "file_system_mounts": list_of(record({"mount_point": TEXT, "file_system_id": TEXT})),
        "hostname": TEXT,
        "jupyter_token": TEXT,
        "jupyter_url": TEXT,
        "tags": list_of(record({"key": TEXT, "value": TEXT})),
        "firewall_rulesets": list_of(record({"id": TEXT})),
    },
)
INSTANCE_TYPES: Schema = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": record(
        {"instance_type": INSTANCE_TYPE, "regions_with_capacity_available": list_of(REGION)}
    ),
}
IMAGE = record(
    {
        "id": TEXT,
        "created_time": TIME,
        "updated_time": TIME,
        "name": TEXT,
        "description": TEXT,
        "family": TEXT,
        "version": TEXT,
        "architecture": one_of("x86_64", "arm64"),
        "region": REGION,
    }
)
SSH_KEY = record({"id": TEXT, "name": TEXT, "public_key": TEXT})
GENERATED_SSH_KEY = record({"id": TEXT, "name": TEXT, "public_key": TEXT, "private_key": TEXT})
FILE_SYSTEM = record(
    {
        "id": TEXT,
        "name": TEXT,
        "mount_point": TEXT,
        "created": TIME,
        "created_by": record({"id": TEXT, "email": TEXT, "status": one_of("active", "deactivated")}),
        "is_in_use": FLAG,
        "region": REGION,
    },
    {"bytes_used": WHOLE},
)
FIREWALL_RULE = record(
    {
        "protocol": one_of("tcp", "udp", "icmp", "all"),
        "source_network": TEXT,
        "description": {"type": "string", "maxLength": 128},
    },
    {"port_range": {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}},
)
RULESET = record(
    {
        "id": TEXT,
        "name": TEXT,
        "region": REGION,
        "rules": list_of(FIREWALL_RULE),
        "created": TIME,
        "instance_ids": list_of(HEX_ID),
    }
)
GLOBAL_RULESET = record({"id": {"const": "global"}, "name": TEXT, "rules": list_of(FIREWALL_RULE)})
FABRIC = record({"id": TEXT, "created": TIME, "name": TEXT, "workspace_id": TEXT, "region": REGION})
AUDIT_EVENT = record(
    {
        "service_name": TEXT,
        "resource_name": TEXT,
        "action": TEXT,
        "catalog_version": TEXT,
        "event_id": TEXT,
        "event_time": TIME,
        "actor_lrn": NULLABLE_TEXT,
        "resource_lrns": list_of(TEXT),
        "resource_owner_lrn": NULLABLE_TEXT,
        "request_api_key_lrn": NULLABLE_TEXT,
        "additional_details": {"type": "object"},
    }
)
TICKET_STATUS = one_of("open", "on_hold", "pending", "solved", "confirm_solved")
TICKET_TYPE = one_of("service_request", "incident", "automated_event")
SEVERITY = one_of("sev_1", "sev_2", "sev_3")
TICKET = record(
    {
        "id": TEXT,
        "subject": TEXT,
        "description": TEXT,
        "status": TICKET_STATUS,
        "created_at": TIME,
        "comments": list_of(record({"body": TEXT, "author": TEXT, "created_at": TIME})),
    },
    {
        "type": TICKET_TYPE,
        "severity": SEVERITY,
        "external_ticket_provider": TEXT,
        "external_ticket_id": TEXT,
        "updated_at": TIME,
        "resolved_at": TIME,
    },
)
NEW_TICKET = record(
    {"id": TEXT, "status": TICKET_STATUS, "type": TICKET_TYPE, "created_at": TIME},
    {"severity": SEVERITY, "external_ticket_provider": TEXT, "external_ticket_id": TEXT},
)
TICKET_LIST = record({"tickets": list_of(TICKET), "page_token": NULLABLE_TEXT})
UPLOAD_STATUS = one_of("pending", "uploaded", "failed", "deleted")
ATTACHMENT = record(
    {
        "id": TEXT,
        "filename": TEXT,
        "content_type": TEXT,
        "size_bytes": WHOLE,
        "upload_status": UPLOAD_STATUS,
        "created_at": TIME,
    },
    {"uploaded_at": TIME},
)
ATTACHMENT_LIST = record({"attachments": list_of(ATTACHMENT)})
NEW_ATTACHMENT = record(
    {
        "attachment_id": TEXT,
        "upload_url": TEXT,
        "upload_method": TEXT,
        "upload_status": UPLOAD_STATUS,
        "expires_in": WHOLE,
    }
)
DOWNLOAD = record({"download_url": TEXT, "expires_in": WHOLE})
LAUNCHED = record({"instance_ids": list_of(HEX_ID)})
RESTARTED = record({"restarted_instances": list_of(INSTANCE)})
TERMINATED = record({"terminated_instances": list_of(INSTANCE)})
DELETED_FILE_SYSTEM = record({"deleted_ids": list_of(TEXT)})
ERROR = record({"error": record({"code": TEXT, "message": {"type": "string", "minLength": 1}}, {"suggestion": TEXT})})


def check(schema: Schema, value: Any) -> None:
    """Fail the test with the path and the reason when ``value`` does not keep ``schema``."""
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())
