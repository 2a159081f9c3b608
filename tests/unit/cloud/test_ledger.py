"""The ledger: what it keeps through killed and concurrent writers, and what it calls not proven gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from simulator import world
from simulator.settings import Settings

ROOT = Path(__file__).parents[3]
AT = "2026-11-29T07:30:00Z"
LATER = "2026-11-29T09:00:00Z"


def event(kind: ledger.Kind, **more: Any) -> ledger.Event:
    return ledger.event(kind, **{"fleet": "blue", "account": "a", "run": "r", "at": AT, **more})


def asked(name: str, **more: Any) -> ledger.Event:
    given_ = {"names": [name], "launch": ledger.launch_key(name, AT), "type": "gpu_8x", "usd_per_hour": 53.52, **more}
    return event("asked", **given_)


def launched(name: str, identifier: str, **more: Any) -> ledger.Event:
    return event("launched", names=[name], ids=[identifier], launch=ledger.launch_key(name, AT), **more)


@pytest.fixture
def book(tmp_path: Path) -> ledger.Ledger:
    return ledger.Ledger("lambda", "blue/../green", tmp_path / "ledger")


def test_what_is_written_is_read_in_order_and_is_the_owners_alone(book: ledger.Ledger) -> None:
    events = [asked("glm-blue-1"), launched("glm-blue-1", "i1"), event("ending", ids=["i1"], why="ümlaut\nline")]
    assert book.read() == []
    for one in events:
        book.append(one)
    assert book.read() == events
    assert book.path.stat().st_mode & 0o777 == 0o600 and book.path.parent.stat().st_mode & 0o777 == 0o700
    assert book.path.name == "lambda-blue%2F..%2Fgreen.jsonl"
    assert [(one.provider, one.fleet) for one in ledger.ledgers(book.path.parent)] == [("lambda", "blue/../green")]


@pytest.mark.parametrize("length", [1, 20, -1])
def test_a_torn_line_is_no_event_and_swallows_none(book: ledger.Ledger, length: int) -> None:
    book.append(asked("glm-blue-1"))
    with book.path.open("ab") as file:
        file.write(json.dumps(launched("glm-blue-1", "i1")).encode()[:length])
    assert [one.state for one in ledger.open_of(book.read())] == ["asked"]
    book.append(asked("glm-blue-2"))
    assert [one.name for one in ledger.open_of(book.read())] == ["glm-blue-1", "glm-blue-2"]


def test_lines_that_are_no_event_are_left_out() -> None:
    good = asked("glm-blue-1")
    bad: list[Any] = [
        [], None, 3, "x", {}, {**good, "at": "yesterday"}, {**good, "event": "sold"}, {**good, "ids": [1]},
        {**good, "names": None}, {**good, "usd_per_hour": "53"}, {**good, "launch": None}, {**good, "by": 3},
        {**good, "why": None}, {**good, "usd_per_hour": True},
    ]  # fmt: skip
    lines = [json.dumps(value).encode() for value in [*bad, good]]
    assert ledger.events_in([b"", b"\xff\xfe", b"{", *lines]) == [good]


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("in the way", "utf-8")
    book = ledger.Ledger("lambda", "blue", tmp_path / "ledger")
    with pytest.raises(Unmet, match=r"keep the ledger of launches in .*lambda-blue.*\.jsonl.*GLM_LEDGER_DIR"):
        book.append(asked("glm-blue-1"))
    with pytest.raises(Unmet, match="GLM_LEDGER_DIR"):
        book.read()


WRITER = """
import sys
from pathlib import Path
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
book = ledger.Ledger("lambda", "blue", Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}-{number}"
    more = {"names": [name], "launch": name, "why": "x" * 9000}
    book.append(ledger.event("asked", fleet="blue", account="a", run=sys.argv[2], **more))
    print(name, flush=True)
