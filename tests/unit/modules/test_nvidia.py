"""The role nvidia's decisions: what is adopted, what is installed in which version, what is refused and why."""

from __future__ import annotations

import copy
import fnmatch
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.host import nvidia

WANTED: dict[str, Any] = {
    "branch": "580",
    "version": "",
    "modules": "auto",
    "change_driver": False,
    "toolkit": True,
    "toolkit_version": "1.18.1",
    "secure_boot_ready": False,
    "image_driver": "",
    "image_cuda": "",
    "driver_packages": {"open": ["nvidia-open", "nvidia-persistenced"], "proprietary": ["cuda-drivers"]},
}


def facts(device: str = "0x2901", running: str | None = None, boards: int = 8, switches: int = 2) -> dict[str, Any]:
    """A B200 host with two kernels, without a driver unless ``running`` names one."""
    return {
        "pci": {"gpus": [{"vendor": "nvidia", "device": device}] * boards, "nvswitches": switches},
        "gpus": [{"index": index, "memory_used_mib": 0} for index in range(boards)] if running else [],
        "driver": {"version": running, "module_version": running, "library_version": None},
        "kernel": "6.8.0-60-generic",
        "distribution": {"id": "ubuntu", "version": "24.04"},
        "container": None,
        "errors": [],
        "fabric": {"present": False, "state": None, "states": {}},
        "drivers": {
            "flavour": "open" if running else None,
            "secure_boot": False,
            "kernels": {"6.8.0-60-generic": True, "6.8.0-71-generic": True},
            "packages": {},
            "modules": {"mlx5_ib": False, "ib_umad": False},
            "units": {"nvidia-persistenced": "active", "nvidia-fabricmanager": "active"},
            "enabled": ["nvidia-persistenced", "nvidia-fabricmanager"],
        },
    }


def install(gathered: dict[str, Any], version: str, *names: str) -> dict[str, Any]:
    """The host with packages of that version."""
    gathered["drivers"]["packages"].update({name: {"version": f"{version}-1", "held": False} for name in names})
    return gathered


def work(gathered: dict[str, Any], **wanted: Any) -> nvidia.Work:
    return nvidia.work(gathered, {**WANTED, **wanted})


def test_a_host_without_a_driver_gets_one_with_all_that_goes_with_it() -> None:
    made = work(facts())
    assert made["problems"] == [] and not made["adopt"] and made["load"]
    assert made["packages"] == [
        "nvidia-open", "nvidia-persistenced", "nvidia-fabricmanager", "nvlsm", "libnvsdm",
        "linux-headers-6.8.0-60-generic", "linux-headers-6.8.0-71-generic", "linux-modules-extra-6.8.0-60-generic",
        *nvidia.TOOLKIT,
    ]  # fmt: skip
    assert made["sources"]
    assert made["pins"][1]["version"] == "580.*" and made["pins"][0]["version"] == "1.18.1-*"
    assert made["modules"] == made["unloaded"] == ["mlx5_ib", "ib_umad"]
    assert made["services"] == ["nvidia-persistenced", "nvidia-fabricmanager"]


def test_a_driver_that_works_is_adopted_and_completed_in_its_own_version() -> None:
    made = work(facts("0x2335", "570.195.03"))
    assert made["adopt"] and not made["load"] and made["problems"] == []
    assert made["packages"] == ["nvidia-fabricmanager-570", *nvidia.TOOLKIT]
    assert made["pins"][1]["version"] == "570.195.03-*"


NVLINK_5 = ["nvidia-fabricmanager", "nvlsm", "libnvsdm", "linux-modules-extra-6.8.0-60-generic"]


