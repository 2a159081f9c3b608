"""A replica that drains says so to balancers, without a key, until a moment; what comes all the same is served."""

from __future__ import annotations

import contextlib
import grp
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.door import drain
from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from ansible_collections.glm.fleet.plugins.modules import door_drain
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.shipped import shipped_program
from tests.playbooks.door import proxy
from tests.playbooks.door.proxy import CLIENT_KEY, Door
from tests.playbooks.door.scripted import Client, engine
from tests.playbooks.door.scripted import ask as chat

pytestmark = pytest.mark.one_core


def ready(port: int, method: str = "GET") -> tuple[int, Any]:
    """What a balancer is answered, which has no key."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, "/ready")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or "null")
    finally:
        connection.close()


SERVING, DRAINING, DOWN = (200, {"state": "serving"}), (404, {"state": "draining"}), (503, {"state": "down"})


def becomes(port: int, wanted: tuple[int, Any], seconds: float = 30) -> float:
    """Seconds until /ready says it."""
    begun = time.monotonic()
    while (found := ready(port)) != wanted:
        assert time.monotonic() - begun < seconds, found
        time.sleep(0.02)
    return time.monotonic() - begun


def of(front: Door) -> drain.Door:
    """The door as programs of its host see it."""
    group = grp.getgrgid(os.getgid()).gr_name
    return drain.Door(drain.Place(front.folder / "door", front.folder / "master.sock", group=group))


def one(front: Door, name: str = "engine-0") -> drain.Replica:
    return next(replica for replica in of(front).view().replicas if replica.name == name)


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[tuple[Door, Any]]:
    with engine() as behind, engine() as other, proxy.running(tmp_path, behind.port, other.port) as front:
        yield front, behind


def reload(front: Door) -> None:
    """As ``systemctl reload`` does; returns when another process answers."""
    master = Master(front.folder / "master.sock")
    before = master.processes()[0].pid
    front.process.send_signal(signal.SIGUSR2)
    while master.processes()[0].pid == before:
        time.sleep(0.02)


def test_only_readiness_changes_and_only_of_the_replica_that_drains(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    assert [ready(port) for port in front.ports] == [SERVING, SERVING]
    until = int(time.time()) + 600
    assert of(front).mark(["engine-0"], until)
    assert [ready(port) for port in front.ports] == [DRAINING, SERVING]
    assert (one(front).state, one(front).until) == ("draining", until)
    # Balancers notice a second later: what they send until then is served.
    assert chat(front.port, CLIENT_KEY).status == 200
    assert chat(front.port, "wrong").status == 401
    assert not of(front).mark(["engine-0"], until)
    assert of(front).mark(["engine-0"], None)
    assert ready(front.port) == SERVING and one(front).state == "serving"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_else_answers_there(fronted: tuple[Door, Any], method: str) -> None:
    assert ready(fronted[0].port, method)[0] == 404
    assert ready(fronted[0].port, method)[1]["error"]["code"] == "not_found"


def test_a_drain_ends_by_the_clock_though_nobody_admits(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    of(front).mark(["engine-0"], int(time.time()) + 3)
    assert ready(front.port) == DRAINING
    becomes(front.port, SERVING)
    assert (one(front).state, one(front).until) == ("serving", None)


def test_a_reload_and_a_restart_keep_it(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    of(front).mark(["engine-1"], int(time.time()) + 600)
    reload(front)
    assert [ready(port) for port in front.ports] == [SERVING, DRAINING]


def test_a_process_that_a_reload_left_behind_says_it_too(fronted: tuple[Door, Any]) -> None:
    front, behind = fronted
    stream, balancer = Client(front.port, CLIENT_KEY), http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)
    answer = stream.begin(hold=True)
    balancer.request("GET", "/ready")
    assert balancer.getresponse().read()
    reload(front)
    assert one(front).open == 1, "what the old process still has open counts"
    of(front).mark(["engine-0"], int(time.time()) + 600)
    # HAProxy ends a kept connection with its next answer, which is the old process's.
    balancer.request("GET", "/ready")
    with contextlib.suppress(http.client.RemoteDisconnected):
        assert balancer.getresponse().status == 404
    behind.go.set()
    assert answer.read() == b"{}"
    stream.close()
    balancer.close()


def test_an_engine_that_is_gone_is_down_and_back_at_once(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(engine())
        front = stack.enter_context(proxy.running(tmp_path, behind.port))
        assert ready(front.port) == SERVING
        port = behind.port
        behind.shutdown()
        behind.server_close()
        gone = becomes(front.port, DOWN)
        assert one(front).state == "down"
        assert chat(front.port, CLIENT_KEY).status == 503
        back = type(behind)(port)
        threading.Thread(target=back.serve_forever, args=(0.01,), daemon=True).start()
        # A request is passed on before any check has found the engine.
        assert chat(front.port, CLIENT_KEY).status == 200
        returned = becomes(front.port, SERVING)
        print(f"down after {gone:.2f} s, serving after {returned:.2f} s")
        back.shutdown()
        back.server_close()


def test_a_unit_s_mark_and_a_person_s_do_not_touch_each_other(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    door = of(front)
    door.mark(["engine-0"], int(time.time()) + 600)
    door.mark(["engine-0"], int(time.time()) + 60, of_unit=True)
    door.mark(["engine-0"], None, of_unit=True)
    assert ready(front.port) == DRAINING
    door.mark(["engine-0"], int(time.time()) + 60, of_unit=True)
    door.mark(["engine-0"], None)
    assert ready(front.port) == DRAINING
    door.mark(["engine-0"], None, of_unit=True)
    assert ready(front.port) == SERVING


def test_what_was_over_leaves_the_file(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    of(front).mark(["engine-0"], int(time.time()) - 1)
    of(front).mark(["engine-1"], int(time.time()) + 600)
    assert (front.folder / "door" / "drain.map").read_text().split()[0] == "engine-1"


@contextmanager
def installed(folder: Path, front: Door) -> Iterator[list[str]]:
    """The program as a host has it, and its command line."""
    for file in shipped_program("door_drain"):
        path = folder / file["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"], encoding="utf-8")
    place = ["--folder", str(front.folder / "door"), "--socket", str(front.folder / "master.sock")]
    group = ["--group", grp.getgrgid(os.getgid()).gr_name]
    program = folder / "usr/local/lib/glm/door_drain"
    yield [sys.executable, "-I", "-B", str(program), *place, *group]


def said(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_program_of_the_host_waits_until_no_request_runs(fronted: tuple[Door, Any], tmp_path: Path) -> None:
    front, behind = fronted
    stream = Client(front.port, CLIENT_KEY)
    answer = stream.begin(hold=True)
    with installed(tmp_path, front) as program:
        looked = said([*program, "state"])
        assert looked["replicas"][0] == {"name": "engine-0", "state": "serving", "until": None, "open": 1, "taken": 1}
        waiting = subprocess.Popen(
            [*program, "drain", "--replica", "0", "--wait", "120"], stdout=subprocess.PIPE, text=True
        )
        becomes(front.port, DRAINING)
        assert waiting.poll() is None
        behind.go.set()
        assert answer.read() == b"{}"
        drained = json.loads(waiting.communicate(timeout=60)[0])
        assert (drained["waited"], drained["changed"]) == ("no request runs", True)
        assert (drained["replicas"][0]["state"], drained["replicas"][0]["open"]) == ("draining", 0)
        assert said([*program, "drain", "--seconds", "600"])["replicas"][1]["state"] == "draining"
        admitted = said([*program, "admit"])
        assert [replica["state"] for replica in admitted["replicas"]] == ["serving", "serving"]
    stream.close()


def test_a_crash_drains_nothing(fronted: tuple[Door, Any], tmp_path: Path) -> None:
    """systemd runs ExecStop after it, too, with no main process to stop."""
    front, _engine = fronted
    with installed(tmp_path, front) as program:
        words = [*program, "drain", "--replica", "0", "--of-unit", "--seconds", "60"]
        for pid, state in (("", "serving"), ("123", "draining")):
            done = subprocess.run(
                words, env={**os.environ, "MAINPID": pid}, capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert of(front).view().replicas[0].state == state


def test_a_replica_that_the_door_lacks_has_no_requests(fronted: tuple[Door, Any]) -> None:
    front, _engine = fronted
    view = of(front).view()
    assert view.open_of(["engine-0", "engine-7"]) == 0
    assert replace(view, running=False).open_of(["engine-0", "engine-7"]) is None


def test_the_time_of_a_wait_is_kept(fronted: tuple[Door, Any], tmp_path: Path) -> None:
    front, behind = fronted
    stream = Client(front.port, CLIENT_KEY)
    answer = stream.begin(hold=True)
    with installed(tmp_path, front) as program:
        assert said([*program, "drain", "--replica", "0", "--wait", "1"])["waited"] == "the time is over"
    behind.go.set()
    assert answer.read() == b"{}"
    stream.close()


def test_a_door_without_the_map_is_named(fronted: tuple[Door, Any], asked: Callable[..., dict[str, Any]]) -> None:
    front, _engine = fronted
    config = front.folder / "door" / "haproxy.cfg"
    text = config.read_text(encoding="utf-8")
    config.write_text("\n".join(line for line in text.splitlines() if "drain.map" not in line) + "\n", encoding="utf-8")
    reload(front)
    with pytest.raises(drain.Unmet, match="deploy the host with --tags door"):
        of(front).mark(["engine-0"], int(time.time()) + 60)
    # An upgrade goes on.
    assert "earlier release" in asked(state="draining")["caution"]


@pytest.fixture
def asked(fronted: tuple[Door, Any], run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The module with the door's files."""
    front, _engine = fronted
    place = {"folder": str(front.folder / "door"), "socket": str(front.folder / "master.sock")}
    group = grp.getgrgid(os.getgid()).gr_name
    return lambda **options: run_module(door_drain.main, **{**place, "group": group, **options})


