# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the GPUs of a host measured by speed_program.py, in a container of the engine's own image.

This module util is PRIVATE to the collection. The container has the devices, limits and user of the plan's unit, and no
network: one host is measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.host import gpu, probe, speed_program
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import DockerError, Engine

SECONDS = 60
NAME = "glm-speed"
# A driver keeps a few hundred MiB for itself.
_IDLE_MIB = 2048
# Of a plan's variables, those that libraries of collectives and of the GPUs read.
_VISIBLE = "_VISIBLE_DEVICES"
_LIBRARIES = ("NCCL_", "RCCL_", "HSA_", "HIP_", "CUDA_")


def measure(plans: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    """What the program printed, or ``{left: why}`` where nothing was tried.

    ``timeout``: seconds that the container may take, with the import of PyTorch from a cold disk.
    """
    left = _left(plans, facts)
    if left:
        return {"left": left}
    try:
        options = ["--network", "none", *probe.limited_arguments(plans), "--env", "CUDA_DEVICE_ORDER=PCI_BUS_ID"]
    except probe.ProbeError as error:
        return {"left": str(error)}
    indices = gpu.planned_indices(plans)
    for name, value in plans[0]["env"].items():
        if name.endswith(_VISIBLE):
            # Those of all replicas: each plan names its own.
            value = ",".join(map(str, indices))
        options += ["--env", f"{name}={value}"] if name.startswith(_LIBRARIES) else []
    program = [inspect.getsource(speed_program), str(len(indices)), str(SECONDS)]
    try:
        return probe.run_program(NAME, options, plans[0]["image"]["reference"], program, "GLM-SPEED", timeout)
    except probe.ProbeError as error:
        # It is not known what it measured, if anything: neither a fault of the GPUs nor a word for them.
        return {"device": "", "rows": [], "problem": "", "unable": str(error)}


def _left(plans: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Optional[str]:
    """Why the GPUs of the plans are not measured; None where they can be."""
    try:
        if Engine().inspect_image(plans[0]["image"]["reference"]) is None:
            return "the image is not on the host yet"
    except DockerError as error:
        return str(error)
    used = [entry.get("memory_used_mib") for entry in gpu.planned(facts["gpus"], plans)]
    if any(mib is not None and mib > _IDLE_MIB for mib in used):
        return "GPUs are in use"
    if None in used and facts["gpu_holders"] != []:
        return "GPUs may be in use: their memory in use cannot be read"
    return None
