# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each key used in each month, counted from the front door's lines in the journal.

This module util is PRIVATE to the collection. It is also a program: the role ``door`` installs this file, and a timer
runs it. Standard library only, Python 3.9 or newer, and nothing of the collection.

``usage.json`` has the totals and the place in the journal up to which they count, written in one step: after a crash
the same lines are counted again from there, none twice. ``2026-11.csv`` is made from it.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

FOLDER = Path("/var/lib/glm/usage")
UNIT = "glm-door.service"
# The estimated tokens stand in for those of the uncounted requests, whose answers did not say them.
COUNTS = (
    "requests",
    "refused",
    "uncounted",
    "prompt_tokens",
    "completion_tokens",
    "estimated_prompt_tokens",
    "estimated_completion_tokens",
)
COLUMNS = (*COUNTS, "first_use", "last_use")
# Older months stay as CSV files.
MONTHS_KEPT = 24
# Lines after which the totals are written, so that a long first run can be interrupted.
PORTION = 100_000

# As the log-format of templates/glm-door.cfg.j2 writes them; "-" is none.
_LINE = re.compile(
    r"\S+ key=(?P<key>[a-z0-9][a-z0-9._-]{0,62}) method=\S+ route=\S+ to=\S+ status=(?P<status>-?\d+) "
    r"limit=(?P<limit>\S+) generates=(?P<generates>\S+) prompt=(?P<prompt>\d+|-) completion=(?P<completion>\d+|-) "
    # Of a door that was configured before there were estimates, the line has none.
    r"(?:estimated=(?P<asked>\d+|-)/(?P<answered>\d+|-) )?"
)
_OK = 200

State = dict[str, Any]


class UsageError(Exception):
    """The usage cannot be counted; the text says why."""


def empty() -> State:
    """Before the first line: the place in the journal, and by month and key the numbers of COLUMNS."""
    return {"cursor": None, "months": {}}


def rebuilt(folder: Path) -> State:
    """The totals as the CSV files have them, where ``usage.json`` was lost. What was recorded stays.

    Lines of the journal up to the last use in them were counted.
    """
    state = empty()
    for path in sorted(folder.glob("[0-9]*-[0-9]*.csv"))[-MONTHS_KEPT:]:
        for row in csv.DictReader(io.StringIO(path.read_text("utf-8"))):
            counts = {name: int(row.get(name) or 0) for name in COUNTS}
            uses = {name: row[name] for name in ("first_use", "last_use")}
            state["months"].setdefault(path.stem, {})[row["key"]] = {**counts, **uses}
            state["counted_until"] = max(state.get("counted_until", ""), row["last_use"])
    return state


def count(state: State, entries: Iterable[dict[str, Any]]) -> int:
    """Count entries of the journal, in its order, and move the place behind them; how many there were."""
    seen = 0
    for entry in entries:
        seen += 1
        state["cursor"] = entry["__CURSOR"]
        message = entry.get("MESSAGE")
        match = _LINE.match(message) if isinstance(message, str) else None
        if match is not None:
            _count_line(state, match, int(entry["__REALTIME_TIMESTAMP"]) // 1_000_000)
    return seen


def _count_line(state: State, line: re.Match[str], second: int) -> None:
    moment = datetime.fromtimestamp(second, timezone.utc)
    if _text(moment) <= state.get("counted_until", ""):
        return
    row = state["months"].setdefault(f"{moment:%Y-%m}", {}).setdefault(line["key"], {"first_use": _text(moment)})
    for name in COUNTS:
        # Totals of an earlier release have fewer columns.
        row.setdefault(name, 0)
    row["requests"] += 1
    row["last_use"] = _text(moment)
    if line["limit"] != "-":
        row["refused"] += 1
    elif line["prompt"] != "-" and line["completion"] != "-":
        row["prompt_tokens"] += int(line["prompt"])
        row["completion_tokens"] += int(line["completion"])
    elif line["asked"] not in (None, "-"):
        row["uncounted"] += 1
        row["estimated_prompt_tokens"] += int(line["asked"])
        row["estimated_completion_tokens"] += int(line["answered"])
    elif line["generates"] != "-" and int(line["status"]) == _OK:
        row["uncounted"] += 1


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The CSV of one month."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("key", *COLUMNS))
    writer.writerows((key, *(row.get(name, 0) for name in COLUMNS)) for key, row in sorted(rows.items()))
    return out.getvalue()


def load(folder: Path) -> State:
    """What was counted so far. Raises UsageError when it cannot be read: to begin anew would count lines twice."""
    path = folder / "usage.json"
    try:
        state = json.loads(path.read_text("utf-8"))
        if not isinstance(state["months"], dict) or not isinstance(state["cursor"], (str, type(None))):
            raise ValueError("another form")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as exc:
        text = f"cannot read {path}: {exc}. Restore it, or move it away to go on from the CSV files beside it"
        raise UsageError(text) from exc
    else:
        return dict(state)
    try:
        return rebuilt(folder)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"cannot read the CSV files in {folder}: {exc!r}. Restore them, or move them away") from exc


def save(folder: Path, state: State) -> None:
    """Totals and place in one step, then the CSV files that differ."""
    for month in sorted(state["months"])[:-MONTHS_KEPT]:
        del state["months"][month]
    _write(folder / "usage.json", json.dumps(state))
    for month, rows in state["months"].items():
        path, text = folder / f"{month}.csv", table(rows)
        if not path.exists() or path.read_text("utf-8") != text:
            _write(path, text)


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def journal(cursor: Optional[str], unit: str = UNIT) -> Iterator[dict[str, Any]]:
    """The unit's own lines behind a place in the journal. Raises UsageError when they end with an error."""
    command = ["journalctl", "--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE"]
    command.append(f"_SYSTEMD_UNIT={unit}")
    if cursor:
        command.insert(1, f"--after-cursor={cursor}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") as process:
        for line in process.stdout or ():
            yield json.loads(line)
        problem = process.stderr.read().strip() if process.stderr else ""
    if process.returncode:
        raise UsageError(f"journalctl ended with {process.returncode}: {problem[:200]}")


def collect(folder: Path = FOLDER) -> State:
    """Count what the journal has had since the last time, keep it, and give the totals. Raises UsageError, OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = load(folder)
        entries = journal(state["cursor"])
        while count(state, _first(entries, PORTION)):
            save(folder, state)
        return state


def _first(entries: Iterator[dict[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    for _number, entry in zip(range(most), entries):
        yield entry


def main(arguments: Sequence[str]) -> int:
    """Count in FOLDER, or in the one that is given; the exit status of the program."""
    try:
        collect(Path(arguments[0]) if arguments else FOLDER)
    except (UsageError, OSError) as exc:
        sys.stderr.write(f"usage: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
