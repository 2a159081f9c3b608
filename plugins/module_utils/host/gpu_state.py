# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state that a driver reports of each GPU: what it needs, how it is set, its links, what slows it down.

This module util is PRIVATE to the collection. Pure parsing plus reads below a given root. What a driver does not say is
None, never the word of a healthy GPU.

Sources: ``nvidia-smi -q -x`` and ``nvidia-smi nvlink --status`` (nvidia-smi(1)), elements as drivers of the branches
535 to 590 print them; for AMD the driver's own files (kernel documentation, gpu/amdgpu: driver-misc, ras;
Documentation/ABI/testing/sysfs-bus-pci).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional, TypedDict
from xml.etree import ElementTree

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu

NOTHING_TO_DO = "None"
NOT_SUPPORTED = "N/A"
# What stands in place of an answer. "N/A" is one: this GPU has no such thing.
_NO_ANSWER = re.compile(
    r"|requested functionality.*|not available|\[?(?:unknown|insufficient|gpu (?:is|requires)).*|err!", re.IGNORECASE
)
_LOST = re.compile(r"GPU is lost|requires reset", re.IGNORECASE)
_SLOWED = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
_LINK = re.compile(r"^\s+Link (\d+): (?:([\d.]+) GB/s|<?inactive>?)\s*$", re.IGNORECASE)
_GPU_LINE = re.compile(r"^GPU (\d+): .*\(UUID: (\S+?)\)")
_NUMBER = re.compile(r"[\d.]+")
# Transfers of a lane, by generation of PCIe.
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}
_PAGE_FLAGS = {"R": "retired", "P": "pending", "F": "failed"}


class State(TypedDict):
    """One GPU. Everything is None where its driver does not say it, and ``N/A`` where that GPU has no such thing."""

    bus_id: str
    uuid: Optional[str]
    serial: Optional[str]
    vbios: Optional[str]
    needs: Optional[str]
    """What the driver wants done with it, in its words; ``None`` (the word) for nothing."""
    mig: Optional[str]
    compute_mode: Optional[str]
    persistence: Optional[str]
    partitions: Optional[str]
    """AMD: of its compute units and of its memory (``SPX/NPS1``)."""
    performance: Optional[str]
    link_generation: Optional[int]
    link_width: Optional[int]
    slowdowns: Optional[list[str]]
    """What slows its clocks down now, besides being idle and the power limit."""
    power_limit: Optional[float]
    """Watts."""
    power_default: Optional[float]
    fabric_health: dict[str, str]
    """What it says of the fabric's health, by name; without what it does not say."""
    nvlinks: Optional[list[float]]
    """GB/s of each NVLink, 0 of one that is not up."""
    bad_pages: Optional[dict[str, int]]
    """AMD: pages of memory by what became of them (retired, pending, failed)."""


def parse_nvidia(text: str, links: str = "") -> list[State]:
    """The GPUs of ``nvidia-smi -q -x`` with the links of ``nvidia-smi nvlink --status``.

    Raises ValueError when ``text`` is not that document.
    """
    speeds = parse_nvlinks(links)
    return [_of_element(row, speeds) for row in gpu.smi_document(text).iter("gpu")]


def _of_element(row: ElementTree.Element, speeds: dict[str, list[float]]) -> State:
    def said(*paths: str) -> Optional[str]:
        """The first of these elements that holds an answer."""
        found = ((row.findtext(path) or "").strip() for path in paths)
        return next((text for text in found if not _NO_ANSWER.fullmatch(text)), None)

    generation = "pci/pci_gpu_link_info/pcie_gen"
    uuid = said("uuid")
    health = {entry.tag: (entry.text or "").strip() for entry in row.findall("fabric/health/*")}
    return {
        "bus_id": str(row.get("id")),
        "uuid": uuid,
        "serial": said("serial"),
        "vbios": said("vbios_version"),
        "needs": _needs(row, said("gpu_recovery_action"), said("gpu_reset_status/reset_required"),
                        said("gpu_reset_status/drain_and_reset_recommended")),
        "mig": said("mig_mode/current_mig"),
        "compute_mode": said("compute_mode"),
        "persistence": said("persistence_mode"),
        "partitions": None,
        "performance": said("performance_state"),
        "link_generation": _whole(said(f"{generation}/device_current_link_gen", f"{generation}/current_link_gen")),
        "link_width": _whole(said("pci/pci_gpu_link_info/link_widths/current_link_width")),
        "slowdowns": _slowdowns(row),
        "power_limit": _watts(said("gpu_power_readings/current_power_limit", "gpu_power_readings/power_limit",
                                   "power_readings/power_limit", "power_readings/enforced_power_limit")),
        "power_default": _watts(said("gpu_power_readings/default_power_limit", "power_readings/default_power_limit")),
        "fabric_health": {name: word for name, word in health.items() if word not in (NOT_SUPPORTED, "Not Supported")},
        "nvlinks": speeds.get(uuid or ""),
        "bad_pages": None,
    }  # fmt: skip


