"""Configuration of a simulator: settings that may change while it runs, and what is fixed at the start."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from simulator.lambda_cloud.catalogue import DEFAULT_TYPES, InstanceType, check_capacity, rehearsal_type

ACCOUNTS = ("active", "inactive", "invalid-address")


@dataclass
class Settings:
    """What a test or an operator may change at run time. Times are seconds; ``*_reads`` are reads of the object."""

    account: str = "active"
    """``inactive`` refuses every call, ``invalid-address`` refuses what costs money (both 403)."""
    rate_limit: bool = False
    """Answer 429 when a client is faster than the intervals below; pacing is counted in any case."""
    request_interval: float = 1.0
    launch_interval: float = 12.0
    rate_tolerance: float = 0.05
    retry_after: bool = True
    """Send Retry-After with a 429 of the rate limit; whether the real service does is unknown."""
    address_seconds: float = 0.0
    """The address shows at the earliest this long after launch (real: 22 to 31 s)."""
    boot_seconds: float = 0.0
    """Active at the earliest this long after launch (real: 113 to 857 s)."""
    active_lag_seconds: float = 0.0
    """How long the status lags behind a host that is ready (real: 27 to 62 s)."""
    active_at_address: bool = False
    """The opposite fault: active as soon as there is an address, before the host answers."""
    terminating_reads: int = 1
    terminating_seconds: float = 0.0
    terminated_reads: int = 1
    terminated_seconds: float = 0.0
    release_reads: int = 1
    """A file system stays in use for this many reads (and seconds) after its last instance has ended."""
    release_seconds: float = 0.0
    instance_quota: int | None = None
    file_system_quota: int | None = None
    ruleset_quota: int | None = None
    listing_lag_seconds: float = 0.0
    """The list of instances shows one at the earliest this long after its launch."""
    drop_tags: bool = False
    """Forget the tags of a launch: one client's author saw the provider do so."""
    drop_names: bool = False
    null_optionals: bool = False
    """Show unset optional keys as null instead of leaving them out."""
    cluster_members_in_plain_list: bool = True
    page_size: int = 50

    def change(self, values: Mapping[str, Any]) -> None:
        """Set several settings, all or none; raises ValueError naming the key and what it takes."""
        kinds = typing.get_type_hints(Settings)
        for key, value in values.items():
            if key not in kinds:
                raise ValueError(f"settings: unknown key {key!r}; known: {', '.join(sorted(kinds))}")
            if not _fits(value, kinds[key]):
                raise ValueError(f"settings.{key}: expected {_kind(kinds[key])}, found {value!r}")
        if values.get("account", self.account) not in ACCOUNTS:
            raise ValueError(f"settings.account: expected one of {', '.join(ACCOUNTS)}")
        if values.get("page_size", self.page_size) < 1:
            raise ValueError("settings.page_size: expected at least 1")
        for key, value in values.items():
            setattr(self, key, value)


def _kind(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON or YAML fits an annotation; whole numbers pass as floats, never booleans."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, int | float) and value < 0:
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


@dataclass
class Config:
    """Everything a simulator needs at its start. ``port`` 0 takes a free one; ``state_file`` None keeps nothing."""

    api_key: str = "secret_simulator_key"
    control_token: str = "control"
    host: str = "127.0.0.1"
    port: int = 0
    state_file: Path | None = None
    backend: str = "fake"
    backend_options: dict[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    instance_types: dict[str, InstanceType] = field(
        default_factory=lambda: {entry.name: entry for entry in DEFAULT_TYPES}
    )
    capacity: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """Replaces the catalogue's capacity of the named types: type to region to free instances."""

    def merge_file(self, path: Path) -> None:
        """Add a YAML (or JSON) file with the keys ``settings``, ``instance_types``, ``capacity``,
        ``backend_options``. Raises ValueError naming the file, the key and what is wrong with it.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: cannot be read: {error}") from error
        if not isinstance(content, Mapping):
            raise ValueError(f"{path}: expected a mapping at the top")
        try:
            self.merge(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def merge(self, content: Mapping[str, Any]) -> None:
        """Add settings, instance types, capacity and backend options; raises ValueError."""
        kinds = {"settings": Mapping, "instance_types": list, "capacity": Mapping, "backend_options": Mapping}
        for key, value in content.items():
            if key not in kinds:
                raise ValueError(f"unknown key {key!r}; known: {', '.join(sorted(kinds))}")
            if not isinstance(value, kinds[key]):
                raise ValueError(f"{key}: expected a {'list' if kinds[key] is list else 'mapping'}")
        self.settings.change(content.get("settings", {}))
        for entry in content.get("instance_types", []):
            added = rehearsal_type(entry)
            if added.name in self.instance_types:
                raise ValueError(f"instance type {added.name} is already in the catalogue")
            self.instance_types[added.name] = added
        for name, regions in content.get("capacity", {}).items():
            if name not in self.instance_types:
                raise ValueError(f"capacity: unknown instance type {name!r}")
            self.capacity[name] = check_capacity(name, regions)
        self.backend_options.update(content.get("backend_options", {}))
