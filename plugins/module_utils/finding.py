# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one record of what was checked, its one wording, and the one way in for text that others wrote.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Everything that is expected of a
host, a plan or an endpoint and everything that was found instead is a ``Finding``; every error is worded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Optional, TypedDict

Outcome = Literal["passed", "failed", "not_proven"]

# ECMA-48: CSI (colours, cursor), strings up to their end (OSC: titles, links, the clipboard; DCS, SOS, PM, APC), and
# the two-character ones. A string that never ends loses its introducer only: what follows may be the error itself.
_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
_NEWLINES = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_NOT_ASCII = re.compile(r"[^ -~]")
_NOT_ASCII_OR_NEWLINE = re.compile(r"[^ -~\n]")


class QuotingError(Exception):
    """An error whose text quotes a cloud, hub, engine or tool; it is printable.

    ``more`` is what a module that fails with it returns beside the text.
    """

    def __init__(self, text: str, **more: Any) -> None:
        super().__init__(printable(text, newlines=True))
        self.more = more


class _Required(TypedDict):
    phase: str
    """Where it was seen: driver, verify, acceptance, plan."""
    check: str
    """What was checked, within the phase; the phase itself where that has one check only."""
    outcome: Outcome
    """``not_proven``: it could not be checked, or does not apply; ``found`` says why."""
    expected: str
    """What had to be there, as a clause that follows "expected"."""
    found: str
    """What was there, as a clause that follows "found"."""
    next: str
    """What to do about it; empty when it passed."""


class Finding(_Required, total=False):
    """One check: what was expected, what was found, and what to do next. Every text in it is printable."""

    unread: bool
    """It applies here and could not be read; of what is not proven, a strict acceptance refuses this."""
    seconds: float
    """How long the check took."""
    evidence: list[str]
    """Lines that show it: of a log, of a command's answer."""


def failed(
    phase: str,
    expected: str,
    found: str,
    next_step: str,
    *,
    check: Optional[str] = None,
    evidence: Sequence[str] = (),
) -> Finding:
    """A check that failed. ``check`` is left out in a phase that has one check only."""
    return judged(phase, check or phase, False, expected, found, next_step, evidence=evidence)


def not_proven(phase: str, check: str, expected: str, found: str) -> Finding:
    """A check that could not be made, or does not apply here; ``found`` is the reason."""
    return judged(phase, check, None, expected, found, seconds=0.0)


def unread(phase: str, check: str, expected: str, found: str, next_step: str) -> Finding:
    """A check that applies and could not be made: never passed, and refused by a strict acceptance."""
    return {**judged(phase, check, None, expected, found, next_step), "unread": True}


def judged(
    phase: str,
    check: str,
    ok: Optional[bool],
    expected: str,
    found: str,
    next_step: str = "",
    seconds: Optional[float] = None,
    evidence: Sequence[str] = (),
) -> Finding:
    """A check by its answer: None is not proven. There is no next step after one that passed."""
    made: Finding = {
        "phase": printable(phase),
        "check": printable(check),
        "outcome": "not_proven" if ok is None else "passed" if ok else "failed",
        "expected": printable(expected),
        "found": printable(found),
        "next": "" if ok else printable(next_step),
    }
    if seconds is not None:
        made["seconds"] = round(seconds, 2)
    if evidence:
        made["evidence"] = [printable(line) for line in evidence]
    return made


class Unmet(QuotingError):
    """An expectation that was not met: an error in the wording of ``unmet``, without who and where."""

    def __init__(self, expected: str, found: object, next_step: str = "", **more: Any) -> None:
        super().__init__(unmet(expected, found, next_step), **more)
        self.expected = expected
        self.found = str(found)
        self.next_step = next_step

    def finding(self, phase: str) -> Finding:
        """As the failed check of a phase."""
        return failed(phase, self.expected, self.found, self.next_step)


class Refusal(QuotingError, ValueError):
    """What was asked for is refused: an error in the wording of ``advised``, without who and where."""

    def __init__(self, why: str, next_step: str = "") -> None:
        super().__init__(advised(why, next_step))
        self.why = why
        self.next_step = next_step

    def finding(self, phase: str, expected: str) -> Finding:
        """As the failed check of a phase."""
        return failed(phase, expected, self.why, self.next_step)


def counts_against(finding: Finding) -> bool:
    """Whether this finding alone makes a verdict bad. What is not proven does not: it is only reported."""
    return finding["outcome"] == "failed"


