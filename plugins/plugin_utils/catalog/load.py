# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load ``catalog/`` into the records of records.py and engine.py, and refuse what has another shape."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, build, folder, named, read
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine, Variant
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import (
    Accelerator,
    Catalog,
    KnownIssue,
    Layer,
    ManagedPrice,
    Model,
    Price,
    Profile,
    Published,
    Recipe,
    Workload,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.references import check_references

ROOT = Path(__file__).resolve().parents[3] / "catalog"


@functools.lru_cache(maxsize=8)
def load(root: Path = ROOT) -> Catalog:
    """Read and check the whole catalogue; kept for the life of the process.

    Raises CatalogError.
    """
    recipes = read(root / "recipes.yml", {"profiles", "layers", "recipes"})
    prices = read(root / "prices.yml", {"prices", "managed"})
    single = ("models", "variants", "accelerators", "known_issues", "workloads", "published")
    entries = {name: read(root / f"{name}.yml", {name})[name] for name in single}
    found = Catalog(
        root=root,
        models=named(Model, entries["models"], "models.yml", "models"),
        accelerators=_with_aliases(named(Accelerator, entries["accelerators"], "accelerators.yml", "accelerators")),
        engines=_engines(root / "engines"),
        variants=build(dict[str, Variant], entries["variants"], "variants.yml: variants"),
        profiles=build(dict[str, Profile], recipes["profiles"], "recipes.yml: profiles"),
        layers=build(list[Layer], recipes["layers"], "recipes.yml: layers"),
        recipes=build(list[Recipe], recipes["recipes"], "recipes.yml: recipes"),
        known_issues=build(list[KnownIssue], entries["known_issues"], "known_issues.yml: known_issues"),
        prices=build(list[Price], prices["prices"], "prices.yml: prices"),
        managed=build(list[ManagedPrice], prices["managed"], "prices.yml: managed"),
        workloads=workloads(entries["workloads"], "workloads.yml"),
        published=build(list[Published], entries["published"], "published.yml: published"),
    )
    check_references(found)
    return found


def _engines(root: Path) -> dict[str, Engine]:
    """The engines by name, the preferred one first; each is a folder."""
    found = [folder(Engine, path) for path in root.iterdir() if path.is_dir()]
    return {engine.name: engine for engine in sorted(found, key=lambda engine: engine.preference)}


def workloads(data: Any, file: str) -> dict[str, Workload]:
    """Workloads by name, from the catalogue or from a variable that is called ``file`` in messages.

    Raises CatalogError.
    """
    found = named(Workload, data, file, "workloads")
    for name, workload in found.items():
        where = f"{file}: workloads.{name}"
        sizes = [workload.input_tokens, workload.output_tokens]
        sizes += [size for point in workload.points for size in (point.prompts, point.users)]
        if not workload.points:
            raise CatalogError(f"catalog/{where}.points: expected at least one, found none")
        if min(sizes) < 1:
            raise CatalogError(f"catalog/{where}: expected lengths and numbers of 1 or more, found {min(sizes)}")
    return found


def _with_aliases(found: dict[str, Accelerator]) -> dict[str, Accelerator]:
    """The accelerators, also under their aliases."""
    named = dict(found)
    for name, accelerator in found.items():
        for alias in accelerator.aliases:
            if alias in named:
                raise CatalogError(f"catalog/accelerators.yml: accelerators.{name}.aliases: {alias} is taken")
            named[alias] = accelerator
    return named
