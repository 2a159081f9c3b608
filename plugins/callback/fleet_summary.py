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
    This callback then prints the table that M(glm.fleet.fleet_report) would have printed, with the task and the message
    each host failed with, and writes the same into C(fleet.json).
  - Prints nothing when the report ran, and nothing for playbooks that do not deploy.
requirements:
  - Enabled with C(callbacks_enabled = glm.fleet.fleet_summary) in C(ansible.cfg); the one of a checkout does.
"""

from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.report import VerifyReport
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collect what happens to each host from the moment a report is begun."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "glm.fleet.fleet_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ansible loads all filters of a collection for the first one that is used, in each task's own process; what is
        # loaded here, those inherit. That is a sixth of a launch's processor time.
        filter_loader.get("glm.fleet.batches")
        self._path: Path | None = None
        self._hosts: list[str] = []
        self._verdicts: dict[str, list[VerifyReport]] = {}
        self._stopped: dict[str, tuple[str, str, list[Finding]]] = {}

    def v2_runner_on_ok(self, result: Any) -> None:
        """A report begins or is done; a host is verified."""
        self._note(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host stops here, unless its failure is ignored."""
        if ignore_errors:
            return
        self._note(result)
        failed = _failed_items(_values(result))
        findings = [found for values in failed for found in values.get("findings") or []]
        # What failed first is the cause; what is said last has what was done about it, too.
        phase, _reason, before = self._stopped.get(_host(result), (_task_name(result), "", []))
        self._stopped[_host(result)] = (phase, "; ".join(dict.fromkeys(map(_said, failed))), [*before, *findings])

    def v2_runner_on_skipped(self, result: Any) -> None:
        """In check mode that is how the report comes."""
        self._note(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host stops here."""
        self._stopped[_host(result)] = (_task_name(result), f"unreachable: {_values(result).get('msg', '')}", [])

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run is over: print what the report would have said, if it was begun and never came."""
        if self._path is None:
            return
        failed = {*stats.failures, *stats.dark}
        reports = [report for host in self._hosts for report in self._reports(host, host in failed)]
        lines = ["", "The run ended before its report. How far each host got:", "", *verdict.table(reports)]
        lines += ["", *verdict.reasons(reports)]
        if not context.CLIARGS.get("check"):
            lines += ["", self._kept(self._path, reports)]
        for line in lines:
            self._display.display(line)

    def _reports(self, host: str, failed: bool) -> list[VerifyReport]:
        found = self._verdicts.get(host, [])
        # What passed on a host that failed is what was put back.
        if found and not (failed and all(report["ok"] for report in found)):
            return found
        if host in self._stopped:
            return [verdict.stopped_report(host, *self._stopped[host])]
        return [verdict.missing_report(host, "not reached: the run stopped before its turn")]

    @staticmethod
    def _kept(path: Path, reports: list[VerifyReport]) -> str:
        """Write the report, in which the fleet is not verified; a sentence that says where it is, or why not."""
        try:
            files.write_json(path, verdict.fleet_report(reports, ok=False))
        except OSError as exc:
            return f"The report could not be written to {path}: {exc.strerror or exc}"
        return f"Report: {path}"

    def _note(self, result: Any) -> None:
        action, values = str(_task(result).action), _values(result)
        if action.endswith("fleet_report"):
            self._path = Path(values["report"]) if values.get("begin") else None
            self._hosts = list(values.get("hosts") or [])
        elif action.endswith("endpoint_check"):
            answers = values.get("results") or [values]
            self._verdicts[_host(result)] = [answer["report"] for answer in answers if answer.get("report")]


def _task(result: Any) -> Any:
    # ansible-core 2.18 has the underscored names only.
    return getattr(result, "task", None) or result._task


def _host(result: Any) -> str:
    return str((getattr(result, "host", None) or result._host).get_name())


def _values(result: Any) -> dict[str, Any]:
    values = getattr(result, "result", None)
    return values if isinstance(values, dict) else result._result


def _failed_items(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What failed: of a loop, whose own message says only that something did, its items."""
    items = values.get("results")
    entries = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [item for item in entries if item.get("failed") or item.get("unreachable")] or [values]


def _said(values: dict[str, Any]) -> str:
    return str(values.get("msg") or values.get("censored") or "it gave no reason")


def _task_name(result: Any) -> str:
    return str(_task(result).get_name(include_role_fqcn=False))
