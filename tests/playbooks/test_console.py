"""What people see of a run: one screen, and the cause of a failure as its last words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.callback.console import CallbackModule
from ansible_collections.glm.fleet.plugins.module_utils.finding import shortened
from ansible_collections.glm.fleet.plugins.plugin_utils import closed_output
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.test_preflight import ROOT

HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}
FAIL, DEBUG, COMMAND = "ansible.builtin.fail", "ansible.builtin.debug", "ansible.builtin.command"
REPORT = {"ansible.builtin.import_playbook": str(ROOT / "playbooks/begin_report.yml")}
QUIET = [{"name": f"Look at {number}", COMMAND: "true", "changed_when": False} for number in range(20)]
CHANGE = {"name": "Change it", COMMAND: "true", "changed_when": True}
REFUSED = (
    "{{ inventory_hostname }}, serve: expected {{ item }} to answer, found Connection refused. Next: read its log."
)


class Runs:
    """Runs of a playbook with the callback of the checkout's ansible.cfg."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, plays: list[dict[str, Any]], hosts: dict[str, Any], *arguments: str, callback: str | None = None
    ) -> tuple[int, list[str]]:
        """Exit status and lines of the output."""
        (self.folder / "book.yml").write_text(yaml.safe_dump(plays), "utf-8")
        return self.book(str(self.folder / "book.yml"), hosts, *arguments, callback=callback)

    def book(
        self, book: str, hosts: dict[str, Any], *arguments: str, callback: str | None = None
    ) -> tuple[int, list[str]]:
        inventory = self.folder / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"all": {"children": {"glm_fleet": {"hosts": hosts}}}}), "utf-8")
        own = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "200"}
        kept = {name: value for name, value in os.environ.items() if name != "ANSIBLE_STDOUT_CALLBACK"}
        chosen = {"ANSIBLE_STDOUT_CALLBACK": callback} if callback else {}
        command = ["ansible-playbook", book, "-i", str(inventory), "-e", f"glm_state_dir={self.folder / 'state'}"]
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env={**kept, **own, **chosen}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()