@pytest.mark.parametrize(
    ("device", "boards", "switches", "packages", "daemons"),
    [
        ("0x2342", 1, 0, [], []),
        ("0x2331", 8, 0, [], []),
        ("0x2330", 8, 4, ["nvidia-fabricmanager"], ["nvidia-fabricmanager"]),
        # Shares of a board without its switches: the fabric manager would fail with nothing to do.
        ("0x2330", 1, 0, [], []),
        ("0x2335", 8, 0, [], []),
        # The switches of NVLink 5 are not on the PCI bus.
        ("0x2901", 8, 0, NVLINK_5, ["nvidia-fabricmanager"]),
        ("0x3182", 8, 0, NVLINK_5, ["nvidia-fabricmanager"]),
        ("0x2901", 1, 0, [], []),
        ("0x2941", 4, 0, ["nvidia-imex"], ["nvidia-imex"]),
    ],
)
def test_the_fabric_is_the_boards_and_not_the_names(
    device: str, boards: int, switches: int, packages: list[str], daemons: list[str]
) -> None:
    made = work(facts(device, "580.105.08", boards, switches), toolkit=False)
    assert (made["packages"], made["services"]) == (packages, ["nvidia-persistenced", *daemons])
    assert bool(made["modules"]) == (len(packages) == len(NVLINK_5))


@pytest.mark.parametrize(
    ("device", "running", "there", "packages"),
    [
        ("0x2901", "580.95.05", ["nvidia-fabricmanager-580", "libnvsdm-580", "nvlsm"],
         ["nvidia-fabricmanager-580", "nvlsm", "libnvsdm-580"]),
        ("0x2901", "580.95.05", ["libnvsdm-580"], ["nvidia-fabricmanager", "nvlsm", "libnvsdm-580"]),
        ("0x2901", "570.195.03", [], ["nvidia-fabricmanager-570", "nvlsm", "libnvsdm-570"]),
        ("0x2330", "570.195.03", ["nvidia-fabricmanager"], ["nvidia-fabricmanager"]),
        ("0x2941", "570.195.03", [], ["nvidia-imex-570"]),
        ("0x2941", "580.95.05", ["nvidia-imex-580", "nvidia-imex-tools"], ["nvidia-imex-580"]),
    ],
)  # fmt: skip
def test_the_fabric_has_the_names_that_the_host_and_the_branch_have(
    device: str, running: str, there: list[str], packages: list[str]
) -> None:
    gathered = install(facts(device, running), running, *there)
    gathered["distribution"]["id"] = "debian"
    made = work(gathered, toolkit=False)
    assert made["packages"] == packages and made["problems"] == []
    assert made["sources"] == (not {*packages} <= {*there})


def test_the_distributions_packages_alone_need_no_sources_of_the_vendor() -> None:
    gathered = install(facts(running="580.95.05"), "580.95.05", "nvidia-fabricmanager-580", "libnvsdm-580", "nvlsm")
    install(gathered, "1.18.1", *nvidia.TOOLKIT)
    made = work(gathered)
    assert "linux-modules-extra-6.8.0-60-generic" in made["packages"] and not made["sources"]


@pytest.mark.parametrize("release", ["22.04", "24.04", "26.04"])
def test_kernels_from_2510_on_have_their_modules_in_one_package(release: str) -> None:
    gathered = facts(running="580.95.05")
    gathered["distribution"]["version"] = release
    asked = "linux-modules-extra-6.8.0-60-generic" in work(gathered)["packages"]
    assert asked == (release != "26.04")


def test_modules_of_the_fabric_are_loaded_now_where_they_are_needed() -> None:
    gathered = facts(running="580.95.05")
    gathered["fabric"] = {"present": True, "state": "In Progress", "states": {}}
    made = work(gathered)
    assert made["unloaded"] == ["mlx5_ib", "ib_umad"] and not made["waits"]
    gathered["drivers"]["modules"]["mlx5_ib"] = True
    made = work(gathered)
    assert made["unloaded"] == ["ib_umad"] and "linux-modules-extra-6.8.0-60-generic" in made["packages"]
    gathered["drivers"]["modules"]["ib_umad"] = True
    made = work(gathered)
    assert made["unloaded"] == [] and made["waits"], "all is there: the fabric only needs time"
    assert "linux-modules-extra-6.8.0-60-generic" not in made["packages"], "this kernel has them"
    gathered["drivers"]["units"]["nvidia-fabricmanager"] = "inactive"
    assert not work(gathered)["waits"], "it is started first"


