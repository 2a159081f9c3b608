# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what an NVIDIA host lacks, and refuse what would break it, before anything is touched.

Pure. A driver that works is adopted: it is pinned where it is, and only what goes with it is added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils import host_driver, platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.acceptance import upstream

# From this branch on the fabric manager's package has no branch in its name (package lists of NVIDIA's repository).
_UNBRANCHED_FABRIC = 580
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


class Work(host_driver.Work):
    """What has to be done. ``pins``: package patterns and the version apt shall take them in."""

    pins: list[dict[str, str]]
    modules: list[str]
    services: list[str]


def work(facts: Mapping[str, Any], wanted: Mapping[str, Any], host: str) -> Work:
    """The work on a host.

    ``facts``: gpu_facts with the subsets system, gpu, cdi, docker and drivers. ``wanted``: ``{branch, version, modules,
    change_driver, toolkit_version, toolkit, secure_boot_ready, driver_packages}``, the role's variables.
    """
    try:
        platform = host_driver.platform_of(facts, "nvidia")
    except platforms.PlatformError as error:
        return _nothing(f"{host}, nvidia: {error}.")
    running = facts["driver"]["version"]
    target = str(wanted["version"] or wanted["branch"])
    adopt = bool(running) and not (wanted["change_driver"] and not _is(running, target))
    driver = running if adopt else target
    modules = "open" if wanted["modules"] == "auto" else str(wanted["modules"])
    problems = [
        f"{host}, nvidia: {text}."
        for text in _problems(facts, wanted, platform, str(driver), adopt=adopt, modules=modules)
    ]
    packages = [
        *([] if adopt else [*wanted["driver_packages"][modules], *host_driver.headers(facts)]),
        *_fabric_packages(platform, str(driver)),
        *_fabric_modules(facts, platform),
        *(TOOLKIT if wanted["toolkit"] else ()),
    ]
    return {
        "platform": platform.name,
        "adopt": adopt,
        "driver": str(driver),
        "problems": problems,
        "packages": packages,
        "pins": _pins(str(driver), str(wanted["toolkit_version"])),
        "modules": ["ib_umad"] if platform.fabric == "nvlsm" else [],
        "services": ["nvidia-persistenced", *_fabric_services(platform)],
        "load": not adopt,
    }


def _nothing(problem: str) -> Work:
    return {
        "platform": "", "adopt": True, "driver": "", "problems": [problem], "packages": [], "pins": [], "modules": [],
        "services": [], "load": False,
    }  # fmt: skip


def _is(running: str, target: str) -> bool:
    return running == target or running.startswith(f"{target}.")


def _branch(driver: str) -> int:
    return int(driver.partition(".")[0])


def _problems(
    facts: Mapping[str, Any],
    wanted: Mapping[str, Any],
    platform: platforms.Platform,
    driver: str,
    *,
    adopt: bool,
    modules: str,
) -> list[str]:
    drivers, broken = facts["drivers"], facts["driver"]
    if broken["library_version"] and broken["module_version"]:
        return [
            f"expected module and libraries of one driver, found module {broken['module_version']} and libraries "
            f"{broken['library_version']}: the driver was upgraded under its module. Next: reboot the host"
        ]
    found = []
    if _branch(driver) < platform.min_branch:
        found.append(
            f"expected driver {platform.min_branch} or newer, the first that knows {platform.name}, found {driver}"
            + (" running. Next: set nvidia_change_driver" if adopt else ". Next: set nvidia_driver_branch")
        )
    flavour = drivers["flavour"]
    if adopt and flavour and platform.modules == "open" and flavour != "open":
        found.append(
            f"expected the open kernel modules, the only ones that know {platform.name}, found the {flavour} ones. "
            "Next: set nvidia_change_driver"
        )
    return found if adopt else found + _change_problems(facts, wanted, platform, modules)


