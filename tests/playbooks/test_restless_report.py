"""The exit status of a run over a fleet in which an engine ends again and again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import finding
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import verdict
from tests.unit.serve.plans import RUNS, plan

ROOT = Path(__file__).parents[2]
BOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - glm.fleet.fleet_report:
        hosts: [gpu-1]
        state_dir: "{{ glm_state_dir }}"
"""


def test_a_run_fails_when_an_engine_ends_again_and_again(tmp_path: Path) -> None:
    ended = {
        "count": 4,
        "recent": 4,
        "since": 0.0,
        "last_at": 1_795_953_600.0,
        "last_cause": "it was killed by SIGKILL",
    }
    good = finding.judged("verify", "chat", True, "text", "text", seconds=0.5)
    endpoint = {"url": "http://10.0.0.5:8000/v1", "model": "glm-5.1-fp8"}
    report = verdict.host_report("gpu-1", [good], endpoint, plan(), {**RUNS, "ended": ended})
    book, inventory = tmp_path / "book.yml", tmp_path / "hosts.json"
    book.write_text(BOOK, encoding="utf-8")
    hosts = {"gpu-1": {"__verify_result": {"results": [{"report": report}]}}}
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    done = subprocess.run(
        ["ansible-playbook", str(book), "-i", str(inventory), "-e", f"glm_state_dir={tmp_path}"],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, output
    assert "gpu-1: restarts of the engine by itself: 4 in the month that is kept, 4 in the last day" in output
    assert "every host is verified, but engines end again and again on gpu-1" in output
    kept = json.loads((tmp_path / "reports/fleet.json").read_text("utf-8"))
    assert (kept["ok"], kept["hosts"][0]["ok"], kept["hosts"][0]["running"]["restarts"]["recent"]) == (False, True, 4)
