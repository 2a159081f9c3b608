# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fingerprints of vendors' apt keys, by the address that a key is fetched from (``catalog/apt_keys.yml``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import ROOT

_FINGERPRINT = re.compile(r"[0-9A-F]{40}")


@dataclass(frozen=True)
class AptKey:
    """One row: see the head of the file."""

    name: str
    urls: list[str]
    fingerprints: list[str]
    source: str


@dataclass(frozen=True)
class Table:
    """The whole file."""

    apt_keys: list[AptKey]


@lru_cache(maxsize=4)
def load(root: Path = ROOT) -> list[AptKey]:
    """The known keys. Raises CatalogError."""
    rows = record(Table, root / "apt_keys.yml").apt_keys
    for row in rows:
        if not row.fingerprints or not all(map(_FINGERPRINT.fullmatch, row.fingerprints)):
            raise CatalogError(f"catalog/apt_keys.yml: {row.name}: fingerprints are 40 upper-case hexadecimal digits")
        if not row.source:
            raise CatalogError(f"catalog/apt_keys.yml: {row.name}: expected a source, found none")
    return rows


def with_fingerprints(repositories: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """apt sources with the ``fingerprints`` of their key: their own, else those that the catalogue has, else none."""
    return [
        {**source, "fingerprints": source.get("fingerprints") or _known(str(source.get("key", "")))}
        for source in repositories
    ]


def _known(url: str) -> list[str]:
    return [
        fingerprint
        for row in load()
        if any(fnmatchcase(url, pattern) for pattern in row.urls)
        for fingerprint in row.fingerprints
    ]
