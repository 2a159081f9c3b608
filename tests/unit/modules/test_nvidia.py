"""The role nvidia's decisions: what is adopted, what is installed in which version, what is refused and why."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils import nvidia

WANTED: dict[str, Any] = {
    "branch": "580",
    "version": "",
    "modules": "auto",
    "change_driver": False,
    "toolkit": True,
    "toolkit_version": "1.18.1",
    "secure_boot_ready": False,
    "driver_packages": {"open": ["nvidia-open"], "proprietary": ["cuda-drivers"]},
}


def facts(device: str = "0x2901", running: str | None = None) -> dict[str, Any]:
    """A B200 host with two kernels, without a driver unless ``running`` names one."""
    return {
        "pci": {"gpus": [{"vendor": "nvidia", "device": device}] * 8, "nvswitches": 2},
        "gpus": [{"index": index, "memory_used_mib": 0} for index in range(8)] if running else [],
        "driver": {"version": running, "module_version": running, "library_version": None},
        "kernel": "6.8.0-60-generic",
        "distribution": {"id": "ubuntu", "version": "24.04"},
        "container": None,
        "errors": [],
        "drivers": {
            "flavour": "open" if running else None,
            "secure_boot": False,
            "kernels": {"6.8.0-60-generic": True, "6.8.0-71-generic": True},
            "packages": {},
            "units": {"nvidia-persistenced": "active", "nvidia-fabricmanager": "active"},
        },
    }


def work(gathered: dict[str, Any], **wanted: Any) -> nvidia.Work:
    return nvidia.work(gathered, {**WANTED, **wanted}, "gpu-3")


def test_a_host_without_a_driver_gets_one_with_all_that_goes_with_it() -> None:
    made = work(facts())
    assert made["problems"] == [] and not made["adopt"] and made["load"]
    assert made["packages"] == [
        "nvidia-open", "linux-headers-6.8.0-60-generic", "linux-headers-6.8.0-71-generic",
        "nvidia-fabricmanager", "nvlsm", "libnvsdm", "linux-modules-extra-6.8.0-60-generic", *nvidia.TOOLKIT,
    ]  # fmt: skip
    assert made["pins"][1]["version"] == "580.*" and made["pins"][0]["version"] == "1.18.1-*"
    assert made["modules"] == ["ib_umad"]
    assert made["services"] == ["nvidia-persistenced", "nvidia-fabricmanager"]


def test_a_driver_that_works_is_adopted_and_completed_in_its_own_version() -> None:
    made = work(facts("0x2335", "570.195.03"))
    assert made["adopt"] and not made["load"] and made["problems"] == []
    assert made["packages"] == ["nvidia-fabricmanager-570", *nvidia.TOOLKIT]
    assert made["pins"][1]["version"] == "570.195.03-*"


@pytest.mark.parametrize(
    ("device", "packages", "services"),
    [
        ("0x2342", [], ["nvidia-persistenced"]),
        ("0x2331", [], ["nvidia-persistenced"]),
        ("0x2330", ["nvidia-fabricmanager"], ["nvidia-persistenced", "nvidia-fabricmanager"]),
        (
            "0x3182",
            ["nvidia-fabricmanager", "nvlsm", "libnvsdm", "linux-modules-extra-6.8.0-60-generic"],
            ["nvidia-persistenced", "nvidia-fabricmanager"],
        ),
        ("0x2941", ["nvidia-imex"], ["nvidia-persistenced", "nvidia-imex"]),
    ],
)
def test_the_fabric_is_the_boards_and_not_the_names(device: str, packages: list[str], services: list[str]) -> None:
    made = work(facts(device, "580.105.08"), toolkit=False)
    assert (made["packages"], made["services"]) == (packages, services)


def refusal(gathered: dict[str, Any], **wanted: Any) -> str:
    text = " ".join(work(gathered, **wanted)["problems"])
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


def test_lambda_stack_is_adopted_and_never_mixed() -> None:
    gathered = facts("0x2335", "570.195.03")
    gathered["drivers"]["packages"]["lambda-stack-cuda"] = {"version": "0.1.15", "held": False}
    assert work(gathered)["problems"] == []
    assert "found lambda-stack-cuda, which brings its own" in refusal(gathered, change_driver=True)


def test_unknown_boards_and_amd_boards_are_refused_by_name() -> None:
    assert "found PCI devices nvidia 1234" in refusal(facts("0x1234"))
    amd = facts()
    amd["pci"]["gpus"] = [{"vendor": "amd", "device": "0x74a1"}] * 8
    assert "found MI300X. Next: use the role glm.fleet.rocm" in refusal(amd)


def unproven(gathered: dict[str, Any]) -> str:
    return " ".join(nvidia.unproven(gathered, work(facts(running="580.105.08")), "gpu-3"))


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
    broken = copy.deepcopy(good)
    broken["errors"] = [{"phase": "driver", "message": "nvidia-smi ended with 9"}]
    assert "gpu-3, driver: nvidia-smi ended with 9" in unproven(broken)
