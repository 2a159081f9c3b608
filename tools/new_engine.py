#!/usr/bin/env python3
"""Add an engine version: its flag and route tables, its catalogue line, and what it changes for us (drift).

    python tools/new_engine.py vllm:0.34.0                  # or: make engine VERSION=vllm:0.34.0
    python tools/new_engine.py sglang:0.5.20 --against 0.5.19

Downloads the wheel, writes ``<version>.json`` in ``flags`` and ``routes`` of ``catalog/engines/<engine>/``, prints the
line for ``versions.yml`` there, compares the options that recipes, known issues and the engine's own entry name, and
the routes that clients use, with those of the version before, and what options mean: their class, both values of every
switch, what is so where nobody says. Every command line of the supported matrix is parsed by the new version's own
parser and its values compared with the plan's. The exit status is 1 when something we use breaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine, Image
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, meaning, routes
from simulator.engines import parser_loader, wheels
from tools import flag_tables, matrix, meanings, route_tables, version_tables


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs; ``breaks`` when a plan of ours would be refused or mean something else."""

    text: str
    breaks: bool = False


def used_flags(known: Catalog, engine: str, version: str) -> dict[str, str]:
    """Every option that data of ours names for this version of an engine -> where the first mention is."""
    entry = known.engines[engine]
    found: dict[str, str] = {}

    def note(names: Iterator[str], where: str) -> None:
        for name in names:
            found.setdefault(flags.spelled(name).split(".", 1)[0], where)

    note((value for value in vars(entry.options).values() if value), "engine.yml options")
    note(iter([*entry.multi_node.args, *entry.multi_node.worker]), "engine.yml multi_node")
    for rule in entry.loading.rules:
        if rule.holds(version):
            note(iter(rule.args), "engine.yml loading")
    for layer in known.layers:
        if layer.engine == engine and layer.holds(version):
            note(iter(layer.args), "recipes.yml layers")
    for recipe in known.recipes:
        if recipe.engine == engine and recipe.holds(version):
            note(iter(recipe.args), f"recipes.yml {recipe.models[0]} {recipe.precisions[0]} {recipe.profiles[0]}")
    for issue in known.known_issues:
        if issue.engine == engine and issue.holds(version):
            named = [*(issue.arguments or {}), *(issue.apply.args if issue.apply else {})]
            note(iter(named), f"known issue {issue.id}")
    return found


def compare(known: Catalog, engine: str, old: flags.Table, new: flags.Table) -> list[Change]:
    """What the newer table means for us: options that went, were renamed, deprecated or narrowed; parsers."""
    renames = known.engines[engine].renames
    changes: list[Change] = []
    for flag, where in sorted(used_flags(known, engine, new.version).items()):
        before, after = old.options.get(flag), new.options.get(flag)
        if after is None and before is not None:
            close = nearest(flag, new.options, 1, cutoff=0.7)
            hint = f"; nearest now: {close[0]}" if close else ""
            changes.append(Change(f"{flag} is gone ({where}){hint}", breaks=flag not in renames))
        elif after is not None and before is None:
            safe = " (older versions get the old name)" if flag in renames else ""
            changes.append(Change(f"{flag} is new ({where}){safe}"))
        elif before is not None and after is not None:
            changes += _narrowed(flag, where, before, after)
    for new_name, old_name in sorted(renames.items()):
        if old_name in old.options and old_name not in new.options:
            changes.append(Change(f"{old_name} is gone; recipes say {new_name}, so nothing of ours uses it"))
    for kind, before_names, after_names in (
        ("tool", old.tool_parsers, new.tool_parsers),
        ("reasoning", old.reasoning_parsers, new.reasoning_parsers),
    ):
        ours = {getattr(model.parsers, kind) for model in known.models.values()}
        for name in sorted(set(before_names) - set(after_names)):
            changes.append(Change(f"{kind} parser {name} is gone", breaks=name in ours))
        glm = sorted(name for name in set(after_names) - set(before_names) if "glm" in name)
        changes += [Change(f"{kind} parser {name} is new") for name in glm]
    for flag in sorted(known.engines[engine].replaced_options):
        if flag in new.options and flag not in old.options:
            changes.append(Change(f"{flag}, which our advice says does not exist, exists again"))
        if flag in old.options and flag not in new.options:
            changes.append(Change(f"{flag} is gone; the refusal of glm_engine_args with it names what to use instead"))
    return changes


