"""The role gpu_base: which steps a host needs, and what its files say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from role_variables import show

ROLE = Path(__file__).parents[2] / "roles/gpu_base"
BOARD = {"vendor": "nvidia", "device": "0x2901", "bus_id": "0000:1b:00.0", "driver": "nvidia"}
AMD = {"vendor": "amd", "device": "0x74a1", "bus_id": "0000:05:00.0", "driver": "amdgpu"}
[REBOOT] = [
    task["ansible.builtin.reboot"]
    for task in yaml.safe_load((ROLE / "tasks/reboot.yml").read_text("utf-8"))
    if "ansible.builtin.reboot" in task
]
FACTS: dict[str, Any] = {
    "container": None,
    "time_synchronised": True,
    "reboot_required": False,
    "pci": {"gpus": [BOARD]},
    "gpus": [{"index": 0, "memory_used_mib": 3}, {"index": 1, "driver": None}, {"index": 2, "driver": "nouveau"}],
    "drivers": {"kernels": {"6.8.0-60": True}},
}


def nouveau(**more: Any) -> dict[str, Any]:
    return {"facts": {"pci": {"gpus": [{**BOARD, "driver": "nouveau"}]}}, "gpu_base_reboot_allowed": True, **more}


def kernels(driver: str | None, **built: bool) -> dict[str, Any]:
    return {"facts": {"pci": {"gpus": [{**BOARD, "driver": driver}]}, "drivers": {"kernels": built}}}


CASES: dict[str, dict[str, Any]] = {
    "converged": {},
    "a kernel without the module": kernels("nvidia", a=True, b=False),
    "a driver that no kernel has a module for": kernels("nvidia", a=False),
    "a driver that is not loaded yet": kernels("nouveau", a=True, b=False),
    "no driver at all": kernels("nouveau", a=False, b=False),
    "no kernel of its own": kernels("nvidia"),
    "AMD": {"facts": {"pci": {"gpus": [AMD, AMD]}}},
    "AMD, one board without its driver": {"facts": {"pci": {"gpus": [AMD, {**AMD, "driver": None}]}}},
    "AMD without a driver": {"facts": {"pci": {"gpus": [{**AMD, "driver": None}]}}},
    "users": {"gpu_base_users": [{"name": "anna"}]},
    "clock": {"facts": {"time_synchronised": False}},
    "clock of another machine": {"facts": {"time_synchronised": False, "container": "podman"}},
    "clock left to the user": {"facts": {"time_synchronised": False}, "gpu_base_time_daemons": []},
    "nouveau": nouveau(),
    "nouveau without permission": nouveau(gpu_base_reboot_allowed=False),
    "reboot asked for": {"facts": {"reboot_required": True}, "gpu_base_reboot_allowed": True},
    "busy": {"facts": {"gpus": [{"index": 3, "memory_used_mib": 90000}]}},
    "unread": {"facts": {"gpus": [{"index": 3, "memory_used_mib": None}, {"index": 4, "driver": "nvidia"}]}},
    "driver announced": {"__nvidia_packages": {"missing": ["nvidia-open", "nvidia-container-toolkit-base"]}},
    "AMD's driver announced": {"__rocm_packages": {"missing": ["amdgpu-dkms", "amd-container-toolkit"]}},
    "toolkit announced": {"__nvidia_packages": {"missing": ["libnvidia-container1"]}},
    "driver's role skipped": {"__nvidia_packages": {"changed": False, "skipped": True}},
    "volume": {"gpu_base_data_volume": "create", "gpu_base_data_filesystem": "xfs"},
    "settings": {
        "gpu_base_huge_pages": 16384,
        "gpu_base_transparent_huge_pages": "madvise",
        "gpu_base_journald": {"SystemMaxUse": "1G", "MaxRetentionSec": "1month"},
    },
}
SHOWN = {
    "steps": "{{ __gpu_base_steps }}",
    "busy": "{{ __gpu_base_busy | map(attribute='index') }}",
    "announced": "{{ __gpu_base_announced }}",
    "unbuilt": "{{ __gpu_base_unbuilt }}",
    "up": REBOOT["test_command"],
    "packages": "{{ __gpu_base_time_packages + __gpu_base_volume_packages }}",
    "sysctl": "{{ lookup('ansible.builtin.template', 'sysctl.conf.j2') }}",
    "journald": "{{ lookup('ansible.builtin.template', 'journald.conf.j2') }}",
    "modprobe": "{{ lookup('ansible.builtin.template', 'modprobe.conf.j2') }}",
    "tmpfiles": "{{ lookup('ansible.builtin.template', 'tmpfiles.conf.j2') }}",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the role's variables and templates come to for each case, out of one run of one play."""
    cases = {
        name: {
            "ansible_facts": {"gpu_facts": {**FACTS, **case.get("facts", {})}},
            **{key: value for key, value in case.items() if key != "facts"},
        }
        for name, case in CASES.items()
    }
    return show(tmp_path_factory.mktemp("gpu_base"), "gpu_base", cases, SHOWN)


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        ("converged", []),
        ("users", ["users"]),
        ("clock", ["time"]),
        ("clock of another machine", []),
        ("clock left to the user", []),
        ("nouveau", ["reboot"]),
        ("nouveau without permission", []),
        ("reboot asked for", ["reboot"]),
    ],
)
def test_a_host_takes_only_the_steps_that_it_needs(shown: Any, case: str, steps: list[str]) -> None:
    assert shown[case]["steps"] == steps
    assert all((ROLE / f"tasks/{step}.yml").is_file() for step in steps)


