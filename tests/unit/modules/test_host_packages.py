"""host_packages and host_settled: patience on a fresh host, and nothing done twice."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.apt import parse_origins, parse_policies, strangers
from ansible_collections.glm.fleet.plugins.module_utils.host.dpkg import lock_holder
from ansible_collections.glm.fleet.plugins.modules import host_packages, host_settled
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def apt(tmp_path: Path, fake_command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with curl; its archive has docker.io 20.10 and pciutils. apt-get's calls are in apt-get.calls."""
    installed = tmp_path / "installed"
    installed.write_text("curl install installed 8.5.0-2\nhalf install unpacked 1\n", "utf-8")
    fake_command("dpkg-query", f'shift 2; for name in "$@"; do grep "^$name " {installed}; done; exit 1')
    fake_command(
        "apt-cache",
        'shift; for name; do case "$name" in docker.io) version=20.10.24;; pciutils) version=1:3.13;; '
        "half) version=1;; *) continue;; esac; "
        'printf "%s:\\n  Installed: (none)\\n  Candidate: %s\\n" "$name" "$version"; done',
    )
    fake_command("dpkg", 'test "$2" = "$(printf "%s\\n%s\\n" "$2" "$4" | sort -V | head -1)" && test "$2" != "$4"')
    fake_command(
        "apt-get",
        'case "$*" in *--simulate*) exit 0;; *half*) echo "E: dpkg was interrupted" >&2; exit 100;; '
        f'*install*pciutils*) echo "pciutils install installed 1:3.13" >> {installed};; esac; '
        f'echo "$NEEDRESTART_SUSPEND" > {tmp_path}/needrestart',
    )
    monkeypatch.setattr(host_packages, "LISTS", tmp_path)
    monkeypatch.setattr(host_packages, "HOLDS", tmp_path / "etc/glm/held-packages")
    monkeypatch.setattr(host_packages, "LOCK", tmp_path / "no-lock")
    monkeypatch.setattr(host_packages, "FOLDER", tmp_path / "etc/apt")
    (tmp_path / "mirror_Packages").touch()
    return tmp_path / "apt-get.calls"


def test_only_what_is_missing_is_installed(apt: Path, run_module: Any) -> None:
    result = run_module(host_packages.main, names=["curl", "pciutils"])
    assert (result["changed"], result["missing"]) == (True, ["pciutils"])
    assert result["versions"] == {"curl": "8.5.0-2", "pciutils": "1:3.13"}
    assert result["diff"] == {
        "before": "curl 8.5.0-2\n",
        "after": "curl 8.5.0-2\npciutils 1:3.13\n",
    }
    calls = apt.read_text("utf-8")
    assert "--no-install-recommends --no-upgrade install pciutils" in calls and "DPkg::Lock::Timeout=300" in calls
    assert "update" not in calls.split()
    assert (apt.parent / "needrestart").read_text().strip() == "1"
    again = run_module(host_packages.main, names=["curl", "pciutils"])
    assert again["changed"] is False and apt.read_text("utf-8") == calls


def test_old_lists_are_refreshed_first(apt: Path, run_module: Any) -> None:
    os.utime(apt.parent / "mirror_Packages", (time.time() - 9000, time.time() - 9000))
    run_module(host_packages.main, names=["pciutils"])
    assert apt.read_text("utf-8").splitlines()[0].endswith("update")


def test_check_mode_touches_no_apt(apt: Path, run_module: Any) -> None:
    result = run_module(host_packages.main, check=True, names=["pciutils"])
    assert result["changed"] and not apt.exists()
    assert "pciutils (not installed)" in result["diff"]["after"]


@pytest.mark.parametrize(
    ("names", "minimum", "message"),
    [
        (["docker.io"], {"docker.io": "25"}, "expected docker.io 25 or newer, found 20.10.24 (in the archive)"),
        (["curl"], {"curl": "9"}, "expected curl 9 or newer, found 8.5.0-2 (installed)"),
        (["no-such"], {}, "expected apt to know no-such"),
        (["half"], {}, "installing half failed with 100: E: dpkg was interrupted"),
    ],
)
def test_refusals(apt: Path, run_module: Any, names: list[str], minimum: dict[str, str], message: str) -> None:
    result = run_module(host_packages.main, names=names, minimum_versions=minimum)
    assert result["failed"] and message in result["msg"]


