# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what an NVIDIA host lacks, and refuse what would break it, before anything is touched.

Pure. A driver that works is adopted: it is pinned where it is, and only what goes with it is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import FABRIC_MODULES
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.host import driver as host_driver

# Packages as gpu_facts has them: by name, with version and held.
Packages = Mapping[str, Mapping[str, Any]]
_failed = partial(finding.failed, "nvidia")

# From this branch on these packages have no branch in their names (package lists of NVIDIA's repository).
_UNBRANCHED = 580
# Of these the driver accepts only its own version.
_EXACT = ("nvidia-fabricmanager", "libnvsdm", "nvidia-imex")
# By the platform table's word. The subnet manager counts its versions for itself.
_FABRIC_PACKAGES = {
    "none": (),
    "fabricmanager": ("nvidia-fabricmanager",),
    "nvlsm": ("nvidia-fabricmanager", "nvlsm", "libnvsdm"),
    "imex": ("nvidia-imex",),
}
_PINNED = "nvidia-* libnvidia-* cuda-drivers* nvidia-fabricmanager* libnvsdm* nvidia-imex*"
# What goes with the driver that is replaced: of the pinned packages, and of Ubuntu's, whose modules are packages.
_REPLACED = (
    *_PINNED.split(),
    *("xserver-xorg-video-nvidia-*", "linux-modules-nvidia-*", "linux-objects-nvidia-*", "linux-signatures-nvidia-*"),
)
# What of a driver NVIDIA, Ubuntu and Debian package: module, libraries, tools. Not what goes with any driver.
_DRIVER = re.compile(
    r"(cuda-drivers|nvidia-(open|driver|dkms|kernel|headless|utils)|libnvidia-compute|linux-(modules|objects)-nvidia)"
)
TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


class Work(host_driver.Work):
    """What has to be done. ``pins``: package patterns and the version that apt is to install. ``upgrade``: installed
    packages to change to the wanted version. ``removes``: those that others take the place of. ``may_remove``: patterns
    of those that may go with a driver that is replaced. ``sources``: whether the vendor's apt sources are needed.
    ``modules``: for each boot; ``unloaded``: those of them to load now. ``waits``: whether the fabric only needs time.
    ``services``: daemons that have to run; ``idle``: those of them that do not, or not from the next boot on.
    ``toolkit``: version of the container toolkit, empty for any."""

    pins: list[dict[str, str]]
    upgrade: list[str]
    removes: list[str]
    may_remove: list[str]
    sources: bool
    modules: list[str]
    unloaded: list[str]
    waits: bool
    services: list[str]
    idle: list[str]
    toolkit: str