"""


def writer(folder: Path, name: str, number: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".collections")}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(number)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 40) for name in ("left", "right")]
    assert [one.wait() for one in writers] == [0, 0]
    for one in writers:
        one.communicate()
    names = [one["names"][0] for one in ledger.Ledger("lambda", "blue", tmp_path).read()]
    for side in ("left", "right"):
        assert [name for name in names if name.startswith(side)] == [f"{side}-{number}" for number in range(40)]


def test_what_a_killed_writer_said_is_there_and_others_go_on(tmp_path: Path) -> None:
    book = ledger.Ledger("lambda", "blue", tmp_path)
    for turn in range(5):
        process = writer(tmp_path, f"turn{turn}", 10_000)
        assert process.stdout
        said = [process.stdout.readline().strip() for _line in range(turn + 1)]
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].split()
        assert set(said) <= {one["names"][0] for one in book.read()}
    book.append(asked("glm-blue-1"))
    assert book.read()[-1]["names"] == ["glm-blue-1"]


def test_a_launch_goes_from_asked_to_gone() -> None:
    events = [asked("glm-blue-1", run="first", type="gpu_8x", region="east")]
    [one] = ledger.open_of(events)
    assert (one.id, one.name, one.state, one.run, one.usd_per_hour) == ("", "glm-blue-1", "asked", "first", 53.52)
    events.append(event("unknown", names=["glm-blue-1"], launch=ledger.launch_key("glm-blue-1", AT), why="HTTP 504"))
    assert [(one.state, one.why) for one in ledger.open_of(events)] == [("unknown", "HTTP 504")]
    # The next run finds it.
    events.append(launched("glm-blue-1", "i1", run="second", at=LATER))
    [one] = ledger.open_of(events)
    assert (one.id, one.state, one.run, one.since, one.region) == ("i1", "launched", "first", AT, "east")
    events.append(event("ending", ids=["i1"], at=LATER, why="scaled to 0"))
    assert [(one.name, one.state) for one in ledger.open_of(events)] == [("glm-blue-1", "ending")]
    events.append(event("gone", ids=["i1"], at=LATER))
    assert ledger.open_of(events) == []
    [life] = ledger.lives_of(events)
    assert (life.until, life.cost_usd(0)) == (LATER, 80.28)
    events.append(event("ending", ids=["i1"], why="listed again"))
    assert [one.since for one in ledger.open_of(events)] == [AT], "it was seen after all"


def test_a_launch_that_made_nothing_is_closed() -> None:
    first, second = asked("glm-blue-1"), asked("glm-blue-2")
    refused = event("refused", names=first["names"], launch=first["launch"])
    never = event("gone", names=second["names"], launch=second["launch"], why="never listed")
    assert ledger.open_of([first, second, refused, never]) == []
    assert [life.name for life in ledger.lives_of([first, second, refused, never])] == ["glm-blue-2"]


def test_the_end_of_what_others_launched_is_open_until_it_is_gone() -> None:
    events = [event("ending", ids=["x", "y"], names=["old-1", "old-2"])]
    assert [(one.id, one.name) for one in ledger.open_of(events)] == [("x", "old-1"), ("y", "old-2")]
    events.append(event("gone", ids=["x"]))
    assert [one.id for one in ledger.open_of(events)] == ["y"]


def test_only_the_answer_to_a_launch_proves_ownership() -> None:
    events = [launched("glm-blue-1", "i1"), event("ending", ids=["i1", "i2"]), asked("glm-blue-3")]
    assert {one.id: one.ours for one in ledger.open_of(events)} == {"i1": True, "i2": False, "": False}


def test_an_account_is_named_without_its_key() -> None:
    one, other = ledger.account_of("https://a", "secret"), ledger.account_of("https://b", "secret")
    assert one != other and "secret" not in one


STEPS = st.lists(
    st.tuples(st.sampled_from(ledger.KINDS), st.integers(1, 4), st.integers(0, 3600)), min_size=1, max_size=30
)


def history(steps: list[tuple[ledger.Kind, int, int]]) -> list[ledger.Event]:
    """Events in any order about four instances; time goes on between them."""
    now, events = ledger.seconds_of(AT), []
    for kind, number, seconds in steps:
        now += seconds
        ids = [f"i{number}"] if kind in ("launched", "kept", "ending", "seen", "missing", "gone") else []
        events.append(
            event(kind, at=ledger.stamp(now), names=[f"n{number}"], ids=ids, launch=f"n{number}@", usd_per_hour=10.0)
        )
    return events


@given(STEPS)
def test_open_is_what_was_made_and_not_proven_gone(steps: list[tuple[ledger.Kind, int, int]]) -> None:
    open_: dict[str, str] = {}
    known: set[str] = set()
    for kind, number, _seconds in steps:
        if kind in ("asked", "unknown"):
            open_[f"n{number}"] = kind
        elif kind == "refused":
            open_.pop(f"n{number}", None)
        elif kind == "launched":
            open_.pop(f"n{number}", None)
            open_[f"i{number}"] = kind
        elif kind in ("kept", "ending"):
            open_[f"i{number}"] = kind
        elif kind == "seen":
            open_.setdefault(f"i{number}", kind)
        elif kind == "missing":
            if f"i{number}" not in known:
                open_[f"i{number}"] = kind
        else:
            open_.pop(f"i{number}", None)
        known |= {f"i{number}"} if kind in ("launched", "kept", "ending", "seen", "missing", "gone") else set()
    assert {one.id or one.name: one.state for one in ledger.open_of(history(steps))} == open_


@given(STEPS, st.integers(0, 3600))
def test_what_an_instance_cost_never_falls(steps: list[tuple[ledger.Kind, int, int]], more: int) -> None:
    events = history(steps)

    def cost(part: list[ledger.Event], now: float) -> dict[str, float]:
        return {life.id: life.cost_usd(now) or 0.0 for life in ledger.lives_of(part) if life.id}

    end = ledger.seconds_of(events[-1]["at"])
    before = cost(events[:-1], end)
    after, later = cost(events, end), cost(events, end + more)
    assert all(after[key] >= value for key, value in before.items())
    assert all(later[key] >= value for key, value in after.items())


@given(st.lists(st.binary(max_size=80)))
def test_no_line_breaks_the_reader(lines: list[bytes]) -> None:
    assert ledger.events_in(lines) == []


def test_a_simulated_cloud_has_ledgers_of_its_own_which_the_rehearsal_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rehearsal launches costs nothing, and must not count against the budget of a fleet of that name."""
    # Set first, so that it is put back whatever is set meanwhile.
    monkeypatch.setenv(ledger.FOLDER_ENVIRONMENT, "")
    monkeypatch.delenv(ledger.FOLDER_ENVIRONMENT)
    real = ledger.default_folder()
    ledger.keep_apart(["https://cloud.lambda.ai/api/v1"])
    assert ledger.default_folder() == real
    settings = Settings.from_environment({"GLM_REHEARSAL_WORLD": "7"})
    apart = ledger.folder_for(settings.api_url)
    ledger.keep_apart([settings.api_url, settings.api_url])
    assert ledger.default_folder() == apart != real
    assert apart == world.ledger_folder(settings) and apart in world._made_by_up(settings)
    for beside in ("https://cloud.lambda.ai", "http://127.0.0.1:9"):
        ledger.keep_apart([settings.api_url, beside])
        assert ledger.default_folder() == real, "a real account keeps its ledgers whatever is asked before or after"
        ledger.keep_apart([settings.api_url])
    monkeypatch.setenv(ledger.FOLDER_ENVIRONMENT, "/srv/ledgers")
    ledger.keep_apart([settings.api_url])
    assert ledger.default_folder() == Path("/srv/ledgers")
