# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a fleet and what they used, as a table for people and as a CSV for each month. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.door.usage import COLUMNS as COUNTED
from ansible_collections.glm.fleet.plugins.module_utils.door.usage import COUNTS
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import columns
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Key, Keys

# Of a host: month, name of the key, and what door_usage says of it.
Usage = Mapping[str, Mapping[str, Mapping[str, Any]]]

TITLES = ("NAME", "STATE", "AGE", "EXPIRES", "LAST USE", "REQUESTS", "REFUSED", "PROMPT", "COMPLETION", "UNCOUNTED",
          "ESTIMATED", "LIMITS ON EACH HOST")  # fmt: skip
COLUMNS = ("host", "key", *COUNTED)
MOVE_AWAY = "correct the file or move it away, and list again: what the hosts counted is still there"
_WORDS = {"requests_per_minute": "requests/min", "parallel": "at a time", "tokens_per_minute": "tokens/min"}


def table(keys: Keys, hosts: Mapping[str, Optional[Usage]], now: datetime, most_days: float = 0) -> list[str]:
    """Lines for the terminal: every key that is not revoked or replaced for good, and what its name used this month.

    ``hosts`` has None for a host that did not say what was used there: then nothing is said to be never used. A key
    older than ``most_days`` days, unless that is 0, is marked.
    """
    known = [usage for usage in hosts.values() if usage is not None]
    silent = len(known) < len(hosts)
    shown = [key for key in keys if key.valid(now) or (key.current and key.revoked is None)]
    lines = columns.aligned([TITLES, *(_row(key, known, silent, now, most_days) for key in shown)])
    lines.append(
        f"Requests and tokens of {now:%Y-%m} (UTC), by name. Uncounted: answers that did not say their tokens; "
        "estimated: what stands in for these."
    )
    if silent:
        names = sorted(host for host, usage in hosts.items() if usage is None)
        lines.append(f"Not in it, because they did not answer: {', '.join(names)}.")
    old = sorted({key.name for key in shown if _old(key, now, most_days) and key.current})
    if old:
        lines.append(f"Older than {most_days:g} days, rotate (glm_keys_action=rotate): {', '.join(old)}.")
    return lines


def _row(key: Key, usage: Sequence[Usage], silent: bool, now: datetime, most_days: float) -> tuple[str, ...]:
    month = [host.get(f"{now:%Y-%m}", {}).get(key.name, {}) for host in usage]
    sums = {name: sum(int(found.get(name, 0)) for found in month) for name in COUNTS}
    last = max((rows[key.name]["last_use"] for host in usage for rows in host.values() if key.name in rows), default="")
    counted = [str(sums[name]) for name in ("requests", "refused", "prompt_tokens", "completion_tokens", "uncounted")]
    counted.append(str(sums["estimated_prompt_tokens"] + sums["estimated_completion_tokens"]))
    if silent:
        # What is missing can only add to it.
        counted = [f"{count}+" for count in counted]
    return (
        key.name,
        key.state(now),
        _age(key, now) + (" old" if _old(key, now, most_days) and key.current else ""),
        records.text(key.expires) if key.expires else "never",
        last or ("not seen" if silent else "never"),
        *counted,
        ", ".join(f"{limit} {_WORDS[name]}" for name, limit in key.limits.items()) or "none",
    )


def _age(key: Key, now: datetime) -> str:
    hours = max(0, int((now - key.created).total_seconds() // 3600))
    return f"{hours // 24} d" if hours >= 48 else f"{hours} h"


def _old(key: Key, now: datetime, most_days: float) -> bool:
    return bool(most_days) and (now - key.created).total_seconds() > most_days * 86400


def months(hosts: Mapping[str, Optional[Usage]]) -> list[str]:
    """The months in which a host that answered saw a request."""
    return sorted({month for usage in hosts.values() for month in usage or {}})


def month_csv(before: str, month: str, hosts: Mapping[str, Optional[Usage]], where: str = "") -> str:
    """The CSV of a month: a row for each key and host, what is there of hosts that are gone or silent kept.

    What was recorded never falls: a host that says less than before, as one whose totals were restored from a backup,
    lowers nothing.

    A host that lost its totals, or another of its name, has another first use, and so a row of its own.

    Raises Unmet when ``before``, which is in the file ``where``, is something else: it must not be replaced.
    """
    rows = {_identity(row): row for row in _read(before, where)}
    for host, usage in hosts.items():
        for key, counts in (usage or {}).get(month, {}).items():
            row = {"host": host, "key": key, **{name: str(counts.get(name, "")) for name in COUNTED}}
            before_ = rows.get(_identity(row), {})
            for name in COUNTS:
                row[name] = max(row[name], before_.get(name) or "", key=lambda count: int(count or 0))
            row["last_use"] = max(row["last_use"], before_.get("last_use") or "")
            rows[_identity(row)] = row
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _identity, row in sorted(rows.items()))
    return out.getvalue()


def _read(text: str, where: str) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    found = reader.fieldnames or ()
    # An earlier release has fewer of them; those of a later one would be lost.
    if text and not {"host", "key"} <= set(found) <= set(COLUMNS):
        raise Unmet(f"the usage of keys in {where}", f"a table of {', '.join(found)[:80]}", MOVE_AWAY)
    for row in reader:
        counts = [row.get(name) or "0" for name in COUNTS]
        if not (row["host"] and row["key"] and all(count.isdigit() for count in counts)):
            raise Unmet(f"the usage of keys in {where}", f"another thing in line {reader.line_num}", MOVE_AWAY)
        yield row


def _identity(row: Mapping[str, str]) -> tuple[str, str, str]:
    return row["host"], row["key"], row.get("first_use") or ""
