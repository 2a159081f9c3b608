"""How much of the journal is read, and what of the kernel's log belongs to a start."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import journal
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving

FAILED = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "1",
          "InvocationID": "a1", "InactiveExitTimestampMonotonic": "90000000",
          "ExecMainStartTimestampMonotonic": "90000000"}  # fmt: skip


class Host:
    """A host whose journal has rows; it answers as many of the newest as it is asked for, and records the questions.

    Like journalctl, it gives null for a long field unless it is asked for all.
    """

    def __init__(self, rows: Sequence[dict[str, object]], kernel: Sequence[dict[str, object]] | None = ()) -> None:
        self.rows = rows
        self.kernel = kernel
        self.asked: list[int] = []

    def __call__(self, argv: Sequence[str]) -> CommandResult:
        words = tuple(argv)
        if words[0] == "systemctl":
            return CommandResult(words, 0, "".join(f"{key}={value}\n" for key, value in FAILED.items()), "")
        if "--dmesg" in words:
            known = self.printed(self.kernel or (), "--all" in words)
            return CommandResult(words, 0 if self.kernel is not None else 1, known, "")
        count = int(words[words.index("--lines") + 1])
        self.asked.append(count)
        return CommandResult(words, 0, self.printed(self.rows[-count:], "--all" in words), "")

    @staticmethod
    def printed(rows: Sequence[dict[str, object]], whole: bool) -> str:
        shown = [
            {name: None if not whole and len(str(value)) >= 4096 else value for name, value in row.items()}
            for row in rows
        ]
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in shown)


def engine(message: str) -> dict[str, object]:
    return {"MESSAGE": message, "SYSLOG_IDENTIFIER": "docker"}


def test_a_cause_thousands_of_lines_before_the_end_is_found_and_shown() -> None:
    cause = "ValueError: Following weights were not initialized from checkpoint: {'a'}"
    host = Host([engine("begin"), engine(cause), *[engine(f"(APIServer pid=1) {n}") for n in range(20000)]])
    answer = _serving.describe(host, "u", [], _serving.Rules({"causes": [
        {"pattern": "not initialized from checkpoint", "cause": "lacks weights", "next": "fetch"}]}))  # fmt: skip
    assert answer["cause"] == "lacks weights" and cause in answer["log"]
    assert host.asked == [3000, 16000, 64000]


def test_a_short_start_is_read_once_and_a_running_one_only_in_part() -> None:
    host = Host([engine(f"line {n}") for n in range(100)])
    assert len(journal.read_journal(host, "u", "a1", whole=True)) == 100 and host.asked == [3000]
    host = Host([engine(f"line {n}") for n in range(9000)])
    assert len(journal.read_journal(host, "u", "a1")) == 3000 and host.asked == [3000]


def test_reading_ends_at_a_bound_of_lines_and_of_bytes() -> None:
    host = Host([engine(f"line {n}") for n in range(70000)])
    assert len(journal.read_journal(host, "u", "a1", whole=True)) == 64000
    host = Host([engine("x" * 20000) for n in range(4000)])
    assert len(journal.read_journal(host, "u", "a1", whole=True)) == 3000 and host.asked == [3000]


def test_lines_of_an_older_start_of_the_unit_are_not_this_start_s() -> None:
    class Forgetful(Host):
        def __call__(self, argv: Sequence[str]) -> CommandResult:
            if "_SYSTEMD_INVOCATION_ID=a1" in argv:
                return CommandResult(tuple(argv), 0, "", "")
            return super().__call__(argv)

    begun = {"MESSAGE": "Starting glm-serve-0.service - GLM...", "SYSLOG_IDENTIFIER": "systemd"}
    host = Forgetful([begun, engine("old"), begun, engine("new")])
    assert [line.text for line in journal.read_journal(host, "u", "a1", whole=True)][1:] == ["new"]


def test_the_kernel_s_kills_before_the_start_do_not_count() -> None:
    def kernel(second: int, text: str) -> dict[str, object]:
        return {"MESSAGE": text, "__MONOTONIC_TIMESTAMP": str(second * 1_000_000)}

    killed = "Out of memory: Killed process 1 (VLLM::EngineCor) total-vm:1kB"
    host = Host(
        [], [kernel(10, "Out of memory: Killed process 9 (python3)"), kernel(95, "eth0 up"), kernel(99, killed)]
    )
    assert journal.kernel_kills(host, FAILED) == [killed]
    assert journal.kernel_kills(Host([], None), FAILED) is None


def test_the_kernel_s_log_without_a_line_was_not_read() -> None:
    assert journal.kernel_kills(Host([], ()), FAILED) is None


def test_a_long_line_of_the_kernel_counts() -> None:
    killed = "Out of memory: Killed process 1 (VLLM::EngineCor) " + "x" * 5000
    host = Host([], [{"MESSAGE": killed, "__MONOTONIC_TIMESTAMP": "99000000"}])
    assert journal.kernel_kills(host, FAILED) == [killed]


def test_kills_belong_to_the_engine_s_start_also_when_the_unit_waits_for_its_next_try() -> None:
    killed = {"MESSAGE": "Out of memory: Killed process 1 (python3)", "__MONOTONIC_TIMESTAMP": "99000000"}
    waiting = {**FAILED, "SubState": "auto-restart", "InactiveExitTimestampMonotonic": "200000000"}
    assert journal.kernel_kills(Host([], [killed]), waiting) == [killed["MESSAGE"]]


def test_a_unit_that_never_began_has_no_kills() -> None:
    killed = {"MESSAGE": "Out of memory: Killed process 1 (python3)", "__MONOTONIC_TIMESTAMP": "99000000"}
    never = {**FAILED, "InactiveExitTimestampMonotonic": "0", "ExecMainStartTimestampMonotonic": "0"}
    assert journal.kernel_kills(Host([], [killed]), never) is None


def test_a_long_line_is_read_up_to_a_bound() -> None:
    cause = "(EngineCore pid=7) ERROR 11-20 23:58:14 [core.py:1] ValueError: No available memory for the cache blocks. "
    (line,) = journal.read_journal(Host([engine(cause + "x" * 20000)]), "u", "a1")
    assert line.text.startswith(cause) and len(line.text) == 8192


def test_a_field_that_is_repeated_is_read_as_lines() -> None:
    host = Host([{**engine(""), "MESSAGE": ["first", None, list(b"second\xff")]}, {**engine(""), "MESSAGE": [1, 999]}])
    assert [line.text for line in journal.read_journal(host, "u", "a1")] == ["first", "second\ufffd", "1", "999"]


def test_a_row_ends_only_with_its_line() -> None:
    lines = journal.read_journal(Host([engine("ValueError: a\u2028b\x85c")]), "u", "a1")
    assert lines and lines[0].text.startswith("ValueError: a") and lines[-1].text.endswith("c")


def test_the_kernel_is_believed_only_about_a_process_that_was_killed() -> None:
    lost = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}"
    )
    killed = {"MESSAGE": "Out of memory: Killed process 1 (VLLM::EngineCor)", "__MONOTONIC_TIMESTAMP": "99000000"}
    rules = _serving.Rules({"wrappers": [{"pattern": "See root cause above"}]})
    assert "out-of-memory killer" in _serving.describe(Host([engine(lost)], [killed]), "u", [], rules)["cause"]
    assert _serving.describe(Host([engine("ValueError: x")], [killed]), "u", [], rules)["cause"].startswith("unknown")
