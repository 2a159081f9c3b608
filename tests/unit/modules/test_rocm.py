"""The role rocm's decisions: what is adopted, what is installed in which release, what is refused and why."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.host import rocm

WANTED: dict[str, Any] = {
    "driver": "30.30.4",
    "rocm": "7.2.4",
    "image_rocm": "7.2",
    "change_driver": False,
    "unlisted_allowed": False,
    "secure_boot_ready": False,
    "driver_packages": ["amdgpu-dkms", "amdgpu-dkms-firmware"],
    "tool_packages": ["amd-smi-lib"],
    "toolkit": True,
    "toolkit_version": "",
    "users": [],
    "origin": "repo.radeon.com",
}
PACKAGED = {
    "6.12.12": "1:6.12.12.60403-2194681.22.04",
    "6.14.14": "1:6.14.14.30100100-2212064.24.04",
    "6.16.13": "1:6.16.13.30300400-2341068.24.04",
}
NODE = {"group": "render", "gid": 110, "mode": "0660"}


def facts(device: str = "0x74a1", module: str | None = None) -> dict[str, Any]:
    """An MI300X host with two kernels, without AMD's driver unless ``module`` is loaded."""
    board = {"vendor": "amd", "device": device, "driver": "amdgpu" if module else None}
    names = WANTED["driver_packages"] if module else []
    packages = {name: {"version": PACKAGED[str(module)], "held": True} for name in names}
    return {
        "pci": {"gpus": [board] * 8, "nvswitches": 0},
        "gpus": [{"index": index, "memory_used_mib": 283} for index in range(8)] if module else [],
        "gpu_source": "amd-smi" if module else "pci",
        "driver": {"version": module, "module_version": module, "library_version": None},
        "kernel": "6.8.0-60-generic",
        "architecture": "x86_64",
        "distribution": {"id": "ubuntu", "version": "24.04"},
        "container": None,
        "errors": [],
        "cdi": {"specs": [spec()], "amd_ctk": "/usr/local/bin/amd-ctk"},
        "drivers": {
            "secure_boot": False,
            "kernels": {"6.8.0-60-generic": True, "6.8.0-71-generic": True},
            "packages": packages,
            "nodes": {"/dev/kfd": NODE, "/dev/dri/renderD128": NODE},
            "groups": {"render": {"gid": 110, "members": ["ubuntu"]}, "video": {"gid": 44, "members": ["ubuntu"]}},
            "users": ["root", "ubuntu"],
        },
    }


def spec(lost: tuple[str, ...] = (), path: str = "/etc/cdi/amd.json") -> dict[str, Any]:
    return {"path": path, "kind": "amd.com/gpu", "devices": ["amd.com/gpu=all"], "lost": list(lost)}


def work(gathered: dict[str, Any], **wanted: Any) -> rocm.Work:
    return rocm.work(gathered, {**WANTED, **wanted})


def refusal(gathered: dict[str, Any], **wanted: Any) -> str:
    text = finding.describe(work(gathered, **wanted)["problems"], "gpu-3")
    assert text.startswith("gpu-3, rocm: expected ") and "Next: " in text
    return text


def test_a_host_without_a_driver_gets_one_with_all_that_goes_with_it() -> None:
    made = work(facts())
    assert made["problems"] == [] and not made["adopt"] and made["load"] and not made["answers"]
    assert made["packages"] == [
        "amdgpu-dkms", "amdgpu-dkms-firmware", "linux-headers-6.8.0-60-generic", "linux-headers-6.8.0-71-generic",
        "linux-modules-extra-6.8.0-60-generic", "amd-smi-lib", "amd-container-toolkit",
    ]  # fmt: skip
    assert made["upgrade"] == []
    assert set(made["origins"]) == {"amdgpu-dkms", "amdgpu-dkms-firmware", "amd-smi-lib"}
    assert [(row["name"], row["uris"], row["suites"]) for row in made["repositories"]] == [
        ("glm-amdgpu", "https://repo.radeon.com/amdgpu/30.30.4/ubuntu", "noble"),
        ("glm-rocm", "https://repo.radeon.com/rocm/apt/7.2.4", "noble"),
        ("glm-amd-container-toolkit", "https://repo.radeon.com/amd-container-toolkit/apt/", "noble"),
    ]
    assert all(row["key"] and row["architectures"] == ["amd64"] for row in made["repositories"])


