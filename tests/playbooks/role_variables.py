"""What a role's variables and templates come to on a host, without a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def show(folder: Path, role: str, cases: dict[str, dict[str, Any]], shown: Any) -> dict[str, Any]:
    """``shown``, templated with the variables of each case over the role's, in one run of one play.

    ``folder`` is scratch space.
    """
    home = ROOT / "roles" / role
    (folder / "templates").symlink_to(home / "templates")
    tasks = [
        {
            "name": name,
            "ansible.builtin.copy": {
                "content": "{{ shown | to_json }}",
                "dest": f"{folder}/{name}.json",
                "mode": "0600",
            },
            "vars": {**case, "shown": shown},
        }
        for name, case in cases.items()
    ]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "vars_files": [str(home / "defaults/main.yml"), str(home / "vars/main.yml")],
        "tasks": tasks,
    }
    (folder / "play.yml").write_text(json.dumps([play]), "utf-8")
    environment = {**os.environ, "ANSIBLE_INJECT_FACT_VARS": "false", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = ["ansible-playbook", "-i", "localhost,", str(folder / "play.yml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in cases}
