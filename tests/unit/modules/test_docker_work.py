"""Which packages of Docker a host gets: adopted where it works, never swapped under containers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.host import neighbours
from ansible_collections.glm.fleet.plugins.plugin_utils.host import docker

ROOT = Path(__file__).parents[3]
TABLES = yaml.safe_load((ROOT / "roles/docker/vars/main.yml").read_text("utf-8"))
WANTED = {
    "source": "distribution", "version": "", "replace": False, "hold": True, "packages": [],
    "distribution_packages": TABLES["_docker_distribution_packages"], "minimum": TABLES["_docker_minimum_version"],
}  # fmt: skip
CE = {"docker-ce": "5:28.5.1-1~ubuntu.24.04~noble", "docker-ce-cli": "5:28.5.1-1~ubuntu.24.04~noble",
      "containerd.io": "1.7.28-1~ubuntu.24.04~noble"}  # fmt: skip
DEBIAN = {"docker.io": "26.1.5+dfsg1-9+b9", "docker-cli": "26.1.5+dfsg1-9+b9", "containerd": "1.7.24~ds1-6+b4",
          "runc": "1.1.15+ds1-2+b4"}  # fmt: skip


def facts(packages: dict[str, str] | None = None, held: bool = False, **of_docker: Any) -> dict[str, Any]:
    packages = packages or {}
    return {
        "distribution": {"id": "debian", "version": "13"},
        "docker": {
            "installed": bool(packages), "running": bool(packages), "containers": [],
            "packages": {name: {"version": version, "held": held} for name, version in packages.items()},
            **of_docker,
        },
    }  # fmt: skip


def work(found: dict[str, Any], **wanted: Any) -> docker.Work:
    return docker.work(found, {**WANTED, **wanted})


def test_a_bare_host_gets_the_packages_of_its_source() -> None:
    plain = work(facts())
    assert plain["packages"] == ["docker.io", "docker-cli", "iptables"] and plain["install"] and not plain["problems"]
    assert plain["minimum_versions"] == {"docker.io": "25"} and plain["pins"] == []
    assert {"docker.io", "containerd", "runc"} <= {*plain["holds"]} and "iptables" not in plain["holds"]
    assert work(facts(), hold=False)["holds"] == []
    ce = work(facts(), source="docker_ce", version="28")
    assert ce["packages"] == ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin"]
    assert ce["minimum_versions"] == {"docker-ce": "5:25"}
    assert ce["pins"] == [{"packages": "docker-ce docker-ce-cli docker-ce-rootless-extras", "version": "5:28.*"}]
    exact = work(facts(), source="docker_ce", version="28.5.1")["pins"][0]
    assert exact["version"] == "5:28.5.1[-+~]*"
    assert work(facts(), packages=["moby-engine"])["packages"] == ["moby-engine"]


@pytest.mark.parametrize(("packages", "source"), [(CE, "docker_ce"), (DEBIAN, "distribution")])
@pytest.mark.parametrize("wanted", ["docker_ce", "distribution"])
def test_a_docker_that_works_is_adopted_and_kept_where_it_is(packages: Any, source: str, wanted: str) -> None:
    first = work(facts(packages, containers=["glm-serve-0"]), source=wanted, version="29")
    assert first["source"] == source and first["install"] and first["problems"] == []
    assert sorted(first["packages"]) == sorted(packages) and first["removes"] == []
    assert {pin["packages"]: pin["version"] for pin in first["pins"]} == packages
    again = work(facts(packages, held=True), source=wanted)
    assert not again["install"] and again["pins"] == first["pins"]
    assert work(facts(packages), hold=False)["install"] is False and work(facts(packages), hold=False)["pins"] == []


def test_a_docker_of_nobodys_packages_is_left_alone() -> None:
    found = facts()
    found["docker"].update(installed=True, running=True)
    assert work(found, source="docker_ce", replace=True) == {
        "source": "other", "install": False, "replace": False, "packages": [], "removes": [], "holds": [],
        "minimum_versions": {},
        "pins": [], "problems": [],
    }  # fmt: skip


def test_a_swap_is_asked_for_and_never_made_under_containers() -> None:
    swap = work(facts(DEBIAN), source="docker_ce", replace=True)
    assert swap["install"] and swap["replace"] and swap["problems"] == []
    assert sorted(swap["removes"]) == sorted(DEBIAN)
    serving = facts(DEBIAN, containers=["glm-serve-0"])
    problems = work(serving, source="docker_ce", version="28", replace=True)["problems"]
    refused = finding.describe(problems, "gpu-1")
    expected = "gpu-1, docker: expected no running containers, as Docker is to be replaced"
    assert len(problems) == 1 and refused.startswith(expected)
    assert "docker_ce 28" in refused and "glm-serve-0" in refused and "Nothing was changed. Next: drain" in refused
    [unknown] = work(facts(DEBIAN, containers=None), source="docker_ce", replace=True)["problems"]
    assert unknown["found"] == "that Docker does not name them (docker ps). Nothing was changed"
    [silent] = work(facts(DEBIAN, running=False), source="docker_ce", replace=True)["problems"]
    assert silent["expected"].startswith("a Docker that answers before it is replaced")


CONTAINERD_IO = {"containerd.io": "1.7.27-1"}


def lone(packages: dict[str, str], **more: Any) -> dict[str, Any]:
    """A host without Docker that has some of its packages all the same."""
    return {**facts(packages, held=True, installed=False, running=False), **more}


@pytest.mark.parametrize(
    ("packages", "source", "other"),
    [
        (CONTAINERD_IO, "distribution", "docker_ce"),
        ({"containerd": "1.7.24", "runc": "1.1.15"}, "docker_ce", "distribution"),
    ],
)
def test_the_runtime_of_others_is_never_removed(packages: dict[str, str], source: str, other: str) -> None:
    made = work(lone(packages), source=source)
    assert made["removes"] == []
    [problem] = made["problems"]
    assert all(f"{name} {version} (held)" in problem["found"] for name, version in packages.items())
    assert problem["next"].startswith(f"set docker_source: {other}, whose packages these are")
    assert work(lone(packages), source=other)["problems"] == []


def test_no_docker_is_installed_or_swapped_beside_others_and_one_that_is_there_is_adopted() -> None:
    others = [{"name": "Kubernetes", "running": False, "signs": ["kubelet.service is enabled"]}]
    [problem] = work({**facts(), "neighbours": others})["problems"]
    assert problem["found"] == "Kubernetes (kubelet.service is enabled). Nothing was changed"
    assert work({**facts(DEBIAN), "neighbours": others}, source="docker_ce", replace=True)["problems"]
    assert work({**facts(DEBIAN), "neighbours": others})["problems"] == []
    assert work({**facts(), "neighbours": []})["problems"] == []


NEIGHBOURS = [
    ("etc/systemd/system/multi-user.target.wants/kubelet.service", "Kubernetes", False),
    ("etc/kubernetes/kubelet.conf", "Kubernetes", False),
    ("sys/fs/cgroup/kubepods.slice/cpu.max", "Kubernetes", True),
    ("etc/systemd/system/cri.target.requires/crio.service", "CRI-O", False),
    ("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/abc/init.pid", "containerd", True),
    ("run/containerd/io.containerd.runtime.v2.task/default/abc/init.pid", "containerd", True),
    ("var/snap/docker/current/config/daemon.json", "Docker of a snap", False),
    ("sys/fs/cgroup/machine.slice/libpod-abc.scope/cpu.max", "Podman", True),
    ("sys/class/net/lxdbr0/mtu", "LXD or Incus", False),
    ("sys/fs/cgroup/unified/lxc.payload.web/cpu.max", "LXD or Incus", True),
    ("sys/class/net/virbr0/mtu", "libvirt", False),
    ("sys/fs/cgroup/machine.slice/machine-qemu1.scope/cpu.max", "libvirt", True),
]


@pytest.mark.parametrize(("path", "name", "running"), NEIGHBOURS)
def test_who_else_lives_on_a_host(tmp_path: Path, path: str, name: str, running: bool) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    [entry] = neighbours.found(tmp_path)
    assert (entry["name"], entry["running"]) == (name, running) and entry["signs"]


def test_a_unit_that_runs_is_running(tmp_path: Path) -> None:
    for path in ("lib/systemd/system/kubelet.service", "sys/fs/cgroup/system.slice/kubelet.service/cpu.max"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    [entry] = neighbours.found(tmp_path)
    assert entry == {"name": "Kubernetes", "running": True, "signs": ["kubelet.service runs"]}


def test_a_gpu_host_with_docker_and_what_images_bring_along_has_no_neighbours(tmp_path: Path) -> None:
    for path in (
        "usr/lib/systemd/system/containerd.service", "usr/lib/systemd/system/docker.service", "snap/lxd/current/x",
        "usr/lib/systemd/system/podman.service", "run/containerd/io.containerd.runtime.v2.task/moby/abc/init.pid",
        "sys/fs/cgroup/system.slice/docker-abc.scope/cpu.max", "sys/class/net/docker0/mtu", "var/snap/lxd/common/x",
        "sys/fs/cgroup/glm-serve-0.slice/cpu.max", "usr/lib/systemd/system/kubelet.service",
        "usr/lib/systemd/system/crio.service", "etc/systemd/system/nomad.service",
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert neighbours.found(tmp_path) == []


@pytest.mark.parametrize(
    ("version", "replaced"), [("", False), ("28", False), ("28.5.1", False), ("28.5", False), ("29", True), ("2", True)]
)
def test_another_version_is_another_docker(version: str, replaced: bool) -> None:
    assert work(facts(CE, held=True), source="docker_ce", version=version, replace=True)["replace"] is replaced


def test_an_unknown_release_is_refused_by_name() -> None:
    found = facts()
    found["distribution"] = {"id": "debian", "version": "11"}
    assert [problem["found"] for problem in work(found)["problems"]] == ["debian-11 without Docker"]
    assert work(found, source="docker_ce")["problems"] == []
