# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether CUDA or HIP initialises on every GPU, asked on the host and inside an engine's container alike.

This module util is PRIVATE to the collection. nvidia-smi looks fine on a host whose fabric is down, and the library
initialises although one GPU can have no context; both show only here.

Sources: cuda.h (cuInit, cuDeviceGetCount, cuDevicePrimaryCtxRetain, CUresult), hip_runtime_api.h (hipInit,
hipGetDeviceCount, hipDeviceGetPCIBusId, hipSetDevice, hipFree, hipError_t).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

# Runs in a process of its own: a driver that hangs or crashes must not take us with it. Prints null where the library
# is not there, else {code, gpus, devices}: the code of each device, null where no context was made because somebody may
# be using it. A context takes half a GiB, which an engine that serves may not have left.
SCRIPT = r"""
import ctypes, glob, json, os, subprocess, sys, sysconfig

IDLE_MIB = 2048


def library(names):
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue


def cuda():
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order of nvidia-smi
    lib = library(["libcuda.so.1"])
    if lib is None:
        return None
    count = ctypes.c_int(0)
    code = lib.cuInit(0) or lib.cuDeviceGetCount(ctypes.byref(count))
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []
    # Warnings stand among the rows; brackets are in place of a number that cannot be read.
    lines = [line.strip() for line in lines if line.strip().isdigit() or line.strip().startswith("[")]
    used = [int(line) if line.isdigit() else None for line in lines]
    used = used if len(used) == count.value else [None] * count.value

    def one(index):
        device, context = ctypes.c_int(0), ctypes.c_void_p()
        code = lib.cuDeviceGet(ctypes.byref(device), index)
        code = code or lib.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        return code or lib.cuDevicePrimaryCtxRelease(device)

    return code, used, one


def hip():
    folders = [*sorted(glob.glob("/opt/rocm*/lib")), sysconfig.get_path("purelib") + "/torch/lib"]
    found = [path for folder in folders for path in sorted(glob.glob(folder + "/libamdhip64.so*"))]
    lib = library(["libamdhip64.so", *found])
    if lib is None:
        return None
    count = ctypes.c_int(0)
    code = lib.hipInit(0) or lib.hipGetDeviceCount(ctypes.byref(count))

    def used(index):
        name = ctypes.create_string_buffer(64)
        if lib.hipDeviceGetPCIBusId(name, 64, index):
            return None
        try:
            with open(f"/sys/bus/pci/devices/{name.value.decode().lower()}/mem_info_vram_used") as handle:
                return int(handle.read()) // 2**20
        except (OSError, ValueError):
            return None

    def one(index):
        return lib.hipSetDevice(index) or lib.hipFree(None)

    return code, [used(index) for index in range(count.value)], one


answer = None
asked = {"cuda": cuda, "hip": hip}[sys.argv[1]]()
if asked:
    code, used, one = asked
    devices = [one(index) if mib is not None and mib <= IDLE_MIB else None for index, mib in enumerate(used)]
    answer = {"code": code, "gpus": len(used), "devices": devices}
print(json.dumps(answer))
"""
KINDS = {"nvidia": "cuda", "amd": "hip"}
_NAMES = {"nvidia": "CUDA", "amd": "HIP"}
# cuda.h, CUresult
_CUDA_CODES = {
    3: "CUDA cannot initialise: the driver or the device nodes are not usable",
    100: "CUDA sees no device",
    101: "CUDA refuses the device",
    802: "CUDA error 802, system not yet initialised: the NVSwitch fabric is not up (fabric manager missing, of "
    "another version than the driver, or still in progress)",
    803: "CUDA error 803: the driver on the host is older than its library",
    804: "CUDA error 804: forward compatibility is not possible on this hardware; the host's driver is too old",
}
# hip_runtime_api.h, hipError_t
_HIP_CODES = {
    3: "HIP cannot initialise: the driver or the device nodes are not usable",
    35: "HIP error 35: the driver on the host is older than its library",
    100: "HIP sees no device",
    101: "HIP refuses the device",
}
_CODES = {"nvidia": _CUDA_CODES, "amd": _HIP_CODES}
# CUDA_ERROR_DEVICE_UNAVAILABLE: in exclusive mode, and somebody has it.
_TAKEN = 46


def name(vendor: str) -> str:
    """What the vendor calls it."""
    return _NAMES[vendor]


def read_answer(done: CommandResult) -> Optional[dict[str, Any]]:
    """What SCRIPT printed: ``{code, gpus, devices}``, ``{problem}`` where it was ended, None without a library."""
    lines = done.stdout.splitlines()
    if not done.ok or not lines:
        return {"problem": f"its process ended with {done.rc} {done.evidence()}".strip()}
    # The libraries may have printed something before it.
    answer: Optional[dict[str, Any]] = json.loads(lines[-1])
    return answer


def problems(answer: Optional[Mapping[str, Any]], vendor: str, count: int) -> list[str]:
    """What is wrong with an answer on ``count`` GPUs, one sentence each; empty without a library to ask."""
    kind = _NAMES[vendor]
    if answer is None:
        return []
    if "problem" in answer:
        return [f"{kind} does not answer: {answer['problem']}"]
    if answer["code"]:
        return [_CODES[vendor].get(answer["code"], f"{kind} does not initialise: error {answer['code']}")]
    if answer["gpus"] != count:
        return [f"{kind} sees {answer['gpus']} GPUs instead of {count}"]
    failed = [(index, code) for index, code in enumerate(answer["devices"]) if code not in (None, 0, _TAKEN)]
    if failed:
        return [f"{kind} does not initialise on {', '.join(f'GPU {index} (error {code})' for index, code in failed)}"]
    return []


def proven(answer: Mapping[str, Any]) -> int:
    """On how many GPUs a context was made."""
    return sum(code == 0 for code in answer["devices"])


def tried(answer: Mapping[str, Any]) -> str:
    """How much of the answer was proven."""
    done = proven(answer)
    left = len(answer["devices"]) - done
    text = f"initialised on {done} of {answer['gpus']} GPUs"
    return f"{text}; {left} may be in use and were left alone" if left else text
