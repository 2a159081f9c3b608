"""The guard of a serving unit: devices, port, record, and the proof that an engine serves."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import cdi as host_cdi
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica as unit
from roles.serve.files import serve_guard as guard
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour, engine
from tests.unit.serve.plans import plan, venv

# As `nvidia-ctk cdi generate` writes it, shortened to two GPUs.
CDI = """---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-modeset
    hostPath: {missing}
  - path: /dev/nvidiactl
    hostPath: /dev/null
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
  name: "0"
- name: "1"
  containerEdits:
    deviceNodes:
    - hostPath: /dev/null
      path: /dev/nvidia1
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/null
    - path: /dev/nvidia1
      hostPath: /dev/null
  name: all
kind: nvidia.com/gpu
"""


def specs(folder: Path, text: str, name: str = "nvidia.yaml") -> list[dict[str, Any]]:
    (folder / name).write_text(text, encoding="utf-8")
    made, problems = guard.cdi.read(folders=[str(folder)])
    assert problems == []
    return made


def test_a_spec_in_yaml_is_understood(tmp_path: Path) -> None:
    (spec,) = specs(tmp_path, CDI.format(missing="/dev/null"))
    assert spec["kind"] == "nvidia.com/gpu"
    assert spec["devices"] == {
        "0": {"/dev/nvidia0": "/dev/null"},
        "1": {"/dev/nvidia1": "/dev/null"},
        "all": {"/dev/nvidia0": "/dev/null", "/dev/nvidia1": "/dev/null"},
    }
    assert spec["common"] == {"/dev/nvidia-modeset": "/dev/null", "/dev/nvidiactl": "/dev/null"}
    assert guard.missing_devices(["nvidia.com/gpu=all"], 2, [spec]) == []


def test_a_spec_in_json_is_understood(tmp_path: Path) -> None:
    node = {"path": "/dev/dri/renderD128", "hostPath": "/dev/null"}
    text = json.dumps({"kind": "amd.com/gpu", "devices": [{"name": "all", "containerEdits": {"deviceNodes": [node]}}]})
    made = specs(tmp_path, text, "amd.json")
    assert guard.missing_devices(["amd.com/gpu=all"], 1, made) == []
    assert "lists 1 of the 8 GPUs" in guard.missing_devices(["amd.com/gpu=all"], 8, made)[0]


def test_devices_that_are_missing_are_named(tmp_path: Path) -> None:
    assert "names the device nvidia.com/gpu=all" in guard.missing_devices(["nvidia.com/gpu=all"], 2, [])[0]
    made = specs(tmp_path, CDI.format(missing="/dev/no-such-device"))
    assert guard.missing_devices(["nvidia.com/gpu=all"], 2, made) == ["the device file /dev/no-such-device is missing"]
    assert "lists 2 of the 8 GPUs" in guard.missing_devices(["nvidia.com/gpu=all"], 8, made)[1]


def small(missing: str, name: str = "all") -> str:
    nodes = f"    - path: /dev/nvidia0\n      hostPath: {missing}\n"
    return f"kind: nvidia.com/gpu\ndevices:\n- name: {name}\n  containerEdits:\n    deviceNodes:\n{nodes}"


def two_folders(tmp_path: Path, **files: str) -> list[dict[str, Any]]:
    """Specs as Docker finds them: ``etc_a`` is the file a.yaml of the folder that yields to ``run``'s files."""
    for folder in ("etc", "run"):
        (tmp_path / folder).mkdir()
    for name, text in files.items():
        folder, _, stem = name.partition("_")
        (tmp_path / folder / f"{stem}.yaml").write_text(text, "utf-8")
    return guard.cdi.read(folders=[str(tmp_path / "etc"), str(tmp_path / "run")])[0]


def test_of_two_folders_the_later_one_has_the_word_for_each_device(tmp_path: Path) -> None:
    """cncf-tags/container-device-interface, pkg/cdi/cache.go: by qualified device name, the higher priority wins."""
    made = two_folders(tmp_path, etc_nvidia=CDI.format(missing="/dev/no-such-device"), run_nvidia=small("/dev/null"))
    assert guard.missing_devices(["nvidia.com/gpu=all"], 1, made) == []
    assert guard.missing_devices(["nvidia.com/gpu=1"], 1, made) == ["the device file /dev/no-such-device is missing"]
    assert "lists 1 of the 2 GPUs" in guard.missing_devices(["nvidia.com/gpu=all"], 2, made)[0]