def work(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> Work:
    """The work on a host.

    ``facts``: gpu_facts with the subsets system, gpu, cdi, docker and drivers. ``wanted``: ``{branch, version, modules,
    change_driver, toolkit_version, toolkit, secure_boot_ready, driver_packages, image_driver, image_cuda}``, the role's
    variables.
    """
    try:
        platform = host_driver.platform_of(facts, "nvidia")
    except platforms.PlatformError as error:
        return _nothing(error.finding("nvidia"))
    installed: Packages = facts["drivers"]["packages"]
    running = facts["driver"]["version"]
    target = str(wanted["version"] or wanted["branch"])
    adopt = bool(running) and not (wanted["change_driver"] and not versions.is_release(running, target))
    driver = str(running if adopt else target)
    flavour = "open" if wanted["modules"] == "auto" else str(wanted["modules"])
    silent = None if running else _unanswered(facts, wanted, flavour, target)
    if silent:
        return {**_nothing(silent), "platform": platform.name}
    problems = list(_problems(facts, wanted, platform, driver, adopt=adopt, modules=flavour))
    fabric = platforms.fabric_of(facts, platform)
    modules = list(FABRIC_MODULES) if fabric == "nvlsm" else []
    unloaded = _unloaded(facts, modules)
    driven = [*([] if adopt else wanted["driver_packages"][flavour]), *_fabric_packages(fabric, driver, installed)]
    toolkit = list(TOOLKIT) if wanted["toolkit"] else []
    toolkit_version = str(wanted["toolkit_version"])
    upgrade = [
        *([] if adopt else _other_versions(driven, installed, driver)),
        *_outdated_toolkit(toolkit, installed, toolkit_version),
    ]
    services = _services(facts, fabric, driven)
    return {
        "platform": platform.name,
        "adopt": adopt,
        "driver": driver,
        "problems": problems,
        "packages": [
            *driven,
            *([] if adopt else host_driver.headers(facts)),
            *(host_driver.modules_extra(facts) if unloaded else []),
            *toolkit,
        ],
        "pins": _pins(driver, toolkit_version),
        "upgrade": upgrade,
        "removes": [] if adopt else [name for name in _exact(installed) if name not in driven],
        "may_remove": [] if adopt else [*_REPLACED],
        "sources": not _stacks(installed) and (bool(upgrade) or not {*driven, *toolkit} <= {*installed}),
        "modules": modules,
        "unloaded": unloaded,
        "waits": _state(facts) == "In Progress" and not unloaded and not _asleep(facts, services),
        "services": services,
        "idle": [name for name in services if not _runs(facts, name)],
        "toolkit": toolkit_version,
        "load": not adopt,
    }


def _nothing(problem: Finding) -> Work:
    return {
        "platform": "", "adopt": True, "driver": "", "problems": [problem], "packages": [], "pins": [], "upgrade": [],
        "removes": [], "may_remove": [], "sources": False, "modules": [], "unloaded": [], "waits": False,
        "services": [], "idle": [], "toolkit": "", "load": False,
    }  # fmt: skip


def _unanswered(facts: Mapping[str, Any], wanted: Mapping[str, Any], flavour: str, target: str) -> Optional[Finding]:
    """The finding about a driver that is there and does not answer; None where there is none, or only ours to load."""
    driver, installed = facts["driver"], facts["drivers"]["packages"]
    if driver["library_version"] and driver["module_version"]:
        return None  # upgraded under its module, which is said in its own words
    working = gpu.signs_of_driver(driver, facts["pci"])
    if working:
        advice = (
            "read the kernel log (journalctl --dmesg), drain the host and reboot it, then run again; a driver that "
            "does not answer after a reboot is yours to remove"
        )
        return host_driver.unanswered(facts, "nvidia", working, advice)
    of_target = {
        name for name, entry in installed.items() if versions.is_release(versions.upstream(entry["version"]), target)
    }
    packaged = [name for name in installed if _DRIVER.match(name)]
    # Complete, or as far as an installation came that was cut off.
    if (
        wanted["change_driver"]
        or of_target.issuperset(wanted["driver_packages"][flavour])
        or (packaged and of_target.issuperset(packaged))
    ):
        return None
    there = [f"{name} {installed[name]['version']} is installed" for name in packaged]
    there += [f"{driver['tool']} is there"] if driver.get("tool") else []
    if not there:
        return None
    advice = "load that driver (modprobe nvidia, or a reboot), or set nvidia_change_driver to replace it"
    return host_driver.unanswered(facts, "nvidia", there, advice)


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
) -> Iterator[Finding]:
    drivers, broken = facts["drivers"], facts["driver"]
    if broken["library_version"] and broken["module_version"]:
        yield _failed(
            "module and libraries of one driver",
            f"module {broken['module_version']} and libraries {broken['library_version']}: the driver was upgraded "
            "under its module",
            "reboot the host",
        )
        return
    if _branch(driver) < platform.min_branch:
        yield _failed(
            f"driver {platform.min_branch} or newer, the first that knows {platform.name}",
            f"{driver} running" if adopt else driver,
            "set nvidia_change_driver" if adopt else "set nvidia_driver_branch",
        )
    yield from _too_old_for_image(driver, wanted, adopt=adopt)
    if not adopt:
        yield from _change_problems(facts, wanted, platform, modules)
        return
    flavour = drivers["flavour"]
    if flavour and platform.modules == "open" and flavour != "open":
        expected = f"the open kernel modules, the only ones that know {platform.name}"
        yield _failed(expected, f"the {flavour} ones", "set nvidia_change_driver")
    yield from _misfits(drivers["packages"], driver)


