"""status.yml as its users run it: a row for every host, whatever is wrong with it, a file, and an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UNIT = {
    "LoadState": "loaded", "ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "NRestarts": "1",
    "ExecMainCode": "2", "ExecMainStatus": "9", "Job": "0", "InvocationID": "", "UnitFileState": "enabled",
    "NeedDaemonReload": "no", "InactiveExitTimestampMonotonic": "1", "ExecMainStartTimestampMonotonic": "1",
    "ActiveEnterTimestampMonotonic": "0", "ActiveEnterTimestamp": "", "AssertResult": "yes", "MainPID": "0",
}  # fmt: skip


def inventory(folder: Path) -> Path:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
    hosts = {
        "gpu-failed": {**local, "glm_host_price_usd_per_hour": 53.44},
        # Nobody listens there.
        "gpu-gone": {"ansible_host": "127.0.0.1", "ansible_port": 1, "glm_host_price_usd_per_hour": 53.44},
        "gpu-unplanned": {**local, "glm_precision": "int3"},
    }
    given = {"glm_accelerator": "B200", "glm_accelerator_count": 8, "glm_bind": "loopback", "glm_tls": "fleet"}
    # A host that runs nothing but a gateway has no accelerators, and no plan.
    of_its_own = {"hosts": {"proxy": {**local, "glm_accelerator": "", "glm_accelerator_count": 0}}}
    path = folder / "hosts.json"
    groups = {"glm_fleet": {"hosts": hosts}, "glm_gateway": of_its_own}
    path.write_text(json.dumps({"all": {"vars": given, "children": groups}}), "utf-8")
    return path


@pytest.fixture
def ran(tmp_path: Path) -> tuple[int, str, Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    lines = "".join(f"{name}={value}\\n" for name, value in UNIT.items())
    for name, shell in {"systemctl": f"printf '{lines}'", "journalctl": "true", "docker": "exit 1"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{shell}\n", "utf-8")
        (folder / name).chmod(0o755)
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "status.yml", "-i", str(inventory(tmp_path)),
         "-e", f"glm_state_dir={tmp_path / 'state'}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
             "PATH": f"{folder}:{os.environ['PATH']}"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, tmp_path / "state"


def test_every_host_has_a_row_and_one_that_is_not_well_fails_the_run(ran: tuple[int, str, Path]) -> None:
    code, output, state = ran
    assert code == 2, output
    rows: dict[str, str] = {}
    for line in output.splitlines():
        name = line.split(" ")[0]
        if name.startswith(("gpu-", "proxy")):
            rows.setdefault(name, line)
    assert " FAILED " in rows["gpu-failed"], output
    assert " UNREAD " in rows["gpu-gone"] and " UNREAD " in rows["gpu-unplanned"]
    assert "gpu-gone: unreachable: " in output and "  gpu-unplanned: " in output and "int3" in output
    assert " ABSENT " in rows["proxy"] and "  gateway of proxy: none is installed. Next: " in output
    assert "gateways are not well: proxy" in output
    # The table is what a person reads last, and not the result of a task.
    assert "seconds_left" not in output
    assert "0 of 3 hosts are well, ? USD per hour" in output
    found: dict[str, Any] = json.loads((state / "status.json").read_text("utf-8"))
    assert (found["kind"], found["ok"]) == ("status", False)
    assert [host["host"] for host in found["hosts"]] == ["gpu-failed", "gpu-gone", "gpu-unplanned"]
    [gateway] = found["gateways"]
    assert (gateway["host"], gateway["state"], gateway["ok"]) == ("proxy", "absent", False)
    [replica] = found["hosts"][0]["replicas"]
    assert (replica["state"], replica["drift"], replica["open"]) == ("failed", None, None)
