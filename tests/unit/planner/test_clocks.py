"""No clock inside an engine ends a start before the plan does."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from tools import matrix

CATALOG = catalog.load()
# The clocks of an engine that could end a start, and the first version that has the option.
OPTIONS = {
    "vllm": {"--distributed-timeout-seconds": "0.18.1", "--cpu-distributed-timeout-seconds": "0.22.0"},
    "sglang": {"--watchdog-timeout": "0.5.9", "--dist-timeout": "0.5.9"},
}
VARIABLES = {
    "vllm": ("VLLM_ENGINE_READY_TIMEOUT_S", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"),
    "sglang": ("SGLANG_WAIT_WEIGHTS_READY_TIMEOUT", "SGLANG_WARMUP_TIMEOUT"),
}
# Oldest, the first with every option, newest.
TRIED = [("vllm", "0.15.1"), ("vllm", "0.22.0"), ("vllm", "0.33.0"), ("sglang", "0.5.9"), ("sglang", "0.5.23")]


@pytest.mark.parametrize(("engine", "version"), TRIED)
def test_every_clock_of_every_plan_has_the_plan_s_budget(engine: str, version: str) -> None:
    known = [name for name, since in OPTIONS[engine].items() if versions.in_range(version, since, None)]
    plans = 0
    for intent in matrix.intents(CATALOG, engine, version):
        if intent.runtime != "venv":
            continue  # one plan for each model, precision, accelerator and profile: how it is run changes no clock
        try:
            made = planner.make(intent, CATALOG, advise=False)
        except planner.PlanError:
            continue
        plans += 1
        budget = made["timeouts"]["start_seconds"]
        command = made["command"]
        assert [name for name in known if int(command[command.index(name) + 1]) < budget] == [], intent
        assert [name for name in VARIABLES[engine] if int(made["env"][name]) < budget] == [], intent
    print(f"\n{engine} {version}: {plans} plans")
    assert plans > 50


def test_the_plan_of_the_published_failure() -> None:
    """vLLM starts an API server for each data-parallel rank; each waited 600 s for engines that need an hour."""
    made = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine="vllm", profile="throughput"), CATALOG)
    assert made["parallel"]["data"] == 8
    assert int(made["env"]["VLLM_ENGINE_READY_TIMEOUT_S"]) >= made["timeouts"]["start_seconds"] > 3600


@pytest.mark.parametrize("engine", sorted(OPTIONS))
def test_clocks_are_whole_hours_so_that_a_small_change_restarts_nothing(engine: str) -> None:
    made = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine=engine), CATALOG)
    budget = made["timeouts"]["start_seconds"]
    command = made["command"]
    values = [int(made["env"][name]) for name in VARIABLES[engine]]
    values += [int(command[command.index(name) + 1]) for name in OPTIONS[engine] if name in command]
    assert len(values) > 2 and budget % 3600 and set(values) == {(budget // 3600 + 1) * 3600}


def test_a_hung_sglang_is_unhealthy_before_the_start_budget_is_spent() -> None:
    made = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine="sglang"), CATALOG)
    assert made["env"]["SGLANG_HEALTH_CHECK_TIMEOUT"] == "300"


@pytest.mark.parametrize("engine", sorted(OPTIONS))
def test_the_clocks_of_the_catalogue_are_these(engine: str) -> None:
    entry = CATALOG.engines[engine]
    assert set(OPTIONS[engine]) == set(entry.clocks.options) and set(VARIABLES[engine]) == set(entry.clocks.env)
    for name, since in OPTIONS[engine].items():
        tables = {version: flags.load(engine, version, CATALOG.root / "engines").options for version in entry.versions}
        assert min((version for version in tables if name in tables[version]), key=versions.order) == since


def test_what_the_user_sets_wins_and_is_said() -> None:
    intent = planner.Intent("GLM-5.1", "H200", 8, engine="sglang", engine_args={"watchdog-timeout": 77})
    made = planner.make(intent, CATALOG)
    assert made["command"][made["command"].index("--watchdog-timeout") + 1] == "77"
    said = [note for note in made["notes"] if "--watchdog-timeout is 77 s in glm_engine_args" in note]
    assert len(said) == 1 and f"{made['timeouts']['start_seconds']:,} s" in said[0]
    usual = planner.make(planner.Intent("GLM-5.1", "H200", 8, engine="sglang"), CATALOG)
    assert not [note for note in usual["notes"] if "may end a start" in note]
