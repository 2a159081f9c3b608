# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a start failed: the first failure of the first process that failed, out of the log of all of them.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. In the log of an engine of several
processes the last words are those of a wrapper ("see root cause above"), and before them the other ranks complain that
one is gone. So the log is read from its beginning: a line whose meaning is known wins, then an exception that nobody
knows, then what follows from the failure of another process, and never a wrapper. What an engine's own lines mean is
data of the catalogue (``logs.yml``); what docker, the guard and the libraries write is in common_causes.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving import common_causes
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import (
    HARMLESS,
    Failure,
    Line,
    Raised,
    Said,
    attribute,
    failures,
)

_LONGEST = 300
# How a process says that one of its children was killed; the kernel's word for the child's name is the program's.
_CHILD_KILLED = re.compile(r"exit ?code:? ?-9\b|': -9\b|SIGKILL: 9|signal 9\b")
# Written when an engine serves. What comes later is why it ended, and not what it survived while it began.
_SERVED = re.compile(r"Application startup complete|fired up and ready")
# The guard ends a start shortly before systemd would.
_LATE = re.compile(r"^glm: FAILED: .* within its budget of ")
_VICTIM = re.compile(r"Killed process \d+ \(([^)]*)\)")
# What an engine's processes are called, for the kernel: ENGINE::Worker, sometimes still the interpreter.
_OURS = re.compile(r"::|python|pt_main_thread")


class Cause(NamedTuple):
    """A cause, what to do next, and the line of the log that has it (-1: none has)."""

    cause: str
    next_step: str
    line: int = -1


class Rule(NamedTuple):
    """What lines mean; ``cause`` and ``next_step`` are filled with the groups of the pattern."""

    pattern: re.Pattern[str]
    cause: str
    next_step: str


class Rules:
    """What the lines of one engine's log mean.

    ``data``: ``phases`` are ``{phase, pattern, detail}``; ``causes``, and ``cascades`` (what follows from the failure
    of another process), are ``{pattern, cause, next}``; ``wrappers`` (what only says that something failed) and
    ``harmless`` (what is no failure) are ``{pattern}``. An engine's rules are looked for before those of every engine.
    """

    def __init__(self, data: Optional[Mapping[str, Any]] = None) -> None:
        known = data or {}
        self.phases = [
            (re.compile(rule["pattern"]), rule["phase"], rule.get("detail", "")) for rule in known.get("phases", ())
        ]
        self.causes = _rules(known.get("causes", ()), common_causes.CAUSES)
        self.crashes = _rules((), common_causes.CRASHES)
        self.cascades = _rules(known.get("cascades", ()), common_causes.CASCADES)
        patterns = [rule["pattern"] for rule in known.get("wrappers", ())]
        harmless = [rule["pattern"] for rule in known.get("harmless", ())]
        self.harmless = re.compile("|".join(harmless) if harmless else r"(?!)")
        self.wrapper = re.compile("|".join([*patterns, *common_causes.WRAPPERS]))


def _rules(data: Iterable[Mapping[str, str]], common: Iterable[tuple[str, str, str]]) -> list[Rule]:
    every = [*((rule["pattern"], rule["cause"], rule["next"]) for rule in data), *common]
    return [Rule(re.compile(pattern), cause, remedy) for pattern, cause, remedy in every]


class _Start(NamedTuple):
    """What is known of one start, read once.

    ``said``: the engine's lines but for those that are no failure; ``raised``: the first exception that follows from no
    other process; ``kill``: the first line that saw a child killed (-1: none).
    """

    properties: Mapping[str, str]
    lines: Sequence[Line]
    rules: Rules
    said: list[Said]
    raised: Optional[Raised]
    kill: int


def cause_of(
    properties: Mapping[str, str],
    lines: Sequence[Line],
    rules: Rules,
    kernel: Callable[[], Optional[Sequence[str]]] = lambda: None,
) -> Cause:
    """The cause of a failure and the next step.

    ``kernel``: gives the kernel's lines about processes it killed during the start, None where they cannot be read;
    asked only when the log names no cause, and once.
    """
    found = _of_systemd(properties)
    if found:
        return found
    ask = cache(kernel)
    served = max((index for index, line in enumerate(lines) if line.engine and _SERVED.search(line.text)), default=-1)
    if served >= 0:
        found = _of_start(_start(properties, lines[served + 1 :], rules), ask)
        line = found.line + served + 1
        if found.line >= 0 and not rules.wrapper.search(lines[line].text):
            return found._replace(line=line)
    return _of_start(_start(properties, lines, rules), ask)


