"""What a host says about its serving unit: phases and causes from real log lines, decisions, who has the port."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import occupancy as _occupancy
from ansible_collections.glm.fleet.plugins.module_utils.serving import running
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving
from ansible_collections.glm.fleet.plugins.modules import serving_unit
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs

STARTING = {"ActiveState": "activating", "SubState": "start-post", "LoadState": "loaded"}
# Printed by vLLM 0.32.0 and by SGLang 0.5.10 on their way up.
VLLM = """
starting the engine|(APIServer pid=1) INFO 11-20 23:58:14 [api_utils.py:286] non-default args: {'model_tag': '/m'}
loading weights|(Worker pid=9) INFO 11-20 23:59:12 [cpu_model_runner.py:68] Starting to load model /m...
loading weights: shards 17/142|Loading safetensors checkpoint shards:  12% Completed | 17/142 [00:05<00:40,  3.1it/s]
allocating the KV cache|(Worker pid=9) INFO 11-20 23:59:12 [default_loader.py:501] Loading weights took 41.01 seconds
compiling kernels|DeepGEMM warmup:  31%|###1      | 5120/16384 [02:11<04:40]
capturing graphs|Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|####
warming up|(EngineCore pid=7) INFO [core.py:402] init engine (profile, create kv cache, warmup model) took 3.37 s
waiting for the first answer|(APIServer pid=1) INFO [entry.py:140] Starting vLLM server on http://0.0.0.0:8000
"""
SGLANG = """
starting the engine|[2026-11-20 23:58:14] server_args=ServerArgs(model_path='/m', api_key='glm-test-key')
loading weights|[2026-11-20 23:58:20 TP0] Load weight begin. avail mem=178.1 GB
loading weights: shards 53/142|Multi-thread loading shards:  37% Completed | 53/142 [00:09<00:17,  5.1it/s]
allocating the KV cache|[2026-11-20 23:59:20 TP0] Load weight end. elapsed=60 s
compiling kernels|[2026-11-20 23:59:20 TP0] Entering DeepGEMM JIT Pre-Compile session.
capturing graphs|[2026-11-20 23:59:20 TP0] Capture cuda graph begin. This can take up to several minutes.
warming up|[2026-11-20 23:59:20 TP0] Capture cuda graph end. Time elapsed: 20.20 s.
waiting for the first answer|[2026-11-20 23:59:20] The server is fired up and ready to roll!
"""


COMMON = _serving.Rules()
EVERY = _serving.Rules(logs.rules(None))


def engine_lines(*texts: str) -> list[_serving.Line]:
    return [_serving.Line(text, True) for text in texts]


@pytest.mark.parametrize(
    ("engine", "version", "row"),
    [
        *[("vllm", "0.32.0", row) for row in VLLM.strip().splitlines()],
        *[("sglang", "0.5.10", row) for row in SGLANG.strip().splitlines()],
    ],
)
def test_each_phase_is_known_by_its_line(engine: str, version: str, row: str) -> None:
    expected, _, text = row.partition("|")
    phase, _, detail = expected.partition(": ")
    lines = engine_lines("something else", text, "and a last line")
    for rules in (logs.rules({"name": engine, "version": version}), logs.rules(None)):
        assert _serving.phase_of(STARTING, lines, _serving.Rules(rules)) == (phase, detail)


def test_lines_of_another_engine_say_nothing() -> None:
    rules = _serving.Rules(logs.rules({"name": "vllm", "version": "0.32.0"}))
    assert _serving.phase_of(STARTING, engine_lines("Load weight begin. avail mem=178.1 GB"), rules) == (
        "starting the engine", "",
    )  # fmt: skip


def test_phases_without_engine_lines() -> None:
    waiting = [_serving.Line("glm: waiting for the GPUs: no CDI spec", False)]
    assert _serving.phase_of({**STARTING, "SubState": "start-pre"}, waiting, COMMON) == (
        "waiting for the host", "waiting for the GPUs: no CDI spec",
    )  # fmt: skip
    assert _serving.phase_of(STARTING, waiting, COMMON) == ("starting the program", "")
    assert _serving.phase_of(STARTING, engine_lines("hello"), COMMON) == ("starting the engine", "")
    assert _serving.phase_of({"ActiveState": "active"}, engine_lines("Load weight begin"), EVERY) == ("ready", "")


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("glm: FAILED: the engine answers /v1/models but not a chat: HTTP 500", "not a chat"),
        ("vllm: error: unrecognized arguments: --enable-moe-ep", "does not know an argument"),
        ("docker: Error response from daemon: No such image: vllm/vllm-openai@sha256:ab.", "image is not on the host"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "GPU memory ran out"),
        ("ValueError: Free memory on device cuda:0 (3.1/79 GiB) on startup is less than desired", "another process"),
        ("ValueError: No available memory for the cache blocks. Try increasing", "nothing is left for the KV cache"),
        ("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.", "nothing is left"),
        ("ValueError: Model architectures ['GlmMoeDsaForCausalLM'] are not supported for now.", "too old"),
        ("glm: FAILED: port 8000 on 10.0.0.5 is in use by another program", "port is in use"),
        ("docker: Bind for 10.0.0.5:8000 failed: port is already allocated.", "port is in use"),
        ("docker: could not inject: unresolvable CDI devices nvidia.com/gpu=all", "not given the GPUs"),
        ('docker: Error response from daemon: could not select device driver "cdi" with', "CDI support is off"),
        ("RuntimeError: Error 802: CUDA error 802: system not yet initialized", "fabric"),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver does not fit"),
        ("ValueError: model type `glm_moe_dsa` but Transformers does not recognize this architecture", "too old"),
        ("safetensors_rust.SafetensorError: Error while deserializing header", "truncated"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ValueError: Insufficient space in /dev/shm", "/dev/shm"),
        ("ValueError: Bad tensor parallel size 3", "ValueError: Bad tensor parallel size 3"),
    ],
)
def test_causes_are_named_with_a_next_step(line: str, cause: str) -> None:
    found = _serving.cause_of({"ActiveState": "failed"}, engine_lines("before", line, "after"), EVERY)
    assert cause in found.cause and found.next_step


def test_causes_that_only_systemd_knows() -> None:
    assert "weights" in _serving.cause_of({"AssertResult": "no"}, [], COMMON).cause
    assert "not installed" in _serving.cause_of({"LoadState": "not-found"}, [], COMMON).cause
    assert "start budget" in _serving.cause_of({"Result": "timeout"}, [], COMMON).cause
    assert "SIGKILL" in _serving.cause_of({"ExecMainStatus": "137"}, [], COMMON).cause
    assert _serving.cause_of({}, [], COMMON).cause == "unknown"


def test_a_log_that_could_not_be_read_is_not_called_one_to_read() -> None:
    assert "no line of this start could be read" in _serving.cause_of({}, [], COMMON).next_step
    assert "below" in _serving.cause_of({}, engine_lines("something"), COMMON).next_step


class Host:
    """A host that answers systemctl and journalctl from what the test gives it."""

    def __init__(
        self, properties: dict[str, str], entries: Sequence[dict], entries_of_unit: Sequence[dict] = ()
    ) -> None:
        self.properties = properties
        self.entries = entries
        self.entries_of_unit = entries_of_unit

    def __call__(self, argv: Sequence[str]) -> CommandResult:
        if argv[0] == "systemctl":
            return CommandResult(tuple(argv), 0, "".join(f"{k}={v}\n" for k, v in self.properties.items()), "")
        rows = self.entries_of_unit if "--unit" in argv else self.entries
        return CommandResult(tuple(argv), 0, "".join(json.dumps(row) + "\n" for row in rows), "")


def entry(message: object, identifier: str = "docker") -> dict:
    return {"MESSAGE": message, "SYSLOG_IDENTIFIER": identifier}


def test_a_failed_unit_is_described_without_its_secrets(tmp_path: Path) -> None:
    secret = tmp_path / "serve-0.secret.yaml"
    secret.write_text('# Managed\napi-key: "glm-test-key"\n', encoding="utf-8")
    log = [entry(f"line {n}") for n in range(30)]
    log += [entry("server_args=ServerArgs(api_key='glm-test-key')"), entry("token=hf_abcdefghijkl failed")]
    log += [entry("ValueError: glm-test-key is bad"), entry("Stopped glm-serve-0.service", "systemd")]
    failed = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "1",
              "NRestarts": "1", "InvocationID": "a1"}  # fmt: skip
    answer = _serving.describe(Host(failed, log), "glm-serve-0.service", [str(secret)], EVERY)
    assert (answer["exit_status"], answer["restarts"], len(answer["log"])) == (1, 1, 20)
    assert answer["cause"] == "unknown; the first exception: ValueError: ******** is bad"
    assert "glm-test-key" not in str(answer) and "hf_abc" not in str(answer) and "Stopped" not in str(answer)


def test_a_secret_is_struck_out_before_a_cause_is_shortened(tmp_path: Path) -> None:
    secret = tmp_path / "serve-0.secret.yaml"
    secret.write_text("api-key: glm-test-key-of-some-length\n", encoding="utf-8")
    start = "ValueError: "
    for room in range(280, 300):
        raised = start + "x" * (room - len(start) - 1) + " glm-test-key-of-some-length"
        failed = {"ActiveState": "failed", "InvocationID": "a1"}
        answer = _serving.describe(Host(failed, [entry(raised)]), "u", [str(secret)], EVERY)
        assert "xxx" in answer["cause"] and "glm-t" not in str(answer)


def test_a_secret_after_its_option_is_struck_out() -> None:
    assert _serving.redact("serve --api-key s3cret-1 --hf-token s3cret-2 --port 8000", []) == (
        "serve --api-key ******** --hf-token ******** --port 8000"
    )
    assert "s3cret" not in _serving.redact("['--admin-api-key', 's3cret-3']", [])


def test_no_line_of_the_log_is_shown_when_none_is_asked_for() -> None:
    host = Host({"ActiveState": "failed", "InvocationID": "a1"}, [entry("ValueError: x")])
    assert _serving.describe(host, "u", [], EVERY)["log"] == ["ValueError: x"]
    assert _serving.describe(host, "u", [], EVERY, log_lines=0)["log"] == []


def test_a_healthy_unit_costs_no_journal() -> None:
    active = {"ActiveState": "active", "SubState": "running", "InactiveExitTimestampMonotonic": "1000000",
              "ActiveEnterTimestampMonotonic": "43000000"}  # fmt: skip

    def run(argv: Sequence[str]) -> CommandResult:
        assert argv[0] == "systemctl"
        return Host(active, [])(argv)

    answer = _serving.describe(run, "glm-serve-0.service", [], EVERY)
    assert (answer["phase"], answer["elapsed_seconds"], answer["log"]) == ("ready", 42, [])


def test_progress_bars_and_bytes_are_read_as_lines() -> None:
    bars = list(b"Capturing batches: 10%\rCapturing batches: 20%\xff")
    lines = _serving.read_journal(Host({}, [entry(bars), entry(None)]), "u", "a1")
    assert [line.text for line in lines] == ["Capturing batches: 10%", "Capturing batches: 20%\ufffd"]


def test_a_start_that_left_no_lines_falls_back_to_the_unit() -> None:
    host = Host({}, [], [entry("glm: FAILED: x", "python3")])
    assert [line.text for line in _serving.read_journal(host, "u", "a1")] == ["glm: FAILED: x"]


def test_a_host_without_systemd_is_an_error() -> None:
    def run(argv: Sequence[str]) -> CommandResult:
        return CommandResult(tuple(argv), 1, "", "System has not been booted with systemd")

    with pytest.raises(RuntimeError, match="has not been booted"):
        _serving.describe(run, "u", [], EVERY)


@pytest.mark.parametrize(
    ("state", "changed", "action"),
    [
        ({"ActiveState": "inactive"}, [], "start"),
        ({"ActiveState": "failed"}, ["a"], "start"),
        ({"ActiveState": "active", "SubState": "running"}, [], "none"),
        ({"ActiveState": "active", "SubState": "running"}, ["a"], "restart"),
        ({"ActiveState": "activating", "SubState": "start-post"}, [], "none"),
        ({"ActiveState": "activating", "SubState": "start-post"}, ["a"], "restart"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, [], "restart"),
        ({"ActiveState": "activating", "SubState": "start-pre"}, ["a"], "none"),
        ({"ActiveState": "activating", "SubState": "start-pre", "NeedDaemonReload": "yes"}, ["a"], "restart"),
    ],
)
def test_a_unit_is_touched_only_for_a_reason(state: dict, changed: list, action: str) -> None:
    decided, reasons = serving_unit.decide(state, changed)
    assert decided == action and bool(reasons) == (action != "none")


def test_changed_files_are_those_that_differ_from_the_record(tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    same.write_text("1", encoding="utf-8")
    other.write_text("1", encoding="utf-8")
    files = [str(same), str(other)]
    record = tmp_path / "started.json"
    assert serving_unit.changed_files(files, record) == files
    record.write_text(json.dumps({str(f): running.checksum(str(f)) for f in (same, other)}), encoding="utf-8")
    assert serving_unit.changed_files(files, record) == []
    other.write_text("2", encoding="utf-8")
    assert serving_unit.changed_files(files, record) == [str(other)]


def no_docker(argv: Sequence[str]) -> CommandResult:
    return CommandResult(tuple(argv), 127, "", "not found")


def test_the_process_that_has_the_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        owner = _occupancy.port_owner(no_docker, "127.0.0.1", port)
        assert owner is not None and owner.words.startswith(f"process {os.getpid()} (") and owner.unit is None
        assert _occupancy.port_owner(no_docker, "0.0.0.0", port) is not None
        assert _occupancy.port_owner(no_docker, "127.0.0.2", port) is None
    assert _occupancy.port_owner(no_docker, "127.0.0.1", port) is None


def test_a_listener_on_every_address_has_every_address() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        assert _occupancy.port_owner(no_docker, "127.0.0.1", taken.getsockname()[1]) is not None


def test_a_container_that_has_the_port_is_named() -> None:
    def docker(argv: Sequence[str]) -> CommandResult:
        return CommandResult(tuple(argv), 0, "old-vllm (vllm/vllm-openai:v0.19.0)\n", "")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        owner = _occupancy.port_owner(docker, "127.0.0.1", taken.getsockname()[1])
    assert owner == ("the container old-vllm (vllm/vllm-openai:v0.19.0)", None)


def test_foreign_command_lines_lose_their_secrets() -> None:
    assert _occupancy._without_values("vllm serve --api-key abc --port 1") == "vllm serve --api-key ******** --port 1"


def test_an_address_of_another_host_is_refused() -> None:
    assert _occupancy.address_problem("127.0.0.1") is None
    assert _occupancy.address_problem("192.0.2.1") is not None


def smi(gpus: str, apps: str) -> _occupancy.Runner:
    def run(argv: Sequence[str]) -> CommandResult:
        return CommandResult(tuple(argv), 0, gpus if "--query-gpu" in argv[1] else apps, "")

    return run


def test_gpu_memory_that_others_hold_is_named() -> None:
    run = smi("0, GPU-a, 120000\n1, GPU-b, 4\n", "GPU-a, 4711, python3, 119000\n")
    assert _occupancy.gpu_users(run, "nvidia", [0, 1]) == ["GPU 0: 120000 MiB", "process 4711, python3, 119000"]
    assert _occupancy.gpu_users(run, "nvidia", [1]) == [], "another replica's GPUs are not this one's"
    assert _occupancy.gpu_users(smi("0, GPU-a, 120000\n", ""), "nvidia", [0]) == ["GPU 0: 120000 MiB"]
    assert _occupancy.gpu_users(smi("0, GPU-a, 623\n", ""), "nvidia", [0]) == []


def sees_processes(tmp_path: Path, opened: dict[int, str]) -> Path:
    """A host that shows all of its processes, some of which have a GPU open."""
    for pid, name in {2: "kthreadd", **opened}.items():
        (tmp_path / f"proc/{pid}/fd").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/comm").write_text(f"{name}\n", encoding="utf-8")
        if pid in opened:
            (tmp_path / f"proc/{pid}/fd/3").symlink_to("/dev/nvidia0")
    return tmp_path


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ((15, "", "GPU is lost"), "nvidia-smi ended with 15: GPU is lost"),
        ((124, "", "no answer within 30 s"), "ended with 124: no answer within 30 s"),
        ((0, "", ""), "ended with 0: it prints nothing"),
        ((0, "0, GPU-a, [Unknown Error]\n1, GPU-b, 4\n", ""), "ended with 0: 0, GPU-a, [Unknown Error]"),
        ((14, "1, GPU-b, 4\n", "infoROM is corrupted"), "ended with 14: infoROM is corrupted"),
    ],
)
def test_gpu_memory_that_cannot_be_read_is_in_use(tmp_path: Path, done: tuple[int, str, str], said: str) -> None:
    def run(argv: Sequence[str]) -> CommandResult:
        return CommandResult(tuple(argv), *done)

    busy = _occupancy.gpu_users(run, "nvidia", [0], root=tmp_path)
    assert len(busy) == 1 and busy[0].startswith("GPU 0: memory in use that cannot be read") and said in busy[0]
    assert _occupancy.gpu_users(run, "nvidia", [], root=tmp_path) == [], "a replica without GPUs needs none"
    if "GPU-b" in done[1]:
        assert _occupancy.gpu_users(run, "nvidia", [1], root=tmp_path) == [], "a row that is read is used"


def test_gpus_that_no_process_has_open_are_free_whatever_a_tool_says(tmp_path: Path) -> None:
    nobody = sees_processes(tmp_path / "nobody", {77: "nvidia-persiste"})
    assert _occupancy.gpu_users(no_docker, "nvidia", [0, 1], root=nobody) == []
    somebody = sees_processes(tmp_path / "somebody", {78: "python3"})
    busy = _occupancy.gpu_users(no_docker, "nvidia", [0, 1], root=somebody)
    assert busy[0].startswith("GPU 0, 1: memory in use that") and busy[1:] == ["process 78, python3"]
    group = somebody / "proc/78/cgroup"
    group.write_text("0::/system.slice/glm-serve-0.service\n", encoding="utf-8")
    assert _occupancy.gpu_users(no_docker, "nvidia", [0], ["glm-serve-0.service"], somebody) == []


CONTAINER = "ab" * 32


def groups_of(tmp_path: Path, groups: dict[int, str]) -> Path:
    for pid, group in groups.items():
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "cgroup").write_text(f"0::{group}\n", encoding="utf-8")
    return tmp_path


def test_memory_of_a_replica_that_is_stopped_first_does_not_count(tmp_path: Path) -> None:
    root = groups_of(
        tmp_path,
        {
            1: "/system.slice/glm-serve-0.service",
            2: f"/system.slice/docker-{CONTAINER}.scope",
            3: f"/docker/{CONTAINER}",
            4: "/user.slice/user-1000.slice",
        },
    )
    apps = "".join(f"GPU-{pid}, {pid}, python3, 9000\n" for pid in (1, 2, 3, 4))
    tool = smi("".join(f"{pid}, GPU-{pid}, 9000\n" for pid in (1, 2, 3, 4)), apps)

    def run(argv: Sequence[str]) -> CommandResult:
        if argv[0] == "docker":
            return CommandResult(tuple(argv), 0 if argv[-1] == CONTAINER else 1, "/glm-serve-0\n", "")
        return tool(argv)

    for pid in (1, 2, 3):
        assert _occupancy.serving_unit_of(run, pid, root / "proc") == "glm-serve-0.service"
    assert _occupancy.serving_unit_of(run, 4, root / "proc") is None
    busy = _occupancy.gpu_users(run, "nvidia", [1, 2, 3, 4], ["glm-serve-0.service"], root)
    assert busy == ["GPU 4: 9000 MiB", "process 4, python3, 9000"]
    assert len(_occupancy.gpu_users(run, "nvidia", [1, 2, 3, 4], [], root)) == 8


def test_amd_memory_is_read_from_the_driver(tmp_path: Path) -> None:
    root = groups_of(tmp_path, {77: "/user.slice"})
    (root / "proc/77/cmdline").write_bytes(b"python3\0train.py\0")
    (root / "proc/77/comm").write_text("python3\n", encoding="utf-8")
    (root / "sys/class/kfd/kfd/proc/77").mkdir(parents=True)
    for minor, used in ((128, 10 * 2**20), (136, 90000 * 2**20)):
        device = root / f"sys/class/drm/renderD{minor}/device"
        device.mkdir(parents=True)
        (device / "mem_info_vram_used").write_text(f"{used}\n", encoding="ascii")
    assert _occupancy.gpu_users(no_docker, "amd", [0], root=root) == []
    busy = _occupancy.gpu_users(no_docker, "amd", [0, 1], root=root)
    assert busy == ["GPU 1: 90000 MiB", "process 77 (python3: python3 train.py)"]
    busy = _occupancy.gpu_users(no_docker, "amd", [0, 2], root=root)
    assert len(busy) == 1 and busy[0].startswith("GPU 2: memory in use that cannot be read (2 render nodes")
    assert _occupancy.gpu_users(no_docker, "amd", [0, 1], root=tmp_path / "nothing") != []


@pytest.mark.parametrize(("job", "state"), [("4711", "activating"), ("0", "inactive"), ("", "inactive")])
def test_a_start_that_waits_for_another_unit_is_not_a_failure(job: str, state: str) -> None:
    queued = {"LoadState": "loaded", "ActiveState": "inactive", "SubState": "dead", "Job": job}
    answer = _serving.describe(Host(queued, []), "glm-serve-0.service", [], EVERY)
    assert answer["active_state"] == state
    assert (answer["phase"] == "waiting for the host") is (state == "activating")


def test_a_queued_start_is_not_described_by_the_start_before() -> None:
    queued = {"ActiveState": "failed", "SubState": "failed", "Job": "7", "InactiveExitTimestampMonotonic": "1000000"}
    log = [entry("glm: waiting for the GPUs: a reason of yesterday", "python3")]
    answer = _serving.describe(Host(queued, log, log), "glm-serve-0.service", [], EVERY)
    assert (answer["active_state"], answer["elapsed_seconds"], answer["detail"]) == ("activating", 0, "")


def test_what_an_engine_or_anybody_wrote_into_the_journal_is_no_command_for_a_terminal() -> None:
    coloured = "\x1b[1;36m(EngineCore pid=7)\x1b[0;0m INFO model_runner.py:1] Starting to load model"
    hostile = list("ValueError: \u202e\x1b]0;owned\x07gone\x9b2J".encode("utf-8", "surrogatepass"))
    failed = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "InvocationID": "a1"}
    answer = _serving.describe(Host(failed, [entry(coloured), entry(hostile)]), "glm-serve-0.service", [], EVERY)
    assert answer["log"] == [
        "(EngineCore pid=7) INFO model_runner.py:1] Starting to load model",
        r"ValueError: \u202egone",
    ]
    assert (
        answer["cause"] == r"unknown; the first exception: ValueError: \u202egone"
        and answer["phase"] == "loading weights"
    )


def test_what_a_command_said_is_shown_on_one_line_and_not_obeyed() -> None:
    said = CommandResult(("apt-get",), 100, "", "\x1b[31mE: broken\x1b[0m\n\x1b]52;c;cm0=\x07held\u202e\rback\n")
    assert said.evidence() == r"E: broken | held\u202e\nback"
