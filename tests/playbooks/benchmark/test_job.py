"""Jobs on a host: a real client process, a real HTTP engine, and every way in which a run is no measurement."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.benchmark import metrics
from ansible_collections.glm.fleet.plugins.module_utils.benchmark.job import Folder, Job
from ansible_collections.glm.fleet.plugins.module_utils.serving import metrics as engine_metrics
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Point, Source, Workload
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour, engine
from tests.unit.serve.plans import listening, plan

CLIENT = Path(__file__).parent / "toy_client.py"
WORKLOAD = Workload(
    name="small",
    text="A small one.",
    interface="chat",
    input_tokens=64,
    output_tokens=16,
    points=[Point(4, 2), Point(12, 6)],
    source=Source("a test"),
)


def measure(
    tmp_path: Path,
    port: int,
    environment: dict[str, str] | None = None,
    *,
    timeout: float = 900,
    silence: float = 900,
    answers: float = 300,
    **changes: Any,
) -> dict[str, Any]:
    """The record of the workload against that port. ``answers``: how long the endpoint may take for one, in seconds."""
    made = plan(**{"listen": listening("127.0.0.1", port, port), **changes})
    client = benchmark_runs.client(made, str(tmp_path), "", str(CLIENT))
    runs = benchmark_runs.runs(made, WORKLOAD, client, "127.0.0.1", repeats=2, warmup=2, seed=7)
    job = Job(
        fingerprint="one",
        endpoint=Endpoint("127.0.0.1", port, made["served_model_name"], KEY, timeout=answers),
        command=[client.program],
        runs=runs,
        metrics=asking.metric_rules(made),
        environment={"OPENAI_API_KEY": KEY, **(environment or {})},
        run_timeout=timeout,
        silence_timeout=silence,
        sample_seconds=0.05,
    )
    folder = Folder(tmp_path)
    assert folder.begin(job)
    state = finished(folder)
    return benchmark_record.make("gpu-1", made, WORKLOAD, client, state["runs"], state)


def finished(folder: Folder) -> dict[str, Any]:
    """The last state of a job, waited for."""
    deadline = time.monotonic() + 900
    while folder.running():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert folder.state()["finished"]
    return folder.state()


def test_a_good_engine_is_measured(tmp_path: Path) -> None:
    # So long that what a busy machine adds to a request does not make up for those at once.
    with engine(Behaviour(seconds=0.3)) as (behaviour, port):
        record = measure(tmp_path, port)
    assert record["ok"] and record["trouble"] is None
    assert [run["name"] for run in record["runs"]] == [
        "warm-up, 2 prompts",
        "4 prompts, 2 parallel, repeat 1 of 2",
        "4 prompts, 2 parallel, repeat 2 of 2",
        "12 prompts, 6 parallel, repeat 1 of 2",
        "12 prompts, 6 parallel, repeat 2 of 2",
    ]
    assert len(behaviour.requests) == 2 + 2 * 4 + 2 * 12
    assert [run["seed"] for run in record["runs"]] == [7, 8, 9, 10, 11]
    assert record["engine_says"] == {"version": "0.32.0", "source": "/version"}
    small, large = record["points"]
    assert (small["users"], large["users"]) == (2, 6)
    assert small["generation_spread"]["count"] == 2 and small["generation_spread"]["relative"] is not None
    assert large["figures"]["generation"] > small["figures"]["generation"] > 0
    assert small["figures"]["per_user"] == pytest.approx(small["figures"]["generation"] / 2)


def test_the_engine_s_own_metrics_are_kept(tmp_path: Path) -> None:
    with engine(Behaviour(seconds=0.4)) as (_behaviour, port):
        record = measure(tmp_path, port)
    found = record["points"][-1]["metrics"]
    assert found["samples"] > 2 and found["kv_pool_tokens"] == 1_600_000
    assert found["prefix_hit_rate"] == pytest.approx(16 / 22)
    assert found["acceptance_rate"] == pytest.approx(0.7) and found["acceptance_length"] == pytest.approx(3.1)
    assert 0 < found["running_max"] <= 6 and found["kv_usage_max"] == pytest.approx(found["running_max"] / 10)


def test_neither_the_key_nor_what_belongs_to_one_request_is_kept(tmp_path: Path) -> None:
    with engine() as (_behaviour, port):
        record = measure(tmp_path, port)
    assert KEY not in json.dumps(record)
    assert all("itls" not in run["result"] for run in record["runs"])
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_a_wrong_name(tmp_path: Path) -> None:
    with engine(Behaviour()) as (_behaviour, port):
        record = measure(tmp_path, port, served_model_name="glm-5.1-fp9")
    assert not record["ok"] and record["runs"][0]["exit_status"] == 0
    assert record["trouble"]["found"] == (
        "the endpoint does not serve that model name, or has no such path: 0 of 2 requests completed, 2 failed; "
        "the first error: Not Found"
    )
    assert len(record["runs"]) == 1, "what follows a run that failed is not run"


def test_a_dead_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    record = measure(tmp_path, port)
    assert not record["ok"] and record["runs"][0]["exit_status"] == 0
    assert record["trouble"]["found"].startswith("nothing listens at the endpoint's address: ")


def test_an_engine_killed_while_it_answers(tmp_path: Path) -> None:
    with engine(Behaviour(dies_after=5, seconds=0.02)) as (_behaviour, port):
        record = measure(tmp_path, port)
    assert not record["ok"] and record["trouble"]["check"] == "4 prompts, 2 parallel, repeat 1 of 2"
    # Which of the two that are under way is cut off first is chance.
    cause = "the engine ended, or was killed, while it answered: "
    details = "[23] of 4 requests completed, [12] failed; the first error: "
    assert re.match(cause + details, record["trouble"]["found"])
    assert "killed" in record["trouble"]["found"] and "out-of-memory" in record["trouble"]["next"]
    text = benchmark_record.failure_text(record)
    assert "in full, found the engine ended, or was killed" in text and "Last lines of the client" not in text


def test_an_engine_whose_port_is_held_by_what_a_kill_left(tmp_path: Path) -> None:
    with engine(Behaviour(freezes_after=3)) as (_behaviour, port):
        record = measure(tmp_path, port, silence=5.0, answers=2.0)
    assert not record["ok"] and record["trouble"]["check"] == "4 prompts, 2 parallel, repeat 1 of 2"
    assert record["trouble"]["found"] == (
        "the engine ended, or was killed, while it answered: "
        "the endpoint sent nothing for 5 s, so the client was stopped"
    )


def test_an_overloaded_engine(tmp_path: Path) -> None:
    # The engine may still count a request that its client has read, so two at once are up to four. Long, so that the
    # six are there at once, whenever the machine gets to send them.
    with engine(Behaviour(capacity=4, seconds=1.5)) as (_behaviour, port):
        record = measure(tmp_path, port)
    assert not record["ok"] and record["trouble"]["check"] == "12 prompts, 6 parallel, repeat 1 of 2"
    assert "the first error: Service Unavailable" in record["trouble"]["found"]
    assert "overloaded" in record["trouble"]["found"] and "fewer requests at once" in record["trouble"]["next"]
    assert [point["users"] for point in record["points"]] == [2], "points before it are kept"


def test_a_client_that_breaks_is_told_from_an_engine_that_does(tmp_path: Path) -> None:
    with engine() as (_behaviour, port):
        record = measure(tmp_path, port, {"TOY_CLIENT_CRASHES": "1"})
    assert record["trouble"]["found"].startswith("the client failed: ")
    assert "exit status 1" in record["trouble"]["found"] and "ImportError: no such thing" in record["trouble"]["found"]
    assert "Last lines of the client:\n    ImportError: no such thing" in benchmark_record.failure_text(record)


def test_a_client_that_never_ends_is_stopped(tmp_path: Path) -> None:
    with engine(Behaviour(hang=True)) as (_behaviour, port):
        record = measure(tmp_path, port, timeout=0.5)
    assert not record["ok"] and "did not end within 0.5 s" in record["trouble"]["found"]


def test_one_measurement_of_a_replica_at_a_time(tmp_path: Path) -> None:
    with engine(Behaviour(seconds=0.2)) as (_behaviour, port):
        run = {"name": "a", "prompts": 8, "result": "run-0.json", "argv": []}
        until_told = f"while [ ! -e {tmp_path}/enough ]; do sleep 0.1; done"
        job = Job("one", Endpoint("127.0.0.1", port, MODEL), ["sh", "-c", until_told], [run])
        folder = Folder(tmp_path)
        assert folder.begin(job) and folder.running()
        assert not folder.begin(job)
        (tmp_path / "enough").touch()
        finished(folder)


# --- metrics ---

SGLANG = """# HELP sglang:token_usage The token usage
sglang:num_running_reqs{model_name="glm",tp_rank="0"} 12.0
sglang:num_queue_reqs{model_name="glm",tp_rank="0"} 3.0
sglang:token_usage{model_name="glm"} 0.41
sglang:spec_accept_length{model_name="glm"} 2.83
sglang:prompt_tokens_total{model_name="glm"} 1000.0
sglang:cached_tokens_total{model_name="glm"} 250.0
sglang:max_total_num_tokens{model_name="glm"} 700000.0
not a metric
"""


def rules(engine: str) -> list[dict[str, Any]]:
    known = catalog.load().engines[engine]
    return known.metric_rules(known.default_version)


def test_the_size_of_vllm_s_cache_is_a_product_of_labels() -> None:
    info = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",engine="0"} 1.0'
    assert engine_metrics.parse(info, rules("vllm")) == {"pool_tokens": 16000.0}
    unknown = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="None",engine="0"} 1.0'
    assert engine_metrics.parse(unknown, rules("vllm")) == {}


def test_metrics_of_another_engine_say_nothing() -> None:
    assert engine_metrics.parse(SGLANG, rules("vllm")) == {} and engine_metrics.parse(SGLANG, []) == {}


def test_sglang_s_metrics_become_the_same_names() -> None:
    begin = dict.fromkeys(engine_metrics.parse(SGLANG, rules("sglang")), 0.0)
    found = metrics.summary([begin, engine_metrics.parse(SGLANG, rules("sglang"))])
    assert found["running_max"] == 12 and found["waiting_max"] == 3 and found["kv_usage_max"] == 0.41
    assert found["prefix_hit_rate"] == 0.25 and found["acceptance_length"] == 2.83
    assert found["kv_pool_tokens"] == 700000 and found["acceptance_rate"] is None


def test_ranks_of_one_engine_are_summed_and_the_fullest_cache_counts() -> None:
    text = "\n".join(
        f'vllm:num_requests_running{{engine="{rank}"}} 4\nvllm:kv_cache_usage_perc{{engine="{rank}"}} 0.{rank + 5}'
        for rank in range(2)
    )
    assert engine_metrics.parse(text, rules("vllm")) == {"running": 8.0, "kv_usage": 0.6}


def test_an_engine_without_metrics_has_no_figures() -> None:
    for samples in ([], [{}, {}]):
        found = metrics.summary(samples)
        assert set(found.values()) == {len(samples), None}
    assert metrics.gpu_summary([])["sm_mhz_min"] is None


def test_gpus_are_summed_up_with_the_lowest_clock() -> None:
    row = "NVIDIA B200, 580.65.06, {}, 1965, 3996, {}, 61"
    samples = [metrics.parse_smi(row.format(1965, 700.5)), metrics.parse_smi(row.format(1410, "[N/A]"))]
    found = metrics.gpu_summary(samples)
    assert (found["sm_mhz_min"], found["sm_mhz_max"], found["sm_mhz_limit"]) == (1410, 1965, 1965)
    assert found["names"] == ["NVIDIA B200"] and found["drivers"] == ["580.65.06"] and found["watts_max"] == 700.5


def test_gpus_of_amd_are_read_from_the_kernel(tmp_path: Path) -> None:
    def card(name: str, files: dict[str, str]) -> None:
        for path, text in files.items():
            file = tmp_path / "class/drm" / name / "device" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n", encoding="utf-8")

    sensors = {"freq1_input": "2100000000", "freq2_input": "1300000000", "power1_input": "712000000"}
    mi300x = {
        "vendor": "0x1002",
        "device": "0x74a1",
        "pp_dpm_sclk": "0: 132Mhz\n1: 2100Mhz *",
        **{f"hwmon/hwmon4/{name}": value for name, value in {**sensors, "temp2_input": "64000"}.items()},
    }
    card("card1", mi300x)
    card("card2", {**mi300x, "product_name": "AMD Instinct MI300X", "hwmon/hwmon4/power1_input": "none"})
    card("card0", {"vendor": "0x1a03", "hwmon/hwmon0/temp1_input": "40000"})
    (tmp_path / "module/amdgpu").mkdir(parents=True)
    (tmp_path / "module/amdgpu/version").write_text("6.14.14\n", encoding="utf-8")
    first, second = metrics.read_amdgpu(tmp_path)
    assert first == {
        "name": "AMD 0x74a1", "driver": "6.14.14", "sm_mhz": 2100.0, "sm_max_mhz": 2100.0, "memory_mhz": 1300.0,
        "watts": 712.0, "celsius": 64.0,
    }  # fmt: skip
    assert (second["name"], second["watts"]) == ("AMD Instinct MI300X", None)
    assert metrics.read_amdgpu(tmp_path / "nowhere") == []
