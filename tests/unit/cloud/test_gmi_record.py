"""What a list of GMI Cloud's containers and elastic IPs means for the ledger: found, seen, missing or gone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud.record import ADDRESS, Record

NAME, KIND, IDC = "glm-web-1", "container.h200.x8", "us-denver-1"
ROW = {"id": "c1", "name": NAME, "idc": IDC, "product": KIND, "status": "running"}
MOMENT = "2026-11-29T08:00:00Z"
BEFORE, AFTER = "2026-11-29T07:00:00Z", "2026-11-29T08:00:09.123Z"


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path))
    return Record("web", "account", None, pytest.fail)


def asked(book: Record, kind: str = KIND, name: str = NAME) -> None:
    book.asked(name, MOMENT, type=kind, region=IDC, at=MOMENT)
    book.unknown(name, MOMENT, "lost")


def kinds(book: Record) -> list[str]:
    return [event["event"] for event in book.book.read()]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([ROW], True),
        ([{**ROW, "createdAt": AFTER}], True),
        ([{"id": "c1", "name": NAME}], True),
        ([{**ROW, "createdAt": "no moment"}], True),
        ([{**ROW, "name": "glm-web-2"}], False),
        ([{**ROW, "idc": "elsewhere"}], False),
        ([{**ROW, "product": "container.h200.x1"}], False),
        ([{**ROW, "createdAt": BEFORE}], False),
        ([ROW, {**ROW, "id": "c2"}], False),
        ([], False),
    ],
)
def test_what_was_asked_for_is_found_by_its_name_if_nothing_speaks_against_it(
    book: Record, rows: list[dict[str, Any]], found: bool
) -> None:
    asked(book)
    book.look(rows, [])
    [life] = [life for life in book.lives() if life.name == NAME]
    assert (life.id, life.ours) == (("c1", True) if found else ("", False))
    assert ledger.open_of(book.book.read()) == [life], "one list closes nothing"


def test_a_container_and_an_elastic_ip_of_one_name_are_not_mixed_up(book: Record) -> None:
    asked(book, ADDRESS)
    book.look([ROW], [])
    assert not any(life.id for life in book.lives())
    book.look([ROW], [{"id": "ip1", "name": NAME, "product": "eip.bgp"}])
    assert [life.id for life in book.lives()] == ["ip1"]


def test_what_is_ours_already_is_not_found_again(book: Record) -> None:
    book.asked(NAME, BEFORE, type=KIND, region=IDC, at=BEFORE)
    book.launched(NAME, BEFORE, ["c1"])
    asked(book)
    book.look([ROW], [])
    assert [life.id for life in book.lives()] == ["c1", ""]


def test_an_end_is_proven_by_the_list_and_undone_by_it(book: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(book)
    book.look([ROW], [])
    book.look([], [])
    assert kinds(book)[-1] == "missing", "nobody ended it here, so one list may be wrong"
    book.look([ROW], [])
    assert kinds(book)[-1] == "seen"
    [life] = book.lives()
    book.ending(life, "by request")
    book.answered.add("c1")
    book.look([{**ROW, "status": "terminating"}], [])
    assert kinds(book)[-1] == "ending", "what terminates is not gone, and may only restart"
    book.look([], [])
    assert kinds(book)[-1] == "gone"
    book.look([{**ROW, "status": "Terminated"}], [])
    assert kinds(book)[-1] == "gone"
    book.look([ROW], [])
    assert kinds(book)[-1] == "seen" and len(ledger.open_of(book.book.read())) == 1
    book.look([], [])
    assert kinds(book)[-1] == "missing", "the answer was about an earlier end"
    later = time.time() + record.APART_SECONDS
    monkeypatch.setattr(record.time, "time", lambda: later)
    book.look([], [])
    assert kinds(book)[-1] == "gone"


def test_a_list_of_another_key_closes_nothing_and_shows_what_it_has(book: Record) -> None:
    asked(book)
    book.look([ROW], [])
    other = Record("web", "other", None, pytest.fail)
    other.look([], [])
    assert kinds(book)[-1] == "launched"
    other.look([ROW], [])
    assert kinds(book)[-1] == "seen" and [life.account for life in other.lives()] == ["other"]
