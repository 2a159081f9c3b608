"""The role driver reads no fact that it did not gather, and reboots nobody who serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import FilterModule

TASKS = yaml.safe_load((Path(__file__).parents[2] / "roles/driver/tasks/load.yml").read_text("utf-8"))
[SERVES] = [task for task in TASKS if "host that serves" in task["name"]]
POD = {"name": "Kubernetes", "running": True, "signs": []}


def refused(facts: dict[str, Any], *, answers: bool) -> bool:
    """Whether the task refuses a host; its message is put together in any case, as Ansible does it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters.update({**FilterModule().filters(), **environment.filters})
    # Ansible makes a list of what jinja2 gives out one by one.
    environment.filters["length"] = lambda rows: len(list(rows))
    known = {
        **{"ansible_facts": {"gpu_facts": facts}, "driver_answers": answers},
        **{"inventory_hostname": "gpu-3", "driver_phase": "rocm"},
    }

    def holds(condition: str) -> bool:
        return bool(environment.compile_expression(condition, undefined_to_none=False)(**known))

    if not holds(SERVES["when"]):
        return False
    asked = SERVES["ansible.builtin.assert"]
    assert environment.from_string(asked["fail_msg"]).render(**known).startswith("gpu-3, rocm: expected no running")
    return not all(holds(condition) for condition in asked["that"])


def test_a_driver_that_answers_needs_no_facts_of_containers() -> None:
    """A fresh AMD host: nothing has read Docker's state, and nothing is going to reboot."""
    assert not refused({}, answers=True)


@pytest.mark.parametrize(
    ("containers", "neighbours", "serves"),
    [
        ([], [], False),
        (["serve-0"], [], True),
        (None, [], True),
        ([], [POD], True),
        ([], [{**POD, "running": False}], False),
    ],
)
def test_no_host_that_serves_is_rebooted(containers: Any, neighbours: list[Any], serves: bool) -> None:
    assert refused({"docker": {"containers": containers}, "neighbours": neighbours}, answers=False) is serves