def test_another_apt_that_reads_its_lists_is_waited_for(
    apt: Path, run_module: Any, fake_command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DPkg::Lock::Timeout is for dpkg's locks only."""
    monkeypatch.setattr(host_packages, "LOCK_POLL_SECONDS", 0.05)
    taken = apt.parent / "taken"
    said = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)"
    calls = fake_command(
        "apt-get",
        f'if [ -e {taken} ]; then rm {taken}; echo "{said}" >&2; exit 100; fi\n'
        f'case "$*" in *install*) echo "pciutils install installed 1:3.13" >> {apt.parent}/installed;; esac',
    )
    taken.touch()
    assert not run_module(host_packages.main, names=["pciutils"], refresh_after=-1).get("failed")
    assert [line.split()[2] for line in calls.read_text("utf-8").splitlines()][:2] == ["update", "update"]
    (apt.parent / "installed").write_text("", "utf-8")
    taken.touch()
    refused = run_module(host_packages.main, names=["pciutils"], refresh_after=-1, lock_timeout=0)
    assert refused["failed"] and "held by process 4711" in refused["msg"]


def test_of_alternatives_the_one_that_is_there_will_do(apt: Path, run_module: Any) -> None:
    there = run_module(host_packages.main, names=["pciutils | curl"])
    assert (there["changed"], list(there["versions"])) == (False, ["curl"])
    result = run_module(host_packages.main, names=["pciutils | no-such"])
    assert (result["missing"], list(result["versions"])) == (["pciutils"], ["pciutils"])


def test_versions_are_moved_only_when_asked(apt: Path, run_module: Any) -> None:
    with (apt.parent / "installed").open("a") as installed:
        installed.write("docker.io install installed 26.1.5\n")
    assert run_module(host_packages.main, names=["docker.io"])["changed"] is False
    moved = run_module(host_packages.main, names=["docker.io"], removes=["curl", "not-there"], upgrade=["docker.io"])
    assert moved["missing"] == ["docker.io"]
    assert "--allow-downgrades install docker.io curl-" in apt.read_text("utf-8")


@pytest.fixture
def marks(apt: Path, fake_command: Callable[..., Path]) -> Path:
    """A host whose apt-mark keeps its holds in a file; apt-get refuses to change what is held, as the real one does."""
    holds = apt.parent / "holds"
    holds.touch()
    with (apt.parent / "installed").open("a") as installed:
        installed.write("docker.io install installed 26.1.5\ncontainerd install installed 1.7.24\n")
    fake_command(
        "apt-mark",
        f"verb=$1; shift; case $verb in showhold) cat {holds};; hold) for name; do echo $name >> {holds}; done;; "
        f'unhold) for name; do sed -i "/^$name$/d" {holds}; done;; esac',
    )
    fake_command(
        "apt-get",
        f'case "$*" in *--simulate*) exit;; esac; cat {holds} >> {apt.parent}/seen; '
        f'case "$*" in *containerd-*) sed -i /^containerd/d {apt.parent}/installed;; *--broken*) exit 100;; esac',
    )
    return holds


MOVE: dict[str, Any] = {"names": ["docker.io"], "upgrade": ["docker.io"], "removes": ["containerd"]}


@pytest.mark.parametrize("held", [["containerd"], ["docker.io"], ["containerd", "docker.io"]])
def test_the_hold_of_others_is_never_ended(apt: Path, marks: Path, run_module: Any, held: list[str]) -> None:
    marks.write_text("".join(f"{name}\n" for name in held))
    result = run_module(host_packages.main, **MOVE)
    assert f"found a hold on {', '.join(held)} that is not of this collection. Nothing was changed" in result["msg"]
    assert f"Next: apt-mark unhold {' '.join(held)}" in result["msg"]
    assert not (apt.parent / "seen").exists() and marks.read_text().split() == held


