"""Settings that we wrote and that a file that is read later changes, and those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host import in_force
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

OURS = {
    "etc/sysctl.d/60-glm-fleet.conf": "# Managed\nvm.max_map_count = 1048576\nvm.swappiness = 10\n",
    "proc/sys/vm/max_map_count": "1048576\n",
    "proc/sys/vm/swappiness": "10\n",
    "etc/systemd/journald.conf.d/60-glm-fleet.conf": "[Journal]\nSystemMaxUse=4G\n",
    "etc/security/limits.d/60-glm-fleet.conf": "*    - nofile 1048576\nroot - nofile 1048576\n",
    "etc/modprobe.d/60-glm-fleet.conf": "blacklist nouveau\noptions nouveau modeset=0\n",
    "etc/tmpfiles.d/60-glm-fleet.conf": "w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "etc/needrestart/conf.d/60-glm-fleet.conf": "$nrconf{override_rc}{qr(^glm-)} = 0;\n",
    "etc/apt/apt.conf.d/60glm-fleet": (
        '/*\n * Managed\n */\n// Role\nDPkg::Lock::Timeout "300";\n'
        'Unattended-Upgrade::Package-Blacklist {\n    "docker";\n};\n'
    ),
}
DUMP = (
    'APT "";\nDPkg::Lock::Timeout "300";\n'
    'Unattended-Upgrade::Package-Blacklist "";\nUnattended-Upgrade::Package-Blacklist:: "docker";\n'
)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """What is found on a host with our files and these."""

    def found(dump: str | None = DUMP, kernel: bool = True, **more: Any) -> list[Finding]:
        for path, text in {**OURS, **more.get("files", {})}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                (tmp_path / path).write_text(text, "utf-8")
        answer = CommandResult(("apt-config", "dump"), 0 if dump is not None else 127, dump or "", "not there")
        monkeypatch.setattr(in_force, "run", lambda *_given: answer)
        return in_force.look(tmp_path, kernel)

    return found


def test_what_is_in_force_is_no_finding(host: Callable[..., list[Finding]], tmp_path: Path) -> None:
    assert host() == []
    before = {
        # Read before ours, of others, or of the same name in a folder that counts less.
        "usr/lib/sysctl.d/10-map-count.conf": "vm.max_map_count = 65530\n",
        "usr/lib/sysctl.d/60-glm-fleet.conf": "vm.swappiness = 99\n",
        # A pattern never takes the place of a whole name.
        "etc/sysctl.d/99-pattern.conf": "vm.* = 1\n",
        "etc/sysctl.d/99-sysctl.conf": "#vm.swappiness = 60\nnet.ipv4.ip_forward = 1\nvm.swappiness=10\n",
        "etc/systemd/journald.conf": "[Journal]\n#SystemMaxUse=\nSystemMaxUse=1G\n",
        "etc/security/limits.conf": "* soft nofile 1024\n",
        "etc/security/limits.d/99-anna.conf": "anna - nofile 4096\n@ops soft nofile 1\n",
        "etc/needrestart/conf.d/99-mine.conf": "# override_rc is documented elsewhere\n$nrconf{kernelhints} = -1;\n",
    }
    assert host(files=before) == []
    # systemd's way of masking a file.
    (tmp_path / "etc/sysctl.d/98-masked.conf").symlink_to("/nowhere/at/all")
    assert host() == []


@pytest.mark.parametrize(
    ("path", "text", "check", "found"),
    [
        ("etc/sysctl.d/99-local.conf", "vm.swappiness = 60\n", "vm.swappiness", "60 in /etc/sysctl.d/99-local.conf"),
        ("usr/lib/sysctl.d/99-v.conf", "-vm/swappiness=1\n", "vm.swappiness", "1 in /usr/lib/sysctl.d/99-v.conf"),
        ("run/sysctl.d/70-x.conf", "vm.max_map_count = 5\n", "vm.max_map_count", "5 in /run/sysctl.d/70-x.conf"),
        ("proc/sys/vm/swappiness", "60\n", "vm.swappiness", "60 now"),
        ("etc/systemd/journald.conf.d/zz.conf", "[Journal]\nSystemMaxUse=100M\n", "SystemMaxUse",
         "100M in /etc/systemd/journald.conf.d/zz.conf"),
        ("etc/security/limits.d/99-x.conf", "* soft nofile 1024\n", "* soft nofile",
         "1024 in /etc/security/limits.d/99-x.conf"),
        ("etc/security/limits.d/99-x.conf", "root hard nofile 9\n", "root hard nofile",
         "9 in /etc/security/limits.d/99-x.conf"),
        ("usr/lib/modprobe.d/nvidia-graphics.conf", "options nouveau modeset=1\n", "nouveau modeset",
         "1 in /usr/lib/modprobe.d/nvidia-graphics.conf"),
        ("etc/tmpfiles.d/99-thp.conf", "w! /sys/kernel/mm/transparent_hugepage/enabled - - - - never\n",
         "/sys/kernel/mm/transparent_hugepage/enabled", "never in /etc/tmpfiles.d/99-thp.conf"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n",
         "/sys/kernel/mm/transparent_hugepage/enabled", "always now"),
        ("etc/needrestart/conf.d/99-mine.conf", "$nrconf{override_rc} = {};\n", "needrestart",
         "/etc/needrestart/conf.d/99-mine.conf"),
    ],
)  # fmt: skip
def test_the_file_that_wins_is_named(
    host: Callable[..., list[Finding]], tmp_path: Path, path: str, text: str, check: str, found: str
) -> None:
    [finding] = host(files={path: text})
    assert finding["check"] == check and found in finding["found"] and finding["next"]
    assert (finding["phase"], finding["outcome"]) == ("settings", "not_proven"), (
        "reported, and nobody is refused for it"
    )
    assert (tmp_path / path).read_text("utf-8") == text, "never overwritten"


def test_what_counts_now_and_what_counts_from_the_next_boot_on_are_both_said(
    host: Callable[..., list[Finding]],
) -> None:
    files = {"etc/sysctl.d/99-x.conf": "vm.swappiness = 60\n", "proc/sys/vm/swappiness": "30\n"}
    [finding] = host(files=files)
    assert finding["found"] == "30 now; 60 in /etc/sysctl.d/99-x.conf, which is read later and wins"
    assert finding["next"].startswith("take it out of /etc/sysctl.d/99-x.conf, or set gpu_base_sysctl")


def test_what_apt_makes_of_all_files_is_compared(host: Callable[..., list[Finding]]) -> None:
    dump = DUMP.replace('Blacklist:: "docker"', 'Blacklist:: "x"').replace('"300"', '"5"')
    timeout, blacklist = host(dump, files={"etc/apt/apt.conf.d/99mine": 'DPkg::Lock::Timeout "5";\n'})
    assert timeout["check"] == "DPkg::Lock::Timeout"
    assert timeout["found"] == "5, by /etc/apt/apt.conf.d/99mine, which is read later"
    assert timeout["next"].startswith("take it out of /etc/apt/apt.conf.d/99mine, or set gpu_base_apt_lock_timeout to")
    assert (blacklist["check"], blacklist["found"]) == ("Unattended-Upgrade::Package-Blacklist", "x")


def test_the_proxy_of_another_file_is_named(host: Callable[..., list[Finding]]) -> None:
    lines = 'Acquire::http::Proxy "http://p:3128";\nAcquire::http::Proxy::h "DIRECT";\n'
    ours = {"etc/apt/apt.conf.d/60glm-fleet-proxy": lines}
    other = {"etc/apt/apt.conf.d/90curtin": 'Acquire::HTTP::Proxy "http://old:1";\n'}
    # apt says a key in the letters of whichever file had it first.
    assert host(DUMP + lines.replace("http::", "HTTP::"), files=ours) == []
    [finding] = host(DUMP + lines.replace("http://p:3128", "http://old:1"), files={**ours, **other})
    assert finding["found"] == "http://old:1, by /etc/apt/apt.conf.d/90curtin, which is read later"
    assert "glm_proxy" in finding["next"]


def test_no_reading_is_not_in_force(host: Callable[..., list[Finding]]) -> None:
    found = host(None, files={"proc/sys/vm/swappiness": None})
    assert [finding["check"] for finding in found] == ["vm.swappiness", "apt"]
    assert all(finding["unread"] and "nothing that can be read" in finding["found"] for finding in found)


def test_a_container_is_not_asked_for_another_machines_kernel(host: Callable[..., list[Finding]]) -> None:
    assert host(kernel=False, files={"proc/sys/vm/swappiness": "60\n"}) == []


def test_a_host_without_our_files_is_not_looked_at(tmp_path: Path) -> None:
    assert in_force.look(tmp_path) == []
