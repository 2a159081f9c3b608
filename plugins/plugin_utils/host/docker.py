# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which packages of Docker a host needs, and refuse what would take a running container down.

Pure. A Docker that works is adopted, no matter who packaged it: it is pinned and held where it is.

Sources: docs.docker.com/engine/install/ubuntu and /debian (packages, apt source, conflicting packages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import finding, versions
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import may_run

_ENGINES = {"docker-ce": "docker_ce", "docker.io": "distribution"}
CE_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin")
# What belongs to each and conflicts with the other.
_FAMILIES = {
    "docker_ce": ("docker-ce", "docker-ce-cli", "docker-ce-rootless-extras", "containerd.io", "docker-buildx-plugin",
                  "docker-compose-plugin"),
    "distribution": ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "docker-compose-v2", "docker-doc",
                     "containerd", "runc"),
}  # fmt: skip
# Packages that carry Docker's own version; containerd and the plugins count for themselves.
_VERSIONED = {
    "docker_ce": ("docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"),
    "distribution": ("docker.io", "docker-cli"),
}


class Work(TypedDict):
    """What has to be done.

    ``source``: where the host's Docker is from, ``other`` for neither. ``install``: whether the package step has
    anything to do. ``holds``: packages to hold once they are there, also those that come as dependencies. ``pins``:
    packages and the version that apt is to install.
    """

    source: str
    install: bool
    replace: bool
    packages: list[str]
    removes: list[str]
    holds: list[str]
    minimum_versions: dict[str, str]
    pins: list[dict[str, str]]
    problems: list[Finding]


def work(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> Work:
    """The work on a host.

    ``facts``: gpu_facts with the subsets system and docker. ``wanted``: ``{source, version, replace, hold, packages,
    distribution_packages, minimum}``, the role's variables and tables.
    """
    docker = facts["docker"]
    installed = docker["packages"]
    there = next((source for name, source in _ENGINES.items() if name in installed), "other")
    source, version = str(wanted["source"]), str(wanted["version"])
    if docker["installed"] and not _differs(installed, there, source, version, wanted["replace"]):
        return _adopted(installed, there, hold=bool(wanted["hold"]))
    replace = bool(docker["installed"])
    packages = _packages(facts, wanted)
    other = "distribution" if source == "docker_ce" else "docker_ce"
    return {
        "source": source,
        "install": True,
        "replace": replace,
        "packages": packages,
        # Where no Docker is, what others installed is not Docker's to remove.
        "removes": [name for name in _FAMILIES[other] if name in installed] if replace else [],
        "holds": [*_FAMILIES[source]] if wanted["hold"] else [],
        "minimum_versions": _minimum(packages, str(wanted["minimum"])),
        "pins": _pins_of(source, version),
        "problems": [
            *_problems(facts, wanted, packages),
            *_neighbours(facts),
            *(() if replace else _excluded(installed, source, other)),
        ],
    }


def _differs(installed: Mapping[str, Any], there: str, source: str, version: str, replace: bool) -> bool:
    """Whether a Docker that is there is to be replaced."""
    if not replace or there == "other":
        return False
    engine = next(name for name, kind in _ENGINES.items() if kind == there)
    found = versions.released(str(installed[engine]["version"]))
    return there != source or bool(version and not versions.is_release(found, version))


def _adopted(installed: Mapping[str, Any], there: str, *, hold: bool) -> Work:
    ours = [name for name in _FAMILIES.get(there, ()) if name in installed]
    loose = [name for name in ours if not installed[name]["held"]]
    return {
        "source": there,
        "install": hold and bool(loose),
        "replace": False,
        "packages": ours,
        "removes": [],
        "holds": ours if hold else [],
        "minimum_versions": {},
        "pins": [{"packages": name, "version": str(installed[name]["version"])} for name in ours] if hold else [],
        "problems": [],
    }


def _packages(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    if wanted["packages"]:
        return list(wanted["packages"])
    if wanted["source"] == "docker_ce":
        return list(CE_PACKAGES)
    return list(wanted["distribution_packages"].get(_release(facts), []))


def _release(facts: Mapping[str, Any]) -> str:
    return f"{facts['distribution']['id']}-{facts['distribution']['version']}"


def _minimum(packages: list[str], minimum: str) -> dict[str, str]:
    lowest = {"docker.io": minimum, "docker-ce": f"5:{minimum}"}
    return {name: version for name, version in lowest.items() if name in packages}


def _pins_of(source: str, version: str) -> list[dict[str, str]]:
    """The wanted version before anything is installed: exact, or the newest that begins with it."""
    if not version:
        return []
    epoch = "5:" if source == "docker_ce" else ""
    patterns = (f"{epoch}{version}[-+~]*", f"{epoch}{version}.*")
    # Three numbers are a whole version. apt's patterns are shell patterns; of two records the first that fits counts.
    chosen = patterns[:1] if version.count(".") >= 2 else patterns[1:]
    return [{"packages": " ".join(_VERSIONED[source]), "version": chosen[0]}]


def _neighbours(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Docker's packages take the place of other runtimes, and its rules drop what others forward."""
    signs = [f"{entry['name']} ({', '.join(entry['signs'])})" for entry in facts.get("neighbours", ())]
    if signs:
        yield finding.failed(
            "docker",
            "a host whose containers and virtual machines are all Docker's before Docker is installed or replaced",
            f"{'; '.join(signs)}. Nothing was changed",
            "use a host of its own; or install Docker there yourself, if its containerd and its firewall rules (it "
            "drops FORWARD) may come under them: the role adopts a Docker that works",
        )


def _excluded(installed: Mapping[str, Any], source: str, other: str) -> Iterator[Finding]:
    """Packages on a host without Docker that the wanted source excludes: somebody else's, or of the other source."""
    there = [
        f"{name} {installed[name]['version']}{' (held)' if installed[name]['held'] else ''}"
        for name in _FAMILIES[other]
        if name in installed
    ]
    if there:
        yield finding.failed(
            "docker",
            f"no packages that those of docker_source {source} would remove",
            f"{', '.join(there)}. Nothing was changed",
            f"set docker_source: {other}, whose packages these are, or remove them on the host yourself",
        )


def _problems(facts: Mapping[str, Any], wanted: Mapping[str, Any], packages: list[str]) -> Iterator[Finding]:
    docker = facts["docker"]
    if not packages:
        known = ", ".join(sorted(wanted["distribution_packages"]))
        advice = "install Docker yourself, or set docker_packages"
        yield finding.failed("docker", f"one of {known}", f"{_release(facts)} without Docker", advice)
    if docker["installed"] and not docker["running"]:
        yield finding.failed(
            "docker",
            "a Docker that answers before it is replaced, to know whether containers run",
            "that it does not",
            "systemctl start docker on the host, or remove its packages yourself",
        )
    running = may_run(docker)
    if running and docker["running"]:
        what = f"{wanted['source']} {wanted['version']}".strip()
        yield finding.failed(
            "docker",
            f"no running containers, as Docker is to be replaced by {what}",
            f"{running}. Nothing was changed",
            "drain this host and stop them, or set docker_replace: false",
        )
