# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay a folder of a team's own entries over a catalogue: they win, and what they do not name stays as it was.

Entries of the same name are merged key by key, so a team writes only what differs; a new entry that is ``like`` another
one is laid over that. Of the recipes that cover one cell the team's wins, and within a folder the one that covers less;
where neither covers less, both are refused.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.names import nearest
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import records
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, build, read_some
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine, EngineVersion
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.references import check_entries

Files = Mapping[str, Mapping[str, Any]]

_SUFFIXES = (".yml", ".yaml", ".json")
# What a team may say of an engine: where its images are.
_ENGINE: dict[str, Any] = {"image": str, "versions": dict[str, EngineVersion]}
# Of entries in a list, what makes two of them the same entry.
_IDENTITY: dict[str, Callable[[Any], Any]] = {
    "known_issues": lambda issue: issue.id,
    "prices": lambda price: (price.provider, price.accelerator, price.count),
    "managed": lambda price: (price.provider, price.model),
}


@dataclass(frozen=True)
class OwnRecipe(records.Recipe):
    """A recipe of a team. ``place``: file and entry, for people."""

    place: str = ""


@dataclass(frozen=True)
class _Own:
    """A recipe with all that it covers: an element of each set together is a cell."""

    recipe: OwnRecipe
    known: Mapping[str, Engine]

    @cached_property
    def cells(self) -> list[frozenset[Any]]:
        recipe = self.recipe
        named = (recipe.models, recipe.precisions, recipe.accelerators, recipe.profiles)
        held = [version for version in self.known[recipe.engine].versions if recipe.holds(version)]
        alone = (recipe.engine, recipe.count, recipe.nodes)
        return [*map(frozenset, named), frozenset(held), *(frozenset([value]) for value in alone)]

    def meets(self, other: _Own) -> bool:
        """Whether both cover some cell."""
        return all(mine & theirs for mine, theirs in zip(self.cells, other.cells, strict=True))

    def within(self, other: _Own) -> bool:
        """Whether the other one covers all of this one's cells, and more."""
        pairs = list(zip(self.cells, other.cells, strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def lay(base: records.Catalog, folder: Path, files: Files) -> records.Catalog:
    """``base`` with the entries of the folder; ``files`` are those it may have, with the types of their keys.

    Raises CatalogError, which names file, entry and key.
    """
    found, part = base, _empty(base)
    recipes: list[OwnRecipe] = []
    for path in _files(folder, files):
        stem = path.stem
        for key, data in read_some(path, set(files[stem])).items():
            changed, own = _section(found, key, files[stem][key], [] if data is None else data, path)
            found = dataclasses.replace(found, **{key: changed})
            part = dataclasses.replace(part, **{key: own})
            recipes += [_placed(one, path, index) for index, one in enumerate(own)] if key == "recipes" else []
    engines = _engines(base, folder)
    if part.accelerators:
        found = dataclasses.replace(found, accelerators=with_aliases(found.accelerators, str(folder)))
    found = dataclasses.replace(found, engines={**base.engines, **engines})
    part = dataclasses.replace(part, engines=engines, recipes=list(recipes))
    check_entries(found, part, str(folder))
    return dataclasses.replace(found, recipes=[*_in_order(recipes, found.engines), *base.recipes])


def with_aliases(found: Mapping[str, records.Accelerator], place: str) -> dict[str, records.Accelerator]:
    """The accelerators, also under their aliases. Raises CatalogError for an alias that another one has."""
    everyone = {name: entry for name, entry in found.items() if name == entry.name}
    for name, accelerator in list(everyone.items()):
        for alias in accelerator.aliases:
            if alias in everyone:
                raise CatalogError(f"{place}/accelerators.yml: accelerators.{name}.aliases: {alias} is taken")
            everyone[alias] = accelerator
    return everyone


def _empty(base: records.Catalog) -> records.Catalog:
    nothing: dict[str, Any] = {
        item.name: type(getattr(base, item.name))()
        for item in dataclasses.fields(base)
        if isinstance(getattr(base, item.name), (dict, list))
    }
    return dataclasses.replace(base, **nothing)


def _files(folder: Path, files: Files) -> list[Path]:
    """The files of a folder, beside those of engines. What it has is named as the catalogue's, or refused."""
    try:
        present = sorted(folder.iterdir())
    except OSError as exc:
        raise CatalogError(f"glm_catalog: {folder} cannot be read: {exc.strerror or exc}") from exc
    found = [path for path in present if path.suffix in _SUFFIXES and not path.name.startswith(".")]
    for path in found:
        if path.suffix != ".yml" or path.stem not in files:
            close = nearest(path.stem, files, 1)
            hint = f"; did you mean {close[0]}.yml?" if close else ""
            raise CatalogError(f"{path}: no such file of a catalogue{hint}; known are {_named(files)}")
    if present and not found and not (folder / "engines").is_dir():
        raise CatalogError(f"glm_catalog: {folder} has no file of a catalogue: expected some of {_named(files)}")
    return found


def _named(files: Files) -> str:
    return ", ".join([*(f"{stem}.yml" for stem in sorted(files)), "engines/<engine>/versions.yml"])


def _section(found: records.Catalog, key: str, hint: Any, data: Any, path: Path) -> tuple[Any, Any]:
    """What a key of the catalogue becomes, and the entries of it that are of the file."""
    where, before = f"{path}: {key}", getattr(found, key)
    if isinstance(before, dict):
        if key == "accelerators":
            before = {name: entry for name, entry in before.items() if name == entry.name}
        given, bases = _like(data, before, where)
        after = {**before, **build(hint, given, where, bases)}
        own = {str(name): after[str(name)] for name in data}
        for name, entry in own.items():
            if getattr(entry, "name", name) != name:
                raise CatalogError(f"{where}.{name}.name: expected {name} or no such key, found {entry.name}")
        return after, own
    if key not in _IDENTITY:
        entries = build(hint, data, where)
        return [*before, *entries], entries
    return _identified(before, hint, data, where, _IDENTITY[key])


def _like(data: Any, before: Mapping[str, Any], where: str) -> tuple[Any, dict[str, Any]]:
    """The entries without ``like``, and what each is laid over: itself as it was, or the entry that ``like`` names."""
    given: Any = data or {}
    bases: dict[str, Any] = {}
    if not isinstance(given, dict):
        return given, bases
    given = dict(given)
    for name, value in given.items():
        other = value.get("like") if isinstance(value, dict) else None
        if other is not None and (str(name) in before or other not in before):
            found = f"{name} itself is known" if str(name) in before else f"unknown entry {other!r}"
            raise CatalogError(f"{where}.{name}.like: {found}; known are {', '.join(before)}")
        if other is not None:
            given[name] = {key: one for key, one in value.items() if key != "like"}
        base = before.get(other if other is not None else str(name))
        if base is not None:
            bases[str(name)] = base
    return given, bases


def _identified(
    before: Sequence[Any], hint: Any, data: Any, where: str, identity: Callable[[Any], Any]
) -> tuple[list[Any], list[Any]]:
    """A list whose entries are known by something: one that is there already takes the place of the other."""
    entries: list[Any] = []
    known = {identity(entry): entry for entry in before}
    [kind] = hint.__args__
    for index, one in enumerate(data if isinstance(data, list) else build(hint, data, where)):
        id_of = one.get("id") if isinstance(one, dict) else None
        entries.append(build(kind, one, f"{where}[{index}]", known.get(id_of)))
    own = {}
    for index, entry in enumerate(entries):
        if identity(entry) in own:
            raise CatalogError(f"{where}[{index}]: {identity(entry)} is there already")
        own[identity(entry)] = entry
    return list({**known, **own}.values()), entries


def _engines(base: records.Catalog, folder: Path) -> dict[str, Engine]:
    """The engines whose images the folder names, with those."""
    top, found = folder / "engines", {}
    for path in sorted(top.iterdir()) if top.is_dir() else []:
        if path.name.startswith("."):
            continue
        if path.name not in base.engines or not path.is_dir():
            raise CatalogError(f"{path}: unknown engine; known are {', '.join(base.engines)}")
        extra = [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.name != "versions.yml"]
        if extra:
            raise CatalogError(f"{extra[0]}: a team's catalogue has versions.yml of an engine only, for its images")
        if (path / "versions.yml").is_file():
            found[path.name] = _engine(base.engines[path.name], path / "versions.yml")
    return found


def _engine(base: Engine, path: Path) -> Engine:
    data = read_some(path, set(_ENGINE))
    values = {key: build(_ENGINE[key], value, f"{path}: {key}", getattr(base, key)) for key, value in data.items()}
    new = sorted(set(values.get("versions", {})) - set(base.versions))
    if new:
        raise CatalogError(
            f"{path}: versions.{new[0]}: unknown version, there is no flag table of it; known are "
            f"{', '.join(base.versions)}"
        )
    return dataclasses.replace(base, **values)


def _placed(recipe: records.Recipe, path: Path, index: int) -> OwnRecipe:
    fields = {item.name: getattr(recipe, item.name) for item in dataclasses.fields(recipe)}
    return OwnRecipe(**fields, place=f"{path}: recipes[{index}]")


def _in_order(recipes: Sequence[OwnRecipe], engines: Mapping[str, Engine]) -> list[OwnRecipe]:
    """Those that cover less first, so that the first that covers a cell is the right one."""
    own = [_Own(recipe, engines) for recipe in recipes]
    for one in own:
        if not all(one.cells):
            raise CatalogError(f"{one.recipe.place}: covers no cell: {_covering_nothing(one)}")
    for one, other in itertools.combinations(own, 2):
        if one.meets(other) and not one.within(other) and not other.within(one):
            raise CatalogError(
                f"{other.recipe.place}: covers a cell of {one.recipe.place} as well, and "
                "neither covers less than the other; expected one recipe for a cell"
            )
    sizes = {one.recipe.place: _size(one) for one in own}
    return sorted(recipes, key=lambda recipe: sizes[recipe.place])


def _covering_nothing(one: _Own) -> str:
    empty = next(index for index, named in enumerate(one.cells) if not named)
    names = ("models", "precisions", "accelerators", "profiles")
    if empty < len(names):
        return f"{names[empty]} is empty"
    bounds = f"since {one.recipe.since}, below {one.recipe.below}"
    return f"no known version of {one.recipe.engine} is in its range ({bounds})"


def _size(one: _Own) -> int:
    size = 1
    for named in one.cells:
        size *= len(named)
    return size
