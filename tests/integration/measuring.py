"""Benchmarks of a rehearsal, and what they left."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from tests.integration.rehearsal import STATE, inventory, playbook

# Each takes half a minute or more for an engine; the others differ in their numbers only. The sweep is nine runs of the
# client, each of which loads vLLM for ten seconds of processor time.
WORKLOADS = ["glm4x_balanced"]
OTHERS = ["concurrency_sweep", "glm5_coding", "glm4x_prompt_heavy", "glm4x_decode_heavy"]
BURST = {
    "text": "Many at once.",
    "interface": "chat",
    "input_tokens": 64,
    "output_tokens": 32,
    "points": [{"prompts": 64, "parallel": 64}],
    "source": {"who": "a test"},
}


def measured(engine: str, **variables: object) -> dict[str, dict[str, Any]]:
    """Records by host of the default workload, made smaller by the rehearsal's inventory."""
    run = playbook("benchmark.yml", glm_engine=engine, benchmark_repeats=2, benchmark_sample_seconds=0.5, **variables)
    assert run.code == 0
    assert re.search(r"benchmark: 11 prompts, 1 parallel, repeat 2 of 2: [\d.,]+ tok/s out", run.output)
    page = (STATE / "state/benchmarks/report.html").read_text(encoding="utf-8")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (STATE / "state/benchmarks").glob("2*.json")]
    found = {record["host"]: record for record in records if record["plan"]["engine"]["name"] == engine}
    assert set(found) == set(inventory()) and all(host in page for host in found)
    assert all(record["ok"] and record["points"][0]["generation_spread"]["count"] == 2 for record in found.values())
    assert all("@sha256:" in record["client"]["image"] for record in found.values())
    return found


def every_workload(engine: str, **variables: object) -> None:
    """Workloads of each interface and pace on one host, so small that only their shape is left."""
    host = next(iter(inventory()))
    for name in [*WORKLOADS, *(OTHERS if os.environ.get("GLM_EVERY_WORKLOAD") else [])]:
        run = playbook(
            "benchmark.yml", "--limit", f"{host},localhost", glm_engine=engine, glm_workload=name, benchmark_warmup=0,
            benchmark_scale=0.002, benchmark_quality=[], **variables,
        )  # fmt: skip
        assert run.code == 0, name
        record = newest_record()
        assert record["ok"] and record["workload"]["name"] == name and record["points"]


def newest_record() -> dict[str, Any]:
    newest = max((STATE / "state/benchmarks").glob("2*.json"), key=lambda path: path.name)
    return json.loads(newest.read_text(encoding="utf-8"))


def burst(workload: dict[str, Any]) -> dict[str, Any]:
    """Variables that measure a workload of one's own as it is, and nothing else."""
    return {
        "glm_workload": "burst",
        "benchmark_workloads": {"burst": workload},
        "benchmark_scale": 1.0,
        "benchmark_warmup": 0,
        "benchmark_quality": [],
        "benchmark_poll_seconds": 1,
    }