@pytest.fixture
def run(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def play(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "Serve", "hosts": "glm_fleet", "gather_facts": False, "tasks": list(tasks), **more}


def test_what_changes_nothing_is_its_phases_and_a_line_of_totals(run: Runs) -> None:
    elsewhere = play(*QUIET, name="Put gateways in front", hosts="glm_fleet:!glm_fleet")
    code, lines = run(
        [play(*QUIET), elsewhere, play(*QUIET, name="Report", hosts="localhost")], {"h1": HERE, "h2": HERE}
    )
    assert code == 0
    assert lines[:3] == ["Serve: h1, h2", "Report", ""]
    assert re.fullmatch(r"2 hosts: 0 changed, (\d+ min )?\d+ s", lines[3]) and len(lines) == 4, lines


def test_a_deploy_that_changes_nothing_is_a_screenful(run: Runs) -> None:
    gpu = {**HERE, "ansible_become": False, "glm_accelerator": "B200", "glm_accelerator_count": 8}
    hosts = {"gpu-1": {**gpu, "glm_private_address": "10.0.0.5"}}
    code, lines = run.book("deploy.yml", hosts, "--tags", "dor_usage", "--check")
    assert code == 0 and len(lines) <= 30 and "Serve and verify: gpu-1" in lines, "\n".join(lines)
    code, everything = run.book("deploy.yml", hosts, "--tags", "dor_usage", "--check", "-v")
    assert code == 0 and len(everything) > 100


def test_changes_what_tasks_print_and_warnings_are_shown(run: Runs) -> None:
    said = {"name": "Say", DEBUG: {"msg": "two\nlines"}, "loop": [1], "run_once": True}
    seen = {"name": "Show", DEBUG: {"var": "inventory_hostname"}, "when": "inventory_hostname == 'h1'"}
    asked = {"name": "Meant for scripts", "ansible.builtin.assert": {"that": "true"}}
    old = {
        "name": "Warn",
        "ansible.builtin.file": {"path": "/tmp", "state": "directory", "mode": 1777},
        "check_mode": True,
    }
    code, lines = run([play(CHANGE, said, seen, asked, old)], {"h1": HERE, "h2": HERE})
    assert code == 0
    assert {"  changed  h1: Change it", "  changed  h2: Change it", "  two", "  lines"} <= set(lines), lines
    assert "inventory_hostname: h1" in [line.strip() for line in lines]
    assert not any("assertions" in line or "TASK" in line for line in lines), lines
    assert re.fullmatch(r"2 hosts: \d changed, \d+ s", lines[-1])


def test_a_check_says_what_would_change_and_is_not_unfinished(run: Runs) -> None:
    report = {"ansible.builtin.import_playbook": str(ROOT / "playbooks/report.yml")}
    code, lines = run([REPORT, play({**CHANGE, "check_mode": False}, CHANGE), report], {"h1": HERE}, "--check")
    output = "\n".join(lines)
    assert code == 0 and "  changed  h1: Change it" in lines and " that would be made" in lines[-1], output
    assert "ended before its report" not in output and "FAILED" not in output and "NOT VERIFIED" not in output


def test_of_a_loop_that_fails_each_reason_is_the_last_words_once(run: Runs) -> None:
    looped = {"name": "Wait for the engines", FAIL: {"msg": REFUSED}, "loop": ["a"] * 8}
    code, lines = run([play(CHANGE, looped)], {"h1": HERE})
    why = "h1, serve: expected a to answer, found Connection refused. Next: read its log."
    assert code != 0
    assert lines[-1] == f"  h1: Wait for the engines: {why}", lines
    assert lines[1:4] == ["  changed  h1: Change it", "  FAILED  h1: Wait for the engines", f"    {why}"]
    assert "1 host (h1): 1 failed, 1 changed" in lines[-2] and len(lines) == 7, lines


def test_the_causes_come_after_the_table_of_a_run_that_ended_before_its_report(run: Runs) -> None:
    looped = {"name": "Wait for the engines", FAIL: {"msg": REFUSED}, "loop": ["a", "b"]}
    code, lines = run(
        [REPORT, play(looped, serial=1)], {"h1": HERE, "h2": HERE, "h3": HERE}, "--limit", "h1,h2,localhost"
    )
    output = "\n".join(lines)
    assert code != 0 and "h3" not in output
    assert lines.index("Serve: h1") < lines.index("The run ended before its report. How far each host got:"), output
    assert lines[-3:] == [
        "  h2: not reached: the run stopped before its turn and did not change what it serves",
        "  h1: Wait for the engines: h1, serve: expected a to answer, found Connection refused. Next: read its log.",
        "    h1, serve: expected b to answer, found Connection refused. Next: read its log.",
    ], output


def test_a_failure_on_the_controller_is_the_last_word_as_well(run: Runs) -> None:
    lost = {"name": "Read the account", FAIL: {"msg": "the account did not answer"}}
    code, lines = run([REPORT, play(lost, hosts="localhost")], {"h1": HERE})
    assert code != 0 and lines[-1] == "  localhost: Read the account: the account did not answer"


def test_what_is_rescued_goes_on_and_what_is_cleaned_up_is_no_cause(run: Runs) -> None:
    first = {"name": "Try", FAIL: {"msg": "the first way is closed"}}
    why = {"name": "Try again", FAIL: {"msg": "the second way is closed"}}
    after = {"name": "Clean up", FAIL: {"msg": "nothing to clean"}}
    ignored = {"name": "Ask", FAIL: {"msg": "nobody minds"}, "ignore_errors": True}
    block = {"name": "Work", "block": [first], "rescue": [ignored]}
    code, lines = run([play(block, {"block": [why], "always": [after]})], {"h1": HERE})
    assert code != 0
    assert lines[1:3] == ["  failed, and goes on  h1: Try", "    the first way is closed"], lines
    assert "  FAILED  h1: Clean up" in lines and not any("nobody minds" in line for line in lines)
    assert lines[-1] == "  h1: Try again: the second way is closed"
    code, lines = run([play(block)], {"h1": HERE})
    assert code == 0 and "failed," not in lines[-1], lines


def test_hosts_that_failed_alike_are_one_cause_and_no_phase_has_them_again(run: Runs) -> None:
    broken = {"name": "Work", FAIL: {"msg": "no space left"}, "when": "inventory_hostname != 'h3'"}
    code, lines = run([play(broken), play(*QUIET[:1], name="Report")], {"h1": HERE, "h2": HERE, "h3": HERE})
    assert code != 0 and lines[-1] == "  h1, h2: Work: no space left" and "Report: h3" in lines, lines


def test_a_host_that_cannot_be_reached_says_why_in_one_line(run: Runs) -> None:
    code, lines = run([play(*QUIET[:1])], {"h1": AWAY, "h2": HERE})
    assert code != 0
    [*_, line] = lines
    assert line.startswith("  h1: Look at 0: unreachable: ") and "Connection refused" in line, lines
    assert "  FAILED  h1: Look at 0" in lines and len(lines) <= 7, lines
    # Where that stops nothing it is no cause, and not hidden either.
    code, lines = run([play({**QUIET[0], "ignore_unreachable": True})], {"h1": AWAY, "h2": HERE})
    assert code == 0 and "  unreachable, and goes on  h1: Look at 0" in lines and "h1" not in lines[-1], lines


def test_of_a_command_that_failed_its_last_lines_are_shown(run: Runs) -> None:
    command = "bash -c 'for i in $(seq 100); do echo line $i >&2; done; exit 3'"
    code, lines = run([play({"name": "Run", COMMAND: command})], {"h1": HERE})
    assert code != 0 and lines[-1].strip() == "line 100" and len(lines) < 15, lines


def test_with_v_it_is_the_default_callback_and_with_diff_its_differences(run: Runs, tmp_path: Path) -> None:
    written = {"name": "Write", "ansible.builtin.copy": {"content": "b\n", "dest": str(tmp_path / "file")}}
    tasks = [written, {**QUIET[0], "register": "seen"}, {"name": "Say", DEBUG: {"msg": "hello"}}]
    plays = [play(*tasks, {"name": "Stop", FAIL: {"msg": "no"}})]
    outputs = []
    for callback in (None, "ansible.builtin.default"):
        (tmp_path / "file").write_text("a\n", "utf-8")
        code, lines = run(plays, {"h1": HERE}, "-v", "--diff", callback=callback)
        # What fleet_summary says last, and what differs between any two runs.
        text = re.sub(r"(?m)^  h1: Stop: no$|(delta|start|end|src): .*|ansible-tmp-\S+", "", "\n".join(lines)).strip()
        outputs.append(text)
        assert code != 0
    assert outputs[0] == outputs[1] and "TASK [Write]" in outputs[0]
    (tmp_path / "file").write_text("a\n", "utf-8")
    code, lines = run([play(written)], {"h1": HERE}, "--diff")
    assert code == 0 and {"-a", "+b", "  changed  h1: Write"} <= set(lines), lines


def test_what_no_log_hides_is_never_shown(run: Runs) -> None:
    secret = "hunter2"
    hidden = {"no_log": True, "ignore_errors": True}
    tasks = [
        {"name": "Change", COMMAND: f"echo {secret}", "no_log": True},
        {"name": "Say", DEBUG: {"msg": secret}, "no_log": True},
        {"name": "Loop", DEBUG: {"msg": "{{ item }}"}, "loop": [secret], "no_log": True},
        {"name": "Fail softly", FAIL: {"msg": secret}, **hidden},
        {"name": "Fail in a loop", FAIL: {"msg": "{{ item }}"}, "loop": [secret], "no_log": True},
    ]
    code, lines = run([play(*tasks)], {"h1": HERE}, "--diff")
    assert code != 0 and secret not in "\n".join(lines)
    assert lines[-1].startswith("  h1: Fail in a loop: ") and "no_log" in lines[-1], lines


def test_text_of_others_moves_no_cursor(run: Runs) -> None:
    code, lines = run([play({"name": "Stop", FAIL: {"msg": "red \x1b[31mtext\a"}})], {"h1": HERE})
    assert code != 0 and lines[-1] == r"  h1: Stop: red text\x07"


def test_a_long_message_keeps_its_advice() -> None:
    text = "\n".join(["three checks failed", *(f"line {number}" for number in range(30)), "Next: do this"])
    assert shortened(text, 2) == [
        "three checks failed", "line 0", "… (30 more lines; -v shows all)", "Next: do this",
    ]  # fmt: skip


def test_what_takes_long_is_named_with_its_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    callback = CallbackModule()
    callback._plugin_options = {"show_per_host_start": False}
    task = SimpleNamespace(action="ansible.builtin.uri", get_name=lambda include_role_fqcn: "serve : Wait")
    own = SimpleNamespace(action="glm.fleet.serving_unit", get_name=lambda include_role_fqcn: "serve : Start")
    hosts = [SimpleNamespace(get_name=lambda name=name: name) for name in ("h1", "h2", "h3")]
    for host in hosts[:2]:
        callback.v2_runner_on_start(host, task)
    callback.v2_runner_on_start(hosts[2], own)
    callback.v2_runner_retry(SimpleNamespace(host=hosts[1], task=task, result={"attempts": 3, "retries": 9}))
    callback._spoke = time.monotonic() - 100
    callback._still()
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["  still at  h1: serve : Wait", "  still at  h2: serve : Wait (attempt 3 of 9)"]
    assert time.monotonic() - callback._spoke < 50


def test_an_interrupt_that_a_fork_swallowed_ends_the_run_at_the_next_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_output.os, "kill", lambda *_lost: None)
    callback, (theirs, ours) = CallbackModule(), os.pipe()
    callback._closed = closed_output.interrupt_when_closed(ours)
    callback._phase = ""
    callback.v2_playbook_on_task_start(SimpleNamespace(), False)
    os.close(theirs)
    assert callback._closed.wait(PATIENCE_SECONDS)
    for begin in (callback.v2_playbook_on_task_start, callback.v2_playbook_on_handler_task_start):
        with pytest.raises(KeyboardInterrupt):
            begin(SimpleNamespace(), *([False] if "handler" not in begin.__name__ else []))
    os.close(ours)