def test_a_stale_file_of_the_later_folder_is_not_mended_by_the_earlier_one(tmp_path: Path) -> None:
    made = two_folders(tmp_path, etc_nvidia=small("/dev/null"), run_nvidia=small("/dev/no-such-device"))
    assert guard.missing_devices(["nvidia.com/gpu=all"], 1, made) == ["the device file /dev/no-such-device is missing"]


def test_a_device_that_stands_twice_in_one_folder_is_nobodys(tmp_path: Path) -> None:
    made = two_folders(tmp_path, etc_a=small("/dev/null"), etc_b=small("/dev/null"), run_c=small("/dev/null"))
    (problem,) = guard.missing_devices(["nvidia.com/gpu=all"], 1, made)
    assert f"{tmp_path}/etc/a.yaml and {tmp_path}/etc/b.yaml both name the device nvidia.com/gpu=all" in problem


def test_a_file_that_docker_does_not_read_is_not_read(tmp_path: Path) -> None:
    """Docker takes .json and .yaml."""
    assert specs(tmp_path, CDI.format(missing="/dev/null"), "nvidia.yml") == []


def test_a_replica_asks_for_its_own_gpus_only(tmp_path: Path) -> None:
    text = CDI.format(missing="/dev/null").replace("path: /dev/nvidia1", "path: /dev/nvidia1 ")
    (spec,) = specs(tmp_path, text)
    spec["devices"]["1"]["/dev/nvidia1"] = "/dev/no-such-device"
    assert guard.missing_devices(["nvidia.com/gpu=0"], 2, [spec]) == []
    assert guard.missing_devices(["nvidia.com/gpu=1"], 2, [spec]) == ["the device file /dev/no-such-device is missing"]


def test_render_nodes_are_counted_where_there_is_no_cdi(tmp_path: Path) -> None:
    """AMD: what the plan passes are /dev/kfd and the folder /dev/dri."""
    wanted = ["/dev/kfd", "/dev/dri"]
    assert guard.missing_nodes(wanted, 2, tmp_path) == ["/dev/kfd is missing", "/dev/dri is missing"]
    (tmp_path / "dev/dri").mkdir(parents=True)
    for name in ("kfd", "dri/card0", "dri/card1", "dri/card2", "dri/renderD128"):
        (tmp_path / "dev" / name).touch()
    assert guard.missing_nodes(wanted, 2, tmp_path) == ["/dev/dri/renderD* are 1 of the 2 GPUs of the plan"]
    (tmp_path / "dev/dri/renderD129").touch()
    assert guard.missing_nodes(wanted, 2, tmp_path) == []


def prestart(*words: str) -> argparse.Namespace:
    common = ["--container", "glm-serve-0", "--address", "127.0.0.1", "--port", "1", "--wait", "0", "--gpus", "8"]
    return guard.parse(["prestart", "--unit", "glm-serve-0.service", "--slice", "glm-serve-0.slice", *common, *words])


