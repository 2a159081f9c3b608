# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback plugin: the fleet's table when a deploy ends before its report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_summary
type: aggregate
short_description: How each host of a fleet ended, when a deploy stops before its report
version_added: 0.1.0
author: glm.fleet contributors (!UNKNOWN)
description:
  - When all hosts of a batch fail, a canary for instance, ansible ends the run at once and no later play can report.
    This callback then prints the table that M(glm.fleet.fleet_report) would have printed, writes the same into
    C(fleet.json), and ends with the task and the message of each failure. Of a host whose turn did not come it says so,
    and whether the run changed what it serves.
  - Prints no table when the report ran, and none for playbooks that do not deploy.
  - With P(glm.fleet.console#callback) every run that failed ends with the task and the message of each failure. Enabled
    as the last one, it prints them after what other callbacks say of the end.
requirements:
  - Enabled with C(callbacks_enabled = glm.fleet.fleet_summary) in C(ansible.cfg); the one of a checkout does.
"""

import contextlib
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.plugin_utils import task_result
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.report import VerifyReport
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict

# The roles that change what a host serves; the others prepare it.
SERVING = ("serve", "door")


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collect what happens to each host from the moment a report is begun."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "glm.fleet.fleet_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ansible loads all filters of a collection for the first one that is used, in each task's own process; what is
        # loaded here, those inherit: a sixth of a launch's processor time. So it is with the table of variables.
        filter_loader.get("glm.fleet.batches")
        lookup_loader.get("glm.fleet.setting")
        with contextlib.suppress(CatalogError):
            table.load()
        self._path: Path | None = None
        self._hosts: list[str] = []
        self._verdicts: dict[str, list[VerifyReport]] = {}
        self._causes = task_result.Causes()
        # By host whose turn came: the last task that changed what it serves, or nothing.
        self._turns: dict[str, str] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A failure ends its host, or is rescued in this play."""
        self._causes.begin(play)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A report begins or is done; a host is verified, or serves something else now."""
        self._note(result)
        name = task_result.name(result)
        if name.partition(" : ")[0] in SERVING:
            changed = task_result.values(result).get("changed") and not task_result.task(result).check_mode
            self._turns[_host(result)] = name if changed else self._turns.get(_host(result), "")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host stops here, unless its failure is ignored or rescued."""
        if not ignore_errors:
            self._note(result)
        self._causes.note(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Why the task of a loop fails."""
        self._causes.note_item(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """In check mode that is how the report comes."""
        self._note(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host stops here, unless the task does not mind."""
        self._causes.note(result, bool(task_result.task(result).ignore_unreachable))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: print what the report would have said, if it was begun and never came, and what failed."""
        if self._path is not None:
            self._report(self._path, {*stats.failures, *stats.dark})
        elif C.DEFAULT_STDOUT_CALLBACK != "glm.fleet.console":
            return
        # The last words, also of what is not a host of the fleet.
        for line in self._causes.lines():
            self._display.display(line, color=C.COLOR_ERROR)

    def _report(self, path: Path, failed: set[str]) -> None:
        reports = [report for host in self._hosts for report in self._reports(host, host in failed)]
        lines = ["", "The run ended before its report. How far each host got:", "", *verdict.table(reports), ""]
        if not context.CLIARGS.get("check"):
            lines += [self._kept(path, reports), ""]
        lines += verdict.reasons([report for report in reports if report["host"] not in self._causes.by_host])
        for line in lines:
            self._display.display(line)

    def _reports(self, host: str, failed: bool) -> list[VerifyReport]:
        found = self._verdicts.get(host, [])
        # What passed on a host that failed is what was put back.
        if found and not (failed and all(report["ok"] for report in found)):
            return found
        cause = self._causes.by_host.get(host)
        if cause:
            return [verdict.stopped_report(host, cause.task, "; ".join(cause.messages), cause.findings)]
        kept = "did not change what it serves"
        if host not in self._turns:
            return [verdict.missing_report(host, f"not reached: the run stopped before its turn and {kept}")]
        last = self._turns[host]
        done = f"what it serves was changed, last by: {last}" if last else f"the run {kept}"
        return [verdict.missing_report(host, f"not verified: the run stopped before that; {done}")]

    @staticmethod
    def _kept(path: Path, reports: list[VerifyReport]) -> str:
        """Write the report, in which the fleet is not verified; a sentence that says where it is, or why not."""
        try:
            files.write_json(path, verdict.fleet_report(reports, ok=False))
        except OSError as exc:
            return f"The report could not be written to {path}: {exc.strerror or exc}"
        return f"Report: {path}"

    def _note(self, result: Any) -> None:
        action = task_result.action(result)
        if action.endswith("fleet_report"):
            values = task_result.values(result)
            self._path = Path(values["report"]) if values.get("begin") else None
            self._hosts = list(values.get("hosts") or [])
        elif action.endswith("endpoint_check"):
            values = task_result.values(result)
            answers = values.get("results") or [values]
            self._verdicts[_host(result)] = [answer["report"] for answer in answers if answer.get("report")]


def _host(result: Any) -> str:
    return str(task_result.host(result).get_name())
