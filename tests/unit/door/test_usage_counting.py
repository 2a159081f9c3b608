"""Usage from journal lines: what is counted as what, each line once, whatever is interrupted when."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import usage
from ansible_collections.glm.fleet.plugins.modules import door_usage

NOVEMBER, DECEMBER = 1795953599, 1796083200


def line(key: str = "team-a", status: int = 200, generates: str = "1", **more: Any) -> str:
    """A line as the door writes it."""
    fields = {"limit": "-", "prompt": "-", "completion": "-", **more}
    estimated = f" estimated={fields['estimated']}" if "estimated" in fields else ""
    return (
        f"10.0.0.9 key={key} method=POST route=/v1/chat/completions to=engine-0 status={status} limit={fields['limit']}"
        f" generates={generates} prompt={fields['prompt']} completion={fields['completion']}{estimated}"
        " first=0/0/0/5 all=9 bytes=10/20 end=--"
    )


def entries(*messages: Any, second: int = NOVEMBER, first: int = 0) -> list[dict[str, Any]]:
    """Lines as journalctl gives them, with places in the journal from ``first`` on."""
    return [
        {"__CURSOR": f"c{number}", "__REALTIME_TIMESTAMP": f"{second}999999", "MESSAGE": message}
        for number, message in enumerate(messages, first)
    ]


def counted(*messages: Any) -> dict[str, Any]:
    state = usage.empty()
    usage.count(state, entries(*messages))
    months: dict[str, Any] = state["months"]
    return months


def row(**more: Any) -> dict[str, Any]:
    used = {"first_use": "2026-11-29T11:59:59Z", "last_use": "2026-11-29T11:59:59Z"}
    return {**dict.fromkeys(usage.COLUMNS, 0), **used, **more}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (line(prompt=11, completion=7), {"prompt_tokens": 11, "completion_tokens": 7}),
        (line(), {"uncounted": 1}),
        (line(generates="-"), {}),
        (line(status=400), {}),
        (line(status=-1), {}),
        (line(status=429, limit="parallel", generates="-"), {"refused": 1}),
        (line(prompt=11), {"uncounted": 1}),
        (line(prompt=11, completion=7, estimated="-/-"), {"prompt_tokens": 11, "completion_tokens": 7}),
        (line(estimated="-/-"), {"uncounted": 1}),
        (line(status=400, estimated="-/-"), {}),
        (line(estimated="100/9"), {"uncounted": 1, "estimated_prompt_tokens": 100, "estimated_completion_tokens": 9}),
        # The client went away before an answer began, but the engine had the request.
        (line(status=400, estimated="100/0"), {"uncounted": 1, "estimated_prompt_tokens": 100}),
    ],
)
def test_what_a_line_counts_as(message: str, expected: dict[str, int]) -> None:
    assert counted(message) == {"2026-11": {"team-a": row(requests=1, **expected)}}


@pytest.mark.parametrize(
    "message",
    [
        "[NOTICE]   (26) : New worker (27) forked",
        line(key="-"),
        line(key="Team"),
        "key=team-a " + line(),
        [104, 105],
        None,
        "",
    ],
)
def test_what_is_no_line_of_a_key(message: Any) -> None:
    state = usage.empty()
    assert usage.count(state, entries(message)) == 1
    assert state == {"cursor": "c0", "months": {}}


def test_months_are_those_of_utc_and_csv_has_a_row_for_each_key() -> None:
    state = usage.empty()
    usage.count(state, entries(line(prompt=1, completion=2), line(key="fleet")))
    usage.count(state, entries(line(prompt=10, completion=20), second=DECEMBER))
    assert sorted(state["months"]) == ["2026-11", "2026-12"]
    assert usage.table(state["months"]["2026-11"]) == (
        "key,requests,refused,uncounted,prompt_tokens,completion_tokens,estimated_prompt_tokens,"
        "estimated_completion_tokens,first_use,last_use\n"
        "fleet,1,0,1,0,0,0,0,2026-11-29T11:59:59Z,2026-11-29T11:59:59Z\n"
        "team-a,1,0,0,1,2,0,0,2026-11-29T11:59:59Z,2026-11-29T11:59:59Z\n"
    )


class Journal:
    """A journal of lines that grows; after a place there is what came later."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def read(self, cursor: str | None) -> Iterator[dict[str, Any]]:
        start = 0 if cursor is None else int(cursor[1:]) + 1
        yield from self.lines[start:]


