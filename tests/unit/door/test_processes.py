"""Which processes a running HAProxy has, also while it is reloaded, and that none is not what does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import master
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Absent, Master, Process
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult

GONE = Unmet("HAProxy to answer", "nothing", "restart it")


class Scripted(Master):
    """Has these processes, one look after another, the last for ever."""

    def __init__(self, *looks: Sequence[int]) -> None:
        super().__init__(Path("/nowhere"), patience=0)
        self._looks = [[Process(pid, old=bool(place)) for place, pid in enumerate(look)] for look in looks]

    def processes(self) -> list[Process]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


@pytest.mark.parametrize(
    ("rc", "said", "down", "none"),
    [
        (0, "inactive\n", master.DOWN, True),
        (0, "failed\n", master.DOWN, True),
        (0, "activating\n", master.DOWN, True),
        (0, "activating\n", ("inactive", "failed"), False),
        (0, "active\n", master.DOWN, False),
        (0, "deactivating\n", master.DOWN, False),
        (0, "", master.DOWN, False),
        (1, "inactive\n", master.DOWN, False),
    ],
)
def test_nobody_listens_only_where_systemd_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rc: int, said: str, down: Sequence[str], none: bool
) -> None:
    asked: list[str] = []

    def run(command: Sequence[str]) -> CommandResult:
        asked.append(command[-1])
        return CommandResult(tuple(command), rc, said, "")

    monkeypatch.setattr(master.commands, "run", run)
    there = Master(tmp_path / "none.sock", patience=0, unit="glm-gateway.service")
    if none:
        assert there.running(down) == []
    else:
        with pytest.raises(Absent, match=r"restart glm-gateway\.service"):
            there.running(down)
    assert asked == ["glm-gateway.service"]


def test_who_does_not_answer_is_there_whatever_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Master):
        def processes(self) -> list[Process]:
            raise GONE

    monkeypatch.setattr(master.commands, "run", lambda command: CommandResult(tuple(command), 0, "inactive\n", ""))
    with pytest.raises(Unmet, match="HAProxy to answer"):
        Silent(Path("/nowhere")).running()


def test_processes_that_reloads_start_meanwhile_are_done_too() -> None:
    there, done = Scripted([1], [2, 1], [3, 2, 1]), list[int]()
    found = there.in_each(lambda process: done.append(process.pid), there.processes)
    assert (done, [process.pid for process in found]) == ([1, 2, 3], [3, 2, 1])


def test_reloads_without_end_are_an_error() -> None:
    there, done = Scripted(*([pid] for pid in range(1, 20))), list[int]()
    with pytest.raises(Unmet, match="the processes of HAProxy to stay, found 5 of them one after another"):
        there.in_each(lambda process: done.append(process.pid), there.processes)
    assert done == [1, 2, 3, 4, 5]


def test_one_that_ended_meanwhile_needs_nothing_and_one_that_is_there_has_to_answer() -> None:
    def do(process: Process) -> None:
        if process.pid == 1:
            raise GONE

    there = Scripted([2, 1], [2])
    assert [process.pid for process in there.in_each(do, there.processes)] == [2]
    there = Scripted([2, 1])
    with pytest.raises(Unmet, match="HAProxy to answer"):
        there.in_each(do, there.processes)


def test_where_none_runs_nothing_is_done() -> None:
    there = Scripted([1])
    assert there.in_each(lambda _process: pytest.fail("there is none"), list) == []


def test_open_requests_are_those_of_backends() -> None:
    rows = [
        {"pxname": "engine-0", "svname": "engine", "scur": "3"},
        {"pxname": "engine-0", "svname": "BACKEND", "scur": "4"},
        {"pxname": "engine-0-other", "svname": "BACKEND", "scur": "1"},
        {"pxname": "engine-0-other", "svname": "BACKEND", "scur": ""},
        {"pxname": "engine-1", "svname": "BACKEND", "scur": "9"},
    ]
    assert master.open_in(rows, ["engine-0", "engine-0-other"]) == 5
    assert master.open_in(rows, ["engine-7"]) == 0
