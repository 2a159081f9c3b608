# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show and keep the verdict of a whole fleet. Documented in ``plugins/modules/fleet_report.py``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised, printable
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.report import FleetGateway, FleetReport
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict

VERDICT, RELEASE = "__verify_result", "__deploy_release"
GATEWAY, GATEWAY_PROBLEM = "__gateway_url", "__gateway_problem"
CAUSE, PUT_BACK = "__deploy_cause", "__deploy_put_back"


class ActionModule(FleetAction):
    """Collect the verdicts of this run from the hosts' variables."""

    LABEL = "report"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "api_key_file": {"type": "path"},
        "begin": {"type": "bool", "default": False},
        "gateways": {"type": "list", "elements": "str", "default": []},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        args = self._args
        path = Path(args["state_dir"]).expanduser() / "reports" / "fleet.json"
        if args["begin"]:
            if not self._task.check_mode:
                files.write_json(path, verdict.fleet_report([verdict.missing_report(host) for host in args["hosts"]]))
            return {"changed": False, "ok": False, "report": str(path), "hosts": args["hosts"], "begin": True}
        found = {host: self._verdicts(host) for host in args["hosts"]}
        if self._task.check_mode or any(answer.get("skipped") for answers in found.values() for answer in answers):
            return {"changed": False, "skipped": True, "msg": "check mode: nothing was verified"}
        reports = [
            answer.get("report") or verdict.missing_report(host)
            for host, answers in found.items()
            for answer in answers or [{}]
        ]
        fleet = verdict.fleet_report(reports, gateways=self._gateways(), problems=self._gateway_problems())
        try:
            files.write_json(path, fleet)
        except OSError as exc:
            text = advised(
                f"{path} cannot be written: {exc.strerror or exc}",
                "free space there or set glm_state_dir to a folder that can be written",
            )
            raise self._failure(text, ok=fleet["ok"]) from None
        key_file = args["api_key_file"] or str(Path(args["state_dir"]).expanduser() / "api_key")
        self._show(_lines(fleet, path, key_file if Path(key_file).is_file() else None))
        answer: dict[str, Any] = {"changed": False, "ok": fleet["ok"], "report": str(path)}
        bad = list(dict.fromkeys(report["host"] for report in reports if not report["ok"]))
        if bad or not reports:
            text = advised(
                f"{len(bad)} of {len(found)} hosts are not verified: {', '.join(bad)}", "read their errors above"
            )
            raise self._failure(f"{text}; details in {path}", **answer)
        if restless := list(dict.fromkeys(verdict.restless(reports))):
            text = advised(
                f"every host is verified, but engines end again and again on {', '.join(restless)}",
                "find the cause in the journal of glm-serve-<n>.service there",
            )
            raise self._failure(f"{text} Details in {path}", **answer)
        if fleet["problems"]:
            text = advised(
                f"every host is verified, but gateways are not up to date: {'; '.join(fleet['problems'])}",
                "fix that and run deploy.yml again; meanwhile each host answers at its own front door",
            )
            raise self._failure(text, **answer)
        return answer

    def _gateway_problems(self) -> list[str]:
        """Why gateways could not be brought up to date in this run, each with its host."""
        hosts = dict.fromkeys([*self._args["gateways"], *self._args["hosts"]])
        return [
            f"gateway of {host}: {printable(problem)}" for host, problem in self._noted(GATEWAY_PROBLEM, hosts).items()
        ]

    def _gateways(self) -> list[FleetGateway]:
        """The gateways that this run brought up."""
        return [{"host": host, "url": url} for host, url in self._noted(GATEWAY, self._args["gateways"]).items()]

    def _noted(self, fact: str, hosts: Iterable[str]) -> dict[str, str]:
        """A text that plays have noted of hosts in this run; those without it are left out."""
        hostvars = self._task_vars.get("hostvars") or {}
        found = {host: hostvars[host].get(fact) for host in hosts if host in hostvars}
        return {host: str(text) for host, text in found.items() if text}

    def _verdicts(self, host: str) -> list[dict[str, Any]]:
        """What endpoint_check answered for each replica on the host in this run; empty if it did not get that far."""
        hostvars = self._task_vars.get("hostvars") or {}
        # Of a host that ansible does not know, get() has no default in every version.
        known = hostvars[host] if host in hostvars else {}  # noqa: SIM401
        found = [dict(one) for one in (known.get(VERDICT) or {}).get("results", [])]
        cause, back = known.get(CAUSE), known.get(PUT_BACK)
        if cause and (back or all((one.get("report") or {}).get("ok") for one in found)):
            # A good verdict is that of what was put back, or of a part of a replica.
            reason = (back or cause)["reason"]
            return [{"report": verdict.stopped_report(host, cause["phase"], reason, cause.get("findings", []))}]
        # What passed became a release of the host after it was verified.
        kept = known.get(RELEASE) or {}
        if kept.get("number"):
            for one in filter(lambda answer: answer.get("report"), found):
                runs = {**one["report"].get("running", {}), "release": kept["number"]}
                one["report"] = {**one["report"], "running": runs}
        return found


def _lines(fleet: FleetReport, path: Path, key_file: str | None) -> list[str]:
    """The verdict for the terminal."""
    lines = ["", *verdict.table(fleet["hosts"]), *verdict.reasons(fleet["hosts"])]
    lines += [*verdict.restarted(fleet["hosts"]), ""]
    found = verdict.addresses(fleet)
    if found:
        serving = next(report for report in fleet["hosts"] if report["ok"] and report["endpoint"])
        lines += [*found, "", "Try it (settings of agents and packages: docs/clients.md):"]
        lines += [*verdict.curl_lines(serving, key_file, *(one["url"] for one in fleet["gateways"][:1])), ""]
    return [*lines, f"Report: {path}"]
