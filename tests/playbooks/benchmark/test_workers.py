"""Which hosts of a fleet the benchmark's report leaves out."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
PLAY = """
- hosts: head,worker
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        glm_plans: [{node: {rank: "{{ 0 if inventory_hostname == 'head' else 1 }}"}}]
        cacheable: true
- hosts: head
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "left out: {{ __benchmark_workers | join(' ') }}."
"""


def test_a_host_that_dropped_out_before_its_plan_does_not_end_the_report(tmp_path: Path) -> None:
    """With ansible-core 2.19 and newer the report failed with: object of type 'dict' has no attribute 'glm_plan'."""
    *_plays, report = yaml.safe_load((ROOT / "playbooks" / "benchmark.yml").read_text(encoding="utf-8"))
    [task] = report["tasks"]
    given = {**task["vars"], "__benchmark_hosts": ["head", "worker", "dropped", "of-another-inventory"]}
    (tmp_path / "vars.yml").write_text(yaml.safe_dump(given), encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    command = ["ansible-playbook", "-i", "head,worker,dropped,", "-c", "local", "-e", "@vars.yml", "play.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "left out: worker." in done.stdout, done.stdout + done.stderr