def compare_routes(known: Catalog, engine: str, old: str, new: str) -> list[Change]:
    """What the newer version serves of what clients use, and what it serves besides, by what it asks for there."""
    root = known.root / "engines"
    try:
        before, after = (routes.door(known, engine, version) for version in (old, new))
    except CatalogError as exc:
        return [Change(str(exc), breaks=True)]
    changes = [
        Change(f"{name} is no longer served ({', '.join(known.purposes[name].routes)})", breaks=True)
        for name in after["lacking"]
        if name not in before["lacking"]
    ]
    changes += [Change(f"{name} is served now") for name in before["lacking"] if name not in after["lacking"]]
    tables = [
        {(row.path, method): row for row in routes.load(engine, one, root) for method in row.methods}
        for one in (old, new)
    ]
    for path, method in sorted(tables[1].keys() - tables[0].keys()):
        row = tables[1][path, method]
        changes.append(Change(f"route {method} {path} is new; the engine asks for {_ASKS[row.guard]} there"))
    for path, method in sorted(tables[0].keys() & tables[1].keys()):
        was, now = tables[0][path, method].guard, tables[1][path, method].guard
        if was != now:
            changes.append(Change(f"route {method} {path} asks for {_ASKS[now]}, was {_ASKS[was]}"))
    return changes


_ASKS = {"none": "nothing", "key": "the clients' key", "admin": "the admin key", "admin_only": "the admin key"}


def _narrowed(flag: str, where: str, before: flags.Option, after: flags.Option) -> Iterator[Change]:
    if after.deprecated and not before.deprecated:
        yield Change(f"{flag} is deprecated now ({where})")
    if before.nargs != after.nargs:
        yield Change(f"{flag} takes {after.nargs!r} values, was {before.nargs!r} ({where})", breaks=True)
    lost = sorted(set(before.choices or ()) - set(after.choices or ())) if after.choices is not None else []
    if lost:
        yield Change(f"{flag} no longer takes {', '.join(lost)} ({where})")


def entry_line(engine: Engine, version: str, metadata: str) -> str:
    """The line for ``versions.yml``. Image tags follow the engine's documented rule; without one none is invented."""
    found = re.search(r"^Requires-Dist: transformers\b([^;\n]*)", metadata, re.MULTILINE)
    bounds = found.group(1) if found else ""
    least = re.search(r"[>=]=\s*([\w.]+)", bounds)
    below = re.search(r"<\s*([\w.]+)", bounds)
    parts = [f"at_least: {least.group(1) if least else '0'}"] + ([f'below: "{below.group(1)}"'] if below else [])
    tags = ", ".join(f"{variant}: {tag}" for variant, tag in image_tags(engine, version).items())
    images = f", images: {{{tags}}}" if tags else ""
    return f"  {version}: {{transformers: {{{', '.join(parts)}}}{images}}}"


def image_tags(engine: Engine, version: str) -> dict[str, str]:
    """Tags by variant where the engine documents a rule (``image_tags`` in versions.yml), else none."""
    rules = [rule for rule in engine.image_tags if rule.holds(version)]
    return {variant: tag.replace("$version", version) for rule in rules for variant, tag in rule.tags.items()}


def with_version(known: Catalog, engine: str, version: str) -> Catalog:
    """The catalogue as it would be with one version more; one without an image is planned without a container."""
    entry = known.engines[engine]
    if version in entry.versions:
        return known
    newest = max(entry.versions, key=versions.order)
    images = {variant: Image(tag) for variant, tag in image_tags(entry, version).items()}
    extended = {**entry.versions, version: dataclasses.replace(entry.versions[newest], images=images)}
    return dataclasses.replace(known, engines={**known.engines, engine: dataclasses.replace(entry, versions=extended)})


