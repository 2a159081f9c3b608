# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serving plans as text for people (one block per distinct plan) and as one JSON file for machines."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_WIDTH = 118
_LABEL = 12


def report(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines that describe the plans of all hosts; hosts that differ only in their address share a block."""
    groups: dict[str, list[str]] = {}
    for host, plan in plans.items():
        alike = {key: value for key, value in plan.items() if key != "listen"}
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(host)
    lines: list[str] = []
    for hosts in groups.values():
        lines += ["", *_block(plans[hosts[0]])] if lines else _block(plans[hosts[0]])
        where = [f"{host} {_endpoint(plans[host])}" for host in hosts]
        lines += _row("endpoint", "; ".join(where))
    return lines


def keep(path: Path, plans: Mapping[str, Mapping[str, Any]], write: bool = True) -> bool:
    """Write ``{"schema": 1, "hosts": {host: plan}}`` to ``path`` in one step; True when the content differs."""
    text = json.dumps({"schema": 1, "hosts": plans}, indent=2, sort_keys=True) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    if write:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(scratch).replace(path)
    return True


def _endpoint(plan: Mapping[str, Any]) -> str:
    address = plan["listen"]["address"]
    shown = f"[{address}]" if ":" in address else address
    return f"http://{shown}:{plan['listen']['port']}/v1"


def _block(plan: Mapping[str, Any]) -> list[str]:
    model, accelerator, image = plan["model"], plan["accelerator"], plan["image"]
    memory, times, disk = plan["memory"], plan["timeouts"], plan["disk"]
    title = (
        f"{model['name']} {model['precision']} with {plan['engine']['name']} {plan['engine']['version']} "
        f"on {accelerator['count']}x {accelerator['name']} ({plan['profile']})"
    )
    revision = model["revision"] or f"{model['requested_revision']}, not locked to a commit yet"
    locked = "" if image["digest"] else ", not locked to a digest yet"
    phases = ", ".join(f"{name} {_minutes(seconds)}" for name, seconds in times["phases"].items())
    rows = [
        ("served as", plan["served_model_name"]),
        ("weights", f"{model['repository']} ({revision}), {model['weights_bytes'] / 1e9:,.1f} GB, {model['license']}"),
        ("image", f"{image['reference']} (CUDA {image['cuda']}, driver {image['min_driver']} or newer{locked})"),
        ("memory", memory["arithmetic"]),
        ("disk", f"{disk['free_bytes_needed'] / 1e9:,.0f} GB free before the first fetch"),
        ("start", f"within {_minutes(times['start_seconds'])} ({phases})"),
        ("command", shlex.join(plan["command"])),
        ("environment", " ".join(f"{name}={value}" for name, value in plan["env"].items())),
        ("price", "; ".join(f"{price['provider']} {price['usd_per_hour']:.2f} USD/h" for price in plan["prices"])),
        *(("note", note) for note in plan["notes"]),
        *(("known issue", f"{issue['text']} {issue['link']}") for issue in plan["known_issues"]),
        *(("source", source) for source in plan["sources"]),
    ]
    lines = [title, "-" * len(title)]
    for label, text in rows:
        lines += _row(label, text) if text else []
    return lines


def _row(label: str, text: str) -> list[str]:
    indent = " " * _LABEL
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _minutes(seconds: int) -> str:
    return f"{-(-seconds // 60)} min"
