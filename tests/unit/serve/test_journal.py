"""How much of the journal is read, and what of the kernel's log belongs to a start."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ansible_collections.glm.fleet.plugins.module_utils.host.commands import CommandResult
from ansible_collections.glm.fleet.plugins.module_utils.serving import journal
from ansible_collections.glm.fleet.plugins.module_utils.serving import status as _serving

FAILED = {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "1",
          "InvocationID": "a1", "InactiveExitTimestampMonotonic": "90000000"}  # fmt: skip


class Host:
    """A host whose journal has rows; it answers as many of the newest as it is asked for, and records the questions."""

    def __init__(self, rows: Sequence[dict[str, object]], kernel: Sequence[dict[str, object]] | None = ()) -> None:
        self.rows = [json.dumps(row) for row in rows]
        self.kernel = kernel
        self.asked: list[int] = []

    def __call__(self, argv: Sequence[str]) -> CommandResult:
        words = tuple(argv)
        if words[0] == "systemctl":
            return CommandResult(words, 0, "".join(f"{key}={value}\n" for key, value in FAILED.items()), "")
        if "--dmesg" in words:
            known = "".join(json.dumps(row) + "\n" for row in self.kernel or ())
            return CommandResult(words, 0 if self.kernel is not None else 1, known, "")
        count = int(words[words.index("--lines") + 1])
        self.asked.append(count)
        return CommandResult(words, 0, "".join(row + "\n" for row in self.rows[-count:]), "")


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


def test_the_kernel_is_believed_only_about_a_process_that_was_killed() -> None:
    lost = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}"
    )
    killed = {"MESSAGE": "Out of memory: Killed process 1 (VLLM::EngineCor)", "__MONOTONIC_TIMESTAMP": "99000000"}
    rules = _serving.Rules({"wrappers": [{"pattern": "See root cause above"}]})
    assert "out-of-memory killer" in _serving.describe(Host([engine(lost)], [killed]), "u", [], rules)["cause"]
    assert _serving.describe(Host([engine("ValueError: x")], [killed]), "u", [], rules)["cause"].startswith("unknown")
