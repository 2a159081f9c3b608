"""The role driver goes on without apt sources that it does not need, and only without these."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import FilterModule

TASKS = yaml.safe_load((Path(__file__).parents[2] / "roles/driver/tasks/repositories.yml").read_text("utf-8"))
[UPDATE] = [task for task in TASKS if "rescue" in task]
OURS = [
    {"name": "cuda", "uris": "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/"},
    {"name": "toolkit", "uris": ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)"]},
]


def goes_on(message: str) -> bool:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters.update({**FilterModule().filters(), **environment.filters})
    known: dict[str, object] = {"driver_repositories": OURS, "ansible_failed_result": {"msg": message}}
    for name in ("__driver_needed", "__driver_others"):
        expression = UPDATE["vars"][name].removeprefix("{{").removesuffix("}}")
        known[name] = environment.compile_expression(expression, undefined_to_none=False)(**known)
        known[name] = list(known[name]) if name == "__driver_needed" else known[name]  # type: ignore[call-overload]
    return bool(known["__driver_others"])


GONE = "E:The repository 'http://ppa.example/gone noble Release' does not have a Release file."
CUDA = f"E:The repository '{OURS[0]['uris']}  InRelease' is not signed."
TOOLKIT = "E:The repository 'https://nvidia.github.io/libnvidia-container/stable/deb/amd64  InRelease' is not signed."


@pytest.mark.parametrize(
    ("message", "others"),
    [
        (GONE, True),
        (CUDA, False),
        (TOOLKIT, False),
        (f"{GONE}, {CUDA}", False),
        ("Failed to update apt cache: unknown reason", False),
        ("E:Malformed entry 1 in list file /etc/apt/sources.list.d/bad.list (Suite)", False),
    ],
)
def test_only_a_source_of_somebody_else_is_gone_on_without(message: str, others: bool) -> None:
    assert goes_on(message) is others


def test_each_outcome_has_its_task() -> None:
    assert [task["when"] for task in UPDATE["rescue"]] == ["__driver_others", "not __driver_others"]
