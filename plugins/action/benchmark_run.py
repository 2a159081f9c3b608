# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of ``glm.fleet.benchmark_run``: what to run, progress while a host measures, and the record of it."""

from __future__ import annotations

import time
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import arguments
from ansible_collections.glm.fleet.plugins.module_utils.benchmark.job import AUTHORITIES
from ansible_collections.glm.fleet.plugins.module_utils.finding import unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.remote_job import RemoteJobAction
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import keeping
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import record as benchmark_record
from ansible_collections.glm.fleet.plugins.plugin_utils.benchmark import runs as benchmark_runs
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking
from ansible_collections.glm.fleet.plugins.plugin_utils.tls.certificate import read_authorities


class ActionModule(RemoteJobAction):
    """Choose the client and its runs, start them on the host, watch, judge, keep."""

    MODULE = "glm.fleet.benchmark_run"
    LABEL = "benchmark"
    ARGUMENTS = arguments.BENCHMARK_RUN
    INTERNAL = ("phase", "job")

    def _outcome(self) -> dict[str, Any]:
        plan = self._args["plan"]
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "check mode: nothing was measured"}
        if (plan.get("node") or {}).get("rank"):
            msg = f"rank {plan['node']['rank']} has no endpoint of its own; the head {plan['node']['head_address']} has"
            return {"changed": False, "skipped": True, "msg": msg}
        self._prepare(plan)
        started = self._on_host("start", job=self._job)
        if started.get("reattached"):
            self._say("an earlier run's measurement is still running, watching it")
        state = self._watch(started["state"])
        return self._kept(plan, state)

    def _prepare(self, plan: Plan) -> None:
        """Decide everything that can be decided without the host. Raises RunError and CatalogError."""
        args = self._args
        host, tokenizer = args["client_host"], args["tokenizer"] or ""
        # On a host of its own a client may have measured others.
        place = f"{self._host}-{plan['replica']}" if host else str(plan["replica"])
        folder = args["folder"] or f"{plan['paths']['data']}/benchmarks/{place}"
        reached_at = str(self._task_vars.get("ansible_host") or self._host)
        known = catalog.load(folders=args["catalog"])
        if args["keep"]:
            keeping.require(known, args["catalog"], plan["model"]["name"], args["scale"])
        self._workload = benchmark_runs.workload(known, args["workload"], args["workloads"], args["scale"])
        self._client = benchmark_runs.client(plan, folder, args["client_image"], args["client_path"], host, tokenizer)
        address = benchmark_runs.endpoint_address(plan, args["address"], host, reached_at)
        seed = int(time.time()) if args["seed"] is None else args["seed"]
        self._runs = benchmark_runs.runs(
            plan, self._workload, self._client, address, args["repeats"], args["warmup"], seed
        )
        self._job = {
            "folder": folder,
            "fingerprint": benchmark_runs.fingerprint(plan, self._workload, args["repeats"], args["warmup"]),
            "address": address,
            "port": plan["listen"]["port"],
            "engine": self._engine(plan, address),
            "model": plan["served_model_name"],
            "tokens": self._workload.input_tokens + self._workload.output_tokens,
            "program": self._client.program,
            "environment": {**catalog.load().measuring[1].env, **self._trusted(plan)},
            "tls_name": address if plan["tls"] else "",
            "authorities": self._authorities(plan),
            "metrics": asking.metric_rules(plan),
            "container": benchmark_runs.container(plan, self._client, self._host, tokenizer),
            "runs": self._runs,
        }

    def _engine(self, plan: Plan, address: str) -> Optional[dict[str, Any]]:
        """Where metrics come from: only the host that serves reaches the engine itself."""
        args = self._args
        if not args["client_host"]:
            return benchmark_runs.engine_of(plan)
        return benchmark_runs.monitor_of(plan, args["monitor_address"], args["monitor_port"], address)

    def _authorities(self, plan: Plan) -> str:
        """PEM of the authorities that the client trusts; empty for those of its machine. Raises Unmet."""
        return read_authorities(self._args["tls_ca"]) if plan["tls"] and self._args["tls_ca"] else ""

    def _trusted(self, plan: Plan) -> dict[str, str]:
        """What makes the client trust them: OpenSSL's own variable."""
        return {"SSL_CERT_FILE": f"{self._client.results}/{AUTHORITIES}"} if self._authorities(plan) else {}

    def _watch(self, state: dict[str, Any]) -> dict[str, Any]:
        """Follow the runs to their end and return the last state."""
        spoken = 0
        while True:
            outcome = self._status(job=self._job)
            state = outcome["state"]
            for done in state["outcomes"][spoken:]:
                self._say(done_line(done))
            spoken = len(state["outcomes"])
            if state["finished"]:
                return state
            if state["now"]:
                self._say(progress_line(state))
            time.sleep(self._args["poll"])

    def _kept(self, plan: Plan, state: dict[str, Any]) -> dict[str, Any]:
        # A job that another call began has its own seeds; the host knows what it ran.
        runs = state.get("runs") or self._runs
        record = benchmark_record.make(
            self._host, plan, self._workload, self._client, runs, state, self._args["quality"], self._args["gpus"]
        )
        try:
            file = benchmark_record.keep(self._args["state_dir"], record)
        except OSError as exc:
            advice = "free space there or set glm_state_dir to a folder that can be written"
            text = unmet(f"to keep the record in {self._args['state_dir']}", exc.strerror or exc, advice)
            raise Failed({"msg": text}) from exc
        answer = {"changed": False, "ok": record["ok"], "record": record, "file": str(file)}
        if record["ok"] or not self._args["strict"]:
            return answer
        head = f"{self._host}: {self.LABEL}: "
        return {**answer, "failed": True, "msg": f"{head}{benchmark_record.failure_text(record)}\n  Record: {file}"}


def progress_line(state: dict[str, Any]) -> str:
    """One line for people from the state of a job on its host."""
    now = state["now"]
    parts = [f"run {now['run']} of {state['total']} ({now['name']})"]
    if now["done"] is not None:
        parts.append(f"{now['done']} of {now['prompts']} done")
    if now["running"] is not None:
        parts.append(f"{now['running']:.0f} running, {now['waiting'] or 0:.0f} waiting")
    if now["kv_usage"] is not None:
        parts.append(f"KV cache {100 * now['kv_usage']:.0f} % full")
    return ", ".join([*parts, f"{now['seconds']} s"])


def done_line(outcome: dict[str, Any]) -> str:
    """One line for people when a run ended."""
    result = outcome["result"]
    if not result or outcome.get("error") or result["failed"]:
        return f"{outcome['name']}: not a measurement, after {outcome['seconds']:.0f} s"
    rate, ttft = result["output_throughput"], result["mean_ttft_ms"]
    return f"{outcome['name']}: {rate:,.1f} tok/s out, first token after {ttft:,.0f} ms, {outcome['seconds']:.0f} s"
