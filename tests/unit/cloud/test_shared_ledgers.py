"""One ledger of the files of several machines: its order, what of it is one event, and whose object is whose."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import left
from ansible_collections.glm.fleet.plugins.plugin_utils.store import ledgers
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError


def line(kind: ledger.Kind, second: int, name: str = "x", **more: Any) -> bytes:
    made = ledger.event(
        kind, fleet="blue", account="a", run="r", at=f"2026-12-01T12:00:{second:02}Z", names=[name], by="u", **more
    )
    return json.dumps(made).encode()


def kinds(machines: dict[str, list[bytes]]) -> list[str]:
    return [json.loads(one)["event"] for one in ledgers.merged(machines)]


def test_events_of_machines_are_read_in_the_order_of_time_whatever_the_machines_are_called() -> None:
    one = [line("asked", 1), line("launched", 3, ids=["i"])]
    two = [line("ending", 5, ids=["i"]), line("gone", 7, ids=["i"])]
    for names in itertools.permutations("ab"):
        assert kinds(dict(zip(names, (one, two)))) == ["asked", "launched", "ending", "gone"]


def test_a_machines_own_order_stays_when_its_clock_goes_back() -> None:
    """An event may also say a moment of the past: since when an instance that was found costs money."""
    one = [line("asked", 30), line("launched", 10, ids=["i"]), line("kept", 11, ids=["i"])]
    two = [line("seen", 20, ids=["j"])]
    assert kinds({"a": one, "b": two}) == ["seen", "asked", "launched", "kept"]


def test_what_follows_on_another_machines_event_is_read_after_it_although_its_clock_is_behind() -> None:
    ahead = [line("asked", 50), line("launched", 51, ids=["i"])]
    behind = [line("ending", 5, ids=["i"], after="2026-12-01T12:00:52Z"), line("gone", 6, ids=["i"])]
    for names in itertools.permutations("ab"):
        found = ledgers.merged(dict(zip(names, (ahead, behind))))
        [life] = ledger.lives_of(ledger.events_in(found))
        assert life.until, "it is gone, and not launched after its end"


def test_a_copied_disk_is_one_history_and_what_happened_twice_stays_two_events() -> None:
    past = [line("asked", 1), line("missing", 2), line("seen", 2), line("missing", 2)]
    one, two = [*past, line("gone", 3)], [*past, line("asked", 4, name="y")]
    assert kinds({"a": one, "b": two, "": past}) == ["asked", "missing", "seen", "missing", "gone", "asked"]
    assert ledgers.newest({"a": one, "b": two}, two) == "2026-12-01T12:00:03Z"
    assert ledgers.newest({"b": two}, two) == ""


class Store:
    """What a store does, without its network; ``fault`` is raised in the place of a write or a reading."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.reads: list[str] = []
        self.fault: StoreError | None = None

    def address(self, name: str) -> str:
        return f"s3://b/{name}"

    def etags(self, below: str) -> dict[str, str]:
        if self.fault:
            raise self.fault
        return {name: str(hash(body)) for name, body in self.objects.items() if name.startswith(below)}

    def read(self, name: str) -> bytes | None:
        self.reads.append(name)
        return self.objects.get(name)

    def change(self, name: str, make: Any) -> bool:
        if self.fault:
            raise self.fault
        self.objects[name] = make(self.objects.get(name))
        return True


class Helper:
    """The program in this process."""

    def __init__(self, store: Store) -> None:
        self.address = "s3://b"
        self.book = ledgers.Ledgers(store)  # type: ignore[arg-type]

    def ask(self, do: str, **more: Any) -> Any:
        said = json.loads(json.dumps(ledgers.answer(self.book, {"do": do, **more})))
        if "unmet" in said:
            raise Unmet(*said["unmet"])
        return said["answer"]


@pytest.fixture
def store() -> Store:
    return Store()


