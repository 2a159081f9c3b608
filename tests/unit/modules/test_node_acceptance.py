"""node_acceptance: what each broken node is called, and that a healthy one passes; evidence is of real tools."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import types
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.host import data_disk, gpu, gpu_state, health
from ansible_collections.glm.fleet.plugins.module_utils.host.facts import Gatherer
from ansible_collections.glm.fleet.plugins.modules import node_acceptance
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.host import acceptance
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from tests.unit.modules import gpu_documents
from tests.unit.modules.test_gpu_facts import pci_device, smi

ROOT = Path(__file__).parents[3]
Text = Callable[[str], str]
PLAN: dict[str, Any] = {
    "accelerator": {
        "name": "B200",
        "count": 8,
        "vendor": "nvidia",
        "memory_gib": 179.06,
        "indices": list(range(8)),
    },
    "runtime": {"kind": "container", "network": "bridge"},
    "image": {"min_driver": "580.65.06", "cuda": "13.0", "reference": "vllm/vllm-openai:v0.32.0"},
    "devices": ["nvidia.com/gpu=all"],
    "confinement": {"capabilities": [], "shared_memory_gib": 64},
    "node": {"rank": 0, "count": 1, "addresses": []},
}
B200 = {"vendor": "nvidia", "device": "0x2901"}
H100 = {"vendor": "nvidia", "device": "0x2330"}
LOST_LOG = {"lines": 0, "begins": None, "rows": [], "left_out": 0, "problems": ["dmesg: not permitted"]}
# What eight healthy B200 do, in GB/s and TFLOPS.
FAST = {
    "device": "NVIDIA B200", "backend": "nccl", "torch": "2.11.0", "world": 8, "problem": "", "unable": "",
    "rows": [
        {"rank": rank, "host_to_device": 54.0, "device_to_host": 55.0, "device_to_device": 710.0, "compute": 1500.0,
         "all_reduce": 660.0}
        for rank in range(8)
    ],
}  # fmt: skip
FLOORS = {"disk_write": 500, "disk_read": 500, "network": 50}


@lru_cache(maxsize=1)
def _documents() -> tuple[str, str]:
    b200 = next(row for row in platforms.load() if row.name == "B200")
    return gpu_documents.nvidia(b200)


def states() -> list[Any]:
    """The state of eight healthy B200."""
    return list(gpu_state.parse_nvidia(*_documents()))


def sound() -> dict[str, Any]:
    """What is gathered on a node with nothing wrong."""
    gpus = [{"index": i, "name": "NVIDIA B200", "memory_total_mib": 183359, "vendor": "nvidia"} for i in range(8)]
    spec = {"path": "/etc/cdi/nvidia.yaml", "kind": "nvidia.com/gpu", "driver_version": "580.126.09",
            "devices": ["nvidia.com/gpu=all"]}  # fmt: skip
    row = {"uncorrected": 0, "aggregate": 0, "remap_pending": False, "remap_failed": False, "threshold_exceeded": False}
    return {
        "facts": {
            "gpus": gpus,
            "gpu_source": "nvidia-smi",
            "driver": {"version": "580.126.09"},
            "fabric": {"present": True, "state": "Completed"},
            "pci": {"nvswitches": 0, "gpus": [{"vendor": "nvidia", "device": "0x2901"}] * 8},
            "cdi": {"devices": ["nvidia.com/gpu=all"], "specs": [spec], "nvidia_ctk": "/usr/bin/nvidia-ctk"},
            "docker": {"running": True, "version": "28.5.1", "cdi": True, "cgroups": "systemd v2"},
            "clock_skew_seconds": 0.0,
            "container": None,
            "errors": [],
        },
        "health": {
            "memory_errors": [{"bus_id": f"{i}", **row} for i in range(8)],
            "memory_errors_problem": None,
            "gpu_states": states(),
            "links": {"interfaces": [{"name": "eth0", "up": True, "mbit": 100000, "mtu": 1500}], "ports": []},
            "kernel_log": {"lines": 2400, "begins": 0.0, "rows": [], "left_out": 0, "problems": []},
            "flavour": "open",
            "dkms": [],
            "kernels": {"6.8.0-60-generic": True},
            "secure_boot": False,
            "runtime": {"code": 0, "gpus": 8, "devices": [0] * 8},
            "iommu": {"groups": 40, "translating": False, "arguments": ["iommu=pt"]},
            "acs_bridges": 0,
            "unlinked": [],
            "settings": [],
            "peermem": True,
            "rdma": True,
            "units": {"nvidia-fabricmanager": "active", "nvidia-persistenced": "active", "docker": "active"},
            "packages": {
                "nvidia-fabricmanager": {"version": "580.126.09-1", "held": True},
                "libnvidia-compute-580": {"version": "580.126.09-0ubuntu1", "held": True},
                "datacenter-gpu-manager": {"version": "1:4.4.1-1", "held": False},
            },
        },
        "measured": {
            "disk_write": 2100.0,
            "disk_read": 5200.0,
            "network": 900.0,
            "container": {"problems": []},
            "gpu_speed": FAST,
        },
    }


def judged(gathered: dict[str, Any], plan: dict[str, Any] = PLAN) -> dict[str, Any]:
    return acceptance.verdict("gpu-3", gathered, [plan], FLOORS)


def changed(path: str, value: Any) -> dict[str, Any]:
    """A healthy node with one thing different, by dotted path."""
    gathered = copy.deepcopy(sound())
    *parents, last = path.split(".")
    at = gathered
    for name in parents:
        at = at[name]
    at[last] = value
    return gathered


def test_a_sound_node_passes_every_check() -> None:
    report = judged(sound())
    assert report["ok"] and acceptance.failures(report) == ""
    assert {check["outcome"] for check in report["checks"]} == {"passed"}
    assert [check["check"] for check in report["checks"]] == [
        *("gpu", "driver", "fabric", "clock", "docker", "cdi", "kernel module", "fabric manager", "memory errors"),
        *(
            "kernel log",
            "runtime",
            "next boot",
            "driver packages",
            "peer transfers",
            "device links",
            "settings",
            "GPU direct",
            "DCGM",
        ),
        *("container", "GPU recovery", "GPU modes", "PCIe links", "NVLink", "fabric health", "clocks", "network links"),
        *("host to device", "device to device", "all-reduce", "GPU outlier"),
        *("disk write", "disk read", "network"),
    ]


BROKEN = [
    ("health.flavour", "proprietary", "kernel module", "the open kernel modules.* B200, found the proprietary ones"),
    (
        "health.units",
        {"nvidia-fabricmanager": "absent"},
        "fabric manager",
        "one that runs, for the NVLink 5 switches of 8 GPUs, found absent",
    ),
    ("health.units", {"nvidia-fabricmanager": "failed"}, "fabric manager", "nvlsm and the module ib_umad"),
    ("health.runtime", {"code": 802, "gpus": 0, "devices": []}, "runtime", "error 802, system not yet initialised"),
    ("health.runtime", {"problem": "its process ended with -11"}, "runtime", "CUDA does not answer: .* with -11"),
    ("health.runtime", {"code": 0, "gpus": 7, "devices": [0] * 7}, "runtime", "on 8 GPUs, found CUDA sees 7 GPUs"),
    (
        "health.runtime",
        {"code": 0, "gpus": 8, "devices": [0, 0, 0, 0, 0, 999, 0, None]},
        "runtime",
        "found CUDA does not initialise on GPU 5 .error 999.",
    ),
    (
        "health.packages",
        {"nvidia-fabricmanager": {"version": "580.105.08-1", "held": False}},
        "fabric manager",
        "exactly the driver's version, 580.126.09, found 580.105.08",
    ),
    (
        "health.packages",
        {"libnvidia-compute-580": {"version": "1:580.130.00-0ubuntu1", "held": False}},
        "driver packages",
        "packages of the loaded driver, 580.126.09, found 580.130.00. Next: reboot",
    ),
    ("health.kernels", {"6.8.0-60": True, "6.8.0-71": False}, "next boot", "found none for 6.8.0-71.*linux-headers"),
    ("facts.fabric", {"present": True, "state": "In Progress"}, "fabric", "found In Progress"),
    ("measured.disk_write", 80.0, "disk write", "expected 500 MB/s or more, found 80 MB/s. Next: .*NVMe"),
    ("measured.disk_read", "/data: No space left", "disk read", "found /data: No space left"),
    ("measured.network", 12.0, "network", "expected 50 MB/s or more, found 12 MB/s"),
    ("measured.container", {"problem": "unresolvable CDI devices"}, "container", "unresolvable CDI devices"),
    ("measured.container", {"problems": ["expected 8 GPUs inside, found 0"]}, "container", "found expected 8 GPUs"),
]


@pytest.mark.parametrize(("path", "value", "check", "words"), BROKEN, ids=[f"{b[2]}: {b[3][:30]}" for b in BROKEN])
def test_a_broken_node_is_named_with_evidence_and_remedy(path: str, value: Any, check: str, words: str) -> None:
    report = judged(changed(path, value))
    assert not report["ok"]
    bad = [entry for entry in report["checks"] if entry["outcome"] == "failed"]
    assert [entry["check"] for entry in bad] == [check]
    assert bad[0]["next"]
    assert re.search(words, acceptance.failures(report)), acceptance.failures(report)


@pytest.mark.parametrize(
    ("path", "value", "check", "found"),
    [
        ("health.runtime", None, "runtime", "no CUDA library; the image is checked"),
        ("measured.container", None, "container", "the image is not on the host yet"),
        ("health.peermem", False, "GPU direct", "not loaded"),
        ("health.iommu", {"groups": 9, "translating": True, "arguments": []}, "peer transfers", "translates DMA"),
        ("health.acs_bridges", 4, "peer transfers", "4 bridges with ACS"),
        ("health.unlinked", ["/dev/nvidia0"], "device links", "none to /dev/nvidia0"),
        (
            "health.settings",
            [finding.judged("settings", "vm.swappiness", None, "10", "60 in /etc/sysctl.d/99-x.conf", "take it out")],
            "settings",
            "vm.swappiness: 60 in /etc/sysctl.d/99-x.conf",
        ),
    ],
)
def test_what_cannot_be_told_or_is_only_a_doubt_fails_nobody(path: str, value: Any, check: str, found: str) -> None:
    report = judged(changed(path, value))
    assert report["ok"]
    entry = next(entry for entry in report["checks"] if entry["check"] == check)
    assert entry["outcome"] == "not_proven" and found in entry["found"]


def test_gpus_that_are_left_to_others_are_not_judged() -> None:
    gathered = copy.deepcopy(sound())
    for index, (state, entry) in enumerate(
        zip(gathered["health"]["gpu_states"], gathered["facts"]["gpus"], strict=True)
    ):
        entry["bus_id"] = state["bus_id"].lower().removeprefix("0000")
        state["mig"] = "Enabled" if index < 4 else "Disabled"
    ours = {**PLAN, "accelerator": {**PLAN["accelerator"], "indices": [4, 5, 6, 7]}}
    outcomes = [
        {entry["check"]: entry["outcome"] for entry in judged(gathered, plan)["checks"]}["GPU modes"]
        for plan in (PLAN, ours)
    ]
    assert outcomes == ["failed", "passed"]


def strictly(gathered: dict[str, Any], leave_out: tuple[str, ...] = ()) -> Any:
    return acceptance.verdict("gpu-3", gathered, [PLAN], FLOORS, leave_out, strict=True)


def rows(**of_one: Any) -> list[dict[str, Any]]:
    """What eight GPUs count, one of them with other words."""
    made: list[dict[str, Any]] = sound()["health"]["memory_errors"]
    made[3].update(of_one)
    return made


UNREAD = [
    ("facts.gpu_source", "pci", "gpu", "8 on the PCI bus only"),
    ("facts.errors", [{"phase": "gpu", "message": "nvidia-smi: infoROM corrupted: GPU 52:00.0"}], "gpu", "infoROM"),
    ("facts.driver", {"version": None}, "driver", "none that can be read"),
    ("facts.errors", [{"phase": "fabric", "message": "nvidia-smi -q -x: no answer"}], "fabric", "no answer"),
    ("facts.fabric", {"present": False, "state": None}, "fabric", "GPUs that report none"),
    ("facts.clock_skew_seconds", None, "clock", "none that was read"),
    ("health.flavour", None, "kernel module", "no /proc/driver/nvidia/version"),
    ("health.units", {"nvidia-fabricmanager": "unknown"}, "fabric manager", "systemd does not answer"),
    ("health.memory_errors", [], "memory errors", "the driver reports none"),
    ("health.memory_errors", rows()[:7], "memory errors", "rows of 7 of 8 GPUs"),
    ("health.memory_errors", rows(uncorrected=None), "memory errors", "no count of errors on 3 (ECC off"),
    ("health.memory_errors", rows(remap_failed=None), "memory errors", "no state of row remapping on 3"),
    ("health.kernel_log", LOST_LOG, "kernel log", "the kernel log cannot be read here (dmesg: not permitted)"),
    ("health.runtime", {"code": 0, "gpus": 8, "devices": [None] * 8}, "runtime", "initialised on 0 of 8 GPUs"),
    ("health.runtime", {"code": 0, "gpus": 8, "devices": [0] * 7 + [None]}, "runtime", "on 7 of 8 GPUs"),
    ("health.kernels", {}, "next boot", "no kernels in /boot"),
    (
        "measured.container",
        {"problems": [], "found": [{"runtime": {"code": 0, "gpus": 8, "devices": [None] * 8}}]},
        "container",
        "initialised on 0 of 8 GPUs",
    ),
]


@pytest.mark.parametrize(("path", "value", "check", "found"), UNREAD, ids=[f"{b[2]}: {b[3]}" for b in UNREAD])
def test_what_could_not_be_read_is_not_proven_and_a_new_host_is_refused_for_it(
    path: str, value: Any, check: str, found: str
) -> None:
    gathered = changed(path, value)
    report = judged(gathered)
    entry = next(entry for entry in report["checks"] if entry["check"] == check)
    assert report["ok"] and acceptance.failures(report) == ""
    assert entry["outcome"] == "not_proven" and entry["unread"] and found in entry["found"] and entry["next"]
    strict = strictly(gathered)
    assert not strict["ok"] and found in acceptance.failures(strict) and "Next: " in acceptance.failures(strict)
    assert strictly(gathered, (check,))["ok"], "what is left out is not looked at"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("health.acs_bridges", None),
        ("health.acs_bridges", 4),
        ("health.peermem", False),
        ("health.rdma", False),
        ("measured.container", None),
        ("measured", {}),
        ("health.packages", {}),
    ],
)
def test_a_new_host_is_not_refused_for_what_does_not_apply_or_is_only_a_doubt(path: str, value: Any) -> None:
    assert strictly(sound())["ok"] and strictly(changed(path, value))["ok"]


def test_gpus_of_no_platform_and_those_of_amd_owe_no_more_than_they_have() -> None:
    plain = changed("facts.pci", {"nvswitches": 0, "gpus": [{"vendor": "nvidia", "device": "0x2236"}] * 8})
    plain["health"]["memory_errors"] = rows(uncorrected=None)
    report = strictly(plain)
    entry = next(entry for entry in report["checks"] if entry["check"] == "memory errors")
    assert report["ok"] and entry["outcome"] == "not_proven" and "unread" not in entry
    amd = changed("facts.pci", {"nvswitches": 0, "gpus": [{"vendor": "amd", "device": "0x74a1"}] * 8})
    amd["facts"]["fabric"] = {"present": False, "state": None}
    amd["health"].update(flavour=None, runtime=None, units={})
    plan = {**PLAN, "accelerator": {**PLAN["accelerator"], "vendor": "amd"}, "image": {**PLAN["image"], "rocm": "7.2"}}
    unread = [entry["check"] for entry in judged(amd, plan)["checks"] if entry.get("unread")]
    assert unread == []


@pytest.mark.parametrize("fixture", ["b200_8", "h100_8", "h200_8"])
def test_a_sound_new_host_says_all_that_is_asked(fixture_text: Text, fixture: str) -> None:
    assert strictly(changed("health.memory_errors", health.parse_memory_errors(fixture_text(f"nvidia/{fixture}.xml"))))[
        "ok"
    ]
    amd = health.parse_amd_ecc(fixture_text("amd/mi300x_8_ecc.json"))
    assert strictly(changed("health.memory_errors", amd))["ok"]


def test_errors_are_named_beside_what_could_not_be_read() -> None:
    text = acceptance.failures(judged(changed("health.memory_errors", rows(uncorrected=2)[:7])))
    assert "3: 2 uncorrected errors" in text and "rows of 7 of 8 GPUs" in text


def test_not_applicable_is_not_nought(fixture_text: Text) -> None:
    text = fixture_text("nvidia/b200_8.xml")
    for element in ("dram_uncorrectable", "sram_uncorrectable_parity"):
        silent = health.parse_memory_errors(text.replace(f"<{element}>0<", f"<{element}>N/A<"))
        assert {row["uncorrected"] for row in silent} == {None}
    remaps = health.parse_memory_errors(text.replace("_failure>No<", "_failure>N/A<"))
    assert {(row["remap_failed"], row["remap_pending"]) for row in remaps} == {(None, False)}
    one = health.parse_memory_errors(
        fixture_text("nvidia/b200_8_ecc_errors.xml").replace(
            "sram_uncorrectable_parity>0<", "sram_uncorrectable_parity>N/A<"
        )
    )
    assert [row["uncorrected"] for row in one if row["uncorrected"] is not None] == [4], "an error stays an error"
    amd = json.loads(fixture_text("amd/mi300x_8_ecc.json"))
    amd[1]["ecc"]["total_uncorrectable_count"] = amd[2]["ecc"] = "N/A"
    assert [row["uncorrected"] for row in health.parse_amd_ecc(f"WARNING: x\n{json.dumps(amd)}")][:4] == [
        0,
        None,
        None,
        0,
    ]


def test_device_nodes_without_the_link_that_runc_needs_are_named(tmp_path: Path) -> None:
    assert health.unlinked(tmp_path) == [], "a host without GPUs"
    (tmp_path / "dev/char").mkdir(parents=True)
    # Any character device stands in for a GPU's.
    for name in ("nvidia0", "nvidiactl"):
        (tmp_path / "dev" / name).symlink_to("/dev/null")
    assert health.unlinked(tmp_path) == ["/dev/nvidia0", "/dev/nvidiactl"]
    (tmp_path / "dev/char/1:3").symlink_to("../nvidia0")
    assert health.unlinked(tmp_path) == []


def test_secure_boot_without_mokutil_is_what_the_firmware_says(tmp_path: Path) -> None:
    assert health.secure_boot_of_firmware(tmp_path) is False, "no UEFI"
    variables = tmp_path / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    assert health.secure_boot_of_firmware(tmp_path) is None, "not mounted"
    (variables / "BootCurrent-8be4df61-93ca-11d2-aa0d-00e098032b8c").touch()
    assert health.secure_boot_of_firmware(tmp_path) is False, "a firmware without it"
    for value in (0, 1):
        (variables / health._SECURE_BOOT).write_bytes(bytes([6, 0, 0, 0, value]))
        assert health.secure_boot_of_firmware(tmp_path) is bool(value)


def test_checks_that_are_left_out_fail_nobody_and_still_tell_what_was_found() -> None:
    gathered = changed("facts.docker", {"running": False, "version": None, "cdi": False})
    assert "docker" in acceptance.failures(acceptance.verdict("h0", gathered, [PLAN], FLOORS))
    report = acceptance.verdict("h0", gathered, [PLAN], FLOORS, ["docker", "no such check"])
    assert report["ok"], acceptance.failures(report)
    entry = next(entry for entry in report["checks"] if entry["check"] == "docker")
    assert entry["outcome"] == "not_proven" and entry["found"].startswith("left out; found ")


@pytest.mark.parametrize(
    ("packages", "driver", "words"),
    [
        ({"": "3.3.5", "-exporter": "4.2.3"}, "580.126.09", "expected one major version, found datacenter-gpu-manager"),
        ({"": "3.3.5"}, "590.44.01", "expected DCGM 4 or newer for driver 590.44.01, found datacenter-gpu-manager"),
    ],
)
def test_dcgm_that_does_not_fit_is_named(packages: dict[str, str], driver: str, words: str) -> None:
    gathered = sound()
    gathered["facts"]["driver"]["version"] = driver
    gathered["facts"]["cdi"]["specs"][0]["driver_version"] = driver
    gathered["health"]["packages"] = {
        f"datacenter-gpu-manager{suffix}": {"version": f"1:{version}-1", "held": False}
        for suffix, version in packages.items()
    }
    text = acceptance.failures(judged(gathered))
    assert text.count("expected") == 1 and words in text


def test_a_host_without_nvswitches_needs_no_fabric_manager_and_a_failed_one_is_named() -> None:
    """GH200 and PCIe GPUs: the service fails with NV_WARN_NOTHING_TO_DO there."""
    gathered = changed("facts.fabric", {"present": False, "state": None})
    gathered["facts"]["pci"] = {"nvswitches": 0, "gpus": [{"vendor": "nvidia", "device": "0x2342"}]}
    gathered["health"]["units"] = {"nvidia-fabricmanager": "absent"}
    assert judged(gathered)["ok"]
    for pci in ({"nvswitches": 0, "gpus": [B200]}, {"nvswitches": 0, "gpus": [H100] * 2}):
        assert judged({**gathered, "facts": {**gathered["facts"], "pci": pci}})["ok"], "a share without its switches"
    four = {"nvswitches": 4, "gpus": [H100] * 8}
    text = acceptance.failures(judged({**gathered, "facts": {**gathered["facts"], "pci": four}}))
    assert "fabric manager: expected one that runs, for 4 NVSwitches, found absent" in text
    gathered["health"]["units"] = {"nvidia-fabricmanager": "failed"}
    assert "expected none where there are no NVSwitches, found one that failed" in acceptance.failures(judged(gathered))


@pytest.mark.parametrize(
    ("fixture", "words", "remedy"),
    [
        ("b200_8", [], ""),
        ("b200_8_ecc_errors", ["4 uncorrected errors since the driver", "a row remapping failed"], "terminate it"),
        ("b200_8_remap_pending", ["a row remapping is pending"], "reset its GPUs or reboot"),
    ],
)
def test_memory_errors_of_nvidia(fixture_text: Text, fixture: str, words: list[str], remedy: str) -> None:
    rows = health.parse_memory_errors(fixture_text(f"nvidia/{fixture}.xml"))
    assert len(rows) == 8
    report = judged(changed("health.memory_errors", rows))
    text = acceptance.failures(report)
    assert report["ok"] is not bool(words)
    assert all(word in text for word in words) and remedy in text


def test_memory_errors_of_amd(fixture_text: Text) -> None:
    assert sum(row["uncorrected"] for row in health.parse_amd_ecc(fixture_text("amd/mi300x_8_ecc.json"))) == 0
    rows = health.parse_amd_ecc(fixture_text("amd/mi300x_8_ecc_errors.json"))
    assert [row["bus_id"] for row in rows if row["uncorrected"]] == ["gpu 3"]
    assert "gpu 3: 2 uncorrected errors" in acceptance.failures(judged(changed("health.memory_errors", rows)))


def test_dkms_of_both_formats() -> None:
    text = "nvidia/580.105.08, 6.8.0-60-generic, x86_64: installed\nnvidia, 570.1, 6.8.0-71-generic, x86_64: built\n"
    rows = health.parse_dkms(text + "amdgpu/6.14.14: added\n")
    assert [(row["module"], row["version"], row["kernel"], row["state"]) for row in rows] == [
        ("nvidia", "580.105.08", "6.8.0-60-generic", "installed"),
        ("nvidia", "570.1", "6.8.0-71-generic", "built"),
        ("amdgpu", "6.14.14", "", "added"),
    ]


def test_flavour_of_the_loaded_module(fixture_text: Text) -> None:
    assert gpu.flavour_of_proc(fixture_text("nvidia/proc_version_open.txt")) == "open"
    assert gpu.flavour_of_proc(fixture_text("nvidia/proc_version_proprietary.txt")) == "proprietary"
    assert gpu.flavour_of_proc("") is None


def test_bridges_that_redirect_are_counted(fixture_text: Text) -> None:
    assert health.acs_bridges(fixture_text("nvidia/lspci_acs.txt")) == 1


def test_a_kernel_without_its_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    for kernel in ("6.8.0-60-generic", "6.8.0-71-generic"):
        (tmp_path / "boot" / f"vmlinuz-{kernel}").touch()
    # What Linux's own install target, Fedora and package managers leave beside them.
    for other in ("6.8.0-60-generic.old", "0-rescue-4f3a", "6.8.0-71-generic.dpkg-new", "6.8.0-71-generic.sig"):
        (tmp_path / "boot" / f"vmlinuz-{other}").touch()
    modules = tmp_path / "lib/modules/6.8.0-60-generic/updates/dkms"
    modules.mkdir(parents=True)
    (modules / "nvidia.ko.zst").touch()
    found = {kernel: health.built_for(tmp_path, kernel, "nvidia") for kernel in health.kernels(tmp_path)}
    assert found == {"6.8.0-60-generic": True, "6.8.0-71-generic": False}


def test_disk_speed_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    speed = health.disk_speed(tmp_path, 8 * 2**20)
    assert speed["write_mb_s"] > 0 and speed["read_mb_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_left_to_whoever_fills_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_disk, "MEASURED", tmp_path / "kept.json")
    assert node_acceptance.disk(tmp_path)["disk_write"] > 0
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert node_acceptance.disk(tmp_path) == {}


def test_what_was_read_from_a_disk_is_kept_on_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_disk, "MEASURED", tmp_path / "kept.json")
    speed = node_acceptance.disk(tmp_path)["disk_read"]
    assert data_disk.describe(str(tmp_path.resolve()))["read_mb_s"] == speed
    # No room to keep it does not take the figure from this run.
    (tmp_path / "file").touch()
    monkeypatch.setattr(data_disk, "MEASURED", tmp_path / "file" / "kept.json")
    assert node_acceptance.disk(tmp_path)["disk_read"] > 0


def test_the_image_gets_the_time_that_its_disk_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def run_probe(reference: str, devices: Any, expected: Any, timeout: float) -> dict[str, Any]:
        given.append(timeout)
        raise node_acceptance.probe.ProbeError("docker run ended with 125")

    monkeypatch.setattr(node_acceptance.probe, "run_probe", run_probe)
    monkeypatch.setattr(node_acceptance.Engine, "inspect_image", lambda self, reference: {"Id": "sha256:1"})
    plan = {**PLAN, "model": {"model_type": "glm_moe_dsa"}}
    params = {"measure_disk": False, "network_url": None, "container": True, "plans": [plan], "timeout": 60}
    module: Any = types.SimpleNamespace(params={**params, "probe_timeout": 600}, check_mode=False)
    assert node_acceptance.measure(module, [])["container"] == {"problem": "docker run ended with 125"}
    assert given == [600]


@pytest.mark.parametrize("name", ["mi300x_8_static", "mi300x_8_static_rocm7"])
def test_amd_smi_tells_of_eight_gpus(fake_command: Any, tmp_path: Path, fixture_text: Text, name: str) -> None:
    (tmp_path / "static.json").write_text(fixture_text(f"amd/{name}.json"), "utf-8")
    fake_command("amd-smi", f"cat {tmp_path}/static.json")
    facts = amd_host(tmp_path)
    assert facts["gpu_source"] == "amd-smi" and facts["errors"] == []
    assert facts["driver"]["version"] == "6.14.14"
    assert {(gpu["name"], gpu["memory_total_mib"], gpu["vendor"]) for gpu in facts["gpus"]} == {
        ("AMD Instinct MI300X", 196592, "amd")
    }
    assert platforms.of_host(facts).name == "MI300X"


def test_rocm_smi_is_asked_where_amd_smi_is_not_there(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    (tmp_path / "rocm.json").write_text(fixture_text("amd/mi300x_8_rocm_smi.json"), "utf-8")
    fake_command("rocm-smi", f"cat {tmp_path}/rocm.json")
    facts = amd_host(tmp_path)
    assert facts["gpu_source"] == "rocm-smi" and len(facts["gpus"]) == 8
    assert {gpu["memory_total_mib"] for gpu in facts["gpus"]} == {206141652992 // 2**20}


def test_what_a_tool_of_amd_says_instead_of_an_answer_is_the_error(fake_command: Any, tmp_path: Path) -> None:
    fake_command("rocm-smi", "echo 'ERROR:root:Driver not initialized (amdgpu not found in modules)' >&2")
    said = {"phase": "driver", "message": "rocm-smi: ERROR:root:Driver not initialized (amdgpu not found in modules)"}
    assert amd_host(tmp_path)["errors"] == [said]
    fake_command("rocm-smi", "echo '{}'")
    assert Gatherer(tmp_path).gather(["gpu"])["errors"][0]["message"] == "rocm-smi: not the JSON of rocm-smi"


def test_seven_of_eight_amd_gpus_are_reported(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    (tmp_path / "static.json").write_text(fixture_text("amd/mi300x_7_static.json"), "utf-8")
    fake_command("amd-smi", f"cat {tmp_path}/static.json")
    messages = [error["message"] for error in amd_host(tmp_path)["errors"]]
    assert messages == ["1 GPUs are on the PCI bus but amd-smi does not show them"]


def test_amd_gpus_without_their_module_are_reported(tmp_path: Path) -> None:
    facts = amd_host(tmp_path, loaded=False)
    assert facts["gpu_source"] == "pci"
    assert "the kernel module amdgpu is not loaded" in facts["errors"][0]["message"]


def test_amds_own_module_is_told_from_the_kernels_and_memory_in_use_is_added(
    fake_command: Any, tmp_path: Path, fixture_text: Text
) -> None:
    (tmp_path / "static.json").write_text(fixture_text("amd/mi300x_8_static_rocm7.json"), "utf-8")
    fake_command("amd-smi", f"cat {tmp_path}/static.json")
    assert amd_host(tmp_path)["driver"]["module_version"] is None
    (tmp_path / "sys/module/amdgpu/version").write_text("6.14.14\n", "utf-8")
    bus_id = Gatherer(tmp_path).gather(["gpu"])["gpus"][3]["bus_id"]
    board = tmp_path / "sys/bus/pci/devices" / bus_id
    board.mkdir(exist_ok=True)
    (board / "mem_info_vram_used").write_text(f"{300 * 2**30}\n", "utf-8")
    facts = Gatherer(tmp_path).gather(["gpu"])
    assert facts["driver"]["module_version"] == "6.14.14"
    assert [gpu["memory_used_mib"] for gpu in facts["gpus"]][2:5] == [None, 300 * 1024, None]


def test_only_what_dkms_built_counts_where_amds_driver_is_installed(fake_command: Any, tmp_path: Path) -> None:
    for kernel in ("6.8.0-60-generic", "6.8.0-71-generic"):
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / "boot" / f"vmlinuz-{kernel}").touch()
        own = tmp_path / "lib/modules" / kernel / "kernel/drivers/gpu/drm/amd/amdgpu"
        own.mkdir(parents=True)
        (own / "amdgpu.ko.zst").touch()
    installation = health.Health("amd", tmp_path).installation
    fake_command("dkms", "true")
    assert installation()["kernels"] == {"6.8.0-60-generic": True, "6.8.0-71-generic": True}
    built = "amdgpu/6.14.14-2226257.24.04, 6.8.0-60-generic, x86_64: installed (Original modules exist)"
    fake_command("dkms", f"echo '{built}'")
    assert installation()["kernels"] == {"6.8.0-60-generic": True, "6.8.0-71-generic": False}
    fake_command("dkms", "echo 'amdgpu/6.14.14-2226257.24.04: added'")
    assert not any(installation()["kernels"].values())


def test_whether_daemons_run_and_start_at_boot_is_read_by_name(fake_command: Any, tmp_path: Path) -> None:
    fake_command(
        "systemctl",
        'case "$2" in\n'
        'nvidia-fabricmanager) printf "UnitFileState=enabled\\nActiveState=active\\nLoadState=loaded\\n";;\n'
        'nvidia-persistenced) printf "LoadState=loaded\\nActiveState=inactive\\nUnitFileState=disabled\\n";;\n'
        'docker) printf "LoadState=not-found\\nActiveState=inactive\\nUnitFileState=\\n";;\n'
        "*) exit 1;;\nesac",
    )
    found = health.Health("nvidia", tmp_path).installation()
    assert found["units"] == {
        "nvidia-fabricmanager": "active", "nvidia-persistenced": "inactive", "docker": "absent",
        "nvidia-imex": "unknown",
    }  # fmt: skip
    assert found["enabled"] == ["nvidia-fabricmanager"]


def test_who_may_open_the_boards_of_amd(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    mine = os.getgid()
    (tmp_path / "etc/group").write_text(f"video:x:44:ubuntu,alice\nrender:x:{mine}:\nbroken\n", "utf-8")
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000::/:/bin/sh\n", "utf-8")
    (tmp_path / "dev/dri").mkdir(parents=True)
    for name in ("kfd", "dri/renderD128", "dri/card0"):
        (tmp_path / "dev" / name).touch()
        (tmp_path / "dev" / name).chmod(0o660)
    found = health.Health("amd", tmp_path).installation()
    node = {"group": "render", "gid": mine, "mode": "0660"}
    assert found["nodes"] == {"/dev/kfd": node, "/dev/dri/renderD128": node}
    assert found["groups"]["render"] == {"gid": mine, "members": []}
    assert found["groups"]["video"] == {"gid": 44, "members": ["ubuntu", "alice"]}
    assert found["users"] == ["root", "ubuntu"]
    assert "nodes" not in health.Health("nvidia", tmp_path).installation()


def amd_host(root: Path, loaded: bool = True) -> dict[str, Any]:
    for slot in range(8):
        pci_device(root, f"0000:{slot:02x}:00.0", "0x1002", "0x74a1", "0x120000", "amdgpu" if loaded else "")
    if loaded:
        (root / "sys/module/amdgpu").mkdir(parents=True)
    return Gatherer(root).gather(["gpu"])


def test_eight_h100(fake_command: Any, tmp_path: Path, fixture_text: Text) -> None:
    smi(fake_command, tmp_path, fixture_text("nvidia/h100_8.csv"), fixture_text("nvidia/h100_8.xml"))
    facts = Gatherer(tmp_path).gather(["gpu"])
    assert {(gpu["name"], gpu["memory_total_mib"]) for gpu in facts["gpus"]} == {("NVIDIA H100 80GB HBM3", 81559)}


def test_platforms_are_found_by_device_and_never_by_name() -> None:
    def facts(*devices: str, vendor: str = "nvidia") -> dict[str, Any]:
        return {"pci": {"gpus": [{"vendor": vendor, "device": device} for device in devices]}}

    assert platforms.of_host(facts("0x2342")).name == "GH200"
    assert platforms.of_host(facts("0x2335", "0x2335")).fabric == "fabricmanager"
    assert (platforms.of_host(facts("0x2901")).modules, platforms.of_host(facts("0x2901")).fabric) == ("open", "nvlsm")
    for wrong in (facts("0x2335", "0x2901"), facts("0x1234"), facts("0x74a1"), facts()):
        with pytest.raises(platforms.PlatformError, match="Next: "):
            platforms.of_host(wrong)


def test_a_platform_table_with_one_device_twice_is_refused(tmp_path: Path) -> None:
    row = {"vendor": "nvidia", "devices": ["2335"], "modules": "any", "fabric": "none", "min_branch": 550}
    rows = [{"name": "a", **row}, {"name": "b", **row}]
    (tmp_path / "platforms.yml").write_text(json.dumps({"platforms": rows, "containers": {}}), "utf-8")
    with pytest.raises(CatalogError, match="device 2335 is both a and b"):
        platforms.load(tmp_path)


def test_a_report_is_what_the_published_schema_says() -> None:
    schema = json.loads((ROOT / "docs/schemas/report.schema.json").read_text(encoding="utf-8"))
    for gathered in (
        sound(),
        changed("health.kernel_log", LOST_LOG),
        changed("health.runtime", {"code": 802, "gpus": 0}),
    ):
        Draft202012Validator(schema).validate(json.loads(json.dumps({**judged(gathered), "gathered": gathered})))


def test_every_replica_is_looked_at_from_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run_probe(reference: str, devices: Any, expected: Any, timeout: float) -> dict[str, Any]:
        asked.append(list(devices))
        return {"gpus": 4 if len(asked) == 1 else 3, "nvidia_smi": "", "runtime": None, "transformers": "5.2.0",
                "known": True, "import_error": None}  # fmt: skip

    monkeypatch.setattr(node_acceptance.probe, "run_probe", run_probe)
    monkeypatch.setattr(node_acceptance.Engine, "inspect_image", lambda self, reference: {"Id": "sha256:1"})
    intent = planner.Intent("GLM-5", "B200", 8, precision="nvfp4", replicas=2)
    seen: Any = node_acceptance.inside(planner.make_all(intent, catalog.load()), 600)
    assert len(asked) == 2 and "nvidia.com/gpu=0" in asked[0] and "nvidia.com/gpu=7" in asked[1]
    [problem] = seen["problems"]
    assert problem.startswith("expected 4 GPUs inside the container, found 3")
