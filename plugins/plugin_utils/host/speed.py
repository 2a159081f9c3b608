# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what the program of module_utils/host/speed_program.py measured, against the floors of the platform table.

Pure. A floor is far below what a healthy host does: it finds a link that came up wrong, not a slow day.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.platforms import Platform
from ansible_collections.glm.fleet.plugins.plugin_utils.host import gpu_states

SPEED = "GPU speed"
# What counts against a floor, by its name in a row of the program: the lower of these.
_FIGURES = {
    "host to device": ("host_to_device", "device_to_host"),
    "device to device": ("device_to_device",),
    "all-reduce": ("all_reduce",),
}
# Of the median of all GPUs. Copies with the host also depend on which processor's memory they got.
_OUTLIERS = {"host_to_device": 0.5, "device_to_host": 0.5, "device_to_device": 0.8, "compute": 0.8}
_UNITS = {"compute": "TFLOPS"}
# How the program says that GPUs added wrongly.
_WRONG_SUM = "ArithmeticError"
_ADVICE = (
    f"run it again on the idle host; if it stays so, look at PCIe links and NVLink above, and {gpu_states.GIVE_BACK}"
)


def judge(
    measured: Optional[Mapping[str, Any]], facts: Mapping[str, Any], platform: Optional[Platform]
) -> list[Finding]:
    """A finding for each figure, or one about why there are none. ``measured``: None where nobody measured.

    Else what the program printed, or ``{left: why}`` where there was nothing to measure with.
    """
    expected = "copies and an all-reduce on every GPU"
    if measured is None or "left" in measured:
        return [_judged(SPEED, None, expected, ": ".join(["not measured", *(measured or {}).values()]))]
    processor = measured.get("backend") == "gloo"
    if processor and platform is None:
        return [_judged(SPEED, None, expected, _rehearsed(measured))]
    if _WRONG_SUM in measured["problem"]:
        return [_judged(SPEED, False, expected, measured["problem"], _ADVICE)]
    rows, gpus = measured["rows"], len(facts["gpus"])
    # Time that ran out, or a library that failed, may be the image, the variables of the plan, or who else computes.
    silent = (
        measured["unable"]
        or measured["problem"]
        or ("PyTorch of the image sees no GPU; measured on the CPU over gloo" if processor else "")
    )
    if silent or len(rows) != gpus:
        found = silent or f"figures of {len(rows)} of {gpus} GPUs"
        return [_unread(SPEED, expected, found) if platform else _judged(SPEED, None, expected, found)]
    floors = _floors(facts, platform)
    asked = {name: keys for name, keys in _FIGURES.items() if gpus > 1 or name == "host to device"}
    made = [
        _figure(name, keys, rows, floors.get(keys[0], 0), measured)
        if all(key in row for row in rows for key in keys)
        else _unread(name, expected, "no figure of every GPU")
        for name, keys in asked.items()
    ]
    return [*made, _outliers(rows, facts, platform)]


def _unread(check: str, expected: str, found: str) -> Finding:
    return finding.unread("acceptance", check, expected, found, "look at the check container, and run it again")


def _rehearsed(measured: Mapping[str, Any]) -> str:
    """What a host without GPUs measured, of which nothing follows."""
    rows = measured["rows"]
    words = [
        f"{name} {_least(rows, keys):g} GB/s"
        for name, keys in _FIGURES.items()
        if all(key in row for row in rows for key in keys)
    ]
    said = ", ".join([*words, *([measured["problem"]] if measured["problem"] else [])])
    return f"no GPU: {measured['world']} processes on the CPU over {measured['backend']}: {said}"


def _floors(facts: Mapping[str, Any], platform: Optional[Platform]) -> Mapping[str, float]:
    """Those between GPUs are of GPUs that NVLink or xGMI joins."""
    joined = _joined(facts, platform)
    floors = platform.floors if platform else {}
    return {name: floor for name, floor in floors.items() if joined or name == "host_to_device"}


def _joined(facts: Mapping[str, Any], platform: Optional[Platform]) -> bool:
    return platform is not None and (
        platform.vendor == "amd" or (bool(platform.nvlinks) and gpu_states.has_nvlink(facts, platform))
    )


def _least(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> float:
    return min((float(row[key]) for row in rows for key in keys), default=0.0)


def _figure(
    name: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], floor: float, measured: Mapping[str, Any]
) -> Finding:
    least, middle = _least(rows, keys), statistics.median(float(row[key]) for row in rows for key in keys)
    over = f" over {measured['backend']}" if name == "all-reduce" else ""
    found = f"{least:.1f} GB/s at least, {middle:.1f} in the middle, {len(rows)} GPUs{over}"
    expected = f"{floor:g} GB/s or more" if floor else "no floor is known here"
    return _judged(name, least >= floor, expected, found, _ADVICE)


def _outliers(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], platform: Optional[Platform]) -> Finding:
    expected = "GPUs that are equally fast"
    places = [str(entry.get("bus_id") or entry.get("index")) for entry in facts["gpus"]]
    words = []
    for key, share in _OUTLIERS.items():
        # Without links between all of them, some pairs are a bridge or a socket further apart than others.
        if key == "device_to_device" and not _joined(facts, platform):
            continue
        values = [float(row[key]) for row in rows if key in row]
        middle = statistics.median(values) if values else 0.0
        for row in rows:
            if key in row and float(row[key]) < share * middle:
                place = places[row["rank"]] if len(places) == len(rows) else f"GPU {row['rank']}"
                unit = _UNITS.get(key, "GB/s")
                words.append(f"{place}: {key.replace('_', ' ')} {row[key]:g} {unit}, the others about {middle:g}")
    if words:
        return _judged("GPU outlier", False, expected, "; ".join(words), _ADVICE)
    compute = [float(row["compute"]) for row in rows if "compute" in row]
    return _judged("GPU outlier", True, expected, f"none of {len(rows)}; {min(compute, default=0):.0f} TFLOPS at least")


def _judged(check: str, ok: Optional[bool], expected: str, found: str, next_step: str = "") -> Finding:
    return finding.judged("acceptance", check, ok, expected, found, next_step)