def test_modules_are_left_alone_where_the_fabric_is_up_or_the_kernel_is_anothers() -> None:
    up = facts(running="580.95.05")
    up["fabric"] = {"present": True, "state": "Completed", "states": {}}
    made = work(up)
    assert made["unloaded"] == [] and made["modules"] == ["mlx5_ib", "ib_umad"], "a module may be part of the kernel"
    inside = facts(running="580.95.05")
    inside["container"] = "podman"
    assert work(inside)["unloaded"] == []
    assert work(facts("0x2330", "580.95.05"))["modules"] == []


def test_daemons_that_run_and_start_at_boot_are_left_alone() -> None:
    gathered = facts(running="580.95.05")
    assert work(gathered)["idle"] == []
    for state, enabled in (("inactive", True), ("active", False), ("unknown", True)):
        gathered = facts(running="580.95.05")
        gathered["drivers"]["units"]["nvidia-fabricmanager"] = state
        if not enabled:
            gathered["drivers"]["enabled"].remove("nvidia-fabricmanager")
        assert work(gathered)["idle"] == ["nvidia-fabricmanager"], (state, enabled)


def test_only_daemons_that_are_there_or_come_are_run() -> None:
    gathered = facts("0x2331", "580.95.05", switches=0)
    gathered["drivers"]["units"]["nvidia-persistenced"] = "absent"
    assert work(gathered)["services"] == []
    bare = facts("0x2331", switches=0)
    bare["drivers"]["units"]["nvidia-persistenced"] = "absent"
    assert work(bare)["services"] == ["nvidia-persistenced"]
    assert work(bare, modules="proprietary")["services"] == []


def refusal(gathered: dict[str, Any], **wanted: Any) -> str:
    text = finding.describe(work(gathered, **wanted)["problems"], "gpu-3")
    assert text.startswith("gpu-3, nvidia: expected ") and "Next: " in text
    return text


def test_secure_boot_is_refused_before_a_module_is_built() -> None:
    gathered = facts()
    gathered["drivers"]["secure_boot"] = True
    assert "found it on" in refusal(gathered) and "mokutil --import" in refusal(gathered)
    assert work(gathered, secure_boot_ready=True)["problems"] == []
    adopted = facts(running="580.105.08")
    adopted["drivers"]["secure_boot"] = True
    assert work(adopted)["problems"] == [], "a module that is loaded is signed"


def test_secure_boot_that_cannot_be_read_is_not_off() -> None:
    gathered = facts()
    gathered["drivers"]["secure_boot"] = None
    assert "found that neither mokutil nor /sys/firmware/efi/efivars says so" in refusal(gathered)
    assert work(gathered, secure_boot_ready=True)["problems"] == []
    assert work({**gathered, "container": "podman"})["problems"] == []


def test_proprietary_modules_are_refused_on_blackwell() -> None:
    assert "expected nvidia_modules open or auto for B200, found proprietary" in refusal(facts(), modules="proprietary")
    assert work(facts("0x2335"), modules="proprietary")["packages"][0] == "cuda-drivers"
    wrong = facts(running="580.105.08")
    wrong["drivers"]["flavour"] = "proprietary"
    assert "expected the open kernel modules, the only ones that know B200" in refusal(wrong)


def test_a_driver_too_old_for_the_board_is_refused_by_both_names() -> None:
    assert "expected driver 580 or newer, the first that knows B300, found 570" in refusal(
        facts("0x3182"), branch="570"
    )
    assert "found 550.90.07 running. Next: set nvidia_change_driver" in refusal(facts(running="550.90.07"))


CUDA_13 = {"image_driver": "580.65.06", "image_cuda": "13.0"}


def test_a_driver_too_old_for_the_cuda_of_the_image_is_refused_by_both_names() -> None:
    text = refusal(facts("0x2335", "570.195.03"), **CUDA_13)
    assert (
        "expected driver 580.65.06 or newer, which CUDA 13.0 of the image needs, found 570.195.03 running. "
        "Next: set nvidia_change_driver, or choose an image for an older CUDA (glm_image_variant)." in text
    )
    for wanted in ({"branch": "570"}, {"version": "580.40.01"}):
        text = refusal(facts("0x2335"), **CUDA_13, **wanted)
        assert "which CUDA 13.0 of the image needs, found 5" in text and "Next: set nvidia_driver_branch" in text