def _start(properties: Mapping[str, str], lines: Sequence[Line], rules: Rules) -> _Start:
    said = [entry for entry in attribute(lines) if not rules.harmless.search(entry.text)]
    kill = next((index for index, line in enumerate(lines) if line.engine and _CHILD_KILLED.search(line.text)), -1)
    return _Start(properties, lines, rules, said, _first_raised(said, rules), kill)


def _of_start(start: _Start, kernel: Callable[[], Optional[Sequence[str]]]) -> Cause:
    found = _of_log(start)
    if found:
        return found
    kills = kernel()
    return _killed_for_memory(start, kills) or _unnamed(start) or _killed(start, kills) or _silent(start, kills)


def _of_systemd(properties: Mapping[str, str]) -> Optional[Cause]:
    if properties.get("AssertResult") == "no":
        return Cause("the weights are not where the plan has them", "run the role weights again on this host")
    if properties.get("LoadState") == "not-found":
        return Cause("the unit is not installed", "run the role serve again on this host")
    if properties.get("ExecMainStatus") == "203":
        return Cause("the engine's program is not on the host", "run the role engine_venv again on this host")
    return None


def _of_log(start: _Start) -> Optional[Cause]:
    """The first line of the engine whose meaning is known; else one of the guard, of docker or of systemd."""
    raised, rules = start.raised, start.rules
    found = _first(_telling(start), rules.causes)
    if found is None and raised:
        found = _first([Said(raised.line, "", "", raised.text, False)], rules.causes)
    if found:
        return found
    others = [Said(index, "", "", line.text, False) for index, line in enumerate(start.lines) if not line.engine]
    found = _first(others, rules.causes)
    # The guard only saw what the engine's exception did.
    return found._replace(line=raised.line) if found and raised else found


def _judged(start: _Start) -> list[Said]:
    """What may say why a process ended: no source text of a traceback, no mere warning."""
    return [entry for entry in start.said if not entry.frame and entry.level not in HARMLESS]


def _telling(start: _Start) -> list[Said]:
    """What may be a cause: of that, no wrapper."""
    return [entry for entry in _judged(start) if not start.rules.wrapper.search(entry.text)]


def _first(said: Iterable[Said], rules: Sequence[Rule]) -> Optional[Cause]:
    for entry in said:
        for rule in rules:
            match = rule.pattern.search(entry.text)
            if match:
                return Cause(_short(match.expand(rule.cause)), match.expand(rule.next_step), entry.line)
    return None


def _killed_for_memory(start: _Start, kills: Optional[Sequence[str]]) -> Optional[Cause]:
    """Only the kernel, or systemd that heard it from the kernel, knows that memory was the reason.

    The kernel may have killed somebody else's process: a kill counts if the engine saw one, or ended silently. Beside
    an exception status 137 says nothing: SGLang gives it to itself.
    """
    ours = [name for name in _victims(kills) if _OURS.search(name)]
    heard = start.properties.get("Result") == "oom-kill"
    if not heard and not (ours and (start.raised is None or start.kill >= 0)):
        return None
    who = ours[0] if ours else "the engine"
    return Cause(
        f"the host's memory ran out: the kernel's out-of-memory killer ended {who}",
        "see what else uses memory (journalctl -k -g 'Out of memory' lists the processes); weights pass through the "
        "host's memory while they are loaded",
        start.kill,
    )


