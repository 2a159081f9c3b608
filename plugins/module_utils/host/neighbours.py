# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else lives on a host beside Docker, read from its files, so that a runtime that hangs cannot hide.

This module util is PRIVATE to the collection. Software that merely is installed, such as the LXD of Ubuntu's images, is
no neighbour; what would lose something by another container engine is.

Sources: containerd/containerd, docs/ops.md (state: a folder for each task, by runtime and namespace; Docker's namespace
is moby, that of the CRI k8s.io); systemd.slice(5) (a unit that runs has a control group of its name);
docs.docker.com/engine/network/packet-filtering-firewalls (the policy of FORWARD becomes DROP).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypedDict

DOCKERS_NAMESPACE = "moby"
# The state of containerd: its own, that of one which dockerd started, that of Kubernetes' distributions.
_STATES = ("run/containerd", "run/docker/containerd/daemon", "run/k3s/containerd")
_UNIT_FOLDERS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "usr/local/lib/systemd/system")
_WANTED = ("*.wants", "*.requires")
# Where systemd keeps its units, by version of control groups.
_GROUPS = ("sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/systemd")
# By name: units that run or are enabled, and paths below the root that show that it is in use.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Kubernetes": (
        ("kubelet", "k3s", "k3s-agent", "rke2-server", "rke2-agent", "k0scontroller", "k0sworker",
         "snap.microk8s.daemon-kubelite"),
        ("etc/kubernetes/kubelet.conf",),
    ),
    "CRI-O": (("crio", "cri-o"), ("run/crio/crio.sock", "var/run/crio/crio.sock")),
    "Docker of a snap": (("snap.docker.dockerd",), ("var/snap/docker/current",)),
    "Nomad": (("nomad",), ()),
    "LXD or Incus": ((), ("sys/class/net/lxdbr0", "sys/class/net/incusbr0")),
    "libvirt": ((), ("sys/class/net/virbr0",)),
}  # fmt: skip
# Control groups of what runs, as shell patterns below the root of the groups.
_RUNNING = {
    "Kubernetes": ("kubepods*",),
    "Podman": ("machine.slice/libpod-*", "user.slice/user-*.slice/user@*.service/user.slice/libpod-*"),
    "LXD or Incus": ("lxc.payload.*",),
    "libvirt": ("machine.slice/machine-qemu*", "machine.slice/machine-lxc*"),
}


class Neighbour(TypedDict):
    """``running``: whether a reboot would interrupt something of it. ``signs``: what shows it."""

    name: str
    running: bool
    signs: list[str]


def found(root: Path = Path("/")) -> list[Neighbour]:
    """Everybody who runs containers or virtual machines on this host and is not its Docker."""
    neighbours: dict[str, Neighbour] = {}

    def seen(name: str, sign: str, running: bool) -> None:
        entry = neighbours.setdefault(name, {"name": name, "running": False, "signs": []})
        entry["signs"].append(sign)
        entry["running"] |= running

    for name, (units, paths) in _KINDS.items():
        for unit in (f"{unit}.service" for unit in units):
            runs = any((root / groups / "system.slice" / unit).is_dir() for groups in _GROUPS)
            if runs or _is_enabled(root, unit):
                seen(name, f"{unit} {'runs' if runs else 'is enabled'}", runs)
        for path in (path for path in paths if (root / path).exists()):
            seen(name, f"/{path}", False)
    for name, patterns in _RUNNING.items():
        groups = {path.name for folder in _GROUPS for pattern in patterns for path in (root / folder).glob(pattern)}
        if groups:
            seen(name, f"control group {min(groups)}", True)
    for namespace, count in sorted(tasks(root).items()):
        if namespace != DOCKERS_NAMESPACE:
            seen("containerd", f"{count} containers in its namespace {namespace}", True)
    return list(neighbours.values())


def _is_enabled(root: Path, unit: str) -> bool:
    """Whether a boot starts it: another unit has a link to it (systemd.unit(5))."""
    links = (path / unit for folder in _UNIT_FOLDERS for kind in _WANTED for path in (root / folder).glob(kind))
    return any(link.exists() or link.is_symlink() for link in links)


def tasks(root: Path = Path("/")) -> Counter[str]:
    """How many containers have a task, by namespace of containerd; they outlive it and the engine above it."""
    folders = (path for state in _STATES for path in (root / state).glob("io.containerd.runtime.v*/*/*"))
    return Counter(path.parent.name for path in folders)
