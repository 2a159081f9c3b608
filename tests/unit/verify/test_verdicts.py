"""Reports of hosts and fleets, the view from outside, the table, the request to paste."""

from __future__ import annotations

import json

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.report import FleetGateway, VerifyReport
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict
from tests.unit.serve.plans import RUNS, plan

GOOD = finding.judged("verify", "chat", True, "text", "text", seconds=0.5)
BAD = finding.judged("verify", "models", False, "glm-5.1-fp8", "[]", "rename it", seconds=0.1)
ENDPOINT = {"url": "http://10.0.0.5:8000/v1", "model": "glm-5.1-fp8"}


def report(host: str = "gpu-1", checks: tuple[finding.Finding, ...] = (GOOD,)) -> VerifyReport:
    return verdict.host_report(host, checks, ENDPOINT, plan(), RUNS)


def test_a_host_is_ok_only_if_it_was_checked_and_all_passed() -> None:
    assert report()["ok"]
    assert not report(checks=(GOOD, BAD))["ok"]
    assert not report(checks=())["ok"]
    assert not verdict.missing_report("gpu-1")["ok"]


def test_a_report_is_json_and_says_what_was_served() -> None:
    made = json.loads(json.dumps(report()))
    assert made["plan"]["model"]["revision"] == plan()["model"]["revision"]
    assert made["plan"]["image"].startswith("vllm/vllm-openai@sha256:")
    assert made["finished_at"].endswith("Z") and made["seconds"] == 0.5
    assert "command" not in made["plan"] and "env" not in made["plan"]


def test_failures_are_named_with_what_was_expected_found_and_what_to_do() -> None:
    text = verdict.failure_text(report(checks=(GOOD, BAD)))
    assert text.startswith("gpu-1, verify: 1 of 2 checks failed")
    assert "models: expected glm-5.1-fp8, found []. Next: rename it." in text and "chat" not in text


def test_a_fleet_is_ok_only_if_it_has_hosts_and_all_are() -> None:
    assert verdict.fleet_report([report()])["ok"]
    assert not verdict.fleet_report([report()], problems=["gateway of gpu-1: port 8443 is taken"])["ok"]
    assert not verdict.fleet_report([])["ok"]
    assert not verdict.fleet_report([report(), verdict.missing_report("gpu-2")])["ok"]


def test_an_engine_that_ends_again_and_again_fails_the_fleet_though_each_host_answers() -> None:
    ended = {
        "count": 5,
        "recent": 2,
        "since": 0.0,
        "last_at": 1_795_953_600.0,
        "last_cause": "it was killed by SIGKILL",
    }
    settled = verdict.host_report("gpu-1", [GOOD], ENDPOINT, plan(), {**RUNS, "ended": ended})
    restless = verdict.host_report("gpu-2", [GOOD], ENDPOINT, plan(), {**RUNS, "ended": {**ended, "recent": 3}})
    assert settled["ok"] and restless["ok"]
    assert verdict.fleet_report([settled])["ok"] and not verdict.fleet_report([settled, restless])["ok"]
    assert verdict.restless([settled, restless]) == ["gpu-2"]
    assert verdict.restarted([report(), settled]) == [
        "  gpu-1: restarts of the engine by itself: 5 in the month that is kept, 2 in the last day; "
        "the last time at 2026-11-29T12:00:00Z: it was killed by SIGKILL"
    ]
    (line,) = verdict.restarted([verdict.host_report("gpu-3", [GOOD], ENDPOINT, plan(), {**RUNS, "ended": None})])
    assert line.startswith("  gpu-3: restarts of the engine by itself: not known, as its record cannot be read")


def test_the_table_is_aligned_and_says_who_was_not_verified() -> None:
    skipped = finding.not_proven("verify", "closed", "a closed port", "it cannot be resolved")
    rows = [report(checks=(GOOD, skipped)), report("a-longer-name", (GOOD, BAD)), verdict.missing_report("gpu-3")]
    lines = verdict.table(rows)
    verdicts = lines[0].index("verdict")
    assert [line[verdicts:].split("  ")[0].strip() for line in lines[2:]] == ["ok", "FAILED", "NOT VERIFIED"]
    assert " 1/1 " in lines[2] and " 1/2 " in lines[3]


def test_the_table_shows_the_engine_that_was_seen_and_never_the_planned_one() -> None:
    (line,) = verdict.table([report()])[2:]
    assert "sglang 0.5.10" in line and "vllm" not in line
    (line,) = verdict.table([verdict.host_report("gpu-1", [GOOD], ENDPOINT, plan(), {**RUNS, "release": 7})])[2:]
    assert "  sglang 0.5.10  7        ok  " in line
    unseen = verdict.host_report("gpu-1", [GOOD], ENDPOINT, plan())
    (line,) = verdict.table([unseen])[2:]
    assert "  -  " in line and "vllm" not in line


def test_the_request_to_paste_reads_the_key_from_its_file() -> None:
    text = "\n".join(verdict.curl_lines(report(), "/home/me/a dir/api_key"))
    assert " '/home/me/a dir/api_key' | curl -H @- http" in text and "/v1/chat/completions" in text
    assert "$GLM_API_KEY" in "\n".join(verdict.curl_lines(report(), None))


def test_a_fleet_is_reached_by_its_gateways_first_and_each_host_by_itself() -> None:
    alone = verdict.addresses(verdict.fleet_report([report(), report("gpu-2")]))
    assert len(alone) == 3 and alone[0].startswith("Endpoints ") and alone[1] == "  http://10.0.0.5:8000/v1  gpu-1"
    found: list[FleetGateway] = [{"host": f"gpu-{n}", "url": f"https://10.0.0.{n}:8443/v1"} for n in (1, 2)]
    lines = verdict.addresses(verdict.fleet_report([report(), report("gpu-2")], gateways=found))
    assert lines[1:3] == ["  https://10.0.0.1:8443/v1  gpu-1", "  https://10.0.0.2:8443/v1  gpu-2"]
    assert "one address" in lines[0] and lines[4:] == alone
    same: list[FleetGateway] = [{**one, "url": "https://glm.example.com:8443/v1"} for one in found]
    lines = verdict.addresses(verdict.fleet_report([report()], gateways=same))
    assert lines[1:3] == ["  https://glm.example.com:8443/v1  gpu-1, gpu-2", ""]
    assert verdict.addresses(verdict.fleet_report([report(checks=(BAD,))], gateways=found)) == []
    assert "-H @- https://10.0.0.1:8443/v1/chat" in verdict.curl_lines(report(), None, found[0]["url"])[0]


def test_the_request_to_paste_trusts_the_fleets_authority() -> None:
    encrypted = report()
    encrypted["endpoint"] = {**ENDPOINT, "authorities": "/home/me/a dir/ca.pem"}
    assert "| curl --cacert '/home/me/a dir/ca.pem' -H @- http" in verdict.curl_lines(encrypted, None)[0]
    assert "--cacert" not in "".join(verdict.curl_lines(report(), None))


def test_a_worker_is_named_as_such_and_asked_nothing() -> None:
    made = verdict.worker_report("gpu-2", plan(node={"count": 2, "rank": 1, "head_address": "10.0.0.5"}))
    assert made["ok"] and made["checks"][0]["outcome"] == "not_proven" and made["plan"]["node"]["rank"] == 1
    assert "whose head is 10.0.0.5" in made["checks"][0]["found"]
    (line,) = verdict.table([made])[2:]
    assert " worker " in line and " 0/0 " in line
