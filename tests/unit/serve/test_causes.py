"""Order and processes: the first failure of the first process wins over cascades, wrappers and the last line."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import causes
from ansible_collections.glm.fleet.plugins.module_utils.serving.log import Line, attribute, failures
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import logs

FAILED = {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}
VLLM = causes.Rules(logs.rules({"name": "vllm", "version": "0.32.0"}))
SGLANG = causes.Rules(logs.rules({"name": "sglang", "version": "0.5.10"}))
KILLED = "Out of memory: Killed process 4711 (VLLM::EngineCor) total-vm:312447kB, anon-rss:198012kB"


def engine(*texts: str) -> list[Line]:
    return [Line(text, True) for text in texts]


def traceback(prefix: str, *raised: str) -> list[str]:
    frames = ["Traceback (most recent call last):", '  File "/e/model.py", line 7, in load', "    self.load()"]
    return [f"{prefix}{text}" for text in (*frames, *raised)]


@pytest.mark.parametrize(
    ("text", "process", "level", "rest"),
    [
        ("(EngineCore_DP1 pid=71) ERROR 11-20 23:58:14 [core.py:1510] x", "EngineCore_DP1 71", "ERROR", "x"),
        ("(Worker_TP3 pid=9) INFO 11-20 23:58:14 [worker.py:1] x", "Worker_TP3 9", "INFO", "x"),
        ("(APIServer pid=1)   File x, line 3", "APIServer 1", "", "  File x, line 3"),
        ("[2026-11-20 23:58:14 DP1 TP3] x", "DP1 TP3", "", "x"),
        ("[2026-11-20 23:58:14] x", "main", "", "x"),
        ("[2026-11-20 23:58:14 DP0 ATTN_CP0 MOE_DP0 TP3] x", "DP0 ATTN_CP0 MOE_DP0 TP3", "", "x"),
        (
            "(Engine pid=7) (RayWorker pid=9, ip=10.0.0.6) ERROR 11-20 23:58:14 [w.py:1] x",
            "RayWorker 9, ip=10.0.0.6",
            "ERROR",
            "x",
        ),
        ("WARNING:sglang.srt.utils:x", "", "WARNING", "x"),
        ("2026-11-20 23:58:14,123 - sglang.srt - WARNING - x", "", "WARNING", "x"),
        ("2026-11-20 23:58:14,123\tINFO worker.py:1841 -- x", "", "INFO", "worker.py:1841 -- x"),
        ("[rank3]: ValueError: x", "rank 3", "", "ValueError: x"),
        ("[rank3]:[E1120 23:58:14.117 ProcessGroupNCCL.cpp:683] [Rank 3] x", "rank 3", "ERROR", "[Rank 3] x"),
        ("[W1120 23:58:14.117 socket.cpp:200] x", "", "WARNING", "x"),
        ("ERROR:    [Errno 98] x", "", "ERROR", "[Errno 98] x"),
        ("x", "", "", "x"),
    ],
)
def test_a_line_belongs_to_its_process(text: str, process: str, level: str, rest: str) -> None:
    (said,) = attribute(engine(text))
    assert (said.process, said.level, said.text) == (process, level, rest)


def test_lines_without_a_header_belong_to_the_process_before_them() -> None:
    said = attribute(engine("[2026-11-20 23:58:14 TP1] Scheduler hit an exception: Traceback (most recent call last):",
                            '  File "x", line 1, in y', "ValueError: z"))  # fmt: skip
    assert [entry.process for entry in said] == ["TP1"] * 3 and [entry.frame for entry in said] == [False, True, False]


def test_chained_tracebacks_are_one_failure_and_processes_do_not_mix() -> None:
    first = traceback("(Worker_TP0 pid=2) ", "KeyError: 'a'")
    chained = "(Worker_TP0 pid=2) During handling of the above exception, another exception occurred:"
    second = traceback("(Worker_TP1 pid=3) ", "RuntimeError: b")
    mixed = [line for pair in zip(first, second) for line in pair]
    found = failures(attribute(engine(*mixed, chained, *traceback("(Worker_TP0 pid=2) ", "ValueError: c"))))
    assert [[raised.text for raised in failure.chain] for failure in found] == [
        ["KeyError: 'a'", "ValueError: c"],
        ["RuntimeError: b"],
    ]


def test_the_unknown_first_exception_is_shown_and_not_the_wrapper() -> None:
    lines = engine(
        *traceback("(Worker_TP1 pid=3) ERROR 11-20 23:58:14 [w.py:1] ", "NewError: nobody knows this"),
        *traceback(
            "(EngineCore pid=2) ERROR 11-20 23:58:15 [core.py:1] ", "Exception: WorkerProc initialization failed"
        ),
        *[f"(APIServer pid=1) line {number}" for number in range(40)],
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    )
    found = causes.cause_of(FAILED, lines, VLLM)
    assert found.cause == "unknown; the first exception: NewError: nobody knows this"
    shown = causes.around(lines, found)
    assert shown[0].endswith("Traceback (most recent call last):") and shown[-1].endswith("nobody knows this")


def test_a_fault_on_one_rank_wins_over_what_the_others_say_first() -> None:
    lines = engine(
        "[2026-11-20 23:58:14 TP0] Scheduler hit an exception: Traceback (most recent call last):",
        '  File "x", line 1, in y',
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited",
        "[2026-11-20 23:58:15 TP3] Scheduler hit an exception: Traceback (most recent call last):",
        '  File "x", line 1, in y',
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "[2026-11-20 23:58:16] Received sigquit from a child process. It usually means the child failed.",
    )
    found = causes.cause_of({**FAILED, "ExecMainStatus": "137"}, lines, SGLANG)
    assert "illegal memory access" in found.cause and found.line == 5
    without = lines[:3] + lines[6:]
    assert "NCCL" in causes.cause_of({**FAILED, "ExecMainStatus": "137"}, without, SGLANG).cause


def test_an_unknown_exception_wins_over_the_cascade_before_it() -> None:
    lines = engine(
        *traceback("(Worker_TP0 pid=2) ", "RuntimeError: [gloo/pair.cc:534] Connection closed by peer [10.0.0.5]:1"),
        *traceback("(Worker_TP1 pid=3) ", "AssertionError: num_experts must be even"),
    )
    assert "num_experts must be even" in causes.cause_of(FAILED, lines, VLLM).cause


def test_warnings_and_source_text_are_no_causes() -> None:
    lines = engine(
        "(Worker pid=2) WARNING 11-20 23:58:14 [x.py:1] CUDA out of memory, trying less",
        *traceback("(Worker pid=2) WARNING 11-20 23:58:14 [x.py:1] ", "ImportError: optional"),
        "(Worker pid=2) Traceback (most recent call last):",
        "(Worker pid=2)     raise ValueError('No available memory for the cache blocks. ')",
        "(Worker pid=2) ValueError: something else",
    )
    assert causes.cause_of(FAILED, lines, VLLM).cause == "unknown; the first exception: ValueError: something else"


@pytest.mark.parametrize(
    ("kernel", "properties", "cause"),
    [
        ([KILLED], {}, "out-of-memory killer ended VLLM::EngineCor"),
        (None, {"Result": "oom-kill"}, "out-of-memory killer ended the engine"),
        ([], {}, "killed (SIGKILL); the kernel's log of this start has no"),
        (None, {}, "killed (SIGKILL); whether by the kernel"),
        (
            ["Out of memory: Killed process 9 (postgres) total-vm:1kB"],
            {},
            "killed (SIGKILL); the kernel's out-of-memory killer ended postgres",
        ),
    ],
)
def test_only_the_kernel_is_believed_about_memory(
    kernel: Sequence[str] | None, properties: dict[str, str], cause: str
) -> None:
    gone = (
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
    )
    lines = engine(*traceback("(APIServer pid=1) ", gone[len("(APIServer pid=1) ") :] + "{'EngineCore': -9}"))
    assert cause in causes.cause_of({**FAILED, **properties}, lines, VLLM, lambda: kernel).cause


def test_a_process_that_ended_without_a_word_is_looked_up_in_the_kernel_s_log() -> None:
    lines = engine(
        *traceback(
            "(EngineCore pid=2) ERROR 11-20 23:58:15 [core.py:1] ", "Exception: WorkerProc initialization failed"
        )
    )
    assert "out-of-memory killer ended" in causes.cause_of(FAILED, lines, VLLM, lambda: [KILLED]).cause
    found = causes.cause_of(FAILED, lines, VLLM, list)
    assert found.cause.startswith("unknown; a process of the engine ended silently; the kernel's log")


def test_an_engine_that_ends_itself_with_sigkill_was_not_killed_for_memory() -> None:
    lines = engine(
        "[2026-11-20 23:58:14 TP0] Scheduler hit an exception: Traceback (most recent call last):",
        "AssertionError: only the first process knows",
        "[2026-11-20 23:58:16] Received sigquit from a child process. It usually means the child failed.",
    )
    found = causes.cause_of({**FAILED, "ExecMainStatus": "137"}, lines, SGLANG, list)
    assert "only the first process knows" in found.cause and "memory" not in found.cause
    nothing_else = causes.cause_of({**FAILED, "ExecMainStatus": "137"}, lines[2:], SGLANG, list)
    assert nothing_else.cause.startswith("unknown; a process of the engine ended silently")


def test_a_spent_budget_is_the_cause_and_the_first_exception_is_said() -> None:
    lines = engine(*traceback("(Worker pid=2) ", "OddError: x"))
    assert causes.cause_of({**FAILED, "Result": "timeout"}, lines, VLLM).cause == (
        "the start budget of the plan is spent; the first exception before that: OddError: x"
    )
    guard = [Line("glm: FAILED: the engine answered no /v1/models within its budget of 900 s", False)]
    assert causes.cause_of(FAILED, guard, VLLM).cause == "the start budget of the plan is spent"


def test_the_guard_s_verdict_is_shown_after_the_traceback_it_saw() -> None:
    lines = [
        *engine(*traceback("(EngineCore pid=2) ERROR 11-20 23:58:15 [core.py:1] ", "NotImplementedError: no kernel")),
        *engine(*[f"(APIServer pid=1) line {number}" for number in range(40)]),
        Line("glm: FAILED: the engine answers /v1/models but not a chat: HTTP 500", False),
    ]
    found = causes.cause_of(FAILED, lines, VLLM)
    shown = causes.around(lines, found)
    assert "not a chat" in found.cause
    assert any("no kernel" in text for text in shown) and shown[-1].startswith("glm: FAILED")


@pytest.mark.parametrize("raised", ["_queue.Empty: x", "anyio.EndOfStream: x", "requests.exceptions.ReadTimeout: x",
                                    "torch._dynamo.exc.BackendCompilerFailed: x"])  # fmt: skip
def test_what_follows_the_frames_is_the_exception_whatever_its_name(raised: str) -> None:
    found = causes.cause_of(FAILED, engine(*traceback("(EngineCore pid=2) ", raised)), VLLM)
    assert found.cause == f"unknown; the first exception: {raised}"


def test_no_line_is_shown_when_none_is_asked_for() -> None:
    lines = engine("one", "two")
    assert causes.around(lines, causes.Cause("unknown", "x"), 0) == []
    assert causes.around(lines, causes.Cause("known", "x", 1), 0) == []


# What takes a pattern that looks again from each letter seconds: one word, many words, and the words it waits for.
LONG = {
    "letters": "a" * 8192,
    "digits": "7" * 8192,
    "token ids": "[" + "1234, " * 1365,
    "dots": "a." * 4096,
    "backends": "attention backend " * 455,
    "spaces": " " * 8192,
}


@pytest.mark.parametrize("kind", sorted(LONG))
@pytest.mark.parametrize("rules", [VLLM, SGLANG], ids=["vllm", "sglang"])
def test_a_long_line_is_read_in_no_time(rules: causes.Rules, kind: str) -> None:
    began = time.process_time()
    causes.cause_of(FAILED, engine(*[LONG[kind]] * 10), rules, list)
    assert time.process_time() - began < 3


def test_a_log_of_64000_lines_is_read_in_bounded_time() -> None:
    """Also one of exceptions without a message, for each of which its source line is looked for."""
    lines = engine(*traceback("(EngineCore pid=2) ", "OddError") * 16000)
    began = time.process_time()
    assert "OddError" in causes.cause_of(FAILED, lines, VLLM, list).cause
    assert time.process_time() - began < 60
