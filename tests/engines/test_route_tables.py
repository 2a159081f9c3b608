"""The tables of routes say what the engines' own apps say, and are what the tool makes of the wheels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from simulator.engines import trees
from simulator.settings import Settings

ROOT = Path(__file__).parents[2]
CATALOG = catalog.load()
# What some settings add.
EVERYTHING = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_ENABLE_COHERE_API")
# Of vLLM's hosting package, which adds them with adapters only; its source is in another wheel.
WITH_ADAPTERS = {("/adapters", "POST"), ("/adapters/{adapter_name}", "DELETE")}
Routes = set[tuple[str, str]]


def table(engine: str, version: str) -> list[dict[str, object]]:
    text = (CATALOG.root / "engines" / engine / "routes" / f"{version}.json").read_text("utf-8")
    rows: list[dict[str, object]] = json.loads(text)["routes"]
    return rows


def single(rows: Iterable[tuple[str, list[str]]]) -> Routes:
    return {(path, method) for path, methods in rows for method in methods}


def live(engine: str, *settings: str) -> Routes:
    """Path and method of every route that the real app has, made without a model and without a GPU."""
    tree = trees.build_tree(Settings.from_environment().cache_dir, engine)
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(tree)}
    environ |= {"SGLANG_USE_CPU_ENGINE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= dict.fromkeys(EVERYTHING if settings else (), "1")
    command = [trees.find_python() or "python3.11", str(Path(__file__).with_name("live_routes.py")), engine, *settings]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if line.startswith("routes:")]
    assert said, done.stderr[-2000:]
    return single(json.loads(said[0].removeprefix("routes:")))


@pytest.mark.parametrize(
    ("engine", "settings", "least"), [("vllm", (), 40), ("vllm", ("everything",), 70), ("sglang", (), 100)]
)
def test_every_route_of_the_real_app_is_in_the_table(engine: str, settings: tuple[str, ...], least: int) -> None:
    version = trees.ENGINES[engine].version
    rows = table(engine, version)
    served = live(engine, *settings)
    print(f"{engine} {version}: {len(served)} routes by method in the real app, {len(rows)} rows in its table")
    assert len(served) >= least
    assert served - single((row["path"], row["methods"]) for row in rows) == set()  # type: ignore[misc]
    always = single((row["path"], row["methods"]) for row in rows if "when" not in row)  # type: ignore[misc]
    assert always - served <= WITH_ADAPTERS


def test_committed_route_tables_are_what_the_wheels_say() -> None:
    wanted = [f"{name}:{engine.default_version}" for name, engine in CATALOG.engines.items()]
    if os.environ.get("GLM_ENGINE_MATRIX") == "all":
        wanted = []
    check = [sys.executable, "tools/route_tables.py", "--check", *wanted]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
