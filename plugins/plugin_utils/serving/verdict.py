# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts about endpoints: what a host's report holds, what a fleet's holds, and how a person reads them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts
from ansible_collections.glm.fleet.plugins.plugin_utils import columns, report
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import (
    FleetGateway,
    FleetReport,
    Served,
    ServedEndpoint,
    VerifyReport,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import running


def host_report(
    host: str,
    checks: Sequence[Finding],
    endpoint: ServedEndpoint,
    plan: Plan | None,
    seen: Mapping[str, Any] | None = None,
) -> VerifyReport:
    """The report of one host; ``seen`` is what runs as the replica (module_utils/serving/running.py)."""
    return {
        "schema": report.SCHEMA,
        "kind": "verify",
        "host": host,
        "ok": bool(checks) and finding.verdict_ok(checks),
        "checks": list(checks),
        "endpoint": endpoint,
        "plan": plan_summary(plan) if plan else {},
        "running": running.served(seen or {}),
        "seconds": round(sum(check.get("seconds", 0.0) for check in checks), 2),
        "finished_at": report.now(),
    }


def plan_summary(plan: Plan) -> Served:
    """What was served, without how: names, versions and pinned revisions."""
    model, node, accelerator, image = plan["model"], plan["node"], plan["accelerator"], plan["image"]
    return {
        "replica": plan["replica"],
        "node": {"count": node["count"], "rank": node["rank"], "head_address": node["head_address"]},
        "model": {
            "name": model["name"],
            "precision": model["precision"],
            "repository": model["repository"],
            "revision": model["revision"],
        },
        "engine": {"name": plan["engine"]["name"], "version": plan["engine"]["version"]},
        "image": image["reference"] if image else None,
        "accelerator": {"name": accelerator["name"], "count": accelerator["count"]},
        "served_model_name": plan["served_model_name"],
    }


def failure_text(report: VerifyReport) -> str:
    """Each failed check of a host with what was expected, what was found and what to do."""
    return finding.summary(report["checks"], f"{report['host']}, verify")


def worker_report(
    host: str, plan: Plan, others: Sequence[Finding] = (), seen: Mapping[str, Any] | None = None
) -> VerifyReport:
    """The report of a host that only computes: its endpoint is the head's, whose answers need every rank."""
    node = plan["node"]
    expected = "an endpoint on the first host of the replica only"
    found = f"rank {node['rank']} of {node['count']}, whose head is {node['head_address']}"
    return host_report(host, [finding.not_proven("verify", "endpoint", expected, found), *others], {}, plan, seen)


def missing_report(
    host: str,
    reason: str = "not verified in this run: it failed before, or was not part of it",
    findings: Sequence[Finding] = (),
) -> VerifyReport:
    """The report of a host that this run did not get as far as verifying; ``findings`` are what stopped it."""
    return {**host_report(host, findings, {}, None), "reason": finding.printable(reason, newlines=True)}


def fleet_report(
    reports: Sequence[VerifyReport],
    ok: bool = True,
    gateways: Sequence[FleetGateway] = (),
    problems: Sequence[str] = (),
) -> FleetReport:
    """All hosts and gateways, and what is wrong besides hosts.

    ``ok`` only if every host is, no engine ends again and again and there are no ``problems``, and never if it is not
    ``ok`` anyway.
    """
    return {
        "schema": report.SCHEMA,
        "kind": "fleet",
        "ok": ok and bool(reports) and all(one["ok"] for one in reports) and not restless(reports) and not problems,
        "hosts": list(reports),
        "gateways": list(gateways),
        "problems": list(problems),
        "finished_at": report.now(),
    }


def stopped_report(host: str, phase: str, reason: str, findings: Sequence[Finding] = ()) -> VerifyReport:
    """The report of a host that failed before it was verified: in which task, with what message and findings."""
    return {**missing_report(host, reason, findings), "phase": finding.printable(phase)}


def reasons(reports: Sequence[VerifyReport]) -> list[str]:
    """Why hosts are not verified, a line each: the task that failed, and the first line of what it said."""
    lines = []
    for entry in reports:
        if entry["ok"] or not entry.get("reason"):
            continue
        first = next(iter(entry["reason"].strip().splitlines()), "it gave no reason")
        where = f"{entry['phase']}: " if entry.get("phase") else ""
        lines.append(f"  {finding.printable(entry['host'])}: {where}{first}")
    return lines


def restless(reports: Sequence[VerifyReport]) -> list[str]:
    """The hosts whose engines end again and again, however well they answer in between."""
    return [
        entry["host"] for entry in reports if restarts.again_and_again((entry.get("running") or {}).get("restarts"))
    ]


def restarted(reports: Sequence[VerifyReport]) -> list[str]:
    """How often engines ended by themselves, a line for each that did."""
    lines = []
    for entry in reports:
        running = entry.get("running") or {}
        seen = running.get("restarts")
        counted, last = "not known, as its record cannot be read", "look at /var/lib/glm/restarts on the host"
        if seen:
            last = f"the last time at {seen['last_at']}: {seen['last_cause']}"
            counted = f"{seen['count']} in the month that is kept, {seen['recent']} in the last day"
        if running and (seen is None or seen["count"]):
            lines.append(f"  {finding.printable(entry['host'])}: restarts of the engine by itself: {counted}; {last}")
    return lines


def table(reports: Sequence[VerifyReport]) -> list[str]:
    """The fleet as lines of a table with aligned columns."""
    rows = [("host", "endpoint", "model", "engine", "release", "verdict", "checks", "seconds"), *map(_row, reports)]
    return columns.ruled(rows)


def _row(entry: VerifyReport) -> tuple[str, ...]:
    if entry.get("reason"):
        return (finding.printable(entry["host"]), "-", "-", "-", "-", "NOT VERIFIED", "-", "-")
    runs = entry.get("running") or {}
    passed, made = finding.tally(entry["checks"])
    cells = (
        entry["host"],
        entry["endpoint"].get("url", "-"),
        entry["endpoint"].get("model", "-"),
        running.words_of(runs) or "-",
        str(runs.get("release", "-")),
        _verdict(entry),
        f"{passed}/{made}",
        f"{entry['seconds']:.1f}",
    )
    return tuple(map(finding.printable, cells))


def _verdict(entry: VerifyReport) -> str:
    if not entry["ok"]:
        return "FAILED"
    node = entry["plan"].get("node")
    return "worker" if node and node["rank"] else "ok"


def addresses(fleet: FleetReport) -> list[str]:
    """Where clients reach a fleet, as lines for people: its gateways, and each host. Empty where no host serves."""
    serving = [report for report in fleet["hosts"] if report["ok"] and report["endpoint"]]
    if not serving:
        return []
    at = "Endpoints (reachable where they listen; from elsewhere through an ssh tunnel):"
    lines = [at, *(f"  {report['endpoint']['url']}  {report['host']}" for report in serving)]
    if not fleet["gateways"]:
        return lines
    urls = dict.fromkeys(one["url"] for one in fleet["gateways"])
    hosts = {url: ", ".join(one["host"] for one in fleet["gateways"] if one["url"] == url) for url in urls}
    gateways = [f"  {url}  {names}" for url, names in hosts.items()]
    return ["The fleet at one address, by each of its gateways (docs/gateway.md):", *gateways, "", *lines]


def curl_lines(report: VerifyReport, key_file: str | None, url: str = "") -> list[str]:
    """A request to paste, to the host's endpoint or to ``url``. The key goes from its file to curl through a pipe: no
    process list has it."""
    header = "Authorization: Bearer "
    key = f"sed 's/^/{header}/' {shlex.quote(key_file)}" if key_file else f"printf '{header}%s' \"$GLM_API_KEY\""
    authorities = report["endpoint"].get("authorities")
    trust = f"--cacert {shlex.quote(authorities)} " if authorities else ""
    body = {"model": report["endpoint"]["model"], "messages": [{"role": "user", "content": "Hello"}]}
    return [
        f"{key} | curl {trust}-H @- {url or report['endpoint']['url']}/chat/completions \\",
        '  -H "Content-Type: application/json" \\',
        f"  -d {shlex.quote(json.dumps(body))}",
    ]
