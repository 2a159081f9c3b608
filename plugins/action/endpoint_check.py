# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``endpoint_check``: what others reach of the host, keep the verdict, name what failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address, arguments, files, finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, Unmet, advised
from ansible_collections.glm.fleet.plugins.module_utils.serving import exposure
from ansible_collections.glm.fleet.plugins.module_utils.serving.trust import Trust
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import starts, tls
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.report import ServedEndpoint, VerifyReport, now
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import (
    asking,
    baseline,
    filtered,
    outside,
    running,
    verdict,
)
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import read_authorities

CONTROLLER_OPTIONS = (
    "places",
    "meant",
    "neighbour",
    "ssh_port",
    "walls",
    "running",
    "report",
    "plan",
    "tls_ca",
    "context_share",
    "eval_scores",
    "eval_margin",
    "lock_file",
)


class ActionModule(FleetAction):
    """Run the module on the host, add the view from outside, write the report."""

    LABEL = "verify"
    ARGUMENTS = arguments.ENDPOINT_CHECK

    def _outcome(self) -> dict[str, Any]:
        own, plan = self._args, self._args["plan"]
        if plan and plan["node"]["rank"]:
            report = verdict.worker_report(self._host, plan, [*self._of_host(plan), *self._outside({})], own["running"])
            kept = self._keep(own["report"], report)
            return self._ended({}, report, kept)
        given = {name: value for name, value in self._task.args.items() if name not in CONTROLLER_OPTIONS}
        asked = {**asking.options(plan, own["context_share"]), **given}
        if self._task.check_mode:
            # No request is sent, and before the first real run there is no authority to trust.
            return self._module("glm.fleet.endpoint_check", asked)
        authorities = own["tls_ca"] if asked.get("tls_name") else ""
        if authorities:
            asked.setdefault("tls_authorities", read_authorities(authorities))
        if not asked.get("model"):
            raise self._failure(finding.unmet("the name of the served model", "none", "give the task plan or model"))
        answer = self._module("glm.fleet.endpoint_check", asked)
        if "checks" not in answer or answer.get("skipped"):
            return answer
        answer = self._named(answer)
        self._learn(plan, answer)
        checks: list[Finding] = [*answer["checks"], *self._scored(plan, asked, answer.get("eval"))]
        checks += [*self._of_host(plan), *self._outside(asked)]
        endpoint: ServedEndpoint = {
            "url": tls.url(plan) if plan else address.url(own["address"], int(own["port"]), "/v1"),
            "model": asked["model"],
            "authorities": authorities or "",
        }
        report = verdict.host_report(self._host, checks, endpoint, plan, own["running"])
        return self._ended(answer, report, self._keep(own["report"], report))

    def _learn(self, plan: Plan | None, answer: dict[str, Any]) -> None:
        """Keep what a healthy start reported of the GPUs' memory for later plans. The verdict does not depend on it."""
        lock_file, pool = self._args["lock_file"], answer.get("token_pool")
        sound = any(one["check"] == "kv_pool" and one["outcome"] == "passed" for one in answer["checks"])
        if plan is None or not lock_file or not pool or not sound:
            return
        try:
            starts.keep(lock_file, plan, self._host, pool, now())
        except Unmet as problem:
            answer.setdefault("warnings", []).append(f"{self._host}, verify: {problem}")

    def _ended(self, answer: dict[str, Any], report: VerifyReport, kept: Mapping[str, Any]) -> dict[str, Any]:
        """The task's result: the verdict, and whether its report could be written."""
        failed = self._args["strict"] and not report["ok"]
        answer.update(ok=report["ok"], checks=report["checks"], report=report, failed=failed, changed=False)
        answer.update(kept)
        if failed:
            answer["msg"] = "\n".join([verdict.failure_text(report), *([kept["msg"]] if kept else [])])
        return answer

    def _of_host(self, plan: Plan | None) -> list[Finding]:
        """Whether the replica runs as planned, and systemd filters who may talk to it, where somebody looked."""
        if plan is None:
            return []
        looked = ((running.judged, self._args["running"]), (filtered.judged, self._args["walls"]))
        return [judged(plan, seen) for judged, seen in looked if seen is not None]

    def _outside(self, asked: Mapping[str, Any]) -> list[Finding]:
        """What the controller and a neighbour of the host get who try its sockets."""
        places, meant, neighbour = (self._args[name] for name in ("places", "meant", "neighbour"))
        if places is None:
            return []
        begun = time.monotonic()
        name = asked.get("tls_name")
        trusted = Trust(name, str(asked.get("tls_authorities") or "")) if name else None
        doors = [int(one["port"]) for one in meant if one.get("door", True)]
        seen = exposure.seen(places, doors, self._args["api_key"], trusted)
        mine = outside.Tried("the controller", seen["outcomes"], seen["answers"], time.monotonic() - begun)
        # Not port 22 as well: where another one is forwarded to the host, somebody else answers there.
        host = outside.Host(places, {int(self._args["ssh_port"] or outside.SSH_PORT)}, meant)
        return [outside.judged("closed", host, mine), *([outside.of_neighbour(host, neighbour)] if neighbour else [])]

    def _scored(self, plan: Plan | None, asked: Mapping[str, Any], counted: Any) -> list[Finding]:
        """The finding about the mini-eval, if one was asked for."""
        if not self._args["eval"]:
            return []
        if not counted:
            return [finding.not_proven("verify", "eval", "right answers of the mini-eval", "a check before it failed")]
        margin, path = self._args["eval_margin"], self._args["eval_scores"]
        score = baseline.made(plan, asked["questions"], counted)
        if not (plan and path):
            return [baseline.judged(score, counted, [], margin)]
        try:
            return [baseline.settled(Path(path).expanduser(), plan, score, counted, margin)]
        except Unmet as problem:
            return [{**problem.finding("verify"), "check": "eval"}]

    def _keep(self, path: Any, report: VerifyReport) -> dict[str, Any]:
        """Write the report; what the result gets when that fails, since a run without its report is incomplete."""
        if not path or self._task.check_mode:
            return {}
        file = Path(str(path)).expanduser()
        try:
            files.write_json(file, report)
        except OSError as exc:
            verdict_text = "every check passed" if report["ok"] else "checks failed"
            return self._failure(
                advised(
                    f"{verdict_text}, but the report cannot be written to {file}: {exc.strerror or exc}",
                    "free space there or set glm_state_dir to a folder that can be written",
                )
            ).result
        return {}
