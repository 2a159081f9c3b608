"""One fetch at a time in a folder that hosts share, by nothing but names that one alone can create."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.weights import lease
from ansible_collections.glm.fleet.plugins.module_utils.weights.lease import Lease
from tests.patience import PATIENCE_SECONDS


class Host:
    """A fetch on a host of its own: its processes are not seen by others, whatever the machine of the test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.heard: list[str] = []
        self.said: list[str] = []
        self.lease = Lease(folder, self.heard.append, self.said.append)
        self.lease._owner.update(host=name, kernel=f"the kernel of {name}")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)


@pytest.fixture
def halted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Leases are not renewed, until it is undone."""
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "_renew", lambda self: None)
        yield patch


def test_an_empty_folder_is_taken_at_once_and_given_back(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        host = Host(tmp_path, "h1")
        assert host.lease.take() is False
        host.lease.release()
        assert [path.name for path in tmp_path.iterdir()] == [f".glm-fetch.lease.{number}"], "one file, whatever ran"
    assert host.said == host.heard == []


def test_one_that_is_renewed_is_waited_for_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 2.0)
    first, second = Host(tmp_path, "h1"), Host(tmp_path, "h2")
    first.lease.take()

    def waiting(why: str) -> None:
        second.heard.append(why)
        if len(second.heard) == 200:
            first.lease.release()

    second.lease._waiting = waiting
    assert second.lease.take() is True
    assert set(second.heard) == {f"h1 (process {os.getpid()}) fetches into {tmp_path}, waiting for it"}
    assert second.said == []
    second.lease.release()


def test_a_host_that_died_is_named_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halted: pytest.MonkeyPatch
) -> None:
    Host(tmp_path, "h1").lease.take()
    halted.undo()
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.3)
    second = Host(tmp_path, "h2")
    assert second.lease.take() is True
    (said,) = second.said
    assert said.startswith(f"h1 (process {os.getpid()}) has not renewed its lease of {tmp_path} for ")
    second.lease.release()


def test_one_that_was_only_halted_finds_out_that_another_has_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, halted: pytest.MonkeyPatch
) -> None:
    first, second = Host(tmp_path, "h1"), Host(tmp_path, "h2")
    first.lease.take()
    halted.undo()
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.1)
    second.lease.take()
    first.lease._renew()
    assert first.lease.lost_to == f"h2 (process {os.getpid()})"
    first.lease.release()
    content = next(tmp_path.iterdir()).read_text()
    assert '"host": "h2"' in content and '"free": false' in content, "what another holds is not given back"
    second.lease.release()


def test_a_file_server_that_was_away_is_not_held_against_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiter's own read hung as long as the holder's writes did."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 3600)
    first, second = Host(tmp_path, "h1"), Host(tmp_path, "h2")
    first.lease.take()
    reads = 0
    highest = second.lease._highest

    def hung() -> tuple[int, bytes]:
        nonlocal reads
        reads += 1
        if reads == 3:
            time.sleep(1.5)
        if reads == 10:
            first.lease.release()
        return highest()

    monkeypatch.setattr(second.lease, "_highest", hung)
    assert second.lease.take() is True
    assert second.said == []
    second.lease.release()


def test_a_process_of_this_host_that_is_gone_is_not_waited_for(tmp_path: Path, halted: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    child = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(tmp_path,))
    child.start()
    child.join(PATIENCE_SECONDS)
    mine = Lease(tmp_path, said.append, said.append)
    assert mine.take() is False
    (one,) = said
    assert one.endswith(f"(process {child.pid}) ended without giving {tmp_path} back")
    mine.release()


def _take_and_die(folder: Path) -> None:
    Lease(folder, print, print).take()
    os._exit(9)


def test_a_lease_that_was_never_written_is_waited_for_and_then_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.2)
    (tmp_path / ".glm-fetch.lease.7").touch()
    host = Host(tmp_path, "h1")
    assert host.lease.take() is True
    assert host.heard[0] == f"another process fetches into {tmp_path}, waiting for it"
    assert host.said[0].startswith("another process has not renewed its lease")
    assert [path.name for path in tmp_path.iterdir()] == [".glm-fetch.lease.8"]
    host.lease.release()


def test_a_number_that_was_used_long_ago_holds_nothing(tmp_path: Path) -> None:
    """One that was slow finds the next number free, because the folder changed hands twice meanwhile."""
    slow, other = Host(tmp_path, "h1"), Host(tmp_path, "h2")
    for _turn in range(3):
        other.lease = Host(tmp_path, "h2").lease
        other.lease.take()
        other.lease.release()
    assert slow.lease._claim(2) is False
    assert [path.name for path in tmp_path.iterdir()] == [".glm-fetch.lease.3"]


def test_a_lease_is_renewed_and_given_back_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written again is as long as what was there."""
    host = Host(tmp_path, "h1")
    host.lease.take()
    path = next(tmp_path.iterdir())
    size = path.stat().st_size
    time.sleep(0.2)
    assert '"beats": 0' not in path.read_text()
    host.lease.release()
    assert path.stat().st_size == size
    assert '"free": true' in path.read_text()


def test_of_many_at_once_one_works_at_a_time(tmp_path: Path) -> None:
    folder, work = tmp_path / "shared", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=_work, args=(folder, tmp_path, number)) for number in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join(PATIENCE_SECONDS)
        assert one.exitcode == 0
    assert (tmp_path / "count").read_text() == "40"


def _work(folder: Path, place: Path, number: int) -> None:
    for _turn in range(5):
        host = Host(folder, f"h{number}")
        host.lease.take()
        (place / "work" / "here").touch(exist_ok=False)
        count = int((place / "count").read_text())
        time.sleep(0.01)
        (place / "count").write_text(str(count + 1))
        (place / "work" / "here").unlink()
        host.lease.release()