def compare_meanings(known: Catalog, engine: str, old: str, new: str, python: Path) -> list[Change]:
    """What the newer version reads differently: options of no class, switches, and what is so where nobody says."""
    entry, table = known.engines[engine], flags.load(engine, new, known.root / "engines")
    changes = [
        Change(f"{option.key} is of no class; add it to catalog/engines/{engine}/meanings.yml", breaks=True)
        for option in dict.fromkeys(table.options.values())
        if meaning.class_of(entry, option) is None
    ]
    found = meanings.ask(entry, new, meanings.switches(table, entry), python)
    changes += [Change(f"a switch means something else: {text}", breaks=True) for text in found.differ]
    changes += [Change(f"a switch is refused by itself: {text}") for text in found.refused]
    before, after = (meanings.defaults(engine, version, python) for version in (old, new))
    for key in sorted(before.keys() & after.keys()):
        if before[key] != after[key] and meaning.class_of(entry, table.options[key]) in ("memory", "contract", "start"):
            changes.append(Change(f"{key} is {after[key]!r} where nobody sets it, was {before[key]!r}"))
    return changes


def try_lines(known: Catalog, engine: str, version: str, python: Path) -> tuple[int, dict[str, str]]:
    """``(lines tried, {example: what is wrong})`` for the whole matrix with this version's own parser.

    A line is wrong when the parser refuses it, or finds other values in it than the plan meant.
    """
    planned = matrix.plan_all(known, engine, version)
    lines = [list(_without_config(line)) for line in planned.lines]
    source = wheels.fetch_source(engine, version)
    answers = parser_loader.parse_many(engine, version, source, lines, python)
    dests = meanings.destinations(engine, version, python)
    wrong: dict[str, str] = {}
    for answer, (line, title) in zip(answers, planned.lines.items(), strict=True):
        differing = meanings.differences(planned.meant[line], answer.namespace, dests) if answer.ok else []
        if differing or not answer.ok:
            wrong[title] = "; ".join(differing) or answer.message
    return len(lines), wrong


def _without_config(line: tuple[str, ...]) -> Iterator[str]:
    """The line without the file that holds the key, which is not there."""
    skip = False
    for word in line:
        if skip or word == "--config":
            skip = word == "--config"
            continue
        yield word


def main(words: Optional[list[str]] = None) -> int:
    """Run as a program; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", metavar="engine:version")
    parser.add_argument("--against", metavar="VERSION", help="default: the newest known version before it")
    asked = parser.parse_args(words)
    engine, _colon, version = asked.version.partition(":")
    known = catalog.load()
    if engine not in known.engines or not version:
        parser.error(f"expected <engine>:<version> with an engine of {', '.join(known.engines)}")
    key = versions.order(version)
    older = [name for name in known.engines[engine].versions if versions.order(name) < key]
    if not older and not asked.against:
        parser.error(f"no older {engine} is known to compare {version} with; name one with --against")
    against = asked.against or max(older, key=versions.order)
    python = parser_loader.ensure_python()
    for kind, render in (("flags", flag_tables.render), ("routes", route_tables.render)):
        path = version_tables.table_path(kind, engine, version)
        path.write_text(render(engine, version), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: written")
    source = wheels.fetch_source(engine, version)
    metadata = "".join(file.read_text(encoding="utf-8") for file in source.glob("*.dist-info/METADATA"))
    if version not in known.engines[engine].versions:
        line = entry_line(known.engines[engine], version, metadata)
        print(f"\nAdd to catalog/engines/{engine}/versions.yml, versions:\n{line}")
    changes = compare(known, engine, flags.load(engine, against), flags.load(engine, version))
    changes += compare_routes(known, engine, against, version)
    changes += compare_meanings(known, engine, against, version, python)
    print(f"\n{engine} {against} -> {version}, for what we use:")
    for change in sorted(changes, key=lambda change: not change.breaks) or [Change("nothing changed")]:
        print(f"  {'BREAKS  ' if change.breaks else '        '}{change.text}")
    tried, refused = try_lines(with_version(known, engine, version), engine, version, python)
    print(
        f"\n{tried - len(refused)} of {tried} command lines of the supported matrix are read by {engine} {version} as "
        "they are meant"
    )
    for title, message in list(refused.items())[:5]:
        print(f"  BREAKS  {title}: {message}")
    return 1 if refused or any(change.breaks for change in changes) else 0


if __name__ == "__main__":
    sys.exit(main())
