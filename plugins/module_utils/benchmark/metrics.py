# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine and its GPUs say about themselves while they are measured: the samples of a run become one summary.

This module util is PRIVATE to the collection.

Sources: of AMD's GPUs the kernel's "GPU Power/Thermal Controls and Monitoring" (hwmon and pp_dpm_sclk of amdgpu), whose
files do not change with the release of ROCm as the output of its tools does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.serving.metrics import number

SMI_FIELDS = ("name", "driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.draw", "temperature.gpu")


def summary(samples: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """One run's samples, oldest first, as one record; a figure that cannot be known is None."""
    first, last = (samples[0], samples[-1]) if samples else ({}, {})

    def grown(name: str) -> Optional[float]:
        return last[name] - first[name] if name in first and name in last else None

    def peak(name: str) -> Optional[float]:
        values = [sample[name] for sample in samples if name in sample]
        return max(values) if values else None

    drafts, drafted, accepted = grown("drafts"), grown("draft_tokens"), grown("accepted_tokens")
    length = 1 + (accepted or 0) / drafts if drafts else peak("acceptance_length")
    return {
        "samples": len(samples),
        "kv_usage_max": peak("kv_usage"),
        "kv_pool_tokens": last.get("pool_tokens"),
        "running_max": peak("running"),
        "waiting_max": peak("waiting"),
        "prefix_hit_rate": _share(grown("prefix_hits"), grown("prefix_queries")),
        "acceptance_rate": _share(accepted, drafted),
        "acceptance_length": length,
        "preemptions": grown("preemptions"),
        "generation_tokens": grown("generation_tokens"),
    }


def _share(part: Optional[float], whole: Optional[float]) -> Optional[float]:
    return None if part is None or not whole else part / whole


def parse_smi(text: str) -> list[dict[str, Any]]:
    """GPUs out of ``nvidia-smi --query-gpu=… --format=csv,noheader,nounits`` with SMI_FIELDS; None is not reported."""
    gpus = []
    for line in text.splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) != len(SMI_FIELDS):
            continue
        name, driver, *numbers = columns
        keys = ("sm_mhz", "sm_max_mhz", "memory_mhz", "watts", "celsius")
        gpus.append({"name": name, "driver": driver, **dict(zip(keys, map(number, numbers)))})
    return gpus


def read_amdgpu(root: Path = Path("/sys")) -> list[dict[str, Any]]:
    """AMD's GPUs in the shape of parse_smi, out of sysfs (``root``); empty where there are none."""
    driver = files.read_text(root / "module/amdgpu/version") or "of the kernel"
    gpus = []
    for card in sorted(root.glob("class/drm/card*/device")):
        sensors = next(iter(sorted(card.glob("hwmon/hwmon*"))), None)
        if sensors is None or files.read_text(card / "vendor") != "0x1002":
            continue
        gpus.append(
            {
                "name": files.read_text(card / "product_name") or f"AMD {files.read_text(card / 'device')}",
                "driver": driver,
                "sm_mhz": _scaled(sensors / "freq1_input", 1e6),
                "sm_max_mhz": _top_clock(files.read_text(card / "pp_dpm_sclk")),
                "memory_mhz": _scaled(sensors / "freq2_input", 1e6),
                "watts": _first(_scaled(sensors / name, 1e6) for name in ("power1_input", "power1_average")),
                # The junction, where it has one: that is what clocks are lowered for.
                "celsius": _first(_scaled(sensors / f"temp{n}_input", 1e3) for n in (2, 1)),
            }
        )
    return gpus


def _scaled(path: Path, unit: float) -> Optional[float]:
    value = number(files.read_text(path))
    return None if value is None else value / unit


def _first(values: Iterable[Optional[float]]) -> Optional[float]:
    return next((value for value in values if value is not None), None)


def _top_clock(levels: str) -> Optional[float]:
    """MHz of the highest level in ``pp_dpm_sclk`` (``1: 2100Mhz *``)."""
    found = [float(mhz) for mhz in re.findall(r":\s*(\d+)\s*Mhz", levels, re.IGNORECASE)]
    return max(found) if found else None


def gpu_summary(samples: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What the GPUs were and how they ran: clocks below the most show heat or a power limit. None: not reported."""
    rows = [gpu for sample in samples for gpu in sample]

    def values(key: str) -> list[float]:
        return [row[key] for row in rows if row.get(key) is not None]

    def extreme(key: str, which: Any) -> Optional[float]:
        found = values(key)
        return which(found) if found else None

    return {
        "samples": len(samples),
        "names": sorted({row["name"] for row in rows}),
        "count": max((len(sample) for sample in samples), default=0),
        "drivers": sorted({row["driver"] for row in rows}),
        "sm_mhz_min": extreme("sm_mhz", min),
        "sm_mhz_max": extreme("sm_mhz", max),
        "sm_mhz_limit": extreme("sm_max_mhz", max),
        "memory_mhz": extreme("memory_mhz", max),
        "watts_max": extreme("watts", max),
        "celsius_max": extreme("celsius", max),
    }
