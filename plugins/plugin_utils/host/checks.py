# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what a host is (gpu_facts) with what the plan needs, and word each difference for a person.

Pure functions. No findings mean that the host can be used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host import cdi
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import MINIMUM_MAJOR, may_run
from ansible_collections.glm.fleet.plugins.module_utils.host.gpu import signs_of_driver
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import rocm as rocm_matrix
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

# nvidia-smi rounds, and ECC and firmware reservations differ by driver; the smallest step between two models is 10 %.
MEMORY_TOLERANCE = 0.03
MAXIMUM_SKEW_SECONDS = 60.0
# What reports the memory of a GPU; the PCI bus does not.
TOOLS = ("nvidia-smi", "amd-smi", "rocm-smi")
UNDO_PARTITIONS = (
    "amd-smi set --memory-partition NPS1, amd-smi set --compute-partition SPX on the idle host; or reboot it"
)
# Where a spec goes that no file names yet: here it outlives a reboot.
CDI_OUTPUT = "/etc/cdi/nvidia.yaml"


def gpu_findings(facts: Mapping[str, Any], plans: Sequence[Plan]) -> list[Finding]:
    """The host's accelerators, driver, fabric and clock against all its plans; what several say is said once."""
    found: list[Finding] = []
    for plan in plans:
        found += [entry for entry in _gpu_findings(facts, plan) if entry not in found]
    return [*found, *_walls(facts, plans), *_memory(facts, plans)]


