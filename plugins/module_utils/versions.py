# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of releases and of packages, compared.

This module util is PRIVATE to the collection. Two orders, because two kinds of text are compared. ``order`` ranks
releases that the catalogue or a project names, pre-releases and post-releases included. ``numbers`` reads what a driver
or a package on a host says about itself, where a suffix (5.2.0.dev0) is not evidence of an older one.
"""

from __future__ import annotations

import functools
import re
from typing import Optional

# Of this collection, as in galaxy.yml.
COLLECTION = "0.2.0"


@functools.lru_cache(maxsize=1024)
def order(version: str) -> tuple[int, ...]:
    """Sort key of a release: 0.5.10rc0 < 0.5.10 < 0.5.10.post1 < 0.5.11, 580.65.06 < 580.82.07."""
    text = version.removeprefix("v")
    suffix = text.lstrip("0123456789.")
    parts = [int(part) for part in text.removesuffix(suffix).split(".") if part]
    parts += [0] * (4 - len(parts))
    found = re.search(r"\d+", suffix)
    # A pre-release (rc, dev) comes before its release, a post-release after it.
    rank = 0 if not suffix else (1 if "post" in suffix else -1)
    return (*parts, rank, int(found.group()) if found else 0)


def in_range(version: str, since: Optional[str], below: Optional[str]) -> bool:
    """Whether ``since`` <= version < ``below`` by ``order``; an absent bound does not bind."""
    key = order(version)
    return (since is None or order(since) <= key) and (below is None or key < order(below))


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of the first dotted number in a text; empty when there is none."""
    found = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def older(version: str, minimum: str) -> bool:
    """Whether ``version`` is below ``minimum`` by ``numbers``; what has no number is."""
    return numbers(version) < numbers(minimum)


def is_release(version: str, wanted: str) -> bool:
    """Whether ``version`` is the wanted one or one of its point releases: 580.82.07 is of 580, not of 58."""
    return version == wanted or version.startswith(f"{wanted}.")


def series(release: str) -> str:
    """The first two numbers of a release: ``7.2.4`` and ``7.2`` are of the series ``7.2``."""
    return ".".join(release.split(".")[:2])


def upstream(packaged: str) -> str:
    """A Debian version without epoch and revision: ``1:580.105.08-1ubuntu1`` is ``580.105.08``."""
    return packaged.rpartition(":")[2].partition("-")[0]


def released(packaged: str) -> str:
    """``upstream`` without what a distribution appends: ``26.1.5+dfsg1-9`` is ``26.1.5``, ``28~rc1-1`` is ``28``."""
    return re.split(r"[+~]", upstream(packaged))[0]
