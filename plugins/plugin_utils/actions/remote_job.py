# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions whose work goes on on the host: the module is asked phase by phase, and again while the host is away."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat, reconnect
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed, FleetAction


class RemoteJobAction(FleetAction):
    """Checks the arguments, words failures, asks the module."""

    MODULE: ClassVar[str]
    # Arguments of the module that only the action gives.
    INTERNAL: ClassVar[tuple[str, ...]]

    def _refused(self, error: QuotingError) -> Failed:
        return Failed({"msg": str(error)})

    def _checked_arguments(self) -> dict[str, Any]:
        given = sorted(set(self.INTERNAL) & set(self._task.args))
        if given:
            raise Failed({"msg": f"{given[0]} is set by the action plugin; leave it out"})
        public = {name: spec for name, spec in self.ARGUMENTS.items() if name not in self.INTERNAL}
        arguments: dict[str, Any] = self.validate_argument_spec(argument_spec=public)[1]
        return arguments

    def _worded(self, failed: Failed) -> dict[str, Any]:
        if failed.result.get("unreachable"):
            return failed.result
        kept: dict[str, Any] = {
            name: failed.result[name] for name in ("exception", "module_stderr", "rc") if name in failed.result
        }
        phase = failed.result.get("phase", self.LABEL)
        return {**kept, "failed": True, "phase": phase, "msg": f"{self._host}: {self.LABEL}: {failed}"}

    def _on_host(self, phase: str, **more: Any) -> dict[str, Any]:
        """The module's answer in a phase. Raises Failed."""
        return _succeeded(self._asked(phase, **more))

    def _longest_silence(self) -> float:
        return float(self._args.get("progress_seconds") or heartbeat.SECONDS)

    def _say_if_due(self, far: str) -> None:
        """Keep how far the work is, and print it unless something was printed a moment ago."""
        self._far = far
        if time.monotonic() - self._last_heard >= self._longest_silence():
            self._say(far)

    def _status(self, **more: Any) -> dict[str, Any]:
        """The module's answer to how far the work is, however long the host cannot be reached. Raises Failed."""
        return _succeeded(reconnect.ask(lambda: self._asked("status", **more), self._say))

    def _asked(self, phase: str, **more: Any) -> dict[str, Any]:
        arguments = {name: value for name, value in self._args.items() if value is not None}
        return self._module(self.MODULE, {**arguments, "phase": phase, **more})


def _succeeded(outcome: dict[str, Any]) -> dict[str, Any]:
    if outcome.get("failed") or outcome.get("unreachable"):
        raise Failed(outcome)
    return outcome