def test_boards_that_compute_forbid_a_reboot(shown: Any) -> None:
    assert shown["converged"]["busy"] == [] and shown["busy"]["busy"] == [3] and shown["unread"]["busy"] == [3, 4]


@pytest.mark.parametrize(
    ("case", "unbuilt"),
    [
        ("converged", []),
        ("a kernel without the module", ["b"]),
        ("a driver that no kernel has a module for", ["a"]),
        ("a driver that is not loaded yet", ["b"]),
        ("no driver at all", []),
        ("no kernel of its own", []),
    ],
)
def test_a_kernel_without_the_module_of_the_boards_forbids_a_reboot(shown: Any, case: str, unbuilt: list[str]) -> None:
    """Any kernel of /boot may be the next; a host that has no driver loses none."""
    assert shown[case]["unbuilt"] == unbuilt


@pytest.mark.parametrize(
    ("case", "nvidia", "amd"),
    [
        ("converged", 1, 0),
        ("AMD", 0, 2),
        ("AMD, one board without its driver", 0, 2),
        ("AMD without a driver", 0, 0),
    ],
)
def test_a_host_is_up_once_the_driver_of_either_vendor_has_every_board(
    shown: Any, tmp_path: Path, case: str, nvidia: int, amd: int
) -> None:
    def up(gpus: int, bound: int | None) -> bool:
        """What the command says where nvidia-smi lists ``gpus``, and amdgpu has ``bound`` or is not loaded."""
        root = tmp_path / f"{gpus}-{bound}"
        root.mkdir()
        rows = "".join(f"echo 'GPU {number}: NVIDIA B200 (UUID: GPU-{number})'\n" for number in range(gpus))
        (root / "nvidia-smi").write_text(
            f"#!/bin/sh\n{rows}echo 'WARNING: infoROM is corrupted at gpu 00000000:52:00.0'\n"
        )
        (root / "nvidia-smi").chmod(0o755)
        for number in range(bound or 0):
            (root / f"amdgpu/0000:{number}5:00.0").mkdir(parents=True)
        command = shown[case]["up"].replace("/sys/bus/pci/drivers/amdgpu", f"{root}/amdgpu")
        environment = {"PATH": f"{root}:{os.environ['PATH']}"}
        return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=False).returncode == 0

    assert up(nvidia, amd or None)
    assert not up(nvidia + 1, amd)
    assert not amd or not (up(nvidia, amd - 1) or up(nvidia, None))


@pytest.mark.parametrize(
    ("case", "announced"),
    [
        ("converged", []),
        ("driver announced", ["nvidia-open"]),
        ("AMD's driver announced", ["amdgpu-dkms"]),
        ("toolkit announced", []),
        ("driver's role skipped", []),
    ],
)
def test_only_a_driver_that_its_role_announced_excuses_a_host_in_check_mode(
    shown: Any, case: str, announced: list[str]
) -> None:
    assert shown[case]["announced"] == announced


def test_what_a_volume_needs_is_installed_only_for_a_volume(shown: Any) -> None:
    daemons = "systemd-timesyncd | chrony | ntpsec | ntp | openntpd"
    assert shown["converged"]["packages"] == [daemons]
    assert shown["volume"]["packages"] == [daemons, "mdadm", "xfsprogs"]
    assert shown["clock left to the user"]["packages"] == []


def test_huge_pages_are_set_only_when_asked_for(shown: Any) -> None:
    assert "hugepages" not in shown["converged"]["sysctl"]
    assert "vm.nr_hugepages = 16384\nvm.swappiness = 10\n" in shown["settings"]["sysctl"]
    assert shown["settings"]["tmpfiles"].endswith("\nw /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise\n")


def test_the_journal_is_limited(shown: Any) -> None:
    assert shown["converged"]["journald"].endswith("[Journal]\nRuntimeMaxUse=512M\nSystemMaxUse=4G\n")
    assert shown["settings"]["journald"].endswith("[Journal]\nMaxRetentionSec=1month\nSystemMaxUse=1G\n")


def test_nouveau_is_switched_off(shown: Any) -> None:
    assert shown["converged"]["modprobe"].endswith("\nblacklist nouveau\noptions nouveau modeset=0\n")