def _change_problems(
    facts: Mapping[str, Any], wanted: Mapping[str, Any], platform: platforms.Platform, modules: str
) -> list[str]:
    """What forbids installing a driver on this host."""
    drivers, found = facts["drivers"], []
    if platform.modules == "open" and modules != "open":
        found.append(f"expected nvidia_modules open or auto for {platform.name}, found {modules}. Next: correct it")
    found += host_driver.secure_boot(facts, wanted["secure_boot_ready"], "nvidia_secure_boot_ready")
    stack = sorted(name for name in drivers["packages"] if name.startswith("lambda-stack"))
    if stack:
        found.append(
            f"expected a host whose driver is ours to change, found {stack[0]}, which brings its own. Next: leave "
            "nvidia_change_driver off, or launch the image family gpu-base"
        )
    return found + host_driver.in_use(facts)


def _fabric_packages(platform: platforms.Platform, driver: str) -> list[str]:
    if platform.fabric in ("fabricmanager", "nvlsm"):
        branch = _branch(driver)
        suffix = "" if branch >= _UNBRANCHED_FABRIC else f"-{branch}"
        return [f"nvidia-fabricmanager{suffix}", *(("nvlsm", "libnvsdm") if platform.fabric == "nvlsm" else ())]
    return ["nvidia-imex"] if platform.fabric == "imex" else []


def _fabric_modules(facts: Mapping[str, Any], platform: platforms.Platform) -> list[str]:
    """Ubuntu keeps ib_umad and mlx5_ib, which NVLink 5 needs, apart from its kernel."""
    if platform.fabric != "nvlsm" or facts["container"] or facts["distribution"]["id"] != "ubuntu":
        return []
    return [f"linux-modules-extra-{facts['kernel']}"]


def _fabric_services(platform: platforms.Platform) -> list[str]:
    return {"none": [], "imex": ["nvidia-imex"]}.get(platform.fabric, ["nvidia-fabricmanager"])


def _pins(driver: str, toolkit: str) -> list[dict[str, str]]:
    """The fabric manager refuses a driver of any other version, so one line decides both."""
    version = f"{driver}-*" if re.fullmatch(r"\d+\.\d+(\.\d+)?", driver) else f"{driver}.*"
    patterns = "nvidia-* libnvidia-* cuda-drivers* nvidia-fabricmanager* libnvsdm* nvidia-imex*"
    pins = [{"packages": patterns, "version": version}]
    # First, because apt takes the first record that matches: the toolkit counts its versions for itself.
    return [{"packages": " ".join(TOOLKIT), "version": f"{toolkit}-*" if toolkit else "*"}, *pins]


def unproven(facts: Mapping[str, Any], done: Mapping[str, Any], host: str) -> list[str]:
    """What is still wrong on a host after the work ``done``; ``facts`` gathered afresh."""
    problems = [f"{host}, driver: {message}." for message in host_driver.broken(facts)]
    drivers = facts["drivers"]
    lacking = [kernel for kernel, there in drivers["kernels"].items() if not there]
    if lacking and any(drivers["kernels"].values()):
        problems.append(f"{host}, nvidia: {host_driver.unbuilt(lacking)}.")
    running = facts["driver"]["version"]
    managers = {
        upstream(entry["version"])
        for name, entry in drivers["packages"].items()
        if name.startswith("nvidia-fabricmanager")
    }
    if running and managers and managers != {running}:
        problems.append(
            f"{host}, nvidia: expected nvidia-fabricmanager in exactly the driver's version {running}, found "
            f"{', '.join(sorted(managers))}. Next: remove it and run the role again."
        )
    asleep = [name for name in done["services"] if drivers["units"].get(name) not in ("active", None)]
    if asleep:
        problems.append(
            f"{host}, nvidia: expected {', '.join(asleep)} to run, found "
            f"{', '.join(str(drivers['units'][name]) for name in asleep)}. Next: systemctl status {asleep[0]}."
        )
    return problems
