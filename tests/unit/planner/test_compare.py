"""Engines, profiles and hardware in one table: what fits, what was seen, what it costs."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import compare
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError

ROWS = compare.rows(Intent("GLM-5.1", "", 0), catalog.load())


def row(hardware: str, engine: str, profile: str, rows: list[compare.Row] = ROWS) -> compare.Row:
    [found] = [
        one for one in rows if one.hardware == hardware and one.engine.startswith(engine) and profile in one.profiles
    ]
    return found


def test_a_row_is_what_the_plan_of_it_says() -> None:
    made = planner.make(Intent("GLM-5.1", "B200", 8, engine="vllm"), catalog.load())
    found = row("8x B200", "vllm", "agentic")
    assert found.engine == "vllm 0.32.0" and found.tokens == made["memory"]["token_pool"] and not found.reason
    assert found.speed == compare.Speed(1265.45, "published", 32) and found.usd == 53.52
    assert found.usd_per_million == pytest.approx(53.52 / (1265.45 * 3600) * 1e6)


def test_every_cell_is_in_one_row_and_profiles_that_are_alike_share_one() -> None:
    known = catalog.load()
    cells = [(one.hardware, one.engine.split()[0], profile) for one in ROWS for profile in one.profiles]
    accelerators = {entry.name for entry in known.accelerators.values()}
    assert len(cells) == len(set(cells)) == len(accelerators) * 2 * len(known.profiles)
    assert len(ROWS) < len(cells)


def test_what_does_not_fit_says_why_and_has_no_figures() -> None:
    found = row("8x A100", "vllm", "agentic")
    assert found.reason and (found.tokens, found.speed, found.usd_per_million) == (None, None, None)
    lines = compare.table(ROWS)
    assert any(line.startswith("8x A100 with vllm (") and "lacks" in line for line in lines)
    assert "1,265 published at 32" in "\n".join(lines)


def test_the_number_of_gpus_that_is_asked_for_is_compared() -> None:
    rows = compare.rows(Intent("GLM-4.7-Flash", "H100", 2, precision="bf16"), catalog.load())
    assert not row("2x H100", "vllm", "agentic", rows).reason
    assert row("8x H200", "vllm", "agentic", rows)


def test_a_model_that_is_unknown_is_refused() -> None:
    with pytest.raises(PlanError, match="unknown model"):
        compare.rows(Intent("GLM-51", "", 0), catalog.load())
    with pytest.raises(PlanError, match="unknown accelerator 'H201'"):
        compare.rows(Intent("GLM-5.1", "H201", 8), catalog.load())
