"""What the simulated provider knows, and the file that carries it over a restart."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simulator.lambda_cloud.types import (
    FabricRecord,
    FileSystemRecord,
    InstanceRecord,
    Json,
    RulesetRecord,
    SshKeyRecord,
    TicketRecord,
)

VERSION = 1

DEFAULT_FIREWALL_RULES: tuple[Json, ...] = (
    {
        "protocol": "tcp",
        "port_range": [22, 22],
        "source_network": "0.0.0.0/0",
        "description": "Allow SSH from anywhere",
    },
    {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": "Allow ICMP (ping) from anywhere"},
)


@dataclass
class State:
    """Every record of one account, by id. Public keys are kept; API keys and user data never are."""

    instances: dict[str, InstanceRecord] = field(default_factory=dict)
    ssh_keys: dict[str, SshKeyRecord] = field(default_factory=dict)
    file_systems: dict[str, FileSystemRecord] = field(default_factory=dict)
    rulesets: dict[str, RulesetRecord] = field(default_factory=dict)
    fabrics: dict[str, FabricRecord] = field(default_factory=dict)
    tickets: dict[str, TicketRecord] = field(default_factory=dict)
    global_rules: list[Json] = field(default_factory=lambda: [dict(rule) for rule in DEFAULT_FIREWALL_RULES])
    audit_events: list[Json] = field(default_factory=list)
    capacity_used: dict[str, int] = field(default_factory=dict)
    """Hosts rented now, keyed ``type/region``."""


_RECORDS: dict[str, Any] = {
    "instances": InstanceRecord,
    "ssh_keys": SshKeyRecord,
    "file_systems": FileSystemRecord,
    "rulesets": RulesetRecord,
    "fabrics": FabricRecord,
    "tickets": TicketRecord,
}


def load(path: Path) -> State:
    """Read a state file; an absent one is an empty account. Raises ValueError when it is damaged or too old."""
    if not path.exists():
        return State()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}, expected {VERSION}")
        values = dict(content["state"])
        for key, record in _RECORDS.items():
            values[key] = {name: record(**item) for name, item in values[key].items()}
        return State(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a state file of this simulator ({error}); remove it for an empty account"
        ) from error


def save(path: Path, state: State) -> None:
    """Write the state so that a reader sees the old file or the new one, mode 0600, directory made when absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": VERSION, "state": asdict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