def _gpu_findings(facts: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    """Accelerators, driver, fabric and clock against the plan; at most one finding per phase, the most basic first.

    A broken driver hides everything behind it, so then only the driver is reported.
    """
    accelerator = plan["accelerator"]
    errors = _messages(facts, "driver")
    if errors:
        there = signs_of_driver(facts["driver"], facts["pci"])
        next_step = (
            "drain the host and reboot it; if its driver then does not answer, read the kernel log (journalctl --dmesg)"
            if there
            else "reboot the host if its driver was upgraded; otherwise install the driver, or use an image that has it"
        )
        yield finding.failed(
            "driver",
            f"a working {accelerator['vendor']} driver for {accelerator['count']}x {accelerator['name']}",
            "; ".join(errors),
            next_step,
        )
    else:
        yield from _count(facts, accelerator)
        yield from _kind(facts, accelerator)
        yield from _driver_age(facts, plan)
        yield from _fabric(facts)
    yield from _clock(facts)


def _messages(facts: Mapping[str, Any], phase: str) -> list[str]:
    """What could not be read in a phase, and why."""
    return [error["message"] for error in facts["errors"] if error["phase"] == phase]


def _count(facts: Mapping[str, Any], accelerator: Mapping[str, Any]) -> Iterator[Finding]:
    gpus = [gpu for gpu in facts["gpus"] if gpu.get("vendor") == accelerator["vendor"]]
    answering = [gpu for gpu in gpus if facts["gpu_source"] not in TOOLS or gpu["memory_total_mib"] is not None]
    if len(answering) == accelerator["count"]:
        return
    details = _messages(facts, "gpu")
    found = f"{len(answering)} ({'; '.join(details)})" if details else str(len(answering))
    boards = sum(entry["vendor"] == accelerator["vendor"] for entry in facts["pci"].get("gpus", ()))
    if 0 < boards < len(answering):
        # AMD: each partition is a device of its own.
        seen = f"{found} partitions of {boards} GPUs"
        yield finding.failed("gpu", f"{accelerator['count']} GPUs", seen, UNDO_PARTITIONS)
        return
    next_step = (
        "look for errors in the kernel log (dmesg | grep -iE 'xid|amdgpu') and terminate the instance if a GPU fell "
        "off the bus"
        if len(answering) < accelerator["count"]
        else "set glm_accelerator_count to what the host has, or choose the right instance type"
    )
    yield finding.failed("gpu", f"{accelerator['count']} GPUs", found, next_step)


def _kind(facts: Mapping[str, Any], accelerator: Mapping[str, Any]) -> Iterator[Finding]:
    if facts["gpu_source"] not in TOOLS:
        return
    wanted_mib = accelerator["memory_gib"] * 1024
    wrong: dict[str, list[str]] = {}
    for gpu in facts["gpus"]:
        total = gpu["memory_total_mib"]
        if total is None:
            continue
        same_size = abs(total - wanted_mib) <= wanted_mib * MEMORY_TOLERANCE
        if not is_kind(gpu["name"], accelerator["name"]) or not same_size:
            wrong.setdefault(f"{gpu['name']} with {total} MiB", []).append(str(gpu["index"]))
    if wrong:
        yield finding.failed(
            "gpu",
            f"{accelerator['name']} with {wanted_mib:.0f} MiB each (within {MEMORY_TOLERANCE:.0%})",
            "; ".join(f"{what} at index {', '.join(indexes)}" for what, indexes in wrong.items()),
            "correct glm_accelerator, or choose the right instance type; a MIG-partitioned GPU also shows less memory",
        )


def _driver_age(facts: Mapping[str, Any], plan: Plan) -> Iterator[Finding]:
    image, driver = plan["image"], facts.get("driver") or {}
    if image is None:
        return
    if plan["accelerator"]["vendor"] == "amd":
        # AMD publishes no oldest driver for a ROCm but a table of what goes together.
        kind, built_for = "ROCm", image["rocm"]
        old = rocm_matrix.too_old(driver, built_for, plan["accelerator"]["name"])
    else:
        kind, built_for = "CUDA", image["cuda"]
        minimum, version = image["min_driver"], driver.get("version")
        old = (minimum, version) if minimum and version and versions.older(version, minimum) else None
    if old:
        inside = f"{kind} {built_for} in " if built_for else ""
        yield finding.failed(
            "driver",
            f"driver {old[0]} or newer, which {inside}{image['reference']} needs",
            old[1],
            f"choose an image variant for an older {kind} (glm_image_variant), or upgrade the host's driver",
        )


def _fabric(facts: Mapping[str, Any]) -> Iterator[Finding]:
    fabric = facts["fabric"]
    switches = facts["pci"]["nvswitches"]
    if fabric["present"] and fabric["state"] == "Completed":
        return
    if not fabric["present"] and (not switches or not platforms.reports_fabric(facts)):
        return
    problems = "; ".join(_messages(facts, "fabric"))
    yield finding.failed(
        "fabric",
        "the NVLink fabric Completed on every GPU",
        fabric["state"] or problems or f"none, though the host has {switches} NVSwitches",
        "systemctl status nvidia-fabricmanager: it must run, in exactly the driver's version; on B200 nvlsm and "
        "the ib_umad module are needed too",
    )


def _walls(facts: Mapping[str, Any], plans: Sequence[Plan]) -> Iterator[Finding]:
    """Whether systemd can filter who reaches engines that run without Docker, which says so of its containers."""
    if any(plan["image"] is None for plan in plans) and facts["cgroups"] != 2:
        yield finding.failed(
            "cgroups",
            "control groups v2, by which systemd filters who reaches the ports of an engine that take no key",
            f"v{facts['cgroups']}" if facts["cgroups"] else "none",
            "boot with systemd.unified_cgroup_hierarchy=1; containers need them as well",
        )


def _memory(facts: Mapping[str, Any], plans: Sequence[Plan]) -> Iterator[Finding]:
    """What all replicas take of the host's memory, offloaded weights and KV cache included, against what it has."""
    # The plan of a release that an earlier version of the product made has no such figure.
    parts = [plan["host_memory"] for plan in plans if plan.get("host_memory")]
    needed, offloaded = (sum(part[name] for part in parts) for name in ("needed_gib", "offloaded_gib"))
    total = facts.get("memory_mib", 0) / 1024
    # A host that is a container shows the memory of the machine that it shares.
    if needed and total and facts.get("container") is None and needed > total:
        less = "offload less in glm_engine_args, or " if offloaded else ""
        also = f" and {offloaded:.0f} GiB offloaded from GPUs" if offloaded else ""
        yield finding.failed(
            "memory",
            f"memory of {needed:.0f} GiB, for shared memory, processes{also}",
            f"{total:.0f} GiB",
            f"{less}take a host with more memory for its GPUs; one of a cloud with less than it was rented with is "
            "broken",
        )


def _clock(facts: Mapping[str, Any]) -> Iterator[Finding]:
    skew = facts.get("clock_skew_seconds") or 0.0
    if abs(skew) > MAXIMUM_SKEW_SECONDS:
        yield finding.failed(
            "clock",
            f"a clock within {MAXIMUM_SKEW_SECONDS:.0f} s of the controller's",
            f"{skew:+.0f} s",
            "start time synchronisation on the host (timedatectl set-ntp true); TLS and tokens fail with a wrong clock",
        )


def device_findings(facts: Mapping[str, Any], plans: Sequence[Plan]) -> Iterator[Finding]:
    """CDI specs against the devices that the plans of a host pass to containers, and against the driver."""
    rivals = _rivals(facts, plans)
    if rivals:
        found = "; ".join(f"{device} in {' and '.join(paths)}" for device, paths in rivals.items())
        yield finding.failed(
            "cdi",
            "each device in one CDI spec of a folder",
            f"{found}, of which Docker then uses none",
            "remove all but one of these files",
        )
        return
    taken = _taken_specs(facts, plans)
    missing = [device for device, spec in taken.items() if spec is None]
    stale = {
        spec["path"]: f"{spec['path']} was made for driver {spec['driver_version']}"
        for spec in taken.values()
        if spec and _is_stale(spec, facts)
    }
    if missing:
        known = ", ".join(facts["cdi"]["devices"])
        said = "; ".join([known] * bool(known) + _messages(facts, "cdi"))
        found = said or f"no CDI spec in {' or '.join(cdi.FOLDERS)}"
        yield finding.failed("cdi", ", ".join(missing), found, _how_to_make_cdi(facts, plans))
    elif stale:
        wanted = f"a CDI spec for driver {facts['driver']['version']}"
        yield finding.failed("cdi", wanted, "; ".join(stale.values()), _how_to_make_cdi(facts, plans))


def cdi_outputs(facts: Mapping[str, Any], plans: Sequence[Plan]) -> list[str]:
    """Files that ``nvidia-ctk cdi generate`` has to write so that Docker takes a current spec for each planned device.

    A stale spec is written over where it lies: a fresh one in a folder of lower priority would never be read. Empty
    when nothing is to be written, or when writing would not help.
    """
    if _rivals(facts, plans):
        return []
    taken = _taken_specs(facts, plans).values()
    paths = [spec["path"] if spec else CDI_OUTPUT for spec in taken if spec is None or _is_stale(spec, facts)]
    return list(dict.fromkeys(paths))


def planned_devices(plans: Sequence[Plan]) -> list[str]:
    """CDI names that the host's containers get, all replicas together."""
    return list(dict.fromkeys(device for plan in plans for device in plan["devices"]))


def _taken_specs(facts: Mapping[str, Any], plans: Sequence[Plan]) -> dict[str, Mapping[str, Any] | None]:
    """The spec that Docker takes for each planned device, or None."""
    specs = {spec["path"]: spec for spec in facts["cdi"]["specs"]}
    return {device: specs.get(cdi.taken(_naming(facts, device))[0] or "") for device in planned_devices(plans)}


def _rivals(facts: Mapping[str, Any], plans: Sequence[Plan]) -> dict[str, list[str]]:
    """Planned devices that two files of one folder name, with these files. Docker then knows no such device at all."""
    rivals = {device: cdi.taken(_naming(facts, device))[1] for device in planned_devices(plans)}
    return {device: paths for device, paths in rivals.items() if paths}


def _naming(facts: Mapping[str, Any], device: str) -> list[str]:
    """Paths of the specs that name a device, in the order of gpu_facts: the folder of highest priority last."""
    return [spec["path"] for spec in facts["cdi"]["specs"] if device in spec["devices"]]


def _is_stale(spec: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    driver = (facts.get("driver") or {}).get("version")
    made_for = spec["driver_version"]
    return bool(driver and made_for and made_for != driver and spec["kind"].startswith("nvidia.com/"))


def _how_to_make_cdi(facts: Mapping[str, Any], plans: Sequence[Plan]) -> str:
    if facts["cdi"]["nvidia_ctk"]:
        return " and ".join(f"nvidia-ctk cdi generate --output={path}" for path in cdi_outputs(facts, plans))
    return "install nvidia-container-toolkit (its nvidia-ctk writes the CDI spec), or use an image that has it"


def docker_findings(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether Docker answers, can hand out CDI devices, and puts containers where systemd says; one finding at most."""
    docker = facts["docker"]
    if not docker["running"]:
        found = "; ".join(_messages(facts, "docker")) or "no Docker"
        yield finding.failed("docker", "a Docker engine that answers", found, "journalctl -u docker on the host")
    elif docker.get("containers", []) is None:
        found = "; ".join(_messages(facts, "docker")) or may_run(docker)
        advice = (
            "journalctl -u docker on the host, to find the container that hangs; drain the host before you restart it"
        )
        yield finding.failed("docker", "a Docker engine that names its containers", found, advice)
    elif not docker["cdi"]:
        yield finding.failed(
            "docker",
            f"Docker {MINIMUM_MAJOR} or newer with features.cdi on",
            f"Docker {docker['version']} without CDI",
            "upgrade Docker, or look for features.cdi in /etc/docker/daemon.json",
        )
    elif docker["cgroups"] != "systemd v2":
        yield finding.failed(
            "docker",
            "Docker to keep containers in systemd's control groups v2, where systemd filters who reaches an engine",
            str(docker["cgroups"]),
            "take native.cgroupdriver out of exec-opts in /etc/docker/daemon.json and restart Docker, or boot with "
            "systemd.unified_cgroup_hierarchy=1",
        )


def host_problems(facts: Mapping[str, Any], plans: Sequence[Plan], host: str, parts: Sequence[str]) -> str:
    """Everything that is wrong with the named parts (gpu, docker, devices) as one text; empty when nothing is.

    Raises KeyError when ``facts`` lack a subset that a part needs.
    """
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "gpu": lambda: gpu_findings(facts, plans),
        "docker": lambda: docker_findings(facts),
        "devices": lambda: device_findings(facts, plans),
    }
    return finding.describe([entry for part in parts for entry in checks[part]()], host)


def is_kind(reported: str, wanted: str) -> bool:
    """Whether nvidia-smi's product name is that accelerator, by whole words: "NVIDIA GH200 480GB" is no H200."""
    return set(_words(wanted)) <= set(_words(reported))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]
