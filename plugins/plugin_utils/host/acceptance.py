# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge whether a node may serve: every check with what was expected, what was found, and what to do next.

Pure. What is judged was gathered by the module node_acceptance (``facts``, ``health``, ``measured``); what a plan needs
is judged by host_checks, what the GPU needs by the platform table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host import runtime
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.host import checks as host_checks
from ansible_collections.glm.fleet.plugins.plugin_utils.host import kernel_log
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import AcceptanceReport

Gathered = Mapping[str, Any]
SEND_BACK = "drain the node, terminate it and send this report to the provider"


def verdict(
    host: str,
    gathered: Gathered,
    plans: Sequence[Plan],
    floors: Mapping[str, float],
    leave_out: Collection[str] = (),
) -> AcceptanceReport:
    """The report of a host; ``ok`` is False as soon as one check counts against it.

    ``gathered``: ``{facts, health, measured}``. ``floors``: MB/s for ``disk_write``, ``disk_read`` and ``network``.
    ``leave_out``: names of checks that are not judged.
    """
    made = [
        *_host_checks(gathered["facts"], plans),
        *(judge(gathered, plans) for judge in _CHECKS),
        *_measurements(gathered["measured"], floors),
    ]
    checks = [
        _check(entry["check"], None, "", f"left out; found {entry['found']}") if entry["check"] in leave_out else entry
        for entry in made
    ]
    return {
        "schema": report.SCHEMA,
        "kind": "acceptance",
        "host": host,
        "ok": finding.verdict_ok(checks),
        "checks": checks,
        "finished_at": report.now(),
    }


def failures(judged: AcceptanceReport) -> str:
    """The failed checks as the text of an error; empty when none failed."""
    return finding.describe(finding.against(judged["checks"]), judged["host"])


def _host_checks(facts: Mapping[str, Any], plans: Sequence[Plan]) -> list[Finding]:
    containers = any(plan["runtime"]["kind"] == "container" for plan in plans)
    found = host_checks.gpu_findings(facts, plans)
    if containers:
        found += [*host_checks.docker_findings(facts), *host_checks.device_findings(facts, plans)]
    wrong = {entry["phase"]: entry for entry in found}
    accelerator, driver = plans[0]["accelerator"], facts["driver"]["version"]
    good = {
        "gpu": f"{len(facts['gpus'])}x {accelerator['name']}",
        "driver": f"driver {driver}",
        "fabric": facts["fabric"]["state"] or "no NVLink fabric on this host",
        "clock": f"{facts.get('clock_skew_seconds') or 0:+.0f} s",
    }
    if containers:
        devices = ", ".join(host_checks.planned_devices(plans))
        good.update(docker=f"Docker {facts['docker']['version']} with CDI", cdi=devices or "none requested")
    # A broken driver hides what is behind it.
    hidden = {"gpu", "fabric", "cdi"} if "driver" in wrong and not driver else set()
    return [
        _check(name, False, wrong[name]["expected"], wrong[name]["found"], wrong[name]["next"])
        if name in wrong
        else _check(
            name, None if name in hidden else True, "", "hidden by the driver's failure" if name in hidden else text
        )
        for name, text in good.items()
    ]