def test_whatever_is_interrupted_each_line_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, chance = Journal(), random.Random(14)
    monkeypatch.setattr(usage, "journal", journal.read)
    monkeypatch.setattr(usage, "PORTION", 7)
    monkeypatch.setattr(usage.os, "fsync", lambda _file: None)
    writes = usage._write
    failures = 0

    def failing(path: Path, text: str) -> None:
        if chance.random() < 0.3:
            raise OSError("the machine stopped")
        writes(path, text)
        if chance.random() < 0.3:
            raise OSError("the machine stopped after the write")

    for _ in range(60):
        journal.lines += entries(*[line(prompt=1, completion=2)] * chance.randrange(20), first=len(journal.lines))
        monkeypatch.setattr(usage, "_write", failing)
        try:
            usage.collect(tmp_path)
        except OSError:
            failures += 1
    monkeypatch.setattr(usage, "_write", writes)
    months = usage.collect(tmp_path)["months"]
    total = len(journal.lines)
    assert failures > 10 and total > 300
    assert months["2026-11"]["team-a"] == row(requests=total, prompt_tokens=total, completion_tokens=2 * total)
    usage.collect(tmp_path)
    assert (tmp_path / "2026-11.csv").read_text("utf-8") == usage.table(months["2026-11"])


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cursor": 1, "months": {}}', '{"cursor": null, "months": []}'])
def test_broken_totals_are_an_error_and_stay(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "journal", Journal().read)
    (tmp_path / "usage.json").write_text(text, "utf-8")
    with pytest.raises(usage.UsageError, match=r"cannot read .*usage\.json"):
        usage.collect(tmp_path)
    assert (tmp_path / "usage.json").read_text("utf-8") == text


def test_totals_of_an_earlier_release_get_the_columns_they_lack() -> None:
    state = usage.empty()
    usage.count(state, entries(line()))
    for name in ("estimated_prompt_tokens", "estimated_completion_tokens"):
        del state["months"]["2026-11"]["team-a"][name]
    assert usage.table(state["months"]["2026-11"]).splitlines()[1].startswith("team-a,1,0,1,0,0,0,0,")
    usage.count(state, entries(line(estimated="8/2"), first=1))
    assert state["months"]["2026-11"]["team-a"] == row(
        requests=2, uncounted=2, estimated_prompt_tokens=8, estimated_completion_tokens=2
    )


def test_lost_totals_go_on_from_the_csv_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the journal still has: nothing that was recorded falls, and nothing is counted twice."""
    journal = Journal()
    monkeypatch.setattr(usage, "journal", journal.read)
    journal.lines = entries(*[line(prompt=1, completion=2)] * 5)
    assert usage.collect(tmp_path)["months"]["2026-11"]["team-a"]["requests"] == 5
    for kept in (2, 0):
        (tmp_path / "usage.json").unlink()
        journal.lines = entries(*[line(prompt=1, completion=2)] * kept)
        again = usage.collect(tmp_path)["months"]
        assert again == {"2026-11": {"team-a": row(requests=5, prompt_tokens=5, completion_tokens=10)}}
    journal.lines += entries(line(prompt=1, completion=2), second=NOVEMBER + 1, first=len(journal.lines))
    assert usage.collect(tmp_path)["months"]["2026-11"]["team-a"]["requests"] == 6
    assert usage.collect(tmp_path)["months"]["2026-11"]["team-a"]["requests"] == 6
    assert ",6,0,0,6,12," in (tmp_path / "2026-11.csv").read_text("utf-8")


def test_csv_files_that_cannot_be_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "journal", Journal().read)
    (tmp_path / "2026-11.csv").write_text("key,requests\nteam-a,x\n", "utf-8")
    with pytest.raises(usage.UsageError, match="cannot read the CSV files"):
        usage.collect(tmp_path)


def test_old_months_leave_the_totals_and_stay_as_files(tmp_path: Path) -> None:
    state = usage.empty()
    for month in range(30):
        usage.count(state, entries(line(), second=NOVEMBER + 31 * 86400 * month))
        usage.save(tmp_path, json.loads(json.dumps(state)))
    usage.save(tmp_path, state)
    assert len(state["months"]) == usage.MONTHS_KEPT and len(list(tmp_path.glob("*.csv"))) > usage.MONTHS_KEPT


def test_what_the_module_returns_is_documented_whole() -> None:
    assert [name for name in usage.COLUMNS if f"C({name})" not in door_usage.RETURN] == []
