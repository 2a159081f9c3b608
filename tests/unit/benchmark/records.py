"""Records of benchmarks as ``benchmark_run`` writes them, for tests that start from one."""

from __future__ import annotations

from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Workload
from tests.unit.serve.plans import plan

KNOWN = catalog.load()
GPUS = {
    "samples": 12,
    "names": ["NVIDIA B200"],
    "count": 8,
    "drivers": ["580.65.06"],
    "sm_mhz_min": 1710,
    "sm_mhz_max": 1965,
    "sm_mhz_limit": 1965,
    "memory_mhz": 3996,
    "watts_max": 912.4,
    "celsius_max": 67,
}
QUALITY = [
    finding.judged("quality", "thinking_off", True, "text and no reasoning", "text without reasoning", seconds=1.0),
    finding.judged("quality", "needle", True, "found again", "found in 31874 prompt tokens", seconds=1.0),
]


def rates(workload: Workload) -> list[dict[str, float]]:
    """Figures of a host that saturates: the sweep's published ones, a tenth better."""
    theirs = {row.parallel: row.figures for row in KNOWN.published if row.workload == "concurrency_sweep"}
    found = []
    for point in workload.points:
        near = theirs[min(theirs, key=lambda users: abs(users - point.users))]
        found.append({"generation": near.generation * 1.1, "ttft": near.ttft_mean_ms, "tpot": near.tpot_mean_ms / 1.1})
    return found


def result(workload: Workload, prompts: int, rate: dict[str, float], share: float) -> dict[str, Any]:
    generation = rate["generation"] * share
    return {
        "completed": prompts,
        "failed": 0,
        "errors": [],
        "total_output_tokens": prompts * workload.output_tokens,
        "output_throughput": generation,
        "total_token_throughput": generation * (1 + workload.input_tokens / workload.output_tokens),
        **{f"mean_{name}_ms": rate.get(name, rate["tpot"] * 2.4) for name in ("ttft", "tpot", "itl")},
        **{f"p99_{name}_ms": rate.get(name, rate["tpot"] * 9) * 1.6 for name in ("ttft", "tpot", "itl")},
    }


def record(
    name: str = "glm51_agentic", host: str = "gpu-1", repeats: int = 2, started: float = 1795000000.0,
    faster: float = 1.0,
    gpus: dict[str, Any] | None = None, served_on: dict[str, Any] | None = None,
    broken: dict[str, Any] | None = None, quality: list[dict[str, Any]] | None = None, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """A record of that workload; ``broken`` is laid over the last run's result."""
    prices = [{"provider": "lambda", "usd_per_hour": 53.52, "date": "2026-09-20"}]
    made = plan(**{"prices": prices, "memory": {"token_pool": 1_240_000}, **changes})
    workload = KNOWN.workloads[name]
    client = benchmark_runs.client(made, "/var/lib/glm/benchmarks/0", "", "")
    runs = benchmark_runs.runs(made, workload, client, "127.0.0.1", repeats, 32, 1000)
    outcomes = []
    for run in runs:
        rate = rates(workload)[run["point"] or 0]
        share = faster * (1 + 0.02 * run["repeat"])
        busy = min(run["prompts"], run["parallel"] or run["prompts"])
        metrics = {
            "samples": 12,
            "kv_usage_max": min(0.97, busy / 300),
            "kv_pool_tokens": 1_236_992,
            "running_max": min(busy, 256),
            "waiting_max": max(0, busy - 256),
            "prefix_hit_rate": 0.002,
            "acceptance_rate": 0.61,
            "acceptance_length": 2.83,
            "preemptions": 0,
            "generation_tokens": 1.0,
        }
        answer = result(workload, run["prompts"], rate, share)
        outcomes.append(
            {
                "name": run["name"],
                "seconds": 61.5,
                "exit_status": 0,
                "result": answer,
                "metrics": metrics,
                "gpus": GPUS if gpus is None else gpus,
            }
        )
    if broken:
        outcomes[-1]["result"].update(broken)
        outcomes[-1]["log"] = ["Starting main benchmark run...", "100%"]
    state = {"outcomes": outcomes, "started": started, "updated": started + 1900, "engine": {"version": "0.32.0"}}
    state["command"] = ["docker", "run", "--rm", "--env", "OPENAI_API_KEY", "--entrypoint", "vllm", str(client.image)]
    asked = QUALITY if quality is None else quality
    return benchmark_record.make(host, made, workload, client, runs, state, asked, served_on)
