"""Keys given to the running door: in every process, without a lost request; and what cannot be done is said."""

from __future__ import annotations

import grp
import http.client
import os
import secrets
import signal
import stat
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import generation
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.modules import door_keys
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.load import Load
from tests.playbooks.door.proxy import CLIENT, CLIENT_KEY, Door, entry
from tests.playbooks.door.scripted import Client, Engine

pytestmark = pytest.mark.one_core
Give = Callable[..., dict[str, Any]]
ANNA, OTTO = entry(CLIENT, CLIENT_KEY), entry("otto", "two")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with scripted.engine() as server:
        yield server


@pytest.fixture
def front(tmp_path: Path, engine: Engine) -> Iterator[Door]:
    with proxy.running(tmp_path, engine.port) as door:
        yield door


@pytest.fixture
def give(run_module: Callable[..., dict[str, Any]], tmp_path: Path) -> Give:
    """``give(keys, generation, check=False)`` is the module's result with the files of a door in the test's folder."""
    group = grp.getgrgid(os.getgid()).gr_name

    def run(keys: list[dict[str, Any]], made: Generation | None = None, **more: Any) -> dict[str, Any]:
        where = {"folder": str(tmp_path / "door"), "master": str(tmp_path / "master.sock"), "group": group}
        store = {"keys": keys, "generation": generation.dumped(made)}
        return run_module(door_keys.main, store=store, **{**where, **more})

    return run


def reload(door: Door) -> int:
    """Reload as systemd does; the process that was the current one."""
    master = Master(door.folder / "master.sock")
    before = master.processes()[0].pid
    door.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if master.processes()[0].pid != before:
                return before
        except Unmet:  # while the master starts anew
            time.sleep(0.05)
    raise AssertionError("no new process after a reload")


def test_a_key_works_when_it_was_given_and_is_refused_when_it_was_taken(
    front: Door, give: Give, tmp_path: Path
) -> None:
    assert scripted.ask(front.port, "two").status == 401
    result = give([ANNA, OTTO])
    assert result["changed"] and result["running"] and len(result["processes"]) == 1
    assert result["files"] == [str(tmp_path / "door" / "keys.map")]
    assert scripted.ask(front.port, "two").status == 200
    assert give([OTTO])["changed"]
    assert (scripted.ask(front.port, "two").status, scripted.ask(front.port, CLIENT_KEY).status) == (200, 401)
    assert give([])["changed"] and scripted.ask(front.port, "two").status == 401
    assert stat.S_IMODE((tmp_path / "door" / "keys.map").stat().st_mode) == 0o640


def test_the_same_keys_again_change_nothing(front: Door, give: Give) -> None:
    keys = [entry("otto", "two", 4000000000, requests_per_minute=5, parallel=3, tokens_per_minute=9), ANNA]
    assert give(keys, check=True)["changed"] and scripted.ask(front.port, "two").status == 401
    assert len(give(keys)["files"]) == 5
    again = give(keys)
    assert (again["changed"], again["files"]) == (False, [])


def test_limits_and_ends_are_given_too(front: Door, give: Give) -> None:
    give([entry("otto", "two", 1)])
    assert scripted.ask(front.port, "two").status == 401
    give([entry("otto", "two", requests_per_minute=1000000)])
    assert scripted.ask(front.port, "two").status == 200
    with Path(front.folder / "door" / "requests.map").open(encoding="utf-8") as lines:
        assert lines.read() == "otto 1000000\n"


def test_connections_that_a_reload_left_behind_take_no_revoked_key(front: Door, engine: Engine, give: Give) -> None:
    """The old process ends a stream; what comes next on the same connection must not pass."""
    streaming, idle = Client(front.port, CLIENT_KEY), Client(front.port, CLIENT_KEY)
    assert idle.ask().status == 200
    answer = streaming.begin(pieces=["data: x\n\n"], hold=True)
    assert engine.held.acquire(timeout=PATIENCE_SECONDS)
    old = reload(front)
    result = give([OTTO])
    assert old in result["processes"] and len(result["processes"]) == 2
    file = str(front.folder / "door" / "keys.map")
    master = Master(front.folder / "master.sock")
    left = [one for one in master.processes() if one.old]
    assert [one.pid for one in left] == [old] and master.entries(left[0], file) == {OTTO["sha256"]: "otto"}
    assert refused(idle)
    engine.go.set()
    assert answer.read() == b"data: x\n\n"
    assert refused(streaming)
    assert scripted.ask(front.port, CLIENT_KEY).status == 401 and scripted.ask(front.port, "two").status == 200


def refused(client: Client) -> bool:
    """Whether a connection that was kept alive brings nothing to the engine any more; it may have been closed."""
    client.connection.auto_open = 0
    try:
        return client.ask().status == 401
    except (OSError, http.client.HTTPException):
        return True


def test_a_reload_keeps_the_keys_that_were_given(front: Door, give: Give) -> None:
    give([OTTO])
    reload(front)
    assert (scripted.ask(front.port, "two").status, scripted.ask(front.port, CLIENT_KEY).status) == (200, 401)


def test_a_map_that_was_edited_by_hand_is_put_right(front: Door, give: Give, tmp_path: Path) -> None:
    give([ANNA])
    (tmp_path / "door" / "keys.map").write_text(f"{OTTO['sha256']} otto\n", "utf-8")
    assert give([ANNA])["files"] == [str(tmp_path / "door" / "keys.map")]
    (process,) = Master(tmp_path / "master.sock").processes()
    Master(tmp_path / "master.sock").replace(process, str(tmp_path / "door" / "keys.map"), {OTTO["sha256"]: "otto"})
    assert scripted.ask(front.port, "two").status == 200
    result = give([ANNA])
    assert (result["changed"], result["files"]) == (True, []) and scripted.ask(front.port, "two").status == 401


