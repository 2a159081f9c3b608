# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What accelerators a host has, as its driver, its PCI bus and its CDI files report it.

This module util is PRIVATE to the collection. Pure parsing plus reads below a given root, so that every broken host of
docs/hosts.md can be a test.

Sources: ``nvidia-smi --query-gpu`` and ``nvidia-smi -q -x`` (states of the fabric: nvidia-smi(1), "Fabric"),
``amd-smi static --json`` (AMD SMI CLI tool), ``rocm-smi --json``, sysfs PCI attributes
(Documentation/ABI/testing/sysfs-bus-pci), the CDI specification (cncf-tags/container-device-interface, SPEC.md).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host import cdi

SMI_FIELDS = ("index", "name", "uuid", "pci.bus_id", "memory.used", "memory.total", "driver_version")
ROCM_SMI_OPTIONS = ("--showproductname", "--showmeminfo", "vram", "--showbus", "--showdriverversion")
PCI_VENDORS = {"0x10de": "nvidia", "0x1002": "amd"}
# 0x0300 VGA, 0x0302 3D controller; AMD Instinct GPUs have 0x1200, a processing accelerator.
PCI_GPU_CLASSES = ("0x0300", "0x0302", "0x1200")
PCI_BRIDGE_CLASS = "0x0680"
_NODE = re.compile(r"/dev/(?:nvidia\d+|nvidia-uvm|kfd)(?: \(deleted\))?")
# Daemons and monitors that keep a GPU open and serve nobody, as the kernel cuts their names.
_DAEMONS = ("nvidia-persiste", "nv-fabricmanage", "nv-hostengine", "nvidia-imex", "dcgm-exporter", "nvidia-smi")
_VERSION = re.compile(r"\b(\d{3,4}\.\d{1,3}(?:\.\d{1,3})?)\b")
_INFOROM = re.compile(r"infoROM is corrupted at gpu (?P<bus>[0-9a-fA-F:.]+)", re.IGNORECASE)
_SO_VERSION = re.compile(r"\.so\.(\d{3,4}\.\d{1,3}(?:\.\d{1,3})?)\b")


def planned_indices(plans: Iterable[Mapping[str, Any]]) -> list[int]:
    """Which GPUs of a host the replicas of its plans use."""
    return sorted({index for plan in plans for index in plan["accelerator"]["indices"]})


def planned(gpus: Iterable[dict[str, Any]], plans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of ``gpu_facts.gpus`` that a plan uses; the others may be somebody else's."""
    indices = planned_indices(plans)
    return [entry for place, entry in enumerate(gpus) if entry.get("index", place) in indices]


def holders(root: Path) -> Optional[list[str]]:
    """Who has a GPU open (``python3 (pid 812)``), daemons left out; None where not every process can be seen."""
    found = open_by(root)
    return None if found is None else sorted(f"{name} (pid {pid})" for pid, name in found.items())


def open_by(root: Path) -> Optional[dict[int, str]]:
    """The same by process id, with the name of each process."""
    proc = root / "proc"
    # A container shows its own processes only, and not this one of the kernel.
    if files.read_text(proc / "2/comm") != "kthreadd":
        return None
    found = {}
    for process in proc.glob("[0-9]*"):
        try:
            opened = _opens_gpu(process / "fd")
        except OSError:
            return None
        name = files.read_text(process / "comm") if opened else ""
        if opened and name not in _DAEMONS:
            found[int(process.name)] = name or "a process"
    return found


def _opens_gpu(folder: Path) -> bool:
    """Whether a process has a GPU open. Raises OSError when it cannot be seen; one that has ended has none."""
    try:
        entries = list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return False
    for entry in entries:
        # Files are closed meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            if _NODE.fullmatch(str(entry.readlink())):
                return True
    return False


def parse_gpu_csv(text: str) -> tuple[list[dict[str, Any]], list[str]]:
    """GPUs out of ``nvidia-smi --query-gpu=… --format=csv,noheader,nounits`` (columns: SMI_FIELDS).

    ``(rows, what the other lines say)``: nvidia-smi prints warnings among its rows. A GPU that fell off the bus prints
    ``[Unknown Error]`` or ``[GPU requires reset]`` in its columns; such a row is kept with ``memory_total_mib: None``.
    """
    gpus, others = [], []
    for line in text.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) != len(SMI_FIELDS) or not columns[0].isdigit():
            others += [_other_line(line.strip(), len(columns))] if line.strip() else []
            continue
        index, name, uuid, bus_id, used, total, driver = columns
        gpus.append(
            {
                "index": integer(index),
                "name": name,
                "uuid": uuid,
                "bus_id": bus_id,
                "memory_used_mib": integer(used),
                "memory_total_mib": integer(total),
                "driver_version": driver,
                "vendor": "nvidia",
            }
        )
    return gpus, others


