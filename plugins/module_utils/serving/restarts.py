# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the engine of a unit ended although nobody asked it to: kept on the host, for its next start and for people.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. The guard of units imports a copy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

FOLDER = Path("/var/lib/glm/restarts")
# What systemd is asked for.
PROPERTIES = "Job,NRestarts,ActiveEnterTimestampMonotonic,InactiveExitTimestampMonotonic"
# An engine that served so long was well; what ends it then begins a new count.
GOOD_SECONDS = 3600
# The first restarts come at once; each further one waits twice as long.
FREE, FIRST_PAUSE, LONGEST_PAUSE = 2, 30, 300
KEPT_SECONDS, MOST_KEPT = 30 * 86400, 100
# An engine that ended so often in a day does not come right by itself; of fewer ends that is not known.
REPEATED, RECENT_SECONDS = 3, 86400
# How a rank of several hosts ends when another is gone: that one has the cause.
PEER_LOST = "75"
_SIGNALS = {"9": "SIGKILL", "KILL": "SIGKILL", "ABRT": "SIGABRT", "SEGV": "SIGSEGV", "TERM": "SIGTERM"}


def file_of(unit: str, folder: Path = FOLDER) -> Path:
    """Where the ends of a unit are kept."""
    return folder / f"{unit.partition('.')[0]}.json"


def read(path: Path) -> Optional[dict[str, Any]]:
    """``since`` (seconds since 1970) and ``ends``, the newest last; ``since`` 0 where nothing is kept.

    ``begun``: when what somebody started last answered first; 0 where that is not known. None: there is a record, and
    it cannot be read.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        begun = float(kept.get("begun", 0))
        ends = [{**end, **{name: float(end.get(name) or 0) for name in ("at", "served")}} for end in kept["ends"]]
        return {"since": float(kept["since"]), "begun": begun, "ends": ends}
    except FileNotFoundError:
        return _nothing()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _nothing() -> dict[str, Any]:
    return {"since": 0.0, "begun": 0.0, "ends": []}


def add(path: Path, end: dict[str, Any], now: Optional[float] = None) -> None:
    """Keep one more end; those of a month, and a hundred at most. Raises OSError.

    A record that cannot be read is begun anew, as ``since`` then says.
    """
    moment = time.time() if now is None else now
    kept = read(path) or _nothing()
    ends = [one for one in kept["ends"] if moment - one["at"] < KEPT_SECONDS]
    ends = [*ends, {"at": moment, **end}][-MOST_KEPT:]
    _write(path, {**kept, "since": max(kept["since"] or moment, moment - KEPT_SECONDS), "ends": ends})


def begin(path: Path, now: Optional[float] = None) -> None:
    """Keep that what somebody started has answered: ends before are those of something else. Raises OSError."""
    moment = time.time() if now is None else now
    kept = read(path) or _nothing()
    _write(path, {**kept, "since": kept["since"] or moment, "begun": moment})


def _write(path: Path, kept: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    # Whole or not at all; the guard has no other module of the collection.
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(kept))
    new.replace(path)


def unasked(seen: Mapping[str, str], environment: Mapping[str, str]) -> Optional[dict[str, Any]]:
    """An end that nobody asked for, from what systemd says of the unit and to ExecStopPost=; None for others.

    Once it served, a job is somebody's stop; without one also what systemd calls a success is a crash: some engines end
    with SIGKILL when they are stopped.
    """
    begun, active = (
        int(seen.get(name) or 0) for name in ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    )
    served = max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - active / 1e6) if active >= begun and active else 0.0
    asked = seen.get("Job", "0") not in ("", "0") or environment.get("EXIT_STATUS") == "0"
    if asked if served else environment.get("SERVICE_RESULT", "") == "success":
        return None
    names = {"result": "SERVICE_RESULT", "code": "EXIT_CODE", "status": "EXIT_STATUS", "invocation": "INVOCATION_ID"}
    return {"served": served, **{name: environment.get(variable, "") for name, variable in names.items()}}


def in_a_row(ends: Sequence[dict[str, Any]]) -> int:
    """How many times it ended, at last, within an hour of its first answer."""
    count = 0
    for end in reversed(ends):
        if not end.get("served") or end["served"] >= GOOD_SECONDS:
            break
        count += 1
    return count


def pause(ends: Sequence[dict[str, Any]]) -> int:
    """Seconds that the next start waits."""
    beyond = in_a_row(ends) - FREE
    return 0 if beyond < 1 else min(FIRST_PAUSE * 2 ** (min(beyond, 10) - 1), LONGEST_PAUSE)


def pause_of(path: Path) -> tuple[int, str]:
    """The same by what is kept, and what to say of it; empty where there is nothing to say."""
    kept = read(path)
    if kept is None:
        return 0, f"cannot read how often it ended ({path}), so it does not wait for that"
    seconds = pause(kept["ends"])
    said = f"waiting {seconds} s: it ended {in_a_row(kept['ends'])} times in a row soon after its first answer"
    return seconds, said if seconds else ""


def words(end: dict[str, Any]) -> str:
    """What systemd knows of an end."""
    status = str(end.get("status", ""))
    how = {"exited": f"it ended with status {status}", "killed": f"it was killed by {_SIGNALS.get(status, status)}",
           "dumped": f"it crashed with {_SIGNALS.get(status, status)}"}  # fmt: skip
    said = how.get(str(end.get("code", "")), "it ended")
    result = str(end.get("result", ""))
    said += {"oom-kill": ", because memory ran out", "timeout": ", after its time was over"}.get(result, "")
    served = end.get("served")
    return f"{said} after it had served for {served:.0f} s" if served else f"{said} before its first answer"


def described(path: Path, automatic: int, now: Optional[float] = None) -> Optional[dict[str, Any]]:
    """What is kept, for people: ``count`` of ends in ``since``'s time, when the last was and why.

    ``recent``: those of the last day, of what somebody started last and not because another host was gone. On a host
    that answers nobody itself, ``automatic`` says which: systemd's NRestarts, which somebody's start sets to 0.
    None where it is not known: the record cannot be read, or is not there although systemd has counted restarts.
    """
    kept = read(path)
    if kept is None or (automatic and not kept["ends"]):
        return None
    ends = kept["ends"]
    last = ends[-1] if ends else None
    moment = time.time() if now is None else now
    first = max(kept["begun"], moment - RECENT_SECONDS)
    recent = [end for end in ends if end["at"] > first and end.get("status") != PEER_LOST]
    return {
        "count": len(ends),
        "recent": len(recent) if kept["begun"] else min(len(recent), automatic),
        "since": kept["since"] or None,
        "last_at": last["at"] if last else None,
        "last_cause": words(last) if last else "",
    }


def unknown(seen: Mapping[str, Any]) -> str:
    """What to say where ``ended`` of what was seen is not known; empty where it is, or was not looked for."""
    return "" if seen.get("ended", 0) is not None else f"how often it ended by itself is not known: look at {FOLDER}"


def again_and_again(seen: Optional[Mapping[str, Any]]) -> str:
    """Of ``described``: what to say of an engine that ends again and again; empty for others."""
    if not seen or int(seen.get("recent") or 0) < REPEATED:
        return ""
    return f"the engine ended {seen['recent']} times by itself in a day, the last time: {seen['last_cause']}"
