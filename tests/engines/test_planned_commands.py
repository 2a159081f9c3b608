"""Every command line that the planner produces is accepted by the parser of the engine version it is for.

By default the versions that matter most are tried; ``GLM_ENGINE_MATRIX=all`` tries every version with a known image
(about 3 GB of wheels the first time).
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog, planner
from simulator.engines import parser_loader

ROOT = Path(__file__).parents[2]
CATALOG = catalog.load()
USUAL = {"vllm": ["0.19.0", "0.19.1", "0.24.0", "0.32.0", "0.33.0"], "sglang": ["0.5.10", "0.5.14", "0.5.21"]}


def versions(engine: str) -> list[str]:
    if os.environ.get("GLM_ENGINE_MATRIX") != "all":
        return USUAL[engine]
    own = CATALOG.models["GLM-5.1"].engines[engine].images
    known = CATALOG.engines[engine].versions
    return [version for version, release in known.items() if release.images or version in own]


def matrix() -> Iterator[tuple[str, str, str, str]]:
    for recipe in CATALOG.recipes:
        for version in versions(recipe.engine):
            for accelerator in recipe.accelerators:
                yield recipe.engine, version, accelerator, recipe.profile


def plan(engine: str, version: str, accelerator: str, profile: str, **changes: Any) -> dict[str, Any]:
    intent = planner.Intent(
        "GLM-5.1", accelerator, 8, engine=engine, engine_version=version, profile=profile, **changes
    )
    return planner.make(intent, CATALOG)


@functools.cache
def parser_names(engine: str, version: str, python: Path) -> dict[str, list[str]]:
    return parser_loader.parser_names(engine, version, parser_loader.fetch_source(engine, version), python)


def command(made: dict[str, Any], folder: Path) -> list[str]:
    """The plan's command, with the secret file that the role would have put there."""
    secret = made["secret"]
    if secret["kind"] != "config":
        return list(made["command"])
    file = folder / "engine.yaml"
    file.write_text(f"{secret['option']}: sk-test\n", encoding="utf-8")
    return [str(file) if word == secret["container_path"] else word for word in made["command"]]


@pytest.mark.parametrize(("engine", "version", "accelerator", "profile"), list(matrix()))
def test_planned_command_is_accepted(
    engine_parse, parser_python, tmp_path, engine, version, accelerator, profile
) -> None:
    made = plan(engine, version, accelerator, profile)
    found = engine_parse(engine, version, command(made, tmp_path))
    assert found.ok, found.message
    options = found.namespace
    assert options["served_model_name"] in ("glm-5.1-fp8", ["glm-5.1-fp8"])
    assert options["tensor_parallel_size" if "tensor_parallel_size" in options else "tp_size"] == 8
    if engine == "sglang":
        assert options["api_key"] == "sk-test"
    names = parser_names(engine, version, parser_python)
    assert made["contract"]["tool_parser"] in names["tool"]
    assert made["contract"]["reasoning_parser"] in names["reasoning"]


def test_overrides_are_accepted_too(engine_parse, tmp_path) -> None:
    made = plan(
        "vllm", "0.32.0", "H200", "agentic",
        engine_args={
            "speculative-config": {"num_speculative_tokens": 1},
            "enable-prefix-caching": False,
            "tp": 8,
            "max-model-len": "128k",
            "override-generation-config": {"temperature": 0.7},
        },
    )  # fmt: skip
    found = engine_parse("vllm", "0.32.0", command(made, tmp_path))
    assert found.ok, found.message
    assert found.namespace["speculative_config"] == {"method": "mtp", "num_speculative_tokens": 1}
    assert found.namespace["enable_prefix_caching"] is False
    assert found.namespace["max_model_len"] == 128_000
    assert found.namespace["override_generation_config"] == {"temperature": 0.7}

    made = plan("sglang", "0.5.10", "H200", "agentic", engine_args={"cuda-graph-bs": [1, 2, 4], "dp-size": None})
    found = engine_parse("sglang", "0.5.10", command(made, tmp_path))
    assert found.ok, found.message
    assert found.namespace["cuda_graph_bs"] == [1, 2, 4]


@pytest.mark.parametrize(
    ("engine", "version", "argument"),
    [
        ("vllm", "0.32.0", {"enable-moe-ep": True}),
        ("vllm", "0.19.1", {"disable-log-requests": True}),
        ("sglang", "0.5.10", {"enable-moe-ep": True}),
        ("sglang", "0.5.10", {"reasoning-parser": "glm47"}),
        ("sglang", "0.5.21", {"nsa-decode-backend": "trtllm"}),
    ],
)
def test_planner_and_parser_refuse_the_same(engine_parse, tmp_path, engine, version, argument) -> None:
    with pytest.raises(planner.PlanError):
        plan(engine, version, "H200", "agentic", engine_args=argument)
    ((name, value),) = argument.items()
    words = [f"--{name}", *([] if value is True else [value])]
    assert not engine_parse(engine, version, [*command(plan(engine, version, "H200", "agentic"), tmp_path), *words]).ok


def test_committed_flag_tables_are_the_parsers_own() -> None:
    wanted = [f"{name}:{engine.default_version}" for name, engine in CATALOG.engines.items()]
    check = [sys.executable, "tools/flag_tables.py", "--check", *wanted]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