def test_the_module_says_what_it_would_do_and_does_it(
    fronted: tuple[Door, Any], asked: Callable[..., dict[str, Any]]
) -> None:
    front, _engine = fronted
    would = asked(state="draining", replicas=[1], check=True)
    assert would["changed"] and [one["state"] for one in would["replicas"]] == ["serving", "serving"]
    done = asked(state="draining", replicas=[1])
    assert done["changed"] and [one["state"] for one in done["replicas"]] == ["serving", "draining"]
    assert not asked(state="read")["changed"]
    assert asked(state="serving", check=True)["changed"] and ready(front.ports[1]) == DRAINING
    assert asked(state="serving")["changed"] and ready(front.ports[1]) == SERVING
    assert not asked(state="serving")["changed"]


def test_a_host_without_a_door_has_nothing_to_drain(asked: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    answer = asked(state="draining", folder=str(tmp_path / "none"))
    assert (answer["changed"], answer["running"], answer["replicas"]) == (False, False, [])


def _view(running: int | None, taken: int) -> drain.View:
    return drain.View([drain.Replica("engine-0", "draining", 1, running, taken)], True, True)


def test_a_wait_ends_early_only_where_requests_go_on_coming() -> None:
    quiet, busy = (drain.Wait(["engine-0"], 600, 0) for _ in range(2))
    moments = range(0, 60, 5)
    assert {quiet.over(_view(1, 7), now) for now in moments} == {""}
    ended = [now for now in moments if busy.over(_view(1, 7 + now), now)]
    assert ended[0] == 25, "three looks in a row after the notice"
    assert quiet.over(_view(None, 7), 599) == "", "not known is not none"
    assert quiet.over(_view(None, 7), 600) == "the time is over"
    assert quiet.over(_view(0, 7), 61) == "no request runs"
