# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the GPUs of a host: copies from the host and between GPUs, arithmetic, one all-reduce.

This program runs inside the engine's own image, which has PyTorch with NCCL or RCCL: ``python3 -c SOURCE GPUS
SECONDS``. One process for each GPU. The last line that it prints is ``GLM-SPEED`` and JSON:

``{device, backend, torch, world, rows, problem, unable, seconds}``. ``rows``: by rank, GB/s (10**9) of
``host_to_device``, ``device_to_host`` and ``device_to_device`` (to the next GPU, all at once), ``compute`` in TFLOPS,
and ``all_reduce`` as bus bandwidth in GB/s, as nccl-tests counts it. ``problem``: what went wrong, empty when nothing
did; ``unable``: why nothing could be measured. Where PyTorch sees no GPU, two processes do the same on the CPU over
gloo, and ``device`` says cpu.

Python 3.9 or newer. It has no other file of the collection.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# PyTorch is imported by each process, from a disk that may be slow; then each makes its context.
START_SECONDS = 240
MIB = 2**20
_SIZES = {
    True: {"copy": 512 * MIB, "reduce": 256 * MIB, "edge": 8192},
    False: {"copy": 16 * MIB, "reduce": 4 * MIB, "edge": 384},
}
_ASK = "import torch; print(torch.__version__, torch.cuda.device_count(), bool(torch.version.hip))"


def main() -> int:
    """Measure, print, and end with 0 whatever was found."""
    print("GLM-SPEED " + json.dumps(measured(int(sys.argv[1]), float(sys.argv[2]))), flush=True)
    return 0


def measured(gpus: int, seconds: float) -> dict[str, Any]:
    """The document of this program's last line, of the first ``gpus`` GPUs; ``seconds`` bounds the measurement."""
    found: dict[str, Any] = {
        "device": "", "backend": "", "torch": "", "world": 0, "rows": [], "problem": "", "unable": "", "seconds": 0.0,
    }  # fmt: skip
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=START_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {**found, "unable": f"PyTorch was not imported within {START_SECONDS} s"}
    words = asked.stdout.split()
    if asked.returncode or len(words) < 3:
        return {**found, "unable": f"PyTorch cannot be imported: {asked.stderr.strip()[-400:]}"}
    version, seen, hip = words[-3], int(words[-2]), words[-1] == "True"
    if 0 < seen < gpus:
        return {**found, "torch": version, "unable": f"PyTorch sees {seen} of {gpus} GPUs"}
    world = gpus if seen else 2
    found.update(torch=version, world=world, backend=("rccl" if hip else "nccl") if seen else "gloo")
    begun = time.monotonic()
    rows, found["problem"] = _run(world, bool(seen), seconds)
    found["device"] = next((row["device"] for row in rows if "device" in row), "" if seen else "cpu")
    found["rows"] = [{name: value for name, value in row.items() if name not in ("device", "stage")} for row in rows]
    found["seconds"] = round(time.monotonic() - begun, 1)
    return found


