"""Every command line that the planner produces is accepted by the parser of the engine version it is for.

By default the versions that matter most are tried; ``GLM_ENGINE_MATRIX=few``, as in ``make test``, tries half of them,
``GLM_ENGINE_MATRIX=all`` every version of the catalogue (about 3 GB of wheels the first time). The figures are printed
at the end of the run.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from simulator.engines import parser_loader, wheels
from tools import matrix, meanings

ROOT = Path(__file__).parents[2]
CATALOG = catalog.load()
# Oldest, the borders of renames and removals, defaults, newest.
USUAL = {
    "vllm": ["0.15.1", "0.19.0", "0.19.1", "0.23.0", "0.25.1", "0.32.0", "0.33.0"],
    "sglang": ["0.5.9", "0.5.10", "0.5.13.post1", "0.5.14", "0.5.20", "0.5.23"],
}
# Oldest, defaults, newest.
FEW = {"vllm": ["0.15.1", "0.32.0", "0.33.0"], "sglang": ["0.5.9", "0.5.10", "0.5.14", "0.5.23"]}


def versions(engine: str) -> list[str]:
    known = CATALOG.engines[engine].versions
    asked = os.environ.get("GLM_ENGINE_MATRIX")
    if asked == "all":
        return list(known)
    return [version for version in (FEW if asked == "few" else USUAL)[engine] if version in known]


def plan(engine: str, version: str, accelerator: str, profile: str, **changes: Any) -> dict[str, Any]:
    intent = planner.Intent(
        "GLM-5.1", accelerator, 8, engine=engine, engine_version=version, profile=profile, **changes
    )
    return planner.make(intent, CATALOG)


@functools.cache
def parser_names(engine: str, version: str, python: Path) -> dict[str, list[str]]:
    return parser_loader.parser_names(engine, version, wheels.fetch_source(engine, version), python)


def with_secret(command: list[str], folder: Path) -> list[str]:
    """The command with a real secret file in the place of the one that the role would have put there."""
    file = folder / "engine.yaml"
    file.write_text("api-key: sk-test\n", encoding="utf-8")
    return [str(file) if word.endswith("/engine.yaml") else word for word in command]


def command(made: dict[str, Any], folder: Path) -> list[str]:
    return with_secret(made["command"], folder)


@pytest.mark.parametrize(
    ("engine", "version"), [(engine, version) for engine in CATALOG.engines for version in versions(engine)]
)
def test_every_planned_command_is_accepted(parser_python, matrix_figures, tmp_path, engine, version) -> None:
    planned = matrix.plan_all(CATALOG, engine, version)
    lines = [with_secret(list(line), tmp_path) for line in planned.lines]
    source = wheels.fetch_source(engine, version)
    found = parser_loader.parse_many(engine, version, source, lines, parser_python)
    refused = {
        title: answer.message for answer, title in zip(found, planned.lines.values(), strict=True) if not answer.ok
    }
    assert refused == {}
    dests = meanings.destinations(engine, version, parser_python)
    for answer, meant in zip(found, planned.meant.values(), strict=True):
        assert meanings.differences(meant, answer.namespace, dests) == []
    for answer, line in zip(found, lines, strict=True):
        options = answer.namespace
        name = line[line.index("--served-model-name") + 1]
        assert options["served_model_name"] in (name, [name])
        if engine == "sglang":
            assert options["api_key"] == "sk-test"
    names = parser_names(engine, version, parser_python)
    assert [(kind, name) for kind, name in planned.parsers if name not in names[kind]] == []
    matrix_figures.append((engine, version, planned.cells, sum(planned.refused.values()), len(found)))


@pytest.mark.parametrize(
    ("engine", "version"), [(engine, version) for engine in CATALOG.engines for version in versions(engine)]
)
def test_values_are_read_as_they_were_meant(parser_python, engine, version) -> None:
    """True and false of every switch, every choice, numbers, text and mappings of every option."""
    known, table = CATALOG.engines[engine], flags.load(engine, version)
    wanted = list(meanings.probes(table, known))
    found = meanings.ask(known, version, wanted, parser_python)
    assert found.differ == []
    switches = {f"{one.option.key}: {one.value!r}" for one in wanted if one.option.nargs == 0}
    refused = [text for text in found.refused if text.startswith(tuple(switches))]
    # A condition that the parser itself names is no other meaning.
    assert [text for text in refused if " requires " not in text] == []
    counted = sum(one.option.nargs == 0 for one in wanted)
    print(f"{engine} {version}: {found.same} of {len(wanted)} values read as meant ({counted} of switches),", end=" ")
    print(f"{found.unsaid} refused by the plan, {len(found.refused)} by the parser")


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
