"""What keys.yml says in the end: of hosts that got the keys, of a check run, and of a CSV that is not the fleet's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.action import keys_report
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.actions.base import Failed
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import report

OWN = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DUE = {"changed": True, "running": True, "processes": [7]}
CURRENT = {**DUE, "changed": False}
ROW = {**dict.fromkeys(report.COUNTS, 1), "first_use": "2026-11-01T00:00:00Z", "last_use": "2026-11-02T00:00:00Z"}


class Report(keys_report.ActionModule):
    """The action after modules on hosts answered."""

    def __init__(self, state: Path, what: str, answers: dict[str, Any], check: bool = False) -> None:
        self._args = {"hosts": sorted(answers), "what": what, "state_dir": str(state), "api_key": OWN,
                      "api_key_file": str(state / "api_key"), "most_days": 365}  # fmt: skip
        name = keys_report.GIVEN if what == "push" else keys_report.USAGE
        self._task_vars = {"hostvars": {host: {name: answer} for host, answer in answers.items()}}
        self._task = SimpleNamespace(check_mode=check)
        self.lines: list[str] = []

    def _show(self, lines: Any) -> None:
        self.lines += lines


def test_a_check_run_says_who_would_get_the_keys_and_not_that_they_have_them(tmp_path: Path) -> None:
    made = Report(tmp_path, "push", {"h0": DUE, "h1": CURRENT, "h2": {**DUE, "running": False}}, check=True)
    assert made._outcome()["changed"] is True
    assert made.lines[0] == (
        "keys: check mode, nothing was changed: 2 of 3 hosts that answered would get the keys of the store as it is "
        "now: h0, h2"
    )
    # The same answers of a run that gave them.
    given = Report(tmp_path, "push", {"h0": DUE, "h1": CURRENT})
    given._outcome()
    assert given.lines == ["keys: 2 of 2 hosts have the keys, seen in 2 process(es) of 2 door(s)"]
    with pytest.raises(
        Failed, match=r"1 of 2 hosts would not take the keys: h1\. Next: read their errors above"
    ) as failed:
        Report(tmp_path, "push", {"h0": DUE, "h1": {"failed": True}}, check=True)._outcome()
    assert "still do" not in str(failed.value)


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (b"\x00\xff\xfe", "no text"),
        (b"date,amount\n2026-11-01,12\n", "a table of date, amount"),
        (b"something else\n", "a table of something else"),
        (b"host,key,requests,cached_tokens\nh0,a,1,5\n", "a table of host, key, requests, cached_tokens"),
        (b"host,key,requests\nh0,a,many\n", "another thing in line 2"),
        (None, "Is a directory"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_csv_that_is_no_usage_of_keys_is_left_alone(
    tmp_path: Path, there: bytes | None, found: str, check: bool
) -> None:
    path = tmp_path / "usage/2026-11.csv"
    if there is None:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(there)
    answers = {"h0": {"months": {"2026-10": {"a": ROW}, "2026-11": {"a": ROW}}}}
    made = Report(tmp_path, "list", answers, check)
    with pytest.raises(
        Unmet,
        match=rf"expected (to read )?the usage of keys in {path}, found {found}\. Next: correct the file or move",
    ):
        made._outcome()
    assert there is None or path.read_bytes() == there
    assert any(line.startswith("fleet ") for line in made.lines), "the table needs no file"


def test_the_csv_of_a_month_goes_on_and_an_empty_one_begins(tmp_path: Path) -> None:
    path = tmp_path / "usage/2026-11.csv"
    path.parent.mkdir()
    path.touch()
    answers = {"h0": {"months": {"2026-11": {"a": ROW}}}}
    assert Report(tmp_path, "list", answers)._outcome()["files"] == [str(path)]
    first = path.stat()
    assert path.read_text("utf-8").splitlines()[1].startswith("h0,a,1,1,1,")
    Report(tmp_path, "list", answers)._outcome()
    assert path.stat().st_ino == first.st_ino, "written again although nothing changed"