def _other_line(line: str, columns: int) -> str:
    """What a line that is no row says, its known cause first."""
    corrupted = _INFOROM.search(line)
    if corrupted:
        return f"infoROM corrupted: GPU {corrupted['bus'].partition(':')[2] or corrupted['bus']} ({line[:120]})"
    return f"expected {len(SMI_FIELDS)} columns, found {columns}: {line[:120]}"


def smi_document(text: str) -> ElementTree.Element:
    """The root of what ``nvidia-smi -q -x`` prints, warnings around it left out. Raises ValueError for another text."""
    end = "</nvidia_smi_log>"
    try:
        return ElementTree.fromstring(text[text.index("<nvidia_smi_log") : text.index(end) + len(end)])
    except (ValueError, ElementTree.ParseError) as error:
        raise ValueError(f"not the XML of nvidia-smi: {error}") from error


def parse_smi_xml(text: str) -> dict[str, Any]:
    """Driver, CUDA and fabric out of ``nvidia-smi -q -x``.

    Returns ``{driver_version, cuda_version, fabric: {present, states: {bus_id: {state, status}}, state}}``.
    The state is Completed only if every GPU that reports a fabric is Completed with status Success; otherwise the
    first other one.
    Raises ValueError when the text is not that document.
    """
    root = smi_document(text)
    states: dict[str, dict[str, str]] = {}
    for gpu in root.iter("gpu"):
        fabric = gpu.find("fabric")
        state = (fabric.findtext("state") or "N/A").strip() if fabric is not None else "N/A"
        if fabric is not None and state not in ("N/A", "Not Supported"):
            status = (fabric.findtext("status") or "N/A").strip()
            states[str(gpu.get("id"))] = {"state": state, "status": status}
    return {
        "driver_version": root.findtext("driver_version"),
        "cuda_version": root.findtext("cuda_version"),
        "fabric": {"present": bool(states), "state": _overall(states), "states": states},
    }


def parse_amd_smi(text: str) -> list[dict[str, Any]]:
    """GPUs out of ``amd-smi static --asic --bus --vram --driver --json``, as rows of parse_gpu_csv.

    Raises ValueError for another document.
    """
    return [
        {
            "index": row.get("gpu", index),
            "name": part(row, "asic").get("market_name", "unknown"),
            "uuid": part(row, "asic").get("asic_serial", ""),
            "bus_id": part(row, "bus").get("bdf", ""),
            "memory_used_mib": None,
            # "MB" here are units of 2**20: a MI300X prints 196592, its 206141652992 bytes (rocm-smi) are as many.
            "memory_total_mib": integer(str(part(row, "vram", "size").get("value", ""))),
            "driver_version": part(row, "driver").get("version", ""),
            "vendor": "amd",
        }
        for index, row in enumerate(amd_rows(text))
    ]


def amd_rows(text: str) -> list[Mapping[str, Any]]:
    """The rows of ``amd-smi … --json``, warnings around them left out. Raises ValueError for another document.

    ROCm 6 prints a list, ROCm 7 the same list as ``gpu_data``.
    """
    begins = re.search(r"^\s*[\[{]", text, re.MULTILINE)
    document = json.JSONDecoder().raw_decode(text[begins.start() :].lstrip())[0] if begins else None
    rows = document.get("gpu_data") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not the JSON of amd-smi")
    return rows


def part(row: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """An object within a row; empty where amd-smi has the text "N/A" in its place."""
    for name in names:
        inner = row.get(name)
        row = inner if isinstance(inner, dict) else {}
    return row


def parse_rocm_smi(text: str) -> list[dict[str, Any]]:
    """The same out of ``rocm-smi --showproductname --showmeminfo vram --showbus --showdriverversion --json``.

    Raises ValueError for another document.
    """
    document = json.loads(text)
    driver = (document.get("system") or {}).get("Driver version", "")
    gpus = []
    for key, card in document.items():
        if not re.fullmatch(r"card\d+", key):
            continue
        total, used = card.get("VRAM Total Memory (B)", ""), card.get("VRAM Total Used Memory (B)", "")
        gpus.append(
            {
                "index": int(key[len("card") :]),
                "name": card.get("Card Series") or card.get("Card series") or "unknown",
                "uuid": card.get("Unique ID", ""),
                "bus_id": card.get("PCI Bus", "").lower(),
                "memory_used_mib": int(used) // 2**20 if used.isdigit() else None,
                "memory_total_mib": int(total) // 2**20 if total.isdigit() else None,
                "driver_version": driver,
                "vendor": "amd",
            }
        )
    if not gpus:
        raise ValueError("not the JSON of rocm-smi")
    return sorted(gpus, key=lambda gpu: gpu["index"])


def _overall(states: dict[str, dict[str, str]]) -> Optional[str]:
    for entry in states.values():
        if entry["state"] != "Completed":
            return entry["state"]
        if entry["status"] not in ("Success", "N/A"):
            return f"Completed with status {entry['status']}"
    return "Completed" if states else None


def driver_of_proc(text: str) -> Optional[str]:
    """Version of the loaded kernel module out of ``/proc/driver/nvidia/version`` (both module flavours)."""
    match = _VERSION.search(_module_line(text))
    return match.group(1) if match else None


def driver(root: Path = Path("/")) -> Optional[str]:
    """Version of the driver that is loaded, of either vendor, without asking a tool; None where it does not show."""
    found = driver_of_proc(files.read_text(root / "proc/driver/nvidia/version"))
    return found or files.read_text(root / "sys/module/amdgpu/version") or None


def release(text: object) -> Optional[str]:
    """A driver's version as a tool has it; None for what is none, such as "N/A" or "[Unknown Error]"."""
    return text if isinstance(text, str) and text[:1].isdigit() else None


def signs_of_driver(driver: Mapping[str, Any], pci: Mapping[str, Any]) -> list[str]:
    """What shows that a driver works on the GPUs, whether or not its tools answer. nouveau is nobody's driver here."""
    bound = Counter(entry["driver"] for entry in pci["gpus"] if entry.get("driver") not in (None, "nouveau"))
    version = f" {driver['module_version']}" if driver.get("module_version") else ""
    loaded = [f"the driver's module{version} is loaded"] if driver.get("loaded") or version else []
    return loaded + [f"{count} GPUs are bound to {name}" for name, count in bound.items()]


def flavour_of_proc(text: str) -> Optional[str]:
    """``open`` or ``proprietary`` out of the same text; None without a loaded module."""
    line = _module_line(text)
    if not line:
        return None
    return "open" if "Open Kernel Module" in line else "proprietary"


def _module_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.startswith("NVRM version")), "")


