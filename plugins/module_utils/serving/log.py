# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of a program of several processes, read as what each process said.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. The journal has the lines of all
processes of an engine in one order. Here a line gets its process, its level and its text without the engine's header,
and a traceback becomes one failure with its first and last line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

# `(EngineCore_DP1 pid=7) ERROR 11-20 23:58:14 [core.py:1510] text`; the process is in every line it writes.
# Ray writes one more for its worker, with the address of another host: `(RayWorker pid=9, ip=10.0.0.6)`.
_PROCESS = re.compile(r"^\(([A-Za-z][\w.-]*) pid=(\d+)((?:, ip=[\w.:]+)?)\) ?")
_LEVELS = "(DEBUG|INFO|WARNING|ERROR|CRITICAL)"
_LEVEL_HEADER = re.compile(rf"^{_LEVELS}(?: \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]+\])? ")
# `2026-11-20 23:58:14,123 - name - WARNING - text`, and Ray's `2026-11-20 23:58:14,123\tWARNING file.py:9 -- text`.
_LOGGING_HEADER = re.compile(rf"^\d{{4}}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*\s+(?:- )?(?:[\w.]+ - )?\[?{_LEVELS}\]?(?: -)? ")
# `[2026-11-20 23:58:14 DP1 TP3] text`; lines that follow without a header belong to the same process.
_DATED_HEADER = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d((?: [A-Z][A-Z_]*\d+)*)\] ?")
# torch: `[rank3]: text` for what a rank's Python prints, `[rank3]:[E1120 23:58:14.1 file.cpp:683] text` for its C++.
_TORCH_RANK = re.compile(r"^\[rank(\d+)\]: ?")
_GLOG_HEADER = re.compile(r"^\[?([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ [^\]]*\] ?")
_GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
# Uvicorn's `WARNING:  text`, and the standard library's `WARNING:name:text`.
_PLAIN_HEADER = re.compile(rf"^{_LEVELS}:(?:[\w.]+:|\s+)")

# A line of one of these levels is not why a process ended.
HARMLESS = ("DEBUG", "INFO", "WARNING")
_TRACEBACK = "Traceback (most recent call last):"
# Python writes this before a traceback that ended nothing.
_IGNORED = re.compile(r"^(?:Exception ignored (?:in|on|while)\b|--- Logging error ---)")
_CHAINED = re.compile(
    r"^(During handling of the above exception, another exception occurred|"
    r"The above exception was the direct cause of the following exception):$"
)
_NAME = r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Expired)|Exception"
# What follows the frames of a traceback is an exception, whatever it is called.
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*)(?:: .*)?$")
# Where there is no traceback: what reads like an exception in what a process said.
_BARE = re.compile(rf"(?:^|[:\s])((?:{_NAME}): .+)$")
_ENDINGS = re.compile(r"^(?:\w+\.)*(?:SystemExit|KeyboardInterrupt|CancelledError|GeneratorExit)$")


class Line(NamedTuple):
    """One journal line; ``engine`` is false for systemd's and the guard's own."""

    text: str
    engine: bool


class Said(NamedTuple):
    """A line as its process said it. ``line``: its number; ``frame``: source text inside a traceback."""

    line: int
    process: str
    level: str
    text: str
    frame: bool


class Raised(NamedTuple):
    """An exception as Python prints it (``ValueError: text``) and its line; ``bare``: with no traceback."""

    text: str
    line: int
    bare: bool = False


class Failure(NamedTuple):
    """A traceback of a process: the line it begins with, and what was raised, the last of a chain last."""

    process: str
    begin: int
    chain: tuple[Raised, ...]


