# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the benchmark client on a host, run after run, without the controller, and keep what it and the engine said.

This module util is PRIVATE to the collection.

The client's result is read, never its exit status: that is 0 also when every
request failed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.benchmark import metrics
from ansible_collections.glm.fleet.plugins.module_utils.host.background import Background
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import run, search_path
from ansible_collections.glm.fleet.plugins.module_utils.serving import metrics as engine_metrics
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import Endpoint, glance

LOOK_SECONDS = 0.2
# In the folder of a replica: certificates of the authorities that the client trusts.
AUTHORITIES = "ca.pem"
SILENT = "the endpoint sent nothing"
# Per request, and by far the most of a result; the figures are computed from them already.
_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts")
_DONE = re.compile(r"(\d+)/(\d+) \[")


@dataclass(frozen=True)
class Job:
    """What to run. ``runs`` have ``name``, ``prompts`` and ``argv`` (after ``command``), which writes ``result``.

    ``stop`` ends a client that outlives ``run_timeout``, or waits for an endpoint that said nothing for
    ``silence_timeout`` seconds. ``fingerprint`` distinguishes two jobs. ``environment`` is added to the client's and is
    never written anywhere. ``metrics`` are the rules of serving/metrics.py for the engine that serves, which shows
    them at ``metrics_path``. ``gpus``:
    whether the GPUs of this machine are the ones that serve, and are looked at.
    """

    fingerprint: str
    endpoint: Endpoint
    command: Sequence[str]
    runs: Sequence[Mapping[str, Any]]
    metrics: Sequence[Mapping[str, Any]] = ()
    metrics_path: str = "/metrics"
    stop: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    run_timeout: float = 14400
    silence_timeout: float = 300
    sample_seconds: float = 5
    gpus: bool = True


class Folder(Background):
    """The place of a replica's benchmarks on the host; at most one runs at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path / "lock", path / "state.json")
        self.path = path

    def begin(self, job: Job) -> bool:
        """Begin the job in a detached process, with the last one's files removed; False when one runs already."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        worker = Worker(job, self)
        return self.start(lambda: self._clear(worker), worker.work)

    def _clear(self, worker: Worker) -> None:
        for old in (*self.path.glob("*.json"), *self.path.glob("*.log")):
            old.unlink()
        worker.save()


