# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One description of a GPU host, gathered in one call and never failing because the host is broken.

This module util is PRIVATE to the collection. Each gatherer returns its part and adds what went wrong to ``errors``, a
list of ``{phase, message}``; docs/hosts.md lists the phases.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.module_utils.host import data_disk, gpu, neighbours
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult, run, which
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import docker_facts
from ansible_collections.glm.fleet.plugins.module_utils.host.health import Health, unlinked

Errors = list[dict[str, str]]
SUBSETS = ("system", "gpu", "cdi", "docker", "disks")
# Asked for by name only: it reads the package database.
EXTRA_SUBSETS = ("drivers",)
FABRIC_POLL_SECONDS = 5.0
# The fabric manager reaches the switches of NVLink 5 through these; without them the fabric stays In Progress.
FABRIC_MODULES = ("mlx5_ib", "ib_umad")
_CAP_SYS_RESOURCE = 24
# In a process of its own: a call on a network file system that has gone hangs for ever, or gets ESTALE.
_SPACE = """
import json, os, sys
path = os.path.abspath(sys.argv[1])
while True:
    try:
        os.stat(path)
        break
    except (FileNotFoundError, NotADirectoryError):
        path = os.path.dirname(path)
status = os.statvfs(path)
size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
print(json.dumps({"real": os.path.realpath(path), "size_bytes": size, "free_bytes": free}))
"""


