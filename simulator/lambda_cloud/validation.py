"""Declarative rules for request bodies, and the check that turns a broken rule into an invalid-parameters answer.

Limits and patterns come from the vendor's OpenAPI document 1.10.0. Unknown keys are refused: the real service may
ignore them, but a client that sends one has a mistake that a rehearsal should show.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulator.lambda_cloud.errors import invalid
from simulator.lambda_cloud.types import Json

USER_DATA_LIMIT = 1024 * 1024
RESERVED_TAG_PREFIX = "lambda-ai-"


class Rule(Protocol):
    """Yields a sentence for each way in which ``value``, found at ``path``, breaks the rule."""

    def problems(self, value: Any, path: str) -> Iterator[str]: ...


@dataclass(frozen=True)
class Text:
    """A string with length limits (in characters, or bytes for ``max_bytes``) and a full-match pattern."""

    minimum: int = 0
    maximum: int | None = None
    pattern: str | None = None
    max_bytes: int | None = None
    choices: tuple[str, ...] = ()

    def problems(self, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{path}: Input should be a valid string"
            return
        if len(value) < self.minimum:
            yield f"{path}: String should have at least {self.minimum} character(s)"
        if self.maximum is not None and len(value) > self.maximum:
            yield f"{path}: String should have at most {self.maximum} characters"
        if self.max_bytes is not None and len(value.encode()) > self.max_bytes:
            yield f"{path}: Value should have at most {self.max_bytes} bytes"
        if self.pattern is not None and not re.fullmatch(self.pattern, value):
            yield f"{path}: String should match pattern '{self.pattern}'"
        if self.choices and value not in self.choices:
            yield f"{path}: Input should be one of {', '.join(self.choices)}"


@dataclass(frozen=True)
class Integer:
    """A whole number within limits; a boolean is not a number."""

    minimum: int
    maximum: int | None = None

    def problems(self, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{path}: Input should be a valid integer"
        elif value < self.minimum:
            yield f"{path}: Input should be greater than or equal to {self.minimum}"
        elif self.maximum is not None and value > self.maximum:
            yield f"{path}: Input should be less than or equal to {self.maximum}"


@dataclass(frozen=True)
class ListOf:
    """A list whose items all keep one rule."""

    item: Rule
    minimum: int = 0
    maximum: int | None = None

    def problems(self, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path}: Input should be a valid list"
            return
        if len(value) < self.minimum or (self.maximum is not None and len(value) > self.maximum):
            limit = f"{self.minimum}" if self.minimum == self.maximum else f"{self.minimum} to {self.maximum}"
            yield f"{path}: List should have {limit} item(s), not {len(value)}"
        for index, item in enumerate(value):
            yield from self.item.problems(item, f"{path}.{index}")


@dataclass(frozen=True)
class Record:
    """An object with required and optional keys and no others."""

    required: Mapping[str, Rule] = field(default_factory=dict)
    optional: Mapping[str, Rule] = field(default_factory=dict)

    def problems(self, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path or 'body'}: Input should be a valid object"
            return
        prefix = f"{path}." if path else ""
        for key in self.required:
            if key not in value:
                yield f"{prefix}{key}: Field required"
        for key, item in value.items():
            rule = self.required.get(key) or self.optional.get(key)
            if rule is None:
                yield f"{prefix}{key}: Extra inputs are not permitted"
            elif item is not None or key in self.required:
                yield from rule.problems(item, f"{prefix}{key}")


@dataclass(frozen=True)
class OneOf:
    """A value that keeps at least one of several rules."""

    rules: tuple[Rule, ...]

    def problems(self, value: Any, path: str) -> Iterator[str]:
        reports = [list(rule.problems(value, path)) for rule in self.rules]
        if all(reports):
            yield min(reports, key=len)[0]


class TagKey(Text):
    """A tag key: its pattern, and a prefix that the provider keeps for itself (third-party report)."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        yield from super().problems(value, path)
        if isinstance(value, str) and value.startswith(RESERVED_TAG_PREFIX):
            yield f"{path}: The prefix '{RESERVED_TAG_PREFIX}' is reserved"


