# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of every report: what ``docs/schemas/report.schema.json`` is made from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict, Union

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding

SCHEMA: Literal[2] = 2


class ServedNode(TypedDict):
    """Where a host stands among those that serve one replica together."""

    count: int
    rank: int
    head_address: str | None


class ServedModel(TypedDict):
    """Which model, at which pinned revision."""

    name: str
    precision: str
    repository: str
    revision: str | None


class ServedEngine(TypedDict):
    """Which engine."""

    name: str
    version: str


class ServedAccelerator(TypedDict):
    """On how many GPUs of which kind."""

    name: str
    count: int


class Served(TypedDict, total=False):
    """What was served, without how: names, versions and pinned revisions. Empty when that is not known."""

    replica: int
    node: ServedNode
    model: ServedModel
    engine: ServedEngine
    image: str | None
    accelerator: ServedAccelerator
    served_model_name: str


class Restarts(TypedDict):
    """How often the engine ended by itself and was started again, as its host keeps it for a month."""

    count: int
    recent: int
    """Those of the last day and of what runs now. Three and more fail a run."""
    last_at: str | None
    """UTC, to the second, ISO 8601."""
    last_cause: str


class ServedProcess(TypedDict, total=False):
    """What was seen to run, whatever the plan says. What could not be seen is missing."""

    engine: ServedEngine
    """Which engine said which release of itself."""
    image: str
    """What the container was made of."""
    digests: list[str]
    """Digests of that image."""
    since: str
    """When it began to serve: UTC, to the second, ISO 8601."""
    command_sha256: str
    """Checksum of the words of its command."""
    release: int
    """Number of the host's release that this is; missing where it is none."""
    restarts: Restarts


class ServedEndpoint(TypedDict, total=False):
    """Where it was served. Empty on a host that only computes."""

    url: str
    model: str | None
    authorities: str
    """File on the controller with the certificates that clients trust; empty for those that their machine trusts."""


class _HostReport(TypedDict):
    schema: Literal[2]
    host: str
    ok: bool
    checks: list[Finding]
    finished_at: str
    """UTC, to the second, ISO 8601."""


class VerifyReport(_HostReport):
    """Whether the endpoint of a replica keeps its promise: ``reports/<host>.json``."""

    kind: Literal["verify"]
    seconds: float
    endpoint: ServedEndpoint
    plan: Served
    running: NotRequired[ServedProcess]
    phase: NotRequired[str]
    """The task in which a host stopped before it was verified."""
    reason: NotRequired[str]
    """Why it was not verified."""


class AcceptanceReport(_HostReport):
    """Whether a host may serve: ``reports/<host>.acceptance.json``."""

    kind: Literal["acceptance"]
    strict: bool
    """Whether what could not be read counts against the host."""
    gathered: NotRequired[Mapping[str, Any]]
    """What was judged, in the file only: ``facts``, ``health`` and ``measured``."""


class FleetGateway(TypedDict):
    """A host that runs a gateway, and where clients reach it."""

    host: str
    url: str


class FleetReport(TypedDict):
    """All hosts of a run: ``reports/fleet.json``.

    ``ok`` only if there are hosts, every one is, no engine ends again and again, and there are no ``problems``.
    """

    schema: Literal[2]
    kind: Literal["fleet"]
    ok: bool
    hosts: list[VerifyReport]
    gateways: list[FleetGateway]
    """Those that this run brought up. With ``--limit`` it leaves them as they are, and names none."""
    problems: list[str]
    """What is wrong besides hosts: gateways that could not be brought up to date, and why."""
    finished_at: str
    """UTC, to the second, ISO 8601."""


class BenchmarkRun(TypedDict):
    """One run of the client."""

    name: str
    point: int | None
    repeat: int
    prompts: int
    parallel: int | None
    seed: int
    line: str
    """The client's command line."""
    seconds: float
    exit_status: int | None
    figures: Mapping[str, Any] | None
    """None when the run is no measurement."""
    problem: Finding | None
    result: Mapping[str, Any] | None
    """What the client wrote."""
    metrics: Mapping[str, Any]
    gpus: Mapping[str, Any]


class BenchmarkRecord(TypedDict):
    """What was measured, and all that it depends on: ``benchmarks/<id>.json``."""

    schema: Literal[2]
    kind: Literal["benchmark"]
    id: str
    host: str
    ok: bool
    trouble: Finding | None
    """Why it is no measurement: the first run that went wrong."""
    started_at: str
    finished_at: str
    seconds: float
    workload: Mapping[str, Any]
    plan: Mapping[str, Any]
    engine_says: Mapping[str, Any]
    client: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    runs: list[BenchmarkRun]
    quality: list[Finding]
    """What was asked before it was measured."""


Report = Union[VerifyReport, AcceptanceReport, FleetReport, BenchmarkRecord]


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """A moment, given as seconds since the epoch, in the same form."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
