"""The scripts that set a machine up: their progress, and what they leave alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_a_silent_command_of_a_script_says_that_it_goes_on() -> None:
    script = str(ROOT / "scripts/with_progress.sh")
    done = subprocess.run([script, "x", "sh", "-c", "echo hello; sleep 11"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "    x: 10 s so far, hello\n")
    failed = subprocess.run([script, "x", "sh", "-c", "echo why; exit 3"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stderr) == (3, "why\n")


@pytest.mark.parametrize("there", [True, False])
def test_a_registry_that_was_there_before_is_left_alone(tmp_path: Path, there: bool) -> None:
    """The script on a machine whose tools are these; chromium is missing, so that something is installed."""
    calls = tmp_path / "calls"
    tools = {
        "dpkg-query": f'case "$3" in chromium{"" if there else "|docker-registry"}) exit 1;; esac; echo installed',
        "apt-get": f'echo "apt-get $*" >>{calls}',
        "systemctl": f'echo "systemctl $*" >>{calls}',
        "sudo": 'exec "$@"',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(ROOT / "scripts/install_system_packages.sh")], env=environment, check=True)
    assert ("systemctl disable --now docker-registry.service" in calls.read_text()) is not there
    assert "install --no-install-recommends chromium" in calls.read_text()
