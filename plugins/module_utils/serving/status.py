# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows about one serving unit: systemd's view, the phase its engine is in, why it failed.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. The reason is found in causes.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts
from ansible_collections.glm.fleet.plugins.module_utils.serving.causes import Rules, around, cause_of
from ansible_collections.glm.fleet.plugins.module_utils.serving.journal import Runner, kernel_kills, read_journal
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "Job",
    "SubState",
    "Result",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "AssertResult",
    "InvocationID",
    "UnitFileState",
    "NeedDaemonReload",
    "InactiveExitTimestampMonotonic",
    "ExecMainStartTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "ActiveEnterTimestamp",
    "StateChangeTimestampMonotonic",
)

_SECRETS = re.compile(
    r"(?i)(bearer\s+|(?:api[_-]?key|token)['\"]?\s*[:=]\s*['\"]?|--[\w-]{0,40}(?:key|token)['\"]?[\s,=]+['\"]?)"
    r"([^\s'\",)}]{6,})|\bhf_[A-Za-z0-9]{8,}"
)


def show_unit(run: Runner, unit: str) -> dict[str, str]:
    """systemd's properties of a unit. Raises RuntimeError when systemd does not answer."""
    done = run(["systemctl", "show", unit, "--property", ",".join(PROPERTIES)])
    if not done.ok:
        raise RuntimeError(f"systemctl show {unit} failed with {done.rc}: {done.evidence()}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def read_secrets(paths: Iterable[str]) -> list[str]:
    """The secret values in a replica's 0600 files, so that they can be struck out of what is shown."""
    found = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError:
            continue
        for line in text.splitlines():
            match = re.match(r"([A-Za-z_][A-Za-z0-9_-]*)(?:=|: )(.+)$", line)
            if match and not line.startswith("#"):
                value = match.group(2).strip()
                # As it stands, and as systemd or YAML reads it when it is quoted.
                found += [value, value.strip('"'), re.sub(r"\\(.)", r"\1", value.strip('"'))]
    return found


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` without the given secrets and without what looks like a key or a token."""
    for secret in secrets:
        text = text.replace(secret, "********")
    return _SECRETS.sub(lambda match: (match.group(1) or "") + "********", text)


def phase_of(properties: Mapping[str, str], lines: Sequence[Line], rules: Rules) -> tuple[str, str]:
    """The phase a unit is in and its detail, such as ``("loading weights", "shards 17/142")``."""
    if properties.get("ActiveState") == "active":
        return "ready", ""
    if properties.get("SubState") == "start-pre":
        waiting = [line.text for line in lines if line.text.startswith("glm: waiting")]
        return "waiting for the host", waiting[-1][len("glm: ") :] if waiting else ""
    engine = [line.text for line in lines if line.engine]
    if not engine:
        return "starting the program", ""
    for text in reversed(engine):
        for pattern, phase, detail in rules.phases:
            match = pattern.search(text)
            if match:
                return phase, match.expand(detail) if None not in match.groups() else ""
    return "starting the engine", ""


def uptime_seconds() -> float:
    """Seconds on systemd's monotonic clock. /proc/uptime counts suspend too, which a server does not do."""
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])


def elapsed_seconds(properties: Mapping[str, str], now: Optional[float] = None) -> int:
    """Seconds since the current start began; 0 before the first one."""
    begun = int(properties.get("InactiveExitTimestampMonotonic") or 0) / 1_000_000
    if begun == 0:
        return 0
    end = int(properties.get("ActiveEnterTimestampMonotonic") or 0) / 1_000_000
    if properties.get("ActiveState") == "active" and end >= begun:
        return int(end - begun)
    return max(0, int((uptime_seconds() if now is None else now) - begun))


def is_stopping(properties: Mapping[str, str]) -> bool:
    """Whether somebody's stop waits for the engine: times and journal are those of the start before."""
    return properties.get("ActiveState") == "deactivating" and properties.get("Result", "success") == "success"


def is_queued(properties: Mapping[str, str]) -> bool:
    """Whether a start waits for another unit, such as the vendor's CDI refresh: a job of a unit that is still down."""
    return properties.get("Job", "") not in ("", "0") and properties.get("ActiveState") in ("inactive", "failed")


def describe(run: Runner, unit: str, secret_files: Sequence[str], rules: Rules, log_lines: int = 20) -> dict[str, Any]:
    """Everything ``serving_status`` returns about a unit; reads only."""
    properties = show_unit(run, unit)
    queued = is_queued(properties)
    if queued:
        # The times and the journal are still those of the start before.
        start = {"ActiveState": "activating", "SubState": "start-pre", "InactiveExitTimestampMonotonic": "0"}
        properties = {**properties, **start}
    state = properties.get("ActiveState", "unknown")
    stopping = is_stopping(properties)
    if stopping:
        properties = {
            **properties,
            "InactiveExitTimestampMonotonic": properties.get("StateChangeTimestampMonotonic", "0"),
        }
    silent = queued or stopping or state == "active"
    failed = state in ("failed", "inactive") or properties.get("SubState") == "auto-restart"
    secrets = read_secrets(secret_files)
    read = [] if silent else read_journal(run, unit, properties.get("InvocationID", ""), whole=failed)
    # Before anything is shortened: of a secret that is cut in two, a part would be shown.
    lines = [line._replace(text=redact(line.text, secrets)) for line in read]
    phase, detail = ("stopping", "") if stopping else phase_of(properties, lines, rules)
    answer: dict[str, Any] = {
        "active_state": state,
        "sub_state": properties.get("SubState", ""),
        "result": properties.get("Result", ""),
        "exit_status": int(properties.get("ExecMainStatus") or 0),
        "restarts": int(properties.get("NRestarts") or 0),
        "ended": restarts.described(restarts.file_of(unit), int(properties.get("NRestarts") or 0)),
        "phase": phase,
        "detail": detail,
        "elapsed_seconds": elapsed_seconds(properties),
        "log": [],
        "cause": "",
        "next": "",
    }
    if failed:
        cause = cause_of(properties, lines, rules, lambda: kernel_kills(run, properties))
        answer["cause"], answer["next"] = cause.cause, cause.next_step
        answer["log"] = around(lines, cause, log_lines)
    return answer
