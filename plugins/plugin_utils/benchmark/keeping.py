# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what was measured as a recipe in a team's catalogue, where every later plan of that cell finds it.

Only ``measured.yml`` is written, so that files that people write keep their comments. A recipe of the same cell and
version takes the place of the one before.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import yaml

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark.runs import RunError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError, read_some
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import extras, flags, own, reading, recipes, repositories
from ansible_collections.glm.fleet.plugins.plugin_utils.report import BenchmarkRecord

FILE = "measured.yml"
_HEADER = "---\n# Written by benchmark.yml with benchmark_keep; it replaces entries of the same cell and version.\n"
_CELL = ("models", "precisions", "engine", "profiles", "accelerators", "count", "nodes", "since")


def require(known: Catalog, folders: Sequence[str], model: str, scale: float) -> None:
    """Refuse, before hours are spent, what could not be kept. Raises RunError."""
    if not folders:
        raise RunError(unmet("a catalogue to keep the recipe in", "none", "name its folder in glm_catalog"))
    if scale < 1:
        raise RunError(unmet("a measurement to keep", f"a rehearsal of {scale:g}", "leave benchmark_scale at 1"))
    if model not in known.models:
        found = f"{model}, of glm_model_config"
        raise RunError(unmet("a model of the catalogue", found, f"add {model} to models.yml in glm_catalog"))


def recipe_of(record: BenchmarkRecord, known: Catalog) -> dict[str, Any]:
    """The recipe that serves what was measured, as YAML has it. Raises RunError for what is no measurement."""
    plan, best = record["plan"], _best(record)
    if not record["ok"] or best is None:
        found = f"{record['id']}, which is none"
        raise RunError(unmet("a measurement to keep", found, "read its trouble, and measure again"))
    if "profile" not in plan:
        raise RunError(unmet("a record that names its profile", f"{record['id']}, which is older", "measure again"))
    engine = known.engines[plan["engine"]["name"]]
    table = flags.load(engine.name, plan["engine"]["version"], known.root / "engines")
    args = _args(table, engine, plan["command"])
    model, accelerator = known.models[plan["model"]["name"]], known.accelerators[plan["accelerator"]["name"]]
    of = recipes.Cell(
        model, plan["model"]["precision"], accelerator, plan["gpus"], plan["node"]["count"], engine.name, table.version,
        plan["profile"],
    )  # fmt: skip
    layout = _layout(table, engine, args)
    layers = recipes.compose(recipes.layers(known, of), of, None, layout, of.model.context_length).args
    given = {table.find(name).key for name in args}
    absent = [name for name in flags.respelled(table, layers, engine.renames) if table.find(name).key not in given]
    date = datetime.date.fromisoformat(record["finished_at"][:10])
    return {
        "models": [of.model.name],
        "precisions": [of.precision],
        "engine": engine.name,
        "profiles": [of.profile],
        "accelerators": [of.accelerator.name],
        "count": of.count,
        **({"nodes": of.nodes} if of.nodes > 1 else {}),
        "since": table.version,
        "tensor": layout.tensor,
        **({"data": layout.data} if layout.data > 1 else {}),
        **({"data_attention": layout.data_attention} if layout.data_attention > 1 else {}),
        "args": {**dict.fromkeys(absent), **args},
        "env": {name: {"value": value} for name, value in _own_env(engine, plan["env"]).items()},
        "sources": [{"who": f"measured by benchmark.yml on {record['host']}, record {record['id']}", "date": date}],
        "measured": {
            "date": date,
            "workload": record["workload"]["name"],
            "users": best["users"],
            "engine_version": table.version,
            "hardware": _hardware(best),
            "figures": {name: value for name, value in best["figures"].items() if value is not None},
        },
    }


def keep(folder: str, wanted: Sequence[Mapping[str, Any]], before: Sequence[str] = ()) -> Path:
    """Write the recipes into the folder, whose catalogue is read with them first; ``before`` are those below it.

    Raises CatalogError, and then nothing is written.
    """
    path = Path(folder).expanduser() / FILE
    kept = read_some(path, {"recipes"}).get("recipes") or [] if path.exists() else []
    cells = [cell(entry) for entry in wanted]
    entries = [entry for entry in kept if cell(entry) not in cells] + [dict(entry) for entry in wanted]
    text = _HEADER + yaml.safe_dump({"recipes": entries}, sort_keys=False, width=120)
    with tempfile.TemporaryDirectory() as trial:
        for other in path.parent.iterdir():
            if other.name != FILE:
                (Path(trial) / other.name).symlink_to(other.resolve())
        files.write_text(Path(trial) / FILE, text)
        try:
            own.known([*before, trial])
        except CatalogError as exc:
            raise CatalogError(str(exc).replace(trial, str(path.parent))) from exc
    files.write_text(path, text, mode=0o644)
    return path


def cell(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What a recipe is for: of two for the same, one is kept."""
    return tuple(str(entry.get(key)) for key in _CELL)


def _args(table: flags.Table, engine: Engine, command: Sequence[str]) -> dict[str, Any]:
    """Of a command, what holds on other hosts, too: how weights are loaded is chosen by the disk of each."""
    found = reading.arguments(table, engine, command)
    of_disk = engine.loading.options
    kept = {name: value for name, value in found.items() if flags.spelled(name.split(".", 1)[0]) not in of_disk}
    return dict(repositories.by_name(kept))


def _best(record: BenchmarkRecord) -> Optional[Mapping[str, Any]]:
    return max(record["points"], key=lambda point: point["figures"]["generation"], default=None)


def _layout(table: flags.Table, engine: Engine, args: Mapping[str, Any]) -> recipes.Layout:
    sizes = {table.find(name).key: value for name, value in args.items()}

    def size(option: Optional[str]) -> int:
        known = table.options.get(option) if option else None
        return int(sizes.get(known.key, 1)) if known else 1

    options = engine.options
    divided = options.data_attention and table.options.get(options.data_attention)
    if divided and sizes.get(divided.key) is True:
        return recipes.Layout(size(options.tensor), 1, size(options.data_attention_size))
    return recipes.Layout(size(options.tensor), size(options.data))


def _own_env(engine: Engine, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that are neither the plan's nor the engine's usual ones."""
    usual = {name: entry.value for name, entry in engine.env.items()}
    return {
        name: value
        for name, value in env.items()
        if usual.get(name) != value
        and name not in engine.clocks.env
        and not extras.environment_problem(engine, name, value)
    }


def _hardware(point: Mapping[str, Any]) -> str:
    """What was seen to serve: the driver's names of the GPUs, their number and its version."""
    seen = point["gpus"]
    driver = f", driver {', '.join(seen['drivers'])}" if seen.get("drivers") else ""
    return f"{seen['count']}x {', '.join(seen['names'])}{driver}" if seen.get("names") else "not seen"
