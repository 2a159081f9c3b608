# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What image tags and model commits are known to be (``catalog/known.yml``), compared when a fleet resolves one first.

A lock file keeps what a fleet saw first; this says whether the first sight was right. An entry of the lock file is
somebody's decision and is not compared again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, record
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.load import ROOT

_SHAPES = {"digest": r"sha256:[0-9a-f]{64}", "commit": r"[0-9a-f]{40}", "manifest_sha256": r"[0-9a-f]{64}"}


@dataclass(frozen=True)
class KnownImage:
    """``name`` is ``<repository>:<tag>``."""

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class KnownModel:
    """A commit of a model's repository, and the checksum of its list of files as the lock file has it."""

    repository: str
    commit: str
    manifest_sha256: str
    source: str


@dataclass(frozen=True)
class Known:
    """Both lists."""

    images: list[KnownImage] = field(default_factory=list)
    models: list[KnownModel] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """The whole file."""

    known: Known


@lru_cache(maxsize=4)
def load(root: Path = ROOT) -> Known:
    """The catalogue's lists. Raises CatalogError."""
    found = record(Table, root / "known.yml").known
    for image in found.images:
        _checked(image.name, image.source, digest=image.digest)
    for model in found.models:
        _checked(model.repository, model.source, commit=model.commit, manifest_sha256=model.manifest_sha256)
    _once(image.name for image in found.images)
    _once(f"{model.repository}@{model.commit}" for model in found.models)
    return found


def _checked(name: str, source: str, **values: str) -> None:
    for key, value in values.items():
        if not re.fullmatch(_SHAPES[key], value):
            raise CatalogError(f"catalog/known.yml: {name}: {key} is not of the form {_SHAPES[key]}")
    if not source:
        raise CatalogError(f"catalog/known.yml: {name}: expected a source, found none")


def _once(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise CatalogError(f"catalog/known.yml: {name} is listed twice")
        seen.add(name)


def require_image(name: str, digest: str, known: Known) -> None:
    """Raise Unmet where a tag was resolved to another digest than the catalogue has for it."""
    for image in known.images:
        if image.name == name and image.digest != digest:
            raise Unmet(
                f"{name} to be {image.digest}, as the catalogue knows it ({image.source})",
                f"{digest} at the registry or mirror that was asked",
                "ask the registry of the image's makers without mirrors. If you trust what was found, write it into "
                f'the lock file yourself: images: {{"{name}": {{digest: "{digest}"}}}}',
            )


def require_model(repository: str, commit: str, manifest_sha256: str, known: Known) -> str:
    """A warning where the catalogue has commits of this repository but not this one, else an empty text.

    Raises Unmet where it has the commit with another list of files.
    """
    rows = [model for model in known.models if model.repository == repository]
    for model in rows:
        if model.commit == commit:
            if model.manifest_sha256 == manifest_sha256:
                return ""
            raise Unmet(
                f"the files of {repository} at {commit} to be those that the catalogue knows ({model.source}: "
                f"checksum {model.manifest_sha256[:12]}…)",
                f"another list of files (checksum {manifest_sha256[:12]}…) at the hub that was asked",
                "fetch from the model's own hub (glm_hub_endpoint). If you trust what was found, write commit and "
                "manifest_sha256 into the lock file yourself",
            )
    if not rows:
        return ""
    return (
        f"{repository} is at commit {commit[:12]}, which the catalogue does not know (it has "
        f"{', '.join(model.commit[:12] for model in rows)}): read what changed before you trust it."
    )