def _module_flavour(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    flavour = gathered["health"]["flavour"]
    try:
        platform = platforms.of_host(gathered["facts"])
    except platforms.PlatformError as error:
        return _check("kernel module", None, "", f"not judged: {error}")
    if platform.modules == "any" or flavour is None:
        return _check("kernel module", True if flavour else None, "", flavour or "no NVIDIA module loaded")
    return _check(
        "kernel module",
        flavour == platform.modules,
        f"the {platform.modules} kernel modules, the only ones that know {platform.name}",
        f"the {flavour} ones",
        "install the open modules (nvidia_modules: open) and reboot",
    )


def _memory_errors(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    health = gathered["health"]
    rows = health["memory_errors"]
    expected = "no uncorrected memory errors, and no row that waits for its remapping or failed it"
    if not rows:
        return _check("memory errors", None, expected, health["memory_errors_problem"] or "the driver reports none")
    bad = [(row, words) for row in rows if (words := _memory_words(row))]
    if not bad:
        counted = sum(row["aggregate"] or 0 for row in rows)
        return _check("memory errors", True, expected, f"none on {len(rows)} GPUs ({counted} over their lifetime)")
    found = "; ".join(f"{row['bus_id']}: {', '.join(words)}" for row, words in bad)
    reset = all(
        row["remap_pending"] and not row["remap_failed"] and not row["threshold_exceeded"] for row, _words in bad
    )
    next_step = "drain the node and reset its GPUs or reboot: the rows are then remapped" if reset else SEND_BACK
    return _check("memory errors", False, expected, found, next_step)


def _memory_words(row: Mapping[str, Any]) -> list[str]:
    words = [f"{row['uncorrected']} uncorrected errors since the driver was loaded"] if row["uncorrected"] else []
    words += ["a row remapping is pending"] if row["remap_pending"] else []
    words += ["a row remapping failed"] if row["remap_failed"] else []
    return words + (["the SRAM error threshold is exceeded"] if row["threshold_exceeded"] else [])


def _kernel_log(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    return kernel_log.judge(gathered["health"]["kernel_log"])


def _runtime(gathered: Gathered, plans: Sequence[Plan]) -> Finding:
    """CUDA or HIP on the host, on every GPU; nvidia-smi looks fine with a fabric that is down."""
    answer, accelerator = gathered["health"]["runtime"], plans[0]["accelerator"]
    count, vendor = accelerator["count"], accelerator["vendor"]
    expected = f"{runtime.name(vendor)} to initialise on {count} GPUs"
    if answer is None:
        return _check("runtime", None, expected, f"no {runtime.name(vendor)} library; the image is checked instead")
    wrong = runtime.problems(answer, vendor, count)
    if not wrong:
        return _check("runtime", True, expected, runtime.tried(answer))
    next_step = f"start the driver and the fabric, or reboot the node; if that does not help, {SEND_BACK}"
    return _check("runtime", False, expected, wrong[0], next_step)


def _fabric_manager(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Its version has to be the driver's, and a host without NVSwitches has no use for it."""
    state = gathered["health"]["units"].get("nvidia-fabricmanager", "absent")
    driver, switches = gathered["facts"]["driver"]["version"], _switches(gathered["facts"])
    packages = gathered["health"]["packages"]
    there = [entry["version"] for name, entry in packages.items() if name.startswith("nvidia-fabricmanager")]
    installed = there[0] if there else None
    if installed and driver and versions.upstream(installed) != driver:
        return _check(
            "fabric manager", False, f"exactly the driver's version, {driver}", versions.upstream(installed),
            f"install nvidia-fabricmanager {driver} (role glm.fleet.nvidia)",
        )  # fmt: skip
    if switches and state != "active":
        next_step = "systemctl status nvidia-fabricmanager; on B200 and B300 also nvlsm and the module ib_umad"
        return _check("fabric manager", False, f"one that runs, for {switches}", state, next_step)
    if not switches and state == "failed":
        next_step = "remove nvidia-fabricmanager"
        return _check("fabric manager", False, "none where there are no NVSwitches", "one that failed", next_step)
    return _check("fabric manager", True if switches else None, "", f"{state}, {switches or 'no NVSwitches'}")


def _switches(facts: Mapping[str, Any]) -> str:
    """The switches that the fabric manager is for, in words; empty where there are none."""
    count = facts["pci"]["nvswitches"]
    try:
        fabric = platforms.fabric_of(facts, platforms.of_host(facts))
    except platforms.PlatformError:
        fabric = "none"
    if count:
        return f"{count} NVSwitches"
    return f"the NVLink 5 switches of {len(facts['pci']['gpus'])} GPUs" if fabric == "nvlsm" else ""


def _modules_for_kernels(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """A kernel without its module is a node without GPUs after the next reboot."""
    kernels = gathered["health"]["kernels"]
    expected = "the GPU's kernel module for every kernel that could boot"
    if not kernels:
        return _check("next boot", None, expected, "no kernels in /boot")
    lacking = [kernel for kernel, there in kernels.items() if not there]
    if not lacking:
        return _check("next boot", True, expected, f"it is there for {', '.join(kernels)}")
    broken = [
        f"{row['module']} {row['version']} {row['state']}"
        for row in gathered["health"]["dkms"]
        if row["state"] != "installed"
    ]
    found = f"none for {', '.join(lacking)}" + (f" (dkms: {', '.join(broken)})" if broken else "")
    next_step = f"apt install linux-headers-{lacking[0]}, then dkms autoinstall -k {lacking[0]}; or remove that kernel"
    return _check("next boot", False, expected, found, next_step)


def _pinned(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """A library that is upgraded under its module takes every GPU away."""
    packages = gathered["health"]["packages"]
    drivers = {
        name: entry
        for name, entry in packages.items()
        if name.startswith(("libnvidia-compute", "nvidia-open", "cuda-drivers"))
    }
    found = {versions.upstream(entry["version"]) for entry in drivers.values()}
    driver = gathered["facts"]["driver"]["version"]
    if driver and found and driver not in found:
        return _check(
            "driver packages", False, f"packages of the loaded driver, {driver}", ", ".join(sorted(found)),
            "reboot: the packages were upgraded under the loaded module",
        )  # fmt: skip
    return _check("driver packages", True if found else None, "", ", ".join(sorted(found)) or "not from packages")


def _peer_transfers(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Reported only: some platforms need them on, and then NCCL copes."""
    health = gathered["health"]
    iommu, bridges = health["iommu"], health["acs_bridges"]
    words = [f"IOMMU {'translates DMA' if iommu['translating'] else 'passes through' if iommu['groups'] else 'is off'}"]
    words += [f"{bridges} bridges with ACS redirection"] if bridges else []
    bare_metal = gathered["facts"].get("container") is None
    doubtful = bare_metal and (iommu["translating"] or bool(bridges))
    next_step = (
        "if NCCL hangs at start: iommu=pt on the kernel's command line, ACS off in the firmware" if doubtful else ""
    )
    return _check(
        "peer transfers",
        None if doubtful else True,
        "DMA between GPUs that nothing redirects",
        ", ".join(words),
        next_step,
    )


def _rdma(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    health = gathered["health"]
    if not health["rdma"]:
        return _check("GPU direct", None, "", "no RDMA devices on this host")
    return _check(
        "GPU direct", True if health["peermem"] else None, "nvidia_peermem beside RDMA devices",
        "loaded" if health["peermem"] else "not loaded: transfers between hosts go through memory",
        "" if health["peermem"] else "install OFED before the driver, then modprobe nvidia_peermem",
    )  # fmt: skip


def _dcgm(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Exporter and host engine speak one protocol per major version; DCGM 3 does not know drivers from 590 on."""
    packages = gathered["health"]["packages"]
    names = {name: versions.upstream(entry["version"]) for name, entry in packages.items() if name.startswith(_DCGM)}
    driver = gathered["facts"]["driver"]["version"] or "0"
    if not names:
        return _check("DCGM", None, "", "not installed")
    majors = {version.partition(".")[0] for version in names.values()}
    found = ", ".join(f"{name} {version}" for name, version in sorted(names.items()))
    next_step = "install datacenter-gpu-manager and its exporter in one major version, 4 or newer"
    if len(majors) > 1:
        return _check("DCGM", False, "one major version", found, next_step)
    if majors == {"3"} and int(driver.partition(".")[0]) >= _DCGM_4_FROM_BRANCH:
        return _check("DCGM", False, f"DCGM 4 or newer for driver {driver}", found, next_step)
    return _check("DCGM", True, "one major version", found)


_DCGM = "datacenter-gpu-manager"
# NVIDIA/dcgm-exporter issue 707: DCGM 3.3.5 with driver 590.
_DCGM_4_FROM_BRANCH = 590


def _inside(gathered: Gathered, plans: Sequence[Plan]) -> Finding:
    """What containers with the devices of each plan see."""
    seen = gathered["measured"].get("container")
    expected = f"{plans[0]['accelerator']['count']} GPUs inside a container of the engine's image"
    if seen is None:
        return _check("container", None, expected, "not checked, or the image is not on the host yet")
    if "problem" in seen:
        return _check(
            "container", False, expected, seen["problem"], "docker run --rm --device with that image on the host"
        )
    problems = "; ".join(seen["problems"])
    return _check("container", not problems, expected, problems or "all of them", "look at the CDI spec and the driver")


_CHECKS: tuple[Callable[[Gathered, Sequence[Plan]], Finding], ...] = (
    _module_flavour, _fabric_manager, _memory_errors, _kernel_log, _runtime, _modules_for_kernels, _pinned,
    _peer_transfers, _rdma, _dcgm, _inside,
)  # fmt: skip


def _measurements(measured: Mapping[str, Any], floors: Mapping[str, float]) -> list[Finding]:
    advice = {
        "disk_write": "put glm_data_dir on the local NVMe disks",
        "disk_read": "put glm_data_dir on the local NVMe disks",
        "network": "look at the route and the proxy; 756 GB take 4 hours at 50 MB/s",
    }
    checks = []
    for name, next_step in advice.items():
        value, floor = measured.get(name), floors.get(name, 0)
        label, expected = name.replace("_", " "), f"{floor:,.0f} MB/s or more"
        if isinstance(value, str):
            checks.append(_check(label, False, expected, value, next_step))
        elif value is None:
            checks.append(_check(label, None, expected if floor else "", "not measured"))
        else:
            checks.append(_check(label, value >= floor, expected, f"{value:,.0f} MB/s", next_step))
    return checks


def _check(check: str, ok: bool | None, expected: str, found: str, next_step: str = "") -> Finding:
    return finding.judged("acceptance", check, ok, expected, found, next_step)