class Network(Text):
    """An IPv4 network in CIDR form; a bare address means /32."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        try:
            ipaddress.IPv4Network(value)
        except (ValueError, TypeError):
            yield f"{path}: Input is not a valid IPv4 network"


class FirewallRule(Record):
    """A rule with its port range: needed for tcp and udp, refused for icmp, in order."""

    def problems(self, value: Any, path: str) -> Iterator[str]:
        found = list(super().problems(value, path))
        yield from found
        if found:
            return
        ports = value.get("port_range")
        if value["protocol"] == "icmp" and ports is not None:
            yield f"{path}.port_range: Not allowed when protocol is icmp"
        elif value["protocol"] != "icmp" and ports is None:
            yield f"{path}.port_range: Field required unless protocol is icmp"
        elif ports is not None and ports[0] > ports[1]:
            yield f"{path}.port_range: The first port is greater than the last"


def check(rule: Rule, body: Any) -> Json:
    """Return ``body`` when it keeps ``rule``, else raise ApiError with every problem in one message."""
    problems = list(rule.problems(body, ""))
    if problems:
        raise invalid("; ".join(problems))
    checked: Json = {key: value for key, value in body.items() if value is not None}
    return checked


NAME = Text(0, 64)
IDENTIFIER = Text(1, 128)
FIREWALL_RULE = FirewallRule(
    required={
        "protocol": Text(choices=("tcp", "udp", "icmp", "all")),
        "source_network": Network(),
        "description": Text(0, 128),
    },
    optional={"port_range": ListOf(Integer(1, 65535), 2, 2)},
)
RULES = ListOf(FIREWALL_RULE)

LAUNCH = Record(
    required={
        "region_name": Text(1),
        "instance_type_name": Text(1),
        "ssh_key_names": ListOf(Text(1), 1, 1),
    },
    optional={
        "file_system_names": ListOf(Text(1)),
        "file_system_mounts": ListOf(
            Record(
                required={
                    "mount_point": Text(1, 256, r"(/home|/lambda/nfs|/data)[/a-zA-Z0-9-]*"),
                    "file_system_id": IDENTIFIER,
                }
            )
        ),
        "hostname": Text(1, 63, r"[a-z0-9][0-9a-z-]{0,62}"),
        "name": NAME,
        "image": OneOf((Record(required={"id": IDENTIFIER}), Record(required={"family": Text(1)}))),
        "user_data": Text(max_bytes=USER_DATA_LIMIT),
        "tags": ListOf(Record(required={"key": TagKey(2, 55, r"[a-z][a-z0-9-:]+"), "value": Text(0, 128)})),
        "firewall_rulesets": ListOf(Record(required={"id": IDENTIFIER})),
        # In no schema, but old clients send it and the service lets 1 pass.
        "quantity": Integer(1, 1),
    },
)
RENAME = Record(optional={"name": NAME})
INSTANCE_IDS = Record(required={"instance_ids": ListOf(Text(1), 1)})
SSH_KEY = Record(required={"name": Text(1, 64)}, optional={"public_key": Text(1, 4096)})
FILE_SYSTEM = Record(required={"name": Text(1, 60, r"[a-zA-Z]+[0-9a-zA-Z-]*"), "region": Text(1)})
FIREWALL_RULES = Record(required={"data": RULES})
RULESET = Record(required={"name": Text(1, 64), "region": Text(1), "rules": RULES})
RULESET_CHANGE = Record(optional={"name": Text(1, 64), "rules": RULES})
GLOBAL_RULESET_CHANGE = Record(optional={"rules": RULES})
FABRIC_NAME = Text(1, 32, r"[a-z0-9][a-z0-9-]{0,31}")
FABRIC = Record(required={"name": FABRIC_NAME, "region": Text(1)}, optional={"workspace_id": IDENTIFIER})
FABRIC_CHANGE = Record(required={"name": FABRIC_NAME})
TICKET_TYPES = ("service_request", "incident", "automated_event")
TICKET_STATUSES = ("open", "on_hold", "pending", "solved", "confirm_solved")
TICKET_SEVERITIES = ("sev_1", "sev_2", "sev_3")
TICKET = Record(
    required={
        "subject": Text(1),
        "description": Text(1),
        "type": Text(choices=("incident", "service_request")),
    },
    optional={
        "severity": Text(choices=TICKET_SEVERITIES),
        "ip": Text(1),
        "instance_id": Text(1),
        "cluster_id": Text(1),
    },
)
TICKET_CHANGE = Record(
    optional={
        "status": Text(choices=("solved",)),
        "severity": Text(choices=TICKET_SEVERITIES),
        "comment": Record(required={"body": Text(1)}),
    }
)
ATTACHMENT = Record(required={"filename": Text(1, 255), "content_type": Text(1), "size_bytes": Integer(1)})
