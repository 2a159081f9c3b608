"""Shapes shared by the simulator's modules: requests, answers and the records that the state file keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]

InstanceStatus = Literal["booting", "active", "unhealthy", "terminated", "terminating", "preempted"]
INSTANCE_STATUSES: tuple[InstanceStatus, ...] = (
    "booting",
    "active",
    "unhealthy",
    "terminated",
    "terminating",
    "preempted",
)

Delivery = Literal["full", "truncated", "dropped", "hung"]
"""How an answer travels: whole, cut at half its length, not at all, or not at all after a long wait."""


@dataclass(frozen=True)
class Request:
    """One HTTP request as the router sees it. ``headers`` has lower-case keys; ``query`` keeps repeated keys."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    base_url: str


@dataclass
class Response:
    """One HTTP answer and how it travels; ``wait_seconds`` passes before anything is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = "full"
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """A routed and validated API call: what the operations get."""

    params: Mapping[str, str]
    query: Mapping[str, list[str]]
    body: Json
    base_url: str

    def first(self, key: str) -> str | None:
        """The first value of a query parameter, or None."""
        values = self.query.get(key)
        return values[0] if values else None


@dataclass(frozen=True)
class Page:
    """An answer whose ``page_token`` stands next to ``data`` (audit events)."""

    data: list[Json]
    page_token: str | None


@dataclass
class InstanceRecord:
    """A rented instance. Times are seconds since the epoch; ``reads`` counts reads in the present status."""

    id: str
    region: str
    instance_type: str
    ssh_key_names: list[str]
    image_family: str
    jupyter_token: str
    launched_at: float
    status_at: float
    status: InstanceStatus = "booting"
    name: str | None = None
    hostname: str = ""
    hostname_given: bool = False
    """Whether the launch chose the host name; the API shows one it made up only when there is an address."""
    file_systems: list[Json] = field(default_factory=list)
    explicit_mounts: bool = False
    tags: list[Json] = field(default_factory=list)
    firewall_rulesets: list[str] = field(default_factory=list)
    ip: str | None = None
    private_ip: str | None = None
    reads: int = 0
    ready_at: float | None = None
    restarting: bool = False
    host_gone: bool = False
    cluster_id: str | None = None
    pinned: bool = False
    """The status was set from the control endpoint and stays until an API call changes it."""
    hostless: bool = False
    """Seeded from the control endpoint: no backend knows it and it takes no capacity."""
    overrides: Json = field(default_factory=dict)
    omit: list[str] = field(default_factory=list)


@dataclass
class SshKeyRecord:
    """A registered public key; launch takes ``name``."""

    id: str
    name: str
    public_key: str


@dataclass
class FileSystemRecord:
    """A persistent file system. It counts as in use until both release conditions have passed."""

    id: str
    name: str
    region: str
    created: str
    bytes_used: int = 0
    release_reads: int = 0
    release_at: float = 0.0


@dataclass
class RulesetRecord:
    """A regional firewall ruleset."""

    id: str
    name: str
    region: str
    created: str
    rules: list[Json] = field(default_factory=list)


@dataclass
class FabricRecord:
    """A fabric partition of bare-metal machines."""

    id: str
    name: str
    region: str
    created: str
    workspace_id: str


@dataclass
class TicketRecord:
    """A support ticket with its attachments (metadata only)."""

    id: str
    subject: str
    description: str
    type: str
    created_at: str
    updated_at: str
    status: str = "open"
    severity: str | None = None
    resolved_at: str | None = None
    comments: list[Json] = field(default_factory=list)
    attachments: dict[str, Json] = field(default_factory=dict)
