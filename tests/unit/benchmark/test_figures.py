"""Arithmetic of benchmarks against the figures that the sources print, and verdicts on what the real client writes.

``data/*.json`` are results of ``vllm bench serve`` 0.32.0 against the real engine on a CPU, and against a closed port.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import figures as bench
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Figures, Published

KNOWN = catalog.load()
DATA = Path(__file__).parent / "data"


def result(name: str) -> dict[str, Any]:
    return dict(json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")))


def published(workload: str, **selected: Any) -> list[Published]:
    rows = [row for row in KNOWN.published if row.workload == workload]
    return [row for row in rows if all(getattr(row, name) == value for name, value in selected.items())]


# --- the sources' own figures


@pytest.mark.parametrize("row", published("glm51_agentic"), ids=lambda row: row.engine)
def test_per_user_and_total_of_the_glm51_tables(row: Published) -> None:
    workload = KNOWN.workloads[row.workload]
    made = bench.figures(
        {
            "output_throughput": row.figures.generation,
            "total_token_throughput": row.figures.generation * (8192 + 2048) / 2048,
            **{f"{kind}_{name}_ms": 1 for kind in ("mean", "p99") for name in ("ttft", "tpot", "itl")},
        },
        workload.points[0].users,
    )
    assert made.per_user == pytest.approx(row.figures.per_user, abs=0.006)
    assert made.total == pytest.approx(row.figures.total, abs=0.05)


def test_the_glm5_table_counts_twice_the_tokens_its_command_sends() -> None:
    (row,) = published("glm5_coding")
    workload = KNOWN.workloads["glm5_coding"]
    sent = workload.points[0].prompts * workload.input_tokens
    assert (sent, 2 * sent) == (2_097_152, 4_194_304)
    assert row.figures.total == row.figures.generation * (8192 + 1024) / 1024
    assert "4,194,304" in row.doubt


def test_the_recipe_s_output_is_its_tokens_by_its_seconds() -> None:
    (row,) = published("glm4x_prompt_heavy")
    assert row.figures.generation == pytest.approx(16_000 / 24.56, rel=1e-3)
    assert row.figures.total == pytest.approx((128_000 + 16_000) / 24.56, rel=1e-3)


def test_the_sweep_saturates_where_its_source_says() -> None:
    points = {row.parallel: row.figures.generation for row in published("concurrency_sweep")}
    assert list(points) == [1, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert bench.saturation(points) == 128


def test_the_sweep_s_figures_agree_with_each_other() -> None:
    """Users = throughput x time in the system, as long as the host is not overrun."""
    for row in published("concurrency_sweep"):
        if row.parallel <= 128:
            seconds = (row.figures.ttft_mean_ms + 511 * row.figures.tpot_mean_ms) / 1000
            assert row.parallel * 512 / seconds == pytest.approx(row.figures.generation, rel=0.05), row.parallel


@pytest.mark.parametrize(
    ("usd_per_hour", "rate", "cost"),
    [(53.52, 1345.44, 11.05), (20.80, 1215, 4.76), (20.80, 1945, 2.97), (20.80, 14444, 0.40), (20.80, 8254, 0.70)],
)
def test_cost_of_a_million_output_tokens(usd_per_hour: float, rate: float, cost: float) -> None:
    assert bench.cost_per_million(usd_per_hour, rate) == pytest.approx(cost, abs=0.005)


def test_the_break_even_of_the_gmi_guide_holds_only_with_ten_tokens_in_for_each_one_out() -> None:
    deepinfra = next(price for price in KNOWN.managed if price.provider == "DeepInfra")
    balanced = bench.break_even(20.80, deepinfra, 3, 1, 1945)
    assert balanced.total_per_day == pytest.approx(674.6e6, rel=1e-3)
    assert balanced.output_per_day == pytest.approx(168.6e6, rel=1e-3)  # the guide says 40 to 60 million
    assert bench.break_even(20.80, deepinfra, 11, 1, 1945).output_per_day == pytest.approx(56.2e6, rel=1e-3)


def test_a_break_even_beyond_what_the_host_makes_is_no_break_even() -> None:
    deepinfra = next(price for price in KNOWN.managed if price.provider == "DeepInfra")
    found = bench.break_even(20.80, deepinfra, 3, 1, 1945)
    assert found.capacity_per_day == pytest.approx(168.0e6, rel=1e-3)
    assert not found.reachable and found.utilisation == pytest.approx(1.003, rel=1e-2)


def test_prices_by_direction_follow_the_shape_of_the_requests() -> None:
    own = next(price for price in KNOWN.managed if (price.provider, price.model) == ("Z.ai", "GLM-5.1"))
    assert bench.managed_cost(own, 8192, 2048) == pytest.approx((8192 * 0.98 + 2048 * 3.08) / 1e6)
    found = bench.break_even(53.52, own, 8192, 2048, 1345.44)
    assert found.output_per_day == pytest.approx(53.52 * 24 / (4 * 0.98 + 3.08) * 1e6)
    assert not found.reachable


# --- what the client writes


def test_figures_of_a_real_result() -> None:
    found = bench.figures(result("valid"), 4)
    assert (round(found.generation, 2), round(found.per_user, 2), round(found.total, 2)) == (953.66, 238.41, 4954.55)
    assert (round(found.ttft_mean_ms, 2), round(found.itl_p99_ms, 2)) == (45.50, 23.11)


def test_a_real_result_is_valid_and_one_of_other_numbers_is_not() -> None:
    assert bench.problem({"name": "a", "prompts": 8}, result("valid"), 32) is None
    problem = bench.problem({"name": "a", "prompts": 9}, result("valid"), 32)
    assert problem and problem["found"].startswith("8 of 9 requests completed, 0 failed"), "no cause is known"
    assert (problem["phase"], problem["check"], problem["outcome"]) == ("benchmark", "a", "failed")


def test_a_closed_port_ends_with_status_0_and_is_no_measurement() -> None:
    problem = bench.problem({"name": "a", "prompts": 4}, result("dead_port"), 32)
    assert problem and problem["found"].startswith(
        "nothing listens at the endpoint's address: 0 of 4 requests completed, 4 failed; the first error: "
        "aiohttp.client_exceptions"
    )
    assert "systemctl status" in problem["next"]


def test_answers_that_end_early_are_another_workload() -> None:
    problem = bench.problem({"name": "a", "prompts": 8}, result("valid"), 64)
    assert problem and problem["found"] == "answers ended early: 256 tokens in the answers instead of 512"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("Not Found", "does not serve that model name"),
        ("Unauthorized", "refused the key"),
        ("Service Unavailable", "overloaded"),
        ("Never received a valid chunk to calculate TTFT.This response will be marked as failed!", "overloaded engine"),
        ("aiohttp.client_exceptions.ServerDisconnectedError: Server disconnected", "ended, or was killed"),
        ("aiohttp.client_exceptions.ClientPayloadError: Response payload is not completed", "ended, or was killed"),
        ("Bad Gateway or Proxy Error", "ended, or was killed"),
        ("asyncio.exceptions.TimeoutError", "overloaded"),
        ("Internal Server Error", "failed while it computed"),
        ("Bad Request", "refused the requests themselves"),
    ],
)
def test_the_first_error_names_a_cause(error: str, cause: str) -> None:
    assert cause in bench.cause(bench.first_error(["", f"Traceback (most recent call last):\n  {error}\n"]))[0]


def test_an_error_that_nobody_knows_has_no_cause_and_a_next_step() -> None:
    assert bench.cause("something new") == ("", "read the client's log and the unit's journal")


# --- repeats and comparisons


def test_spread_of_repeats() -> None:
    found = bench.spread([95.0, 100.0, 105.0])
    assert (found.mean, found.low, found.high, found.relative) == (100.0, 95.0, 105.0, pytest.approx(0.05))
    assert bench.spread([100.0]).relative is None


def test_the_mean_of_repeats_lacks_what_one_of_them_lacks() -> None:
    found = bench.mean_figures([Figures(100, total=500), Figures(200)])
    assert (found.generation, found.total) == (150, None)


def test_saturation_needs_points_on_both_sides() -> None:
    assert bench.saturation({1: 10.0, 8: 80.0}) is None
    assert bench.saturation({1: 10.0, 8: 80.0, 16: 160.0}) is None
    assert bench.saturation({1: 10.0, 8: 80.0, 16: 82.0}) == 8


def test_unlike_workloads_are_not_compared() -> None:
    agentic, coding = (KNOWN.workloads[name] for name in ("glm51_agentic", "glm5_coding"))
    one, other = (bench.shape(workload, workload.points[0]) for workload in (agentic, coding))
    bench.require_alike(one, replace(one))
    with pytest.raises(bench.Unlike, match="output tokens 2048 and 1024, prompts 512 and 256"):
        bench.require_alike(one, other)


def test_what_a_source_does_not_tell_is_not_compared() -> None:
    sweep = KNOWN.workloads["concurrency_sweep"]
    (row,) = published("concurrency_sweep", parallel=128)
    bench.require_alike(bench.shape(sweep, sweep.points[5]), bench.published_shape(sweep, row))
    with pytest.raises(bench.Unlike, match="parallel 1 and 128"):
        bench.require_alike(bench.shape(sweep, sweep.points[0]), bench.published_shape(sweep, row))


def test_a_served_prefix_cache_makes_a_burst_another_workload() -> None:
    burst = KNOWN.workloads["glm4x_prompt_heavy"]
    measured = replace(bench.shape(burst, burst.points[1]), prefix_caching=True)
    (row,) = published("glm4x_prompt_heavy")
    with pytest.raises(bench.Unlike, match="prefix caching True and False"):
        bench.require_alike(measured, bench.published_shape(burst, row))
