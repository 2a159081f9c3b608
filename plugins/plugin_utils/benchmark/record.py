# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a benchmark: what was measured, all that it depends on, and whether it is a measurement at all.

One JSON file for each in ``<glm_state_dir>/benchmarks``; the report is made from these files alone.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files, finding
from ansible_collections.glm.fleet.plugins.module_utils.benchmark.job import SILENT
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils import report
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import figures as bench
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Figures, Point, Workload
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import BenchmarkRecord, BenchmarkRun
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking, verdict


def make(
    host: str,
    plan: Plan,
    workload: Workload,
    client: benchmark_runs.Client,
    runs: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    quality: Sequence[Finding] = (),
    served_on: Mapping[str, Any] | None = None,
) -> BenchmarkRecord:
    """The record of a job that ended, from what was planned, what the host kept of it, and what it was asked before.

    ``served_on`` are the facts of the GPUs that serve, for a client on another host, which cannot look at them.
    ``trouble`` says why it is no measurement; ``ok`` takes an answer to every question about quality, too.
    """
    seen = [_told(outcome, served_on or {}) for outcome in state["outcomes"]]
    measured = [_run(run, outcome, workload, state["command"]) for run, outcome in zip(runs, seen)]
    trouble = _trouble(measured, runs, state)
    record: BenchmarkRecord = {
        "schema": report.SCHEMA,
        "kind": "benchmark",
        "id": _identifier(host, plan, workload, state["started"]),
        "host": host,
        "ok": trouble is None and finding.verdict_ok(quality),
        "trouble": trouble,
        "started_at": report.iso(state["started"]),
        "finished_at": report.iso(state["updated"]),
        "seconds": round(state["updated"] - state["started"]),
        "workload": json.loads(json.dumps(asdict(workload), default=str)),
        "plan": {
            **verdict.plan_summary(plan),
            "profile": plan["profile"],
            "gpus": len(plan["accelerator"]["indices"]),
            "command": [str(word) for word in plan["command"]],
            "env": dict(plan["env"]),
            "image_digest": plan["image"]["digest"] if plan["image"] else None,
            "runtime": plan["runtime"]["kind"],
            "prefix_caching": asking.prefix_caching(plan),
            "planned_token_pool": plan["memory"]["token_pool"],
            "prices": list(plan["prices"]),
        },
        "engine_says": dict(state.get("engine") or {}),
        "client": {**asdict(client), "command": list(state["command"])},
        "points": _points(workload, measured),
        "runs": measured,
        "quality": list(quality),
    }
    kept: BenchmarkRecord = finding.printable_in(record)
    return kept


def _told(outcome: Mapping[str, Any], served_on: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome with kind, number and driver of GPUs that were described and could not be looked at meanwhile."""
    gpus = outcome["gpus"]
    described = [gpu["name"] for gpu in served_on.get("gpus") or []]
    if gpus["samples"] or not described:
        return dict(outcome)
    drivers = [version for version in [(served_on.get("driver") or {}).get("version")] if version]
    return {**outcome, "gpus": {**gpus, "names": sorted(set(described)), "count": len(described), "drivers": drivers}}


def _identifier(host: str, plan: Plan, workload: Workload, started: float) -> str:
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started))
    return f"{when}-{host}-{plan['replica']}-{workload.name}"


def _run(
    run: Mapping[str, Any], outcome: Mapping[str, Any], workload: Workload, command: Sequence[str]
) -> BenchmarkRun:
    point = Point(run["prompts"], run["parallel"])
    problem = _problem(run, outcome, workload)
    result = outcome["result"]
    return {
        "name": run["name"],
        "point": run["point"],
        "repeat": run["repeat"],
        "prompts": run["prompts"],
        "parallel": run["parallel"],
        "seed": run["seed"],
        "line": shlex.join([*command, *run["argv"]]),
        "seconds": outcome["seconds"],
        "exit_status": outcome["exit_status"],
        "figures": asdict(bench.figures(result, point.users)) if problem is None else None,
        "problem": problem,
        "result": result,
        "metrics": outcome["metrics"],
        "gpus": outcome["gpus"],
    }


def _problem(run: Mapping[str, Any], outcome: Mapping[str, Any], workload: Workload) -> Optional[Finding]:
    error, log = outcome.get("error", ""), outcome.get("log") or []
    if error.startswith(SILENT):
        return bench.no_measurement(run, error, bench.cause(error), log)
    if error:
        found = f"{error}; its last line: {(log or ['nothing'])[-1]}"
        advice = "read the client's log below; with an image, check that the host has it"
        return bench.no_measurement(run, found, bench.Cause("the client failed", advice), log)
    return bench.problem(run, outcome["result"], workload.output_tokens, log)


def _trouble(
    measured: Sequence[BenchmarkRun], runs: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
) -> Optional[Finding]:
    """The first thing that went wrong; None when every run is a measurement."""
    for run in measured:
        if run["problem"]:
            return run["problem"]
    if len(measured) < len(runs):
        found = state.get("error") or f"only {len(measured)} of {len(runs)} runs were made"
        return bench.no_measurement(runs[len(measured)], found, bench.Cause("", "run this again"))
    return None


def failure_text(record: BenchmarkRecord) -> str:
    """Why a record is not ok, for a person."""
    trouble, quality = record["trouble"], record["quality"]
    lines = []
    if trouble:
        where = f"workload {record['workload']['name']}, {trouble['check']}"
        lines.append(finding.in_full(trouble, where, "Last lines of the client"))
    if not finding.verdict_ok(quality):
        lines.append(finding.summary(quality, "quality"))
    return "\n".join(lines)


def _points(workload: Workload, measured: Sequence[BenchmarkRun]) -> list[dict[str, Any]]:
    """Each point that was measured: its mean figures, and how far its repeats lie apart."""
    found = []
    for number, point in enumerate(workload.points):
        repeats = [run for run in measured if run["point"] == number and run["figures"]]
        if not repeats:
            continue
        rows = [Figures(**figures) for run in repeats if (figures := run["figures"])]
        found.append(
            {
                "prompts": point.prompts,
                "parallel": point.parallel,
                "users": point.users,
                "figures": asdict(bench.mean_figures(rows)),
                "generation_spread": asdict(bench.spread([row.generation for row in rows])),
                "metrics": repeats[-1]["metrics"],
                "gpus": repeats[-1]["gpus"],
            }
        )
    return found


def shape(record: BenchmarkRecord, point: Mapping[str, Any]) -> bench.Shape:
    """What a measured point can be compared with. A prefix cache counts only where the workload cares."""
    workload = record["workload"]
    cares = workload["prefix_caching"] is not None
    return bench.Shape(
        workload["interface"],
        workload["input_tokens"],
        workload["output_tokens"],
        point["prompts"],
        point["parallel"],
        workload["request_rate"],
        record["plan"]["prefix_caching"] if cares else None,
    )


def folder(state_dir: str) -> Path:
    """Where a fleet's records are."""
    return Path(state_dir).expanduser() / "benchmarks"


def keep(state_dir: str, record: BenchmarkRecord) -> Path:
    """Write a record; its file."""
    path = folder(state_dir) / f"{record['id']}.json"
    files.write_json(path, record)
    return path


def load(state_dir: str) -> list[BenchmarkRecord]:
    """All records of a fleet of the schema that this version writes, oldest first."""
    found = []
    for path in sorted(folder(state_dir).glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") == report.SCHEMA and "workload" in data:
            found.append(data)
    return found
