"""What the guard hears from its run, what it takes for ours, and when it stops."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, CloudError, TransportError
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import give_back
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.give_back import Returning, Shown, State

AT = "2026-11-29T07:30:00Z"


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, Callable[[str], None], Callable[[], None]]]:
    read, write = os.pipe()
    stream = os.fdopen(read)
    closed: list[int] = []

    def close() -> None:
        if not closed:
            closed.append(write)
            os.close(write)

    yield stream, lambda text: (os.write(write, text.encode()), None)[1], close
    close()
    stream.close()


def line(**said: Any) -> str:
    return json.dumps(said) + "\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], State()),
        ([line(run="r"), line(account={"fleet": "a"}), line(account={"fleet": "a"})], State("r", [{"fleet": "a"}])),
        ([line(served=["i"]), line(served=["i", "j"]), '{"served": ["k'], State(served={"i", "j"})),
        ([line(run="r") + line(done=True), line(served=["i"])], State("r", done=True)),
        ([line(failed=True), line(done=True)], State(failed=True)),
        (["[]\nnull\n3\n", line(served=["i"])], State(served={"i"})),
    ],
)
def test_the_guard_hears_whole_lines_until_the_run_has_ended(pipe: Any, lines: list[str], expected: State) -> None:
    stream, write, close = pipe
    write("".join(lines))
    close()
    assert give_back.heard(stream, lambda _run: False, State()) == expected


def test_the_guard_does_not_wait_for_workers_of_a_run_that_is_gone(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, write, _close = pipe
    monkeypatch.setattr(give_back, "LOOK_SECONDS", 0.01)
    write(line(run="r", served=["i"]) + '{"served": ["torn')
    asked = []
    assert give_back.heard(stream, lambda run: not asked.append(run), State()) == State("r", served={"i"})
    assert asked == ["r"], "what was written is read first"


def life(identifier: str, name: str = "glm-1", ours: bool = True, state: ledger.Kind = "launched") -> ledger.Life:
    return ledger.Life(
        id=identifier, name=name, state=state, since=AT, until="", run="r", fleet="blue", account="a", launch="l",
        ours=ours, type="gpu_8x", region="east", usd_per_hour=53.52, why="",
    )  # fmt: skip


class Cloud:
    """An account. ``troubles``: errors of the next calls, None for those that go well."""

    title = "fleet blue"
    at_work = staticmethod(contextlib.nullcontext)

    def __init__(self, *shown: Shown, lives: Sequence[ledger.Life] = ()) -> None:
        self.shown = {item.id: item for item in shown}
        self.open = list(lives)
        self.late: set[str] = set()
        self.troubles: list[CloudError | None] = []
        self.ended: list[str] = []
        self.kept: list[str] = []

    def call(self) -> None:
        trouble = self.troubles.pop(0) if self.troubles else None
        if trouble:
            raise trouble

    def read(self) -> list[Shown]:
        self.call()
        self.open = [one for one in self.open if one.id not in self.ended]
        return [item for item in self.shown.values() if item.id not in self.late]

    def look(self) -> dict[str, bool]:
        self.call()
        return {key: item.there for key, item in self.shown.items() if key not in self.late}

    def end_request(self, ids: list[str]) -> list[str]:
        self.call()
        assert set(ids) <= set(self.kept), "kept before it is asked for"
        self.ended += ids
        for identifier in ids:
            self.shown.pop(identifier, None)
        return ids

    def lives(self) -> list[ledger.Life]:
        return self.open

    def keep_ending(self, shown: Sequence[Shown], why: str) -> None:
        self.kept += [item.id for item in shown]


def shown(identifier: str, name: str = "glm-1", **more: bool) -> Shown:
    given: dict[str, Any] = {"there": True, "ours": False, "untagged": True, "protected": False, **more}
    return Shown(id=identifier, name=name, **given)


class Clock:
    def __init__(self) -> None:
        self.now = ledger.seconds_of(AT)
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def time(self) -> float:
        return self.now


def give_back_all(cloud: Cloud, served: set[str] | None = None, hours: float = 24) -> tuple[bool, list[str], Clock]:
    clock, said = Clock(), list[str]()
    returning = Returning(cloud, served or set(), said.append, clock.sleep, clock.time)
    return give_back.until_none([returning], hours), said, clock


def test_what_the_ledger_or_the_tag_proves_is_ended_and_nothing_else() -> None:
    cloud = Cloud(
        shown("tagged", ours=True), shown("launched"), shown("named-alike"), shown("served", ours=True), shown("other"),
        lives=[life("launched"), life("served"), life("other", ours=False)],
    )  # fmt: skip
    cloud.open.pop()
    through, said, _clock = give_back_all(cloud, {"served"})
    assert through and sorted(cloud.ended) == ["launched", "tagged"]
    assert sorted(cloud.shown) == ["named-alike", "other", "served"]
    assert "terminating what was launched and never served: glm-1 (launched), glm-1 (tagged)" in said[0]


def test_what_the_list_does_not_show_yet_is_ended_by_id() -> None:
    cloud = Cloud(shown("late"), lives=[life("late")])
    cloud.late.add("late")
    through, _said, _clock = give_back_all(cloud)
    assert through and cloud.ended == ["late"]


@pytest.mark.parametrize("listed", [True, False])
def test_a_protected_instance_stays_and_is_named_with_its_price(listed: bool) -> None:
    cloud = Cloud(shown("i", ours=True, protected=True), lives=[replace(life("i"), protected=not listed)])
    cloud.late = set() if listed else {"i"}
    through, said, clock = give_back_all(cloud)
    assert not through and cloud.ended == [] and clock.naps == [0], "nothing to wait for"
    assert "what its tag protects" in said[-1] and "glm-1 (i, " in said[-1] and "53.52 USD per hour" in said[-1]


def test_a_protected_instance_that_served_is_not_left() -> None:
    cloud = Cloud(shown("i", ours=True, protected=True), lives=[life("i")])
    assert give_back_all(cloud, {"i"})[0] and cloud.ended == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("?"), KeyError()])
def test_no_error_of_the_guard_itself_ends_it(error: Exception) -> None:
    cloud = Cloud(shown("i"), lives=[life("i")])
    cloud.troubles = [error, error]  # type: ignore[list-item]
    through, said, _clock = give_back_all(cloud)
    assert through and cloud.ended == ["i"] and "could not be asked" in said[0]


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        give_back.say("terminating")
        with contextlib.suppress(OSError):
            full.close()


def test_an_account_that_does_not_answer_holds_up_no_other() -> None:
    clock, said = Clock(), list[str]()
    silent, other = Cloud(), Cloud(shown("i"), lives=[life("i")])
    silent.troubles = [TransportError("closed")] * 10_000
    ended_at: list[float] = []
    end = other.end_request
    other.end_request = lambda ids: ended_at.append(clock.now) or end(ids)  # type: ignore[func-returns-value, method-assign]
    both = [Returning(cloud, set(), said.append, clock.sleep, clock.time) for cloud in (silent, other)]
    assert not give_back.until_none(both, hours=2)
    assert other.ended == ["i"] and ended_at[0] - ledger.seconds_of(AT) < 60
    assert "given up after 2 hours" in said[-1]


@pytest.mark.parametrize("number", [1, 3, 40])
def test_trouble_is_outlasted(number: int) -> None:
    cloud = Cloud(shown("i"), lives=[life("i")])
    kinds = [ApiError("POST", 503, "", ""), TransportError("closed"), ApiError("GET", 429, "", "")]
    cloud.troubles = [kinds[turn % 3] for turn in range(number)]
    through, _said, clock = give_back_all(cloud)
    assert through and cloud.ended == ["i"] and max(clock.naps) <= 300


def test_a_launch_without_an_answer_is_looked_for_until_the_ledger_closes_it() -> None:
    cloud = Cloud(lives=[life("", state="unknown", ours=False)])
    read, reads = cloud.read, []

    def reading() -> list[Shown]:
        reads.append(1)
        if len(reads) == 6:
            cloud.shown["new"] = shown("new", ours=True)
            cloud.open = [life("new")]
        return read()

    cloud.read = reading  # type: ignore[method-assign]
    through, said, _clock = give_back_all(cloud)
    assert through and cloud.ended == ["new"]
    assert "whether it was made is not known" in said[0]
    assert len(said) < 6, "the same is said once"


def test_a_name_alone_is_named_and_not_ended_and_keeps_the_matter_open() -> None:
    cloud = Cloud(shown("x", name="glm-1"), lives=[life("", state="unknown", ours=False)])
    through, said, clock = give_back_all(cloud, hours=1)
    assert not through and cloud.ended == []
    assert "glm-1 (x) may be it, but a name is no proof" in said[-1] and "given up after 1 hours" in said[-1]
    assert 3600 <= clock.now - ledger.seconds_of(AT) < 3700


def test_another_run_s_instance_of_that_name_is_no_doubt() -> None:
    cloud = Cloud(shown("x", name="glm-1", untagged=False), lives=[life("", state="unknown", ours=False)])
    assert "may be it" not in give_back_all(cloud, hours=1)[1][-1] and cloud.ended == []


def test_an_account_that_cannot_be_asked_is_never_called_empty() -> None:
    cloud = Cloud()
    cloud.troubles = [TransportError("closed")] * 10_000
    through, said, _clock = give_back_all(cloud, hours=2)
    assert not through and "could not be asked: closed" in said[-1]


def test_no_argument_of_the_guard_holds_a_key(tmp_path: Path) -> None:
    guard = give_back.Guard("r", tmp_path / "state" / "log")
    try:
        assert guard.send(account={"api_key": "secret"})
        arguments = Path(f"/proc/{guard._process.pid}/cmdline").read_bytes()
        assert b"secret" not in arguments and (tmp_path / "state" / "log").stat().st_mode & 0o777 == 0o600
    finally:
        guard._process.kill()
        guard._process.wait()
    assert not guard.send(served=["i"]), "a guard that is gone stops nobody, but it is noticed"
    assert not give_back.Missing().send(account={})