class Gatherer:
    """Facts of the host whose file system is ``root``; ``timeout`` bounds each command, in seconds.

    ``fabric_wait``: seconds to wait for an NVLink fabric that is still in progress, as it is after a boot.
    """

    def __init__(
        self, root: Path = Path("/"), timeout: float = 30, paths: Iterable[str] = (), fabric_wait: float = 0
    ) -> None:
        self.root = root
        self.timeout = timeout
        self.fabric_wait = fabric_wait
        self.paths = list(paths)
        self.errors: Errors = []

    def gather(self, subsets: Iterable[str]) -> dict[str, Any]:
        """The facts of the named subsets plus ``errors``."""
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "system": self.system,
            "gpu": self.gpus,
            "cdi": self.cdi,
            "docker": self.docker,
            "disks": self.disks,
            "drivers": self.drivers,
        }
        facts: dict[str, Any] = {"epoch": time.time()}
        for name in parts:
            if name in subsets:
                facts.update(parts[name]())
        facts["errors"] = self.errors
        return facts

    def problem(self, phase: str, message: str) -> None:
        self.errors.append({"phase": phase, "message": printable(message)})

    # -- system -------------------------------------------------------------------------------------------------

    def system(self) -> dict[str, Any]:
        """Distribution, kernel, memory, addresses, limits, first boot, clock, pending reboot."""
        return {
            "distribution": self._distribution(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "hostname": platform.node(),
            "boot_id": self._text("proc/sys/kernel/random/boot_id"),
            "cpus": os.cpu_count() or 1,
            "memory_mib": self._memory_mib(),
            "shm_mib": self._shm_mib(),
            "cgroups": self._cgroups(),
            "container": self._container(),
            "can_raise_limits": self._can_raise_limits(),
            "nr_open": self._nr_open(),
            "addresses": self._addresses(),
            "cloud_init": cloud_init(self.timeout),
            "reboot_required": (self.root / "var/run/reboot-required").exists(),
            "time_synchronised": self._time_synchronised(),
        }

    def _distribution(self) -> dict[str, str]:
        values = files.read_assignments(self.root / "etc/os-release")
        identity = values.get("ID", "unknown")
        return {
            "id": identity,
            "version": values.get("VERSION_ID", ""),
            "codename": values.get("VERSION_CODENAME", ""),
            "pretty": values.get("PRETTY_NAME", identity),
            "family": "debian" if "debian" in (identity, *values.get("ID_LIKE", "").split()) else identity,
        }

    def _memory_mib(self) -> int:
        match = re.search(r"^MemTotal:\s+(\d+) kB", self._text("proc/meminfo"), re.MULTILINE)
        return int(match.group(1)) // 1024 if match else 0

    def _shm_mib(self) -> int:
        try:
            status = os.statvfs(self.root / "dev/shm")
        except OSError as error:
            self.problem("system", f"/dev/shm: {error}")
            return 0
        return status.f_blocks * status.f_frsize // 2**20

    def _cgroups(self) -> Optional[int]:
        """Version of the control groups that systemd keeps its units in; None where there are none."""
        groups = self.root / "sys/fs/cgroup"
        # `unified`: v1 has the controllers, and v2 beside it the units.
        trees = (groups / "cgroup.controllers", groups / "unified/cgroup.controllers")
        return 2 if any(tree.exists() for tree in trees) else 1 if groups.is_dir() else None

    def _container(self) -> Optional[str]:
        """Kind of container the host itself is (its kernel belongs to another machine), or None."""
        found = run(("systemd-detect-virt", "--container"), self.timeout)
        return found.stdout.strip() if found.ok else None

    def _can_raise_limits(self) -> bool:
        match = re.search(r"^CapBnd:\s*([0-9a-f]+)", self._text("proc/self/status"), re.MULTILINE)
        return bool(match and int(match.group(1), 16) >> _CAP_SYS_RESOURCE & 1)

    def _nr_open(self) -> Optional[int]:
        """The most open files that the kernel lets anybody have (fs.nr_open of proc_sys_fs(5)); None if unreadable."""
        text = self._text("proc/sys/fs/nr_open").strip()
        return int(text) if text.isdigit() else None

    def _addresses(self) -> list[dict[str, str]]:
        found = run(("ip", "-json", "address", "show", "scope", "global"), self.timeout)
        try:
            links = json.loads(found.stdout or "[]") if found.ok else []
        except ValueError:
            links = []
        if not links:
            self.problem("system", f"no network addresses found: {found.evidence()}")
        return [
            {"interface": link["ifname"], "address": entry["local"], "family": entry["family"]}
            for link in links
            for entry in link.get("addr_info", [])
            if "local" in entry
        ]

    def _time_synchronised(self) -> Optional[bool]:
        found = run(("timedatectl", "show", "--property=NTPSynchronized", "--value"), self.timeout)
        return found.stdout.strip() == "yes" if found.ok else None

    # -- accelerators -------------------------------------------------------------------------------------------

    def gpus(self) -> dict[str, Any]:
        """Accelerators, driver, fabric. ``gpu_source`` says where they are from: nvidia-smi, pci or none."""
        pci = gpu.scan_pci(self.root)
        facts: dict[str, Any] = {
            "gpus": [],
            "gpu_source": "none",
            "gpu_holders": _printed(gpu.holders(self.root)),
            "pci": pci,
            "driver": {
                **{"version": None, "module_version": None, "library_version": None, "cuda_version": None},
                "loaded": _has(pci, "nvidia") and (self.root / "sys/module/nvidia").is_dir(),
                "tool": None,
            },
            "fabric": {"present": False, "state": None, "states": {}},
        }
        facts["driver"]["module_version"] = gpu.driver_of_proc(self._text("proc/driver/nvidia/version"))
        nouveau = sum(entry["driver"] == "nouveau" for entry in pci["gpus"])
        if nouveau:
            self.problem(
                "driver",
                f"nouveau drives {nouveau} GPUs, so NVIDIA's driver cannot; a reboot after nouveau was switched off "
                "(gpu_base_reboot_allowed) frees them",
            )
        facts["driver"]["tool"] = which("nvidia-smi")
        if facts["driver"]["tool"]:
            self._ask_smi(facts)
        if not facts["gpus"] and _has(pci, "amd"):
            self._ask_amd(facts)
        if not facts["gpus"] and pci["gpus"]:
            facts["gpus"] = [
                {"index": index, "name": f"{entry['vendor']} {entry['device']}", **entry}
                for index, entry in enumerate(pci["gpus"])
            ]
            facts["gpu_source"] = "pci"
            self._add_used_memory(facts["gpus"])
        if facts["gpu_source"] == "pci" and not which("nvidia-smi") and _has(pci, "nvidia"):
            signs = "; ".join(gpu.signs_of_driver(facts["driver"], pci))
            why = f"there is a driver, which nothing can ask ({signs})" if signs else "no driver is installed"
            self.problem("driver", f"{len(pci['gpus'])} GPUs on the PCI bus but no nvidia-smi: {why}")
        missing = sum(entry["vendor"] == "nvidia" for entry in pci["gpus"]) - len(facts["gpus"])
        if facts["gpu_source"] == "nvidia-smi" and missing > 0:
            self.problem("gpu", f"{missing} GPUs are on the PCI bus but nvidia-smi does not show them")
        return facts

    def _ask_smi(self, facts: dict[str, Any]) -> None:
        query = run(
            ("nvidia-smi", f"--query-gpu={','.join(gpu.SMI_FIELDS)}", "--format=csv,noheader,nounits"), self.timeout
        )
        facts["gpus"], others = gpu.parse_gpu_csv(query.stdout)
        if not facts["gpus"]:
            self._no_answer(facts, query, others)
            return
        self._beside("nvidia-smi", query, others)
        facts["gpu_source"] = "nvidia-smi"
        versions = (gpu.release(entry["driver_version"]) for entry in facts["gpus"])
        facts["driver"]["version"] = next(filter(None, versions), facts["driver"]["module_version"])
        self._name_silent(facts["gpus"])
        self._ask_smi_for_fabric(facts)

    def _no_answer(self, facts: dict[str, Any], query: CommandResult, others: list[str]) -> None:
        """nvidia-smi describes no GPU at all. That does not mean that there is no driver."""
        driver = facts["driver"]
        driver["library_version"] = gpu.library_of_error(query.stdout + query.stderr)
        if query.ok:
            for other in others:
                self.problem("gpu", f"nvidia-smi --query-gpu: {other}")
            self.problem(
                "driver", f"nvidia-smi ended well and describes no GPU: {query.evidence() or 'it prints nothing'}"
            )
        else:
            self.problem("driver", f"nvidia-smi ended with {query.rc}: {query.evidence()}")
        if driver["library_version"] and driver["module_version"]:
            self.problem(
                "driver",
                f"the loaded kernel module is {driver['module_version']} but the libraries are "
                f"{driver['library_version']}: the driver was upgraded under it; a reboot loads the new one",
            )
        elif signs := gpu.signs_of_driver(driver, facts["pci"]):
            self.problem("driver", f"there is a driver, which does not answer: {'; '.join(signs)}")

    def _beside(self, tool: str, query: CommandResult, others: list[str]) -> None:
        """Keep what a tool said beside rows that can be read."""
        words = [*others, *([] if query.ok else [query.stderr.strip()])]
        said = "; ".join(word for word in words if word)
        if not query.ok:
            self.problem("gpu", f"{tool} ended with {query.rc} beside its answer: {said or 'nothing else'}")
        elif said:
            self.problem("gpu", f"{tool}: {said}")

    def _name_silent(self, gpus: list[dict[str, Any]]) -> None:
        for entry in gpus:
            if entry["memory_total_mib"] is None:
                self.problem("gpu", f"GPU {entry['index']} ({entry['bus_id']}) does not answer: {entry['name']}")

    def _ask_amd(self, facts: dict[str, Any]) -> None:
        """AMD's tools; rocm-smi is the older one, and the only one that Debian has."""
        module = self.root / "sys/module/amdgpu"
        # AMD's own module has a version, the kernel's has none.
        facts["driver"]["module_version"] = self._text("sys/module/amdgpu/version") or None
        if not module.is_dir():
            self.problem("driver", "AMD GPUs on the PCI bus but the kernel module amdgpu is not loaded")
            return
        facts["driver"]["loaded"] = True
        tools = (
            (("amd-smi", "static", "--asic", "--bus", "--vram", "--driver", "--json"), gpu.parse_amd_smi),
            (("rocm-smi", *gpu.ROCM_SMI_OPTIONS, "--json"), gpu.parse_rocm_smi),
        )
        complaints = []
        for argv, parse in tools:
            if which(argv[0]) is None:
                continue
            facts["driver"]["tool"] = which(argv[0])
            query = run(argv, self.timeout)
            try:
                facts["gpus"] = parse(query.stdout)
            except (ValueError, AttributeError, TypeError) as error:
                # rocm-smi says what it lacks, prints nothing, and ends well.
                said = query.evidence() if not query.ok or not query.stdout.strip().startswith(("{", "[")) else ""
                complaints.append(f"{argv[0]}: {said or error}")
                continue
            facts["gpu_source"] = argv[0]
            self._beside(argv[0], query, [])
            self._add_used_memory(facts["gpus"])
            self._name_silent(facts["gpus"])
            versions = (gpu.release(entry["driver_version"]) for entry in facts["gpus"])
            facts["driver"]["version"] = next(filter(None, versions), facts["driver"]["module_version"])
            missing = sum(entry["vendor"] == "amd" for entry in facts["pci"]["gpus"]) - len(facts["gpus"])
            if missing > 0:
                self.problem("gpu", f"{missing} GPUs are on the PCI bus but {argv[0]} does not show them")
            return
        # One tool that is broken says nothing of the driver while another describes the GPUs.
        for complaint in complaints:
            self.problem("driver", complaint)

    def _add_used_memory(self, gpus: list[dict[str, Any]]) -> None:
        """``amd-smi static`` leaves it out; the driver has it (gpu/amdgpu/driver-misc.rst in the kernel)."""
        for entry in gpus:
            used = self._text(f"sys/bus/pci/devices/{entry['bus_id']}/mem_info_vram_used")
            if entry.get("memory_used_mib") is None and used.isdigit():
                entry["memory_used_mib"] = int(used) // 2**20

    def _ask_smi_for_fabric(self, facts: dict[str, Any]) -> None:
        deadline = time.monotonic() + self.fabric_wait
        while True:
            query = run(("nvidia-smi", "-q", "-x"), self.timeout)
            try:
                # It ends with 14 and such because of one GPU, and describes all.
                details = gpu.parse_smi_xml(query.stdout)
            except ValueError as error:
                self.problem("fabric", f"nvidia-smi -q -x: {error if query.ok else query.evidence()}")
                return
            if details["fabric"]["state"] != "In Progress" or time.monotonic() >= deadline:
                break
            time.sleep(FABRIC_POLL_SECONDS)
        facts["driver"]["cuda_version"] = details["cuda_version"]
        facts["fabric"] = details["fabric"]

    # -- containers and disks -----------------------------------------------------------------------------------

    def cdi(self) -> dict[str, Any]:
        """CDI specs and the tool that can write them."""
        specs, problems = gpu.read_cdi(self.root)
        for problem in problems:
            self.problem("cdi", problem)
        devices = sorted({device for spec in specs for device in spec["devices"]})
        tools = {"nvidia_ctk": which("nvidia-ctk"), "amd_ctk": which("amd-ctk")}
        return {"cdi": {"specs": specs, "devices": devices, "unlinked": unlinked(self.root), **tools}}

    def drivers(self) -> dict[str, Any]:
        """What of a driver is installed, whether or not it works."""
        vendors = {entry["vendor"] for entry in gpu.scan_pci(self.root)["gpus"]}
        vendor = "amd" if vendors == {"amd"} else "nvidia"
        loaded = {name: (self.root / "sys/module" / name).is_dir() for name in FABRIC_MODULES}
        return {"drivers": {**Health(vendor, self.root, self.timeout).installation(), "modules": loaded}}

    def docker(self) -> dict[str, Any]:
        facts, problem = docker_facts(self.timeout, self.root)
        if problem:
            self.problem("docker", problem)
        return {"docker": facts, "neighbours": neighbours.found(self.root)}

    def disks(self) -> dict[str, Any]:
        """The mount that holds each asked path, or will hold it once it is made, its kind of disk, and its free bytes.

        A path whose file system does not answer is left out, and named in ``errors``.
        """
        disks = []
        for path in self.paths:
            asked = run((sys.executable, "-I", "-S", "-c", _SPACE, path), self.timeout)
            if not asked.ok:
                self.problem("disk", f"{path}: {asked.evidence()}")
                continue
            space = json.loads(asked.stdout)
            disks.append({"path": path, **data_disk.describe(space.pop("real"), self.root), **space})
        return {"disks": disks}

    def _text(self, path: str) -> str:
        return files.read_text(self.root / path)


def _printed(words: Optional[list[str]]) -> Optional[list[str]]:
    return words if words is None else [printable(word) for word in words]


def _has(pci: dict[str, Any], vendor: str) -> bool:
    return any(entry["vendor"] == vendor for entry in pci["gpus"])


def cloud_init(timeout: float = 30) -> dict[str, Any]:
    """State of the first boot: ``{present, status, detail, errors}``; status as cloud-init words it, or ``absent``."""
    found = run(("cloud-init", "status", "--format", "json"), timeout)
    if found.missing:
        return {"present": False, "status": "absent", "detail": "", "errors": []}
    try:
        data = json.loads(found.stdout)
    except ValueError:
        # Releases before 22.3 have no --format; "--long" is there in all of them.
        return _cloud_init_long(run(("cloud-init", "status", "--long"), timeout).stdout, found.evidence())
    return {
        "present": True,
        "status": data.get("status", "unknown"),
        "detail": data.get("detail", ""),
        "errors": [str(error) for error in data.get("errors") or []],
    }


def _cloud_init_long(text: str, evidence: str) -> dict[str, Any]:
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    status = fields.get("status", "unknown").strip()
    return {"present": True, "status": status, "detail": "" if "status" in fields else evidence, "errors": []}


def first_boot_busy(boot: dict[str, Any]) -> bool:
    """Whether cloud-init still works or may yet begin.

    An image can carry cloud-init that never starts (no data source); once systemd has finished booting, "not started"
    will not change any more.
    """
    if boot["status"] == "running":
        return True
    if boot["status"] in ("not run", "not started", "unknown"):
        state = run(("systemctl", "is-system-running"), 10).stdout.strip()
        return state in ("initializing", "starting")
    return False
