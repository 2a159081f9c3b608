# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a fleet's keys, or whether its hosts have them. Documented in ``plugins/modules/keys_report.py``."""

from __future__ import annotations

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
        answers = self._answers(GIVEN)
        silent = sorted(host for host, answer in answers.items() if not _ended_well(answer))
        without = sorted(host for host, answer in answers.items() if answer.get("door") is False)
        have = [answer for host, answer in answers.items() if _ended_well(answer) and host not in without]
        running = sum(bool(answer.get("running")) for answer in have)
        processes = sum(len(answer.get("processes") or []) for answer in have)
        where = f"seen in {processes} process(es) of {running} door(s)"
        self._show([f"keys: {len(have)} of {len(answers) - len(without)} hosts have the keys, {where}"])
        if without:
            self._show([f"keys: no front door, where no key opens anything, on {', '.join(without)}"])
        idle = sorted(
            host
            for host, answer in answers.items()
            if _ended_well(answer) and not answer.get("running") and host not in without
        )
        if idle:
            self._show([f"keys: the door does not run, and reads the keys when it starts, on {', '.join(idle)}"])
        if silent:
            text = advised(
                f"{len(silent)} of {len(answers)} hosts did not take the keys, so that there new keys do not work and "
                f"revoked ones still do: {', '.join(silent)}",
                "read their errors above, and run again with glm_keys_action=push",
            )
            raise self._failure(text, silent=silent)
        return {"changed": False, "silent": silent}

    def _listed(self) -> dict[str, Any]:
        args, now = self._args, records.now()
        state = Path(args["state_dir"]).expanduser()
        answers = self._answers(USAGE)
        usage = {host: answer.get("months") if _ended_well(answer) else None for host, answer in answers.items()}
        made = store.made(Path(args["api_key_file"]).expanduser())
        keys = records.with_fleet(store.read(state), args["api_key"], made)
        written = [self._keep(state / "usage" / f"{month}.csv", month, usage) for month in report.months(usage)]
        self._show(
            ["", *report.table(keys, usage, now, args["most_days"]), *(f"Usage: {path}" for path in written), ""]
        )
        silent = sorted(host for host, months in usage.items() if months is None)
        return {"changed": False, "silent": silent, "files": written}

    def _keep(self, path: Path, month: str, usage: dict[str, Any]) -> str:
        """Write a month's CSV unless it is as it was; its path."""
        before = files.read_text(path)
        text = report.month_csv(before, month, usage)
        if text.strip() != before and not self._task.check_mode:
            try:
                files.write_text(path, text)
            except OSError as exc:
                text = advised(f"{path} cannot be written: {exc}", "set glm_state_dir to a folder that can")
                raise self._failure(text) from None
        return str(path)


def _ended_well(answer: dict[str, Any]) -> bool:
    """Whether a module on the host ended with a result of its own."""
    return bool(answer) and not any(answer.get(word) for word in ("failed", "unreachable", "skipped"))
