# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform table: what a host's accelerators need of it, found by PCI device id (``catalog/platforms.yml``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

CATALOG = Path(__file__).resolve().parents[3] / "catalog"
# The first driver branch for Hopper; the table's boards of older branches are older.
_HOPPER = 525
MODULES = ("any", "open")
FABRICS = ("none", "fabricmanager", "nvlsm", "imex")


class PlatformError(Exception):
    """The table is malformed, or the host's accelerators are not in it; fit for a person."""


@dataclass(frozen=True)
class Platform:
    """One row: see the head of the file. ``min_branch`` is the major version of the driver."""

    name: str
    vendor: str
    devices: tuple[str, ...]
    modules: str
    fabric: str
    min_branch: int


@lru_cache(maxsize=4)
def load(root: Path = CATALOG) -> tuple[Platform, ...]:
    """All rows. Raises PlatformError for an unknown key, word or a device that stands twice."""
    document = yaml.safe_load((root / "platforms.yml").read_text(encoding="utf-8"))
    rows = tuple(_row(entry) for entry in document["platforms"])
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        for device in row.devices:
            other = seen.setdefault((row.vendor, device), row.name)
            if other != row.name:
                raise PlatformError(f"platforms.yml: device {device} is both {other} and {row.name}")
    return rows


def _row(entry: Mapping[str, Any]) -> Platform:
    names = {field.name for field in fields(Platform)}
    if set(entry) != names:
        raise PlatformError(f"platforms.yml: {entry.get('name')}: expected the keys {', '.join(sorted(names))}")
    if entry["modules"] not in MODULES or entry["fabric"] not in FABRICS:
        raise PlatformError(f"platforms.yml: {entry['name']}: unknown modules or fabric")
    if not all(isinstance(device, str) and len(device) == 4 for device in entry["devices"]):
        raise PlatformError(f"platforms.yml: {entry['name']}: devices are four hexadecimal digits, quoted")
    return Platform(**{**entry, "devices": tuple(entry["devices"])})


def fabric_of(facts: Mapping[str, Any], platform: Platform) -> str:
    """What brings NVLink up on this host. A share of a board's GPUs comes without its switches.

    The switches of NVLink 5 are not on the PCI bus: there more than one board tells.
    """
    needed = {"fabricmanager": facts["pci"]["nvswitches"] > 0, "nvlsm": len(facts["pci"]["gpus"]) > 1}
    return platform.fabric if needed.get(platform.fabric, True) else "none"


def tells_fabric(facts: Mapping[str, Any]) -> bool:
    """Whether the boards report the state of their fabric: from Hopper on; nvidia-smi has N/A for an A100."""
    try:
        return of_host(facts).min_branch >= _HOPPER
    except PlatformError:
        return True


def of_host(facts: Mapping[str, Any], known: tuple[Platform, ...] | None = None) -> Platform:
    """The platform of a host by ``gpu_facts.pci``. Raises PlatformError when it has none, two, or an unknown one."""
    known = load() if known is None else known
    boards = {(gpu["vendor"], _device(gpu["device"])) for gpu in facts["pci"]["gpus"]}
    rows = {row for row in known for vendor, device in boards if row.vendor == vendor and device in row.devices}
    if len(rows) == 1 and len(boards) == len([b for b in boards if any(_has(row, b) for row in rows)]):
        return rows.pop()
    if not boards:
        raise PlatformError("expected accelerators on the PCI bus, found none. Next: lspci -nn on the host")
    found = ", ".join(sorted(f"{vendor} {device}" for vendor, device in boards))
    names = ", ".join(row.name for row in known)
    raise PlatformError(
        f"expected accelerators of one kind out of {names}, found PCI devices {found}. Next: take another instance "
        "type, or prepare this host yourself and leave the role for its driver out"
    )


def _has(row: Platform, board: tuple[str, str]) -> bool:
    return row.vendor == board[0] and board[1] in row.devices


def _device(text: str) -> str:
    return text.lower().removeprefix("0x").zfill(4)
