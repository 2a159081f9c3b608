"""What is measured on the GPUs of a host: the program's own life without PyTorch, and what its figures are called."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import docker, probe, speed, speed_program
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import platforms
from ansible_collections.glm.fleet.plugins.plugin_utils.host import speed as judgement
from tests.unit.modules.test_gpu_states import PLATFORMS, facts_of

H100 = PLATFORMS["H100 SXM"]
FIGURES = {
    "host_to_device": 54.1,
    "device_to_host": 53.0,
    "device_to_device": 402.0,
    "compute": 710.0,
    "all_reduce": 365.0,
}


def measured(count: int = 8, **of_fourth: float) -> dict[str, Any]:
    """What the program prints of healthy H100, one of them with other figures."""
    rows = [{"rank": rank, **FIGURES} for rank in range(count)]
    rows[min(3, count - 1)].update(of_fourth)
    return {
        "device": "NVIDIA H100 80GB HBM3", "backend": "nccl", "torch": "2.11.0+cu130", "world": count, "rows": rows,
        "problem": "", "unable": "", "seconds": 31.0,
    }  # fmt: skip


def judged(found: dict[str, Any] | None, platform: Any = H100, **more: Any) -> dict[str, Any]:
    facts = facts_of(platform or H100, **more)
    facts["gpus"] = [
        {"index": index, "bus_id": f"00000000:{16 + index:02X}:00.0"} for index in range(len(facts["gpus"]))
    ]
    return {entry["check"]: entry for entry in judgement.judge(found, facts, platform)}


def test_a_fast_host_passes_with_its_figures() -> None:
    found = judged(measured())
    assert {name: entry["outcome"] for name, entry in found.items()} == dict.fromkeys(
        ("host to device", "device to device", "all-reduce", "GPU outlier"), "passed"
    )
    assert found["host to device"]["found"] == "53.0 GB/s at least, 53.5 in the middle, 8 GPUs"
    assert "365.0 GB/s at least" in found["all-reduce"]["found"] and "over nccl" in found["all-reduce"]["found"]
    assert found["all-reduce"]["expected"] == "150 GB/s or more"


@pytest.mark.parametrize(
    ("figures", "check", "words"),
    [
        ({"host_to_device": 6.2}, "host to device", "6.2 GB/s at least"),
        ({"device_to_host": 12.0}, "host to device", "12.0 GB/s at least"),
        ({"device_to_device": 25.0}, "device to device", "25.0 GB/s at least"),
        ({"all_reduce": 41.0}, "all-reduce", "41.0 GB/s at least"),
        ({"compute": 500.0}, "GPU outlier", "00000000:13:00.0: compute 500 TFLOPS, the others about 710"),
        ({"device_to_device": 250.0}, "GPU outlier", "00000000:13:00.0: device to device 250 GB/s"),
    ],
)
def test_a_slow_gpu_is_named_with_its_figure(figures: dict[str, float], check: str, words: str) -> None:
    entry = judged(measured(**figures))[check]
    assert entry["outcome"] == "failed" and words in entry["found"] and entry["next"]


def test_floors_between_gpus_are_of_gpus_that_are_joined() -> None:
    slow = measured(4)
    for row in slow["rows"]:
        row.update(device_to_device=20.0, all_reduce=15.0)
    found = judged(slow, count=4, fabric=False)
    assert {entry["outcome"] for entry in found.values()} == {"passed"}, "a share of a board without its switches"
    assert found["all-reduce"]["expected"] == "no floor is known here"
    assert judged(slow, count=4)["all-reduce"]["outcome"] == "failed"
    one = measured(1)
    for name in ("device_to_device", "all_reduce"):
        one["rows"][0].pop(name)
    assert list(judged(one, count=1)) == ["host to device", "GPU outlier"]


def test_pairs_that_are_further_apart_are_no_outliers_where_no_switch_joins_them() -> None:
    bridged = measured(4)
    bridged["rows"][3]["device_to_device"] = 42.0
    assert judged(bridged, count=4, fabric=False)["GPU outlier"]["outcome"] == "passed"
    assert judged(bridged, count=4)["GPU outlier"]["outcome"] == "failed"


def test_what_went_wrong_fails_and_what_could_not_be_measured_is_not_proven() -> None:
    hangs = {**measured(), "rows": [], "problem": "no answer in time: rank 3 at all-reduce"}
    (entry,) = judged(hangs).values()
    assert entry["unread"] and "rank 3 at all-reduce" in entry["found"] and entry["next"]
    wrong = {**measured(), "rows": [], "problem": "rank 3 at all-reduce: ArithmeticError: the sum of 8 ones is wrong"}
    (entry,) = judged(wrong).values()
    assert entry["outcome"] == "failed" and "the sum of 8 ones" in entry["found"]
    (entry,) = judged({**measured(), "rows": [], "unable": "PyTorch sees 7 of 8 GPUs"}).values()
    assert entry["outcome"] == "not_proven" and entry["unread"] and "7 of 8" in entry["found"]
    for nothing in (None, {"left": "the image is not on the host yet"}):
        (entry,) = judged(nothing).values()
        assert entry["outcome"] == "not_proven" and "unread" not in entry
    assert entry["found"] == "not measured: the image is not on the host yet"


def test_a_figure_that_is_missing_is_never_passed() -> None:
    found = measured()
    found["rows"][5].pop("all_reduce")
    entry = judged(found)["all-reduce"]
    assert entry["outcome"] == "not_proven" and entry["unread"]
    assert judged(found)["host to device"]["outcome"] == "passed"
    (entry,) = judged(measured(7)).values()
    assert entry["unread"] and entry["found"] == "figures of 7 of 8 GPUs"


def test_a_rehearsal_says_that_it_measured_a_processor() -> None:
    cpu = {**measured(2), "device": "cpu", "backend": "gloo", "world": 2}
    (entry,) = judged(cpu, platform=None).values()
    assert entry["outcome"] == "not_proven" and "unread" not in entry
    assert "2 processes on the CPU over gloo: host to device 53 GB/s" in entry["found"]
    (entry,) = judged({**cpu, "rows": [], "problem": "no answer in time: rank 1 at start"}, platform=None).values()
    assert entry["outcome"] == "not_proven" and "rank 1 at start" in entry["found"], "a busy processor is no fault"
    (entry,) = judged(cpu).values()
    assert entry["unread"] and "sees no GPU" in entry["found"], "a host that has GPUs owes more"


@pytest.mark.parametrize("platform", platforms.load(), ids=lambda row: row.name)
def test_every_platform_has_a_floor_for_copies_with_the_host(platform: platforms.Platform) -> None:
    assert platform.floors["host_to_device"] > 0
    assert set(platform.floors) <= {"host_to_device", "device_to_device", "all_reduce"}
    assert ("all_reduce" in platform.floors) == bool(platform.nvlinks or platform.vendor == "amd")


Said = Callable[..., None]


def ranks(monkeypatch: pytest.MonkeyPatch, work: Callable[[int, Said], None]) -> None:
    monkeypatch.setattr(speed_program, "_measure", lambda rank, _world, _gpus, _port, say: work(rank, say))


def test_each_rank_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int, say: Said) -> None:
        say(stage="copies with the host", device="NVIDIA B200")
        say(host_to_device=50.0 + rank)
        say(stage="done")

    ranks(monkeypatch, work)
    rows, problem = speed_program._run(3, True, 20)
    assert problem == "" and [row["host_to_device"] for row in rows] == [50.0, 51.0, 52.0]


@pytest.mark.parametrize("how", ["hangs", "fails", "ends"])
def test_a_rank_that_hangs_or_fails_is_named_and_no_process_is_left(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def work(rank: int, say: Said) -> None:
        say(stage="all-reduce")
        if rank == 1 and how == "fails":
            raise RuntimeError("NCCL error: unhandled system error")
        if rank == 1 and how == "hangs":
            threading.Event().wait(60)
        if rank == 0 or how != "ends":
            say(stage="done")

    ranks(monkeypatch, work)
    begun = time.monotonic()
    _rows, problem = speed_program._run(2, True, 0.7)
    expected = {
        "hangs": "no answer in time: rank 1 at all-reduce",
        "fails": "rank 1 at all-reduce: RuntimeError: NCCL error: unhandled system error",
        "ends": "rank 1 at all-reduce: its process ended",
    }
    assert problem == expected[how] and time.monotonic() - begun < 20


def test_an_image_without_pytorch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_program, "_ASK", "import torch_is_not_here")
    found = speed_program.measured(8, 5)
    assert "torch_is_not_here" in found["unable"] and found["rows"] == [] and found["problem"] == ""
    monkeypatch.setattr(speed_program, "_ASK", "print('2.11', 7, False)")
    assert speed_program.measured(8, 5)["unable"] == "PyTorch sees 7 of 8 GPUs"


PLAN: dict[str, Any] = {
    "accelerator": {"count": 8, "vendor": "nvidia", "indices": list(range(8))},
    "image": {"reference": "vllm/vllm-openai@sha256:ab"},
    "devices": ["nvidia.com/gpu=all"],
    "confinement": {
        "user": "65532:65532", "capabilities": [], "writable": ["/tmp"], "processes": 100, "shared_memory_gib": 64.0,
        "imports": [],
    },
    "env": {"NCCL_IB_HCA": "mlx5", "HF_TOKEN": "hf_secretsecret"},
}  # fmt: skip


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Docker as the module sees it: what it was asked for, and what it answers."""
    seen: dict[str, Any] = {"argv": [], "image": {"Id": "x"}, "answer": "GLM-SPEED " + json.dumps(measured())}

    def run(argv: Sequence[str], _timeout: float) -> CommandResult:
        seen["argv"].append(list(argv))
        return CommandResult(tuple(argv), seen.get("rc", 0), seen["answer"] if argv[1] == "run" else "", "said")

    monkeypatch.setattr(probe, "run", run)
    monkeypatch.setattr(docker.Engine, "inspect_image", lambda _self, _reference: seen["image"])
    return seen


