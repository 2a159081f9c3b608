# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every action of the collection shares: its arguments, the host's name, lines for people, and how it fails."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, printable, printable_in
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state

display = Display()


class Failed(Exception):
    """The task fails, or its host went away; ``result`` is that of the task, or of the module that said so."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        super().__init__(str(result.get("msg", "the module gave no reason")))
        self.result = dict(result)


class FleetAction(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """Base of all actions. Subclasses say in ``_outcome`` what the task returns."""

    TRANSFERS_FILES = False
    # The word for the phase in messages.
    LABEL: ClassVar[str]
    # Where its failures are, when that is not the host.
    PLACE: ClassVar[str] = ""
    # What the action checks itself; empty where the module does.
    ARGUMENTS: ClassVar[Mapping[str, Any]] = {}
    # When a line of this action was printed last, by time.monotonic().
    _last_heard = float("-inf")
    # What is waited for and how far it is, where more is known than the task's name.
    _far = ""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Entry point of the action."""
        self._task_vars = task_vars or {}
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            self._find_state()
            if self.ARGUMENTS:
                self._args = self._checked_arguments()
            with heartbeat.beating(self._longest_silence(), lambda: self._last_heard, self._say_alive):
                return _shown({**result, **self._outcome()})
        except Failed as failed:
            return _shown({**result, **self._worded(failed)})
        except QuotingError as error:
            return _shown({**result, **self._worded(self._refused(error))})

    def _find_state(self) -> None:
        """Where the fleet's state is, for this task's process and its children (modules on the controller).

        By the variables of the controller, so that hosts with another store for their weights have no other state.
        """
        given: Mapping[str, Any] = self._task_vars
        if not given.get("glm_state_store"):
            state.use("")
            return
        controller = (given.get("hostvars") or {}).get("localhost") or {}
        if controller.get("glm_state_store"):
            given = controller
        names = ("glm_state_store", "glm_store_endpoint", "glm_store_region")
        state.use(*(str(self._templar.template(given.get(name)) or "") for name in names))

    def _outcome(self) -> dict[str, Any]:
        """The task's result. Raises Failed, or an error for people that ``_refused`` words."""
        raise NotImplementedError

    def _checked_arguments(self) -> dict[str, Any]:
        """The task's arguments by ARGUMENTS, with their defaults."""
        arguments: dict[str, Any] = self.validate_argument_spec(argument_spec=dict(self.ARGUMENTS))[1]
        return arguments

    def _worded(self, failed: Failed) -> dict[str, Any]:
        """The task's result for a failure."""
        return failed.result

    def _refused(self, error: QuotingError) -> Failed:
        """The failure for an error that no action words itself: of the catalogue, the lock file, an intent."""
        return self._failure(str(error))

    @property
    def _host(self) -> str:
        """The host's name in the inventory."""
        return str(self._task_vars.get("inventory_hostname", "host"))

    def _failure(self, text: str, where: str = "", **more: Any) -> Failed:
        """A failure to raise: ``host, phase: text``; ``where`` stands for the host where it is another place."""
        return Failed({**more, "failed": True, "msg": f"{where or self.PLACE or self._host}, {self.LABEL}: {text}"})

    def _say(self, text: str) -> None:
        """A line of progress that names host and phase."""
        self._show([f"{self._host}: {self.LABEL}: {text}"])

    def _say_alive(self, seconds: float) -> None:
        """A line of progress for a step that had none for a while; ``seconds`` is how long it has taken."""
        self._show([f"{self._host}: {self._phase}: {self._progress() or self._task.name}, {seconds:.0f} s so far"])

    def _progress(self) -> str:
        """``_far``, or what is known at the moment. Called in another thread."""
        return self._far

    def _longest_silence(self) -> float:
        """After so many seconds without a line of progress there is one."""
        return heartbeat.SECONDS

    @property
    def _phase(self) -> str:
        """The word for the phase in lines of progress."""
        return self.LABEL

    def _show(self, lines: Iterable[str]) -> None:
        """Lines on the terminal, printable whatever is quoted in them."""
        self._last_heard = time.monotonic()
        for line in lines:
            display.display(printable(line, newlines=True))

    def _module(self, name: str | None = None, arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a module on the host: the task's own with its arguments, unless others are named."""
        answer: dict[str, Any] = self._execute_module(
            module_name=name, module_args=None if arguments is None else dict(arguments), task_vars=self._task_vars
        )
        return answer

    def _named(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """``result`` of a module with the host in front of what people read; a lost connection is left as it is.

        A failure that the module worded itself has the key ``phase`` or begins with this action's. ``caution`` is what
        somebody should know although the module went on; it becomes a warning.
        """
        named = dict(result)
        if named.get("failed") and not named.get("unreachable"):
            msg = str(named.get("msg", f"{self.LABEL}: the module gave no reason"))
            named["msg"] = f"{self._host}, {msg}"
            if "phase" in named or msg.startswith(f"{self.LABEL}: "):
                # ansible-core 2.19 prints this copy of the module's message, without the host, instead of ours.
                named.pop("exception", None)
        if named.get("caution"):
            named["warnings"] = [*(named.get("warnings") or []), f"{self._host}, {named['caution']}"]
        return named


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """``result`` with what ansible prints of it printable: all of a failure, messages and warnings of a success."""
    shown = set(result) if result.get("failed") or result.get("unreachable") else {"msg", "warnings"}
    return {key: printable_in(value) if key in shown else value for key, value in result.items()}
