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
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu, runtime
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.host import checks as host_checks
from ansible_collections.glm.fleet.plugins.plugin_utils.host import gpu_states, kernel_log, speed
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import AcceptanceReport

Gathered = Mapping[str, Any]
SEND_BACK = gpu_states.GIVE_BACK
_ASK = "run the driver's tool on the host (nvidia-smi, amd-smi), and read its kernel log (journalctl --dmesg)"
_FREE = "stop what uses the GPUs, or look why their memory in use cannot be read (nvidia-smi, amd-smi), then run again"


def verdict(
    host: str,
    gathered: Gathered,
    plans: Sequence[Plan],
    floors: Mapping[str, float],
    leave_out: Collection[str] = (),
    strict: bool = False,
) -> AcceptanceReport:
    """The report of a host; ``ok`` is False as soon as one check counts against it.

    ``strict``: what applies and could not be read counts, too. What does not apply, and a doubt, never does.

    ``gathered``: ``{facts, health, measured}``. ``floors``: MB/s for ``disk_write``, ``disk_read`` and ``network``.
    ``leave_out``: names of checks that are not judged.
    """
    made = [
        *_host_checks(gathered["facts"], plans),
        *(judge(gathered, plans) for judge in _CHECKS),
        *_states(gathered, plans),
        *speed.judge(
            gathered["measured"].get("gpu_speed"), _of_plans(gathered["facts"], plans), _platform(gathered["facts"])
        ),
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
        "ok": not _against(checks, strict),
        "strict": strict,
        "checks": checks,
        "finished_at": report.now(),
    }


def failures(judged: AcceptanceReport) -> str:
    """The checks that count against the host as the text of an error; empty when none does."""
    return finding.describe(_against(judged["checks"], judged["strict"]), judged["host"])


def _against(checks: Sequence[Finding], strict: bool) -> list[Finding]:
    return [entry for entry in checks if finding.counts_against(entry) or (strict and entry.get("unread"))]


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
    unread = _unread_facts(facts)
    # A broken driver hides what is behind it.
    hidden = {"gpu", "fabric", "cdi"} if "driver" in wrong and not driver else set()
    return [
        _check(name, False, wrong[name]["expected"], wrong[name]["found"], wrong[name]["next"])
        if name in wrong
        else unread[name]
        if name in unread and name not in hidden
        else _check(
            name, None if name in hidden else True, "", "hidden by the driver's failure" if name in hidden else text
        )
        for name, text in good.items()
    ]


def _unread_facts(facts: Mapping[str, Any]) -> dict[str, Finding]:
    """What of the host's facts could not be read though nothing in them is wrong, by check."""
    found = {}
    beside = [error["message"] for error in facts["errors"] if error["phase"] == "gpu"]
    if facts["gpus"] and facts["gpu_source"] not in host_checks.TOOLS:
        expected, said = "GPUs that their driver describes", f"{len(facts['gpus'])} on the PCI bus only"
        found["gpu"] = _unread("gpu", expected, said, _ASK)
    elif beside:
        found["gpu"] = _unread("gpu", "a table of the GPUs with nothing beside it", "; ".join(beside), SEND_BACK)
    if not facts["driver"]["version"]:
        found["driver"] = _unread("driver", "the version of the driver", "none that can be read", _ASK)
    fabric = [error["message"] for error in facts["errors"] if error["phase"] == "fabric"]
    expects = _fabric_kind(facts) in ("fabricmanager", "nvlsm") and platforms.reports_fabric(facts)
    if fabric or (expects and not facts["fabric"]["state"]):
        said = "; ".join(fabric) or "GPUs that report none"
        found["fabric"] = _unread("fabric", "the state of the NVLink fabric", said, "nvidia-smi -q -x on the host")
    if facts.get("clock_skew_seconds") is None:
        found["clock"] = _unread("clock", "a clock to compare with", "none that was read", "date on the host")
    return found


