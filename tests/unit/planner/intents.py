"""Intents at random: names and values of every kind, as a person, a template or an accident writes them."""

from __future__ import annotations

import collections
import datetime
import random
from collections.abc import Iterator
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner

_ODD = [
    0, 1, 2, 3, 8, -1, -8, 10**12, 10**30, 2**63, 0.0, 0.5, 0.999, 1.0, 1.5, -0.5, 1e300, float("nan"), float("inf"),
    True, False, None, "", " ", "0", "8", "-1", "08", "1_000", "1e3", "64k", "64K", "1..2k", ".5k", "4G", "auto",
    "None", "null", "true", "no", "--help", "-x", "a b", "é", "a\nb", "a\0b", "{", "{}", '{"method": "mtp"}',
    "[1]", "a=b",
    "a.b", [], [1], ["a", "b"], [None], [[1]], [{}], [True], {}, {"a": 1}, {"a": None}, {"a": {}}, {"a.b": 1},
    {"": 1},
    {1: 2}, {"a": [1, {"b": 2}]}, {"a": float("nan")}, datetime.date(2026, 1, 1), b"bytes", {"a": b"bytes"},
    {"method": "mtp", "num_speculative_tokens": 3}, {"num_speculative_tokens": 0}, {"method": "none such"},
    {"methd": "mtp"}, '{"method":"mtp","num_speculative_tokens":2}', '{"method":',
    {"num_speculative_tokens": "three"}, "fp8", "fp8_e4m3",
]  # fmt: skip
_ODD_NAMES = [
    "",
    "-",
    "--",
    "--.",
    "a.b",
    "no-",
    "max-num-seqs.a",
    "speculative-config.",
    "xyzzy",
    "0",
    8,
    "é",
    "--a b",
]
_FIELDS: dict[str, list[Any]] = {
    "accelerator_count": [-1, 0, 1, 2, 3, 5, 16, 10**12],
    "replicas": [-1, 0, 2, 3, 8],
    "replica": [-1, 1, 7],
    "nodes": [-1, 0, 2, 3, 4, 8],
    "node_rank": [-1, 1, 9],
    "listen_port": [-1, 0, 80, 18000, 65535, 10**6],
    "engine_port": [-1, 0, 8000, 65535],
    "drain_seconds": [-5, 0, 60, 10**9],
    "runtime": ["venv", "podman", ""],
    "served_model_name": ["glm", "", "a b", "-x"],
    "repository": ["acme/own", "nonsense", "-a/b", ""],
    "revision": ["a" * 40, "v1", ""],
    "image_variant": ["cu129", "cu130", "rocm", "none", ""],
    "driver_version": ["580.1", "old", ""],
    "data_dir": ["/mnt/x", "x", ""],
    "listen_address": ["0.0.0.0", "::1"],
    "head_address": ["10.0.0.1", "::1"],
    "precision": ["fp8", "bf16", "nvfp4", "int4", "mxfp4", "w4afp8", ""],
    "profile": ["throughput", "none"],
}
_VERSIONS = [
    "0.34.0",
    "0.18.0",
    "0.1",
    "latest",
    "abc",
    "0.5.8",
    "v0.32.0",
    " 0.32.0",
    "0.32.0\n",
    "9",
    "1.0rc1",
    "0..1",
]


def intents(known: Catalog, seed: int | str, count: int) -> Iterator[planner.Intent]:
    """``count`` intents, the same for the same seed; most name a real cell, so that arguments are reached."""
    chance = random.Random(seed)
    models, accelerators = list(known.models.values()), sorted(known.accelerators)
    for _ in range(count):
        model = chance.choice(models)
        engine = chance.choice(sorted(model.engines))
        oldest = versions.order(model.engines[engine].min_version) if chance.random() < 0.9 else ()
        able = [name for name in known.engines[engine].versions if versions.order(name) >= oldest]
        version = chance.choice(able)
        changes: dict[str, Any] = {}
        if chance.random() < 0.3:
            field = chance.choice(sorted(_FIELDS))
            changes[field] = chance.choice(_FIELDS[field])
        asked: Any = chance.choice([None, version, version, version, chance.choice(_VERSIONS)])
        usual = (
            "fp8" if "fp8" in model.precisions and chance.random() < 0.7 else chance.choice(sorted(model.precisions))
        )
        changes.setdefault("precision", usual)
        changes.setdefault("profile", chance.choice(sorted(known.profiles)))
        changes.setdefault("accelerator_count", 8)
        changes.setdefault("repository", "acme/own-weights" if chance.random() < 0.8 else None)
        changes.setdefault("runtime", chance.choice(["container", "venv", "venv"]))
        table = flags.load(engine, version)
        yield planner.Intent(
            model.name if chance.random() < 0.99 else "GLM-9",
            chance.choice(accelerators) if chance.random() < 0.3 else chance.choice(["B200", "H200", "MI355X", "H100"]),
            engine=engine, engine_version=asked, engine_args=_arguments(chance, table), **changes,
        )  # fmt: skip


def _arguments(chance: random.Random, table: flags.Table) -> dict[Any, Any]:
    names = sorted(table.options)
    found: dict[Any, Any] = {}
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        name: Any = chance.choice(names) if chance.random() < 0.95 else chance.choice(_ODD_NAMES)
        option = table.options.get(name)
        if option and option.choices and chance.random() < 0.4:
            found[name] = chance.choice(option.choices)
        elif option and option.nargs == 0 and chance.random() < 0.8:
            found[name] = chance.random() < 0.5
        else:
            found[name] = chance.choice(_ODD)
    return found


def plan_all(
    known: Catalog, seed: int | str, count: int
) -> tuple[collections.Counter[str], list[tuple[planner.Intent, Exception]]]:
    """How many were planned and refused, and what raised anything but a refusal that says what to do next."""
    figures: collections.Counter[str] = collections.Counter()
    raised: list[tuple[planner.Intent, Exception]] = []
    for intent in intents(known, seed, count):
        try:
            planner.make(intent, known, advise=False)
            figures["planned"] += 1
        except planner.PlanError as refusal:
            figures["refused"] += 1
            if "Next: " not in str(refusal):
                raised.append((intent, refusal))
        except Exception as error:  # that there is none is what is proven
            raised.append((intent, error))
    return figures, raised
