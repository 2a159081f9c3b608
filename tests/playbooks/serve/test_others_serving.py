"""Whether a host is taken out depends on the doors of the others: the role's tasks with a stand-in for doors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.test_preflight import ROOT

# Says what a file says of the door of this host; without one it does not answer.
DOOR = """
import json
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"state": {}, "host": {}})
states = json.loads(module.params["host"])
if states is None:
    module.fail_json("door: no answer")
module.exit_json(changed=False, replicas=[{"name": "engine-0", "state": state} for state in states])
"""
TASKS = ROOT / "roles/serve/tasks/others.yml"


def run(folder: Path, own: Any, others: dict[str, Any], minimum: int = 1) -> tuple[int, str]:
    """Exit status and output where ``own`` and ``others`` are the states that doors say; None does not answer."""
    (folder / "library").mkdir(exist_ok=True)
    (folder / "library/stand_in_door.py").write_text(DOOR, "utf-8")
    # Only the module's name differs.
    tasks = TASKS.read_text("utf-8").replace(
        "glm.fleet.door_drain:", "stand_in_door: {host: \"{{ hostvars[__serve_other | default('own')]['door'] }}\"}"
    )
    (folder / "others.yml").write_text(tasks, "utf-8")
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    # Where nothing listens.
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    hosts = {
        name: {**(away if says == "away" else local), "door": json.dumps(says)}
        for name, says in {"own": own, **others}.items()
    }
    variables = yaml.safe_load((ROOT / "roles/serve/vars/main.yml").read_text("utf-8"))
    play = {
        "hosts": "own",
        "gather_facts": False,
        "vars": {
            "serve_others": sorted(others),
            "serve_min_serving": minimum,
            "__serve_needed": variables["__serve_needed"],
        },
        "tasks": [{"ansible.builtin.include_tasks": "others.yml"}],
    }
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), "utf-8")
    (folder / "book.yml").write_text(yaml.safe_dump([play]), "utf-8")
    done = subprocess.run(
        ["ansible-playbook", str(folder / "book.yml"), "-i", str(folder / "inventory.yml")],
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LIBRARY": str(folder / "library"),
            "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("own", "others", "minimum"),
    [
        (["serving"], {"a": ["serving"], "b": ["down"]}, 1),
        # One that serves with one of its replicas counts.
        (["serving"], {"a": ["down", "serving"]}, 1),
        # There are no more of them.
        (["serving"], {"a": ["serving"]}, 5),
        # It serves nobody as it is.
        (["down"], {"a": ["down"]}, 1),
        (["draining"], {"a": None}, 1),
    ],
)
def test_a_host_is_taken_out(tmp_path: Path, own: Any, others: dict[str, Any], minimum: int) -> None:
    code, output = run(tmp_path, own, others, minimum)
    assert code == 0, output


@pytest.mark.parametrize(
    ("others", "minimum", "found"),
    [
        ({"a": ["down"], "b": ["draining"]}, 1, "none of 2"),
        # No answer is no good answer.
        ({"a": None, "b": "away"}, 1, "none of 2"),
        ({"a": ["serving"], "b": [], "c": ["down"]}, 2, "a of 3"),
    ],
)
def test_a_host_that_serves_stays_while_too_few_others_do(
    tmp_path: Path, others: dict[str, Any], minimum: int, found: str
) -> None:
    code, output = run(tmp_path, ["serving"], others, minimum)
    assert code != 0 and f"expected at least {minimum} of the other hosts to serve" in output, output
    assert f"found {found}" in output
