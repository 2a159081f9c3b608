"""The stand-in tools of a rehearsal GPU host speak as the product's own parsers expect."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.host import gpu
from simulator.hosts.accelerators import declare
from simulator.hosts.images import ROOTFS

BASE = ROOTFS / "gpu-base/usr"


@pytest.fixture
def host(tmp_path: Path) -> dict[str, str]:
    """Two B200 of which containers may see fewer: an environment for the stand-in tools."""
    (tmp_path / "accelerator.json").write_text(declare("B200", 2, 180).to_json())
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    return {
        **os.environ,
        "GLM_REHEARSAL_ACCELERATOR": str(tmp_path / "accelerator.json"),
        "GLM_REHEARSAL_DEVICES": str(tmp_path / "dev"),
    }


def call(host: dict[str, str], program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(BASE / "bin" / program), *arguments]
    return subprocess.run(command, env=host, capture_output=True, text=True, check=False)


def load(name: str) -> ModuleType:
    """Run a script as a module, without leaving bytecode beside it: the folder goes into images."""
    path = BASE / "lib/glm-rehearsal" / name
    module = ModuleType(name)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    return module


def test_nvidia_smi_csv_is_read_by_the_product(host: dict[str, str]) -> None:
    done = call(host, "nvidia-smi", f"--query-gpu={','.join(gpu.SMI_FIELDS)}", "--format=csv,noheader,nounits")
    rows, others = gpu.parse_gpu_csv(done.stdout)
    assert others == []
    assert [(row["index"], row["memory_total_mib"], row["driver_version"]) for row in rows] == [
        (0, 183359, "580.105.08"),
        (1, 183359, "580.105.08"),
    ]
    assert len({row["bus_id"] for row in rows}) == len({row["uuid"] for row in rows}) == 2


def test_nvidia_smi_csv_with_head_and_units(host: dict[str, str]) -> None:
    done = call(host, "nvidia-smi", "--query-gpu=name,memory.total", "--format=csv")
    assert done.stdout.splitlines() == ["name, memory.total [MiB]"] + ["NVIDIA B200, 183359 MiB"] * 2


def test_nvidia_smi_xml_is_read_by_the_product(host: dict[str, str]) -> None:
    details = gpu.parse_smi_xml(call(host, "nvidia-smi", "-q", "-x").stdout)
    assert details["cuda_version"] == "13.0"
    assert details["fabric"]["state"] == "Completed" and len(details["fabric"]["states"]) == 2


def test_nvidia_smi_shows_only_devices_that_are_here(host: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dev/nvidia0").unlink()
    assert call(host, "nvidia-smi", "-L").stdout.startswith("GPU 1: NVIDIA B200")
    (tmp_path / "dev/nvidia1").unlink()
    done = call(host, "nvidia-smi")
    assert (done.returncode, done.stdout) == (6, "No devices were found\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--query-gpu=nonsense", "--format=csv"), 'Field "nonsense" is not a valid field to query.'),
        (("--query-gpu=name",), '"--format=" switch is missing'),
        (("--gpu-reset",), "Invalid argument: --gpu-reset"),
    ],
)
def test_nvidia_smi_refuses_what_it_does_not_know(host: dict[str, str], arguments: tuple[str, ...], said: str) -> None:
    done = call(host, "nvidia-smi", *arguments)
    assert done.returncode == 2
    assert said in done.stdout


def test_nvidia_ctk_writes_a_cdi_specification(host: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "cdi/nvidia.yaml"
    assert call(host, "nvidia-ctk", "cdi", "generate", f"--output={path}").returncode == 0
    found = gpu.parse_cdi(path.read_text())
    assert found["devices"] == ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"]
    document = yaml.safe_load(path.read_text())
    everything = document["devices"][-1]["containerEdits"]["deviceNodes"]
    assert [node["path"] for node in everything] == ["/dev/nvidia0", "/dev/nvidia1"]
    assert all("ro" in mount["options"] for mount in document["containerEdits"]["mounts"])


def test_nvidia_ctk_without_devices_says_so(host: dict[str, str], tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"dev/nvidia{index}").unlink()
    done = call(host, "nvidia-ctk", "cdi", "generate")
    assert done.returncode == 1 and "no /dev/nvidia* devices" in done.stderr
    assert call(host, "nvidia-ctk", "runtime", "configure").returncode == 1


def test_container_limits_are_lowered_to_the_machine_s_and_no_further() -> None:
    tool = load("runc-within-limits")
    limits = [
        {"type": "RLIMIT_MEMLOCK", "hard": 2**64 - 1, "soft": 2**64 - 1},
        {"type": "RLIMIT_STACK", "hard": 1000, "soft": 500},
        {"type": "RLIMIT_UNKNOWN", "hard": 7, "soft": 7},
        {"type": "RLIMIT_CORE", "hard": 2**64 - 1, "soft": 0},
    ]
    hard = {resource.RLIMIT_MEMLOCK: 8192, resource.RLIMIT_STACK: 9999, resource.RLIMIT_CORE: resource.RLIM_INFINITY}
    tool.lower(limits, lambda number: (0, hard[number]))
    assert [(limit["hard"], limit["soft"]) for limit in limits] == [(8192, 8192), (1000, 500), (7, 7), (2**64 - 1, 0)]


@pytest.mark.parametrize("argv", [["create", "--bundle", "/b", "x"], ["create", "--bundle=/b"], ["run", "-b", "/b"]])
def test_the_bundle_is_found_in_any_spelling(argv: list[str]) -> None:
    assert load("runc-within-limits").bundle_of(argv) == Path("/b")


def test_every_stand_in_says_that_it_is_one() -> None:
    for path in sorted((BASE / "bin").iterdir()):
        assert "REHEARSAL STAND-IN, not NVIDIA software" in path.read_text().splitlines()[1], path
    for path in sorted((ROOTFS / "gpu-base/etc/systemd/system").glob("nvidia-*.service")):
        assert "Rehearsal stand-in" in path.read_text(), path


def test_the_cdi_refresh_runs_before_each_start_and_takes_a_while() -> None:
    unit = (ROOTFS / "gpu-base/etc/systemd/system/nvidia-cdi-refresh.service").read_text().splitlines()
    assert "Type=oneshot" in unit and not any(line.startswith("RemainAfterExit") for line in unit)
    assert any(line.startswith("ExecStartPre=/usr/bin/sleep ") for line in unit)