def _too_old_for_image(driver: str, wanted: Mapping[str, Any], *, adopt: bool) -> Iterator[Finding]:
    """``driver``: a version, or a branch, whose newest version is installed."""
    minimum = str(wanted["image_driver"])
    oldest, found = versions.numbers(minimum), versions.numbers(driver)
    if found < oldest[: len(found)]:
        change = "set nvidia_change_driver" if adopt else "set nvidia_driver_branch or nvidia_driver_version"
        yield _failed(
            f"driver {minimum} or newer, which CUDA {wanted['image_cuda']} of the image needs",
            f"{driver} running" if adopt else driver,
            f"{change}, or choose an image for an older CUDA (glm_image_variant)",
        )


def _change_problems(
    facts: Mapping[str, Any], wanted: Mapping[str, Any], platform: platforms.Platform, modules: str
) -> Iterator[Finding]:
    """What prevents installing a driver on this host."""
    if platform.modules == "open" and modules != "open":
        yield _failed(f"nvidia_modules open or auto for {platform.name}", modules, "correct it")
    yield from host_driver.secure_boot(facts, wanted["secure_boot_ready"], "nvidia")
    stacks = _stacks(facts["drivers"]["packages"])
    if stacks:
        advice = "leave nvidia_change_driver off, or launch the image family gpu-base"
        yield _failed("a host whose driver this role may change", f"{stacks[0]}, which installs its own", advice)
    yield from host_driver.in_use(facts, "nvidia")


def _stacks(installed: Packages) -> list[str]:
    """Packages of an image that has a stack of its own, beside which no other vendor's sources belong."""
    return sorted(name for name in installed if name.startswith("lambda-stack"))


def _fabric_packages(fabric: str, driver: str, installed: Packages) -> list[str]:
    return [name if name == "nvlsm" else _named(name, driver, installed) for name in _FABRIC_PACKAGES[fabric]]


def _named(name: str, driver: str, installed: Packages) -> str:
    """The package as this host calls it: images also have the distribution's, with the branch in the name."""
    branch = _branch(driver)
    there = [
        choice
        for choice in _family(name, installed)
        if versions.is_release(versions.upstream(installed[choice]["version"]), str(branch))
    ]
    return there[0] if there else name if branch >= _UNBRANCHED else f"{name}-{branch}"


def _family(name: str, packages: Iterable[str]) -> list[str]:
    """The packages of that name, with or without a branch in it."""
    return [choice for choice in packages if re.fullmatch(rf"{name}(-\d+)?", choice)]


def _exact(installed: Packages) -> list[str]:
    return [choice for name in _EXACT for choice in _family(name, installed)]


def _misfits(installed: Packages, driver: str) -> Iterator[Finding]:
    """What the driver refuses because it is of another version."""
    exact = {name: versions.upstream(installed[name]["version"]) for name in _exact(installed)}
    wrong = {name: version for name, version in exact.items() if version != driver}
    if wrong:
        expected = f"{', '.join(wrong)} in exactly the driver's version {driver}"
        yield _failed(expected, ", ".join(dict.fromkeys(wrong.values())), "remove it and run the role again")


def _unloaded(facts: Mapping[str, Any], modules: list[str]) -> list[str]:
    """Modules to load now. A fabric that is up needs none, and the kernel of a container is another machine's."""
    if facts["container"] or _state(facts) == "Completed":
        return []
    return [name for name in modules if not facts["drivers"]["modules"].get(name)]


def _state(facts: Mapping[str, Any]) -> Any:
    return facts["fabric"]["state"]


