"""Runs that overlap on one host, over the real HAProxy: the newest keys stay, in the files and in every process."""

from __future__ import annotations

import grp
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import generation, owned
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation, after
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.modules import door_keys
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.proxy import CLIENT, CLIENT_KEY, Door, entry

pytestmark = pytest.mark.one_core
ANNA, OTTO = entry(CLIENT, CLIENT_KEY), entry("otto", "two")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Door]:
    with scripted.engine() as engine, proxy.running(tmp_path, engine.port) as door:
        yield door


def give(door: Door, keys: list[dict[str, Any]], made: Optional[Generation], **more: Any) -> dict[str, Any]:
    """What the module does on the host; raises Unmet."""
    params = {"folder": str(door.folder / "door"), "master": str(door.folder / "master.sock"), "overrule": False,
              "group": grp.getgrgid(os.getgid()).gr_name, "program": proxy.program(),
              "store": {"keys": keys, "generation": generation.dumped(made)}}  # fmt: skip
    return door_keys.work({**params, **more}, False)


def states(count: int, by: str = "ops@one") -> list[Generation]:
    """The first generations of a store."""
    made: list[Generation] = []
    for number in range(count):
        made.append(after(made[-1] if made else None, f"{by} {number}", by, "2026-11-29T12:00:00Z"))
    return made


def in_processes(door: Door) -> list[set[str]]:
    master = Master(door.folder / "master.sock")
    file = str(door.folder / "door" / "keys.map")
    return [set(master.entries(process, file).values()) for process in master.processes()]


def test_a_run_that_was_slower_brings_no_revoked_key_back(front: Door) -> None:
    before, now = states(2)
    give(front, [ANNA, OTTO], before)
    assert scripted.ask(front.port, "two").status == 200
    assert give(front, [ANNA], now)["generation"] == 2
    with pytest.raises(Unmet, match="generation 2, which ops@one wrote at 2026-11-29T12:00:00Z, or newer ones"):
        give(front, [ANNA, OTTO], before)
    assert scripted.ask(front.port, "two").status == 401
    assert (front.folder / "door" / "keys.map").read_text("utf-8").endswith(f" {CLIENT}\n")
    assert give(front, [ANNA], now)["changed"] is False
    # Somebody restored a backup, and says so.
    assert give(front, [ANNA, OTTO], before, overrule=True)["generation"] == 1
    assert scripted.ask(front.port, "two").status == 200


def test_a_run_that_ended_half_way_lets_no_older_keys_in(front: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    before, now = states(2)
    give(front, [ANNA, OTTO], before)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(door_keys, "write_all", killed)
    with pytest.raises(KeyboardInterrupt):
        give(front, [ANNA], now)
    monkeypatch.undo()
    with pytest.raises(Unmet, match="generation 2"):
        give(front, [ANNA, OTTO], before)
    assert give(front, [ANNA], now)["changed"] and scripted.ask(front.port, "two").status == 401


def test_the_second_run_waits_until_files_and_processes_have_the_keys_of_the_first(
    front: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = states(2)
    between, go = threading.Event(), threading.Event()
    write_all = door_keys.write_all

    def stops_between(folder: Path, wanted: Any, group: int, check: bool) -> list[str]:
        written = write_all(folder, wanted, group, check)
        if not between.is_set():
            between.set()
            assert go.wait(60)
        return written

    monkeypatch.setattr(door_keys, "write_all", stops_between)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(give, front, [ANNA, OTTO], first)
        assert between.wait(60)
        newer = pool.submit(give, front, [ANNA], second)
        with pytest.raises(TimeoutError):
            newer.result(0.5)
        go.set()
        assert slow.result(60)["generation"] == 1 and newer.result(60)["generation"] == 2
    assert in_processes(front) == [{CLIENT}]
    assert (front.folder / "door" / "keys.map").read_text("utf-8").endswith(f" {CLIENT}\n")


def test_a_run_that_hangs_is_named(front: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned, "LOCK_SECONDS", 0)
    with (
        owned.alone(front.folder / "door"),
        pytest.raises(Unmet, match="expected other runs to end with the door's files of this host"),
    ):
        give(front, [ANNA], None)


def test_twenty_runs_at_once_end_with_the_newest_keys(front: Door) -> None:
    """In whatever order they come, each has those of its generation, or is refused."""
    made = states(20)
    keys = [
        [ANNA, *(entry(f"team-{number}", f"key-{number}") for number in range(20 - round_))] for round_ in range(20)
    ]

    def one(round_: int) -> str:
        try:
            give(front, keys[round_], made[round_])
        except Unmet as refused:
            return str(refused)
        return ""

    order = [(7 * number) % 20 for number in range(20)]
    with ThreadPoolExecutor(5) as pool:
        outcomes = dict(zip(order, pool.map(one, order)))
    assert outcomes[19] == "" and all("older ones, of generation" in words for words in outcomes.values() if words)
    assert in_processes(front) == [{CLIENT, "team-0"}]
    assert json.loads((front.folder / "door" / "generation.json").read_text("utf-8"))["number"] == 20
    assert scripted.ask(front.port, "key-0").status == 200 and scripted.ask(front.port, "key-1").status == 401


@pytest.mark.parametrize("text", ["{", '{"number": 1}', '{"number": 1, "stamps": ["x"], "by": "a", "at": "b"}'])
def test_a_record_that_cannot_be_read_lets_nothing_in(front: Door, text: str) -> None:
    (front.folder / "door" / "generation.json").write_text(text, "utf-8")
    with pytest.raises(Unmet, match=r"generation\.json.*remove the file on the host"):
        give(front, [OTTO], states(1)[0])
    assert scripted.ask(front.port, CLIENT_KEY).status == 200
