# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check that the files of the catalogue agree: a name in one exists in the other, a version is known."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import combinations, records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.meanings import Meanings
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.questions import Questions

# A path as the front door matches it: nothing in it that needs decoding.
_PATH = re.compile(r"(/([A-Za-z0-9_.-]+|\{\w+(:path)?\}))+")


def check_references(found: records.Catalog) -> None:
    """Names in one file must exist in the other; versions must be known. Raises CatalogError."""
    check_entries(found, found, "catalog")
    for name, engine in found.engines.items():
        _known([engine.default_version], engine.versions, f"catalog/engines/{name}/versions.yml", "version")
        _check_meanings(engine.meanings, f"catalog/engines/{name}/meanings.yml: meanings")
        combinations.check(engine, f"catalog/engines/{name}/combinations.yml")
        _check_loading(engine, f"catalog/engines/{name}/engine.yml: loading")
    measuring = [name for name, engine in found.engines.items() if engine.benchmark_client is not None]
    if len(measuring) != 1:
        raise CatalogError(f"catalog/engines: expected one engine with a benchmark_client, found {measuring or 'none'}")
    _check_questions(found.questions)
    _check_routes(found)


def check_entries(found: records.Catalog, part: records.Catalog, place: str) -> None:
    """The same for what a team may add: the entries of ``part``, from the folder ``place``, name what ``found`` has.

    Raises CatalogError.
    """
    for name, model in part.models.items():
        _check_model(found, model, f"{place}/models.yml: models.{name}")
    for name, accelerator in part.accelerators.items():
        where = f"{place}/accelerators.yml: accelerators.{name}"
        _known([accelerator.vendor], _vendors(found), where, "vendor")
        _known(accelerator.features, _features(found), where, "feature")
    for name, engine in part.engines.items():
        for version, release in engine.versions.items():
            where = f"{place}/engines/{name}/versions.yml: versions.{version}"
            _known(release.images, found.variants, where, "image variant")
    for name, profile in part.profiles.items():
        where = f"{place}/recipes.yml: profiles.{name}"
        _known([profile.workload] if profile.workload else [], found.workloads, where, "workload")
    for index, layer in enumerate(part.layers):
        where = f"{place}/recipes.yml: layers[{index}]"
        _known([layer.engine], found.engines, where, "engine")
        _known(layer.models or (), found.models, where, "model")
        _known(layer.model_types or (), _model_types(found), where, "model type")
        _known(layer.accelerators or (), found.accelerator_kinds, where, "accelerator")
        _known(layer.architectures or (), _architectures(found), where, "architecture")
        _known(layer.vendors or (), _vendors(found), where, "vendor")
        _known(layer.precisions or (), _precisions(found), where, "precision")
        _known(layer.profiles or (), found.profiles, where, "profile")
    for index, recipe in enumerate(part.recipes):
        _check_recipe(found, recipe, getattr(recipe, "place", f"{place}/recipes.yml: recipes[{index}]"))
    for index, price in enumerate(part.prices):
        _known([price.accelerator], found.accelerator_kinds, f"{place}/prices.yml: prices[{index}]", "accelerator")
    for index, managed in enumerate(part.managed):
        where = f"{place}/prices.yml: managed[{index}]"
        _known([managed.model], found.models, where, "model")
        if (managed.blended is None) == (managed.input is None or managed.output is None):
            raise CatalogError(f"{where}: expected either blended, or input and output")
    for index, result in enumerate(part.published):
        _check_published(found, result, f"{place}/published.yml: published[{index}]")
    for issue in part.known_issues:
        _check_issue(found, issue, f"{place}/known_issues.yml: {issue.id}")


def _check_loading(engine: Engine, where: str) -> None:
    """A rule adds nothing but what says how weights are loaded: a user's word for one of these switches it off."""
    for index, rule in enumerate(engine.loading.rules):
        said = [f"--{name.split('.', 1)[0]}" for name in rule.args]
        _known(said, engine.loading.options, f"{where}.rules[{index}]", "option")


def _vendors(found: records.Catalog) -> dict[str, None]:
    """Those that images are built for."""
    return dict.fromkeys(variant.vendor for variant in found.variants.values())


def _features(found: records.Catalog) -> dict[str, None]:
    """What models and forms of weights ask of accelerators."""
    models = found.models.values()
    formats = dict.fromkeys(need for model in models for form in model.precisions.values() for need in form.needs)
    return {**formats, **dict.fromkeys(need for model in models for need in model.needs)}