def test_our_own_hold_is_ended_for_a_change_and_comes_back(apt: Path, marks: Path, run_module: Any) -> None:
    held = run_module(host_packages.main, names=["docker.io", "containerd"], hold=True)["held"]
    assert held == marks.read_text().split() == host_packages.HOLDS.read_text().split() == ["containerd", "docker.io"]
    marks.write_text("containerd\ndocker.io\nkubelet\n")
    assert not run_module(host_packages.main, **MOVE, hold=True).get("failed")
    assert (apt.parent / "seen").read_text().split() == ["kubelet"], "what others hold stays held meanwhile"
    assert sorted(marks.read_text().split()) == ["docker.io", "kubelet"]
    assert host_packages.HOLDS.read_text().split() == ["docker.io"]


TEMPLATE = Path(__file__).parents[3] / "roles/gpu_base/templates/apt.conf.j2"


def prepared(folder: Path, release: str) -> None:
    """As gpu_base of that release leaves a host."""
    text = TEMPLATE.read_text("utf-8")
    assert "/etc/glm/held-packages" in text
    path = folder / "etc/apt/apt.conf.d/60glm-fleet"
    path.parent.mkdir(parents=True)
    own = "// Role glm.fleet.gpu_base\n" if release == "0.1.0" else text
    path.write_text(own.replace("/etc/glm/held-packages", str(host_packages.HOLDS)), "utf-8")


def test_holds_of_an_earlier_release_are_our_own(apt: Path, marks: Path, run_module: Any) -> None:
    """It held the same and did not write it down; its other file on the host shows that it was there."""
    prepared(apt.parent, "0.1.0")
    marks.write_text("containerd\ndocker.io\nkubelet\n")
    run_module(host_packages.main, check=True, names=["docker.io"], hold=True)
    assert not host_packages.HOLDS.exists()
    run_module(host_packages.main, names=["curl"])
    assert not run_module(host_packages.main, **MOVE, hold=True).get("failed"), "also when another call was first"
    assert (apt.parent / "seen").read_text().split() == ["kubelet"]
    assert host_packages.HOLDS.read_text().split() == [host_packages.EARLIER, "docker.io"]


def test_holds_of_others_stay_theirs_on_a_host_of_this_release(apt: Path, marks: Path, run_module: Any) -> None:
    marks.write_text("containerd\ndocker.io\n")
    prepared(apt.parent, "0.2.0")
    assert run_module(host_packages.main, names=["docker.io"], hold=True)["held"] == []
    assert not host_packages.HOLDS.exists()
    assert "that is not of this collection" in run_module(host_packages.main, **MOVE, hold=True)["msg"]


def test_our_own_hold_on_what_may_go_is_ended_too(apt: Path, marks: Path, run_module: Any) -> None:
    """gpu_base holds linux-modules-nvidia-*, which goes with the driver that the role nvidia replaces."""
    run_module(host_packages.main, names=["containerd"], hold=True)
    assert marks.read_text().split() == ["containerd"]
    assert not run_module(host_packages.main, names=["pciutils"], may_remove=["containerd"]).get("failed")
    assert (apt.parent / "seen").read_text() == "" and marks.read_text().split() == ["containerd"]


def test_our_own_hold_comes_back_after_a_change_that_failed(
    apt: Path, marks: Path, run_module: Any, fake_command: Callable[..., Path]
) -> None:
    run_module(host_packages.main, names=["docker.io"], hold=True)
    fake_command("apt-get", "exit 100")
    assert run_module(host_packages.main, **MOVE)["failed"]
    assert marks.read_text().split() == host_packages.HOLDS.read_text().split() == ["docker.io"]


