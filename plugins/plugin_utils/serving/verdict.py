# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts about endpoints: what a host's report holds, what a fleet's holds, and how a person reads them."""

from __future__ import annotations

import datetime
import json
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

SCHEMA = 1
CONNECT_SECONDS = 5.0


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def closed_check(closed_address: str, port: int, listen: str, seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
    """Whether ``closed_address:port`` refuses connections from here, as an entry of ``checks``.

    Skipped, with the reason in ``found``, where the endpoint is meant to be reachable at that address.
    """
    begun = time.monotonic()
    check: dict[str, Any] = {"name": "closed", "ok": True, "remedy": ""}
    check["expected"] = f"port {port} on {closed_address} is closed to the controller"
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo(closed_address, port, type=socket.SOCK_STREAM)}
    except OSError as exc:
        return {**check, "skipped": True, "found": f"{closed_address} cannot be resolved: {exc}", "seconds": 0.0}
    if address.is_wildcard(listen):
        reason = f"the endpoint is meant to listen on every address ({listen})"
        return {**check, "skipped": True, "found": reason, "seconds": 0.0}
    if listen in addresses:
        reason = f"the endpoint is meant to listen on this address ({listen})"
        return {**check, "skipped": True, "found": reason, "seconds": 0.0}
    try:
        socket.create_connection((closed_address, port), timeout=seconds).close()
    except ConnectionRefusedError:
        check["found"] = "refused"
    except OSError as exc:
        check["found"] = f"no connection ({exc.strerror or exc})"
    else:
        check.update(
            ok=False,
            found="a connection was accepted",
            remedy=(
                "bind the endpoint to loopback or a private address (glm_bind), or take the rule that opens the port "
                "out of the cloud's firewall; Docker's own rules pass by one on the host"
            ),
        )
    return {**check, "seconds": round(time.monotonic() - begun, 2)}


def endpoint_url(listen: str, outside: str | None, port: int) -> str:
    """The base URL to use. An endpoint on every address is named by the one that is known from outside."""
    host = outside if outside and address.is_wildcard(listen) else listen
    return address.url(host, port, "/v1")


def host_report(
    host: str, checks: Sequence[Mapping[str, Any]], endpoint: Mapping[str, Any], plan: Plan | None
) -> dict[str, Any]:
    """The report of one host: ``{schema, host, ok, checks, endpoint, plan, seconds, finished_at}``."""
    return {
        "schema": SCHEMA,
        "host": host,
        "ok": bool(checks) and all(check["ok"] for check in checks),
        "checks": [dict(check) for check in checks],
        "endpoint": dict(endpoint),
        "plan": plan_summary(plan) if plan else {},
        "seconds": round(sum(check["seconds"] for check in checks), 2),
        "finished_at": now(),
    }


def plan_summary(plan: Plan) -> dict[str, Any]:
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


def failure_text(report: Mapping[str, Any]) -> str:
    """Each failed check of a host with what was expected, what was found and what to do."""
    failed = [check for check in report["checks"] if not check["ok"]]
    lines = [
        f"  {check['name']}: expected {check['expected']}; found {check['found']}. Next: {check['remedy']}."
        for check in failed
    ]
    head = f"{report['host']}, verify: {len(failed)} of {len(report['checks'])} checks failed"
    return "\n".join([head, *lines])


def worker_report(host: str, plan: Plan) -> dict[str, Any]:
    """The report of a host that only computes: its endpoint is the head's, whose answers need every rank."""
    node = plan["node"]
    check = {
        "name": "endpoint",
        "ok": True,
        "skipped": True,
        "expected": "an endpoint on the first host of the replica only",
        "found": f"rank {node['rank']} of {node['count']}, whose head is {node['head_address']}",
        "remedy": "",
        "seconds": 0.0,
    }
    return host_report(host, [check], {}, plan)


def missing_report(host: str) -> dict[str, Any]:
    """The report of a host that this run did not get as far as verifying."""
    report = host_report(host, [], {}, None)
    report["reason"] = "not verified in this run: it failed before, or was not part of it"
    return report


def fleet_report(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All hosts: ``{schema, ok, hosts: [report…], finished_at}``; ok only if every host is."""
    return {
        "schema": SCHEMA,
        "ok": bool(reports) and all(report["ok"] for report in reports),
        "hosts": [dict(report) for report in reports],
        "finished_at": now(),
    }


def stopped_report(host: str, phase: str, reason: str) -> dict[str, Any]:
    """The report of a host that failed before it was verified: in which task, and with what message."""
    return {**missing_report(host), "phase": phase, "reason": reason}


def reasons(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why hosts are not verified, a line each: the task that failed, and the first line of what it said."""
    lines = []
    for report in reports:
        if report["ok"] or report["checks"] or not report.get("reason"):
            continue
        first = str(report["reason"]).strip().splitlines()[0]
        lines.append(f"  {report['host']}: {report['phase'] + ': ' if report.get('phase') else ''}{first}")
    return lines


def table(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fleet as lines of a table with aligned columns."""
    rows = [("host", "endpoint", "model", "engine", "verdict", "checks", "seconds"), *map(_row, reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _row(report: Mapping[str, Any]) -> tuple[str, ...]:
    checks = report["checks"]
    if not checks:
        return (report["host"], "-", "-", "-", "NOT VERIFIED", "-", "-")
    engine = report["plan"].get("engine") or {}
    tried = [check for check in checks if not check.get("skipped")]
    return (
        report["host"],
        report["endpoint"].get("url", "-"),
        report["endpoint"].get("model", "-"),
        " ".join(str(engine.get(key)) for key in ("name", "version")) if engine else "-",
        "worker" if report["ok"] and not tried else "ok" if report["ok"] else "FAILED",
        f"{sum(check['ok'] for check in tried)}/{len(tried)}",
        f"{report['seconds']:.1f}",
    )


def curl_lines(report: Mapping[str, Any], key_file: str | None) -> list[str]:
    """A request to paste. The key is read from its file by the shell, never printed."""
    key = f"$(cat {shlex.quote(key_file)})" if key_file else "$GLM_API_KEY"
    body = {"model": report["endpoint"]["model"], "messages": [{"role": "user", "content": "Hello"}]}
    return [
        f"curl {report['endpoint']['url']}/chat/completions \\",
        f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
        f"  -d {shlex.quote(json.dumps(body))}",
    ]
