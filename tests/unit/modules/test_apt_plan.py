"""What apt is going to do is read before it is done; outputs are of apt 2.6 in a root of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host import apt_plan
from ansible_collections.glm.fleet.plugins.module_utils.host.apt import parse_list, parse_policies
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.modules import host_packages

APT = Path(__file__).parents[1] / "fixtures/apt"
# What nvidia_work asks for on a host with driver 580.126.09 and any toolkit.
PINS = [
    {"packages": "nvidia-container-toolkit nvidia-container-toolkit-base", "version": "*"},
    {"packages": "nvidia-* libnvidia-*", "version": "580.126.09-*"},
]


def simulated(name: str) -> CommandResult:
    said = APT / f"{name}.err"
    errors = said.read_text("utf-8") if said.exists() else ""
    return CommandResult(("apt-get",), 100 if errors else 0, (APT / f"{name}.txt").read_text("utf-8"), errors)


def checked(name: str, removes: Any = (), upgrade: Any = ()) -> apt_plan.Plan:
    return apt_plan.check(simulated(name), "it", removes, upgrade)


def test_what_a_plan_installs_and_removes_is_read() -> None:
    plan = apt_plan.parse_plan((APT / "removes.txt").read_text("utf-8"))
    assert plan.removes == {"chrony": "4.5-1", "containerd.io": "1.7.27-1"}
    assert plan.installs[-1] == ("docker.io", "", "26.1.5-1")
    qualified = (
        "Inst libc6:i386 [2.39-0] (2.39-0ubuntu8.4 Ubuntu:24.04/noble-updates [i386]) []\nRemv a:i386 [1] [b:i386 ]\n"
    )
    assert apt_plan.parse_plan(qualified) == ([("libc6", "2.39-0", "2.39-0ubuntu8.4")], {"a": "1"}, [])


def test_a_removal_that_nobody_asked_for_is_refused_by_name() -> None:
    with pytest.raises(Unmet, match=r"would remove chrony 4\.5-1, containerd\.io 1\.7\.27-1\. Nothing was changed"):
        checked("removes")
    with pytest.raises(Unmet, match=r"would remove chrony 4\.5-1\. Nothing"):
        checked("removes", ["containerd.io"])
    assert checked("removes", ["containerd.io", "chrony*"]).installs


def test_a_lower_version_that_nobody_asked_for_is_refused_by_name() -> None:
    for name in ("downgrade", "downgrade_allowed"):
        with pytest.raises(Unmet, match="would lower newlib"):
            checked(name)
    assert checked("downgrade_allowed", upgrade=["newlib"]).downgrades == ["newlib"]


def test_an_installation_without_a_way_says_what_is_in_the_way() -> None:
    with pytest.raises(Unmet) as refused:
        apt_plan.check(simulated("held_broken"), "toolkit", [], [], ["libtool"])
    assert "held broken packages (held: libtool). Nothing was changed" in str(refused.value)
    assert "toolkit : Depends: libtool (= 1.18-1) but 1.17-1" in str(refused.value)
    assert "apt-mark showhold" in str(refused.value) and refused.value.more["rc"] == 100


def test_what_somebody_holds_is_left_alone_unless_it_was_asked_for() -> None:
    plan = apt_plan.Plan([apt_plan.Install("libtool", "1.17-1", "1.18-1")], {"runc": "1"}, [])
    with pytest.raises(Unmet, match="would change libtool, runc, which somebody holds"):
        apt_plan.require_free(plan, {"libtool": True, "runc": True}, set())
    apt_plan.require_free(plan, {"libtool": True, "runc": False}, {"libtool"})


def test_a_pin_is_compared_with_what_apt_would_take() -> None:
    policies = parse_policies((APT / "policy.txt").read_text("utf-8"))
    assert policies["nvidia-fabricmanager"]["candidate"] == "580.159.04-1", "in spite of the pin"
    with pytest.raises(Unmet, match=r"nvidia-fabricmanager 580\.126\.09-\*.* apt would take 580\.159\.04-1"):
        apt_plan.require_pinned(policies, PINS)
    apt_plan.require_pinned(policies, [{"packages": "nvidia-*", "version": "580.*"}])
    apt_plan.require_pinned(policies, [{"packages": "nvidia-fabricmanager", "version": "*"}, *PINS])
    epoch = {"nvidia-open": {"installed": "", "candidate": "1:580.126.09-1", "sources": {}}}
    apt_plan.require_pinned(epoch, PINS)  # type: ignore[arg-type]


EXPIRED = (
    "W: GPG error: https://nvidia.github.io/libnvidia-container/stable/deb/amd64  InRelease: The following signatures "
    "were invalid: EXPKEYSIG DDCAE044F796ECB0 NVIDIA CORPORATION\n"
    "E: The repository 'https://nvidia.github.io/libnvidia-container/stable/deb/amd64  InRelease' is not signed.\n"
)
SOURCES = [
    *parse_list("deb http://127.0.0.1:8765/ubuntu noble main", "/etc/apt/sources.list.d/norel.list"),
    *parse_list(
        "deb https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /", "/etc/apt/sources.list.d/nv.list"
    ),
    *parse_list("deb http://archive.ubuntu.com/ubuntu noble main", "/etc/apt/sources.list"),
]


def test_a_source_that_cannot_be_read_is_named_with_its_file() -> None:
    lost = apt_plan.unread((APT / "update_no_release.err").read_text("utf-8"))
    assert lost is not None and list(lost) == ["http://127.0.0.1:8765/ubuntu"]
    assert lost[next(iter(lost))].endswith("noble Release' does not have a Release file.")
    assert apt_plan.whose(*lost, SOURCES) == "/etc/apt/sources.list.d/norel.list"
    expired = apt_plan.unread(EXPIRED) or {}
    assert [apt_plan.whose(address, SOURCES) for address in expired] == ["/etc/apt/sources.list.d/nv.list"]
    assert "EXPKEYSIG" in "".join(expired.values())
    assert apt_plan.whose("http://other.example/x", SOURCES) == "a file of /etc/apt"


def test_lists_that_cannot_be_read_at_all_are_another_failure() -> None:
    assert apt_plan.unread((APT / "update_malformed.err").read_text("utf-8")) is None
    assert apt_plan.unread("E: Could not get lock /var/lib/apt/lists/lock") is None
    assert apt_plan.unread("") is None


def test_what_only_a_lost_source_has_cannot_be_installed() -> None:
    def policy(*origins: str) -> Any:
        return {"installed": "", "candidate": "1", "sources": {"1": list(origins)}}

    lost, kept = "http://127.0.0.1:8765/ubuntu noble/main amd64 Packages", "http://archive.ubuntu.com/ubuntu noble/main"
    known = {"a": policy(lost), "b": policy(lost, kept), "c": policy(kept), "d": policy()}
    assert apt_plan.needed(known, ["http://127.0.0.1:8765/ubuntu"], SOURCES) == ["a"]


@pytest.mark.parametrize(
    ("name", "needed"),
    [("amdgpu-dkms", 70), ("linux-headers-6.8.0-71-generic", 70), ("linux-image-6.8.0-71-generic", 155), ("curl", 0)],
)
def test_boot_images_need_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, needed: int) -> None:
    plan = apt_plan.Plan([apt_plan.Install(name, "", "1")], {}, [])
    apt_plan.require_room(plan, tmp_path)
    for image, size in {
        "initrd.img-6.8.0-60-generic": 70,
        "initrd.img-6.8.0-45-generic": 60,
        "vmlinuz-6.8.0-60": 15,
    }.items():
        with (tmp_path / image).open("wb") as file:
            file.truncate(size * 10**6)
    free = os.statvfs(tmp_path)

    def room(megabytes: int) -> None:
        # One block for each megabyte.
        shape = (10**6, 10**6, 1000, megabytes, megabytes, *tuple(free)[5:])
        monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(shape))

    room(max(needed, 0))
    apt_plan.require_room(plan, tmp_path)
    if needed:
        room(needed - 1)
        with pytest.raises(Unmet, match=f"{needed} MB free in .*found {needed - 1} MB.*autoremove"):
            apt_plan.require_room(plan, tmp_path)


@pytest.fixture
def host(tmp_path: Path, fake_command: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without docker.io, with the recorded plan of it; apt-get's calls are in apt-get.calls."""
    (tmp_path / "states").write_text("chrony installed\n", "utf-8")
    (tmp_path / "update").write_text("", "utf-8")
    fake_command("dpkg-query", f'case "$*" in *Want*) exit 1;; *) cat {tmp_path}/states;; esac')
    fake_command("dpkg", f"[ ! -e {tmp_path}/stuck ] && : > {tmp_path}/states; echo 'error processing package' >&2")
    fake_command("apt-cache", f"shift; for n; do awk -v n=$n: '/^[^ ]/ {{p = $1 == n}} p' {APT}/policy.txt; done")
    update = f"cat {tmp_path}/update >&2; test ! -s {tmp_path}/update"
    fake_command("apt-get", f'case "$*" in *--simulate*) cat {tmp_path}/plan;; *update) {update};; esac')
    (tmp_path / "plan").write_text((APT / "pinned_elsewhere.txt").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(host_packages, "LISTS", tmp_path)
    monkeypatch.setattr(host_packages, "BOOT", tmp_path)
    monkeypatch.setattr(host_packages, "LOCK", tmp_path / "no-lock")
    monkeypatch.setattr(host_packages, "HOLDS", tmp_path / "held-packages")
    monkeypatch.setattr(host_packages, "FOLDER", tmp_path)
    return tmp_path


def installations(host: Path) -> list[str]:
    calls = host / "apt-get.calls"
    lines = calls.read_text("utf-8").splitlines() if calls.exists() else []
    return [line for line in lines if " install " in line and "--simulate" not in line]


def test_a_plan_that_is_refused_is_not_carried_out(host: Path, run_module: Any) -> None:
    (host / "plan").write_text((APT / "removes.txt").read_text("utf-8"), "utf-8")
    refused = run_module(host_packages.main, names=["docker.io"])
    assert "would remove chrony 4.5-1, containerd.io 1.7.27-1" in refused["msg"] and installations(host) == []
    other = run_module(host_packages.main, names=["nvidia-fabricmanager"], pins=PINS)
    assert "580.126.09-*, the version that it is pinned to" in other["msg"] and installations(host) == []


def test_libraries_of_the_driver_before_go_with_a_change_that_was_asked_for(host: Path, run_module: Any) -> None:
    plan = "Remv libnvidia-compute-570 [570.1-1]\nInst nvidia-fabricmanager (580.159.04-1 x [amd64])\n"
    (host / "plan").write_text(plan, "utf-8")
    options = {"names": ["nvidia-fabricmanager"], "pins": [{"packages": "nvidia-* libnvidia-*", "version": "580.*"}]}
    assert "would remove libnvidia-compute-570" in run_module(host_packages.main, **options)["msg"]
    family = {"may_remove": ["libnvidia-*"]}
    assert not run_module(host_packages.main, **options, **family).get("failed"), "with packages that were not there"
    assert not run_module(host_packages.main, **options, **family, upgrade=["nvidia-fabricmanager"]).get("failed")
    assert len(installations(host)) == 2 and "--allow-downgrades" in installations(host)[0]
    (host / "plan").write_text("Remv chrony [4.5-1]\n", "utf-8")
    assert "would remove chrony 4.5-1" in run_module(host_packages.main, **options, **family)["msg"]


def test_a_dead_source_of_somebody_else_is_named_and_gone_on_without(host: Path, run_module: Any) -> None:
    (host / "sources.list").write_text("deb http://127.0.0.1:8765/ubuntu noble main\n", "utf-8")
    (host / "update").write_text((APT / "update_no_release.err").read_text("utf-8"), "utf-8")
    result = run_module(host_packages.main, names=["docker.io"])
    assert not result.get("failed") and len(installations(host)) == 1
    (host / "sources.list").write_text("deb file:/srv/repo ./\n", "utf-8")
    (host / "update").write_text(
        "E: The repository 'file:/srv/repo ./ Release' does not have a Release file.\n", "utf-8"
    )
    needed = run_module(host_packages.main, names=["docker.io"])
    assert f"a source that can be read for docker.io, found only {host}/sources.list" in needed["msg"]
    (host / "update").write_text((APT / "update_malformed.err").read_text("utf-8"), "utf-8")
    assert "Malformed entry 1" in run_module(host_packages.main, names=["docker.io"])["msg"]


def test_what_dpkg_was_interrupted_in_is_finished_or_named(host: Path, run_module: Any) -> None:
    (host / "states").write_text("amdgpu-dkms half-configured\nchrony installed\ncups triggers-pending\n", "utf-8")
    assert not run_module(host_packages.main, names=["docker.io"]).get("failed")
    assert "--configure --pending" in (host / "dpkg.calls").read_text("utf-8")
    (host / "states").write_text("amdgpu-dkms half-configured\n", "utf-8")
    (host / "stuck").touch()
    refused = run_module(host_packages.main, names=["docker.io"])["msg"]
    assert "found amdgpu-dkms half-configured: error processing package" in refused and "make.log" in refused