def attribute(lines: Sequence[Line]) -> list[Said]:
    """Each engine's line with its process; lines without a process belong to the one that wrote before them."""
    found: list[Said] = []
    current = ""
    open_level: dict[str, str] = {}  # of the processes in a traceback: its level
    before: dict[str, str] = {}
    for index, line in enumerate(lines):
        if not line.engine:
            continue
        process, level, text = _parts(line.text)
        if process is not None:
            current = process
        frame = False
        if _TRACEBACK in text:
            open_level[current] = level = "WARNING" if _IGNORED.match(before.get(current, "")) else level
        elif current in open_level and (text.startswith(" ") or not text):
            frame = True
        else:
            level = level or open_level.get(current, "")
            open_level.pop(current, None)
        before[current] = text
        found.append(Said(index, current, level, text, frame))
    return found


def _parts(text: str) -> tuple[Optional[str], str, str]:
    """Process (None: not said), level (empty: not said) and the rest of a line."""
    process: Optional[str] = None
    match = _PROCESS.match(text)
    while match:
        process, text = "{} {}{}".format(*match.groups()), text[match.end() :]
        match = _PROCESS.match(text)
    match = _DATED_HEADER.match(text)
    if match:
        process, text = match.group(1).strip() or "main", text[match.end() :]
    match = _TORCH_RANK.match(text)
    if match:
        process, text = f"rank {match.group(1)}", text[match.end() :]
    for pattern in (_LEVEL_HEADER, _PLAIN_HEADER, _LOGGING_HEADER):
        match = pattern.match(text)
        if match:
            return process, match.group(1), text[match.end() :]
    match = _GLOG_HEADER.match(text)
    if match:
        return process, _GLOG_LEVELS[match.group(1)], text[match.end() :]
    return process, "", text


def failures(said: Sequence[Said]) -> list[Failure]:
    """The tracebacks of a log in the order in which they were written; chained ones are one failure.

    A traceback that a process logs as a warning, or while it is ending, is none. Without any, the lines that read like
    an exception.
    """
    found: list[Failure] = []
    each: dict[str, list[Said]] = {}
    for entry in said:
        each.setdefault(entry.process, []).append(entry)
    for process, own in each.items():
        found += _failures_of(process, own)
    return sorted(found or _bare(said), key=lambda failure: failure.begin)


def _failures_of(process: str, said: Sequence[Said]) -> list[Failure]:
    found: list[Failure] = []
    begin: Optional[int] = None
    chained = False
    for position, entry in enumerate(said):
        if _CHAINED.match(entry.text):
            chained = bool(found)
        elif _TRACEBACK in entry.text:
            begin = None if entry.level in HARMLESS else entry.line
        elif begin is not None and not entry.frame:
            raised = _raised(said, position)
            if raised:
                before = found.pop() if chained else Failure(process, begin, ())
                found.append(before._replace(chain=(*before.chain, Raised(raised, entry.line))))
            begin, chained = None, False
    return found


def _raised(said: Sequence[Said], position: int) -> str:
    """The exception in the line that ends a traceback; one of several lines (pydantic's) with its second.

    One without a message gets the source line that raised it.
    """
    match = _EXCEPTION.match(said[position].text)
    if match is None or _ENDINGS.match(match.group(1)):
        return ""
    raised = said[position].text
    if re.search(r"validation errors? for \S+$", raised) and position + 1 < len(said):
        raised += f": {said[position + 1].text.strip()}"
    if raised == match.group(1):
        code = _source_before(said, position)
        raised += f": {code}" if code else ""
    return raised


def _source_before(said: Sequence[Said], position: int) -> str:
    """The last source line of the frames that end at a position."""
    for index in range(position - 1, -1, -1):
        text = said[index].text.strip()
        if not said[index].frame:
            break
        if text.strip("^~ ") and not text.startswith("File "):
            return text
    return ""


def _bare(said: Sequence[Said]) -> list[Failure]:
    matches = [(entry, _BARE.search(entry.text)) for entry in said if entry.level not in HARMLESS and not entry.frame]
    return [
        Failure(entry.process, entry.line, (Raised(match.group(1), entry.line, bare=True),))
        for entry, match in matches
        if match
    ]
