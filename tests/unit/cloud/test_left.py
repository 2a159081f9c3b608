"""Which instances a run left behind, and which are looked after."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.callback.fleet_give_back import CallbackModule
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, run_alive
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import left

AT = "2026-11-29T07:30:00Z"
NOW = ledger.seconds_of("2026-11-29T09:00:00Z")
DEAD = "0123456789ab-77-88"
BLUE = left.Place("lambda", "blue")


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ledger.Ledger:
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path))
    return ledger.Ledger("lambda", "blue")


def write(
    book: ledger.Ledger, kind: ledger.Kind, name: str, identifier: str = "", run: str = DEAD, **more: Any
) -> None:
    ids = [identifier] if identifier else []
    given: dict[str, Any] = {"type": "gpu_8x", "region": "east", "usd_per_hour": 53.52, "launch": f"{name}@", **more}
    book.append(ledger.event(kind, fleet="blue", account="a", run=run, at=AT, names=[name], ids=ids, **given))


def left_now() -> dict[str, list[str]]:
    return {
        place.fleet: [life.name for life in lives] for place, lives in left.of_dead_runs(left.read(pytest.fail)).items()
    }


def test_what_a_dead_run_launched_is_left_until_a_run_keeps_it_or_it_is_gone(book: ledger.Ledger) -> None:
    for number in range(1, 6):
        write(book, "launched", f"n{number}", f"i{number}")
    write(book, "asked", "n6")
    write(book, "unknown", "n7")
    write(book, "refused", "n8")
    write(book, "launched", "mine", "i9", run=run_alive.run_of(os.getpid()))
    write(book, "launched", "by-hand", "i10", run="")
    assert left_now() == {"blue": ["n1", "n2", "n3", "n4", "n5", "n6", "n7"]}
    left.keep(left.read(pytest.fail), {"i1", "i9", "of-others"}, DEAD)
    write(book, "gone", "n2", "i2")
    write(book, "ending", "n3", "i3")
    write(book, "ending", "n4", "i4", why=ledger.GOING)
    assert left_now() == {"blue": ["n3", "n5", "n6", "n7"]}
    assert sorted(one["ids"][0] for one in book.read() if one["event"] == "kept") == ["i1", "i9"]
    left.keep(left.read(pytest.fail), {"i1"}, DEAD)
    assert sum(one["event"] == "kept" for one in book.read()) == 2, "kept once"
    write(book, "ending", "n1", "i1")
    assert "n1" in left_now()["blue"], "whoever ended it did not see it through"


def test_the_sentences_name_ids_prices_and_the_command(book: ledger.Ledger) -> None:
    write(book, "launched", "n1", "i1")
    write(book, "asked", "n2")
    lives = left.of_run(left.read(pytest.fail), DEAD)[BLUE]
    each = (
        "n1 (i1, gpu_8x in east), at 53.52 USD per hour, at most 80.28 USD so far; n2 (asked for 2026-11-29T07:30:00Z, "
        "gpu_8x in east), at 53.52 USD per hour, at most 80.28 USD so far: whether it was made is not known; together "
        "107.04 USD per hour"
    )
    command = "ansible-playbook terminate.yml -i {} -e glm_fleet_name=blue"
    assert left.at_the_end(lives, BLUE, NOW, "lambda", None) == (
        f"fleet blue: this run leaves {each}. Next: run again, which counts them, or terminate them: "
        f"{command.format('lambda')}."
    )
    assert "up to 24 hours, and logs to /log." in left.at_the_end(lives, BLUE, NOW, "lambda", "/log")
    assert left.at_the_start(lives, BLUE, NOW) == (
        f"fleet blue: a run that did not come to its end left, as far as its ledger knows, {each}. Next: launch again, "
        f"which counts them, or terminate them: {command.format('<its inventory>')}."
    )


def test_what_a_run_asked_to_end_is_not_what_it_leaves_running(book: ledger.Ledger) -> None:
    for number in range(1, 4):
        write(book, "launched", f"n{number}", f"i{number}")
    write(book, "ending", "n1", "i1", why="scaled")
    write(book, "ending", "n2", "i2", why=ledger.GOING)
    write(book, "ending", "n3", "i3", run="another", why="failed")
    left.keep(left.read(pytest.fail), {"i1", "i2", "i3"}, DEAD)
    assert [one["ids"] for one in book.read() if one["event"] == "kept"] == [["i3"]], "it was counted after all"
    write(book, "kept", "n2", "i2", why="by an earlier version")
    assert {life.id: life.why for life in ledger.open_of(book.read())}["i2"] == ledger.GOING


def test_a_time_that_was_extended_is_not_the_end_of_a_run(book: ledger.Ledger) -> None:
    write(book, "launched", "n1", "i1")
    write(book, "kept", "n1", "i1", expires="2026-11-30T00:00:00Z")
    assert left_now() == {"blue": ["n1"]}


def test_where_no_playbook_ends_it_the_next_step_is_another(book: ledger.Ledger) -> None:
    gmi = ledger.Ledger("gmi", "blue")
    write(gmi, "launched", "glm-blue-1", "c1")
    write(book, "launched", "n1", "i1")
    found = left.of_dead_runs(left.read(pytest.fail))
    assert {place: [life.id for life in lives] for place, lives in found.items()} == {
        left.Place("gmi", "blue"): ["c1"], BLUE: ["i1"],
    }  # fmt: skip
    for said in (
        left.at_the_start(found["gmi", "blue"], left.Place("gmi", "blue"), NOW),
        left.at_the_end(found["gmi", "blue"], left.Place("gmi", "blue"), NOW, "gmi", "/log"),
    ):
        assert (
            "glm.fleet.gmi_container with state absent" in said and "terminate.yml" not in said and "/log" not in said
        )


def test_a_run_that_came_to_its_end_keeps_what_it_made_in_any_cloud(book: ledger.Ledger) -> None:
    gmi, callback = ledger.Ledger("gmi", "blue"), CallbackModule()
    for name in ("c1", "c1-ip"):
        write(gmi, "launched", name, name, run=callback._run)
    task = SimpleNamespace(action="glm.fleet.gmi_container", args={})
    values = {"container": {"id": "c1"}, "ids": ["c1", "c1-ip"]}
    callback.v2_runner_on_ok(SimpleNamespace(task=task, result=values, host=SimpleNamespace(vars={})))
    callback.v2_playbook_on_stats(SimpleNamespace(failures={}, dark={}))
    assert [one["ids"] for one in gmi.read() if one["event"] == "kept"] == [["c1"], ["c1-ip"]]


def test_the_start_says_that_a_process_is_at_work(book: ledger.Ledger) -> None:
    write(book, "launched", "n1", "i1")
    write(book, "ending", "n1", "i1", run=run_alive.run_of(os.getpid()), why="the run that launched it failed")
    lives = left.of_dead_runs(left.read(pytest.fail))[BLUE]
    said = left.at_the_start(lives, BLUE, NOW)
    assert "Next: wait: a second process of that run is terminating them" in said and "launch again" not in said


def test_the_guard_is_told_each_host_that_serves_once() -> None:
    callback, said = CallbackModule(), list[dict[str, Any]]()
    callback._guard = SimpleNamespace(send=lambda **more: said.append(more))  # type: ignore[assignment]
    task = SimpleNamespace(action="glm.fleet.endpoint_check", args={})
    for identifier in ("i1", "i2", "i1"):
        host = SimpleNamespace(vars={"glm_host_id": identifier})
        callback.v2_runner_on_ok(SimpleNamespace(task=task, host=host, result={}))
    assert said == [{"served": ["i1"]}, {"served": ["i2"]}]


@pytest.mark.parametrize(("state", "counted"), [("present", {"i1"}), ("absent", set()), (None, {"i1"})])
def test_a_run_counts_what_it_launched_and_not_what_it_terminated(state: str | None, counted: set[str]) -> None:
    task = SimpleNamespace(action="glm.fleet.lambda_instance", args={} if state is None else {"state": state})
    callback = CallbackModule()
    callback._count(SimpleNamespace(task=task, result={"instances": [{"id": "i1"}]}))
    assert callback._counted == counted


def test_a_ledger_that_cannot_be_read_is_said(book: ledger.Ledger) -> None:
    book.path.mkdir(parents=True)
    said: list[str] = []
    assert left.read(said.append) == [] and "lambda-blue.jsonl" in said[0]
