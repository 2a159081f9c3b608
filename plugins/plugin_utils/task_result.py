# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What callbacks read in the results of tasks: whose it is, why it failed, and which failure ended a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible.playbook.task_include import TaskInclude

from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding, printable, shortened

# How many lines of a message the end of a run shows, and of how many causes.
LINES = 5
CAUSES = 10


def task(result: Any) -> Any:
    """The task, with the values of this host in its fields."""
    # ansible-core 2.18 has the underscored names only.
    return getattr(result, "task", None) or result._task


def host(result: Any) -> Any:
    """The host."""
    return getattr(result, "host", None) or result._host


def values(result: Any) -> dict[str, Any]:
    """What the task returned, without what no_log hides.

    Ansible makes a copy of it for each callback that reads it, so read it last: a plan has thousands of values.
    """
    found = getattr(result, "result", None)
    returned: dict[str, Any] = found if isinstance(found, dict) else result._result
    return returned


def name(result: Any) -> str:
    """The name of the result's task, with its role."""
    return name_of(task(result))


def name_of(entry: Any) -> str:
    """A task's name, with its role."""
    # An include of a role says in its name which.
    return str(entry.get_name() if isinstance(entry, TaskInclude) else entry.get_name(include_role_fqcn=False))


def action(result: Any) -> str:
    """The name of the task's module or action, as it is written."""
    return str(task(result).action)


def _said(returned: Mapping[str, Any]) -> str:
    reasons = (returned.get(key) for key in ("msg", "reason", "censored"))
    text = str(next(filter(None, reasons), "it gave no reason"))
    # Of a command the message says only that it failed.
    errors = str(returned.get("stderr") or returned.get("module_stderr") or "").splitlines() if "rc" in returned else []
    more = [line for line in errors if line.strip() and line not in text][-4:]
    prefix = "unreachable: " if returned.get("unreachable") else ""
    return prefix + printable("\n".join([text, *more]), newlines=True).strip()


class Cause(NamedTuple):
    """The failure that ended a host."""

    task: str
    action: str
    messages: list[str]
    findings: list[Finding]


class Causes:
    """For each host the first failure that nothing caught; what fails on it later, as it is cleaned up, is not why."""

    def __init__(self) -> None:
        self.by_host: dict[str, Cause] = {}
        self._play: Any = None
        # What blocks rescued in this play, by host.
        self._caught: dict[str, list[Cause]] = {}
        self._items: dict[tuple[str, str], list[Mapping[str, Any]]] = {}

    def begin(self, play: Any) -> None:
        """A play, or a batch of it, begins."""
        self._play = play
        self._caught = {}

    def note_item(self, result: Any) -> None:
        """An item of a loop failed. Later results of the task do not say in every ansible-core which did."""
        self._items.setdefault(_key(result), []).append(values(result))

    def note(self, result: Any, ignored: bool = False) -> tuple[list[str], bool]:
        """Why a task failed, each reason once, and whether that ended its host; else its block rescues it."""
        where, returned = str(host(result).get_name()), values(result)
        # Of a loop, whose own message says only that something failed, its items.
        failed = self._items.pop(_key(result), None) or [returned]
        reasons = list(dict.fromkeys(map(_said, failed)))
        # Ansible takes a host out of the play before it reports this; out of one that includes a broken file, after.
        broken = isinstance(task(result), TaskInclude) and "reason" in returned
        removed = getattr(self._play, "_removed_hosts", [where])
        if ignored:
            return reasons, False
        findings = [found for item in failed for found in item.get("findings") or []]
        cause = Cause(name(result), action(result), reasons, findings)
        if not broken and where not in removed:
            self._caught.setdefault(where, []).append(cause)
            return reasons, False
        said = "\n".join(reasons)
        first = next((c for c in self._caught.get(where, []) if c.messages[0].partition("\n")[0] in said), None)
        if first:
            cause = cause._replace(task=first.task, findings=[*first.findings, *findings])
        self.by_host.setdefault(where, cause)
        return reasons, True

    def lines(self) -> list[str]:
        """The causes, those of several hosts once: host, task, and the first lines of why."""
        # That hosts are not verified is the report's own word for what is said of each here.
        own = {where: cause for where, cause in self.by_host.items() if not cause.action.endswith("fleet_report")}
        alike: dict[tuple[str, ...], list[str]] = {}
        # In the order of their names: which failed first is chance.
        for where, cause in sorted((own or self.by_host).items()):
            alike.setdefault((cause.task, *cause.messages), []).append(where)
        shown = [line for why, hosts in list(alike.items())[:CAUSES] for line in _worded(hosts, *why)]
        left = [where for hosts in list(alike.values())[CAUSES:] for where in hosts]
        return [*([f"  also failed, see above: {', '.join(left)}"] if left else []), *shown]


def _worded(hosts: Sequence[str], where: str, *why: str) -> Iterable[str]:
    first, *more = shortened("\n".join(why), LINES) or ["it gave no reason"]
    return [printable(f"  {', '.join(hosts)}: {where}: {first}"), *(f"    {line}" for line in more)]


def _key(result: Any) -> tuple[str, str]:
    return str(host(result).get_name()), str(task(result)._uuid)