@pytest.mark.parametrize("running", [None, "580.65.06", "580.105.08", "590.44.01"])
def test_a_driver_that_knows_the_cuda_of_the_image_is_taken(running: str | None) -> None:
    assert work(facts("0x2335", running), **CUDA_13)["problems"] == []
    assert work(facts("0x2335", "570.195.03"), change_driver=True, **CUDA_13)["problems"] == []


def test_a_fabric_manager_of_another_version_is_refused_before_anything_is_started() -> None:
    gathered = install(facts("0x2330", "580.105.08"), "580.95.05", "nvidia-fabricmanager-580")
    text = "expected nvidia-fabricmanager-580 in exactly the driver's version 580.105.08, found 580.95.05"
    assert text in refusal(gathered)
    assert "nvidia-fabricmanager-570, libnvsdm in" in refusal(
        install(install(facts(running="580.105.08"), "570.195.03", "nvidia-fabricmanager-570"), "580.95.05", "libnvsdm")
    )
    assert work(gathered, version="580.95.05", change_driver=True)["problems"] == []


def test_a_driver_upgraded_under_its_module_asks_for_a_reboot() -> None:
    gathered = facts()
    gathered["driver"].update(module_version="580.95.05", library_version="580.105")
    assert "found module 580.95.05 and libraries 580.105" in refusal(gathered) and "reboot the host" in refusal(
        gathered
    )


def test_a_driver_is_not_changed_under_what_serves() -> None:
    gathered = facts(running="570.195.03")
    for index in (2, 3):
        gathered["gpus"][index]["memory_used_mib"] = 150000
    assert work(gathered)["problems"] == []
    assert "found memory in use on 2, 3" in refusal(gathered, change_driver=True)
    assert work(facts(running="580.95.05"), change_driver=True)["adopt"], "the branch is the wanted one"
    assert not work(facts(running="580.95.05"), change_driver=True, version="580.105.08")["adopt"]


def silent(**driver: Any) -> dict[str, Any]:
    """A host whose driver does not answer."""
    gathered = facts()
    gathered["pci"]["gpus"] = [{"vendor": "nvidia", "device": "0x2901", "driver": "nvidia"}] * 8
    gathered["gpus"] = [{"index": index, "memory_used_mib": None, "driver": "nvidia"} for index in range(8)]
    gathered["driver"].update({"module_version": "580.126.09", "loaded": True, "tool": "/usr/bin/nvidia-smi", **driver})
    gathered["errors"] = [{"phase": "driver", "message": "nvidia-smi ended with 124: no answer within 60 s"}]
    return gathered


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize(
    ("driver", "sign"),
    [
        ({}, "the driver's module 580.126.09 is loaded; 8 GPUs are bound to nvidia; nvidia-smi ended with 124: no"),
        ({"module_version": None}, "the driver's module is loaded; 8 GPUs"),
        ({"module_version": None, "loaded": False, "tool": None}, "found 8 GPUs are bound to nvidia"),
    ],
)
def test_no_driver_is_installed_over_one_that_does_not_answer(driver: dict[str, Any], sign: str, change: bool) -> None:
    gathered = silent(**driver)
    text = refusal(gathered, change_driver=change)
    assert "expected a driver that answers, or none at all" in text and sign in text
    made = work(gathered, change_driver=change)
    assert made["adopt"] and not made["load"] and made["packages"] == made["removes"] == made["services"] == []


