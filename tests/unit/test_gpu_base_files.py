"""What the role gpu_base writes to a host, and what it goes on without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles/gpu_base"


def limits(nr_open: int | None, **wanted: Any) -> list[str]:
    """The lines of the limits file on a host with that fs.nr_open, without comments."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["comment"] = lambda text: f"# {text}"
    template = environment.from_string((ROLE / "templates/limits.conf.j2").read_text("utf-8"))
    text = template.render(ansible_facts={"gpu_facts": {"nr_open": nr_open}}, gpu_base_limits=wanted)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(
    ("wanted", "nr_open", "written"),
    [
        (1048576, 1073741816, 1048576),
        (1048576, 524288, 524288),
        ("1048576", 524288, 524288),
        ("unlimited", 1048576, 1048576),
        (-1, 1048576, 1048576),
    ],
)
def test_no_limit_is_above_what_the_kernel_allows(wanted: Any, nr_open: int, written: int) -> None:
    """pam refuses every login, root's too, where setrlimit(2) refuses a line of the file."""
    assert limits(nr_open, memlock="unlimited", nofile=wanted) == [
        *("* - memlock unlimited", "root - memlock unlimited"),
        *(f"* - nofile {written}", f"root - nofile {written}"),
    ]


def test_a_kernel_that_does_not_say_what_it_allows_gets_no_limit_of_open_files() -> None:
    assert limits(None, memlock="unlimited", nofile=1048576) == ["* - memlock unlimited", "root - memlock unlimited"]


def test_a_host_whose_time_daemon_systemd_does_not_know_is_warned_about_and_not_failed() -> None:
    tasks = yaml.safe_load((ROLE / "tasks/time.yml").read_text("utf-8"))
    enable = next(task for task in tasks if "set-ntp" in str(task))
    assert enable["failed_when"] is False and enable["register"] == "__gpu_base_ntp_set"
    assert "__gpu_base_ntp_set" in str(tasks[-1]["vars"]), "the warning has the words of timedatectl"
