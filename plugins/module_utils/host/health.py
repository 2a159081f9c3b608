# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a healthy GPU host differs from one that will fail under load: memory errors, modules, disk, network.

This module util is PRIVATE to the collection. Parsing is pure; gathering never fails because something is broken.

Sources: ``nvidia-smi -q -x`` (nvidia-smi(1): ECC Errors, Remapped Rows), ``amd-smi metric --ecc --json`` (AMD SMI CLI
tool), dkms(8) ``status``, mokutil(1), efivarfs (Documentation/filesystems), sysfs-kernel-iommu_groups.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

from ansible.module_utils.urls import open_url

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu, gpu_state, kernel_log, links, runtime
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run, which
from ansible_collections.glm.fleet.plugins.module_utils.host.dpkg import installed_packages

_DKMS = re.compile(r"^(?P<module>[^,/]+)[,/] ?(?P<version>[^,:]+)(?:, (?P<kernel>[^,:]+), [^:]+)?: (?P<state>\w+)")
_NO_KERNEL = re.compile(r"rescue|recovery|\.(?:dpkg-.*|rpmsave|rpmnew|sig|hmac|bak|tmp)$")
# rocm.docs.amd.com, "Configuring permissions for GPU access".
DEVICE_GROUPS = ("render", "video")
_SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
DISK_BYTES = 256 * 2**20
_BLOCK = 4 * 2**20
# What systemctl is-enabled takes for yes.
_STARTED_AT_BOOT = ("enabled", "enabled-runtime", "static", "alias", "indirect", "generated")


def parse_memory_errors(text: str) -> list[dict[str, Any]]:
    """Memory errors of each GPU out of ``nvidia-smi -q -x``, in the document's order.

    ``[{bus_id, uncorrected, aggregate, remap_pending, remap_failed, threshold_exceeded}]``: ``uncorrected`` since the
    driver was loaded, ``aggregate`` ever; None where the GPU does not count, or does not say all of it ("N/A"). The
    same of the others. Raises ValueError for another document.
    """
    return [
        {
            "bus_id": str(row.get("id")),
            "uncorrected": _uncorrected(row.find("ecc_errors/volatile")),
            "aggregate": _uncorrected(row.find("ecc_errors/aggregate")),
            "remap_pending": _yes(row.findtext("remapped_rows/remapped_row_pending")),
            "remap_failed": _yes(row.findtext("remapped_rows/remapped_row_failure")),
            "threshold_exceeded": _yes(row.findtext("ecc_errors/aggregate/sram_threshold_exceeded")),
        }
        for row in gpu.smi_document(text).iter("gpu")
    ]


def _uncorrected(section: Optional[ElementTree.Element]) -> Optional[int]:
    if section is None:
        return None
    found = [gpu.integer((entry.text or "").strip()) for entry in section if "uncorrectable" in entry.tag]
    counts = [count for count in found if count is not None]
    # One that counts errors is bad, whatever the others say; one that does not count is not good.
    return sum(counts) if counts and (len(counts) == len(found) or any(counts)) else None


def _yes(text: Optional[str]) -> Optional[bool]:
    return {"yes": True, "no": False}.get((text or "").strip().lower())


def parse_amd_ecc(text: str) -> list[dict[str, Any]]:
    """The same rows out of ``amd-smi metric --ecc --json``. Raises ValueError for another document."""
    return [
        {
            "bus_id": f"gpu {row.get('gpu')}",
            "uncorrected": gpu.integer(str(gpu.part(row, "ecc").get("total_uncorrectable_count"))),
            "aggregate": None,
            "remap_pending": False,
            "remap_failed": False,
            "threshold_exceeded": False,
        }
        for row in gpu.amd_rows(text)
    ]


def parse_dkms(text: str) -> list[dict[str, str]]:
    """``dkms status``, old and new: ``[{module, version, kernel, state}]``; ``kernel`` is empty for "added"."""
    rows = (_DKMS.match(line.strip()) for line in text.splitlines())
    return [{key: (value or "").strip() for key, value in row.groupdict().items()} for row in rows if row]


