"""What engines need for themselves, the margin that every plan leaves, and what is said where it is not left."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import choice as plan_choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import own_memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.own_memory import Load

CATALOG = catalog.load()
USUAL = Load(tokens=8192, sequences=64, drafts=3, tensor=8, attention=8, data=1)


def chosen(model: str = "GLM-5.1", accelerator: str = "H200", **changes: Any) -> plan_choice.Choice:
    return plan_choice.Choice(planner.Intent(model, accelerator, 8, **changes), CATALOG)


def plan(model: str, accelerator: str, count: int = 8, **changes: Any) -> dict[str, Any]:
    return planner.make(planner.Intent(model, accelerator, count, **changes), CATALOG)


def left(made: dict[str, Any]) -> float:
    """GiB of each GPU beside the longest request that the command allows, from the plan's other figures."""
    memory, context = made["memory"], made["contract"]["context_length"]
    return float(memory["kv_pool_gib_per_gpu"] - context * memory["kv_bytes_per_token"] / 2**30)


def test_the_published_b200_run_comes_out() -> None:
    """161.2 GiB at 0.90, less 89.0 of weights and a KV cache of 64: 8.2 GiB, without drafts and with 32,768 tokens."""
    asked = Load(tokens=None, sequences=None, drafts=0, tensor=8, attention=8, data=1)
    own = own_memory.estimate(chosen("GLM-5", "B200", engine_version="0.16.0"), asked, 32_768)
    assert own.gib == pytest.approx(8.2, abs=0.1)
    # "use 8 GiB (6-10)"
    assert own.uncertainty == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    "more",
    [{"tokens": 32_768}, {"sequences": 512}, {"drafts": 7}, {"attention": 1}, {"tensor": 2}, {"data": 8}],
    ids=lambda more: next(iter(more)),
)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_more_work_takes_more_memory(engine: str, more: dict[str, int]) -> None:
    choice = chosen(engine=engine)
    usual = own_memory.estimate(choice, USUAL, 65_536)
    assert own_memory.estimate(choice, dataclasses.replace(USUAL, **more), 65_536).gib > usual.gib + 0.01 or (
        # Its buffers between GPUs outweigh what a smaller group works on more.
        engine == "sglang" and "tensor" in more
    )


def test_a_longer_context_takes_more_memory_with_sparse_attention() -> None:
    def own(context: int, **changes: Any) -> float:
        return own_memory.estimate(chosen(**changes), USUAL, context).gib

    assert own(202_752) - own(32_768) == pytest.approx(5 * 1152 * (202_752 - 32_768) / 2**30)
    # From 0.32.0 on, longer ones have a smaller workspace for each token.
    long = {"model": "GLM-5.2", "accelerator": "H200"}
    assert own(1_048_576, **long) == pytest.approx(own(32_768, **long) + (2304 * 1_048_576 - 5760 * 32_768) / 2**30)
    assert own(1_048_576, engine_version="0.31.0", **long) > own(1_048_576, **long) + 3
    assert own(131_072, model="GLM-4.7") == own(32_768, model="GLM-4.7")


def test_graphs_are_counted_where_the_version_counts_them() -> None:
    before, after = (
        own_memory.estimate(chosen(engine_version=version), USUAL, 65_536).gib for version in ("0.20.2", "0.21.0")
    )
    assert after == pytest.approx(before + 0.3 + 2.6 * 512 / 1024)


def test_the_margin_is_two_gib_five_percent_or_the_uncertainty() -> None:
    assert own_memory.margin(own_memory.Own(4.0, 1.0), 10.0) == 2.0
    assert own_memory.margin(own_memory.Own(4.0, 1.0), 100.0) == 5.0
    assert own_memory.margin(own_memory.Own(12.0, 3.0), 10.0) == 3.0


# All models, one GPU to two hosts; one in fifteen of all plans there are, as each takes a millisecond.
COUNTS = [(1, 1), (4, 1), (8, 1), (8, 2)]
PROFILES = ["agentic", "throughput"]
SWEPT = ["A100-40GB", "H100", "H200", "B200"]