@pytest.mark.parametrize("driver", [True, False])
def test_the_kernel_is_held_under_a_drivers_module(
    apt: Path, run_module: Any, fake_command: Callable[..., Path], tmp_path: Path, driver: bool
) -> None:
    holds = tmp_path / "holds"
    holds.write_text("linux-headers-6.8\n")
    marks = fake_command(
        "apt-mark", f"case $1 in showhold) cat {holds};; hold) shift; for name; do echo $name >> {holds}; done;; esac"
    )
    rows = (
        "linux-image-6.8 install installed 6.8.0-45\nlinux-headers-6.8 hold installed 6.8.0-45\n"
        "linux-image-old deinstall config-files 1\n"
    )
    dkms = "nvidia-dkms-580 install installed 580.105.08\n" if driver else ""
    (apt.parent / "rows").write_text(rows)
    (apt.parent / "dkms").write_text(dkms)
    (apt.parent / "bin/dpkg-query").write_text(
        f'#!/bin/sh\ncase "$*" in *linux-image*) cat {tmp_path}/rows;; *nvidia*) cat {tmp_path}/dkms;; '
        f"*) cat {tmp_path}/installed;; esac\n"
    )
    kernel = ["linux-image-*", "linux-headers-*"]
    options = {"names": ["curl"], "hold_installed": kernel, "hold_for": ["*nvidia*-dkms*"]}
    expected = ["linux-image-6.8"] if driver else []
    check = run_module(host_packages.main, check=True, **options)
    assert check["held"] == expected and (not driver or "hold linux" not in marks.read_text())
    first = run_module(host_packages.main, **options)
    again = run_module(host_packages.main, **options)
    assert (first["changed"], first["held"]) == (driver, expected) and again["changed"] is False


