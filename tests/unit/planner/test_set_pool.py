"""A KV cache whose size glm_engine_args set: what it holds, and that it is held against one request and the GPU."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

CATALOG = catalog.load()
GIB = 2**30
BYTES = "kv-cache-memory-bytes"


def plan(engine: str = "vllm", model: str = "GLM-5.1", **args: Any) -> Plan:
    given = {name.replace("_", "-"): value for name, value in args.items()}
    return planner.make(planner.Intent(model, "B200", 8, engine=engine, engine_args=given), CATALOG)


@pytest.mark.parametrize("written", [30 * GIB, str(30 * GIB), "30G"])
def test_the_pool_is_what_is_set_and_not_what_the_share_leaves(written: Any) -> None:
    made = plan(kv_cache_memory_bytes=written)
    tokens = 30 * GIB // made["memory"]["kv_bytes_per_token"]
    assert made["memory"]["token_pool"] == tokens
    assert made["memory"]["kv_pool_gib_per_gpu"] == pytest.approx(30, abs=0.01)
    assert made["promises"]["token_pool"] == pytest.approx(0.7 * tokens, rel=0.001)
    assert f"30.0 GiB of KV cache (--{BYTES})" in made["memory"]["arithmetic"]
    # The engine does not look at the share then.
    assert plan(kv_cache_memory_bytes=written, gpu_memory_utilization=0.2)["memory"]["token_pool"] == tokens


def test_a_pool_smaller_than_one_request_shortens_it_as_the_engine_would_refuse_to_start() -> None:
    made = plan(kv_cache_memory_bytes=4 * GIB)
    held = 4 * GIB // made["memory"]["kv_bytes_per_token"]
    length = made["contract"]["context_length"]
    assert length == held // 1024 * 1024
    assert any(f"is {length:,} and not 202,752 tokens: the KV cache of one replica holds {held:,}." in note
               for note in made["notes"])  # fmt: skip
    assert not any("margin" in note for note in made["notes"])


def test_with_a_length_of_the_users_own_it_is_refused_with_the_number_that_works() -> None:
    with pytest.raises(planner.PlanError) as refused:
        plan(kv_cache_memory_bytes=4 * GIB, max_model_len=202_752)
    assert "fewer than the 202,752 tokens of one request" in str(refused.value)
    least = int(str(refused.value).split(f"set --{BYTES} to ")[1].split()[0])
    assert plan(kv_cache_memory_bytes=least, max_model_len=202_752)["contract"]["context_length"] == 202_752


def test_a_pool_that_the_gpu_cannot_hold_is_refused_with_the_largest_that_works() -> None:
    with pytest.raises(planner.PlanError, match=r"it does not fit: .* but the GPU has 179\.06 GiB") as refused:
        plan(kv_cache_memory_bytes=120 * GIB)
    most = int(str(refused.value).split(f"set --{BYTES} to at most ")[1].split()[0])
    assert plan(kv_cache_memory_bytes=most)["memory"]["fits"]
    with pytest.raises(planner.PlanError):
        plan(kv_cache_memory_bytes=most + 4 * GIB)


@pytest.mark.parametrize("length", ["auto", -1])
def test_a_pool_of_not_one_token_is_refused_also_where_the_engine_finds_the_length(length: Any) -> None:
    with pytest.raises(planner.PlanError, match="holds 0 tokens"):
        plan(kv_cache_memory_bytes=1000, max_model_len=length)
    assert plan(kv_cache_memory_bytes=30 * GIB, max_model_len=length)["memory"]["token_pool"] > 0


def test_sglangs_tokens_make_a_pool_smaller_and_never_larger() -> None:
    usual = plan("sglang")["memory"]
    less = plan("sglang", max_total_tokens=100_000)
    assert less["memory"]["token_pool"] == 100_000 and less["promises"]["token_pool"] == 70_000
    assert "--max-total-tokens lets the pool hold 100,000 tokens" in less["memory"]["arithmetic"]
    assert any("holds 100,000 tokens" in note for note in less["notes"])
    assert plan("sglang", max_total_tokens=10**8)["memory"]["token_pool"] == usual["token_pool"]
