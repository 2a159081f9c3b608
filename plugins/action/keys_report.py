# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a fleet's keys, or whether its hosts have them. Documented in ``plugins/modules/keys_report.py``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import advised
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import FleetAction
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records, report, store

GIVEN = "__keys_given"
USAGE = "__keys_usage"


class ActionModule(FleetAction):
    """Collect the answers of this run from the hosts' variables."""

    LABEL = "keys"
    PLACE = "controller"
    ARGUMENTS = {
        "hosts": {"type": "list", "elements": "str", "required": True},
        "what": {"type": "str", "choices": ["push", "list"], "required": True},
        "state_dir": {"type": "path", "required": True},
        "api_key": {"type": "str", "required": True, "no_log": True},
        "api_key_file": {"type": "path", "required": True},
        "most_days": {"type": "float", "default": 365},
    }
    _requires_connection = False

    def _outcome(self) -> dict[str, Any]:
        return self._pushed() if self._args["what"] == "push" else self._listed()

    def _answers(self, name: str) -> dict[str, dict[str, Any]]:
        """What each host answered; nothing of one that did not."""
        hostvars = self._task_vars.get("hostvars") or {}
        found = {host: (hostvars[host].get(name) if host in hostvars else None) or {} for host in self._args["hosts"]}
        return {host: dict(answer) for host, answer in found.items()}

    def _pushed(self) -> dict[str, Any]:
        check = self._task.check_mode
        answers = self._answers(GIVEN)
        silent = sorted(host for host, answer in answers.items() if not _ended_well(answer))
        without = sorted(host for host, answer in answers.items() if answer.get("door") is False)
        doors = {host: answers[host] for host in sorted({*answers} - {*silent} - {*without})}
        due = [host for host, answer in doors.items() if check and answer.get("changed")]
        self._show([_due(due, len(doors)) if check else _seen(doors.values(), len(answers) - len(without))])
        if without:
            self._show([f"keys: no front door, where no key opens anything, on {', '.join(without)}"])
        idle = [host for host, answer in doors.items() if not answer.get("running")]
        if idle:
            self._show([f"keys: the door does not run, and reads the keys when it starts, on {', '.join(idle)}"])
        if silent:
            took = "would not take the keys" if check else (
                "did not take the keys, so that there new keys do not work and revoked ones still do"
            )  # fmt: skip
            text = advised(
                f"{len(silent)} of {len(answers)} hosts {took}: {', '.join(silent)}",
                "read their errors above, and run again" + ("" if check else " with glm_keys_action=push"),
            )
            raise self._failure(text, silent=silent)
        return {"changed": bool(due), "silent": silent}

    def _listed(self) -> dict[str, Any]:
        args, now = self._args, records.now()
        state = Path(args["state_dir"]).expanduser()
        answers = self._answers(USAGE)
        usage = {host: answer.get("months") if _ended_well(answer) else None for host, answer in answers.items()}
        made = store.made(Path(args["api_key_file"]).expanduser())
        keys = records.with_fleet(store.read(state), args["api_key"], made)
        self._show(["", *report.table(keys, usage, now, args["most_days"])])
        written = [self._keep(state / "usage" / f"{month}.csv", month, usage) for month in report.months(usage)]
        self._show([*(f"Usage: {path}" for path in written), ""])
        silent = sorted(host for host, months in usage.items() if months is None)
        return {"changed": False, "silent": silent, "files": written}

    def _keep(self, path: Path, month: str, usage: dict[str, Any]) -> str:
        """Write a month's CSV unless it is as it was; its path. Raises Unmet for a file that is none of ours."""
        before = files.text_of(path, f"the usage of keys in {path}", report.MOVE_AWAY) or ""
        text = report.month_csv(before, month, usage, str(path))
        if text != before and not self._task.check_mode:
            try:
                files.write_text(path, text)
            except OSError as exc:
                text = advised(f"{path} cannot be written: {exc}", "set glm_state_dir to a folder that can")
                raise self._failure(text) from None
        return str(path)


def _seen(doors: Collection[Mapping[str, Any]], count: int) -> str:
    """How many of so many hosts have the keys, and where that was seen."""
    running = sum(bool(answer.get("running")) for answer in doors)
    processes = sum(len(answer.get("processes") or []) for answer in doors)
    return f"keys: {len(doors)} of {count} hosts have the keys, seen in {processes} process(es) of {running} door(s)"


def _due(due: Sequence[str], count: int) -> str:
    """Which of so many hosts that answered a check run would get the keys. The store is as it was before the change."""
    who = f"{len(due)} of {count} hosts that answered would get the keys of the store as it is now"
    return f"keys: check mode, nothing was changed: {who}{': ' if due else ''}{', '.join(due)}"


def _ended_well(answer: dict[str, Any]) -> bool:
    """Whether a module on the host ended with a result of its own."""
    return bool(answer) and not any(answer.get(word) for word in ("failed", "unreachable", "skipped"))
