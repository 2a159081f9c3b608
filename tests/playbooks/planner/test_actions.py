"""serving_plan and plan_report through ansible itself: with hosts, without hosts, in check mode, and refusing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
INVENTORY = """
glm_fleet:
  hosts:
    a: {glm_host_accelerator: B200, glm_host_accelerator_count: 8, glm_host_private_address: 10.0.0.5}
    b: {glm_host_accelerator: B200, glm_host_accelerator_count: 8, glm_host_private_address: 10.0.0.6}
"""


def play(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run plan.yml from the checkout; state goes to tmp_path."""
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"}
    command = [str(ANSIBLE), "plan.yml", "-e", f"glm_state_dir={tmp_path}/state", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def plans(tmp_path: Path) -> dict[str, dict]:
    return json.loads((tmp_path / "state/reports/plan.json").read_text(encoding="utf-8"))["hosts"]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text(INVENTORY, encoding="utf-8")
    return path


def test_plans_hardware_nobody_has_rented(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = play(tmp_path, "-e", "glm_model=GLM-5.1", "-e", "glm_accelerator=H200", "-e", "glm_accelerator_count=8")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GLM-5.1 fp8 with vllm 0.32.0 on 8x H200 (agentic)" in done.stdout
    assert "the pool holds 461,438 tokens" in " ".join(done.stdout.split())
    assert plans(tmp_path)["localhost"]["listen"]["address"] == "127.0.0.1"
    assert "WARNING" not in done.stdout + done.stderr
    # Of processor time, which other programs do not take; 1.2 s by the clock of a quiet machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_plans_a_fleet_from_its_inventory(tmp_path: Path, inventory: Path) -> None:
    own = json.dumps({"glm_catalog": ["examples/own_catalog"]})
    done = play(tmp_path, "-i", str(inventory), "-e", "glm_engine=sglang", "-e", own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lambda 46.00 USD/h" in done.stdout, "the price of the team"
    assert "a https://10.0.0.5:8000/v1; b https://10.0.0.6:8000/v1" in done.stdout
    assert done.stdout.count("GLM-5.1 fp8 with sglang 0.5.10 on 8x B200") == 1, "equal plans share a block"
    assert {host: plan["listen"]["address"] for host, plan in plans(tmp_path).items()} == {
        "a": "10.0.0.5",
        "b": "10.0.0.6",
    }
    again = play(tmp_path, "-i", str(inventory), "-e", "glm_engine=sglang", "-e", own)
    assert "changed=1" not in again.stdout


def test_check_mode_plans_and_writes_nothing(tmp_path: Path, inventory: Path) -> None:
    done = play(tmp_path, "-i", str(inventory), "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on 8x B200" in done.stdout
    assert not (tmp_path / "state").exists()


def test_obeys_the_lock_file(tmp_path: Path, inventory: Path) -> None:
    digest = "sha256:" + "cd" * 32
    lock = f"images:\n  vllm/vllm-openai:v0.32.0: {{digest: '{digest}'}}\nmodels: {{}}\n"
    (tmp_path / "glm.lock.yml").write_text(lock, encoding="utf-8")
    done = play(tmp_path, "-i", str(inventory))
    assert done.returncode == 0, done.stdout + done.stderr
    assert plans(tmp_path)["a"]["image"]["reference"] == f"vllm/vllm-openai@{digest}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["glm_accelerator=H100"], "a, plan: GLM-5.1 fp8 on 8x H100 with vllm 0.32.0: it does not fit: 90.0 + 0.27"),
        (["glm_model=GLM-51"], "a, plan: unknown model 'GLM-51'. Did you mean GLM-5.1?"),
        (["glm_accelerator="], "a, plan: expected the host's accelerators, found none. Next: set glm_accelerator"),
        (["glm_bind=nowhere"], "a, plan: 'nowhere' is neither private, loopback, public nor an IP address"),
    ],
)
def test_refusals_name_the_host_and_the_next_step(
    tmp_path: Path, inventory: Path, words: list[str], expected: str
) -> None:
    extra = [part for word in words for part in ("-e", word)]
    done = play(tmp_path, "-i", str(inventory), *extra)
    assert done.returncode != 0
    text = " ".join((done.stdout + done.stderr).split())
    assert expected in text
    assert "Traceback" not in text


def test_a_broken_lock_file_is_named(tmp_path: Path, inventory: Path) -> None:
    (tmp_path / "glm.lock.yml").write_text("images: [", encoding="utf-8")
    done = play(tmp_path, "-i", str(inventory))
    assert done.returncode != 0
    assert "a, plan: " in done.stdout + done.stderr and "glm.lock.yml" in done.stdout + done.stderr


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["run", "check"])
def test_each_host_loads_as_its_own_disk_asks_for(tmp_path: Path, inventory: Path, words: tuple[str, ...]) -> None:
    """Whatever connects to it or not: what a deploy kept beside the lock file is all that the plan needs."""
    lock = tmp_path / "glm.lock.yml"
    disk = {
        "hf_home": "/var/lib/glm/huggingface", "device": "tag", "filesystem": "virtiofs", "kind": "network",
        "read_mb_s": 900.0, "measured_at": "2026-12-01T10:00:00Z", "memory_gib": 2000.0,
    }  # fmt: skip
    (tmp_path / "glm.disks.json").write_text(json.dumps({"schema": 1, "disks": {"a": disk}}), "utf-8")
    done = play(tmp_path, "-i", str(inventory), "-e", f"glm_lock_file={lock}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = [" ".join(line.split()) for line in done.stdout.splitlines() if line.split()[:1] == ["loading"]]
    assert len(shown) == 2 and shown[0].startswith("loading network (virtiofs): --safetensors-load-strategy; mapped")
    assert shown[1].startswith("loading unknown: the disk of the weights is not known yet")
    if not words:
        made = plans(tmp_path)
        assert made["a"]["loading"]["read_mb_s"] == 900.0
        assert "--safetensors-load-strategy" in made["a"]["command"]
        assert "--safetensors-load-strategy" not in made["b"]["command"]