class Worker:
    """Carries a job out and keeps ``state.json`` fresh."""

    def __init__(self, job: Job, folder: Folder) -> None:
        self.job = job
        self.folder = folder
        self.state: dict[str, Any] = {
            "fingerprint": job.fingerprint,
            "started": time.time(),
            "total": len(job.runs),
            "command": list(job.command),
            "runs": [dict(run) for run in job.runs],
            "outcomes": [],
            "now": {},
            "finished": False,
            "error": None,
        }

    def save(self) -> None:
        self.state["updated"] = time.time()
        self.folder.write(self.state)

    def finish(self, error: Optional[str] = None) -> None:
        self.state.update(finished=True, error=error, now={})
        self.save()

    def work(self) -> None:
        """The whole job; its last state is written in any case."""
        try:
            self.run()
        except Exception as error:
            self.finish(f"{type(error).__name__}: {error}")

    def run(self) -> None:
        """All runs in order, until one is no measurement: what follows would cost money and prove nothing."""
        self.state["engine"] = self._about_engine()
        for number, wanted in enumerate(self.job.runs):
            outcome = self._one(number, wanted)
            self.state["outcomes"].append(outcome)
            if not complete(outcome, int(wanted["prompts"])):
                break
        self.finish()

    def _about_engine(self) -> dict[str, Any]:
        """The engine's own words about its version."""
        for path in ("/version", "/server_info", "/get_server_info"):
            answer = self._get(path)
            if isinstance(answer, dict) and answer.get("version"):
                return {"version": str(answer["version"]), "source": path}
        return {"version": None, "source": None}

    def _get(self, path: str) -> Any:
        answer = glance(self.job.endpoint.of_engine, path)
        return answer.body if answer is not None and answer.status == 200 else None

    def _answers(self) -> bool:
        """Whether the endpoint says anything at all."""
        return glance(self.job.endpoint, "/v1/models") is not None

    def _one(self, number: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
        log, result = self.folder.path / f"run-{number}.log", self.folder.path / wanted["result"]
        samples: list[dict[str, float]] = []
        gpus: list[list[dict[str, Any]]] = []
        begun = time.monotonic()
        with log.open("wb") as handle:
            client = subprocess.Popen(
                [*self.job.command, *wanted["argv"]],
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": search_path(), **self.job.environment},
                start_new_session=True,
            )
        stopped = self._watch(client, number, wanted, log, begun, samples, gpus)
        outcome: dict[str, Any] = {
            "name": wanted["name"],
            "seconds": round(time.monotonic() - begun, 1),
            "exit_status": client.returncode,
            "result": _result(result),
            "metrics": metrics.summary(samples),
            "gpus": metrics.gpu_summary(gpus),
        }
        if stopped:
            outcome["error"] = stopped
        elif outcome["result"] is None:
            outcome["error"] = f"the client wrote no result (exit status {client.returncode})"
        if outcome.get("error"):
            # With a result the client's last words are a table of zeros; the errors are in it.
            outcome["log"] = _tail(log)
        return outcome

    def _watch(
        self,
        client: subprocess.Popen[bytes],
        number: int,
        wanted: Mapping[str, Any],
        log: Path,
        begun: float,
        samples: list[dict[str, float]],
        gpus: list[list[dict[str, Any]]],
    ) -> str:
        """Sample until the client ends, and once more after; why it had to be stopped, or nothing."""
        heard, done = begun, None
        while True:
            ended = _ended(client, 0 if not samples else self.job.sample_seconds)
            self._sample(samples, gpus)
            elapsed = time.monotonic() - begun
            latest = samples[-1] if samples else {}
            self.state["now"] = {
                "run": number + 1,
                "name": wanted["name"],
                "prompts": wanted["prompts"],
                "done": _done(log),
                "seconds": round(elapsed),
                **{name: latest.get(name) for name in ("running", "waiting", "kv_usage")},
            }
            self.save()
            if ended:
                return ""
            # A killed server can leave a child that holds its port and says nothing; the client would wait for hours.
            if self._answers() or self.state["now"]["done"] != done:
                heard, done = time.monotonic(), self.state["now"]["done"]
            if time.monotonic() - heard > self.job.silence_timeout:
                self._stop(client)
                return f"{SILENT} for {self.job.silence_timeout:g} s, so the client was stopped"
            if elapsed > self.job.run_timeout:
                self._stop(client)
                return f"the client did not end within {self.job.run_timeout:g} s and was stopped"

    def _sample(self, samples: list[dict[str, float]], gpus: list[list[dict[str, Any]]]) -> None:
        text = self._get(self.job.metrics_path)
        found = engine_metrics.parse(text, self.job.metrics) if isinstance(text, str) else {}
        # An engine without metrics is sampled as well: progress is reported with each sample.
        if found or not samples:
            samples.append(found)
        if not self.job.gpus:
            return
        smi = run(("nvidia-smi", f"--query-gpu={','.join(metrics.SMI_FIELDS)}", "--format=csv,noheader,nounits"), 20)
        looked = metrics.parse_smi(smi.stdout) if smi.ok else metrics.read_amdgpu()
        if looked:
            gpus.append(looked)

    def _stop(self, client: subprocess.Popen[bytes]) -> None:
        if self.job.stop:
            run(tuple(self.job.stop), 60)
        client.kill()
        client.wait()


def complete(outcome: Mapping[str, Any], prompts: int) -> bool:
    """Whether every request of a run was answered."""
    result = outcome.get("result")
    return bool(result and not outcome.get("error") and result.get("completed") == prompts and not result.get("failed"))


def _ended(client: subprocess.Popen[bytes], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while client.poll() is None and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return client.poll() is not None


def _result(path: Path) -> Optional[dict[str, Any]]:
    """The client's result without what it keeps per request; of the errors, those that say something."""
    data: Optional[dict[str, Any]] = files.read_json(path)
    if data is None:
        return None
    for name in _DETAILS:
        data.pop(name, None)
    data["errors"] = [error for error in data.get("errors") or [] if error][:3]
    files.write_text(path, json.dumps(data), files.READABLE)
    return data


def _done(log: Path) -> Optional[int]:
    """How many requests the client's progress bar says are done."""
    found = _DONE.findall(_end(log, 400))
    return int(found[-1][0]) if found else None


def _tail(log: Path, lines: int = 15) -> list[str]:
    text = [line.rstrip() for line in re.split(r"[\r\n]+", _end(log, 8000))]
    return [line[:300] for line in text if line][-lines:]


def _end(log: Path, size: int) -> str:
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - size))
            return handle.read().decode("utf-8", "replace")
    except OSError:
        return ""
