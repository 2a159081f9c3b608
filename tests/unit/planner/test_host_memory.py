"""Memory of the host: shared memory, processes, and what is offloaded from the GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text

CATALOG = catalog.load()
GB = 1e9 / 2**30


def plan(**changes: Any) -> dict[str, Any]:
    return planner.make(planner.Intent("GLM-5.1", "H200", 8, **changes), CATALOG)


@pytest.mark.parametrize(
    ("engine", "arguments", "offloaded"),
    [
        ("vllm", {}, 0.0),
        # Of all ranks of a tensor group together.
        ("vllm", {"kv-offloading-size": 600}, 600.0),
        ("vllm", {"cpu-offload-gb": 10}, 80.0),
        # Of each rank; nothing without the switch.
        ("sglang", {"hicache-size": 200}, 0.0),
        ("sglang", {"enable-hierarchical-cache": True, "hicache-size": 200}, 8 * 200 * GB),
    ],
)
def test_what_is_offloaded_counts(engine: str, arguments: dict[str, Any], offloaded: float) -> None:
    host = plan(engine=engine, engine_args=arguments)["host_memory"]
    assert host["shared_memory_gib"] == host["processes_gib"] == 64
    assert host["offloaded_gib"] == pytest.approx(offloaded, abs=0.01)
    assert host["needed_gib"] == pytest.approx(128 + offloaded, abs=0.01)


def test_a_cache_without_a_size_is_a_multiple_of_the_gpu_s() -> None:
    made = plan(engine="sglang", engine_args={"enable-hierarchical-cache": True})
    assert made["host_memory"]["offloaded_gib"] == pytest.approx(8 * 2 * made["memory"]["kv_pool_gib_per_gpu"], abs=0.1)
    more = plan(engine="sglang", engine_args={"enable-hierarchical-cache": True, "hicache-ratio": 4})
    assert more["host_memory"]["offloaded_gib"] == pytest.approx(2 * made["host_memory"]["offloaded_gib"], abs=0.1)


def test_ranks_and_hosts_have_their_own_part() -> None:
    sizes = {"kv-offloading-size": 100}
    ranks = plan(
        engine_args={**sizes, "tensor-parallel-size": 1, "data-parallel-size": 8, "enable-expert-parallel": True}
    )
    assert ranks["host_memory"]["offloaded_gib"] == 800
    assert plan(engine_args=sizes, nodes=2, head_address="10.0.0.1")["host_memory"]["offloaded_gib"] == 50


def test_a_size_that_is_none_is_refused_and_the_text_has_it_all() -> None:
    with pytest.raises(planner.PlanError, match="--kv-offloading-size is 'lots'"):
        plan(engine_args={"kv-offloading-size": "lots"})
    text = " ".join(" ".join(plan_text.report({"gpu": plan(engine_args={"kv-offloading-size": 600})})).split())
    assert "728 GiB of the host" in text and "600 GiB offloaded from the GPUs" in text
