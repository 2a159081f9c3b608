"""A host that is itself a container without systemd is refused before anything is changed on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/gpu_base"


def first_of_the_role() -> Path:
    return (
        ROLE / "tasks" / yaml.safe_load((ROLE / "tasks/main.yml").read_text("utf-8"))[0]["ansible.builtin.import_tasks"]
    )


def first_step(folder: Path, systemd: Path, tasks: Path) -> tuple[int, str]:
    """Exit status and output of these tasks on this machine, which stands for the host."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(ROLE / "defaults/main.yml")],
        "tasks": [{"ansible.builtin.import_tasks": str(tasks)}],
    }
    (folder / "play.yml").write_text(json.dumps([play]), "utf-8")
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(folder / "play.yml"), "-e", f"__gpu_base_systemd_dir={systemd}"],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "400"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    "tasks", [first_of_the_role(), ROOT / "playbooks/tasks/driver.yml"], ids=lambda path: path.stem
)
def test_a_container_of_a_cloud_is_refused_first(tmp_path: Path, tasks: Path) -> None:
    """Also where a driver is to be installed, which comes before the role."""
    code, output = first_step(tmp_path, tmp_path / "absent", tasks)
    assert code != 0 and "Read the PCI devices" not in output
    name = Path("/proc/1/comm").read_text("utf-8").strip()
    text = output.replace("''", "'")
    assert f"localhost, first boot: expected a host that systemd booted, found '{name}' as process 1." in text
    assert "Next: deploy to virtual or bare-metal machines" in text


def test_a_host_with_systemd_goes_on(tmp_path: Path) -> None:
    code, output = first_step(tmp_path, tmp_path, first_of_the_role())
    assert code == 0, output
    assert "changed=0" in output