def book(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ledger.Ledger:
    with monkeypatch.context() as patched:
        patched.setattr(ledger.shared, "helper", lambda: Helper(store))
        return ledger.Ledger("lambda", "blue/../green", folder)


def event(kind: ledger.Kind, second: int = 0, **more: Any) -> ledger.Event:
    return ledger.event(kind, fleet="blue", account="a", run="r", at=f"2026-12-01T12:00:{second:02}Z", **more)


def test_each_machine_writes_one_object_and_reads_all(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (book(store, tmp_path / name, monkeypatch) for name in "ab")
    one.append(event("asked", 1, names=["é \udce9".encode("utf-8", "ignore").decode()]))
    two.append(event("asked", 2))
    one.append(event("launched", 3, ids=["i"]))
    assert (
        [found["at"][-3:] for found in two.read()]
        == ["01Z", "02Z", "03Z"]
        == [found["at"][-3:] for found in one.read()]
    )
    assert len(store.objects) == 2
    assert all(name.startswith("ledger/lambda-blue%2F..%2Fgreen/") for name in store.objects)
    assert set(store.objects.values()) == {one.path.read_bytes(), two.path.read_bytes()}
    store.reads.clear()
    assert two.read() and store.reads == [], "what did not change is not read again"


def test_an_event_says_what_it_comes_after_only_where_the_clock_does_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, behind = (book(store, tmp_path / name, monkeypatch) for name in "ab")
    ahead.append(event("launched", 40, names=["x"], ids=["i"]))
    behind.append(event("missing", 1))
    assert "after" not in behind.read()[0], "it had not seen the other"
    behind.append(event("gone", 2, names=["x"], ids=["i"]))
    behind.append(event("missing", 59))
    said = [found.get("after") for found in behind.own()]
    assert said == [None, "2026-12-01T12:00:41Z", None]
    assert [life.until for life in ledger.lives_of(ahead.read())] == ["2026-12-01T12:00:02Z"]


@pytest.mark.parametrize("lost", ["file", "mark", "both", "restored"])
def test_a_disk_that_was_lost_or_restored_overwrites_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    one = book(store, tmp_path / "a", monkeypatch)
    one.append(event("asked", 1))
    before = one.path.read_bytes()
    one.append(event("launched", 2, ids=["i"]))
    mark = ledger.shared_mark(one.path)
    if lost in ("file", "both"):
        one.path.unlink()
    if lost in ("mark", "both"):
        mark.unlink()
    if lost == "restored":
        one.path.write_bytes(before)
    one.append(event("kept", 3, ids=["i"]))
    assert [found["event"] for found in one.read()] == ["asked", "launched", "kept"]
    assert len(store.objects) == 2


def test_two_machines_with_a_copied_disk_write_two_objects(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (book(store, tmp_path / name, monkeypatch) for name in "ab")
    one.append(event("asked", 1))
    two.path.parent.mkdir()
    for path in (one.path, ledger.shared_mark(one.path)):
        (two.path.parent / path.name).write_bytes(path.read_bytes())
    one.append(event("launched", 2, ids=["i"]))
    two.append(event("asked", 3))
    one.append(event("kept", 4, ids=["i"]))
    two.append(event("refused", 5))
    expected = ["asked", "launched", "asked", "kept", "refused"]
    assert [found["event"] for found in one.read()] == [found["event"] for found in two.read()] == expected
    assert len(store.objects) == 2


DOWN = StoreError("unreachable", "to write it", "no answer", "check glm_store_endpoint")


def test_what_could_not_be_asked_in_the_store_is_closed_and_what_happened_goes_up_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (book(store, tmp_path / name, monkeypatch) for name in "ab")
    store.fault = DOWN
    with pytest.raises(Unmet, match="the ledger of launches in s3://b, found no answer") as caught:
        one.append(event("asked", 1, names=["x"], launch="x@1"))
    assert not isinstance(caught.value, ledger.NotShared) and ledger.open_of(one.own()) == []
    with pytest.raises(ledger.NotShared, match="goes there with what follows it"):
        one.append(event("gone", 2, ids=["i"]))
    for reader in (one, two):
        with pytest.raises(Unmet, match="no answer"):
            reader.read()
    store.fault = None
    assert two.read() == [] and store.objects == {}
    one.sync()
    assert [found["event"] for found in two.read()] == ["asked", "refused", "gone"]


def test_a_run_keeps_all_that_it_made_although_the_store_does_not_take_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = book(store, tmp_path, monkeypatch)
    for number in (1, 2):
        one.append(event("launched", number, names=[f"x{number}"], ids=[f"i{number}"]))
    store.fault = DOWN
    with pytest.raises(ledger.NotShared):
        left.keep([(one, one.own())], {"i1", "i2"}, "r")
    assert [(found["event"], found["ids"]) for found in one.own()[2:]] == [("kept", ["i1"]), ("kept", ["i2"])]


@pytest.mark.parametrize("body", [b"", b"\n", b"<html>", b"x\n"])
def test_an_object_without_an_event_is_not_an_empty_ledger(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    store.objects["ledger/lambda-blue%2F..%2Fgreen/x.jsonl"] = body
    with pytest.raises(Unmet, match=r"x\.jsonl, found no event in it"):
        book(store, tmp_path, monkeypatch).read()


def test_ledgers_of_a_simulated_cloud_stay_on_their_machine(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(ledger.shared, "helper", lambda: Helper(store))
    apart = ledger.folder_for("http://127.0.0.1:8080/api")
    assert not ledger.Ledger("lambda", "blue", apart).shared
    assert ledger.Ledger("lambda", "blue", ledger.folder_for("https://cloud.example/api")).shared


def test_the_ledgers_of_the_store_are_among_those_that_there_are(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book(store, tmp_path / "a", monkeypatch).append(event("asked", 1))
    monkeypatch.setattr(ledger.shared, "helper", lambda: Helper(store))
    [found] = ledger.ledgers(tmp_path / "b")
    assert (found.provider, found.fleet) == ("lambda", "blue/../green") and len(found.read()) == 1
    assert ledger.ledgers(tmp_path / "b", own=True) == []