def test_debian_takes_the_suites_that_amd_names_and_needs_no_extra_modules() -> None:
    gathered = facts()
    gathered.update(distribution={"id": "debian", "version": "13"}, kernel="6.12.48+deb13-amd64")
    gathered["drivers"]["kernels"] = {"6.12.48+deb13-amd64": True}
    made = work(gathered, driver="30.30.0", rocm="7.2.0")
    assert made["problems"] == [] and {row["suites"] for row in made["repositories"]} == {"noble"}
    assert [row["uris"].rpartition("/apt/")[2] for row in made["repositories"][:2]] == [
        "https://repo.radeon.com/amdgpu/30.30/ubuntu", "7.2",
    ]  # fmt: skip
    assert not [name for name in made["packages"] if "modules-extra" in name]


def test_a_driver_that_works_is_adopted_and_completed() -> None:
    gathered = facts(module="6.14.14")
    made = work(gathered)
    assert made["adopt"] and not made["load"] and made["answers"] and made["problems"] == []
    assert (made["driver"], made["packages"]) == (
        "30.10.1", ["amdgpu-dkms", "amdgpu-dkms-firmware", "amd-container-toolkit"],
    )  # fmt: skip
    assert "glm-amdgpu" not in [row["name"] for row in made["repositories"]]
    without_tools = copy.deepcopy(gathered)
    without_tools.update(gpu_source="pci", driver={**gathered["driver"], "version": None})
    assert work(without_tools)["adopt"], "a module that drives every board is a driver, though no tool tells of it"
    assert "amd-smi-lib" in work(without_tools)["packages"]


def test_a_change_replaces_the_packages_and_not_under_what_serves() -> None:
    gathered = facts(module="6.14.14")
    made = work(gathered, change_driver=True)
    assert not made["adopt"] and made["load"] and made["upgrade"] == WANTED["driver_packages"]
    assert "rocm-core" in made["may_remove"] and work(gathered)["may_remove"] == []
    assert "glm-amdgpu" in [row["name"] for row in made["repositories"]]
    assert work(gathered, change_driver=True, driver="30.10.1")["adopt"]
    for index in (2, 3):
        gathered["gpus"][index]["memory_used_mib"] = 150000
    assert work(gathered)["problems"] == []
    assert "found memory in use on 2, 3" in refusal(gathered, change_driver=True)


def test_a_toolkit_of_another_version_is_moved_and_looked_at() -> None:
    gathered = facts(module="6.14.14")
    gathered["drivers"]["packages"]["amd-container-toolkit"] = {"version": "1.2.0-1", "held": True}
    assert work(gathered)["upgrade"] == work(gathered, toolkit_version="1.2.0")["upgrade"] == []
    assert work(gathered, toolkit_version="1.3.0", toolkit=False)["upgrade"] == []
    made = work(gathered, toolkit_version="1.3.0")
    assert made["adopt"] and made["upgrade"] == ["amd-container-toolkit"]
    [problem] = rocm.unproven(gathered, made)
    assert problem["expected"].startswith("amd-container-toolkit 1.3.0") and problem["found"] == "1.2.0-1"
    gathered["drivers"]["packages"]["amd-container-toolkit"]["version"] = "1.3.0-1"
    assert rocm.unproven(gathered, made) == []


def test_no_driver_is_installed_over_one_that_does_not_answer() -> None:
    kernels_own = facts()
    kernels_own["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1", "driver": "amdgpu"}] * 8
    kernels_own["driver"]["loaded"] = True
    assert work(kernels_own)["problems"] == [], "a bare host: the kernel's own module, and nothing that could answer"
    kernels_own["driver"]["tool"] = "/opt/rocm/bin/amd-smi"
    kernels_own["errors"] = [{"phase": "driver", "message": "amd-smi: no answer within 60 s"}]
    assert "found the driver's module is loaded; 8 GPUs are bound to amdgpu; amd-smi: no answer" in refusal(kernels_own)
    part = facts(module="6.14.14")
    part["driver"]["version"] = None
    part["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1", "driver": None}, *part["pci"]["gpus"][1:]]
    assert "found the driver's module 6.14.14 is loaded; 7 GPUs are bound to amdgpu" in refusal(part)
    assert work(part)["packages"] == [] and not work(part)["load"]


