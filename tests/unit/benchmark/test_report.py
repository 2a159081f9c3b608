"""What a report says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.benchmark import metrics as _bench_metrics
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import page as benchmark_page
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import view as benchmark_view
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Point
from tests.unit.benchmark.records import KNOWN, QUALITY, record

KILLED = {
    "completed": 250,
    "failed": 6,
    "errors": ["Traceback…\naiohttp.client_exceptions.ServerDisconnectedError: Server disconnected"],
}


def section(made: dict[str, Any], *earlier: dict[str, Any], price: float = 0.0) -> benchmark_view.Section:
    return benchmark_view.section(made, earlier, KNOWN, price)


def rendered(*sections: benchmark_view.Section) -> tuple[str, str]:
    return benchmark_page.render(sections, "Fleet <blue>")


# --- what it says ---


def test_gpus_that_a_client_elsewhere_cannot_see_are_told_as_they_were_described() -> None:
    served_on = {"gpus": [{"name": "NVIDIA B200"}] * 8, "driver": {"version": "580.95.05"}}
    unseen = _bench_metrics.gpu_summary([])
    made = record(gpus=unseen, served_on=served_on)
    facts = {key: made["runs"][-1]["gpus"][key] for key in ("count", "names", "drivers", "samples", "sm_mhz_max")}
    assert facts == {
        "count": 8, "names": ["NVIDIA B200"], "drivers": ["580.95.05"], "samples": 0, "sm_mhz_max": None,
    }  # fmt: skip
    html, _markdown = rendered(section(made))
    assert "8x NVIDIA B200" in html and "580.95.05" in html
    # What was looked at while it ran wins.
    assert record(served_on=served_on)["runs"][-1]["gpus"] == record()["runs"][-1]["gpus"]


def test_published_results_and_earlier_runs_stand_beside_ours() -> None:
    older = record(started=1794000000.0, faster=0.5)
    found = section(record(), older)
    assert [row.where for row in found.compared] == [
        "8x B200, GLM-5.1 fp8, sglang 0.5.10",
        "8x B200, GLM-5.1 fp8, vllm 0.19.0",
        "8x B200, GLM-5.1 fp8, vllm 0.32.0",
    ]
    assert found.compared[2].who == "this fleet, gpu-1" and found.compared[2].ratio == pytest.approx(2.0)
    assert found.compared[0].ratio == pytest.approx(found.rows[0].figures.generation / 1345.44)


def test_the_published_rows_are_those_of_the_sources() -> None:
    def published(name: str) -> list[benchmark_view.Row]:
        theirs = [row for row in KNOWN.published if row.workload == name]
        points = [Point(row.prompts or row.parallel or 1, row.parallel) for row in theirs]
        return [benchmark_view.published_row(row, point.users) for row, point in zip(theirs, points)]

    rows = published("concurrency_sweep")
    assert [(row.users, row.figures.generation) for row in rows][::4] == [(1, 54), (64, 1456), (1024, 1944)]
    (burst,) = published("glm4x_prompt_heavy")
    assert burst.users == 16 and burst.figures.per_user == pytest.approx(651.58 / 16)


def test_what_is_of_another_workload_is_refused_with_the_reason() -> None:
    scaled = record(started=1794000000.0)
    scaled["workload"]["input_tokens"] = 512
    found = section(record(), scaled)
    assert len(found.compared) == 2
    assert found.refused == [
        "this fleet, gpu-1 (8x B200, GLM-5.1 fp8, vllm 0.32.0) of 2026-11-06T21:20:00Z: not the same workload: "
        "input tokens 8192 and 512"
    ]
    assert "input tokens 8192 and 512" in rendered(found)[1]


def test_a_burst_with_the_prefix_cache_on_is_not_compared() -> None:
    assert "prefix caching True and False" in section(record("glm4x_prompt_heavy")).refused[0]
    off = [*record()["plan"]["command"], "--no-enable-prefix-caching"]
    found = section(record("glm4x_prompt_heavy", command=off))
    assert found.refused == [] and [row.users for row in found.compared] == [16]


def test_earlier_runs_that_were_no_measurement_are_left_out() -> None:
    assert len(section(record(), record(started=1794000000.0, broken=KILLED)).compared) == 2


def test_a_sweep_saturates_and_is_drawn_beside_the_published_one() -> None:
    found = section(record("concurrency_sweep"))
    assert [(curve.saturation, curve.ours) for curve in found.curves] == [(128, True), (128, False)]
    page, markdown = rendered(found)
    assert page.count("<svg") == 3 and page.count("saturated at 128") == 2
    assert "Saturated at 128 parallel requests" in markdown


def test_costs_are_the_catalogue_s_or_one_s_own() -> None:
    made = record()
    rate = made["points"][0]["figures"]["generation"]
    (listed,) = section(made).costs
    assert listed.usd_per_hour == 53.52 and listed.per_million_output == pytest.approx(53.52 / rate / 3600 * 1e6)
    (own,) = section(made, price=20.0).costs
    assert (own.provider, own.usd_per_hour) == ("own price", 20.0)
    assert own.per_million_total == pytest.approx(own.per_million_output / 5)
    assert [even.managed for even in section(made).evens] == ["Z.ai", "DeepInfra", "Wafer"]


def test_a_run_that_is_no_measurement_has_its_cause_and_no_price() -> None:
    made = record("glm5_coding", broken=KILLED)
    found = section(made)
    assert not made["ok"] and found.best is None and found.costs == [] and found.evens == []
    page, markdown = rendered(found)
    for text in (page, markdown):
        assert "the engine ended, or was killed, while it answered" in text and "250 of 256 requests" in text
    assert "NOT A MEASUREMENT" in markdown


def test_all_that_the_figures_depend_on_is_told() -> None:
    page, markdown = rendered(section(record()))
    for fact in (
        "0123456789abcdef0123456789abcdef01234567",
        "sha256:" + "ab" * 32,
        "580.65.06",
        "1,710 to 1,965 MHz of 1,965",
        "8x NVIDIA B200",
        "vllm 0.32.0; it says 0.32.0",
        "--max-concurrency 32",
        "--seed 1002",
        "--speculative-config.method mtp",
        "docker run --rm --env OPENAI_API_KEY",
    ):
        assert fact in page and fact in markdown, fact


def test_text_from_outside_is_text_in_the_page() -> None:
    quality = [{**QUALITY[0], "outcome": "failed", "found": "<script>alert(1)</script> a|b"}]
    page, markdown = rendered(section(record(quality=quality)))
    assert "<script>" not in page and "&lt;script&gt;" in page and "Fleet &lt;blue&gt;" in page
    assert "a\\|b" in markdown and "quality failed" in page


def test_the_page_asks_nothing_of_a_network() -> None:
    page, _markdown = rendered(section(record()), section(record("concurrency_sweep")))
    loading = re.findall(r"<(?:script|link|img|iframe|object|embed)\b[^>]*>", page)
    assert loading == [] and "@import" not in page
    assert all(not target.startswith("http") for target in re.findall(r"url\(([^)]*)\)", page))
    assert len(page) < 400_000


def test_the_same_records_give_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_page.report, "now", lambda: "2026-11-21T00:00:00Z")
    made = record("concurrency_sweep")
    assert rendered(section(made)) == rendered(section(made))


def test_records_are_kept_and_read_again(tmp_path: Path) -> None:
    older, newer = record(started=1794000000.0), record()
    for made in (newer, older):
        benchmark_record.keep(str(tmp_path), made)
    (tmp_path / "benchmarks/other.json").write_text("{}", encoding="utf-8")
    assert benchmark_record.load(str(tmp_path)) == [older, newer]
