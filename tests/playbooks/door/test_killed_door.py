"""A door that dies under load: other doors lose nothing, and it is back within two seconds."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.load import Load
from tests.playbooks.door.proxy import CLIENT_KEY
from tests.playbooks.door.scripted import Client
from tests.unit.serve.render import render_host

pytestmark = pytest.mark.one_core


def restart_seconds() -> float:
    """What systemd waits before it starts the door again."""
    unit = render_host("glm-door.service", door=proxy.data(Path("/x"), [8000], [8001], 9800))
    (milliseconds,) = re.findall(r"^RestartSec=(\d+)ms$", unit, re.MULTILINE)
    assert "StartLimitIntervalSec=0" in unit and "Restart=always" in unit
    return int(milliseconds) / 1000


def test_another_door_loses_nothing_and_the_one_that_died_is_back_within_two_seconds(tmp_path: Path) -> None:
    folders = [tmp_path / "dying", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    with (
        scripted.engine() as engine,
        proxy.running(folders[0], engine.port) as dying,
        proxy.running(folders[1], engine.port) as other,
    ):
        streams = [Client(door.port, CLIENT_KEY) for door in (dying, other)]
        cut, kept = [client.begin(pieces=["data: x\n\n"], hold=True) for client in streams]
        assert engine.held.acquire(timeout=PATIENCE_SECONDS) and engine.held.acquire(timeout=PATIENCE_SECONDS)
        with Load(other.port, CLIENT_KEY, clients=2) as load:
            worker = Master(folders[0] / "master.sock").processes()[0].pid
            # As systemd does with what is left of a unit whose main process died.
            for pid in (dying.process.pid, worker):
                os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            dying.process.wait(60)
            assert body_of(cut) is None, "the stream of the door that died ended as if it were whole"
            time.sleep(restart_seconds())
            dying.process = again = subprocess.Popen(dying.process.args, stderr=subprocess.DEVNULL)
            try:
                until_answered(dying.port)
                seconds = time.monotonic() - died
                engine.go.set()
                assert kept.read() == b"data: x\n\n"
            finally:
                again.terminate()
                again.wait(30)
        assert load.statuses and set(load.statuses) == {200}
        assert seconds <= 2, f"back after {seconds:.1f} s"


def body_of(answer: http.client.HTTPResponse) -> bytes | None:
    """The body of an answer; None when its connection ended before it did."""
    try:
        return answer.read()
    except (OSError, http.client.HTTPException):
        return None


def until_answered(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            if scripted.ask(port, CLIENT_KEY).status == 200:
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the door did not come back")


def test_a_thread_of_the_load_that_dies_fails_the_test() -> None:
    """Nothing listens there: no request is sent, and none must count as answered."""
    (port,) = proxy.free_ports(1)
    threads = threading.active_count()
    with pytest.raises(ConnectionRefusedError), Load(port, CLIENT_KEY, clients=3):
        time.sleep(0.2)
    assert threading.active_count() == threads
