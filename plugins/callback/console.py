# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback plugin: a run on one screen, with the cause of a failure as its last words."""

from __future__ import annotations

DOCUMENTATION = r"""
name: console
type: stdout
short_description: A run on one screen, with the cause of a failure as its last words
version_added: 0.2.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - Prints a line for each play with its hosts, a line for each task that changes something, what tasks print for
    people, warnings, and failures as they happen, with the messages of the items of a loop that failed. Tasks that
    change nothing are not shown; one that takes longer than a minute and does not report by itself is named.
  - The end is one line of totals and, of a run that failed, the causes, each once. Where
    P(glm.fleet.fleet_summary#callback) is enabled it prints the causes, after the table of a run that ended before
    its report.
  - When nobody reads what is printed any more, as in C(| head), the run ends as after Ctrl-C.
  - With C(-v) or more it prints what P(ansible.builtin.default#callback) prints, with the options of that. C(--diff)
    prints differences as that does.
requirements:
  - Enabled with C(stdout_callback = glm.fleet.console) in C(ansible.cfg); the one of a checkout does.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from ansible import constants as C
from ansible import context
from ansible.plugins.callback.default import CallbackModule as Default

from ansible_collections.glm.fleet.plugins.module_utils.finding import counted, printable, shortened
from ansible_collections.glm.fleet.plugins.plugin_utils import closed_output, task_result
from ansible_collections.glm.fleet.plugins.plugin_utils.actions import heartbeat

# After so many seconds without a line, what runs is named.
SILENCE = 60.0
# So many lines has a failure as it happens.
LINES = 20
# So many hosts are named, more are counted.
NAMED = 4

Method = TypeVar("Method", bound=Callable[..., None])


def brief(method: Method) -> Method:
    """Use the method without ``-v``, else that of the default callback."""

    @functools.wraps(method)
    def chosen(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        if self._display.verbosity:
            getattr(super(CallbackModule, self), method.__name__)(*args, **kwargs)
        else:
            method(self, *args, **kwargs)

    return cast("Method", chosen)


def while_read(method: Method) -> Method:
    """End the run instead where nobody reads it any more and the interrupt was lost."""

    @functools.wraps(method)
    def checked(self: CallbackModule, *args: Any, **kwargs: Any) -> None:
        if self._closed and self._closed.is_set():
            raise KeyboardInterrupt
        method(self, *args, **kwargs)

    return cast("Method", checked)


class CallbackModule(Default):  # type: ignore[misc]
    """Show phases, changes and failures."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "glm.fleet.console"

    def __init__(self) -> None:
        super().__init__()
        self._reset()
        self._beats = contextlib.ExitStack()
        self._closed: threading.Event | None = None

    def _reset(self) -> None:
        self._began = self._spoke = time.monotonic()
        self._causes = task_result.Causes()
        # The phase that has not been shown yet, and the last that was.
        self._phase = self._shown = ""
        # What runs, by host, unless it reports by itself.
        self._running: dict[str, str] = {}

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._closed = self._closed or closed_output.interrupt_when_closed(1)
        if self._display.verbosity:
            super().v2_playbook_on_start(playbook)
            return
        self._beats.close()
        self._reset()
        self._beats.enter_context(heartbeat.beating(SILENCE, lambda: self._spoke, lambda seconds: self._still()))

    @brief
    def v2_playbook_on_play_start(self, play: Any) -> None:
        # Shown with its first task: it may have no hosts.
        self._play = play
        self._causes.begin(play)
        self._running = {}
        self._phase = play.get_name().strip() or "A play without a name"

    @brief
    def v2_playbook_on_no_hosts_matched(self) -> None:
        self._phase = ""

    @brief
    def v2_playbook_on_no_hosts_remaining(self) -> None:
        """The causes say it."""

    @while_read
    @brief
    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._begin_phase()

    @while_read
    @brief
    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._begin_phase()

    @brief
    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Nothing happened yet."""

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        super().v2_runner_on_start(host, task)
        # The collection's own actions print a line when they take long.
        if not str(task.action).startswith("glm.fleet."):
            self._running[str(host.get_name())] = task_result.name_of(task)

    @brief
    def v2_runner_retry(self, result: Any) -> None:
        host, values = str(task_result.host(result).get_name()), task_result.values(result)
        if host in self._running:
            tries = f"attempt {values.get('attempts')} of {values.get('retries')}"
            self._running[host] = f"{task_result.name(result)} ({tries})"

    @brief
    def v2_runner_on_ok(self, result: Any) -> None:
        values = self._over(result)
        if values.get("changed"):
            verb = "would change" if task_result.task(result).check_mode else "changed"
            self._line(f"  {verb}  {self.host_label(result)}: {task_result.name(result)}", C.COLOR_CHANGED)
        if "results" not in values:
            self._print(result)

    @brief
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._over(result)

    @brief
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._failed(result, ignore_errors, C.COLOR_ERROR)

    @brief
    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._failed(result, bool(task_result.task(result).ignore_unreachable), C.COLOR_UNREACHABLE)

    @brief
    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._handle_warnings(task_result.values(result))
        self._print(result)

    @brief
    def v2_runner_item_on_failed(self, result: Any) -> None:
        self._handle_warnings(task_result.values(result))
        self._causes.note_item(result)

    @brief
    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._handle_warnings(task_result.values(result))

    @brief
    def v2_runner_on_async_poll(self, result: Any) -> None:
        """It has not changed anything yet."""

    @brief
    def v2_runner_on_async_ok(self, result: Any) -> None:
        """Its result comes."""

    @brief
    def v2_runner_on_async_failed(self, result: Any) -> None:
        """Its result comes."""

    @brief
    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._beats.close()
        hosts = [host for host in stats.processed if host != "localhost"] or list(stats.processed)
        bad = [f"{len(at)} {word}" for word, at in (("failed", stats.failures), ("unreachable", stats.dark)) if at]
        count = sum(stats.changed.values())
        would = f"{counted(count, 'change')} that would be made"
        changes = would if context.CLIARGS.get("check") else f"{count} changed"
        seconds = round(time.monotonic() - self._began)
        took = f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
        of = f"1 host ({hosts[0]})" if len(hosts) == 1 else f"{len(hosts)} hosts"
        self._line(f"\n{of}: {', '.join([*bad, changes, took])}", C.COLOR_ERROR if bad else C.COLOR_OK)
        # That one comes last, after what other callbacks say of the end.
        if bad and "glm.fleet.fleet_summary" not in C.CALLBACKS_ENABLED:
            for line in self._causes.lines():
                self._line(line, C.COLOR_ERROR, self.get_option("display_failed_stderr"))

    def _begin_phase(self) -> None:
        if not self._phase:
            return
        variables = self._play.get_variable_manager().get_vars(play=self._play, include_hostvars=False)
        hosts = [str(host) for host in variables.get("ansible_play_batch") or []]
        # That localhost is there is known without a list of hosts.
        line = f"{self._phase}: {_named(hosts)}" if hosts and hosts != ["localhost"] else self._phase
        if line != self._shown:
            self._line(line)
        self._phase, self._shown = "", line

    def _over(self, result: Any) -> dict[str, Any]:
        """The task is done on this host; what it returned."""
        values = task_result.values(result)
        self._running.pop(str(task_result.host(result).get_name()), None)
        self._handle_warnings(values)
        return values

    def _print(self, result: Any) -> None:
        """What a task is there to print."""
        if task_result.action(result).rpartition(".")[2] != "debug":
            return
        values = task_result.values(result)
        self._clean_results(values, "debug")
        text = values["msg"] if isinstance(values.get("msg"), str) else self._dump_results(values)
        for line in str(text).strip("\n").splitlines():
            self._line(f"  {line}")

    def _failed(self, result: Any, ignored: bool, color: str) -> None:
        self._over(result)
        reasons, ended = self._causes.note(result, ignored)
        unreachable = task_result.values(result).get("unreachable")
        if ignored and not unreachable:
            return
        # That a host was not reached is never hidden: what was to be learned of it was not.
        word = "FAILED" if ended else f"{'unreachable' if ignored else 'failed'}, and goes on"
        lines = [f"  {word}  {self.host_label(result)}: {task_result.name(result)}"]
        for line in [*lines, *(f"    {line}" for line in shortened("\n".join(reasons), 1 if ignored else LINES))]:
            self._line(line, color if ended else C.COLOR_WARN, self.get_option("display_failed_stderr"))

    def _still(self) -> None:
        """What takes long, by task."""
        tasks: dict[str, list[str]] = {}
        for host, task in sorted(self._running.copy().items()):
            tasks.setdefault(task, []).append(host)
        for task, hosts in list(tasks.items())[:NAMED]:
            self._line(f"  still at  {_named(hosts)}: {task}")

    def _line(self, text: str, color: str | None = None, stderr: bool = False) -> None:
        self._spoke = time.monotonic()
        self._display.display(printable(text, newlines=True), color=color, stderr=stderr)


def _named(hosts: list[str]) -> str:
    return f"{len(hosts)} hosts" if len(hosts) > NAMED else ", ".join(hosts)
