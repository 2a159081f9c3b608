# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the drivers of all vendors have in common: what prevents changing one, and what must be there for its module.

Pure. ``role`` is the role of the driver, nvidia or rocm: the phase of its problems, and the prefix of its variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms

# What the driver itself and its daemons keep on an idle GPU.
_IDLE_MIB = 2048
# Ubuntu's kernels since 25.10 have in one package what older ones keep apart.
_MODULES_EXTRA = ("22.04", "24.04")

# How a vendor is written, and the role that installs its driver.
_VENDORS = {"amd": ("AMD", "rocm"), "nvidia": ("NVIDIA", "nvidia")}


class Work(TypedDict):
    """What has to be done on a host of any vendor. ``adopt``: the driver that is there stays. ``load``: one is new."""

    platform: str
    adopt: bool
    driver: str
    problems: list[Finding]
    packages: list[str]
    load: bool


def platform_of(facts: Mapping[str, Any], vendor: str) -> platforms.Platform:
    """The platform of a host whose GPUs are the vendor's. Raises PlatformError."""
    platform = platforms.of_host(facts)
    if platform.vendor != vendor:
        raise platforms.PlatformError(
            f"{_VENDORS[vendor][0]} GPUs", platform.name, f"use the role glm.fleet.{_VENDORS[platform.vendor][1]}"
        )
    return platform


def secure_boot(facts: Mapping[str, Any], ready: bool, role: str) -> Iterator[Finding]:
    """The kernel refuses modules that were built on the host, unless their key is enrolled and ``ready`` says so."""
    # A container boots nothing; its machine did.
    if facts["drivers"]["secure_boot"] is None and not ready and not facts["container"]:
        yield finding.failed(
            role,
            "Secure Boot to be off",
            "that neither mokutil nor /sys/firmware/efi/efivars says so",
            f"install mokutil on the host and run again, or set {role}_secure_boot_ready if it is off or ready",
        )
    elif facts["drivers"]["secure_boot"] and not ready:
        yield finding.failed(
            role,
            "Secure Boot to be off",
            "it on: the kernel refuses modules that were built here",
            "enrol DKMS's key (mokutil --import /var/lib/dkms/mok.pub, then reboot) and set "
            f"{role}_secure_boot_ready, or turn Secure Boot off",
        )


def busy_gpus(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """GPUs in use. Memory that cannot be read is in use where somebody has a GPU open or may have it, except on a GPU
    that no driver, or only nouveau, works on."""
    closed = facts.get("gpu_holders") == []
    return [
        gpu
        for gpu in facts["gpus"]
        if (_has_driver(gpu) and not closed if _unread(gpu) else gpu["memory_used_mib"] > _IDLE_MIB)
    ]


def _has_driver(gpu: Mapping[str, Any]) -> bool:
    # A row of a tool says nothing of it: the tool asked the driver.
    return gpu.get("driver", "the tool's") not in (None, "nouveau")


def _unread(gpu: Mapping[str, Any]) -> bool:
    return gpu.get("memory_used_mib") is None


def in_use(facts: Mapping[str, Any], role: str) -> Iterator[Finding]:
    """A driver is not changed under what serves."""
    busy = busy_gpus(facts)
    if busy:
        used = ", ".join(str(gpu["index"]) for gpu in busy if not _unread(gpu))
        unread = ", ".join(str(gpu["index"]) for gpu in busy if _unread(gpu))
        found = [f"memory in use on {used}"] * bool(used)
        holders = f" by {', '.join(facts['gpu_holders'])}" if facts.get("gpu_holders") else ""
        found += [f"memory that cannot be read on {unread}, which counts as in use{holders}"] * bool(unread)
        advice = "drain the host and stop what serves, then run again"
        yield finding.failed(role, "idle GPUs", "; ".join(found), advice)


def unanswered(facts: Mapping[str, Any], role: str, signs: list[str], advice: str) -> Finding:
    """A driver is not installed over one that is there and does not answer."""
    said = [error["message"] for error in facts["errors"] if error["phase"] in ("driver", "gpu")]
    found = "; ".join(dict.fromkeys([*signs, *said]))
    return finding.failed(role, "a driver that answers, or none at all before one is installed", found, advice)


def headers(facts: Mapping[str, Any]) -> list[str]:
    """DKMS builds for each kernel that could boot. A container's kernel is another machine's."""
    if facts["container"]:
        return []
    return [f"linux-headers-{kernel}" for kernel in facts["drivers"]["kernels"]] or [f"linux-headers-{facts['kernel']}"]


def modules_extra(facts: Mapping[str, Any]) -> list[str]:
    """Ubuntu keeps apart from its kernel what amdgpu builds upon, and the modules that NVLink 5 needs.

    instinct.docs.amd.com, "Prerequisites"; NVIDIA/gpu-operator issue 2781.
    """
    distribution = facts["distribution"]
    if facts["container"] or distribution["id"] != "ubuntu" or distribution["version"] not in _MODULES_EXTRA:
        return []
    return [f"linux-modules-extra-{facts['kernel']}"]


def broken(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """What the vendor's tools said against the driver, as they said it."""
    advice = "reboot the host; if that does not help, read its kernel log (journalctl --dmesg)"
    for error in facts["errors"]:
        if error["phase"] == "driver":
            yield finding.failed("driver", "a driver that answers", error["message"], advice)


def unbuilt(facts: Mapping[str, Any]) -> list[str]:
    """Kernels that could boot and would have no GPUs."""
    return [kernel for kernel, built in facts["drivers"]["kernels"].items() if not built]


def without_module(lacking: list[str], role: str) -> Finding:
    """The finding about such kernels."""
    return finding.failed(
        role,
        "the module for every kernel that could boot",
        f"none for {', '.join(lacking)}",
        f"apt install linux-headers-{lacking[0]} && dkms autoinstall -k {lacking[0]}, or remove that kernel",
    )
