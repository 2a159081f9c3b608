# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of an acceptance as one text for a provider's support: which hardware, what was found, what was logged.

Pure. Only what a provider needs is in it, named here one by one: no addresses, no variables, no packages of others; and
what looks like a secret in the words of a tool is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import redact
from ansible_collections.glm.fleet.plugins.plugin_utils.host import gpu_states
from ansible_collections.glm.fleet.plugins.plugin_utils.report import AcceptanceReport

# What the inventory knows of an instance; a provider finds it by these.
IDENTITY = ("provider", "id", "name", "instance_type", "region")
_MOST_LOG_LINES = 200
_USER_OF_URL = re.compile(r"(?<=://)[^/\s@]+@")
_PACKAGES = (
    "nvidia-fabricmanager",
    "libnvidia-compute",
    "nvidia-open",
    "cuda-drivers",
    "nvlsm",
    "amdgpu-dkms",
    "amd-smi",
)


def text(report: AcceptanceReport, gathered: Mapping[str, Any], variables: Mapping[str, Any]) -> str:
    """The text; ``variables`` are those of the host, of which only IDENTITY is used."""
    lines = [*_head(report, variables), *_hardware(gathered), *_versions(gathered), *_findings(report), *_log(gathered)]
    made = "\n".join(finding.printable(line) for line in lines) + "\n"
    return _USER_OF_URL.sub("********@", redact(made, ()))


def _head(report: AcceptanceReport, variables: Mapping[str, Any]) -> Iterator[str]:
    yield f"Acceptance of {report['host']}: {'passed' if report['ok'] else 'FAILED'} at {report['finished_at']}"
    for name in IDENTITY:
        value = variables.get(f"glm_host_{name}")
        if isinstance(value, (str, int)) and str(value):
            yield f"{name.replace('_', ' ')}: {value}"


def _hardware(gathered: Mapping[str, Any]) -> Iterator[str]:
    facts, states = gathered["facts"], {gpu_states.bus(state): state for state in gathered["health"]["gpu_states"]}
    shown = {gpu_states.bus(entry): entry for entry in facts["gpus"]}
    yield from ("", "GPUs (index, product, bus, UUID, serial, VBIOS)")
    for entry in facts["gpus"]:
        state = states.get(gpu_states.bus(entry), {})
        yield _row(entry.get("index"), entry.get("name"), entry.get("bus_id"), entry.get("uuid"), state)
    for bus, state in states.items():
        if bus not in shown:
            yield _row(None, "not in the driver's table", state["bus_id"], state["uuid"], state)
    for entry in facts["pci"]["gpus"]:
        if gpu_states.bus(entry) not in {*shown, *states}:
            yield _row(None, f"{entry['vendor']} {entry['device']} on the PCI bus only", entry.get("bus_id"), None, {})


def _row(index: object, name: object, bus_id: object, uuid: object, state: Mapping[str, Any]) -> str:
    words = (index, name, bus_id, uuid or state.get("uuid"), state.get("serial"), state.get("vbios"))
    return "  " + ", ".join("?" if word in (None, "") else str(word) for word in words)


def _versions(gathered: Mapping[str, Any]) -> Iterator[str]:
    facts, health = gathered["facts"], gathered["health"]
    driver = facts["driver"]
    named = {
        "driver": driver.get("version"),
        "loaded module": " ".join(str(word) for word in (driver.get("module_version"), health.get("flavour")) if word),
        "CUDA of the driver": driver.get("cuda_version"),
        "fabric": (facts.get("fabric") or {}).get("state"),
        "kernel": facts.get("kernel"),
        "distribution": (facts.get("distribution") or {}).get("pretty"),
        "Docker": (facts.get("docker") or {}).get("version"),
        "boot": facts.get("boot_id"),
    }
    yield from ("", "Versions")
    yield from (f"  {name}: {value or '?'}" for name, value in named.items())
    packages = health.get("packages") or {}
    yield from (f"  {name} {packages[name]['version']}" for name in sorted(packages) if name.startswith(_PACKAGES))


def _findings(report: AcceptanceReport) -> Iterator[str]:
    for title, outcomes in (("Failed", ("failed",)), ("Not proven", ("not_proven",)), ("Passed", ("passed",))):
        found = [entry for entry in report["checks"] if entry["outcome"] in outcomes]
        if found:
            yield from ("", title)
        for entry in found:
            expected = (
                f"expected {entry['expected']}, found " if entry["expected"] and entry["outcome"] == "failed" else ""
            )
            yield f"  {entry['check']}: {expected}{entry['found']}"


def _log(gathered: Mapping[str, Any]) -> Iterator[str]:
    log = gathered["health"]["kernel_log"]
    rows: Sequence[Mapping[str, Any]] = log["rows"][-_MOST_LOG_LINES:]
    yield from (
        "",
        f"Lines of the kernel log about hardware since the boot ({len(rows)} of {len(log['rows']) + log['left_out']})",
    )
    yield from (f"  {row['line']}" + (f" ({row['count']} times)" if row["count"] > 1 else "") for row in rows)
    yield from (f"  not read: {problem}" for problem in log["problems"])
