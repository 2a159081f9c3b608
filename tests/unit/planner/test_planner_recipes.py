"""Every published recipe against the planner: the same arguments, or a difference that is written down here.

``fixtures/recipes.json`` holds what the engines' and models' own documentation publishes (model, precision,
accelerator, GPUs, engine, command line, environment, source).
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import weights_repository

CATALOG = catalog.load()
RECIPES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "fixtures" / "recipes.json").read_text(encoding="utf-8")
)
CELLS = [(index, recipe, gpu) for index, recipe in enumerate(RECIPES) for gpu in recipe["accelerators"]]

# What the plan says where the recipe leaves it to the engine: the plan's arithmetic and its profile fix it, and every
# engine tells of itself.
FIXED = {
    *("--max-model-len", "--max-num-seqs", "--gpu-memory-utilization", "--mem-fraction-static", "--enable-metrics"),
    # Clocks inside the engine, which follow the plan's start budget: test_clocks.py.
    "--shutdown-timeout",  # how long answers have at a stop
    *("--distributed-timeout-seconds", "--cpu-distributed-timeout-seconds", "--watchdog-timeout", "--dist-timeout"),
}
# What the plan says about itself and its hosts.
OWN = {"--served-model-name", "--host", "--port", "--model-path", "--config", "--dist-init-addr"}

# Where the plan says something else than the recipe, it says so itself (`recipe.adapted`), but for these.
DIFFERENT: dict[tuple[int, str], str] = {
    (2, "--chat-template-content-format"): "string, as the other recipe for this cell has it (tool results)",
    (5, "H20 --kv-cache-dtype"): "the recipe's own note: no FP8 KV cache on H20",
    **{
        (
            index,
            "--watchdog-timeout",
        ): "the plan's start budget, which is longer; 1,200 s could end a start"
        for index in (22, 23, 24, 36, 37)
    },
}
# The H20 of these recipes has 141 GB. The catalogue calls that one H20-3e; the one with 96 GB cannot hold the weights.
LARGER = {"H20": "H20-3e"}


def _plan(recipe: dict[str, Any], gpu: str) -> dict[str, Any]:
    nodes = 2 if recipe["gpus"] > 8 else 1
    known = CATALOG.models[recipe["model"]].precisions[recipe["precision"]]
    return planner.make(
        planner.Intent(
            model=recipe["model"],
            precision=recipe["precision"],
            accelerator=LARGER.get(gpu, gpu),
            accelerator_count=recipe["gpus"] // nodes,
            nodes=nodes,
            rdma=nodes > 1,
            head_address="10.0.0.1" if nodes > 1 else None,
            engine=recipe["engine"],
            profile=recipe["profile"],
            # Where the catalogue names none, a user says which.
            repository=None if known.repository else recipe["repository"],
        ),
        CATALOG,
    )


def _read(table: flags.Table, words: list[str]) -> dict[str, str]:
    """Arguments by canonical name; numbers compare as numbers."""
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            head, _equals, value = word.partition("=")
            option, *rest = head.split(".")
            entry = table.find(option)
            name = ".".join([entry.key, *rest])
            found[name] = value or ("false" if option == entry.negative else "true")
        elif name:
            found[name] = _number(word)
    return {key: _number(value) for key, value in found.items()}


def _number(text: str) -> str:
    try:
        return str(float(text))
    except ValueError:
        return text


@pytest.mark.parametrize(("index", "recipe", "gpu"), CELLS, ids=[f"{i}-{r['model']}-{g}" for i, r, g in CELLS])
def test_a_published_recipe_is_planned(index: int, recipe: dict[str, Any], gpu: str) -> None:
    made = _plan(recipe, gpu)
    version = made["engine"]["version"]
    table = flags.load(recipe["engine"], version, CATALOG.root / "engines")
    words = shlex.split(recipe["flags"])
    if "--dsa-prefill-backend" in table.options:  # the name from 0.5.13 on
        words = [word.replace("--nsa-", "--dsa-") for word in words]
    wanted, planned = _read(table, words), _read(table, made["command"])
    adapted = {table.find(one["argument"]).key: one["reason"] for one in made["recipe"]["adapted"]}
    for name in wanted.keys() | planned.keys() - OWN - FIXED:
        if name in OWN:
            continue
        same = wanted.get(name) == planned.get(name)
        reason = adapted.get(name) or DIFFERENT.get((index, name)) or DIFFERENT.get((index, f"{gpu} {name}"))
        assert same != bool(reason), (name, wanted.get(name), planned.get(name), reason)
    assert made["model"]["repository"] == recipe["repository"]
    for name, value in recipe["env"].items():
        known = versions.in_range(version, None, "0.33.0") if name == "VLLM_USE_FLASHINFER_MOE_FP4" else True
        if name == "SGLANG_ENABLE_SPEC_V2":
            known = versions.in_range(version, None, "0.5.11")
        assert made["env"].get(name) == (value if known else None)
    expected = "adapted" if adapted else "published"
    assert made["recipe"]["basis"] == ("derived" if gpu in LARGER else expected)


@pytest.mark.parametrize(
    ("given", "option", "reason"),
    [
        ({"engine_args": {"max_model_len": 32768}}, "--max-model-len", "glm_engine_args"),
        ({"engine_args": {"no-enable-auto-tool-choice": True}}, "--enable-auto-tool-choice", "glm_engine_args"),
        ({"engine_args": {"speculative-config": None}}, "--speculative-config", "glm_engine_args"),
        ({"engine_args": {"speculative-config.num_speculative_tokens": 1}}, "--speculative-config", "glm_engine_args"),
        ({"engine_args": {"enable-log-requests": True}}, "--enable-log-requests", "glm_engine_args"),
        ({"engine_env": {"VLLM_LOGGING_LEVEL": "DEBUG"}}, "VLLM_LOGGING_LEVEL", "glm_engine_env"),
        ({"model": "GLM-5", "accelerator": "H200"}, "--kv-cache-dtype", "fp8, as in the recipe of GLM-5.2"),
    ],
)
def test_what_is_changed_is_not_called_published(given: dict[str, Any], option: str, reason: str) -> None:
    made = planner.make(
        planner.Intent(**{"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, **given}), CATALOG
    )
    assert made["recipe"]["basis"] == "adapted"
    [found] = made["recipe"]["adapted"]
    assert found["argument"] == option and found["reason"].startswith(reason)
    assert f"but for {option} ({reason}" in " ".join("\n".join(plan_text.report({"h1": made})).split())


def test_what_the_plan_has_anyway_changes_nothing() -> None:
    """The words of the recipe said again, and what belongs to the plan: places, names, clocks."""
    same = {"max-model-len": 202752, "gpu-memory-utilization": "0.9"}
    made = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine_args=same, served_model_name="x"), CATALOG)
    assert made["recipe"]["basis"] == "published" and made["recipe"]["adapted"] == []
    assert made["recipe"]["origins"]["--max-model-len"] == "yours"


def test_every_argument_has_an_origin() -> None:
    made = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine_args={"enable-log-requests": True}), CATALOG)
    found = made["recipe"]["origins"]
    words = {word.partition(".")[0] for word in made["command"] if word.startswith("--")}
    clocks = {"--shutdown-timeout", "--distributed-timeout-seconds", "--cpu-distributed-timeout-seconds"}
    assert words - set(found) == {"--served-model-name", "--host", "--port", *clocks}
    assert found["--max-model-len"] == "recipe" and found["--max-num-seqs"] == "catalogue"
    assert found["--enable-log-requests"] == "yours"


def test_what_a_recipe_departs_from_is_an_option_of_its_engine() -> None:
    departing = [recipe for recipe in CATALOG.recipes if recipe.departs]
    for recipe in departing:
        known = [version for version in CATALOG.engines[recipe.engine].versions if recipe.holds(version)]
        for name in recipe.departs:
            assert flags.load(recipe.engine, known[-1], CATALOG.root / "engines").find(name)
    assert len(departing) > 5


def test_a_context_that_the_margin_cuts_is_not_the_recipe_s() -> None:
    made = planner.make(planner.Intent("GLM-5.1", "H200", 8, engine_args={"gpu-memory-utilization": 0.75}), CATALOG)
    cut = {one["argument"]: one["reason"] for one in made["recipe"]["adapted"]}
    assert cut["--max-model-len"] == "what fits with its margin"
    assert made["recipe"]["origins"]["--max-model-len"] == "plan"


def test_the_h20_with_96_gb_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(planner.PlanError, match=r"99\.6 GiB, but 0\.90 x 95\.58 GiB = 86\.0 GiB"):
        planner.make(planner.Intent("GLM-5.1", "H20", 8, engine="vllm"), CATALOG)


def test_offers_name_each_thing_once() -> None:
    with pytest.raises(planner.PlanError) as refusal:
        planner.make(planner.Intent("GLM-5.1", "H100", 8), CATALOG)
    offers = str(refusal.value).split("would work on ", 1)[1].rstrip(".").split("; ")
    assert offers[0] == "8x H200 (fp8, vllm), 20.80 USD/h at gmi of 2026-05-29"
    assert offers[2].startswith("2 hosts of 8x H100 (fp8, vllm), 63.84 USD/h at lambda")
    assert offers[3] == "4x B200 (nvfp4, vllm), no price known"
    assert len(offers) == len(set(offers)) == 4


def test_smaller_hosts_are_offered_the_cheapest_first() -> None:
    def offers(*asked: Any, **changes: Any) -> list[str]:
        with pytest.raises(planner.PlanError) as refusal:
            planner.make(planner.Intent(*asked, **changes), CATALOG)
        return str(refusal.value).split("would work on ", 1)[1].rstrip(".").split("; ")

    small = offers("GLM-4.7-Flash", "A100-40GB", 1, precision="bf16")
    assert [offer.split(" (")[0] for offer in small] == ["1x GH200", "2x A100-40GB", "1x H100", "1x B200"]
    prices = [float(offer.split("), ")[1].split(" ")[0]) for offer in small]
    assert prices == sorted(prices)
    # No tensor group over hosts of one GPU; what is offered can be planned.
    assert not [offer for offer in offers("GLM-4.5-Air", "GH200", 1) if "hosts of" in offer]
    for model, accelerator, count in (("GLM-5.1", "GH200", 1), ("GLM-4.7", "H100", 2), ("GLM-4.6", "A100", 4)):
        for offer in offers(model, accelerator, count):
            hosts, _of, rest = offer.rpartition(" hosts of ")
            gpus, _x, name = rest.split(" (")[0].partition("x ")
            form, engine = rest.split("(")[1].split(")")[0].split(", ")
            planner.make(
                planner.Intent(model, name, int(gpus), precision=form, engine=engine, nodes=int(hosts or 1)), CATALOG
            )


def test_a_pool_smaller_than_the_context_is_told() -> None:
    made = planner.make(planner.Intent("GLM-5.2", "H200", 8, engine="sglang", profile="long_context"), CATALOG)
    assert made["memory"]["full_length_requests"] < 1
    told = [note for note in made["notes"] if "answers longer requests with an error" in note]
    assert len(told) == 1
    assert f"{made['memory']['token_pool']:,} tokens" in told[0]


@pytest.mark.parametrize("size", [3, 6, 16])
def test_an_expert_group_that_does_not_divide_is_refused(size: int) -> None:
    refusal = f"--ep-size {size} does not divide both the 8 GPUs and the 256 experts"
    with pytest.raises(planner.PlanError, match=refusal):
        planner.make(planner.Intent("GLM-5.1", "H200", 8, engine="sglang", engine_args={"ep-size": size}), CATALOG)


def test_only_the_first_host_of_a_replica_has_an_endpoint() -> None:
    shared = planner.Intent("GLM-5.1", "H100", 8, nodes=2, head_address="10.0.0.1", listen_address="10.0.0.1")
    first = planner.make(shared, CATALOG)
    second = planner.make(dataclasses.replace(shared, node_rank=1, listen_address="10.0.0.2"), CATALOG)
    text = "\n".join(plan_text.report({"one": first, "two": second}))
    assert "one http://10.0.0.1:8000/v1" in text
    assert "two answers at the first host of its replica (10.0.0.1)" in text
    assert "10.0.0.2:8000/v1" not in text


def test_a_recipe_for_fewer_requests_than_the_profile_says_so() -> None:
    made = planner.make(planner.Intent("GLM-5.2", "B200", 8, engine="sglang"), CATALOG)
    assert made["recipe"]["users"] == 64
    assert made["recipe"]["point"] == {"name": "low-latency", "least": 1, "most": 16}
    [note] = [
        note
        for note in made["notes"]
        if "as low-latency, which its publisher measures with 1 to 16 requests at once" in note
    ]
    assert "agentic is for up to 64" in note and "benchmark.yml" in note
    text = " ".join("\n".join(plan_text.report({"h1": made})).split())
    assert "for up to 64 requests at once" in text and "Its point: low-latency, 1 to 16 requests at once" in text


@pytest.mark.parametrize(
    ("engine", "profile", "point"), [("sglang", "throughput", "balanced"), ("vllm", "agentic", None)]
)
def test_a_recipe_for_as_many_requests_needs_no_word(engine: str, profile: str, point: str | None) -> None:
    made = planner.make(planner.Intent("GLM-5.2", "B200", 8, engine=engine, profile=profile), CATALOG)
    assert (made["recipe"]["point"] or {}).get("name") == point
    assert not [note for note in made["notes"] if "requests at once" in note]


def test_points_of_the_catalogue_are_ranges() -> None:
    points = [recipe.point for recipe in CATALOG.recipes if recipe.point]
    assert len(points) > 8 and all(1 <= point.least <= point.most for point in points)
    assert all(profile.users for profile in CATALOG.profiles.values())


def test_no_measurement_becomes_a_service() -> None:
    """Without a prefix cache, or with a context that a benchmark needed, somebody measured; nobody serves so."""
    for recipe in CATALOG.recipes:
        off = {"enable-prefix-caching": False, "disable-radix-cache": True, "no-enable-prefix-caching": True}
        assert not [name for name, value in off.items() if recipe.args.get(name) is value], recipe.sources


@pytest.mark.parametrize(
    ("model", "precision"), [("GLM-4.7-Flash", "bf16"), ("GLM-5.1", "fp8"), ("GLM-4.5-Air", "fp8")]
)
def test_a_model_alone_has_a_precision(model: str, precision: str) -> None:
    made = planner.make(planner.Intent(model, "H200", 8), CATALOG)
    assert made["model"]["precision"] == precision and made == planner.make(
        planner.Intent(model, "H200", 8, precision=precision), CATALOG
    )
    assert weights_repository(planner.Intent(model, "", 0), CATALOG) == made["model"]["repository"]


def test_what_every_model_gets_without_a_word_is_published() -> None:
    for model in CATALOG.models:
        assert weights_repository(planner.Intent(model, "", 0), CATALOG)


@pytest.mark.parametrize("model", ["GLM-5", "GLM-5.1", "GLM-5.2", "GLM-5.3"])
@pytest.mark.parametrize("accelerator", ["H200", "B200"])
def test_the_default_for_agents_holds_their_workload_or_says_so(model: str, accelerator: str) -> None:
    workload = CATALOG.workloads["glm51_agentic"]
    wanted = 32 * (workload.input_tokens + workload.output_tokens)
    for engine in ("vllm", "sglang"):
        made = planner.make(planner.Intent(model, accelerator, 8, engine=engine, repository="acme/w"), CATALOG)
        said = [note for note in made["notes"] if "of the 32 requests of 10,240 tokens" in note]
        assert bool(said) == (made["memory"]["token_pool"] < wanted)
        # The default engine holds them.
        assert engine == "sglang" or not said
    other = planner.make(planner.Intent("GLM-5.1", "H200", 8, engine="vllm", profile="chat"), CATALOG)
    assert not any("of the 32 requests" in note for note in other["notes"])