def kernels(root: Path) -> list[str]:
    """Kernels that the host could boot: those with an image in /boot, as GRUB's 10_linux reads them.

    It passes over what package managers leave; an image that was set aside (``.old``) has the modules of its kernel,
    and nobody boots a rescue image to serve.
    """
    names = (path.name.partition("-")[2] for path in (root / "boot").glob("vmlinuz-*"))
    return sorted({name.removesuffix(".old") for name in names if not _NO_KERNEL.search(name)})


def built_for(root: Path, kernel: str, module: str) -> bool:
    """Whether ``module`` is there for a kernel, from DKMS or from the distribution's packages."""
    folder = root / "lib/modules" / kernel
    return any(folder.rglob(f"{module}.ko*"))


def iommu(root: Path) -> dict[str, Any]:
    """``{groups, translating, arguments}``: whether DMA is translated, which stalls transfers between GPUs."""
    groups = list((root / "sys/kernel/iommu_groups").glob("*"))
    types = {files.read_text(group / "type") for group in groups}
    arguments = [word for word in files.read_text(root / "proc/cmdline").split() if "iommu" in word]
    return {
        "groups": len(groups),
        "translating": bool(types & {"DMA", "DMA-FQ"}),
        "arguments": arguments,
    }


def unlinked(root: Path) -> list[str]:
    """Device nodes of NVIDIA GPUs without the link below /dev/char by which runc gives systemd a device.

    opencontainers/runc issue 3708: without it a ``systemctl daemon-reload`` takes the device from running containers.
    """
    nodes = [*(root / "dev").glob("nvidia[0-9]*"), root / "dev/nvidiactl", root / "dev/nvidia-uvm"]
    devices = [(node, node.stat()) for node in nodes if node.is_char_device()]
    return sorted(
        f"/dev/{node.name}"
        for node, status in devices
        if not (root / f"dev/char/{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").exists()
    )


def acs_bridges(text: str) -> int:
    """How many bridges redirect peer traffic to the root complex, out of ``lspci -vvv`` (ACSCtl: ReqRedir+)."""
    return len(re.findall(r"ACSCtl:.*ReqRedir\+", text))


def initialise(vendor: str, timeout: float) -> Optional[dict[str, Any]]:
    """What CUDA or HIP answers on the host: see _host_runtime.read_answer."""
    return runtime.read_answer(run((sys.executable, "-c", runtime.SCRIPT, runtime.KINDS[vendor]), timeout))


