# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the catalogue says about an engine: releases, images, options, start and stop, what clients see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Optional


@dataclass(frozen=True)
class Variant:
    """What an image variant is built for. ``runtime`` is cuda or rocm; ``architectures`` restricts it to these.

    ``min_driver`` is None where no oldest driver is published.
    """

    runtime: Literal["cuda", "rocm"]
    version: Optional[str] = None
    min_driver: Optional[str] = None
    architectures: Optional[list[str]] = None

    @property
    def vendor(self) -> str:
        """Whose accelerators it runs on."""
        return {"cuda": "nvidia", "rocm": "amd"}[self.runtime]


@dataclass(frozen=True)
class Image:
    """A published image: its tag, and its repository where that is not the engine's own. A text is a tag."""

    tag: str
    repository: Optional[str] = None

    @classmethod
    def of_text(cls, text: str) -> Image:
        """The image whose tag the text is."""
        return cls(text)


@dataclass(frozen=True)
class Transformers:
    """Bounds that an engine version's own metadata sets for transformers."""

    at_least: str
    below: Optional[str] = None


@dataclass(frozen=True)
class EngineVersion:
    """One release: what it promises, and its images by variant (of those that fit, the first is the default)."""

    transformers: Transformers
    images: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What an engine calls the options that the planner must know."""

    model: Optional[str]
    served_model_name: str
    host: str
    port: str
    context: str
    memory_fraction: str
    tensor: str
    pipeline: str
    data: str
    data_attention: Optional[str]
    data_attention_size: Optional[str]
    expert_size: Optional[str]
    expert_switch: Optional[str]
    expert_backend: Optional[str]
    kv_cache_dtype: str
    speculation: str
    tool_parser: str
    reasoning_parser: str


@dataclass(frozen=True)
class KvFormat:
    """A rule: with this KV cache dtype (from this version, on these architectures) the cache has that layout.

    ``sparse``: only for models with (true) or without (false) sparse attention.
    """

    dtype: str
    format: str
    since: Optional[str] = None
    architectures: Optional[list[str]] = None
    sparse: Optional[bool] = None


@dataclass(frozen=True)
class Timeouts:
    """How long the phases of a start may take."""

    load_bytes_per_second: int
    compile_seconds: int
    capture_seconds: int
    warmup_seconds: int
    margin_seconds: int


@dataclass(frozen=True)
class Stop:
    """How an engine ends: seconds it gets, and exit statuses or signals that are no failure."""

    seconds: int
    success_exit_status: list[str]


@dataclass(frozen=True)
class EngineContract:
    """What clients see of an engine."""

    reasoning_field: str
    health_path: str


@dataclass(frozen=True)
class EnvValue:
    """An environment variable's value, for versions ``since`` (included) to ``below`` (excluded)."""

    value: str
    since: Optional[str] = None
    below: Optional[str] = None


@dataclass(frozen=True)
class Secret:
    """How the API key reaches an engine without showing in its arguments."""

    kind: str
    name: Optional[str] = None
    option: Optional[str] = None
    container_path: Optional[str] = None


@dataclass(frozen=True)
class Package:
    """The engine as a Python package: the Python it is for, the program it installs, extra indexes by vendor.

    ``disk_bytes`` is what it takes with all it needs.
    """

    name: str
    python: str
    command: list[str]
    disk_bytes: int
    index_urls: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MultiNode:
    """Arguments of an engine that spans hosts; ``$nodes``, ``$rank``, ``$head``, ``$port``, ``$head_port`` are filled.

    ``worker`` is only for the hosts without an API of their own; ``port`` is where the hosts meet.
    """

    args: dict[str, Any]
    worker: dict[str, Any]
    port: int


@dataclass(frozen=True)
class Engine:
    """One inference engine."""

    name: str
    default_version: str
    default_reason: str
    preference: int
    preference_reason: str
    image: str
    image_rule: str
    command: list[str]
    options: Options
    speculation_with_mtp: list[str]
    default_memory_fraction: float
    overhead_inside_gib: float
    overhead_outside_gib: float
    requires_full_context: bool
    secret: Secret
    # Options the plan sets, with what to use instead; options that documents name in vain, with what to use instead.
    managed_options: dict[str, str]
    replaced_options: dict[str, str]
    # New name of an option: the name it has in versions without the new one.
    renames: dict[str, str]
    env: dict[str, EnvValue]
    cache_env: dict[str, str]
    kv_formats: list[KvFormat]
    timeouts: Timeouts
    stop: Stop
    contract: EngineContract
    package: Package
    multi_node: MultiNode
    image_bytes: int
    versions: dict[str, EngineVersion]
    # What an image gets whose own transformers does not know the model.
    transformers_fix: Optional[str] = None
