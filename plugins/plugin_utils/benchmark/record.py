# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a benchmark: what was measured, all that it depends on, and whether it is a measurement at all.

One JSON file for each in ``<glm_state_dir>/benchmarks``; the report is made from these files alone.
"""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.benchmark.job import SILENT
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import figures as bench
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Figures, Point, Workload
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict

SCHEMA = 1


def make(
    host: str,
    plan: Plan,
    workload: Workload,
    client: benchmark_runs.Client,
    runs: Sequence[Mapping[str, Any]],
    state: Mapping[str, Any],
    quality: Sequence[Mapping[str, Any]] = (),
    served_on: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a job that ended, from what was planned, what the host kept of it, and what it was asked before.

    ``served_on`` are the facts of the GPUs that serve, for a client on another host, which cannot look at them.
    ``trouble`` says why it is no measurement; ``ok`` takes an answer to every question about quality, too.
    """
    seen = [_told(outcome, served_on or {}) for outcome in state["outcomes"]]
    measured = [_run(run, outcome, workload, state["command"]) for run, outcome in zip(runs, seen)]
    trouble = _trouble(measured, runs, state)
    return {
        "schema": SCHEMA,
        "id": _identifier(host, plan, workload, state["started"]),
        "host": host,
        "ok": trouble is None and all(check["ok"] for check in quality),
        "trouble": trouble,
        "started_at": _iso(state["started"]),
        "finished_at": _iso(state["updated"]),
        "seconds": round(state["updated"] - state["started"]),
        "workload": json.loads(json.dumps(asdict(workload), default=str)),
        "plan": {
            **verdict.plan_summary(plan),
            "command": [str(word) for word in plan["command"]],
            "env": dict(plan["env"]),
            "image_digest": plan["image"]["digest"] if plan["image"] else None,
            "runtime": plan["runtime"]["kind"],
            "prefix_caching": benchmark_runs.prefix_caching(plan),
            "planned_token_pool": plan["memory"]["token_pool"],
            "prices": list(plan["prices"]),
        },
        "engine_says": dict(state.get("engine") or {}),
        "client": {**asdict(client), "command": list(state["command"])},
        "points": _points(workload, measured),
        "runs": measured,
        "quality": [dict(check) for check in quality],
    }


def _told(outcome: Mapping[str, Any], served_on: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome with kind, number and driver of GPUs that were described and could not be looked at meanwhile."""
    gpus = outcome["gpus"]
    described = [gpu["name"] for gpu in served_on.get("gpus") or []]
    if gpus["samples"] or not described:
        return dict(outcome)
    drivers = [version for version in [(served_on.get("driver") or {}).get("version")] if version]
    return {**outcome, "gpus": {**gpus, "names": sorted(set(described)), "count": len(described), "drivers": drivers}}


def _identifier(host: str, plan: Plan, workload: Workload, started: float) -> str:
    when = datetime.datetime.fromtimestamp(started, datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return f"{when}-{host}-{plan['replica']}-{workload.name}"


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _run(
    run: Mapping[str, Any], outcome: Mapping[str, Any], workload: Workload, command: Sequence[str]
) -> dict[str, Any]:
    point = Point(run["prompts"], run["parallel"])
    problem = _problem(run, outcome, workload)
    result = outcome["result"]
    return {
        **{key: run[key] for key in ("name", "point", "repeat", "prompts", "parallel", "seed")},
        "line": shlex.join([*command, *run["argv"]]),
        "seconds": outcome["seconds"],
        "exit_status": outcome["exit_status"],
        "figures": asdict(bench.figures(result, point.users)) if problem is None else None,
        "problem": problem,
        "result": result,
        "metrics": outcome["metrics"],
        "gpus": outcome["gpus"],
        "log": outcome.get("log") or [],
    }


def _problem(run: Mapping[str, Any], outcome: Mapping[str, Any], workload: Workload) -> Optional[dict[str, str]]:
    if outcome.get("error", "").startswith(SILENT):
        meaning, remedy = bench.cause(outcome["error"])
        return {"found": outcome["error"], "cause": meaning, "remedy": remedy}
    if outcome.get("error"):
        last = (outcome.get("log") or ["nothing"])[-1]
        remedy = "read the client's log below; with an image, see that the host has it"
        return {"found": f"{outcome['error']}; its last words: {last}", "cause": "the client failed", "remedy": remedy}
    found = bench.problem(outcome["result"], run["prompts"], workload.output_tokens)
    return dict(zip(("found", "cause", "remedy"), found)) if found else None


def _trouble(
    measured: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], state: Mapping[str, Any]
) -> Optional[dict[str, str]]:
    """The first thing that went wrong; None when every run is a measurement."""
    for run in measured:
        if run["problem"]:
            return {"run": run["name"], **run["problem"]}
    if len(measured) < len(runs):
        name = runs[len(measured)]["name"]
        found = state.get("error") or f"only {len(measured)} of {len(runs)} runs were made"
        return {"run": name, "found": found, "cause": "unknown", "remedy": "run this again"}
    return None


def failure_text(record: Mapping[str, Any]) -> str:
    """Why a record is not ok, for a person."""
    failed = [check for check in record["quality"] if not check["ok"]]
    lines = [
        f"  quality, {check['name']}: expected {check['expected']}, found {check['found']}. Next: {check['remedy']}."
        for check in failed
    ]
    head = [f"{len(failed)} of {len(record['quality'])} questions about quality failed"] if failed else []
    return "\n".join([*([_trouble_text(record)] if record["trouble"] else []), *head, *lines])


def _trouble_text(record: Mapping[str, Any]) -> str:
    trouble = record["trouble"]
    log = [f"    {line}" for run in record["runs"] for line in run["log"]]
    lines = [
        f"workload {record['workload']['name']}, {trouble['run']}: expected every request to be answered in full, "
        f"found {trouble['found']}.",
        f"  Cause: {trouble['cause']}",
        f"  Next: {trouble['remedy']}",
    ]
    return "\n".join([*lines, *(["  Last lines of the client:", *log] if log else [])])


def _points(workload: Workload, measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each point that was measured: its mean figures, and how far its repeats lie apart."""
    found = []
    for number, point in enumerate(workload.points):
        repeats = [run for run in measured if run["point"] == number and run["figures"]]
        if not repeats:
            continue
        rows = [Figures(**run["figures"]) for run in repeats]
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


def shape(record: Mapping[str, Any], point: Mapping[str, Any]) -> bench.Shape:
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


def keep(state_dir: str, record: Mapping[str, Any]) -> Path:
    """Write a record; its file."""
    path = folder(state_dir) / f"{record['id']}.json"
    files.write_json(path, record)
    return path


def load(state_dir: str) -> list[dict[str, Any]]:
    """All records of a fleet of the schema that this version writes, oldest first."""
    found = []
    for path in sorted(folder(state_dir).glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.get("schema") == SCHEMA and "workload" in data:
            found.append(data)
    return found