def test_a_map_that_others_could_read_is_put_right(front: Door, give: Give, tmp_path: Path) -> None:
    give([ANNA])
    (tmp_path / "door" / "keys.map").chmod(0o644)
    assert give([ANNA])["changed"]
    assert stat.S_IMODE((tmp_path / "door" / "keys.map").stat().st_mode) == 0o640


def test_a_door_that_does_not_run_reads_the_keys_when_it_starts(give: Give, tmp_path: Path) -> None:
    (tmp_path / "door").mkdir()
    result = give([OTTO])
    assert result["changed"] and not result["running"] and result["processes"] == []
    assert (tmp_path / "door" / "keys.map").read_text("utf-8") == f"{OTTO['sha256']} otto\n"


def test_a_door_that_runs_without_its_socket_fails_the_run(front: Door, give: Give, tmp_path: Path) -> None:
    (tmp_path / "master.sock").unlink()
    result = give([OTTO])
    assert result["failed"] and "expected HAProxy to answer" in result["msg"] and "restart glm-door" in result["msg"]
    assert scripted.ask(front.port, CLIENT_KEY).status == 200


def test_a_process_without_the_map_fails_the_run(front: Door, give: Give, tmp_path: Path) -> None:
    """As one that was started with a configuration of an earlier release."""
    config = tmp_path / "door" / "haproxy.cfg"
    config.write_text(config.read_text("utf-8").replace("parallel.map", "requests.map"), "utf-8")
    reload(front)
    assert give([OTTO])["changed"]
    result = give([entry("otto", "two", parallel=5)])
    assert (
        result["failed"] and "parallel.map, found it does not" in result["msg"] and "deploy the host" in result["msg"]
    )


@pytest.mark.parametrize("version", ["2.4.24-0ubuntu0.22.04.1", ""])
def test_a_token_limit_is_refused_where_haproxy_cannot_keep_it(
    give: Give, tmp_path: Path, fake_command: Callable[..., Path], version: str
) -> None:
    """Whether or not the door runs; nothing is written then."""
    (tmp_path / "door").mkdir()
    fake_command("haproxy", f"echo 'HAProxy version {version} 2024/01/01'")
    result = give([entry("otto", "two", tokens_per_minute=5)], program="haproxy")
    assert result["failed"] and "expected HAProxy 2.5 or newer" in result["msg"] and version in result["msg"]
    assert "take tokens_per_minute out" in result["msg"] and not list((tmp_path / "door").iterdir())
    assert give([entry("otto", "two", parallel=5)], program="haproxy")["changed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": "nobody-has-this"}, "expected the group nobody-has-this, found no such group"),
        ({"keys": [{"name": "a\nshutdown sessions", "sha256": "0" * 64}]}, "a key to have a name and a sha256"),
        ({"keys": [{"name": "otto", "sha256": "0; show env"}]}, "a key to have a name and a sha256"),
    ],
)
def test_what_cannot_be_done_is_said(give: Give, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    (tmp_path / "door").mkdir()
    result = give(**{"keys": [OTTO], **options})
    assert result["failed"] and words in result["msg"] and not list((tmp_path / "door").iterdir())


def test_a_host_without_a_front_door_needs_no_keys_and_one_that_lost_its_folder_is_named(
    give: Give, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = give([OTTO], folder=str(tmp_path / "none"))
    assert nowhere["door"] is False and not nowhere["changed"] and not (tmp_path / "none").exists()
    unit = tmp_path / "glm-door.service"
    unit.touch()
    monkeypatch.setattr(door_keys, "UNIT_FILE", unit)
    lost = give([OTTO], folder=str(tmp_path / "none"))
    assert lost["failed"] and "of the front door, found none" in lost["msg"]


def processor_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_thousand_keys_under_load_and_nothing_is_lost(
    front: Door, give: Give, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given again and again while clients ask without a pause; each new key works at once, and is then refused."""
    many = [entry(f"team-{number}", f"key-of-{number}", requests_per_minute=10**6) for number in range(1000)]
    seconds, few = [], []

    def round_of(keys: list[dict[str, Any]]) -> float:
        """A key more and a key less; the mean of the seconds of both."""
        secret = secrets.token_hex(16)
        assert scripted.ask(front.port, secret).status == 401
        begun = time.monotonic()
        assert len(give([ANNA, *keys, entry("new", secret)])["processes"]) == 1
        assert scripted.ask(front.port, secret).status == 200
        give([ANNA, *keys])
        assert scripted.ask(front.port, secret).status == 401
        return (time.monotonic() - begun) / 2

    with Load(front.port, CLIENT_KEY, clients=4) as load:
        for _ in range(5):
            few.append(round_of(many[:10]))
            give([ANNA, *many])
            seconds.append(round_of(many))
            assert scripted.ask(front.port, "key-of-999").status == 200
    # Without the load, whose requests HAProxy works for, too.
    (worker,) = Master(front.folder / "master.sock").processes()
    worked = time.thread_time() + processor_seconds(worker.pid)
    round_of(many)
    computed = (time.thread_time() + processor_seconds(worker.pid) - worked) / 2
    statuses = load.statuses
    with capsys.disabled():
        print(
            f"\n1,000 keys given in {statistics.median(seconds):.2f} s (median of {2 * len(seconds)}; 10 keys in "
            f"{statistics.median(few):.2f} s; processor {computed:.2f} s), "
            f"{len(statuses)} requests meanwhile, {sum(status != 200 for status in statuses)} failed, 0 restarts"
        )
    assert set(statuses) == {200} and computed < 2
    # Two seconds where nothing else runs, and as much more as ten keys take elsewhere.
    assert statistics.median(seconds) < 20 * statistics.median(few)