@pytest.fixture
def held_lock(tmp_path: Path) -> Any:
    path = tmp_path / "lock"
    path.touch()
    code = (
        "import fcntl,sys\nhandle=open(sys.argv[1],'r+')\nfcntl.lockf(handle, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield path, process
    process.communicate()


def test_the_holder_of_a_lock_is_named_and_not_disturbed(held_lock: Any, tmp_path: Path) -> None:
    path, process = held_lock
    assert lock_holder(path).endswith(f"(pid {process.pid})")
    with path.open("r+") as handle, pytest.raises(BlockingIOError):
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lock_holder(tmp_path / "absent") is None
    (tmp_path / "free").touch()
    assert lock_holder(tmp_path / "free") is None


def test_packages_that_another_is_working_on_are_not_half_done(
    apt: Path, held_lock: Any, run_module: Any, fake_command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """unattended-upgrades has unpacked and not yet configured: dpkg and apt are left alone until it is done."""
    path, process = held_lock
    states = apt.parent / "states"
    states.write_text("docker.io unpacked\n")
    fake_command("dpkg-query", f'case "$*" in *Want*) exit 1;; *) cat {states};; esac')
    dpkg = fake_command("dpkg", "exit 2")
    monkeypatch.setattr(host_packages, "LOCK", path)
    refused = run_module(host_packages.main, names=["pciutils"], lock_timeout=0)
    assert f"(pid {process.pid}) holds it. Nothing was changed" in refused["msg"]
    assert not dpkg.exists() and not apt.exists()

    def done(_seconds: float) -> None:
        states.write_text("docker.io installed\n")
        process.kill()
        process.wait()

    monkeypatch.setattr(time, "sleep", done)
    assert not run_module(host_packages.main, names=["pciutils"]).get("failed")
    assert not dpkg.exists() and "install pciutils" in apt.read_text("utf-8")


@pytest.mark.parametrize(
    "said",
    [
        "dpkg: error: dpkg frontend lock was locked by another process with pid 4711",
        "dpkg: error: dpkg frontend is locked by another process",
    ],
)
def test_dpkgs_own_lock_is_waited_for(
    apt: Path, run_module: Any, fake_command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(host_packages, "LOCK_POLL_SECONDS", 0.01)
    states, taken = apt.parent / "states", apt.parent / "taken"
    states.write_text("docker.io half-configured\n")
    taken.touch()
    fake_command("dpkg-query", f'case "$*" in *Want*) exit 1;; *) cat {states};; esac')
    fake_command("dpkg", f'if [ -e {taken} ]; then rm {taken}; echo "{said}" >&2; exit 2; fi; : > {states}')
    assert not run_module(host_packages.main, names=["pciutils"]).get("failed")


def test_settled_gives_up_with_what_it_waited_for(held_lock: Any, run_module: Any, monkeypatch: Any) -> None:
    path, process = held_lock
    monkeypatch.setattr(host_settled, "LOCKS", (str(path),))
    monkeypatch.setattr(host_settled, "POLL_SECONDS", 0.05)
    result = run_module(host_settled.main, timeout=0)
    assert result["failed"] and f"(pid {process.pid})" in result["msg"]
    assert "gpu_base_first_boot_timeout" in result["msg"]


def test_settled_waits_for_cloud_init(
    tmp_path: Path, fake_command: Callable[..., Path], run_module: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(host_settled, "LOCKS", ())
    monkeypatch.setattr(host_settled, "POLL_SECONDS", 0.05)
    fake_command(
        "cloud-init",
        f'if [ -e {tmp_path}/asked ]; then echo \'{{"status": "done"}}\'; else touch {tmp_path}/asked; '
        'echo \'{"status": "running"}\'; fi',
    )
    result = run_module(host_settled.main, timeout=PATIENCE_SECONDS)
    assert result["waited_for"] == ["cloud-init is running"] and not result.get("failed")
    assert result["cloud_init"]["status"] == "done"


def test_cloud_init_that_never_starts_is_not_waited_for(
    fake_command: Callable[..., Path], run_module: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(host_settled, "LOCKS", ())
    fake_command("cloud-init", """echo '{"status": "not started"}'""")
    fake_command("systemctl", "echo running")
    assert run_module(host_settled.main, timeout=PATIENCE_SECONDS)["waited_for"] == []


def test_cloud_init_error_stops_unless_accepted(
    fake_command: Callable[..., Path], run_module: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(host_settled, "LOCKS", ())
    fake_command("cloud-init", """echo '{"status": "error", "errors": ["apt-get failed"]}'; exit 1""")
    result = run_module(host_settled.main)
    assert result["failed"] and "cloud-init ended with an error: apt-get failed" in result["msg"]
    accepted = run_module(host_settled.main, accept_cloud_init_errors=True)
    assert not accepted.get("failed")


# rocminfo on Debian 13 with AMD's sources and the preference of the role rocm; amdgpu-dkms is an older release.
POLICY_OF_PACKAGES = """rocminfo:
  Installed: {installed}
  Candidate: {candidate}
  Version table:
     6.1.2-1 500
        500 http://deb.debian.org/debian trixie/main amd64 Packages
     1.0.0.70204-93~24.04 600
        600 https://repo.radeon.com/rocm/apt/7.2.4 noble/main amd64 Packages
amdgpu-dkms:
  Installed: 1:6.14.14.30100100-2212064.24.04
  Candidate: 1:6.16.13.30300400-2341068.24.04
  Version table:
     1:6.16.13.30300400-2341068.24.04 1001
        600 https://repo.radeon.com/amdgpu/30.30.4/ubuntu noble/main amd64 Packages
 *** 1:6.14.14.30100100-2212064.24.04 100
        100 /var/lib/dpkg/status
"""
POLICY_OF_SOURCES = """Package files:
 100 /var/lib/dpkg/status
     release a=now
 600 https://repo.radeon.com/rocm/apt/7.2.4 noble/main amd64 Packages
     release v=7.2.4,o=repo.radeon.com,a=noble,n=noble,l=repo.radeon.com,c=main,b=amd64
     origin repo.radeon.com
 600 https://repo.radeon.com/amdgpu/30.30.4/ubuntu noble/main amd64 Packages
     release o=repo.radeon.com,a=noble,n=noble,l=repo.radeon.com,c=main,b=amd64
     origin repo.radeon.com
 500 http://deb.debian.org/debian trixie/main amd64 Packages
     release v=13.2,o=Debian,a=stable,n=trixie,l=Debian,c=main,b=amd64
     origin deb.debian.org
Pinned packages:
"""
AMD = {"rocminfo": "repo.radeon.com", "amdgpu-dkms": "repo.radeon.com"}


def vendor_sources(tmp_path: Path, fake_command: Any, installed: str = "(none)", candidate: str = "") -> None:
    policy = POLICY_OF_PACKAGES.format(installed=installed, candidate=candidate or installed)
    for section in re.split(r"^(?=\S)", policy, flags=re.MULTILINE)[1:]:
        (tmp_path / f"{section.partition(':')[0]}.policy").write_text(section, "utf-8")
    (tmp_path / "sources").write_text(POLICY_OF_SOURCES, "utf-8")
    print_them = 'shift; [ $# -gt 0 ] || cat sources; for name in "$@"; do cat "$name.policy"; done'
    fake_command("apt-cache", f"cd {tmp_path}; {print_them}")


def test_what_apt_would_take_and_from_whom() -> None:
    policies = parse_policies(POLICY_OF_PACKAGES.format(installed="(none)", candidate="1.0.0.70204-93~24.04"))
    assert policies["rocminfo"]["installed"] == "" and policies["rocminfo"]["candidate"] == "1.0.0.70204-93~24.04"
    assert policies["amdgpu-dkms"]["sources"]["1:6.14.14.30100100-2212064.24.04"] == ["/var/lib/dpkg/status"]
    origins = parse_origins(POLICY_OF_SOURCES)
    assert origins["http://deb.debian.org/debian trixie/main amd64 Packages"] == "Debian" and len(origins) == 3
    assert strangers(policies["rocminfo"], origins, "repo.radeon.com", "1.0.0.70204-93~24.04") == []
    assert strangers(policies["rocminfo"], origins, "repo.radeon.com", "6.1.2-1") == [
        "http://deb.debian.org/debian trixie/main amd64 Packages"
    ]
    # A release that the vendor has taken out of its repository comes from nobody any more.
    assert strangers(policies["rocminfo"], origins, "repo.radeon.com", "1.0.0.70203-90~24.04") == []


def test_a_candidate_of_another_origin_is_refused_before_anything_is_installed(
    apt: Path, run_module: Any, fake_command: Any, tmp_path: Path
) -> None:
    vendor_sources(tmp_path, fake_command, candidate="6.1.2-1")
    result = run_module(host_packages.main, names=["rocminfo"], origins=AMD)
    assert result["failed"] and "expected rocminfo from repo.radeon.com, found 6.1.2-1 of Debian" in result["msg"]
    assert not apt.exists()
    vendor_sources(tmp_path, fake_command, candidate="1.0.0.70204-93~24.04")
    assert not run_module(host_packages.main, names=["rocminfo"], origins=AMD).get("failed")
    assert "install rocminfo" in apt.read_text("utf-8")


def test_an_installed_package_of_another_origin_is_refused(
    apt: Path, run_module: Any, fake_command: Any, tmp_path: Path
) -> None:
    vendor_sources(tmp_path, fake_command, installed="6.1.2-1")
    with (tmp_path / "installed").open("a", encoding="utf-8") as installed:
        installed.write("rocminfo install installed 6.1.2-1\n")
    assert not run_module(host_packages.main, names=["rocminfo"]).get("failed"), "nobody asked where it comes from"
    for check in (True, False):
        result = run_module(host_packages.main, check=check, names=["rocminfo"], origins=AMD)
        assert "expected rocminfo from repo.radeon.com, found 6.1.2-1 of Debian" in result["msg"]


def test_only_the_named_packages_are_brought_to_another_version(
    apt: Path, run_module: Any, fake_command: Any, tmp_path: Path
) -> None:
    vendor_sources(tmp_path, fake_command)
    with (tmp_path / "installed").open("a", encoding="utf-8") as installed:
        installed.write("amdgpu-dkms install installed 1:6.14.14.30100100-2212064.24.04\n")
    names = ["amdgpu-dkms", "curl"]
    assert not run_module(host_packages.main, names=names)["changed"]
    result = run_module(host_packages.main, names=names, upgrade=["amdgpu-dkms"], origins=AMD)
    assert (result["changed"], result["missing"]) == (True, ["amdgpu-dkms"])
    call = next(line for line in apt.read_text("utf-8").splitlines() if " install " in line)
    assert "--allow-downgrades install amdgpu-dkms" in call and "curl" not in call


def test_a_host_without_systemd_is_refused_before_anything_is_waited_for(
    tmp_path: Path, held_lock: Any, run_module: Any, monkeypatch: Any
) -> None:
    path, _process = held_lock
    monkeypatch.setattr(host_settled, "LOCKS", (str(path),))
    (tmp_path / "comm").write_text("sleep\n", "utf-8")
    monkeypatch.setattr(host_settled, "FIRST_PROCESS", tmp_path / "comm")
    result = run_module(host_settled.main, systemd_folder=str(tmp_path / "absent"))
    assert result["failed"] and "expected a host that systemd booted, found 'sleep' as process 1." in result["msg"]
    monkeypatch.setattr(host_settled, "LOCKS", ())
    assert not run_module(host_settled.main, systemd_folder=str(tmp_path)).get("failed")