def _services(facts: Mapping[str, Any], fabric: str, packages: list[str]) -> list[str]:
    """Daemons that have to run: those of the fabric, and the one that comes with most drivers where it is there."""
    daemons = {"none": [], "imex": ["nvidia-imex"]}.get(fabric, ["nvidia-fabricmanager"])
    there = facts["drivers"]["units"].get("nvidia-persistenced", "absent") != "absent"
    return [*(["nvidia-persistenced"] if there or "nvidia-persistenced" in packages else []), *daemons]


def _runs(facts: Mapping[str, Any], name: str) -> bool:
    return facts["drivers"]["units"].get(name) == "active" and name in facts["drivers"]["enabled"]


def _asleep(facts: Mapping[str, Any], services: list[str]) -> list[str]:
    return [name for name in services if facts["drivers"]["units"].get(name) not in ("active", None)]


def _other_versions(packages: list[str], installed: Packages, driver: str) -> list[str]:
    """Installed packages that have to follow the driver."""
    return [
        name
        for name in packages
        if name in installed
        and name != "nvlsm"
        and not versions.is_release(versions.upstream(installed[name]["version"]), driver)
    ]


def _outdated_toolkit(toolkit: list[str], installed: Packages, version: str) -> list[str]:
    """The installed packages of the toolkit when they have to move. All four go together."""
    kinds = {versions.upstream(installed[name]["version"]) if name in installed else None for name in toolkit}
    if len(kinds) < 2 and (not version or kinds <= {version, None}):
        return []
    return [name for name in toolkit if name in installed]


def _pins(driver: str, toolkit: str) -> list[dict[str, str]]:
    """The fabric manager refuses a driver of any other version, so one line decides both."""
    version = f"{driver}-*" if re.fullmatch(r"\d+\.\d+(\.\d+)?", driver) else f"{driver}.*"
    pins = [{"packages": _PINNED, "version": version}]
    # First, because apt takes the first record that matches: the toolkit counts its versions for itself.
    return [{"packages": " ".join(TOOLKIT), "version": f"{toolkit}-*" if toolkit else "*"}, *pins]


def unproven(facts: Mapping[str, Any], done: Mapping[str, Any]) -> list[Finding]:
    """What is still wrong on a host after the work ``done``; ``facts`` gathered afresh."""
    return list(_unproven(facts, done))


def _unproven(facts: Mapping[str, Any], done: Mapping[str, Any]) -> Iterator[Finding]:
    yield from host_driver.broken(facts)
    drivers = facts["drivers"]
    lacking = host_driver.unbuilt(facts)
    if lacking and any(drivers["kernels"].values()):
        yield host_driver.without_module(lacking, "nvidia")
    running = facts["driver"]["version"]
    if running:
        yield from _misfits(drivers["packages"], running)
    yield from _toolkit_problems(drivers["packages"], done)
    asleep = _asleep(facts, done["services"])
    if asleep:
        states = ", ".join(str(drivers["units"][name]) for name in asleep)
        yield _failed(f"{', '.join(asleep)} to run", states, f"systemctl status {asleep[0]}")
    elif facts["fabric"]["present"] and _state(facts) != "Completed":
        advice = "journalctl -u nvidia-fabricmanager on the host"
        yield _failed("the NVLink fabric Completed on every GPU", str(_state(facts)), advice)


def _toolkit_problems(installed: Packages, done: Mapping[str, Any]) -> Iterator[Finding]:
    """Its four packages need each other in one version."""
    there = {
        name: versions.upstream(installed[name]["version"])
        for name in TOOLKIT
        if name in installed and name in done["packages"]
    }
    kinds, wanted = {*there.values()}, done["toolkit"]
    if len(kinds) > 1 or (wanted and not kinds <= {wanted}):
        yield _failed(
            f"the container toolkit's packages in one version{', ' + wanted if wanted else ''}",
            ", ".join(f"{name} {version}" for name, version in there.items()),
            f"apt-cache policy {TOOLKIT[0]} on the host shows which versions its sources have",
        )
