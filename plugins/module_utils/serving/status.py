# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows about one serving unit: systemd's view, the phase its engine is in, why it failed.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. What an engine's own lines mean is
data of the catalogue (``logs.yml`` of the engine); here is what docker, the unit's guard and the libraries of every
engine write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import printable
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

Runner = Callable[[Sequence[str]], CommandResult]

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
    "ActiveEnterTimestampMonotonic",
)

# Whose journal lines an engine's are: the docker client's, or as the unit for bare metal calls it.
ENGINE_IDENTIFIERS = ("docker", "glm-engine")

# What a line means and what to do, whatever the engine. First match from the end of the log wins.
_CAUSES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), cause, remedy)
    for pattern, cause, remedy in (
        (
            r"answers /v1/models but not a chat",
            "the engine answers /health and /v1/models but not a chat",
            "read the traceback below; a flag combination this accelerator has no kernels for does this "
            "(expert parallelism, an attention or quantisation backend)",
        ),
        (
            r"is in use by another program|port is already allocated|[Aa]ddress already in use",
            "the port is in use by another program",
            "stop that program (ss -ltnp names it) or choose another glm_port",
        ),
        (
            r"is not an address of this host|cannot assign requested address",
            "the endpoint's address is not an address of this host",
            "set glm_bind to an address that `ip address` shows on the host",
        ),
        (
            r"unrecognized arguments|invalid choice|the following arguments are required|ambiguous option",
            "this engine version does not know an argument it was given",
            "remove the argument from glm_engine_args or choose another glm_engine_version",
        ),
        (
            r"No such image|Unable to find image|pull access denied",
            "the image is not on the host",
            "run the role engine_image again; the unit never pulls",
        ),
        (
            r'could not select device driver "cdi"',
            "docker's CDI support is off",
            "run the role docker: it sets features.cdi in /etc/docker/daemon.json",
        ),
        (
            r"the GPUs are not ready|unresolvable CDI devices|CDI device injection failed|"
            r"could not select device driver",
            "docker was not given the GPUs",
            "check `systemctl status nvidia-cdi-refresh` and /etc/cdi, then run the roles gpu_base and docker again",
        ),
        (
            r"[Ss]ystem not yet initialized|CUDA error 802|cudaErrorSystemNotReady",
            "the NVSwitch fabric is not up (CUDA error 802)",
            "check `systemctl status nvidia-fabricmanager`: its version must equal the driver's",
        ),
        (
            r"[Dd]river/library version mismatch|Failed to initialize NVML|CUDA driver version is insufficient",
            "the NVIDIA driver does not fit the libraries in use",
            "reboot the host if its driver was updated; else choose an image for this driver's CUDA",
        ),
        (
            r"out of memory|OutOfMemoryError",
            "GPU memory ran out",
            "look for other processes with nvidia-smi, then lower the memory fraction or the context length in "
            "glm_engine_args",
        ),
        (
            r"does not recognize this architecture",
            "the image is too old for this model",
            "choose a glm_engine_version whose image knows the model's architecture",
        ),
        (
            r"SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeader|incomplete metadata",
            "a weight file is truncated or damaged",
            "run the role weights again; it checks size and hash of each file",
        ),
        (r"No space left on device", "a disk is full", "free space on the host (df -h) and run again"),
        (
            r"Insufficient space in /dev/shm|ncclShmOpen|[Ss]hared memory .*too small",
            "/dev/shm is too small",
            "enlarge /dev/shm on the host: the container shares it",
        ),
        (
            r"error setting rlimit|setrlimit",
            "docker may not raise the limits the engine needs",
            "the docker daemon needs CAP_SYS_RESOURCE to set memlock and stack",
        ),
        (
            r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError",
            "NCCL could not connect the GPUs",
            "run with NCCL_DEBUG=INFO; check the fabric manager, IOMMU and ACS",
        ),
        (
            r"Cannot connect to the Docker daemon|error during connect",
            "the docker daemon does not answer",
            "check `systemctl status docker`",
        ),
    )
)
_EXCEPTION = re.compile(r"(?:^|\s)((?:[A-Za-z_]+\.)*[A-Z][A-Za-z]*(?:Error|Exception)): (.+)")
_SECRETS = re.compile(
    r"(?i)(bearer\s+|api[_-]?key['\"]?\s*[:=]\s*['\"]?|token['\"]?\s*[:=]\s*['\"]?)([^\s'\",)}]{6,})|\bhf_[A-Za-z0-9]{8,}"
)


class Line(NamedTuple):
    """One journal line; ``engine`` is false for systemd's and the guard's own."""

    text: str
    engine: bool


class Cause(NamedTuple):
    cause: str
    next_step: str