@pytest.mark.parametrize("both", [False, True])
def test_a_run_whose_reader_has_gone_ends(both: bool, tmp_path: Path) -> None:
    """As in ``status.yml | head -1``. Lines of workers, such as those of a pause, are printed by another thread."""
    pause = {"name": "Wait", "ansible.builtin.pause": {"seconds": 1}}
    (tmp_path / "book.yml").write_text(yaml.safe_dump([play(pause, pause, *QUIET)]), "utf-8")
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": {"glm_fleet": {"hosts": {"h1": HERE}}}}}))
    own = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "glm.fleet.console"}
    begun = subprocess.Popen(
        ["ansible-playbook", str(tmp_path / "book.yml"), "-i", str(tmp_path / "hosts.json")], cwd=ROOT,
        env={**os.environ, **own, "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE, text=True,
    )  # fmt: skip
    assert begun.stdout is not None
    assert begun.stdout.readline() == "Serve: h1\n"
    begun.stdout.close()
    try:
        # What ansible-playbook ends with after Ctrl-C, and not what Python does with lines that were never read (120).
        assert begun.wait(PATIENCE_SECONDS) == 99
    finally:
        begun.kill()
    if begun.stderr:
        said = begun.stderr.read()
        assert "interrupted" in said and "Broken pipe" not in said
