# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Actions whose work goes on on the host: the module is asked phase by phase, and again while the host is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.glm.fleet.plugins.plugin_utils.actions import reconnect
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile

_display = Display()


class Failed(Exception):
    """A phase failed on the host; carries the module's result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg", "the module gave no reason"))
        self.result = result


class RemoteJobAction(ActionBase):  # type: ignore[misc]
    """Checks the arguments, words failures, asks the module. Subclasses name it and say in ``_outcome`` what to do."""

    TRANSFERS_FILES = False
    # The module, the word for it in messages, all its arguments, and those that only the action gives.
    MODULE: ClassVar[str]
    LABEL: ClassVar[str]
    ARGUMENTS: ClassVar[Mapping[str, Any]]
    INTERNAL: ClassVar[tuple[str, ...]]

    def _outcome(self) -> dict[str, Any]:
        """The task's result. Raises Failed and LockFileError."""
        raise NotImplementedError

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        self._task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = sorted(set(self.INTERNAL) & set(self._task.args))
        if given:
            return {**result, "failed": True, "msg": f"{given[0]} is set by the action plugin; leave it out"}
        public = {name: spec for name, spec in self.ARGUMENTS.items() if name not in self.INTERNAL}
        _validation, self._args = self.validate_argument_spec(argument_spec=public)
        head = f"{self._host()}: {self.LABEL}"
        try:
            return {**result, **self._outcome()}
        except lockfile.LockFileError as exc:
            return {**result, "failed": True, "msg": f"{head}: {exc}"}
        except Failed as exc:
            if exc.result.get("unreachable"):
                return {**result, **exc.result}
            for name in ("exception", "module_stderr", "rc"):
                if name in exc.result:
                    result[name] = exc.result[name]
            return {**result, "failed": True, "phase": exc.result.get("phase", self.LABEL), "msg": f"{head}: {exc}"}

    def _on_host(self, phase: str, **more: Any) -> dict[str, Any]:
        """The module's answer in a phase. Raises Failed."""
        return _checked(self._asked(phase, **more))

    def _status(self, **more: Any) -> dict[str, Any]:
        """The module's answer to how far the work is, however long the host cannot be reached. Raises Failed."""
        return _checked(reconnect.ask(lambda: self._asked("status", **more), self._say))

    def _asked(self, phase: str, **more: Any) -> dict[str, Any]:
        arguments = {name: value for name, value in self._args.items() if value is not None}
        outcome: dict[str, Any] = self._execute_module(
            module_name=self.MODULE,
            module_args={**arguments, "phase": phase, **more},
            task_vars=self._task_vars,
        )
        return outcome

    def _say(self, text: str) -> None:
        _display.display(f"{self._host()}: {self.LABEL}: {text}")

    def _host(self) -> str:
        return str(self._task_vars.get("inventory_hostname", "host"))


def _checked(outcome: dict[str, Any]) -> dict[str, Any]:
    if outcome.get("failed") or outcome.get("unreachable"):
        raise Failed(outcome)
    return outcome
