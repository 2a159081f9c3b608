# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lines of the kernel log that speak of hardware, out of the journal and the kernel's own buffer.

This module util is PRIVATE to the collection. It only collects: the controller judges (``catalog/kernel_log.yml``),
because a table that grows with each driver is data. The journal may have been vacuumed and the buffer overwritten, so
both are read. Their lines are the same by the kernel's own clock: ``_SOURCE_MONOTONIC_TIMESTAMP`` of
systemd.journal-fields(7) is the stamp that dmesg(1) prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult, run

JOURNAL = (
    *("journalctl", "--dmesg", "--boot", "--no-pager", "--quiet", "--all", "--output=json"),
    "--output-fields=MESSAGE,_SOURCE_MONOTONIC_TIMESTAMP",
)
BUFFER = ("dmesg",)
# Every line that a rule of the catalogue knows has one of these; a test compares them.
SIGNS = re.compile(
    r"NVRM: .*(?:Xid|RmInit|GSP|gsp|RESET|[Rr]eset|fallen off|I/O region)|SXid|AER: "
    r"|Hardware Error.*(?:Machine [Cc]heck|System Fatal|Uncorrected, |event severity|(?:Corrected|Deferred) error)"
    r"|mce: Uncorrected"
    r"|amdgpu.*(?:uncorrectable|threshold|is bad|Replace this|[Rr]eset|timeout|MES|[Ff]ailed|Fatal)"
    r"|ring \S+ (?:timeout|reset)|MES (?:failed|might)|Memory failure: "
    r"|nvme nvme\d+: .*(?:timeout|down|reset|Removing|Disabling)|(?:I/O|medium) error, dev"
    r"|EXT4-fs (?:error|\(.*read-only)|XFS \(.*(?:orruption|I/O [Ee]rror|[Ss]hut)|ut of memory: Kill"
    r"|IO_PAGE_FAULT|DMAR: \[|arm-smmu.*event"
)
# What differs between two lines that say the same: addresses, processes, sizes, numbers of records.
_VARIES = re.compile(
    r"0x[0-9a-fA-F_]+|(?:pid|process)[= ]\d+|\bCh [0-9a-fA-F]+|(?:seq|cmd_id|sector|I/O|name)[= ][^\s,]+|\{\d+\}"
    r"|\d+kB|\bCPU \d+|\bBank \d+: [0-9a-f]+"
)
_STAMP = re.compile(r"^(?:<\d+>)?\[\s*(\d+)\.(\d{6})\] ?(.*)$")
_SCSI = re.compile(r" error, dev (sd[a-z]+)\b")
# Of so many different lines the newest are kept.
MOST_ROWS = 400
LONGEST_LINE = 300

Line = tuple[int, str]
"""Microseconds since the boot, and the text."""


def gather(timeout: float, root: Path = Path("/")) -> dict[str, Any]:
    """``{lines, begins, rows, left_out, problems}``.

    ``lines``: how many were read at all. ``begins``: seconds from the boot to the first of them, None without any.
    ``rows``: ``[{line, count}]`` of those with a sign, each kind once with its last text, in the order of their last
    time. ``left_out``: older rows that did not find room. ``problems``: what could not be read, in the command's words.
    """
    journal, buffer = run(JOURNAL, timeout), run(BUFFER, timeout)
    found = {*parse_journal(journal.stdout), *parse_buffer(buffer.stdout)}
    lines = sorted(found)
    rows = collapse(text for _at, text in lines if SIGNS.search(text) and not _has_no_medium(text, root))
    return {
        "lines": len(lines),
        "begins": lines[0][0] / 1e6 if lines else None,
        "rows": rows[-MOST_ROWS:],
        "left_out": max(0, len(rows) - MOST_ROWS),
        "problems": [words for done in (journal, buffer) for words in _problem(done)],
    }


def _has_no_medium(text: str, root: Path) -> bool:
    """Whether a line is of a drive that others fill: a management controller's virtual media, a card reader. One of
    NVMe without a size is a disk that died."""
    match = _SCSI.search(text)
    block = root / "sys/block" / (match[1] if match else "")
    return bool(match) and (files.read_text(block / "removable") == "1" or files.read_text(block / "size") == "0")


def _problem(done: CommandResult) -> list[str]:
    if done.ok and done.stdout.strip():
        return []
    return [f"{done.argv[0]}: {done.evidence() or 'no line'}"]


def parse_journal(text: str) -> list[Line]:
    """The lines of ``journalctl --output=json``; what is no entry is passed over."""
    return [line for row in text.splitlines() for line in _entry(row)]


def _entry(row: str) -> list[Line]:
    try:
        entry = json.loads(row)
        # A clock that an old journal does not have: then the journal's own, at which the line came in.
        at = int(entry.get("_SOURCE_MONOTONIC_TIMESTAMP") or entry["__MONOTONIC_TIMESTAMP"])
        message = _message(entry.get("MESSAGE"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [(at, part.strip()) for part in message.splitlines() if part.strip()]


def _message(value: Any) -> str:
    """journalctl gives text with a byte that is not printable as a list of numbers."""
    if isinstance(value, list):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def parse_buffer(text: str) -> list[Line]:
    """The lines of ``dmesg``. One without a stamp goes on with the line above, at whose time it was written."""
    found: list[Line] = []
    for row in text.splitlines():
        line = _stamped(row)
        if line:
            found.append(line)
        elif row.strip():
            found.append((found[-1][0] if found else 0, row.strip()))
    return [line for line in found if line[1]]


def _stamped(row: str) -> Optional[Line]:
    match = _STAMP.match(row)
    return (int(match[1]) * 1_000_000 + int(match[2]), match[3].strip()) if match else None


def collapse(texts: Iterable[str]) -> list[dict[str, Any]]:
    """``[{line, count}]``: what was said again is kept once, where it was said last."""
    kinds: dict[str, dict[str, Any]] = {}
    for text in texts:
        kind = _VARIES.sub("#", text)
        known = kinds.pop(kind, {"count": 0})
        kinds[kind] = {"line": text[:LONGEST_LINE], "count": known["count"] + 1}
    return list(kinds.values())