def disk_speed(folder: Path, size: int = DISK_BYTES) -> dict[str, float]:
    """Write ``size`` bytes to a file in ``folder`` and read them back past the page cache: MB/s each.

    Raises OSError. The file is removed, also when it fails.
    """
    path = folder / f".glm-acceptance-{os.getpid()}"
    block = os.urandom(_BLOCK)
    try:
        begun = time.monotonic()
        with path.open("wb", buffering=0) as handle:
            for _number_of_block in range(size // _BLOCK):
                handle.write(block)
            os.fsync(handle.fileno())
        written = time.monotonic()
        _read_past_cache(path)
        done = time.monotonic()
    finally:
        path.unlink(missing_ok=True)
    return {
        "write_mb_s": round(size / 1e6 / max(written - begun, 1e-6), 1),
        "read_mb_s": round(size / 1e6 / max(done - written, 1e-6), 1),
    }


def _read_past_cache(path: Path) -> None:
    """Read a whole file from its disk. Without direct I/O its pages are dropped first."""
    # Direct I/O wants memory that begins at a page.
    block = mmap.mmap(-1, _BLOCK)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.readv(handle, [block]):
            pass
    finally:
        os.close(handle)


def download_speed(url: str, seconds: float) -> float:
    """MB/s of a download, measured for at most ``seconds``. Raises OSError and urls.ConnectionError."""
    begun = time.monotonic()
    received = 0
    # The caller has checked the scheme: file: would measure the disk.
    with open_url(url, http_agent="glm.fleet node_acceptance", timeout=seconds) as answer:
        while time.monotonic() - begun < seconds:
            part = answer.read(_BLOCK)
            if not part:
                break
            received += len(part)
    return round(received / 1e6 / max(time.monotonic() - begun, 1e-6), 1)


def secure_boot_of_firmware(root: Path) -> Optional[bool]:
    """Secure Boot by the firmware's own variable: four bytes of attributes, then 1 or 0 (UEFI, "SecureBoot").

    Firmware without UEFI, or without the variable among others, has none. None where no variable can be read.
    """
    efi = root / "sys/firmware/efi"
    if not efi.is_dir():
        return False
    try:
        return (efi / "efivars" / _SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except FileNotFoundError:
        return False if any((efi / "efivars").glob("Boot*")) else None
    except OSError:
        return None


class Health:
    """Gathers the health of the host whose file system is ``root``; ``timeout`` bounds each command, in seconds."""

    def __init__(self, vendor: str, root: Path = Path("/"), timeout: float = 60) -> None:
        self.vendor = vendor
        self.root = root
        self.timeout = timeout

    def gather(self) -> dict[str, Any]:
        """Everything but what costs load (disk, network) and containers."""
        return {
            **self.installation(),
            **(self._nvidia() if self.vendor == "nvidia" else self._amd()),
            "links": links.read(self.root),
            "kernel_log": kernel_log.gather(self.timeout, self.root),
            # Eight GPUs without persistence, one after the other.
            "runtime": initialise(self.vendor, 3 * self.timeout),
            "iommu": iommu(self.root),
            "acs_bridges": acs_bridges(run(("lspci", "-vvv"), self.timeout).stdout) if which("lspci") else None,
            "peermem": (self.root / "sys/module/nvidia_peermem").is_dir(),
            "unlinked": unlinked(self.root),
            "rdma": bool(list((self.root / "sys/class/infiniband").glob("*"))),
        }

    def installation(self) -> dict[str, Any]:
        """What of a driver is installed, and for which kernels."""
        units = ("nvidia-fabricmanager", "nvidia-persistenced", "nvidia-imex", "docker")
        shown = {name: self._unit(name) for name in units}
        dkms = parse_dkms(run(("dkms", "status"), self.timeout).stdout) if which("dkms") else []
        return {
            "flavour": gpu.flavour_of_proc(files.read_text(self.root / "proc/driver/nvidia/version")),
            "nouveau": (self.root / "sys/module/nouveau").is_dir(),
            "dkms": dkms,
            "kernels": self._kernels(dkms),
            "secure_boot": self._secure_boot(),
            "units": {name: state for name, (state, _boot) in shown.items()},
            "enabled": [name for name, (_state, boot) in shown.items() if boot in _STARTED_AT_BOOT],
            "packages": self._packages(),
            **(self._access() if self.vendor == "amd" else {}),
        }

    def _nvidia(self) -> dict[str, Any]:
        """Memory errors and state of each GPU: ``{memory_errors, memory_errors_problem, gpu_states}``."""
        text, problem = self._asked("nvidia-smi", "-q", "-x")
        nvlinks, _why = self._asked("nvidia-smi", "nvlink", "--status")
        try:
            rows, states = parse_memory_errors(text), gpu_state.parse_nvidia(text, nvlinks)
        except ValueError as error:
            problem = problem or f"nvidia-smi -q -x: {error}"
            return {"memory_errors": [], "memory_errors_problem": problem, "gpu_states": []}
        return {"memory_errors": rows, "memory_errors_problem": None, "gpu_states": states}

    def _amd(self) -> dict[str, Any]:
        text, problem = self._asked("amd-smi", "metric", "--ecc", "--json")
        found = [entry["bus_id"] for entry in gpu.scan_pci(self.root)["gpus"] if entry["vendor"] == "amd"]
        states = gpu_state.read_amd(self.root, found)
        try:
            return {"memory_errors": parse_amd_ecc(text), "memory_errors_problem": None, "gpu_states": states}
        except (ValueError, AttributeError) as error:
            problem = problem or f"amd-smi metric --ecc --json: {error}"
            return {"memory_errors": [], "memory_errors_problem": problem, "gpu_states": states}

    def _asked(self, *argv: str) -> tuple[str, Optional[str]]:
        """What a tool prints, and why that may not be all: it fails because of one GPU, and describes the others."""
        if which(argv[0]) is None:
            return "", f"{argv[0]} is not there"
        done = run(argv, self.timeout)
        return done.stdout, None if done.ok else f"{' '.join(argv)}: {done.evidence()}"

    def _kernels(self, dkms: list[dict[str, str]]) -> dict[str, bool]:
        if self.vendor == "amd" and any(row["module"] == "amdgpu" for row in dkms):
            # Every kernel has an amdgpu of its own: what counts is whether AMD's was built over it.
            built = {row["kernel"] for row in dkms if row["module"] == "amdgpu" and row["state"] == "installed"}
            return {kernel: kernel in built for kernel in kernels(self.root)}
        module = "nvidia" if self.vendor == "nvidia" else "amdgpu"
        return {kernel: built_for(self.root, kernel, module) for kernel in kernels(self.root)}

    def _secure_boot(self) -> Optional[bool]:
        """None where neither mokutil nor the firmware's variables say it."""
        done = run(("mokutil", "--sb-state"), self.timeout)
        return "SecureBoot enabled" in done.stdout if done.ok else secure_boot_of_firmware(self.root)

    def _unit(self, name: str) -> tuple[str, str]:
        """State of a unit, and whether it is started at boot, both in systemd's words."""
        shown = run(("systemctl", "show", name, "--property=LoadState,ActiveState,UnitFileState"), self.timeout)
        if not shown.ok and not shown.missing:
            return "unknown", ""
        said = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
        if said.get("LoadState") != "loaded":
            return "absent", ""
        return said.get("ActiveState", "").strip(), said.get("UnitFileState", "").strip()

    def _access(self) -> dict[str, Any]:
        """Who may open the device nodes of ROCm: ``{nodes, groups, users}``.

        ``nodes``: ``{path: {group, gid, mode}}``, ``group`` None for a gid without a name. ``groups``: by name.
        """
        groups = accounts(self.root)
        names = {entry["gid"]: name for name, entry in groups.items()}
        found = {}
        for path in [self.root / "dev/kfd", *sorted((self.root / "dev/dri").glob("renderD*"))]:
            if path.exists():
                status = path.stat()
                mode = f"{status.st_mode & 0o777:04o}"
                node = f"/{path.relative_to(self.root)}"
                found[node] = {"group": names.get(status.st_gid), "gid": status.st_gid, "mode": mode}
        users = [
            line.partition(":")[0] for line in files.read_text(self.root / "etc/passwd").splitlines() if ":" in line
        ]
        return {"nodes": found, "groups": {name: groups.get(name) for name in DEVICE_GROUPS}, "users": users}

    def _packages(self) -> dict[str, dict[str, Any]]:
        """Installed packages of drivers and Docker: ``{name: {version, held}}``."""
        patterns = (
            *("nvidia-*", "libnvidia-*", "cuda-drivers*", "nvlsm", "libnvsdm*", "lambda-stack*", "docker*"),
            *("datacenter-gpu-manager*", "containerd*", "amdgpu*", "amd-container*", "amd-smi*", "rocm*"),
            *("linux-headers-*", "linux-image-*"),
        )
        return installed_packages(patterns, self.timeout)


def accounts(root: Path) -> dict[str, dict[str, Any]]:
    """Groups of the host itself: ``{name: {gid, members}}`` (group(5))."""
    rows = (line.split(":") for line in files.read_text(root / "etc/group").splitlines())
    return {
        row[0]: {"gid": int(row[2]), "members": [name for name in row[3].split(",") if name]}
        for row in rows
        if len(row) == 4 and row[2].isdigit()
    }