def _precisions(found: records.Catalog) -> dict[str, None]:
    return dict.fromkeys(precision for model in found.models.values() for precision in model.precisions)


def _model_types(found: records.Catalog) -> dict[str, None]:
    return dict.fromkeys(model.model_type for model in found.models.values())


def _architectures(found: records.Catalog) -> dict[str, None]:
    return dict.fromkeys(entry.architecture for entry in found.accelerators.values())


def _check_meanings(found: Meanings, where: str) -> None:
    """An option is of one class, and the other lists name options that have one."""
    classes: dict[str, str] = {}
    for kind, option in found.rows():
        if option in classes:
            raise CatalogError(f"{where}.{kind}: {option} is already in {classes[option]}")
        classes[option] = kind
    for key, options in (
        ("chat", found.chat), ("unsafe", found.unsafe), ("mappings", found.mappings),
        ("mappings_or_text", found.mappings_or_text),
        ("undecided", found.undecided), ("retired", found.retired),
        ("numbers", [name.split(".", 1)[0] for name in found.numbers]),
        ("together", [name for names in found.together for name in names]),
    ):  # fmt: skip
        for option in options:
            if option not in classes:
                raise CatalogError(f"{where}.{key}: {option} is in no class")


def _check_questions(found: Questions) -> None:
    asked = [*found.gate.items(), *((f"eval.tools[{index}]", one) for index, one in enumerate(found.eval.tools))]
    for name, question in asked:
        where = f"catalog/questions.yml: {name}"
        _known([*question.tools, *(call.name for call in question.calls)], found.tools, where, "tool")
        if bool(question.answer) == bool(question.calls):
            raise CatalogError(f"{where}: expected either an answer or calls")
    _known([found.round_trip.tool], found.tools, "catalog/questions.yml: round_trip", "tool")


def _check_routes(found: records.Catalog) -> None:
    """A path passes for one purpose, or not at all."""
    seen = dict.fromkeys(found.withheld, "withheld")
    for name, purpose in found.purposes.items():
        where = f"catalog/routes.yml: purposes.{name}"
        if not purpose.routes:
            raise CatalogError(f"{where}: expected at least one route, found none")
        for path, methods in purpose.routes.items():
            if not _PATH.fullmatch(path):
                raise CatalogError(f"{where}: expected a path of plain segments or {{name}}, found {path!r}")
            if not methods or len(set(methods)) < len(methods):
                raise CatalogError(f"{where}: {path}: expected methods, each once, found {methods}")
            if path in seen:
                raise CatalogError(f"{where}: {path} is already in {seen[path]}")
            seen[path] = name
    for index, shortfall in enumerate(found.shortfalls):
        where = f"catalog/routes.yml: shortfalls[{index}]"
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
    _known(recipe.accelerators, found.accelerator_kinds, where, "accelerator")


def _check_published(found: records.Catalog, result: records.Published, where: str) -> None:
    _known([result.workload], found.workloads, where, "workload")
    _known([result.model], found.models, where, "model")
    _known([result.precision], found.models[result.model].precisions, where, f"precision of {result.model}")
    _known([result.accelerator] if result.accelerator else (), found.accelerator_kinds, where, "accelerator")
    _known([result.engine], found.engines, where, "engine")
    points = found.workloads[result.workload].points
    if not any(point.parallel == result.parallel and result.prompts in (None, point.prompts) for point in points):
        raise CatalogError(
            f"{where}: {result.workload} has no point of {result.prompts} prompts, {result.parallel} parallel"
        )


def _check_issue(found: records.Catalog, issue: records.KnownIssue, where: str) -> None:
    _known(issue.models or (), found.models, where, "model")
    _known(issue.precisions or (), _precisions(found), where, "precision")
    _known(issue.accelerators or (), found.accelerator_kinds, where, "accelerator")
    _known([issue.engine] if issue.engine else (), found.engines, where, "engine")
    _known(issue.model_types or (), _model_types(found), where, "model type")
    _known(issue.architectures or (), _architectures(found), where, "architecture")


def _known(names: Iterable[str], known: Collection[str], where: str, kind: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise CatalogError(f"{where}: unknown {kind} {name!r}{hint}; known are {', '.join(known)}")