def test_a_driver_that_was_installed_and_not_loaded_is_loaded_by_the_next_run() -> None:
    gathered = facts(module="6.14.14")
    gathered["drivers"]["packages"]["amdgpu-dkms"]["version"] = PACKAGED["6.16.13"]
    for wanted in ({}, {"change_driver": True}):
        made = work(gathered, **wanted)
        assert made["load"] and not made["answers"] and made["upgrade"] == [] and made["problems"] == []
    assert "expected the module of the installed driver, 6.16.13, found 6.14.14 loaded" in unproven(gathered)
    gathered["driver"] = {"version": None, "module_version": None}
    gathered["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1", "driver": "amdgpu"}] * 8
    assert work(gathered)["load"] and "found none of AMD loaded" in unproven(gathered)


def test_a_driver_too_old_for_the_images_rocm_is_refused_by_both_names() -> None:
    gathered = facts("0x75a3", "6.12.12")
    assert (
        "expected driver 30.10 or newer, which ROCm 7.2 of the image needs, found 6.4 (amdgpu 6.12.12) running. Next: "
        "set rocm_change_driver" in refusal(gathered)
    )
    assert work(facts(module="6.12.12"))["problems"] == [], "AMD lists 6.4 with ROCm 7.2 on MI300X"
    assert "found 6.4 (amdgpu 6.12.12) running" in refusal(facts(module="6.12.12"), image_rocm="7.14")
    assert work(facts(module="6.12.12"), image_rocm="7.14", unlisted_allowed=True)["problems"] == []
    assert "which ROCm 7.14 of the image needs, found 6.4.4" in refusal(facts(), image_rocm="7.14", driver="6.4.4")
    assert "found 10.0 in the image" in refusal(facts(module="6.16.13"), image_rocm="10.0")
    assert work(facts(module="6.16.13"), image_rocm="")["problems"] == []


def test_the_kernels_own_driver_is_not_taken_for_amds() -> None:
    gathered = facts()
    gathered["driver"] = {"version": "6.8.0-60-generic", "module_version": None}
    gathered["gpu_source"] = "rocm-smi"
    assert "found the kernel's own amdgpu (6.8.0-60-generic). Next: set rocm_change_driver" in refusal(gathered)
    assert work(gathered, unlisted_allowed=True)["problems"] == []
    assert not work(gathered, change_driver=True)["adopt"]


@pytest.mark.parametrize(
    ("change", "wanted", "text"),
    [
        ({"distribution": {"id": "debian", "version": "12"}, "kernel": "6.1.0-40-amd64"}, {},
         "expected a distribution that AMD lists for MI355X with driver 30.30.4 (ubuntu-22.04, ubuntu-24.04, "
         "debian-13), found debian-12"),
        ({"distribution": {"id": "fedora", "version": "44"}}, {}, "found fedora-44"),
        ({"kernel": "6.19.13-generic"}, {},
         "expected a kernel that AMD lists for driver 30.30.4 on ubuntu-24.04 (6.8, 6.14, 6.17), found 6.19.13"),
        ({}, {"driver": "29.9"}, "expected a driver of the series 30.10, 30.20, 30.30, 31.40, found 29.9"),
        ({}, {"driver": "31.40.1"},
         "expected a ROCm that AMD lists with driver 31.40.1 (7.14), found 7.2.4. Next: set rocm_driver_release"),
        ({"architecture": "aarch64"}, {}, "expected x86_64, the only architecture"),
    ],
)  # fmt: skip
def test_what_amd_does_not_list_is_refused_before_anything_is_installed(
    change: dict[str, Any], wanted: dict[str, Any], text: str
) -> None:
    assert text in refusal({**facts("0x75a3"), **change}, **wanted)


def test_what_amd_does_not_list_is_taken_when_asked_for_and_a_containers_kernel_is_not_judged() -> None:
    odd = {**facts(), "kernel": "6.19.13-generic"}
    assert work(odd, unlisted_allowed=True)["problems"] == []
    inside = work({**odd, "container": "podman"})
    assert inside["problems"] == [] and not [name for name in inside["packages"] if name.startswith("linux-")]