def test_a_driver_that_is_installed_and_not_loaded_is_somebodys_unless_it_is_the_wanted_one() -> None:
    for name in ("libnvidia-compute-550-server", "nvidia-dkms-550", "cuda-drivers-550", "linux-modules-nvidia-550-x"):
        gathered = install(facts(), "550.90.07", name)
        assert f"{name} 550.90.07-1 is installed" in refusal(gathered)
        assert work(gathered, change_driver=True)["problems"] == []
    by_hand = facts()
    by_hand["driver"]["tool"] = "/usr/bin/nvidia-smi"
    assert "/usr/bin/nvidia-smi is there" in refusal(by_hand)
    ours = install(facts(), "580.126.09", "nvidia-open", "nvidia-persistenced", "libnvidia-compute")
    ours["driver"]["tool"] = "/usr/bin/nvidia-smi"
    assert work(ours)["problems"] == [] and work(ours)["load"], "an interrupted run goes on"
    part = install(facts(), "580.126.09", "nvidia-dkms-open", "libnvidia-compute")
    part["driver"]["tool"] = "/usr/bin/nvidia-smi"
    assert work(part)["problems"] == [] and "nvidia-open" in work(part)["packages"], "one that was cut off earlier too"
    install(part, "550.90.07", "nvidia-kernel-common-550")
    assert "nvidia-kernel-common-550 550.90.07-1 is installed" in refusal(part)
    beside = install(facts(), "1.18.1", *nvidia.TOOLKIT, "nvidia-fabricmanager")
    assert work(beside)["problems"] == []


def test_memory_that_cannot_be_read_is_memory_in_use() -> None:
    gathered = facts(running="570.195.03")
    gathered["gpus"][5]["memory_used_mib"] = None
    gathered["gpus"][1]["memory_used_mib"] = 150000
    text = refusal(gathered, change_driver=True)
    assert "found memory in use on 1; memory that cannot be read on 5, which counts as in use" in text
    gathered["gpu_holders"] = ["python3 (pid 812)"]
    assert "read on 5, which counts as in use by python3 (pid 812)" in refusal(gathered, change_driver=True)
    gathered["gpu_holders"] = []
    assert "found memory in use on 1. Next" in refusal(gathered, change_driver=True)
    idle = facts(running="570.195.03")
    idle["gpus"] = [{"index": 0, "memory_used_mib": None, "driver": name} for name in (None, "nouveau")]
    assert work(idle, change_driver=True)["problems"] == []


def test_lambda_stack_is_adopted_and_never_mixed() -> None:
    gathered = install(facts("0x2335", "570.195.03"), "570.195.03", "nvidia-fabricmanager-570")
    install(gathered, "0.1.15", "lambda-stack-cuda")
    made = work(gathered)
    assert made["problems"] == [] and made["packages"] == ["nvidia-fabricmanager-570", *nvidia.TOOLKIT]
    assert not made["sources"], "what is lacking comes from the image's own sources, or not at all"
    assert "found lambda-stack-cuda, which installs its own" in refusal(gathered, change_driver=True)


def test_unknown_boards_and_amd_boards_are_refused_by_name() -> None:
    assert "found PCI devices nvidia 1234" in refusal(facts("0x1234"))
    amd = facts()
    amd["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1"}] * 8
    assert "found MI300X. Next: use the role glm.fleet.rocm" in refusal(amd)


def test_the_toolkit_is_brought_to_the_wanted_version_in_one_piece() -> None:
    old = install(facts("0x2331", "580.105.08", switches=0), "1.17.8", *nvidia.TOOLKIT)
    made = work(old, toolkit_version="1.18.1")
    assert made["upgrade"] == [*nvidia.TOOLKIT] and made["sources"]
    for version in ("", "1.17.8"):
        made = work(old, toolkit_version=version)
        assert made["upgrade"] == [] and not made["sources"]
    assert work(old, toolkit=False)["upgrade"] == []
    part = install(facts("0x2331", "580.105.08", switches=0), "1.17.8", "nvidia-container-toolkit-base")
    # The newest of the others would not go with an old one.
    assert work(part, toolkit_version="")["upgrade"] == ["nvidia-container-toolkit-base"]
    assert work(facts(), toolkit_version="")["upgrade"] == []


