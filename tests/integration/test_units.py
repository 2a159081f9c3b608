"""Every unit the collection can render passes ``systemd-analyze verify``, tricky arguments included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog, planner
from tests.unit.serve.plans import REVISION, nodes, plan, replicas, rocm, venv
from tests.unit.serve.render import render

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")

TRICKY = [
    "--speculative-config",
    '{"method":"mtp","num_speculative_tokens":3}',
    "--chat-template",
    "a path with spaces/and $HOME and %h and \\ and 'quotes'.jinja",
    "--stop",
    ";",
    "--note",
    "two\nlines\tand a tab",
    "",
]


def analyze(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Verify a unit in a root of its own, so that this machine's units and programs play no part."""
    engines = [f"opt/glm/engines/{name}" for name in ("vllm-0.32.0/bin/vllm", "sglang-0.5.10/bin/python")]
    for program in ("usr/bin/docker", "usr/bin/python3", *engines):
        target = folder / program
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("#!/bin/sh\n", encoding="utf-8")
        target.chmod(0o755)
    unit = folder / "etc/systemd/system/glm-serve-0.service"
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={folder}", unit.name]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def with_arguments(engine: str, extra: list[str]) -> dict[str, Any]:
    made = plan(engine)
    made["command"] += extra
    return made


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_rendered_units_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    done = analyze(tmp_path, render("glm-serve.service", with_arguments(engine, extra)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "change",
    [
        {"listen": {"address": "fd00::5", "port": 8000, "container_port": 8000}},
        {"served_model_name": "100% glm"},
        {"replica": 3},
    ],
    ids=["ipv6", "percent", "replica 3"],
)
def test_other_plans_are_valid_too(change: dict[str, Any], tmp_path: Path) -> None:
    done = analyze(tmp_path, render("glm-serve.service", plan(**change)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_units_for_rocm_and_for_replicas_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    for number, made in enumerate([rocm(engine), *replicas(2, engine)]):
        made["command"] += extra
        done = analyze(tmp_path / str(number), render("glm-serve.service", made))
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("extra", [[], TRICKY], ids=["plain", "tricky"])
def test_units_for_bare_metal_are_valid(engine: str, extra: list[str], tmp_path: Path) -> None:
    made = venv(engine)
    made["command"] += extra
    done = analyze(tmp_path, render("glm-serve-venv.service", made))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("made", [plan("sglang"), venv("sglang"), rocm()], ids=["container", "venv", "rocm"])
def test_units_of_several_hosts_are_valid(made: dict[str, Any], rank: int, tmp_path: Path) -> None:
    name = "glm-serve-venv.service" if made["runtime"]["kind"] == "venv" else "glm-serve.service"
    done = analyze(tmp_path, render(name, nodes(made, rank)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("accelerator", ["B200", "H200"])
def test_units_of_real_plans_are_valid(engine: str, accelerator: str, tmp_path: Path) -> None:
    intent = planner.Intent(
        model="GLM-5.1", accelerator=accelerator, accelerator_count=8, engine=engine, listen_address="10.0.0.5"
    )
    made = planner.make(intent, catalog.load())
    made["model"]["revision"] = REVISION
    text = render("glm-serve.service", made)
    done = analyze(tmp_path, text)
    assert (done.returncode, done.stderr) == (0, "")
    assert made["image"]["reference"] in text and "--network bridge" in text
    assert render("glm-serve.secret", made).endswith(("=glm-test-key\n", ': "glm-test-key"\n'))


def test_the_check_can_fail(tmp_path: Path) -> None:
    broken = render("glm-serve.service", plan()).replace("Restart=on-failure", "Restrat=on-failure")
    done = analyze(tmp_path, broken)
    assert done.returncode != 0 and "Restrat" in done.stderr