def _run(world: int, gpus: bool, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """One process for each rank: what each said, and what went wrong."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # In a container without a network there is only the loopback.
    os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    pipes: dict[int, int] = {}
    children: dict[int, int] = {}
    for rank in range(world):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(_rank(rank, world, gpus, port, writer))
        os.close(writer)
        pipes[rank], children[rank] = reader, child
    try:
        return _listen(pipes, seconds)
    finally:
        for child in children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _listen(pipes: dict[int, int], seconds: float) -> tuple[list[dict[str, Any]], str]:
    rows: list[dict[str, Any]] = [{"rank": rank, "stage": "start"} for rank in pipes]
    waiting = dict(pipes)
    deadline = time.monotonic() + START_SECONDS
    texts = dict.fromkeys(pipes, b"")
    while waiting:
        ready, _none, _no = select.select(list(waiting.values()), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            late = ", ".join(f"rank {rank} at {rows[rank]['stage']}" for rank in waiting)
            return rows, f"no answer in time: {late}"
        for rank in [rank for rank, pipe in waiting.items() if pipe in ready]:
            part = os.read(waiting[rank], 65536)
            *lines, texts[rank] = (texts[rank] + part).split(b"\n")
            before = all(row["stage"] == "start" for row in rows)
            for line in lines:
                rows[rank].update(json.loads(line))
            if before and any(row["stage"] != "start" for row in rows):
                deadline = time.monotonic() + seconds
            if "error" in rows[rank]:
                return rows, f"rank {rank} at {rows[rank]['stage']}: {rows[rank].pop('error')}"
            if not part:
                if rows[rank]["stage"] != "done":
                    return rows, f"rank {rank} at {rows[rank]['stage']}: its process ended"
                del waiting[rank]
    return rows, ""


def _rank(rank: int, world: int, gpus: bool, port: int, writer: int) -> int:
    def say(**row: Any) -> None:
        os.write(writer, json.dumps(row).encode() + b"\n")

    try:
        _measure(rank, world, gpus, port, say)
    except BaseException as error:  # also what a library raises to end its process
        say(error=f"{type(error).__name__}: {error}"[-600:])
        return 1
    return 0


def _measure(rank: int, world: int, gpus: bool, port: int, say: Callable[..., None]) -> None:
    import torch  # type: ignore[import-not-found, unused-ignore]
    import torch.distributed as dist  # type: ignore[import-not-found, unused-ignore]

    sizes = _SIZES[gpus]
    here = torch.device("cuda", rank) if gpus else torch.device("cpu")
    there = torch.device("cuda", (rank + 1) % world) if gpus else here
    if gpus:
        torch.cuda.set_device(here)
        say(device=torch.cuda.get_device_name(here))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    data = dist.new_group(backend="nccl") if gpus else None

    def settled() -> None:
        if gpus:
            torch.cuda.synchronize(here)
            torch.cuda.synchronize(there)

    def rate(work: Callable[[], Any], amount: float, times: int = 8) -> float:
        """Amount by second, in units of 10**9; the first two do not count."""
        for _warm in range(2):
            work()
        settled()
        begun = time.perf_counter()
        for _time in range(times):
            work()
        settled()
        return round(amount * times / max(time.perf_counter() - begun, 1e-9) / 1e9, 2)

    def stage(name: str) -> None:
        dist.barrier()
        say(stage=name)

    stage("copies with the host")
    host = torch.empty(sizes["copy"], dtype=torch.uint8, pin_memory=gpus)
    near = torch.empty(sizes["copy"], dtype=torch.uint8, device=here)
    # One after the other: two GPUs may share a switch on their way to the host.
    for turn in range(world):
        if turn == rank:
            say(
                host_to_device=rate(lambda: near.copy_(host, non_blocking=True), sizes["copy"]),
                device_to_host=rate(lambda: host.copy_(near, non_blocking=True), sizes["copy"]),
            )
        dist.barrier()
    stage("arithmetic")
    edge = sizes["edge"]
    factor = torch.ones(edge, edge, dtype=torch.bfloat16 if gpus else torch.float32, device=here)
    say(compute=round(rate(lambda: factor @ factor, 2.0 * edge**3, 30) / 1000, 3))
    if world > 1:
        stage("copies between GPUs")
        far = torch.empty(sizes["copy"], dtype=torch.uint8, device=there)
        dist.barrier()
        say(device_to_device=rate(lambda: far.copy_(near, non_blocking=True), sizes["copy"], 20))
        stage("all-reduce")
        values = torch.full((sizes["reduce"] // 2,), 1.0, dtype=torch.bfloat16, device=here)
        # A sum of equal values that bfloat16 holds exactly; then zeros, which stay zeros however often.
        dist.all_reduce(values, group=data)
        if not bool((values == world).all()):
            raise ArithmeticError(f"the sum of {world} ones is wrong in places: {values.min()} to {values.max()}")
        values.zero_()
        share = 2 * (world - 1) / world
        say(all_reduce=rate(lambda: dist.all_reduce(values, group=data), sizes["reduce"] * share, 10))
    stage("end")
    say(stage="done")


if __name__ == "__main__":
    sys.exit(main())
