"""The role gpu_base: which steps a host needs, and what its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from role_variables import show

ROLE = Path(__file__).parents[3] / "roles/gpu_base"
BOARD = {"vendor": "nvidia", "device": "0x2901", "bus_id": "0000:1b:00.0", "driver": "nvidia"}
FACTS: dict[str, Any] = {
    "container": None,
    "time_synchronised": True,
    "reboot_required": False,
    "pci": {"gpus": [BOARD]},
    "gpus": [{"index": 0, "memory_used_mib": 3}, {"index": 1, "memory_used_mib": None}, {"index": 2}],
}


def nouveau(**more: Any) -> dict[str, Any]:
    return {"facts": {"pci": {"gpus": [{**BOARD, "driver": "nouveau"}]}}, "gpu_base_reboot_allowed": True, **more}


CASES: dict[str, dict[str, Any]] = {
    "converged": {},
    "users": {"gpu_base_users": [{"name": "anna"}]},
    "clock": {"facts": {"time_synchronised": False}},
    "clock of another machine": {"facts": {"time_synchronised": False, "container": "podman"}},
    "clock left to the user": {"facts": {"time_synchronised": False}, "gpu_base_time_daemons": []},
    "nouveau": nouveau(),
    "nouveau without permission": nouveau(gpu_base_reboot_allowed=False),
    "reboot asked for": {"facts": {"reboot_required": True}, "gpu_base_reboot_allowed": True},
    "busy": {"facts": {"gpus": [{"index": 3, "memory_used_mib": 90000}]}},
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
    assert shown["converged"]["busy"] == [] and shown["busy"]["busy"] == [3]


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
