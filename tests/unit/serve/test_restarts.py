"""What a host keeps of engines that ended by themselves, and how long their next start waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import restarts, status
from ansible_collections.glm.fleet.plugins.module_utils.serving.causes import Rules


def counted(path: Path, automatic: int, now: float | None = None) -> dict[str, Any]:
    found = restarts.described(path, automatic, now)
    assert found is not None
    return found


def served(*seconds: float) -> list[dict[str, Any]]:
    return [{"served": one} for one in seconds]


@pytest.mark.parametrize(
    ("ends", "pause"),
    [
        (served(), 0),
        (served(5), 0),
        (served(5, 5), 0),
        (served(5, 5, 5), 30),
        (served(5, 5, 5, 5), 60),
        (served(*[5] * 30), 300),
        # A good hour begins a new count.
        (served(5, 5, 5, 3600, 5), 0),
        # What never answered is limited by systemd.
        (served(5, 5, 5, 0), 0),
    ],
)
def test_pauses_grow_and_end_with_a_good_hour(ends: list[dict[str, Any]], pause: int) -> None:
    assert restarts.pause(ends) == pause


def test_a_month_and_a_hundred_are_kept(tmp_path: Path) -> None:
    path = restarts.file_of("glm-serve-0.service", tmp_path / "kept")
    assert counted(path, 0)["count"] == 0
    restarts.add(path, {"served": 1.0}, now=1000)
    for moment in range(150):
        restarts.add(path, {"served": 2.0}, now=restarts.KEPT_SECONDS + 2000 + moment)
    kept = restarts.read(path) or {}
    assert [len(kept["ends"]), {end["served"] for end in kept["ends"]}] == [100, {2.0}]
    assert kept["since"] == 2149


BROKEN = ["{", "[]", '{"since": 1}', '{"since": 1, "ends": [{"at": "noon"}]}', '{"since": 1, "ends": [7]}', ""]


@pytest.mark.parametrize("text", BROKEN)
def test_a_record_that_cannot_be_read_is_no_engine_that_never_ended(tmp_path: Path, text: str) -> None:
    path = tmp_path / "glm-serve-0.json"
    path.write_text(text, encoding="utf-8")
    assert restarts.read(path) is None and restarts.described(path, 0) is None
    assert "not known" in restarts.unknown({"ended": restarts.described(path, 0)})
    restarts.add(path, {"served": 0.0, "code": "exited", "status": "1", "result": "exit-code"}, now=7)
    assert restarts.described(path, 1, now=8) == {
        "count": 1, "recent": 1, "since": 7, "last_at": 7,
        "last_cause": "it ended with status 1 before its first answer",
    }  # fmt: skip
    assert restarts.unknown({"ended": restarts.described(path, 1, now=8)}) == ""


def test_a_record_that_is_lost_is_no_engine_that_never_ended(tmp_path: Path) -> None:
    path = restarts.file_of("glm-serve-0.service", tmp_path)
    assert restarts.described(path, 0) == {"count": 0, "recent": 0, "since": None, "last_at": None, "last_cause": ""}
    assert restarts.described(path, 3) is None, "systemd has started it three times again"
    path.mkdir()
    assert restarts.described(path, 0) is None


@pytest.mark.parametrize(
    ("hours_ago", "automatic", "recent"),
    [
        ([1, 2, 3], 3, 3),
        ([1, 2, 30], 3, 2),
        # Somebody started it since: what a deploy put in its place has not ended.
        ([1, 2, 3], 0, 0),
        ([1, 2, 3], 1, 1),
    ],
)
def test_what_counts_is_the_last_day_of_what_runs_now(
    tmp_path: Path, hours_ago: list[int], automatic: int, recent: int
) -> None:
    path, now = tmp_path / "glm-serve-0.json", 1_000_000.0
    for hours in sorted(hours_ago, reverse=True):
        restarts.add(path, {"served": 60.0, "code": "killed", "status": "KILL"}, now=now - hours * 3600)
    found = counted(path, automatic, now)
    assert (found["count"], found["recent"]) == (3, recent)
    said = restarts.again_and_again(found)
    assert said == ("" if recent < 3 else "the engine ended 3 times by itself in a day, the last time: "
                    "it was killed by SIGKILL after it had served for 60 s")  # fmt: skip


def test_what_ended_since_somebody_started_it_counts_although_systemd_forgot_the_number(tmp_path: Path) -> None:
    path, now = tmp_path / "glm-serve-0.json", 1_000_000.0
    crash = {"served": 60.0, "code": "killed", "status": "KILL"}
    restarts.add(path, crash, now=now - 500)
    restarts.begin(path, now=now - 400)
    assert counted(path, 0, now)["recent"] == 0
    for seconds in (300, 200, 100):
        restarts.add(path, crash, now=now - seconds)
        restarts.add(path, {**crash, "code": "exited", "status": "75"}, now=now - seconds + 1)
    found = counted(path, 0, now)
    assert (found["count"], found["recent"], restarts.again_and_again(found) != "") == (7, 3, True)
    restarts.begin(path, now=now - 50)
    assert counted(path, 0, now)["recent"] == 0 and counted(path, 0, now)["since"] == now - 500


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"code": "killed", "status": "KILL", "served": 61.2, "result": "signal"},
         "it was killed by SIGKILL after it had served for 61 s"),
        ({"code": "exited", "status": "137", "served": 0.0, "result": "oom-kill"},
         "it ended with status 137, because memory ran out before its first answer"),
        ({}, "it ended before its first answer"),
    ],
)  # fmt: skip
def test_an_end_in_words(end: dict[str, Any], words: str) -> None:
    assert restarts.words(end) == words


def test_while_an_engine_is_stopped_nothing_of_its_start_is_told() -> None:
    """The journal and the times are those of the start before: they look like a start that hangs."""
    asked: list[list[str]] = []

    def run(argv: Any) -> CommandResult:
        asked.append(list(argv))
        rows = {
            "ActiveState": "deactivating", "SubState": "stop", "Result": "success", "InvocationID": "abc", "Job": "7",
            "InactiveExitTimestampMonotonic": "1000000", "StateChangeTimestampMonotonic": "99000000000000000",
        }  # fmt: skip
        return CommandResult(tuple(argv), 0, "".join(f"{key}={value}\n" for key, value in rows.items()), "")

    found = status.describe(run, "glm-serve-0.service", [], Rules())
    assert (found["phase"], found["elapsed_seconds"], found["log"]) == ("stopping", 0, [])
    assert [argv[0] for argv in asked] == ["systemctl"], "no journal was read"
