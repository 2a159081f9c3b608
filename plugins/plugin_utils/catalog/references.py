# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that the files of the catalogue agree: a name in one exists in the other, a version is known."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import combinations, records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.questions import Questions

# A path as the front door matches it: nothing in it that needs decoding.
_PATH = re.compile(r"(/([A-Za-z0-9_.-]+|\{\w+(:path)?\}))+")


def check_references(found: records.Catalog) -> None:
    """Names in one file must exist in the other; versions must be known. Raises CatalogError."""
    for name, model in found.models.items():
        _check_model(found, model, f"models.yml: models.{name}")
    for name, engine in found.engines.items():
        _known([engine.default_version], engine.versions, f"engines/{name}/versions.yml", "version")
        for version, release in engine.versions.items():
            _known(release.images, found.variants, f"engines/{name}/versions.yml: versions.{version}", "image variant")
        combinations.check(engine, f"engines/{name}/combinations.yml")
    measuring = [name for name, engine in found.engines.items() if engine.benchmark_client is not None]
    if len(measuring) != 1:
        raise CatalogError(f"catalog/engines: expected one engine with a benchmark_client, found {measuring or 'none'}")
    for index, layer in enumerate(found.layers):
        where = f"recipes.yml: layers[{index}]"
        _known([layer.engine], found.engines, where, "engine")
        _known(layer.models or (), found.models, where, "model")
        _known(layer.accelerators or (), found.accelerators, where, "accelerator")
        _known(layer.profiles or (), found.profiles, where, "profile")
    for index, recipe in enumerate(found.recipes):
        _check_recipe(found, recipe, f"recipes.yml: recipes[{index}]")
    for index, price in enumerate(found.prices):
        _known([price.accelerator], found.accelerators, f"prices.yml: prices[{index}]", "accelerator")
    for index, managed in enumerate(found.managed):
        where = f"prices.yml: managed[{index}]"
        _known([managed.model], found.models, where, "model")
        if (managed.blended is None) == (managed.input is None or managed.output is None):
            raise CatalogError(f"catalog/{where}: expected either blended, or input and output")
    for index, result in enumerate(found.published):
        _check_published(found, result, f"published.yml: published[{index}]")
    for issue in found.known_issues:
        _check_issue(found, issue, f"known_issues.yml: {issue.id}")
    _check_questions(found.questions)
    _check_routes(found)


def _check_questions(found: Questions) -> None:
    asked = [*found.gate.items(), *((f"eval.tools[{index}]", one) for index, one in enumerate(found.eval.tools))]
    for name, question in asked:
        where = f"questions.yml: {name}"
        _known([*question.tools, *(call.name for call in question.calls)], found.tools, where, "tool")
        if bool(question.answer) == bool(question.calls):
            raise CatalogError(f"catalog/{where}: expected either an answer or calls")
    _known([found.round_trip.tool], found.tools, "questions.yml: round_trip", "tool")


def _check_routes(found: records.Catalog) -> None:
    """A path passes for one purpose, or not at all."""
    seen = dict.fromkeys(found.withheld, "withheld")
    for name, purpose in found.purposes.items():
        where = f"routes.yml: purposes.{name}"
        if not purpose.routes:
            raise CatalogError(f"catalog/{where}: expected at least one route, found none")
        for path, methods in purpose.routes.items():
            if not _PATH.fullmatch(path):
                raise CatalogError(f"catalog/{where}: expected a path of plain segments or {{name}}, found {path!r}")
            if not methods or len(set(methods)) < len(methods):
                raise CatalogError(f"catalog/{where}: {path}: expected methods, each once, found {methods}")
            if path in seen:
                raise CatalogError(f"catalog/{where}: {path} is already in {seen[path]}")
            seen[path] = name
    for index, shortfall in enumerate(found.shortfalls):
        where = f"routes.yml: shortfalls[{index}]"
        _known([shortfall.purpose], found.purposes, where, "purpose")
        _known([shortfall.engine], found.engines, where, "engine")


def _check_model(found: records.Catalog, model: records.Model, where: str) -> None:
    _known(model.engines, found.engines, f"{where}.engines", "engine")
    for scenario, sampling in model.sampling.items():
        modes = {mode for mode in ("on", "off", "preserved") if getattr(model.thinking, mode) is not None}
        _known([sampling.thinking], sorted(modes), f"{where}.sampling.{scenario}.thinking", "thinking mode")
    _known(["default"], model.sampling, f"{where}.sampling", "scenario")
    for engine, wants in model.engines.items():
        # min_version may be older than the releases the catalogue has tables of.
        versions = [wants.recommended, *wants.images]
        _known(versions, found.engines[engine].versions, f"{where}.engines.{engine}", "version")
        for tags in wants.images.values():
            _known(tags, found.variants, f"{where}.engines.{engine}", "image variant")


def _check_recipe(found: records.Catalog, recipe: records.Recipe, where: str) -> None:
    _known([recipe.engine], found.engines, where, "engine")
    _known(recipe.models, found.models, where, "model")
    for model_name in recipe.models:
        _known(recipe.precisions, found.models[model_name].precisions, where, f"precision of {model_name}")
    _known(recipe.profiles, found.profiles, where, "profile")
    _known(recipe.accelerators, found.accelerators, where, "accelerator")


def _check_published(found: records.Catalog, result: records.Published, where: str) -> None:
    _known([result.workload], found.workloads, where, "workload")
    _known([result.model], found.models, where, "model")
    _known([result.precision], found.models[result.model].precisions, where, f"precision of {result.model}")
    _known([result.accelerator] if result.accelerator else (), found.accelerators, where, "accelerator")
    _known([result.engine], found.engines, where, "engine")
    points = found.workloads[result.workload].points
    if not any(point.parallel == result.parallel and result.prompts in (None, point.prompts) for point in points):
        raise CatalogError(
            f"catalog/{where}: {result.workload} has no point of {result.prompts} prompts, {result.parallel} parallel"
        )


def _check_issue(found: records.Catalog, issue: records.KnownIssue, where: str) -> None:
    _known(issue.models or (), found.models, where, "model")
    _known(issue.accelerators or (), found.accelerators, where, "accelerator")
    _known([issue.engine] if issue.engine else (), found.engines, where, "engine")
    model_types = dict.fromkeys(model.model_type for model in found.models.values())
    _known(issue.model_types or (), model_types, where, "model type")
    architectures = dict.fromkeys(item.architecture for item in found.accelerators.values())
    _known(issue.architectures or (), architectures, where, "architecture")


def _known(names: Iterable[str], known: Collection[str], where: str, kind: str) -> None:
    for name in names:
        if name not in known:
            raise CatalogError(f"catalog/{where}: unknown {kind} {name!r}; known are {', '.join(known)}")