def test_no_plan_leaves_less_than_its_margin() -> None:
    """But for published fractions of SGLang, which stay as they are and have a note where the estimate does not fit."""
    planned, short = 0, []
    for model, accelerator, (count, nodes), profile in itertools.product(CATALOG.models, SWEPT, COUNTS, PROFILES):
        known = CATALOG.models[model]
        for engine, precision in itertools.product(known.engines, known.precisions):
            asked = planner.Intent(
                model, accelerator, count, precision=precision, engine=engine, profile=profile, nodes=nodes,
                head_address="10.0.0.1" if nodes > 1 else None, repository="acme/weights",
            )  # fmt: skip
            try:
                made = planner.make(asked, CATALOG, advise=False)
            except planner.PlanError:
                continue
            planned += 1
            memory = made["memory"]
            if engine == "vllm":
                assert memory["spare_gib"] == pytest.approx(left(made), abs=0.02)
            published = engine == "sglang" and made["recipe"]["basis"] in ("published", "adapted")
            if memory["spare_gib"] < max(2.0, memory["margin_gib"] - 0.01) and not published:
                short.append((asked, memory["spare_gib"], memory["margin_gib"]))
            warned = any("for graphs and workspaces, where" in note for note in made["notes"])
            assert warned == (memory["spare_gib"] < 0), asked
    assert planned > 600 and not short, f"{len(short)} of {planned}: {short[:3]}"


def test_a_shorter_context_is_said_with_the_margin() -> None:
    made = plan("GLM-5.2", "H200")
    context = made["contract"]["context_length"]
    assert context % 1024 == 0 and 2.0 <= left(made) < 2.6
    assert [one["argument"] for one in made["recipe"]["adapted"]] == ["--max-model-len"]
    said = [note for note in made["notes"] if f"{context:,} and not 1,048,576 tokens" in note]
    assert len(said) == 1 and "GiB of each GPU are left as a margin" in said[0]
    assert "the margin is 2." in made["memory"]["arithmetic"] and "give or take" in made["memory"]["arithmetic"]


def test_a_length_in_the_recipe_gives_way_too() -> None:
    made = plan("GLM-5.1", "B200", engine_args={"gpu-memory-utilization": 0.6})
    assert made["contract"]["context_length"] < 202_752 and left(made) >= 2.0
    assert any("and not 202,752 tokens" in note for note in made["notes"])


def test_what_the_user_wrote_stays_with_a_word_about_the_margin() -> None:
    longest = plan("GLM-5.2", "H200")["contract"]["context_length"]
    made = plan("GLM-5.2", "H200", engine_args={"max-model-len": longest + 20_480})
    assert made["contract"]["context_length"] == longest + 20_480
    said = [note for note in made["notes"] if "less than the margin" in note]
    assert len(said) == 1 and f"At {longest:,} tokens it would not" in said[0]
    assert not [note for note in plan("GLM-5.2", "H200")["notes"] if "less than the margin" in note]


def test_a_derived_fraction_leaves_sglang_its_margin() -> None:
    made = plan("GLM-4.5-Air", "H100", 2, engine="sglang")
    fraction = made["memory"]["static_fraction"]
    assert fraction < 0.85 and made["memory"]["spare_gib"] >= made["memory"]["margin_gib"] >= 2
    assert any(f"--mem-fraction-static is {fraction} and not 0.85" in note for note in made["notes"])
    mine = plan("GLM-4.5-Air", "H100", 2, engine="sglang", engine_args={"mem-fraction-static": 0.84})
    assert mine["memory"]["static_fraction"] == 0.84


def test_ranks_of_attention_share_the_steps_of_their_group() -> None:
    """SGLang divides a step by the ranks: eight of 4,096 tokens, not of 32,768."""
    made = plan("GLM-5.2", "H200", engine="sglang", profile="throughput")
    assert made["recipe"]["basis"] == "published" and made["memory"]["spare_gib"] > made["memory"]["margin_gib"]


def test_what_a_team_measured_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "recipes.yml").write_text(
        """
recipes:
  - {models: [GLM-5.2], precisions: [fp8], engine: vllm, profiles: [agentic], accelerators: [H200], count: 8,
     args: {max-model-len: 524288}, sources: [{who: our fleet, date: 2026-11-01}]}
""",
        "utf-8",
    )
    made = planner.make(planner.Intent("GLM-5.2", "H200", 8), catalog.load(folders=[str(tmp_path)]))
    assert "524288" in made["command"]
    assert any("--max-model-len as it is set leaves" in note for note in made["notes"])