def _unnamed(start: _Start) -> Optional[Cause]:
    """The first exception that nobody knows; else a budget that is spent; else what follows from another failure."""
    raised = start.raised
    guard = [line.text for line in start.lines if not line.engine]
    late = start.properties.get("Result") == "timeout" or any(map(_LATE.search, guard))
    if raised and not late:
        # An exception without a traceback may be anybody's word; a crash is what ended the process.
        crash = _crash(start) if raised.bare else None
        return crash or Cause(
            f"unknown; the first exception: {_short(raised.text)}", "read its traceback below", raised.line
        )
    if late:
        before = f"; the first exception before that: {_short(raised.text)}" if raised else ""
        remedy = "the phase above is the slow one; look at its log lines"
        return Cause(f"the start budget of the plan is spent{before}", remedy, raised.line if raised else -1)
    return _first(_telling(start), start.rules.cascades) or _crash(start)


def _crash(start: _Start) -> Optional[Cause]:
    """A wrapper, too, says with which status a process ended."""
    return _first(_judged(start), start.rules.crashes)


def _first_raised(said: Sequence[Said], rules: Rules) -> Optional[Raised]:
    """The last of the chain that is no wrapper, in the first failure that follows from no other."""
    for failure in failures(said):
        for raised in reversed(failure.chain):
            if rules.wrapper.search(raised.text):
                continue
            if not any(rule.pattern.search(raised.text) for rule in rules.cascades):
                return raised
            break
    return None


def _killed(start: _Start, kills: Optional[Sequence[str]]) -> Optional[Cause]:
    """A kill that something saw. An engine that says that a child failed may have ended itself this way."""
    status, result = start.properties.get("ExecMainStatus"), start.properties.get("Result")
    wrapped = any(line.engine and start.rules.wrapper.search(line.text) for line in start.lines)
    if start.kill < 0 and (wrapped or not (status == "137" or result in ("oom-kill", "signal"))):
        return None
    return Cause(
        f"a process of the engine was killed (SIGKILL); {_of_kernel(kills)}",
        "see who did it: journalctl -k, other administrators, and whether the engine ends itself this way",
        start.kill,
    )


def _silent(start: _Start, kills: Optional[Sequence[str]]) -> Cause:
    """Nothing but wrappers: a process that was killed, or crashed in native code, leaves no words of its own."""
    if not start.lines:
        return Cause("unknown", "no line of this start could be read; read the unit's journal on the host, as root")
    wrapper = next((entry for entry in start.said if start.rules.wrapper.search(entry.text)), None)
    if wrapper is None:
        return Cause("unknown", "read the log lines below")
    return Cause(
        f"unknown; a process of the engine ended silently; {_of_kernel(kills)}",
        "read the last lines of each process, and the kernel's log (journalctl -k) for a crash or a GPU fault",
        wrapper.line,
    )


def _of_kernel(kills: Optional[Sequence[str]]) -> str:
    if kills is None:
        return "whether by the kernel for memory is not known, as its log could not be read"
    others = ", ".join(dict.fromkeys(_victims(kills)))
    if others:
        return f"the kernel's out-of-memory killer ended {others} in this time, which does not look like it"
    return "the kernel's log of this start has no out-of-memory kill"


def _victims(kills: Optional[Sequence[str]]) -> list[str]:
    return [match.group(1) for match in map(_VICTIM.search, kills or ()) if match]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def around(lines: Sequence[Line], cause: Cause, count: int = 20) -> list[str]:
    """The lines a person needs: those of the failed process around the cause, then the guard's verdict.

    Without a line that has the cause, the last ones of the engine and the guard.
    """
    if count <= 0:
        return []
    if cause.line < 0 or not lines[cause.line].engine:
        wanted = [line for line in lines if line.engine or line.text.startswith("glm: ")]
        return [line.text for line in (wanted or list(lines))[-count:]]
    verdict = [line.text for line in lines if line.text.startswith("glm: FAILED")][-1:]
    said = attribute(lines)
    process = next(entry.process for entry in said if entry.line == cause.line)
    same = [entry.line for entry in said if entry.process == process]
    room, at = count - len(verdict), same.index(cause.line)
    after = min(len(same) - at - 1, room // 4)
    shown = same[max(0, at + after + 1 - room) : at + after + 1]
    block = _block(failures(said), cause.line)
    if block and shown and block.begin < shown[0]:
        shown[0] = block.begin
    return [lines[index].text for index in shown] + verdict


def _block(known: Sequence[Failure], line: int) -> Optional[Failure]:
    return next((failure for failure in known if failure.begin <= line <= failure.chain[-1].line), None)