class Rules:
    """What the lines of one engine's log mean.

    ``data``: ``phases`` are ``{phase, pattern, detail}``, ``causes`` are ``{pattern, cause, next}``. The newest line
    that matches says the phase; an engine's causes are looked for before those of every engine.
    """

    def __init__(self, data: Optional[Mapping[str, Any]] = None) -> None:
        known = data or {}
        self.phases = [
            (re.compile(rule["pattern"]), rule["phase"], rule.get("detail", "")) for rule in known.get("phases", ())
        ]
        self.causes = [
            (re.compile(rule["pattern"]), rule["cause"], rule["next"]) for rule in known.get("causes", ())
        ] + list(_CAUSES)


def show_unit(run: Runner, unit: str) -> dict[str, str]:
    """systemd's properties of a unit. Raises RuntimeError when systemd does not answer."""
    done = run(["systemctl", "show", unit, "--property", ",".join(PROPERTIES)])
    if not done.ok:
        raise RuntimeError(f"systemctl show {unit} failed with {done.rc}: {done.evidence()}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def read_journal(run: Runner, unit: str, invocation: str, lines: int = 3000) -> list[Line]:
    """The newest lines of one start of a unit, oldest first; of any start when it left none."""
    wanted = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else []
    for match in (wanted, ["--unit", unit]):
        if not match:
            continue
        done = run(["journalctl", "--quiet", "--output", "json", "--lines", str(lines), *match])
        parsed = [line for row in done.stdout.splitlines() for line in _journal_row(row)] if done.ok else []
        if parsed:
            return parsed
    return []


def _journal_row(row: str) -> list[Line]:
    """A row can hold several lines: progress bars rewrite theirs with carriage returns."""
    try:
        entry = json.loads(row)
    except ValueError:
        return []
    message = entry.get("MESSAGE") or ""
    if isinstance(message, list):  # journalctl gives bytes for what is not printable text
        message = bytes(message).decode("utf-8", "replace")
    engine = entry.get("SYSLOG_IDENTIFIER") in ENGINE_IDENTIFIERS
    # Engines colour their log, and a journal is what anybody wrote into it.
    pieces = [piece.rstrip() for piece in printable(message, newlines=True).split("\n")]
    # Without a container the guard's lines come under the same name.
    return [Line(piece, engine and not piece.startswith("glm: ")) for piece in pieces if piece]


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


def cause_of(properties: Mapping[str, str], lines: Sequence[Line], rules: Rules) -> Cause:
    """The likeliest reason for a failure and the next step, from systemd's result and the log."""
    if properties.get("AssertResult") == "no":
        return Cause("the weights are not where the plan has them", "run the role weights again on this host")
    if properties.get("LoadState") == "not-found":
        return Cause("the unit is not installed", "run the role serve again on this host")
    if properties.get("ExecMainStatus") == "203":
        return Cause("the engine's program is not on the host", "run the role engine_venv again on this host")
    for line in reversed(lines):
        for pattern, cause, remedy in rules.causes:
            if pattern.search(line.text):
                return Cause(cause, remedy)
    if properties.get("Result") == "timeout":
        return Cause("the start budget of the plan is spent", "the phase above is the slow one; look at its log lines")
    if properties.get("ExecMainStatus") == "137":
        return Cause(
            "the engine was killed (SIGKILL)", "look for the out-of-memory killer: journalctl -k -g 'Out of memory'"
        )
    for line in reversed(lines):
        match = _EXCEPTION.search(line.text) if line.engine else None
        if match:
            return Cause(f"{match.group(1)}: {match.group(2)}", "read the traceback below it in the journal")
    return Cause("unknown", "read the log lines below")


def tail(lines: Sequence[Line], count: int = 20) -> list[str]:
    """The last lines a person needs: the engine's, with the guard's verdict after them."""
    wanted = [line for line in lines if line.engine or line.text.startswith("glm: ")]
    return [line.text for line in (wanted or list(lines))[-count:]]


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
    silent = queued or state == "active"
    lines = [] if silent else read_journal(run, unit, properties.get("InvocationID", ""))
    secrets = read_secrets(secret_files)
    phase, detail = phase_of(properties, lines, rules)
    answer: dict[str, Any] = {
        "active_state": state,
        "sub_state": properties.get("SubState", ""),
        "result": properties.get("Result", ""),
        "exit_status": int(properties.get("ExecMainStatus") or 0),
        "restarts": int(properties.get("NRestarts") or 0),
        "phase": phase,
        "detail": redact(detail, secrets),
        "elapsed_seconds": elapsed_seconds(properties),
        "log": [],
        "cause": "",
        "next": "",
    }
    failed = state in ("failed", "inactive") or properties.get("SubState") == "auto-restart"
    if failed:
        cause = cause_of(properties, lines, rules)
        answer["cause"], answer["next"] = redact(cause.cause, secrets), cause.next_step
        answer["log"] = [redact(text, secrets) for text in tail(lines, log_lines)]
    return answer
