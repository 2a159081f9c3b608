"""What the Lambda Cloud API takes, written down apart from client and simulator: JSON Schemas of request bodies.

From the facts of the vendor's OpenAPI document 1.10.0. Objects are closed: a key that the document does not have is a
failure. Only the operations that the collection uses.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
IDS: Schema = {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-f]{32}$"}, "minItems": 1}


def body(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object", "properties": {**required, **optional}, "required": sorted(required),
        "additionalProperties": False,
    }  # fmt: skip


def list_of(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, **more}


TAG = body({
    "key": {"type": "string", "pattern": "^[a-z][a-z0-9-:]+$", "maxLength": 55},
    "value": {"type": "string", "maxLength": 128},
})  # fmt: skip
RULE = body(
    {
        "protocol": {"enum": ["tcp", "udp", "icmp", "all"]},
        "source_network": TEXT,
        "description": {"type": "string", "maxLength": 128},
    },
    port_range={"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
)
LAUNCH = body(
    # "Currently, exactly one SSH key must be specified."
    {"region_name": TEXT, "instance_type_name": TEXT, "ssh_key_names": list_of(TEXT, minItems=1, maxItems=1)},
    file_system_names=list_of(TEXT),
    file_system_mounts=list_of(body({
        "mount_point": {"type": "string", "pattern": "^(/home|/lambda/nfs|/data)[//a-zA-Z0-9-]*$", "maxLength": 256},
        "file_system_id": TEXT,
    })),
    hostname={"type": "string", "pattern": "^[a-z0-9][0-9a-z-]{0,62}$"},
    name={"type": "string", "maxLength": 64},
    image={"oneOf": [body({"id": TEXT}), body({"family": TEXT})]},
    user_data={"type": "string", "maxLength": 1_000_000},
    tags=list_of(TAG),
    firewall_rulesets=list_of(body({"id": TEXT})),
)  # fmt: skip

# Method and path (a regular expression) -> the body; None where there is none.
REQUESTS: dict[str, Schema | None] = {
    "GET /instances": None,
    "GET /instance-types": None,
    "GET /images": None,
    "GET /regions": None,
    "GET /ssh-keys": None,
    "POST /ssh-keys": body({"name": {**TEXT, "maxLength": 64}}, public_key=TEXT),
    "DELETE /ssh-keys/[0-9a-f]+": None,
    # Only the listing has a hyphen.
    "GET /file-systems": None,
    "POST /filesystems": body(
        {"name": {"type": "string", "pattern": "^[a-zA-Z]+[0-9a-zA-Z-]*$", "maxLength": 60}, "region": TEXT}
    ),
    "DELETE /filesystems/[0-9a-f]+": None,
    "GET /firewall-rulesets": None,
    "GET /firewall-rulesets/global": None,
    "POST /firewall-rulesets": body({"name": {**TEXT, "maxLength": 64}, "region": TEXT, "rules": list_of(RULE)}),
    "PATCH /firewall-rulesets/([0-9a-f]+|global)": body({}, name={**TEXT, "maxLength": 64}, rules=list_of(RULE)),
    "DELETE /firewall-rulesets/[0-9a-f]+": None,
    "POST /instance-operations/launch": LAUNCH,
    "POST /instance-operations/restart": body({"instance_ids": IDS}),
    "POST /instance-operations/terminate": body({"instance_ids": IDS}),
}
