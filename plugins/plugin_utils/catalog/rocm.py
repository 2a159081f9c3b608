# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which releases of AMD's driver, ROCm, distributions and GPUs go together (``catalog/rocm.yml``).

Pure. Releases are AMD's (30.30.4), series their first two numbers (30.30). What a host reports is neither: the version
of the loaded module (6.16.13), and that of the package, which holds both (1:6.16.13.30300400-2341068.24.04).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import ROOT

DRIVER_PACKAGE = "amdgpu-dkms"
# 6.4.3 is 60403, 30.30.4 is 30300400.
_PACKAGED = re.compile(r"\.(?:(\d\d)(\d\d)(\d\d)\d\d|(\d)(\d\d)(\d\d))-")


@dataclass(frozen=True)
class Listed:
    """Where AMD lists a driver: kernels as major.minor, and the GPUs if not all of the driver's."""

    kernels: list[str]
    gpus: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Driver:
    """One series; see the head of the file."""

    release: str
    newest: str
    gpus: list[str]
    rocm: list[str]
    distributions: dict[str, Listed]
    module: Optional[str] = None


@dataclass(frozen=True)
class Matrix:
    """The table. ``drivers`` are in the order of their releases."""

    suites: dict[str, str]
    drivers: list[Driver]

    def driver(self, release: str) -> Optional[Driver]:
        """The series that a release belongs to, or None."""
        return next((row for row in self.drivers if row.release == versions.series(release)), None)

    def newest_before(self, module: str) -> Optional[Driver]:
        """The newest series whose module is not newer than ``module``, or None: what a module is at least."""
        fits = [row for row in self.drivers if row.module and versions.order(row.module) <= versions.order(module)]
        return fits[-1] if fits else None

    def oldest_for(self, rocm: str, gpu: str) -> Optional[Driver]:
        """The oldest driver that AMD lists with the series of a ROCm and that knows the GPU, or None."""
        return next((row for row in self.drivers if versions.series(rocm) in row.rocm and gpu in row.gpus), None)


@lru_cache(maxsize=4)
def load(root: Path = ROOT) -> Matrix:
    """Read and check the table. Raises CatalogError."""
    matrix = record(Matrix, root / "rocm.yml")
    known = {row.name for row in platforms.load(root) if row.vendor == "amd"}
    keys = [versions.order(row.release) for row in matrix.drivers]
    if keys != sorted(set(keys)):
        raise CatalogError("catalog/rocm.yml: drivers: expected each series once, the oldest first")
    for row in matrix.drivers:
        where = f"catalog/rocm.yml: drivers.{row.release}"
        if versions.series(row.newest) != row.release:
            raise CatalogError(f"{where}: newest is {row.newest}, which is of another series")
        unknown = {*row.gpus, *(gpu for listed in row.distributions.values() for gpu in listed.gpus)} - known
        if unknown:
            raise CatalogError(f"{where}: unknown GPU {', '.join(sorted(unknown))}; platforms.yml has no such row")
        nowhere = set(row.distributions) - set(matrix.suites)
        if nowhere:
            raise CatalogError(f"{where}: {', '.join(sorted(nowhere))} has no suite")
    return matrix


def folder(release: str) -> str:
    """The release as AMD's repositories name it: ``x.y.0`` is published as ``x.y``."""
    return re.sub(r"^(\d+\.\d+)\.0$", r"\1", release)


def packaged(version: str) -> tuple[str, str]:
    """Module version and release out of the version of ``amdgpu-dkms``; empty where it has another form."""
    found = _PACKAGED.search(version)
    if not found:
        return "", ""
    module = version[: found.start()].rpartition(":")[2]
    return module, ".".join(str(int(part)) for part in found.groups() if part is not None)


def too_old(facts: Mapping[str, Any], rocm: Optional[str], gpu: str) -> Optional[tuple[str, str]]:
    """``(oldest series, running driver)`` when the loaded driver is older than a ROCm needs, else None.

    ``facts``: gpu_facts.driver. The kernel's own amdgpu has no version to judge, and a ROCm or a GPU that is not in
    the table has no oldest driver: both None.
    """
    matrix, module = load(), facts.get("module_version")
    oldest = matrix.oldest_for(rocm, gpu) if rocm else None
    if oldest is None or not module:
        return None
    running = matrix.newest_before(module)
    if running is None:
        # Older than every module whose version is known; of the series without one nothing can be said.
        return (oldest.release, f"amdgpu {module}") if oldest.module else None
    if versions.order(running.release) >= versions.order(oldest.release):
        return None
    return oldest.release, f"{running.release} (amdgpu {module})"


def unlisted(gpu: str, release: str, rocm: str, distribution: str, kernel: Optional[str]) -> list[tuple[str, str]]:
    """What AMD does not list about a combination that is to be installed, as what is expected and what was found.

    ``distribution``: id and version, ``ubuntu-24.04``. ``kernel``: None where it belongs to another machine.
    """
    matrix = load()
    row = matrix.driver(release)
    if row is None:
        known = ", ".join(driver.release for driver in matrix.drivers if driver.distributions)
        return [(f"a driver of the series {known}", release)]
    found = []
    if gpu not in row.gpus:
        first = next(driver.release for driver in matrix.drivers if gpu in driver.gpus)
        found.append((f"driver {first} or newer, the first that knows {gpu}", release))
    if versions.series(rocm) not in row.rocm:
        found.append((f"a ROCm that AMD lists with driver {release} ({', '.join(row.rocm)})", rocm))
    listed = row.distributions.get(distribution)
    if listed is None or (listed.gpus and gpu not in listed.gpus):
        there = [name for name, other in row.distributions.items() if not other.gpus or gpu in other.gpus]
        expected = f"a distribution that AMD lists for {gpu} with driver {release} ({', '.join(there) or 'none'})"
        return [*found, (expected, distribution)]
    if kernel and versions.series(kernel.partition("-")[0].partition("+")[0]) not in listed.kernels:
        kernels = ", ".join(listed.kernels)
        found.append((f"a kernel that AMD lists for driver {release} on {distribution} ({kernels})", kernel))
    return found