def _needs(
    row: ElementTree.Element, action: Optional[str], reset: Optional[str], drain: Optional[str]
) -> Optional[str]:
    """Drivers from 570 on have one element for it, and say that those before it are deprecated."""
    lost = next((text.strip() for text in row.itertext() if _LOST.search(text)), None)
    if lost:
        return lost.strip("[]")
    if action not in (None, NOT_SUPPORTED):
        return action
    if "Yes" in (reset, drain):
        return "Reset" if reset == "Yes" else "Drain and Reset"
    return NOTHING_TO_DO if reset == "No" and drain in ("No", NOT_SUPPORTED, None) else None


def _slowdowns(row: ElementTree.Element) -> Optional[list[str]]:
    """Called throttle reasons before 535."""
    names = {
        f"clocks_{kind}_reasons/clocks_{kind}_reason_{name}": name for kind in ("event", "throttle") for name in _SLOWED
    }
    found = {name: text.strip() for path, name in names.items() if (text := row.findtext(path))}
    if not found or not set(found.values()) <= {"Active", "Not Active", NOT_SUPPORTED}:
        return None
    return [name for name, word in found.items() if word == "Active"]


def parse_nvlinks(text: str) -> dict[str, list[float]]:
    """GB/s of the links of each GPU, by its UUID, out of ``nvidia-smi nvlink --status``; 0 of one that is not up."""
    found: dict[str, list[float]] = {}
    links: list[float] = []
    for line in text.splitlines():
        if begins := _GPU_LINE.match(line):
            links = found.setdefault(begins.group(2), [])
        elif link := _LINK.match(line):
            links.append(float(link.group(2) or 0))
    return found


def read_amd(root: Path, bus_ids: list[str]) -> list[State]:
    """The AMD GPUs at these places of the PCI bus, from the files of their driver below ``root``."""
    return [_of_files(root / "sys/bus/pci/devices" / bus_id, bus_id) for bus_id in bus_ids]


def _of_files(folder: Path, bus_id: str) -> State:
    def said(name: str) -> Optional[str]:
        return files.read_text(folder / name) or None

    modes = [said("current_compute_partition"), said("current_memory_partition")]
    # A virtual function has no link of its own: "Unknown", and a width of 0 or of all bits.
    generation = _GENERATIONS.get((said("current_link_speed") or "").partition(" ")[0])
    return {
        "bus_id": bus_id, "uuid": said("unique_id"), "serial": said("serial_number"), "vbios": said("vbios_version"),
        "needs": None, "mig": None, "compute_mode": None, "persistence": None, "performance": None,
        "partitions": "/".join(mode.partition(",")[0] for mode in modes if mode) if any(modes) else None,
        "link_generation": generation,
        "link_width": _whole(said("current_link_width")) if generation else None,
        "slowdowns": None, "power_limit": None, "power_default": None, "fabric_health": {}, "nvlinks": None,
        "bad_pages": _bad_pages(folder / "ras/gpu_vram_bad_pages"),
    }  # fmt: skip


def _bad_pages(path: Path) -> Optional[dict[str, int]]:
    """Lines of ``0x00000001 : 0x00001000 : R``; a GPU without bad pages has an empty file."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    counts = dict.fromkeys(_PAGE_FLAGS.values(), 0)
    for line in lines:
        flag = line.rpartition(":")[2].strip()
        if flag in _PAGE_FLAGS:
            counts[_PAGE_FLAGS[flag]] += 1
        elif line.strip() and "flags" not in flag:
            return None
    return counts


def _whole(text: Optional[str]) -> Optional[int]:
    """``16x`` and ``16`` are 16; None for what is no number."""
    number = re.match(r"\d+", text or "")
    return int(number.group()) if number else None


def _watts(text: Optional[str]) -> Optional[float]:
    number = _NUMBER.match(text or "")
    return float(number.group()) if number else None