IDLE = {"gpus": [{"memory_used_mib": 4}] * 8, "gpu_holders": None}


def test_the_container_is_that_of_the_unit_without_its_secrets(container: dict[str, Any]) -> None:
    assert speed.measure([PLAN], IDLE, 600)["world"] == 8
    argv = container["argv"][-1]
    for words in (["--device", "nvidia.com/gpu=all"], ["--shm-size", "64g"], ["--user", "65532:65532"],
                  ["--network", "none"], ["--env", "NCCL_IB_HCA=mlx5"], ["--ipc", "private"]):  # fmt: skip
        assert any(argv[at : at + 2] == words for at in range(len(argv))), words
    assert "hf_secretsecret" not in " ".join(argv) and argv[-2:] == ["8", "60"]
    compile(argv[-3], "program", "exec")
    assert "GLM-SPEED" in argv[-3]


def test_the_gpus_of_all_replicas_are_measured_and_no_others(container: dict[str, Any]) -> None:
    plans = [
        {**PLAN, "accelerator": {**PLAN["accelerator"], "indices": indices},
         "env": {"HIP_VISIBLE_DEVICES": ",".join(map(str, indices))}}
        for indices in ([4, 5], [6, 7])
    ]  # fmt: skip
    others = {"gpus": [{"memory_used_mib": 90000}] * 4 + [{"memory_used_mib": 4}] * 4, "gpu_holders": ["x (pid 8)"]}
    assert speed.measure(plans, others, 600)["world"] == 8
    argv = container["argv"][-1]
    assert "HIP_VISIBLE_DEVICES=4,5,6,7" in argv and argv[-2:] == ["4", "60"]
    busy = {**others, "gpus": others["gpus"][::-1]}
    assert speed.measure(plans, busy, 600)["left"] == "GPUs are in use"


@pytest.mark.parametrize(
    ("facts", "left"),
    [
        ({"gpus": [{"memory_used_mib": 90000}], "gpu_holders": []}, "GPUs are in use"),
        ({"gpus": [{"memory_used_mib": None}], "gpu_holders": None}, "GPUs may be in use"),
        ({"gpus": [{"memory_used_mib": None}], "gpu_holders": ["python3 (pid 8)"]}, "GPUs may be in use"),
        (None, "the image is not on the host yet"),
    ],
)
def test_gpus_that_may_serve_somebody_are_left_alone(
    container: dict[str, Any], facts: dict[str, Any] | None, left: str
) -> None:
    if facts is None:
        container["image"] = None
    assert speed.measure([PLAN], facts or IDLE, 600)["left"].startswith(left)
    assert container["argv"] == [], "nothing was started"


def test_a_container_that_says_nothing_measured_nothing(container: dict[str, Any]) -> None:
    container.update(answer="", rc=125)
    found = speed.measure([PLAN], IDLE, 600)
    assert found["unable"] == "docker run ended with 125: said"
    (entry,) = judged(found).values()
    assert entry["unread"]
