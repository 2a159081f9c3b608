"""Reports as the code makes them, against the schema that is published."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict
from tests.unit.benchmark.records import record
from tests.unit.serve.plans import RUNS, plan

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/report.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
CHECKS = [
    finding.judged("verify", "chat", True, "text", "text", seconds=0.5),
    finding.judged("verify", "models", False, "glm-5.1-fp8", "[]", "rename it", seconds=0.1),
    finding.not_proven("verify", "closed", "a closed port", "no ssh server answered there either"),
]
ENDPOINT: Any = {"url": "http://10.0.0.5:8000/v1", "model": "glm-5.1-fp8"}
VERIFIED = verdict.host_report("gpu-1", CHECKS, ENDPOINT, plan(), RUNS)
WORKER = verdict.worker_report("gpu-2", plan(node={"count": 2, "rank": 1, "head_address": "10.0.0.5"}))
STOPPED = verdict.stopped_report("gpu-3", "Weights | Fetch", "no space left")
BROKEN = {"completed": 3, "failed": 1, "errors": ["Connection refused"]}


FLEET = verdict.fleet_report(
    [VERIFIED, WORKER, STOPPED], gateways=[{"host": "gpu-1", "url": "https://10.0.0.5:8443/v1"}]
)


@pytest.mark.parametrize(
    "made",
    [VERIFIED, WORKER, STOPPED, FLEET, record(), record(broken=BROKEN)],
    ids=["verify", "worker", "stopped", "fleet", "benchmark", "broken benchmark"],
)
def test_a_report_is_what_the_schema_says(made: Any) -> None:
    VALIDATOR.validate(json.loads(json.dumps(made)))


@pytest.mark.parametrize(
    ("key", "value"), [("schema", 1), ("kind", "other"), ("ok", "yes"), ("checks", [{"name": "chat", "ok": True}])]
)
def test_another_form_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        VALIDATOR.validate({**json.loads(json.dumps(VERIFIED)), key: value})


def test_an_outcome_is_one_of_three() -> None:
    made = copy.deepcopy(json.loads(json.dumps(VERIFIED)))
    assert [check["outcome"] for check in made["checks"]] == ["passed", "failed", "not_proven"]
    made["checks"][0]["outcome"] = "skipped"
    with pytest.raises(ValidationError):
        VALIDATOR.validate(made)


def test_what_a_benchmark_s_client_said_reaches_no_terminal_raw() -> None:
    hostile = "\x1b]52;c;cm0=\x07\u202eConnection refused\x9b2J"
    made = record(broken={"completed": 3, "failed": 1, "errors": [hostile]})
    text = json.dumps(made, ensure_ascii=False)
    assert made["trouble"] and "Connection refused" in made["trouble"]["found"] and text.isprintable()
    assert "Connection refused" in made["runs"][-1]["result"]["errors"][0]


def test_what_made_a_host_stop_reaches_no_terminal_raw() -> None:
    stopped = verdict.stopped_report("gpu-3", "Pull\x1b[2J", "\x1b]0;owned\x07denied\u202e\nsecond line")
    lines = [*verdict.table([stopped]), *verdict.reasons([stopped])]
    assert all(line.isprintable() for line in lines) and r"denied\u202e" in lines[-1] and "second" not in lines[-1]
