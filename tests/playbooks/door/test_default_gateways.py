"""Which hosts run a gateway where nobody says, as each host and the controller see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serve.plans import listening, plan

pytestmark = pytest.mark.one_core
ROOT = Path(__file__).parents[3]
# What is set, and who runs a gateway then.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing": ({}, ["h1", "h2"]),
    "none": ({"glm_gateways": 0}, []),
    "one": ({"glm_gateways": "1"}, ["h1"]),
    "hosts": ({"glm_gateway_hosts": ["h3"]}, ["h3"]),
}


def test_every_host_and_the_controller_name_the_same_and_what_is_set_counts(tmp_path: Path) -> None:
    plans = {f"h{number}": [plan(listen=listening(f"10.0.0.{number}", 8000, 18000))] for number in (1, 2, 3)}
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {host: {**here, "planned": planned} for host, planned in plans.items()}
    (tmp_path / "hosts.json").write_text(json.dumps({"glm_fleet": {"hosts": hosts}}), "utf-8")
    show = [
        {
            "ansible.builtin.copy": {
                "content": "{{ lookup('glm.fleet.setting', 'glm_gateway_hosts') }}",
                "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}.{case}",
            },
            "vars": variables,
        }
        for case, (variables, _gateways) in CASES.items()
    ]
    keep = {"ansible.builtin.set_fact": {"glm_plans": "{{ planned }}", "cacheable": True}}
    common = {"gather_facts": False, "connection": "local"}
    plays = [
        {"hosts": "glm_fleet", **common, "tasks": [keep]},
        {"hosts": "glm_fleet", **common, "tasks": show},
        # As the report has it.
        {
            "hosts": "localhost",
            **common,
            "roles": [{"role": "glm.fleet.plan", "plan_tasks": "none"}],
            "tasks": show,
        },
    ]
    (tmp_path / "play.yml").write_text(json.dumps(plays), "utf-8")
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.yml")]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for case, (_variables, gateways) in CASES.items():
        found = {who: json.loads((tmp_path / f"{who}.{case}").read_text("utf-8")) for who in (*hosts, "localhost")}
        assert found == dict.fromkeys((*hosts, "localhost"), gateways), case