def test_a_changed_driver_takes_what_goes_with_it_along() -> None:
    gathered = install(facts(running="570.195.03"), "570.195.03", "nvidia-open", "nvidia-fabricmanager-570", "libnvsdm")
    install(gathered, "2025.10.11", "nvlsm")
    install(gathered, "1.18.1", *nvidia.TOOLKIT)
    made = work(gathered, change_driver=True)
    assert made["problems"] == [] and made["sources"]
    assert made["upgrade"] == ["nvidia-open", "libnvsdm"]
    assert made["removes"] == ["nvidia-fabricmanager-570"] and "nvidia-fabricmanager" in made["packages"]
    kept = work(gathered)
    assert kept["upgrade"] == kept["removes"] == []
    within = install(facts(running="580.95.05"), "580.95.05", "nvidia-open", "nvidia-fabricmanager-580", "libnvsdm")
    made = work(within, change_driver=True, version="580.105.08", toolkit=False)
    assert made["upgrade"] == ["nvidia-open", "nvidia-fabricmanager-580", "libnvsdm"] and made["removes"] == []


def test_the_distributions_driver_may_go_with_a_change_and_only_then() -> None:
    """As Ubuntu's images have it: none of its packages is one of the role's."""
    server = ("nvidia-driver-570-server", "libnvidia-compute-570-server", "nvidia-dkms-570-server")
    modules = ("linux-modules-nvidia-570-server-generic", "linux-objects-nvidia-570-server-6.8.0-60-generic")
    display = ("xserver-xorg-video-nvidia-570-server", "linux-signatures-nvidia-6.8.0-60-generic")
    gathered = install(facts(running="570.195.03"), "570.195.03", *server, *modules, *display)
    made = work(gathered, change_driver=True)
    assert made["problems"] == [] and made["upgrade"] == []
    for name in (*server, *modules, *display):
        assert any(fnmatch.fnmatchcase(name, pattern) for pattern in made["may_remove"]), name
    for name in ("linux-modules-6.8.0-60-generic", "linux-modules-extra-6.8.0-60-generic", "docker.io"):
        assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in made["may_remove"]), name
    assert work(gathered)["may_remove"] == []


def unproven(gathered: dict[str, Any]) -> str:
    return finding.describe(nvidia.unproven(gathered, work(facts(running="580.105.08"))), "gpu-3")


def test_what_does_not_fit_together_afterwards_is_named() -> None:
    good = facts(running="580.105.08")
    good["drivers"]["packages"]["nvidia-fabricmanager"] = {"version": "580.105.08-1", "held": True}
    assert unproven(good) == ""
    other = copy.deepcopy(good)
    other["drivers"]["packages"]["nvidia-fabricmanager"]["version"] = "580.95.05-1"
    assert "expected nvidia-fabricmanager in exactly the driver's version 580.105.08, found 580.95.05" in unproven(
        other
    )
    unbuilt = copy.deepcopy(good)
    unbuilt["drivers"]["kernels"]["6.8.0-71-generic"] = False
    assert "found none for 6.8.0-71-generic" in unproven(unbuilt)
    asleep = copy.deepcopy(good)
    asleep["drivers"]["units"]["nvidia-fabricmanager"] = "failed"
    assert "expected nvidia-fabricmanager to run, found failed" in unproven(asleep)
    mixed = install(copy.deepcopy(good), "1.18.1", *nvidia.TOOLKIT)
    assert unproven(mixed) == ""
    install(mixed, "1.17.8", "libnvidia-container1")
    text = unproven(mixed)
    assert "expected the container toolkit's packages in one version, 1.18.1, found" in text
    assert "libnvidia-container1 1.17.8" in text
    old = install(copy.deepcopy(good), "1.17.8", *nvidia.TOOLKIT)
    assert "in one version, 1.18.1, found nvidia-container-toolkit 1.17.8" in unproven(old)
    stuck = copy.deepcopy(good)
    stuck["fabric"] = {"present": True, "state": "In Progress", "states": {}}
    assert "expected the NVLink fabric Completed on every GPU, found In Progress" in unproven(stuck)
    broken = copy.deepcopy(good)
    broken["errors"] = [{"phase": "driver", "message": "nvidia-smi ended with 9"}]
    assert "gpu-3, driver: expected a driver that answers, found nvidia-smi ended with 9" in unproven(broken)
