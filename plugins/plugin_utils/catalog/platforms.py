# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platform table: what a host's accelerators need of it, found by PCI device id (``catalog/platforms.yml``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import ROOT

# The first driver branch for Hopper; the table's GPUs of older branches are older.
_HOPPER = 525


class PlatformError(Unmet):
    """The host's accelerators are not in the table; fit for a person."""


@dataclass(frozen=True)
class Platform:
    """One row: see the head of the file. ``min_branch`` is the major version of the driver.

    What a healthy GPU reports of its links: ``pcie`` has generation and width, ``nvlinks`` how many and the least GB/s
    of each in one direction; empty where nothing is expected.
    """

    name: str
    vendor: str
    devices: list[str]
    modules: Literal["any", "open"]
    fabric: Literal["none", "fabricmanager", "nvlsm", "imex"]
    min_branch: int
    pcie: list[int] = field(default_factory=list)
    nvlinks: list[int] = field(default_factory=list)
    floors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """What a container needs to use a vendor's GPUs: capabilities with their reasons.

    ``cache_env``: variables with folders of the cache for what libraries would write into the image itself.
    """

    capabilities: dict[str, str]
    cache_env: dict[str, str]


@dataclass(frozen=True)
class Table:
    """The whole file; ``containers`` by vendor."""

    platforms: list[Platform]
    containers: dict[str, Container]


@lru_cache(maxsize=4)
def _table(root: Path) -> Table:
    return record(Table, root / "platforms.yml")


def container_of(vendor: str, root: Path = ROOT) -> Container:
    """What a container needs to use this vendor's GPUs. Raises CatalogError when the table does not say."""
    known = _table(root).containers
    if vendor not in known:
        raise CatalogError(f"catalog/platforms.yml: containers has no {vendor}")
    return known[vendor]


@lru_cache(maxsize=4)
def load(root: Path = ROOT) -> list[Platform]:
    """All rows. Raises CatalogError, also for a device that stands in two."""
    rows = _table(root).platforms
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        for device in row.devices:
            if len(device) != 4:
                raise CatalogError(f"catalog/platforms.yml: {row.name}: devices are four hexadecimal digits, quoted")
            other = seen.setdefault((row.vendor, device), row.name)
            if other != row.name:
                raise CatalogError(f"catalog/platforms.yml: device {device} is both {other} and {row.name}")
    return rows


def fabric_of(facts: Mapping[str, Any], platform: Platform) -> str:
    """What starts NVLink on this host. A share of a baseboard's GPUs comes without its switches.

    The switches of NVLink 5 are not on the PCI bus: there more than one GPU means that it has some.
    """
    needed = {"fabricmanager": facts["pci"]["nvswitches"] > 0, "nvlsm": len(facts["pci"]["gpus"]) > 1}
    return platform.fabric if needed.get(platform.fabric, True) else "none"


def reports_fabric(facts: Mapping[str, Any]) -> bool:
    """Whether the GPUs report the state of their fabric: from Hopper on; nvidia-smi has N/A for an A100."""
    try:
        return of_host(facts).min_branch >= _HOPPER
    except PlatformError:
        return True


def of_host(facts: Mapping[str, Any]) -> Platform:
    """The platform of a host by ``gpu_facts.pci``. Raises PlatformError when it has none, two, or an unknown one."""
    found = {(gpu["vendor"], _device(gpu["device"])) for gpu in facts["pci"]["gpus"]}
    rows = [row for row in load() if any(_has(row, kind) for kind in found)]
    if len(rows) == 1 and all(_has(rows[0], kind) for kind in found):
        return rows[0]
    if not found:
        raise PlatformError("accelerators on the PCI bus", "none", "lspci -nn on the host")
    devices = ", ".join(sorted(f"{vendor} {device}" for vendor, device in found))
    names = ", ".join(row.name for row in load())
    raise PlatformError(
        f"accelerators of one kind out of {names}",
        f"PCI devices {devices}",
        "choose another instance type, or prepare this host yourself and skip the role for its driver",
    )


def _has(row: Platform, kind: tuple[str, str]) -> bool:
    return row.vendor == kind[0] and kind[1] in row.devices


def _device(text: str) -> str:
    return text.lower().removeprefix("0x").zfill(4)