def _platform(facts: Mapping[str, Any]) -> platforms.Platform | None:
    """The host's platform; None where the table has none: nothing is then expected of its GPUs."""
    try:
        return platforms.of_host(facts)
    except platforms.PlatformError:
        return None


def _of_plans(facts: Mapping[str, Any], plans: Sequence[Plan]) -> Mapping[str, Any]:
    """The facts with those GPUs only that a plan uses."""
    return {**facts, "gpus": gpu.planned(facts["gpus"], plans)}


def _states(gathered: Gathered, plans: Sequence[Plan]) -> list[Finding]:
    facts, health = _of_plans(gathered["facts"], plans), gathered["health"]
    states = health["gpu_states"]
    if len(facts["gpus"]) < len(gathered["facts"]["gpus"]):
        ours = {gpu_states.bus(entry) for entry in facts["gpus"]}
        states = [state for state in states if gpu_states.bus(state) in ours]
    made = gpu_states.judge(facts, states, health["memory_errors_problem"], _platform(facts))
    return [*made, gpu_states.network(health["links"], max(plan["node"]["count"] for plan in plans))]


def _fabric_kind(facts: Mapping[str, Any]) -> str:
    platform = _platform(facts)
    return platforms.fabric_of(facts, platform) if platform else "none"


def _module_flavour(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    flavour = gathered["health"]["flavour"]
    try:
        platform = platforms.of_host(gathered["facts"])
    except platforms.PlatformError as error:
        return _check("kernel module", None, "", f"not judged: {error}")
    if flavour is None and platform.vendor == "nvidia":
        advice = "look for it: lsmod, /proc/driver/nvidia/version"
        return _unread("kernel module", "NVIDIA's kernel module", "no /proc/driver/nvidia/version", advice)
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
    known = _platform(gathered["facts"]) is not None
    silent = _silent_rows(rows, len(gathered["facts"]["gpus"])) if rows else []
    if not rows:
        silent = [str(health["memory_errors_problem"] or "the driver reports none")]
    bad = [(row, words) for row in rows if (words := _memory_words(row))]
    if not bad and silent:
        advice = "nvidia-smi --query-gpu=ecc.mode.current --format=csv (amd-smi metric --ecc); switch ECC on, or reboot"
        # Only the platform table says that GPUs count their errors.
        judged = _unread if known else _not_counted
        return judged("memory errors", expected, "; ".join(silent), advice)
    if not bad:
        counted = sum(row["aggregate"] or 0 for row in rows)
        return _check("memory errors", True, expected, f"none on {len(rows)} GPUs ({counted} over their lifetime)")
    found = "; ".join([*(f"{row['bus_id']}: {', '.join(words)}" for row, words in bad), *silent])
    reset = all(
        row["remap_pending"] and not row["remap_failed"] and not row["threshold_exceeded"] for row, _words in bad
    )
    next_step = "drain the node and reset its GPUs or reboot: the rows are then remapped" if reset else SEND_BACK
    return _check("memory errors", False, expected, found, next_step)


def _not_counted(check: str, expected: str, found: str, _next_step: str) -> Finding:
    return _check(check, None, expected, found)


def _silent_rows(rows: Sequence[Mapping[str, Any]], gpus: int) -> list[str]:
    """What the rows do not say: GPUs without one, and GPUs that count nothing."""
    words = [f"rows of {len(rows)} of {gpus} GPUs"] if len(rows) != gpus else []
    uncounted = [row["bus_id"] for row in rows if row["uncorrected"] is None]
    remaps = [row["bus_id"] for row in rows if None in (row["remap_pending"], row["remap_failed"])]
    words += [f"no count of errors on {', '.join(uncounted)} (ECC off, or not to be read)"] if uncounted else []
    return words + ([f"no state of row remapping on {', '.join(remaps)}"] if remaps else [])


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
        said = f"no {runtime.name(vendor)} library; the image is checked instead"
        # HIP is in images only; libcuda is part of a driver.
        proven = vendor != "nvidia" or (gathered["measured"].get("container") or {}).get("problems") == []
        advice = "ldconfig -p | grep libcuda on the host: the driver's libraries are not there"
        return _check("runtime", None, expected, said) if proven else _unread("runtime", expected, said, advice)
    wrong = runtime.problems(answer, vendor, count)
    if not wrong and runtime.proven(answer) < count:
        return _unread("runtime", expected, runtime.tried(answer), _FREE)
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
    if switches and state == "unknown":
        advice = "systemctl status nvidia-fabricmanager"
        return _unread("fabric manager", f"one that runs, for {switches}", "that systemd does not answer", advice)
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
    if count:
        return f"{count} NVSwitches"
    return f"the NVLink 5 switches of {len(facts['pci']['gpus'])} GPUs" if _fabric_kind(facts) == "nvlsm" else ""


def _modules_for_kernels(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """A kernel without its module is a node without GPUs after the next reboot."""
    kernels = gathered["health"]["kernels"]
    expected = "the GPU's kernel module for every kernel that could boot"
    if not kernels and gathered["facts"].get("container") is None:
        advice = "ls /boot on the host; leave this check out where the provider boots the kernel from outside"
        return _unread("next boot", expected, "no kernels in /boot", advice)
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
    compared = bool(found and driver)
    return _check("driver packages", compared or None, "", ", ".join(sorted(found)) or "not from packages")


def _peer_transfers(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Reported only: some platforms need them on, and then NCCL copes."""
    health = gathered["health"]
    iommu, bridges = health["iommu"], health["acs_bridges"]
    words = [f"IOMMU {'translates DMA' if iommu['translating'] else 'passes through' if iommu['groups'] else 'is off'}"]
    words += [f"{bridges} bridges with ACS redirection"] if bridges else []
    words += ["bridges not read, as there is no lspci"] if bridges is None else []
    bare_metal = gathered["facts"].get("container") is None
    doubtful = bare_metal and (iommu["translating"] or bridges != 0)
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


def _device_links(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Reported only: containers work without them until somebody reloads systemd."""
    lacking = gathered["health"]["unlinked"]
    expected = (
        "links in /dev/char to the GPUs' device nodes, without which systemctl daemon-reload takes them from containers"
    )
    next_step = "nvidia-ctk system create-dev-char-symlinks --create-all, and its rule of udev for the next boot"
    return _check(
        "device links",
        None if lacking else True,
        expected,
        f"none to {', '.join(lacking)}" if lacking else "all",
        next_step,
    )


def _settings(gathered: Gathered, _plans: Sequence[Plan]) -> Finding:
    """Reported only: what wins is a file of the vendor or the owner."""
    found = gathered["health"]["settings"]
    return finding.judged(
        "acceptance",
        "settings",
        None if found else True,
        "the settings that were written here to be in force",
        "; ".join(f"{one['check']}: {one['found']}" for one in found) or "all",
        "; ".join(dict.fromkeys(one["next"] for one in found)),
        evidence=[finding.render(one, one["check"]) for one in found],
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
    answers = [entry["runtime"] for entry in seen.get("found", ()) if (entry.get("runtime") or {}).get("devices")]
    tried = [runtime.tried(answer) for answer in answers if runtime.proven(answer) < len(answer["devices"])]
    if tried and not problems:
        return _unread("container", expected, "; ".join(tried), _FREE)
    return _check("container", not problems, expected, problems or "all of them", "look at the CDI spec and the driver")


_CHECKS: tuple[Callable[[Gathered, Sequence[Plan]], Finding], ...] = (
    _module_flavour, _fabric_manager, _memory_errors, _kernel_log, _runtime, _modules_for_kernels, _pinned,
    _peer_transfers, _device_links, _settings, _rdma, _dcgm, _inside,
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


def _unread(check: str, expected: str, found: str, next_step: str) -> Finding:
    return finding.unread("acceptance", check, expected, found, next_step)