def against(findings: Iterable[Finding]) -> list[Finding]:
    """Those of the findings that count against what was checked."""
    return [finding for finding in findings if counts_against(finding)]


def verdict_ok(findings: Iterable[Finding]) -> bool:
    """Whether nothing counts against what was checked."""
    return not against(findings)


def tally(findings: Iterable[Finding]) -> tuple[int, int]:
    """How many checks passed, and how many were made; what is not proven was not made."""
    made = [finding for finding in findings if finding["outcome"] != "not_proven"]
    return sum(finding["outcome"] == "passed" for finding in made), len(made)


def unmet(expected: str, found: object, next_step: str = "") -> str:
    """The wording of every error, without who and where: ``expected …, found …. Next: ….``"""
    wanted = f"expected {_clause(expected)}, " if expected else ""
    return advised(f"{wanted}found {_clause(str(found))}", next_step)


def advised(what: str, next_step: str) -> str:
    """What happened, and what to do about it: ``…. Next: ….``"""
    said = _clause(what)
    head = said if said.endswith("?") else f"{said}."
    return f"{head} Next: {_clause(next_step)}." if next_step.strip() else head


def render(finding: Finding, where: str) -> str:
    """A finding as one line that begins with ``where``."""
    return f"{where}: {unmet(finding['expected'], finding['found'], finding['next'])}"


def in_full(finding: Finding, where: str, evidence_is: str) -> str:
    """As ``render``, and below it the evidence, indented, under a line that says what it is."""
    lines = [f"    {line}" for line in finding.get("evidence") or []]
    return "\n".join([render(finding, where), *([f"  {evidence_is}:", *lines] if lines else [])])


def describe(findings: Iterable[Finding], host: str) -> str:
    """Findings as the text of an error: host, phase, expected, found, next; empty when there are none."""
    return " ".join(render(finding, f"{printable(host)}, {_where(finding)}") for finding in findings)


def summary(findings: Sequence[Finding], where: str) -> str:
    """How many of the checks of one phase count against it, and a line for each of these."""
    wrong = against(findings)
    head = f"{where}: {len(wrong)} of {len(findings)} checks failed"
    return "\n".join([head, *(render(finding, f"  {_where(finding)}") for finding in wrong)])


def shortened(text: str, most: int) -> list[str]:
    """The first ``most`` lines of a message, and what it says to do next."""
    lines = [printable(line, 1000) for line in text.splitlines() if line.strip()]
    if len(lines) <= most:
        return lines
    advice = [line for line in lines[most:] if "Next: " in line][:1]
    return [*lines[:most], f"… ({len(lines) - most} more lines; -v shows all)", *advice]


def counted(count: int, what: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _where(finding: Finding) -> str:
    phase, check = finding["phase"], finding["check"]
    return phase if check == phase else f"{phase}, {check}"


def _clause(text: str) -> str:
    """Foreign text within a sentence of ours: printable, and without a full stop of its own."""
    return printable(text, newlines=True).strip().removesuffix(".")


def printable(text: object, limit: Optional[int] = None, newlines: bool = False) -> str:
    r"""Text of a cloud, hub, engine or tool that a terminal, a log and a report can show as it is.

    Terminal sequences (colours, titles, links, clipboard) are taken out. Every other control or format character, such
    as a bell, a backspace or a bidirectional override, is written as its escape (``\x07``, ``\u202e``), and so is a
    newline unless ``newlines`` keeps it. ``limit`` is the longest result; a longer text ends in an ellipsis.
    """
    shown = str(text)
    # Nearly every text is: the answers of a cloud and the journal of a long start are millions of characters.
    if not shown.isprintable():
        lines = _NEWLINES.sub("\n", _TERMINAL.sub("", shown))
        shown = (_NOT_ASCII_OR_NEWLINE if newlines else _NOT_ASCII).sub(_shown, lines)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def printable_in(value: Any) -> Any:
    """A value of JSON with every text in it printable, keys too; newlines are kept."""
    if isinstance(value, str):
        return value if value.isprintable() else printable(value, newlines=True)
    if isinstance(value, Mapping):
        return {printable_in(key): printable_in(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable_in(entry) for entry in value]
    return value


def _shown(match: re.Match[str]) -> str:
    char = match.group()
    if char.isprintable():
        return char
    # A tab or a space of another width moves nothing but itself.
    return (
        " " if char.isspace() and char not in "\n\x0b\x0c\x1c\x1d\x1e\x1f" else char.encode("unicode_escape").decode()
    )