def library_of_error(text: str) -> Optional[str]:
    """Version of the user-space library that nvidia-smi names when it refuses to talk to the module."""
    match = re.search(r"NVML library version:\s*([\d.]+)", text)
    return match.group(1) if match else None


def scan_pci(root: Path) -> dict[str, Any]:
    """Accelerators and NVSwitches on the PCI bus below ``root`` (a host's ``/``), whatever driver they have.

    Returns ``{gpus: [{vendor, device, bus_id, driver}], nvswitches: int}``.
    """
    gpus = []
    switches = 0
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        vendor = PCI_VENDORS.get(files.read_text(device / "vendor"))
        kind = files.read_text(device / "class")[:6]
        if vendor == "nvidia" and kind == PCI_BRIDGE_CLASS:
            switches += 1
        if vendor is None or kind not in PCI_GPU_CLASSES:
            continue
        driver = device / "driver"
        gpus.append(
            {
                "vendor": vendor,
                "device": files.read_text(device / "device"),
                "bus_id": device.name,
                "driver": driver.resolve().name if driver.is_symlink() else None,
            }
        )
    return {"gpus": gpus, "nvswitches": switches}


def read_cdi(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """CDI specs below ``root``: ``([{path, kind, devices, driver_version, lost}], [what could not be read])``.

    ``lost`` are device nodes that the host has no more, or has with other numbers or of another group. The last
    folder's specs come last: of two folders that name a device, Docker takes the later one's.
    """
    return cdi.read(root, parse=lambda text: {**parse_cdi(text), "lost": lost_nodes(text, root)})


def parse_cdi(text: str) -> dict[str, Any]:
    """``{kind, devices, driver_version}`` of one CDI spec. Raises ValueError with what cannot be read.

    ``devices`` are full names (``nvidia.com/gpu=all``). ``driver_version`` is the most frequent ``.so.<version>`` in
    the spec, the libraries it would mount.
    """
    spec = cdi.parse_spec(text)
    versions = Counter(_SO_VERSION.findall(text)).most_common(1)
    return {
        "kind": spec["kind"],
        "devices": [f"{spec['kind']}={name}" for name in spec["devices"]],
        "driver_version": versions[0][0] if versions else None,
    }


def lost_nodes(text: str, root: Path) -> list[str]:
    """Device nodes of a spec that do not lie below ``root`` as the spec has them.

    amd-ctk writes numbers, owner and group of each node (ROCm/container-toolkit, internal/cdi/cdi.go); another
    driver, partitioning or udev rule changes them. Nodes without numbers are not judged.
    """
    nodes = [node for device in cdi.load(text).get("devices") or [] for node in cdi.nodes_of(device)]
    judged = {str(node.get("hostPath") or node["path"]): node for node in nodes if node.get("major") and "path" in node}
    return sorted(path for path, node in judged.items() if not _is_node(root / path.lstrip("/"), node))


def _is_node(path: Path, node: dict[str, Any]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    numbers = (os.major(status.st_rdev), os.minor(status.st_rdev), status.st_gid)
    return numbers == (node["major"], node.get("minor", 0), node.get("gid", status.st_gid))


def integer(text: str) -> Optional[int]:
    """A whole number, None for anything else."""
    return int(text) if text.isdigit() else None
