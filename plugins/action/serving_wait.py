# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait on the controller for a serving unit; print its phases. Documented in ``plugins/modules/serving_wait.py``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleConnectionFailure

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs

# A host that does not answer for this long is lost; shorter gaps are a network's.
UNREACHABLE_SECONDS = 120
# Two starts and the pause between them, as the unit allows.
ATTEMPTS = 2
SLACK_SECONDS = 180
AGAIN = "systemd tries once more"
STOPPING = "stopping"
# Before a line of the engine's log says what it does, in order.
EARLY = (STOPPING, "waiting for the host", "starting the program", "starting the engine")


class Progress:
    """Lines about one unit: at once when its phase changes, every ``silence`` seconds otherwise."""

    def __init__(self, show: Callable[[list[str]], None], host: str, unit: str, budget: int, silence: int) -> None:
        self._show = show
        self.host, self.unit = host, unit.removesuffix(".service")
        self.prefix = f"[{self.host}] {self.unit}"
        self.budget = budget
        self.silence = silence
        self.phase = ""
        self.spoken = float("-inf")
        self.latest: tuple[dict[str, Any], float] | None = None

    def show(self, status: dict[str, Any], now: float) -> None:
        self.latest = status, now
        if status["phase"] != self.phase or now - self.spoken >= self.silence:
            self.repeat(now)

    def repeat(self, now: float) -> None:
        """Print what was last known, at the moment ``now``; nothing while nothing is known."""
        if self.latest is None:
            return
        status, then = self.latest
        self.phase, self.spoken = status["phase"], now
        seconds = status["elapsed_seconds"] + round(now - then)
        # The budget is that of a start.
        budget = None if self.phase == STOPPING else self.budget
        self._show([heartbeat.line(self.host, self.unit, self.phase, status["detail"], seconds, budget)])

    def note(self, text: str) -> None:
        self._show([f"{self.prefix}: {text}"])

    def begin_again(self, text: str) -> None:
        """A start ended with ``text``, and how far it was is nothing that the next one reached."""
        self.note(f"{text}; {AGAIN}")
        self.phase, self.latest = "", None


def reached(status: dict[str, Any], progress: Progress) -> str:
    """The phase in which a start failed: what its log says, unless an earlier look saw it further."""
    known = [phase for phase in (status["phase"], progress.phase) if phase]
    return max(known, key=lambda phase: EARLY.index(phase) if phase in EARLY else len(EARLY))


def failure_text(host: str, unit: str, status: dict[str, Any], phase: str, attempts: int) -> str:
    """What a person needs: where, when, what, why, what next, and the engine's last words."""
    how = f"result {status['result']}, exit status {status['exit_status']}"
    times = f" in {attempts} attempts" if attempts > 1 else ""
    state = f"{status['active_state']}{times} ({how}) after {status['elapsed_seconds']} s"
    failed = finding.failed(
        "serve",
        f"{unit} to become active",
        f"{state}; cause: {status['cause'] or 'unknown'}",
        f"{status['next'] or 'read the log'}; the whole log: journalctl -u {unit}",
        evidence=status["log"] or ["(the journal has none)"],
    )
    return finding.in_full(failed, f"{host}, serve, phase '{phase}'", "The engine's lines around the cause")


class ActionModule(FleetAction):
    """Poll ``serving_status`` until the unit is active or cannot become so."""

    LABEL = "serve"
    ARGUMENTS = {
        "unit": {"type": "str", "required": True},
        "start_seconds": {"type": "int", "required": True},
        "engine": {"type": "dict"},
        "secret_files": {"type": "list", "elements": "path", "default": []},
        "poll_seconds": {"type": "int", "default": 5},
        "heartbeat_seconds": {"type": "int", "default": 10},
    }

    # What was said about the start, once it is followed.
    _lines: Progress | None = None

    def _outcome(self) -> dict[str, Any]:
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "check mode: nothing was started"}
        return self._wait({**self._args, "rules": logs.rules(self._args["engine"])})

    def _longest_silence(self) -> float:
        return float(self._args["heartbeat_seconds"])

    def _say_alive(self, seconds: float) -> None:
        if self._lines is None or self._lines.latest is None:
            super()._say_alive(seconds)
        else:
            self._lines.repeat(time.monotonic())

    def _wait(self, args: dict[str, Any]) -> dict[str, Any]:
        progress = Progress(self._show, self._host, args["unit"], args["start_seconds"], args["heartbeat_seconds"])
        self._lines = progress
        begun = time.monotonic()
        deadline = begun + ATTEMPTS * args["start_seconds"] + SLACK_SECONDS
        first_failure: dict[str, Any] | None = None
        restarts_before: int | None = None
        retried = False
        while True:
            status = self._poll(args, begun)
            if status.get("failed") or status.get("unreachable"):
                return status
            state = status["active_state"]
            if status["phase"] == STOPPING:
                # What runs may end first: the start has not begun.
                deadline = time.monotonic() + ATTEMPTS * args["start_seconds"] + SLACK_SECONDS
            if restarts_before is None:
                # Those of a unit that serves are of the past; systemd counts anew when it is started.
                restarts_before = status["restarts"] if state == "active" else 0
            if status["sub_state"] == "auto-restart" and first_failure is None:
                first_failure = status
                progress.begin_again(f"failed in phase '{reached(status, progress)}' ({status['cause']})")
            elif status["restarts"] > restarts_before and not retried and first_failure is None:
                progress.begin_again("failed between two looks")
            retried = first_failure is not None or status["restarts"] > restarts_before
            if state == "active":
                return self._success(progress, status, retried, first_failure, begun)
            if state in ("failed", "inactive") or time.monotonic() > deadline:
                phase = reached(status, progress)
                text = failure_text(self._host, args["unit"], status, phase, 2 if retried else 1)
                return {"failed": True, "changed": False, "msg": text, "phase": phase, "cause": status["cause"]}
            if status["sub_state"] != "auto-restart":
                progress.show(status, time.monotonic())
            time.sleep(args["poll_seconds"])

    def _success(
        self, progress: Progress, status: dict[str, Any], retried: bool, first: dict[str, Any] | None, begun: float
    ) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "changed": False,
            "phase": "ready",
            "retried": retried,
            "start_seconds": status["elapsed_seconds"],
            "waited_seconds": round(time.monotonic() - begun),
        }
        if progress.phase or retried:
            progress.note(f"ready after {status['elapsed_seconds']} s")
        if retried:
            cause = first["cause"] if first else "see its journal"
            answer["warnings"] = [f"{progress.prefix}: the first start failed ({cause}); the automatic retry succeeded"]
        return answer

    def _poll(self, args: dict[str, Any], begun: float) -> dict[str, Any]:
        """One status. A broken connection, or a host too busy to answer, is asked again for a while."""
        asked = {"unit": args["unit"], "secret_files": args["secret_files"], "rules": args["rules"]}
        lost_since = time.monotonic()
        while True:
            given_up = time.monotonic() - lost_since > UNREACHABLE_SECONDS
            try:
                status = self._module("glm.fleet.serving_status", asked)
                if given_up or not status.get("failed"):
                    return status
            except AnsibleConnectionFailure:
                if given_up:
                    raise
                self._connection.reset()
            time.sleep(args["poll_seconds"])
