"""What the filters import is there before Ansible forks its workers."""

from __future__ import annotations

import ast
from pathlib import Path

from ansible_collections.glm.fleet.plugins.action import serving_plan

FILTERS = Path(__file__).parents[3] / "plugins/filter"


def test_workers_have_what_filters_import() -> None:
    """A collection's code is compiled in each process that imports it: a tenth of a second for every task."""
    wanted = set()
    for path in FILTERS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{serving_plan.PLUGIN_UTILS}."):
                topic = (node.module or "").removeprefix(f"{serving_plan.PLUGIN_UTILS}.")
                wanted |= {topic if "." in topic else f"{topic}.{alias.name}" for alias in node.names}
    assert wanted == set(serving_plan.PRELOADED)
