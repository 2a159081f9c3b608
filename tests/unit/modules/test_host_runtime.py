"""CUDA and HIP on every GPU: the script against libraries that answer as the vendors' do, compiled for the test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import health, runtime

# Signatures as in cuda.h and hip_runtime_api.h. The device FAILS has no context to give.
CUDA = """
#include <stddef.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &cuInit; return device == 40 + FAILS ? 999 : 0; }
int cuDevicePrimaryCtxRelease(int device) { return 0; }
"""
HIP = """
#include <stdio.h>
static int chosen;
int hipInit(unsigned flags) { puts("a library that talks"); return INIT; }
int hipGetDeviceCount(int *count) { *count = COUNT; return 0; }
int hipDeviceGetPCIBusId(char *name, int size, int device) { snprintf(name, size, "0000:FF:%02X.7", device); return 0; }
int hipSetDevice(int device) { chosen = device; return 0; }
int hipFree(void *pointer) { return chosen == FAILS ? 719 : 0; }
"""
Library = Callable[..., None]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Makes a library of a vendor, and lets the loader find it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def make(name: str, source: str, init: int = 0, count: int = 4, fails: int = -1) -> None:
        (tmp_path / "library.c").write_text(source, encoding="ascii")
        defined = [f"-DINIT={init}", f"-DCOUNT={count}", f"-DFAILS={fails}"]
        argv = [str(compiler), "-shared", "-fPIC", *defined, "-o", str(tmp_path / name), str(tmp_path / "library.c")]
        subprocess.run(argv, check=True)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return make


def test_each_idle_gpu_is_given_a_context(library: Library, fake_command: Callable[..., Path]) -> None:
    library("libcuda.so.1", CUDA)
    fake_command("nvidia-smi", "printf '0\\n4\\n170000\\n600\\n'")
    answer = health.initialise("nvidia", 60)
    assert answer == {"code": 0, "gpus": 4, "devices": [0, 0, None, 0]}
    warning = "WARNING: infoROM is corrupted at gpu 00000000:52:00.0"
    fake_command("nvidia-smi", f"printf '0\\n4\\n[GPU requires reset]\\n600\\n{warning}\\n'; exit 14")
    assert health.initialise("nvidia", 60) == answer, "a warning takes no proof from the others"
    assert runtime.problems(answer, "nvidia", 4) == []
    assert runtime.tried(answer) == "initialised on 3 of 4 GPUs; 1 may be in use and were left alone"


def test_a_gpu_without_a_context_is_named(library: Library, fake_command: Callable[..., Path]) -> None:
    library("libcuda.so.1", CUDA, fails=2)
    fake_command("nvidia-smi", "printf '0\\n0\\n0\\n0\\n'")
    problems = runtime.problems(health.initialise("nvidia", 60), "nvidia", 4)
    assert problems == ["CUDA does not initialise on GPU 2 (error 999)"]


@pytest.mark.parametrize("said", ["exit 9", "printf '0\\n0\\n'", "echo '[N/A]'"])
def test_a_gpu_of_unknown_use_is_left_alone(library: Library, fake_command: Callable[..., Path], said: str) -> None:
    library("libcuda.so.1", CUDA, fails=0)
    fake_command("nvidia-smi", said)
    answer = health.initialise("nvidia", 60)
    assert answer is not None and answer["devices"] == [None] * 4


def test_a_fabric_that_is_down_shows(library: Library, fake_command: Callable[..., Path]) -> None:
    library("libcuda.so.1", CUDA, init=802, count=0)
    fake_command("nvidia-smi", "exit 0")
    assert "not yet initialised" in runtime.problems(health.initialise("nvidia", 60), "nvidia", 8)[0]


def test_hip_is_asked_in_the_same_way(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library("libamdhip64.so", HIP, fails=1)
    # Boards of these addresses are not in /sys here, so nobody knows whether they are in use.
    assert health.initialise("amd", 60) == {"code": 0, "gpus": 4, "devices": [None] * 4}
    for device in range(4):
        folder = tmp_path / f"pci/0000:ff:{device:02x}.7"
        folder.mkdir(parents=True)
        (folder / "mem_info_vram_used").write_text(f"{283 * 2**20}\n", encoding="ascii")
    monkeypatch.setattr(runtime, "SCRIPT", runtime.SCRIPT.replace("/sys/bus/pci/devices", str(tmp_path / "pci")))
    answer = health.initialise("amd", 60)
    assert answer == {"code": 0, "gpus": 4, "devices": [0, 719, 0, 0]}
    assert runtime.problems(answer, "amd", 4) == ["HIP does not initialise on GPU 1 (error 719)"]


def test_a_library_that_crashes_takes_nobody_with_it(library: Library) -> None:
    library("libcuda.so.1", CUDA.replace("return INIT", "return *(volatile int *)0"))
    answer = health.initialise("nvidia", 60)
    assert answer is not None and "ended with -11" in answer["problem"]
    assert "CUDA does not answer" in runtime.problems(answer, "nvidia", 8)[0]


@pytest.mark.parametrize("vendor", ["nvidia", "amd"])
def test_no_library_is_no_answer(vendor: str) -> None:
    """No machine that runs these tests has one of its own."""
    answer: dict[str, Any] | None = health.initialise(vendor, 60)
    assert answer is None and runtime.problems(answer, vendor, 8) == []
