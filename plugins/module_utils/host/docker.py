# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of a host: what it says about itself, its daemon.json, and its API on the unix socket.

This module util is PRIVATE to the collection.

Sources: docs.docker.com/reference/cli/dockerd (configuration file, reload), moby ``daemon/reload.go`` (what SIGHUP
changes; ``features`` is stored but the CDI driver is registered at start only), moby ``daemon/hosts.go`` (an
``http://`` mirror is used as written, so mirrors need no ``insecure-registries``).
"""

from __future__ import annotations

import http.client
import json
import re
import shlex
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run, which
from ansible_collections.glm.fleet.plugins.module_utils.host.dpkg import installed_packages
from ansible_collections.glm.fleet.plugins.module_utils.host.neighbours import DOCKERS_NAMESPACE, tasks

SOCKET = "/var/run/docker.sock"
ROOT_DIR = "/var/lib/docker"
# docker run --device vendor.com/class=name; older engines refuse the option.
MINIMUM_MAJOR = 25
# Docker as the distributions and as Docker itself package it, and what each includes or splits off.
PACKAGES = ("docker*", "containerd*", "runc", "moby-*")
RELOADABLE = frozenset(
    {
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)


class DockerError(QuotingError):
    """The engine did not answer, or answered with an error; the text says which and is fit for a person."""


def docker_facts(timeout: float = 30, root: Path = Path("/")) -> tuple[dict[str, Any], Optional[str]]:
    """What the engine reports: ``({installed, running, version, …}, problem or None)``.

    ``containers`` are the names of running containers, None where these cannot be known. A host without Docker is not a
    problem.
    """
    facts: dict[str, Any] = {
        "installed": which("dockerd") is not None,
        "running": False,
        "version": None,
        "root_dir": None,
        "cdi": False,
        "cgroups": None,
        "mirrors": [],
        "live_restore": None,
        "log_driver": None,
        "image_store": None,
        "images": 0,
        "containers": [],
        "swarm": _in_swarm({}, root),
        "packages": installed_packages(PACKAGES, timeout),
    }
    if which("docker") is None:
        facts["containers"] = _containers_without_answer(facts, root)
        return facts, "dockerd is installed but the docker client is not" if facts["installed"] else None
    info = run(("docker", "info", "--format", "{{json .}}"), timeout)
    try:
        data = json.loads(info.stdout.strip().splitlines()[-1]) if info.stdout.strip() else {}
    except ValueError:
        data = {}
    if not data.get("ServerVersion"):
        facts["containers"] = _containers_without_answer(facts, root)
        problem = "; ".join(data.get("ServerErrors") or []) or info.evidence()
        return facts, f"docker info: {problem}" if facts["installed"] else None
    facts.update(
        running=True,
        version=data["ServerVersion"],
        root_dir=data.get("DockerRootDir"),
        cdi=bool(data.get("CDISpecDirs")),
        cgroups=f"{data.get('CgroupDriver')} v{data.get('CgroupVersion')}",
        mirrors=list((data.get("RegistryConfig") or {}).get("Mirrors") or []),
        live_restore=data.get("LiveRestoreEnabled"),
        log_driver=data.get("LoggingDriver"),
        image_store="containerd" if _has_containerd_store(data) else data.get("Driver"),
        images=int(data.get("Images") or 0),
        swarm=_in_swarm(data, root),
    )
    facts["containers"], unnamed = _containers(int(data.get("ContainersRunning") or 0), timeout)
    return facts, unnamed


def _in_swarm(info: Mapping[str, Any], root: Path) -> bool:
    """Whether the engine is in a swarm, or will be at its next start by the state that it finds (moby, cluster.New)."""
    state = (info.get("Swarm") or {}).get("LocalNodeState") or "inactive"
    folder = str(info.get("DockerRootDir") or _configured_root(root))
    return state != "inactive" or (root / folder.lstrip("/") / "swarm/docker-state.json").exists()


def _configured_root(root: Path) -> str:
    try:
        return str(json.loads(files.read_text(root / "etc/docker/daemon.json") or "{}").get("data-root") or ROOT_DIR)
    except (ValueError, AttributeError):
        return ROOT_DIR


def forbidden(keys: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Keys with which dockerd would not start again on this host, though ``dockerd --validate`` takes them.

    live-restore on a member of a swarm (docs.docker.com/engine/daemon/live-restore).
    """
    return ["live-restore"] if facts["swarm"] and keys.get("live-restore") else []


def _containers(counted: int, timeout: float) -> tuple[Optional[list[str]], Optional[str]]:
    """Names of the running containers; None and why where ``docker ps`` fails, or names fewer than the engine counts.

    One shim that hangs keeps ``docker ps`` from answering, and ``docker info`` answers all the same.
    """
    names = run(("docker", "ps", "--format", "{{.Names}}"), timeout)
    found = sorted(names.stdout.split())
    if names.ok and len(found) < counted:
        # One may have ended between the two answers.
        again = run(("docker", "info", "--format", "{{.ContainersRunning}}"), timeout).stdout.strip()
        counted = int(again) if again.isdigit() else counted
    if names.ok and len(found) >= counted:
        return found, None
    said = f"it names {len(found)}" if names.ok else names.evidence() or f"it ended with {names.rc}"
    return None, f"docker ps: {said}, and docker info counts {counted} running containers"


def _containers_without_answer(facts: Mapping[str, Any], root: Path) -> Optional[list[str]]:
    """None while a container may run under an engine that does not answer: they outlive it with live-restore."""
    return None if facts["installed"] and tasks(root)[DOCKERS_NAMESPACE] else []


def may_run(facts: Mapping[str, Any]) -> str:
    """The running containers as words that follow "found"; empty where none runs."""
    if facts["containers"] is None:
        return "that Docker does not name them (docker ps)"
    return f"these: {', '.join(facts['containers'])}" if facts["containers"] else ""


def _has_containerd_store(info: Mapping[str, Any]) -> bool:
    return any("containerd.snapshotter" in str(pair[1]) for pair in info.get("DriverStatus") or [] if len(pair) == 2)


def major(version: Optional[str]) -> int:
    """Leading number of a version such as 26.1.5+dfsg1; 0 when there is none."""
    digits = (version or "").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def merge(current: Mapping[str, Any], settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """daemon.json as it should be: ``settings`` win over ``current``, ``defaults`` only fill in what is not set.

    Mappings merge key by key. Lists are the wanted entries first, then the ones already there. Default ``log-opts``
    belong to the default ``log-driver``: with another driver they are left out, since dockerd would refuse containers.
    """
    merged = _overlay(current, settings)
    fill = dict(defaults)
    if "log-driver" in fill and merged.get("log-driver", fill["log-driver"]) != fill["log-driver"]:
        fill.pop("log-opts", None)
    for key, value in fill.items():
        if key not in merged:
            merged[key] = value
        elif isinstance(value, Mapping) and isinstance(merged[key], Mapping):
            merged[key] = {**value, **merged[key]}
    return merged


def _overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = _overlay(old, value)
        elif isinstance(value, list) and isinstance(old, list):
            result[key] = value + [entry for entry in old if entry not in value]
        else:
            result[key] = value
    return result


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Top-level keys that differ, sorted."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def put_back(keys: Collection[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """``after`` with these top-level keys as they were ``before``, which may be absent."""
    kept = {key: value for key, value in after.items() if key not in keys}
    kept.update({key: before[key] for key in keys if key in before})
    return kept


def not_in_effect(wanted: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Keys of daemon.json that the running engine demonstrably does not follow (it has not read them)."""
    keys = []
    cdi_off = (wanted.get("features") or {}).get("cdi") and not facts["cdi"]
    if cdi_off or (_own_store(wanted) and facts["image_store"] == "containerd"):
        keys.append("features")
    running = {mirror.rstrip("/") for mirror in facts["mirrors"]}
    if {mirror.rstrip("/") for mirror in wanted.get("registry-mirrors") or []} - running:
        keys.append("registry-mirrors")
    if "live-restore" in wanted and facts["live_restore"] != wanted["live-restore"]:
        keys.append("live-restore")
    if "log-driver" in wanted and facts["log_driver"] != wanted["log-driver"]:
        keys.append("log-driver")
    if "data-root" in wanted and facts["root_dir"] != wanted["data-root"].rstrip("/"):
        keys.append("data-root")
    return keys


def needs_restart(keys: list[str], facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Those of ``keys`` that need more than a reload to take effect.

    ``features`` that only say what the engine does anyway need nothing: CDI (on since Docker 28.3), and no containerd
    image store.
    """
    left = [key for key in keys if key not in RELOADABLE]
    same = {"cdi"} if facts["cdi"] else set()
    if _own_store(wanted) and facts["image_store"] != "containerd":
        same.add("containerd-snapshotter")
    if "features" in left and set(wanted.get("features") or {}) <= same:
        left.remove("features")
    return left


def _own_store(wanted: Mapping[str, Any]) -> bool:
    """Whether images are to lie in Docker's data-root and not in containerd's folder."""
    return (wanted.get("features") or {}).get("containerd-snapshotter") is False


def image_folder(facts: Mapping[str, Any], root: Path = Path("/")) -> Path:
    """Where images are unpacked: Docker's data-root, or containerd's root (containerd-config.toml(5)).

    Docker 29 and newer keep images with containerd on hosts that never had an older one; data-root does not move those
    (docs.docker.com/engine/storage/containerd).
    """
    if facts["image_store"] != "containerd":
        return Path(facts["root_dir"] or ROOT_DIR)
    text = files.read_text(root / "etc/containerd/config.toml")
    named = re.search(r"""^root\s*=\s*["']([^"']+)["']""", text, re.MULTILINE)
    return Path(named[1] if named else "/var/lib/containerd")


def unit_flags(show: str, environment: Mapping[str, str]) -> list[str]:
    """Flags of dockerd in its unit, out of ``systemctl show -p ExecStart --value docker.service``.

    They are passed to ``dockerd --validate``, which then finds keys that stand both in the unit and in the file.
    Variables such as ``$DOCKER_OPTS`` are taken from ``environment``, split into words as systemd does.
    """
    marker = "argv[]="
    if marker not in show:
        return []
    line = show.split(marker, 1)[1].split(" ; ", 1)[0]
    flags: list[str] = []
    for word in shlex.split(line)[1:]:
        if word.startswith("$"):
            flags += shlex.split(environment.get(word.strip("${}"), ""))
        else:
            flags.append(word)
    return flags


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Engine:
    """The few calls of the Docker Engine API that this collection makes.

    Paths carry no version: the engine then uses its own newest, so no client is ever too old for it.
    """

    def __init__(self, path: str = SOCKET, timeout: float = 60) -> None:
        self.path = path
        self.timeout = timeout

    def inspect_image(self, reference: str) -> Optional[dict[str, Any]]:
        """The image record of ``reference``, or None when the host does not have it."""
        status, body = self._call("GET", f"/images/{quote(reference, safe='/:@')}/json")
        if status == 404:
            return None
        return dict(self._checked(status, body))

    def tag(self, reference: str, repository: str, tag: str) -> None:
        """Give the local image ``reference`` the name ``repository:tag``."""
        query = f"repo={quote(repository, safe='')}&tag={quote(tag, safe='')}"
        status, body = self._call("POST", f"/images/{quote(reference, safe='/:@')}/tag?{query}")
        if status != 201:
            self._checked(status, body)

    def pull(self, repository: str, digest: str) -> Iterator[dict[str, Any]]:
        """Pull ``repository@digest``, yielding the engine's progress messages as they come.

        Raises DockerError when the engine reports an error or says nothing for ``timeout`` seconds.
        """
        connection = UnixConnection(self.path, self.timeout)
        query = f"fromImage={quote(repository, safe='')}&tag={quote(digest, safe='')}"
        try:
            connection.request("POST", f"/images/create?{query}")
            response = connection.getresponse()
            if response.status != 200:
                self._checked(response.status, response.read())
            for line in response:
                if not line.strip():
                    continue
                message = json.loads(line)
                if message.get("error"):
                    raise DockerError(str(message["error"]))
                yield message
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"the Docker engine broke off the pull: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _call(self, method: str, path: str) -> tuple[int, bytes]:
        connection = UnixConnection(self.path, self.timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"the Docker engine does not answer on {self.path}: {error}") from error
        finally:
            connection.close()

    @staticmethod
    def _checked(status: int, body: bytes) -> Any:
        try:
            data = json.loads(body)
        except ValueError:
            data = {"message": body.decode("utf-8", "replace")[:300]}
        if status >= 300:
            raise DockerError(f"the Docker engine answered {status}: {data.get('message', data)}")
        return data