@pytest.mark.parametrize(
    ("words", "place"),
    [(["--device", "nvidia.com/gpu=all"], "nvidia-cdi-refresh"), (["--node", "/dev/no-such-node"], "dmesg")],
)
def test_waiting_for_devices_ends_at_its_deadline(
    words: list[str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard.cdi, "read", lambda: ([], []))
    with pytest.raises(guard.GuardError, match=place):
        guard.wait_for_devices(prestart(*words))


def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia.yaml").write_text(small("/dev/null").replace("kind:", "kind: &kind"), "utf-8")
    read = guard.cdi.read
    monkeypatch.setattr(guard.cdi, "read", lambda: read(folders=[str(tmp_path)]))
    with pytest.raises(guard.GuardError, match=r"cannot read .*nvidia.yaml: line 1: an anchor is not read here"):
        guard.wait_for_devices(prestart("--device", "nvidia.com/gpu=all"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guard as the role serve puts it on a host, with its reader of CDI specs beside it."""
    folder = tmp_path_factory.mktemp("lib")
    shutil.copy(Path(host_cdi.__file__), folder / "glm_cdi.py")
    shutil.copy(Path(guard.restarts.__file__), folder / "glm_restarts.py")
    shutil.copy(Path(guard.serve_filter.__file__), folder)
    return Path(shutil.copy(Path(guard.__file__), folder / "serve_guard.py"))


def test_the_guard_of_a_host_finds_its_reader_beside_it(installed: Path) -> None:
    """With no collection on that host."""
    code = (
        f"import sys\nsys.path.insert(0, {str(installed.parent)!r})\nimport serve_guard as guard\n"
        "print(guard.missing_devices(['nvidia.com/gpu=none'], 1, guard.cdi.read()[0]))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "no CDI spec in /etc/cdi or /var/run/cdi names the device nvidia.com/gpu=none" in done.stdout


def test_a_host_without_cdi_is_not_asked_for_specs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard.cdi, "read", lambda: pytest.fail("there is no CDI on this host"))
    guard.wait_for_devices(prestart("--node", "/dev/null"))


def test_a_port_in_use_is_named_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is in use" in str(guard.port_problem("127.0.0.1", port))
        with pytest.raises(guard.GuardError, match="in use"):
            guard.wait_for_port("127.0.0.1", port, seconds=0)
    assert guard.port_problem("127.0.0.1", port) is None
    assert "is not an address of this host" in str(guard.port_problem("192.0.2.1", port))


def test_the_record_holds_the_checksums_of_what_was_started(tmp_path: Path) -> None:
    file = tmp_path / "serve-0.env"
    file.write_text("A=1\n", encoding="utf-8")
    guard.stamp([str(file)], str(tmp_path))
    record = json.loads((tmp_path / "started.json").read_text(encoding="utf-8"))
    assert record == {str(file): hashlib.sha256(b"A=1\n").hexdigest()}


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.secret.env", f"#\n# Managed\n#\nVLLM_API_KEY={KEY}\n"), ("a.secret.yaml", f'# Managed\napi-key: "{KEY}"\n')],
)
def test_the_key_is_read_from_either_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert guard.read_key(str(tmp_path / name)) == KEY


@pytest.mark.parametrize("key", ["glm-abc", 'a"b', "a\\b", "$x`y", "'q'"])
@pytest.mark.parametrize("made", [plan(), venv(), plan("sglang")], ids=["docker", "systemd", "yaml"])
def test_the_key_is_read_as_the_engine_reads_it(made: dict[str, Any], key: str, tmp_path: Path) -> None:
    file = tmp_path / Path(unit.replica(made)["files"]["secret"]).name
    file.write_text("# header\n" + unit.secret_file(made, key, "glm-admin"), encoding="utf-8")
    assert guard.read_key(str(file)) == key
    assert key in _serving.read_secrets([str(file)]), "or a log could show it"
    assert made["secret"]["kind"] == "env" or "glm-admin" in _serving.read_secrets([str(file)])


def prove(port: int, secret: Path, pid: int, *more: str, wait: int = 10, key: str = KEY) -> None:
    secret.write_text(f"VLLM_API_KEY={key}\n", encoding="utf-8")
    words = f"ready --slice glm-serve-0.slice --address 127.0.0.1 --port {port} --model {MODEL} --wait {wait} --secret"
    guard.ready(guard.parse([*words.split(), str(secret), *more]), pid)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return tmp_path / "serve-0.secret.env"


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the guard wants to sleep; it does not get it."""
    wanted, real = [], time.sleep

    def nap(seconds: float) -> None:
        wanted.append(seconds)
        real(min(seconds, 0.05))

    monkeypatch.setattr(guard.time, "sleep", nap)
    return wanted


def test_ready_means_a_chat_was_answered(secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with engine() as (behaviour, port):
        prove(port, secret, os.getpid())
    assert behaviour.requests[0]["max_tokens"] == 1
    assert f"{MODEL} answers a chat" in capsys.readouterr().err


def test_health_and_models_without_a_chat_are_not_ready(secret: Path) -> None:
    with engine(Behaviour(chat_status=500)) as (behaviour, port):
        with pytest.raises(guard.GuardError, match="answers /v1/models but not a chat: HTTP 500"):
            prove(port, secret, os.getpid())
        assert len(behaviour.requests) == guard.CHAT_ATTEMPTS


def test_a_chat_that_hangs_ends_with_the_budget(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, chat_problem = [], guard.chat_problem

    def asked(options: argparse.Namespace, seconds: float) -> str | None:
        given.append(seconds)
        return chat_problem(options, seconds)

    monkeypatch.setattr(guard, "chat_problem", asked)
    with engine(Behaviour(hang=True)) as (_behaviour, port), pytest.raises(guard.GuardError, match="no answer within"):
        prove(port, secret, os.getpid(), wait=2)
    # All of what was left, and each next try what the one before left of it.
    assert 0 < sum(given) <= 2.1


@pytest.mark.parametrize(
    ("behaviour", "key", "words"),
    [(Behaviour(), "glm-wrong", "refuses the key"), (Behaviour(model="llama"), KEY, r"lists \['llama'\]")],
)
def test_waiting_stops_where_it_cannot_help(behaviour: Behaviour, key: str, words: str, secret: Path) -> None:
    with engine(behaviour) as (_behaviour, port), pytest.raises(guard.GuardError, match=words):
        prove(port, secret, os.getpid(), wait=60, key=key)


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_container_that_ended_before_the_guard_looked_fails_the_start_at_once(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_there(*_words: str) -> str:
        raise guard.serve_filter.FilterError("no such container")

    monkeypatch.setattr(guard.serve_filter, "run", nothing_there)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(guard.GuardError, match="the engine ended"):
        prove(closed_port(), secret, gone.pid, "--container", "glm-serve-0", wait=600)


def test_an_engine_that_ends_is_noticed_at_once(
    secret: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    looks, started_at = [], guard.started_at

    def looked(pid: int) -> str | None:
        looks.append(started_at(pid))
        return looks[-1]

    monkeypatch.setattr(guard, "started_at", looked)
    child = subprocess.Popen(["sleep", "0.3"])
    try:
        with pytest.raises(guard.GuardError, match="the engine ended"):
            prove(closed_port(), secret, child.pid, wait=2 * PATIENCE_SECONDS)
        assert looks.count(None) == 1, "it is noticed by the first look after the end"
        assert max(naps) <= 2
    finally:
        child.wait()


def test_an_engine_that_never_listens_ends_with_the_budget(secret: Path) -> None:
    with pytest.raises(guard.GuardError, match="within its budget of 1 s"):
        prove(closed_port(), secret, os.getpid(), wait=1)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the guard keeps ends, not on this machine."""
    path = tmp_path / "kept" / "glm-serve-0.json"
    monkeypatch.setattr(guard.restarts, "file_of", lambda _unit: path)
    return path


# What systemd says of a unit in ExecStopPost=, by what happened. Monotonic times are microseconds.
SERVED = {"ActiveEnterTimestampMonotonic": "2", "InactiveExitTimestampMonotonic": "1"}
STARTING = {"ActiveEnterTimestampMonotonic": "0", "InactiveExitTimestampMonotonic": "1"}


@pytest.mark.parametrize(
    ("seen", "environment", "counts"),
    [
        pytest.param({**SERVED, "Job": ""}, ("signal", "killed", "KILL"), True, id="killed"),
        # What SGLang does when it is stopped counts as success, and is a crash when nobody stopped it.
        pytest.param({**SERVED, "Job": ""}, ("success", "exited", "137"), True, id="killed-itself"),
        pytest.param({**SERVED, "Job": "7"}, ("success", "exited", "137"), False, id="stopped"),
        pytest.param({**SERVED, "Job": "7"}, ("timeout", "killed", "KILL"), False, id="stopped-and-killed"),
        pytest.param({**SERVED, "Job": ""}, ("success", "exited", "0"), False, id="ended"),
        # A start is a job, too.
        pytest.param({**STARTING, "Job": "7"}, ("exit-code", "exited", "1"), True, id="start-failed"),
        pytest.param({**STARTING, "Job": "7"}, ("success", "exited", "0"), False, id="start-stopped"),
    ],
)
def test_an_end_that_nobody_asked_for_is_kept(
    seen: dict[str, str], environment: tuple[str, str, str], counts: bool, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "shown", lambda _unit: seen)
    for name, value in zip(("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"), environment, strict=True):
        monkeypatch.setenv(name, value)
    assert guard.main(["poststop", "--unit", "glm-serve-0.service"]) == 0
    assert len(guard.restarts.read(kept)["ends"]) == counts


def test_only_a_start_by_systemd_itself_waits(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(guard.time, "sleep", slept.append)
    for _crash in range(3):
        guard.restarts.add(kept, {"served": 5.0})
    for restarts, waits in (("0", []), ("1", [30])):
        monkeypatch.setattr(guard, "shown", lambda _unit, number=restarts: {"NRestarts": number})
        guard.wait_after_crashes("glm-serve-0.service")
        assert slept == waits
    assert "waiting 30 s: it ended 3 times in a row" in capsys.readouterr().err
    kept.write_text("{", encoding="utf-8")
    guard.wait_after_crashes("glm-serve-0.service")
    assert slept == [30, 0] and "cannot read how often it ended" in capsys.readouterr().err


def test_the_first_answer_of_what_somebody_started_begins_a_new_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, log = tmp_path / "glm-serve-0.json", tmp_path / "log"
    monkeypatch.setattr(guard.restarts, "file_of", lambda _unit: kept)
    systemctl = tmp_path / "systemctl"
    monkeypatch.setattr(guard.serve_filter, "SYSTEMCTL", str(systemctl))
    for number, begins in (("0", True), ("1", False)):
        systemctl.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = show ] && echo NRestarts={number}\nexit 0\n')
        systemctl.chmod(0o755)
        kept.unlink(missing_ok=True)
        assert guard.main(["answered", "--unit", "glm-serve-0.service"]) == 0
        assert kept.exists() is begins
        assert log.read_text(encoding="utf-8").splitlines()[-1] == "reset-failed glm-serve-0.service"


def test_a_failure_is_one_line_on_stderr_and_status_1(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(guard, "DOCKER", "/no/such/docker")
    assert guard.main(["poststop", "--unit", "glm-serve-0.service", "--container", "glm-serve-0"]) == 1
    assert capsys.readouterr().err.startswith("glm: FAILED: ")


def test_a_leftover_container_is_removed_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = ps ] && cat {tmp_path}/ids\nexit 0\n', encoding="utf-8")
    docker.chmod(0o755)
    monkeypatch.setattr(guard, "DOCKER", str(docker))
    (tmp_path / "ids").write_text("", encoding="utf-8")
    assert guard.main(["poststop", "--unit", "glm-serve-0.service", "--container", "glm-serve-0"]) == 0
    assert "rm" not in log.read_text(encoding="utf-8")
    (tmp_path / "ids").write_text("0123456789ab\n", encoding="utf-8")
    assert guard.main(["poststop", "--unit", "glm-serve-0.service", "--container", "glm-serve-0"]) == 0
    assert log.read_text(encoding="utf-8").splitlines()[-1] == "rm --force --volumes glm-serve-0"


def test_render_nodes_do_not_count_as_gpus_of_nvidia() -> None:
    paths = [f"/dev/{kind}{number}" for number in range(4) for kind in ("nvidia", "dri/renderD12")]
    spec = {"kind": "nvidia.com/gpu", "devices": {"all": dict.fromkeys(paths, "/dev/null")}, "common": {}}
    spec.update(path="/etc/cdi/nvidia.yaml")
    assert "lists 4 of the 8 GPUs" in guard.missing_devices(["nvidia.com/gpu=all"], 8, [spec])[0]


def node_words(number: int, port: int) -> list[str]:
    words = ["node", "--slice", "glm-serve-0.slice", "--own", "127.0.0.1", "--rank", str(number), "--count", "2"]
    return [*words, "--head", "127.0.0.1", "--port", str(port), "--stop", "5"]


def rank_of(guard: Path, number: int, port: int, *command: str) -> subprocess.Popen[str]:
    words = node_words(number, port)
    argv = [sys.executable, "-I", str(guard), *words, "--", *command]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def ranks() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        # The engine, too: here no control group ends it with its guard.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


ENGINE = (sys.executable, "-uc", "import time; print('engine'); time.sleep(900)")


@pytest.mark.parametrize("first", [0, 1])
def test_no_rank_starts_before_all_are_there(installed: Path, ranks: list[subprocess.Popen[str]], first: int) -> None:
    port = closed_port()
    ranks.append(rank_of(installed, first, port, sys.executable, "-c", "import time; print('began', time.time())"))
    time.sleep(0.7)
    late = time.time()
    ranks.append(rank_of(installed, 1 - first, port, *ENGINE))
    out, _err = ranks[0].communicate(timeout=300)
    assert float(out.split()[1]) >= late


@pytest.mark.parametrize("gone", [0, 1])
def test_when_one_rank_is_gone_the_other_ends_to_be_started_again(
    installed: Path, ranks: list[subprocess.Popen[str]], gone: int
) -> None:
    port = closed_port()
    ranks += [rank_of(installed, 0, port, *ENGINE), rank_of(installed, 1, port, *ENGINE)]
    for process in ranks:
        assert process.stdout.readline() == "engine\n"
    ranks[gone].kill()
    _out, said = ranks[1 - gone].communicate(timeout=300)
    assert ranks[1 - gone].returncode == guard.PEER_LOST
    assert f"rank {gone} is gone" in said


def test_the_status_of_the_engine_is_the_rank_s_and_a_stop_is_given_on(
    installed: Path, ranks: list[subprocess.Popen[str]]
) -> None:
    port = closed_port()
    stoppable = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('engine'); time.sleep(900)"
    ranks += [rank_of(installed, 0, port, sys.executable, "-uc", stoppable), rank_of(installed, 1, port, *ENGINE)]
    for process in ranks:
        assert process.stdout.readline() == "engine\n"
    ranks[0].terminate()
    assert ranks[0].wait(300) == 0 and ranks[1].wait(300) == guard.PEER_LOST
    ranks += [rank_of(installed, 0, port, "/bin/sh", "-c", "kill -9 $$"), rank_of(installed, 1, port, *ENGINE)]
    assert ranks[2].wait(300) == 137


def test_a_first_host_that_loses_power_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        peers = guard.Peers(guard.parse([*node_words(1, port), "--", "engine"]))

        def head() -> None:
            rank, _address = server.accept()
            assert rank.recv(16) == b"1\n"
            rank.sendall(b"go")
            rank.close()

        greeting = threading.Thread(target=head)
        greeting.start()
        peers.meet()
        greeting.join()
    link = peers.links["rank 0"]
    assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, interval, count = (
        link.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert idle + interval * count <= guard.SILENCE_SECONDS


def test_ranks_that_are_there_say_so_once_a_second_and_not_in_answer_to_each_other() -> None:
    ends = socket.socketpair()
    ranks = []
    for rank, link in enumerate(ends):
        peers = guard.Peers(guard.parse([*node_words(rank, 1), "--", "engine"]))
        peers.links = {"other": link}
        peers.heard = {"other": time.monotonic()}
        ranks.append(peers)
    said: list[float] = []
    until = time.monotonic() + 3

    def watch(peers: Any) -> None:
        while time.monotonic() < until:
            assert peers.lost() is None
            said.append(time.monotonic())

    watchers = [threading.Thread(target=watch, args=(peers,)) for peers in ranks]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    for link in ends:
        link.close()
    # Each says it every second, and wakes when the other does.
    assert 4 <= len(said) <= 20


def test_a_rank_that_waits_ends_at_once_when_it_is_stopped(installed: Path, ranks: list[subprocess.Popen[str]]) -> None:
    ranks.append(rank_of(installed, 1, closed_port(), *ENGINE))
    assert "waiting for the first host" in ranks[0].stderr.readline()
    ranks[0].terminate()
    assert ranks[0].wait(10) == 0


def test_a_rank_without_its_address_says_which_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("127.0.0.1", "10.255.255.9") for word in node_words(1, 1)]
    assert guard.main([*words, "--", "engine"]) == 1
    said = capsys.readouterr().err
    assert "expected 10.255.255.9 to be an address of this host" in said and "glm_private_address" in said


@pytest.mark.parametrize(("inside", "status"), [(True, 0), (False, 1)])
def test_the_container_of_each_rank_is_looked_for_in_the_slice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], inside: bool, status: int
) -> None:
    """A worker has no proof of readiness: what its container is in was seen on the first host only."""
    asked: list[tuple[str, str, list[str]]] = []

    class Alone(guard.Peers):
        def meet(self) -> None:
            return

        def lost(self) -> None:
            time.sleep(0.05)

    def admitted(slice_name: str, container: str, peers: list[str]) -> bool:
        asked.append((slice_name, container, peers))
        if not inside:
            raise guard.serve_filter.FilterError("its container is elsewhere")
        return len(asked) > 1

    monkeypatch.setattr(guard, "Peers", Alone)
    monkeypatch.setattr(guard.serve_filter, "admitted", admitted)
    engine = [sys.executable, "-c", f"import time; time.sleep({1 if inside else 900})"]
    words = [*node_words(1, 1), "--container", "glm-serve-0", "--peer", "10.0.0.6"]
    assert guard.main([*words, "--", *engine]) == status
    # Not there yet, then seen, and not asked again.
    assert asked == [("glm-serve-0.slice", "glm-serve-0", ["10.0.0.6"])] * (2 if inside else 1)
    assert ("FAILED: its container is elsewhere" in capsys.readouterr().err) is not inside
