# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what an AMD host lacks, and refuse what would break it, before anything is touched.

Pure. A driver that works is adopted: it is held where it is, and only what goes with it is added. What fits together is
data (``catalog/rocm.yml``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host import cdi, gpu
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import rocm as rocm_matrix
from ansible_collections.glm.fleet.plugins.plugin_utils.host import driver as host_driver

TOOLKIT = "amd-container-toolkit"
CDI_KIND = "amd.com/gpu"
CDI_OUTPUT = "/etc/cdi/amd.json"
# What an older release takes down with it.
_REPLACED = ("amdgpu-core", "amdgpu-dkms*", "rocm-core")
# Of these, the module has to be AMD's only where AMD publishes one.
_ARCHITECTURE = "x86_64"
_REPOSITORY = "https://repo.radeon.com"
_KEY = f"{_REPOSITORY}/rocm/rocm.gpg.key"
_failed = partial(finding.failed, "rocm")
_SILENT_ADVICE = (
    "read the kernel log (journalctl --dmesg), drain the host and reboot it, then run again; tools that do not answer "
    "after a reboot are yours to remove"
)


class Work(host_driver.Work):
    """What has to be done. ``upgrade``: installed packages to change to the wanted release. ``may_remove``: patterns of
    those that may be removed or lowered for it. ``origins``: by package.

    ``toolkit``: what the version of the container toolkit has to begin with.
    """

    upgrade: list[str]
    may_remove: list[str]
    origins: dict[str, str]
    repositories: list[dict[str, Any]]
    answers: bool
    unbuilt: list[str]
    groups: list[str]
    grants: list[dict[str, str]]
    cdi: bool
    toolkit: str


def work(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> Work:
    """The work on a host.

    ``facts``: gpu_facts with the subsets system, gpu, cdi and drivers. ``wanted``: ``{driver, rocm, image_rocm,
    change_driver, unlisted_allowed, secure_boot_ready, driver_packages, tool_packages, toolkit, toolkit_version, users,
    origin}``, the role's variables.
    """
    # Ansible asks for the role's defaults, which name the repositories, before the role has described the host.
    lacking = sorted({"distribution", "pci", "cdi", "drivers"} - set(facts))
    if lacking:
        return _nothing(_failed("a described host", f"no {', '.join(lacking)}", "gather gpu_facts"))
    try:
        platform = host_driver.platform_of(facts, "amd")
    except platforms.PlatformError as error:
        return _nothing(error.finding("rocm"))
    running, target = _running(facts), str(wanted["driver"])
    adopt = bool(running) and not (wanted["change_driver"] and not _is(running, target))
    pending = _pending(facts)
    if not running and not pending and _is_silent(facts):
        signs = gpu.signs_of_driver(facts["driver"], facts["pci"])
        return _nothing(host_driver.unanswered(facts, "rocm", signs, _SILENT_ADVICE))
    load = not adopt or pending
    # The wanted driver may be installed already, and only wait to be loaded.
    there = _is(rocm_matrix.packaged(_installed_driver(facts))[1], target)
    problems = [
        *_driver_problems(facts, wanted, platform, adopt=adopt),
        *(() if adopt else _change_problems(facts, wanted, platform)),
        *(host_driver.in_use(facts, "rocm") if load else ()),
        *_user_problems(facts, wanted["users"]),
    ]
    packages = _packages(facts, wanted, adopt=adopt)
    vendors = {*wanted["driver_packages"], *wanted["tool_packages"]} if wanted["origin"] else set()
    installed = facts["drivers"]["packages"]
    return {
        "platform": platform.name,
        "adopt": adopt,
        "driver": str(running) if adopt else target,
        "problems": problems,
        "packages": packages,
        "upgrade": [
            *([] if adopt or there else [name for name in wanted["driver_packages"] if name in installed]),
            *([TOOLKIT] if _other_toolkit(facts, wanted) else []),
        ],
        "may_remove": [] if adopt else [*_REPLACED],
        "toolkit": _wanted_toolkit(wanted),
        "origins": {name: wanted["origin"] for name in packages if name in vendors},
        "repositories": _repositories(facts, wanted, adopt=adopt),
        "load": load,
        "answers": facts["driver"]["module_version"] is not None and bool(running) and not pending,
        "unbuilt": host_driver.unbuilt(facts),
        "groups": [name for name, entry in facts["drivers"]["groups"].items() if entry is None],
        "grants": _grants(facts, wanted["users"]),
        "cdi": bool(wanted["toolkit"]) and _needs_cdi(facts),
    }


def _nothing(problem: Finding) -> Work:
    return {
        "platform": "", "adopt": True, "driver": "", "problems": [problem], "packages": [], "upgrade": [],
        "may_remove": [], "origins": {}, "repositories": [], "load": False, "answers": False, "unbuilt": [],
        "groups": [], "grants": [], "cdi": False, "toolkit": "",
    }  # fmt: skip


def _wanted_toolkit(wanted: Mapping[str, Any]) -> str:
    """The version that the toolkit has to begin with, as apt's pins have it; empty for any."""
    return str(wanted["toolkit_version"]) if wanted["toolkit"] else ""


def _other_toolkit(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The version of an installed toolkit that is not the wanted one; empty when there is nothing to move."""
    version = str(facts["drivers"]["packages"].get(TOOLKIT, {}).get("version", ""))
    return "" if version.startswith(_wanted_toolkit(wanted)) else version


def _running(facts: Mapping[str, Any]) -> Optional[str]:
    """The driver that works, as a release where that is known, else as the host words it; None without one.

    A host may have the module and none of the tools that would show it.
    """
    bound = all(entry.get("driver") == "amdgpu" for entry in facts["pci"]["gpus"])
    version = facts["driver"]["version"] or (facts["driver"]["module_version"] if bound else None)
    if version is None:
        return None
    module, release = rocm_matrix.packaged(_installed_driver(facts))
    if release and module == facts["driver"]["module_version"]:
        return release
    return str(facts["driver"]["module_version"] or version)


def _is_silent(facts: Mapping[str, Any]) -> bool:
    """AMD's own module that does not drive every GPU, or tools that describe nothing of the loaded module.

    The kernel's own amdgpu without any tool is a bare host.
    """
    driver = facts["driver"]
    return driver["module_version"] is not None or bool(driver.get("loaded") and driver.get("tool"))


def _installed_driver(facts: Mapping[str, Any]) -> str:
    return str(facts["drivers"]["packages"].get(rocm_matrix.DRIVER_PACKAGE, {}).get("version", ""))


def _pending(facts: Mapping[str, Any]) -> bool:
    """AMD's driver is installed, and another module is loaded, or none: only loading it or a reboot is left to do."""
    module, _release = rocm_matrix.packaged(_installed_driver(facts))
    return bool(module) and module != facts["driver"]["module_version"]


def _is(running: Optional[str], target: str) -> bool:
    """Whether the release that runs is the wanted one, or of the wanted series when no point release is named."""
    named = target.count(".") > 1
    return bool(running) and (
        rocm_matrix.folder(str(running)) == rocm_matrix.folder(target)
        if named
        else versions.series(str(running)) == target
    )


def _driver_problems(
    facts: Mapping[str, Any], wanted: Mapping[str, Any], platform: platforms.Platform, *, adopt: bool
) -> Iterator[Finding]:
    """What prevents serving the image's ROCm on the driver that is there, or will be; one finding at most."""
    image, matrix = str(wanted["image_rocm"] or ""), rocm_matrix.load()
    if not image or wanted["unlisted_allowed"]:
        return
    oldest = matrix.oldest_for(image, platform.name)
    if oldest is None:
        yield _failed(
            f"a ROCm whose drivers for {platform.name} are known",
            f"{image} in the image",
            "choose another image (glm_image_variant, glm_engine_version), or set rocm_unlisted_allowed",
        )
        return
    change = "set rocm_change_driver" if adopt else "set rocm_driver_release"
    choice = f"{change}, or choose an image for an older ROCm (glm_image_variant)"
    expected = f"{oldest.release} or newer, which ROCm {image} of the image needs"
    if not adopt:
        row = matrix.driver(str(wanted["driver"]))
        if row and matrix.drivers.index(row) < matrix.drivers.index(oldest):
            yield _failed(f"driver {expected}", str(wanted["driver"]), choice)
    elif facts["driver"]["module_version"] is None:
        kernels_own = f"the kernel's own amdgpu ({facts['driver']['version']})"
        yield _failed(f"AMD's driver, {expected}", kernels_own, f"{change}, or set rocm_unlisted_allowed")
    elif old := rocm_matrix.too_old(facts["driver"], image, platform.name):
        yield _failed(f"driver {expected}", f"{old[1]} running", choice)


def _change_problems(
    facts: Mapping[str, Any], wanted: Mapping[str, Any], platform: platforms.Platform
) -> Iterator[Finding]:
    """What prevents installing the wanted driver on this host."""
    yield from host_driver.secure_boot(facts, wanted["secure_boot_ready"], "rocm")
    if facts["architecture"] != _ARCHITECTURE:
        expected = f"{_ARCHITECTURE}, the only architecture that AMD publishes its driver for"
        yield _failed(expected, str(facts["architecture"]), "choose another instance type")
    if wanted["unlisted_allowed"]:
        return
    kernel = None if facts["container"] else facts["kernel"]
    unlisted = rocm_matrix.unlisted(
        platform.name, str(wanted["driver"]), str(wanted["rocm"]), _distribution(facts), kernel
    )
    advice = (
        "set rocm_driver_release and rocm_version to what AMD lists (catalog/rocm.yml), take another image, or set "
        "rocm_unlisted_allowed"
    )
    for listed, there in unlisted:
        yield _failed(listed, there, advice)


def _distribution(facts: Mapping[str, Any]) -> str:
    return f"{facts['distribution']['id']}-{facts['distribution']['version']}"


def _user_problems(facts: Mapping[str, Any], users: list[str]) -> Iterator[Finding]:
    absent = [name for name in users if name not in facts["drivers"]["users"]]
    if absent:
        yield _failed("the accounts of rocm_users on the host", f"none named {', '.join(absent)}", "correct it")


def _packages(facts: Mapping[str, Any], wanted: Mapping[str, Any], *, adopt: bool) -> list[str]:
    """Packages to install and to hold. What an adopted host has instead of ours is left alone."""
    installed = facts["drivers"]["packages"]
    tools = wanted["tool_packages"]
    if adopt:
        answered = facts["gpu_source"] in ("amd-smi", "rocm-smi")
        driver = [name for name in wanted["driver_packages"] if name in installed]
        names = [*driver, *([name for name in tools if name in installed] if answered else tools)]
    else:
        names = [*wanted["driver_packages"], *host_driver.headers(facts), *host_driver.modules_extra(facts), *tools]
    return [*names, *([TOOLKIT] if wanted["toolkit"] else [])]


def _repositories(facts: Mapping[str, Any], wanted: Mapping[str, Any], *, adopt: bool) -> list[dict[str, Any]]:
    """AMD's sources for this distribution: one key for all, each with its own copy. None where AMD has no suite."""
    suite = rocm_matrix.load().suites.get(_distribution(facts))
    if suite is None:
        return []
    addresses = {
        "glm-amdgpu": f"{_REPOSITORY}/amdgpu/{rocm_matrix.folder(str(wanted['driver']))}/ubuntu",
        "glm-rocm": f"{_REPOSITORY}/rocm/apt/{rocm_matrix.folder(str(wanted['rocm']))}",
        "glm-amd-container-toolkit": f"{_REPOSITORY}/amd-container-toolkit/apt/",
    }
    return [
        {"name": name, "uris": uris, "suites": suite, "components": ["main"], "architectures": ["amd64"], "key": _KEY}
        for name, uris in addresses.items()
        if not (adopt and name == "glm-amdgpu")
    ]


def _grants(facts: Mapping[str, Any], users: list[str]) -> list[dict[str, str]]:
    """Who lacks which of the groups that may open the GPUs."""
    groups = facts["drivers"]["groups"]
    return [
        {"user": user, "group": name}
        for user in users
        for name, entry in groups.items()
        if entry is None or user not in entry["members"]
    ]


def _taken_specs(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """AMD's specs without those of which Docker takes no device."""
    specs = [spec for spec in facts["cdi"]["specs"] if spec["kind"] == CDI_KIND]
    devices = {device for spec in specs for device in spec["devices"]}
    paths = {cdi.taken([spec["path"] for spec in specs if device in spec["devices"]])[0] for device in devices}
    return [spec for spec in specs if spec["path"] in paths]


def _needs_cdi(facts: Mapping[str, Any]) -> bool:
    """Whether the spec that containers get is missing, or made for device nodes that are no more."""
    specs = [spec for spec in facts["cdi"]["specs"] if spec["kind"] == CDI_KIND]
    return not specs or any(spec["lost"] for spec in specs if spec["path"] == CDI_OUTPUT)


def unproven(facts: Mapping[str, Any], done: Mapping[str, Any]) -> list[Finding]:
    """What is still wrong on a host after the work ``done``; ``facts`` gathered afresh."""
    return list(_unproven(facts, done))


def _unproven(facts: Mapping[str, Any], done: Mapping[str, Any]) -> Iterator[Finding]:
    yield from host_driver.broken(facts)
    lacking = host_driver.unbuilt(facts)
    if lacking:
        yield host_driver.without_module(lacking, "rocm")
    if _pending(facts):
        module, _release = rocm_matrix.packaged(_installed_driver(facts))
        loaded = f"{facts['driver']['module_version'] or 'none of AMD'} loaded"
        yield _failed(f"the module of the installed driver, {module}", loaded, "reboot the host")
    closed = [
        f"{path} of group {node['group'] or node['gid']}, mode {node['mode']}"
        for path, node in facts["drivers"]["nodes"].items()
        if node["group"] not in facts["drivers"]["groups"] or int(node["mode"], 8) & 0o060 != 0o060
    ]
    if closed:
        yield _failed(
            "device nodes that the groups render or video may open",
            "; ".join(closed),
            "udevadm trigger --subsystem-match=drm --subsystem-match=kfd, or look for another rule in "
            "/etc/udev/rules.d",
        )
    toolkit = str(facts["drivers"]["packages"].get(TOOLKIT, {}).get("version", ""))
    if not toolkit.startswith(done["toolkit"]):
        yield _failed(
            f"{TOOLKIT} {done['toolkit']} (rocm_toolkit_version)",
            toolkit or "none",
            "set rocm_toolkit_version to one that AMD's repository has (apt-cache policy on the host), or to ''",
        )
    stale = [spec for spec in _taken_specs(facts) if spec["lost"]]
    if stale:
        found = "; ".join(f"{spec['path']} names {', '.join(spec['lost'][:3])}" for spec in stale)
        advice = f"amd-ctk cdi generate --output={CDI_OUTPUT}, and remove other specs of {CDI_KIND}"
        yield finding.failed("cdi", "a CDI spec of the device nodes that are there", found, advice)
