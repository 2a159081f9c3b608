"""Whether a host is taken out depends on the doors of the others: the role's tasks with a stand-in for doors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
replicas = [{"name": f"engine-{number}", "state": state} for number, state in enumerate(states or [])]
module.exit_json(changed=False, door=states != 0, replicas=replicas)
"""
VARIABLES = [
    f"__serve_{name}"
    for name in ("others", "sample", "doors", "serving", "unread", "unread_why", "unknown", "doorless", "needed")
]
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
# Where nothing listens.
AWAY = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
TASKS = ROOT / "roles/serve/tasks/others.yml"


STAYS = "expected at least {} of the other hosts to serve while this one restarts (glm_min_serving), found {}"
# What the door of the host says, those of the others, how many have to serve, and why the host is not taken out. None
# does not answer, 0 has no door, and one that is away cannot be reached.
CASES: dict[str, tuple[Any, dict[str, Any], int, str]] = {
    "one-serves": (["serving"], {"a": ["serving"], "b": ["down"]}, 1, ""),
    "with-one-of-two": (["serving"], {"a": ["down", "serving"]}, 1, ""),
    "there-are-no-more": (["serving"], {"a": ["serving"]}, 5, ""),
    "nothing-was-ever-served-there": (["serving"], {"new": 0}, 1, ""),
    "not-among-the-first": (["serving"], {"a": ["down"], "b": ["down"], "c": ["down"], "d": ["serving"]}, 1, ""),
    "its-other-replica-stays": (["down", "serving"], {"a": ["down"]}, 1, ""),
    "it-serves-nobody": (["down"], {"a": ["down"]}, 1, ""),
    "it-drains": (["draining"], {"a": None}, 1, ""),
    "none-serves": (
        ["serving"],
        {"a": ["down"], "b": ["draining"]},
        1,
        STAYS.format(1, "none of 2. Next: repair the others"),
    ),
    "its-door-does-not-run": (["serving"], {"a": []}, 1, STAYS.format(1, "none of 1")),
    # Of hosts that cannot be read nobody says that they do not serve.
    "none-answers": (
        ["serving"],
        {"a": None, "b": "away", "c": ["down"]},
        1,
        STAYS.format(
            1,
            "none of 3; not known: none-answers-a: door: no answer; none-answers-b: ssh: connect to host "
            "127.0.0.1 port 1: Connection refused. Next: see that this controller reaches the hosts that are not "
            "known; deploy.yml --check without --limit pins host keys that it never saw. Else repair the others first",
        ),
    ),
    "too-few": (["serving"], {"a": ["serving"], "b": ["down"], "c": ["down"]}, 2, STAYS.format(2, "a of 3")),
}


def test_a_host_that_serves_is_taken_out_only_while_enough_others_serve(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/stand_in_door.py").write_text(DOOR, "utf-8")
    # Only the module's name differs.
    tasks = TASKS.read_text("utf-8").replace(
        "glm.fleet.door_drain:",
        "stand_in_door: {host: \"{{ hostvars[__serve_other | default(serve_head)]['door'] }}\"}",
    )
    (tmp_path / "others.yml").write_text(tasks, "utf-8")
    variables = yaml.safe_load((ROOT / "roles/serve/vars/main.yml").read_text("utf-8"))
    hosts: dict[str, Any] = {"bystander": LOCAL}
    plays = []
    for name, (own, others, minimum, _why) in CASES.items():
        hosts[name] = {**LOCAL, "door": json.dumps(own)}
        for other, says in others.items():
            hosts[f"{name}-{other}"] = {**(AWAY if says == "away" else LOCAL), "door": json.dumps(says)}
        given = {
            "serve_fleet": [name, *(f"{name}-{other}" for other in others)],
            "serve_head": name,
            "serve_min_serving": minimum,
            "__serve_restarts": [0],
        }
        plays.append(
            {
                # A play of which all hosts fail is the last.
                "hosts": [name, "bystander"],
                "gather_facts": False,
                "vars": {**given, **{key: text for key, text in variables.items() if key in VARIABLES}},
                "tasks": [{"ansible.builtin.include_tasks": "others.yml", "when": "inventory_hostname != 'bystander'"}],
            }
        )
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), "utf-8")
    (tmp_path / "book.yml").write_text(yaml.safe_dump(plays), "utf-8")
    done = subprocess.run(
        ["ansible-playbook", str(tmp_path / "book.yml"), "-i", str(tmp_path / "inventory.yml")],
        env={
            **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LIBRARY": str(tmp_path / "library"),
            "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400", "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = {
        name: f"{name}, serve: {why.replace('found a', f'found {name}-a')}"
        for name, (*_rest, why) in CASES.items()
        if why
    }
    missing = [name for name, text in said.items() if text not in " ".join(done.stdout.split())]
    stays = {name for name in CASES if re.search(rf"^{name} .*failed=1", done.stdout, re.M)}
    assert (missing, stays) == ([], set(said)), done.stdout + done.stderr
