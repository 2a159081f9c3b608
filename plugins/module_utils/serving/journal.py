# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of one start of a unit, and the kernel's log of that time.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line

Runner = Callable[[Sequence[str]], CommandResult]

# Whose journal lines an engine's are: the docker client's, or as the unit for bare metal calls it.
ENGINE_IDENTIFIERS = ("docker", "glm-engine")

# The newest lines say the phase. A cause is the first of many: more is read until the start is whole, or this much.
NEWEST = 3000
WINDOWS = (NEWEST, 16000, 64000)
LARGEST_BYTES = 32 * 1024 * 1024
# The kernel's lines of this boot that are looked through.
KERNEL_LINES = 4000
_KILLED = re.compile(r"(?:Out of memory|out of memory|oom-kill).*|.*\boom_reaper\b.*")
# The kernel's clock and systemd's begin together, up to this.
_CLOCK_SLACK_US = 2_000_000
# Of a longer line the beginning is read: exceptions quote whole requests.
LONGEST_LINE = 8192


def read_journal(run: Runner, unit: str, invocation: str, whole: bool = False) -> list[Line]:
    """The lines of one start of a unit, oldest first; of its last start when this one left none.

    Only the newest ones without ``whole``; with it all of the start, up to 64,000 lines or 32 MiB of JSON.
    """
    wanted = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else []
    for match in (wanted, ["--unit", unit]):
        if match:
            parsed = _read(run, match, WINDOWS if whole else WINDOWS[:1])
            if parsed:
                return parsed if match is wanted else _last_start(parsed)
    return []


def read_start(run: Runner, invocation: str, ready: str) -> list[Line]:
    """The lines of one start of a unit until it was active, oldest first, and then its newest 3,000.

    ``ready``: when that was, as systemd writes it (``Sat 2026-11-28 23:09:37 UTC``). A unit that has run for weeks has
    written more since than can be read, and the beginning cannot be counted off: how many lines ``--lines`` gives of
    which end depends on the release (with ``--until``, journalctl 252 gives none), but not together with ``--reverse``.
    """
    match = [f"_SYSTEMD_INVOCATION_ID={invocation}"]
    begun = _read(run, ["--reverse", "--until", ready, *match], WINDOWS) if ready else []
    return [*begun, *_read(run, match, WINDOWS[:1] if begun else WINDOWS)]


def _read(run: Runner, match: Sequence[str], windows: Sequence[int]) -> list[Line]:
    """Larger and larger windows from the end, until one has the whole start; oldest first."""
    rows: list[str] = []
    for lines in windows:
        fields = "--output-fields=MESSAGE,SYSLOG_IDENTIFIER"
        # Without --all, journalctl writes null for what is longer than 4,095 bytes.
        done = run(["journalctl", "--quiet", "--all", "--output", "json", fields, "--lines", str(lines), *match])
        if not done.ok:
            break
        rows = _rows(done)
        if len(rows) < lines or len(done.stdout) > LARGEST_BYTES:
            break
    if "--reverse" in match:
        rows.reverse()
    return [line for row in rows for line in _lines_of(row)]


def _rows(done: CommandResult) -> list[str]:
    """JSON leaves characters in a text that ``splitlines`` takes for the end of a line."""
    return [row for row in done.stdout.split("\n") if row]


def _row(row: str) -> dict[str, Any]:
    try:
        entry = json.loads(row)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _message(entry: Mapping[str, Any]) -> str:
    return _text(entry.get("MESSAGE"))


def _text(value: Any) -> str:
    """journalctl gives bytes as numbers for what is not printable text, and a list for a field that is repeated."""
    if isinstance(value, list):
        if all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "replace")
        return "\n".join(_text(each) for each in value)
    return str(value or "")


def _lines_of(row: str) -> list[Line]:
    """A row can hold several lines: progress bars rewrite theirs with carriage returns."""
    entry = _row(row)
    engine = entry.get("SYSLOG_IDENTIFIER") in ENGINE_IDENTIFIERS
    # Engines colour their log, and a journal is what anybody wrote into it.
    pieces = [piece[:LONGEST_LINE].rstrip() for piece in printable(_message(entry), newlines=True).split("\n")]
    # Without a container the guard's lines come under the same name.
    return [Line(piece, engine and not piece.startswith("glm: ")) for piece in pieces if piece]


def _last_start(lines: Sequence[Line]) -> list[Line]:
    """What systemd wrote the name of a start before, so that an older start's cause is not this one's."""
    begun = [index for index, line in enumerate(lines) if not line.engine and line.text.startswith("Starting ")]
    return list(lines[begun[-1] :]) if begun else list(lines)


def kernel_kills(run: Runner, properties: Mapping[str, str]) -> Optional[list[str]]:
    """The kernel's lines about processes it killed for memory since the engine began.

    None when they cannot be read, and of a unit whose engine never began. A container, or a user without the right,
    gets no lines at all, which is no reading.
    """
    # A unit that waits for its next try has left "inactive" only after the failure.
    begun = int(properties.get("ExecMainStartTimestampMonotonic") or 0)
    if not begun:
        return None
    fields = "--output-fields=MESSAGE"
    done = run(["journalctl", "--quiet", "--all", "--dmesg", "--output", "json", fields, "--lines", str(KERNEL_LINES)])
    entries = [_row(row) for row in _rows(done)]
    if not done.ok or not entries:
        return None
    since = [
        _message(entry) for entry in entries if int(entry.get("__MONOTONIC_TIMESTAMP") or 0) >= begun - _CLOCK_SLACK_US
    ]
    return [text for text in since if _KILLED.search(text)]
