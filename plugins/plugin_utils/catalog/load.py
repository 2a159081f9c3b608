# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load ``catalog/`` into the records of records.py and engine.py, and refuse what has another shape."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import overlay, questions, records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, build, folder, read
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine, Variant
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.references import check_references

ROOT = Path(__file__).resolve().parents[3] / "catalog"


# The files of the catalogue: their top-level keys, and the types of what stands under them. An engine is a folder.
FILES: dict[str, dict[str, Any]] = {
    "accelerators": {"accelerators": dict[str, records.Accelerator]},
    "known_issues": {"known_issues": list[records.KnownIssue]},
    "models": {"models": dict[str, records.Model]},
    "prices": {
        "prices": list[records.Price],
        "managed": list[records.ManagedPrice],
        "storage": list[records.StoragePrice],
    },
    "questions": {
        "tools": dict[str, questions.Tool],
        "gate": dict[str, questions.Question],
        "round_trip": questions.RoundTrip,
        "needle": questions.Needle,
        "sampling": questions.Question,
        "preserved": questions.Question,
        "eval": questions.Eval,
    },
    "published": {"published": list[records.Published]},
    "recipes": {"profiles": dict[str, records.Profile], "layers": list[records.Layer], "recipes": list[records.Recipe]},
    "routes": {
        "purposes": dict[str, records.Purpose],
        "shortfalls": list[records.Shortfall],
        "withheld": dict[str, str],
    },
    "variants": {"variants": dict[str, Variant]},
    "workloads": {"workloads": dict[str, records.Workload]},
}


# What a team's catalogue may hold, beside the images of engines.
OWN = {stem: keys for stem, keys in FILES.items() if stem not in ("questions", "routes")}
# Written by benchmark_keep.
OWN["measured"] = {"recipes": FILES["recipes"]["recipes"]}


def load(root: Path = ROOT, folders: Sequence[str] = ()) -> records.Catalog:
    """Read and check the whole catalogue, with a team's ``folders`` laid over it; kept for the life of the process.

    Raises CatalogError.
    """
    found = _shipped(root)
    return _laid(root, tuple(map(str, folders))) if folders else found


@functools.lru_cache(maxsize=8)
def _laid(root: Path, folders: tuple[str, ...]) -> records.Catalog:
    found = _shipped(root)
    for folder_name in folders:
        found = overlay.lay(found, Path(folder_name).expanduser(), OWN)
        _check_workloads(found.workloads, f"{folder_name}/workloads.yml")
    return found


@functools.lru_cache(maxsize=8)
def _shipped(root: Path) -> records.Catalog:
    sections = {
        key: build(hint, content[key], f"catalog/{stem}.yml: {key}")
        for stem, keys in FILES.items()
        for content in [read(root / f"{stem}.yml", set(keys))]
        for key, hint in keys.items()
    }
    asked = {key: sections.pop(key) for key in FILES["questions"]}
    found = records.Catalog(
        root=root, engines=_engines(root / "engines"), questions=questions.Questions(**asked), **sections
    )
    found = dataclasses.replace(found, accelerators=overlay.with_aliases(found.accelerators, "catalog"))
    _check_workloads(found.workloads, "catalog/workloads.yml")
    check_references(found)
    return found


def _engines(root: Path) -> dict[str, Engine]:
    """The engines by name, the preferred one first; each is a folder."""
    found = [folder(Engine, path) for path in root.iterdir() if path.is_dir()]
    return {engine.name: engine for engine in sorted(found, key=lambda engine: engine.preference)}


def workloads(data: Any, file: str) -> dict[str, records.Workload]:
    """Workloads by name, from the catalogue or from a variable that is called ``file`` in messages.

    Raises CatalogError.
    """
    found: dict[str, records.Workload] = build(dict[str, records.Workload], data, f"{file}: workloads")
    _check_workloads(found, file)
    return found


def _check_workloads(found: Mapping[str, records.Workload], file: str) -> None:
    for name, workload in found.items():
        where = f"{file}: workloads.{name}"
        sizes = [workload.input_tokens, workload.output_tokens]
        sizes += [size for point in workload.points for size in (point.prompts, point.users)]
        if not workload.points:
            raise CatalogError(f"{where}.points: expected at least one, found none")
        if min(sizes) < 1:
            raise CatalogError(f"{where}: expected lengths and numbers of 1 or more, found {min(sizes)}")