def test_secure_boot_is_refused_before_a_module_is_built() -> None:
    gathered = facts()
    gathered["drivers"]["secure_boot"] = True
    assert "set rocm_secure_boot_ready" in refusal(gathered)
    assert work(gathered, secure_boot_ready=True)["problems"] == []


def test_boards_of_others_are_refused_by_name() -> None:
    gathered = facts()
    gathered["pci"]["gpus"] = [{"vendor": "nvidia", "device": "0x2901"}] * 8
    assert "expected AMD GPUs, found B200. Next: use the role glm.fleet.nvidia" in refusal(gathered)
    gathered["pci"]["gpus"] = []
    assert "found none" in refusal(gathered)


def test_a_host_that_is_not_described_yet_has_no_work() -> None:
    """The defaults are asked for before the role describes the host, after others described a part of it."""
    made = work({"pci": {"gpus": []}, "errors": []})
    assert made["packages"] == made["repositories"] == []
    assert [problem["found"] for problem in made["problems"]] == ["no cdi, distribution, drivers"]


def test_accounts_get_the_groups_that_they_lack() -> None:
    gathered = facts(module="6.16.13")
    assert work(gathered, users=["ubuntu"])["grants"] == []
    gathered["drivers"]["groups"]["render"] = None
    made = work(gathered, users=["ubuntu"])
    assert (made["groups"], made["grants"]) == (["render"], [{"user": "ubuntu", "group": "render"}])
    assert "found none named alice" in refusal(gathered, users=["alice", "ubuntu"])


def test_the_cdi_spec_is_written_where_it_is_missing_or_names_nodes_that_are_no_more() -> None:
    gathered = facts(module="6.16.13")
    assert not work(gathered)["cdi"]
    gathered["cdi"]["specs"] = []
    assert work(gathered)["cdi"] and not work(gathered, toolkit=False)["cdi"]
    gathered["cdi"]["specs"] = [spec(("/dev/dri/renderD129",))]
    assert work(gathered)["cdi"] and "found /etc/cdi/amd.json names /dev/dri/renderD129" in unproven(gathered)
    gathered["cdi"]["specs"] = [spec(), spec(("/dev/kfd",), "/var/run/cdi/amd.json")]
    assert not work(gathered)["cdi"], "writing the other one would not help"
    assert "found /var/run/cdi/amd.json names /dev/kfd" in unproven(gathered)
    assert "gpu-3, cdi: expected a CDI spec of the device nodes that are there" in unproven(gathered)
    gathered["cdi"]["specs"] = [spec(("/dev/kfd",), "/etc/cdi/by_hand.json"), spec((), "/var/run/cdi/amd.json")]
    assert "cdi" not in unproven(gathered), "Docker takes no device of the stale one"


def unproven(gathered: dict[str, Any]) -> str:
    return finding.describe(rocm.unproven(gathered, work(facts(module="6.16.13"))), "gpu-3")


def test_what_does_not_fit_together_afterwards_is_named() -> None:
    good = facts(module="6.16.13")
    assert unproven(good) == ""
    unbuilt = copy.deepcopy(good)
    unbuilt["drivers"]["kernels"]["6.8.0-71-generic"] = False
    assert "gpu-3, rocm: expected the module for every kernel" in unproven(unbuilt)
    assert "found none for 6.8.0-71-generic" in unproven(unbuilt)
    broken = copy.deepcopy(good)
    broken["errors"] = [{"phase": "driver", "message": "amd-smi: no devices"}]
    assert "gpu-3, driver: expected a driver that answers, found amd-smi: no devices" in unproven(broken)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({"group": None, "gid": 511, "mode": "0660"}, "/dev/kfd of group 511, mode 0660"),
        ({"group": "root", "gid": 0, "mode": "0666"}, "/dev/kfd of group root, mode 0666"),
        ({"group": "render", "gid": 110, "mode": "0600"}, "/dev/kfd of group render, mode 0600"),
    ],
)
def test_device_nodes_that_the_groups_may_not_open_are_named(node: dict[str, Any], text: str) -> None:
    gathered = facts(module="6.16.13")
    gathered["drivers"]["nodes"]["/dev/kfd"] = node
    assert text in unproven(gathered) and "udevadm trigger" in unproven(gathered)
