"""What the filters import is there before Ansible forks its workers.

Ansible compiles a collection's code in each process that imports it, and each task on a host has a process of its own.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
UTILS = "ansible_collections.glm.fleet.plugins.plugin_utils."
FILTER = """
import sys


class FilterModule:
    def filters(self):
        return {"absent": lambda names: [name for name in names if name not in sys.modules]}
"""
BOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "absent: {{ wanted | absent }}"
"""


def imported_by_filters() -> set[str]:
    wanted = set()
    for path in (ROOT / "plugins/filter").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(UTILS):
                topic = (node.module or "").removeprefix(UTILS)
                wanted |= {UTILS + (topic if "." in topic else f"{topic}.{alias.name}") for alias in node.names}
    return wanted


def test_a_worker_has_what_filters_import(tmp_path: Path) -> None:
    wanted = sorted(imported_by_filters())
    assert len(wanted) > 5
    (tmp_path / "filter_plugins").mkdir()
    (tmp_path / "filter_plugins/absent.py").write_text(FILTER, "utf-8")
    (tmp_path / "book.yml").write_text(BOOK, "utf-8")
    done = subprocess.run(
        ["ansible-playbook", str(tmp_path / "book.yml"), "-e", json.dumps({"wanted": wanted})],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "absent: []" in done.stdout, done.stdout + done.stderr
