"""What a person reads last, when a run ends before its report and when it does not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.callback.fleet_give_back import CallbackModule
from tests.playbooks.test_preflight import ROOT, run

pytestmark = pytest.mark.one_core
HERE = {"ansible_connection": "local"}
LOOP = {
    "name": "Wait until each engine answers",
    "ansible.builtin.fail": {"msg": "{{ inventory_hostname }}, serve: expected {{ item }} to answer"},
    "loop": ["glm-serve-0", "glm-serve-1"],
    "when": "item == 'glm-serve-1'",
}


def book(folder: Path, *tasks: dict[str, Any], **more: Any) -> str:
    plays = [
        {"ansible.builtin.import_playbook": str(ROOT / "playbooks/begin_report.yml")},
        {"name": "Work", "hosts": "glm_fleet", "gather_facts": False, "tasks": list(tasks), **more},
        {"ansible.builtin.import_playbook": str(ROOT / "playbooks/report.yml")},
    ]
    (folder / "book.yml").write_text(yaml.safe_dump(plays), "utf-8")
    return str(folder / "book.yml")


def test_of_a_loop_the_item_that_failed_is_the_reason(tmp_path: Path) -> None:
    code, output = run(tmp_path, book(tmp_path, LOOP), {"h1": HERE})
    summary = output.partition("The run ended before its report.")[2]
    assert code != 0 and "h1: Wait until each engine answers: h1, serve: expected glm-serve-1 to answer" in summary, (
        output
    )
    [entry] = json.loads((tmp_path / "state/reports/fleet.json").read_text("utf-8"))["hosts"]
    assert entry["reason"] == "h1, serve: expected glm-serve-1 to answer"


def test_a_check_that_succeeds_is_not_called_unfinished(tmp_path: Path) -> None:
    code, output = run(tmp_path, book(tmp_path), {"h1": HERE}, "--check")
    assert code == 0 and "ended before its report" not in output and "NOT VERIFIED" not in output, output


def test_a_host_that_the_limit_leaves_out_is_not_called_failed(tmp_path: Path) -> None:
    code, output = run(tmp_path, book(tmp_path, LOOP), {"h1": HERE, "h2": HERE}, "--limit", "h1,localhost")
    summary = output.partition("The run ended before its report.")[2]
    assert code != 0 and "h1" in summary and "h2" not in summary, output
    hosts = json.loads((tmp_path / "state/reports/fleet.json").read_text("utf-8"))["hosts"]
    assert [entry["host"] for entry in hosts] == ["h1"]


def test_of_a_host_that_was_not_verified_the_summary_says_whether_what_it_serves_was_changed(tmp_path: Path) -> None:
    changed = {"ansible.builtin.debug": {"msg": "it starts"}, "changed_when": "inventory_hostname != 'h3'"}
    start, caught = {"name": "serve : Start the engine", **changed}, {"ansible.builtin.fail": {"msg": "caught"}}
    stop = {"name": "Stop", "ansible.builtin.fail": {"msg": "no answer"}, "when": "inventory_hostname == 'h1'"}
    tasks = [{"block": [caught], "rescue": [start]}, stop]
    made = book(tmp_path, *tasks, serial=[3, 1], any_errors_fatal=True)
    code, output = run(tmp_path, made, {f"h{number}": HERE for number in range(1, 5)})
    summary = output.partition("The run ended before its report.")[2]
    kept = "did not change what it serves"
    lines = (
        "h2: not verified: the run stopped before that; what it serves was changed, last by: serve : Start the engine",
        f"h3: not verified: the run stopped before that; the run {kept}",
        f"h4: not reached: the run stopped before its turn and {kept} h1: Stop: no answer",
    )
    assert code != 0 and "caught" not in summary
    assert [line for line in lines if line not in summary] == [], output


@pytest.mark.parametrize(("variables", "served"), [({}, set()), ({"glm_host_id": "i-1"}, {"i-1"})])
def test_a_host_without_an_id_is_no_instance_that_serves(variables: dict[str, str], served: set[str]) -> None:
    callback = CallbackModule()
    task = SimpleNamespace(action="glm.fleet.endpoint_check", args={})
    callback.v2_runner_on_ok(SimpleNamespace(task=task, host=SimpleNamespace(vars=variables), result={}))
    assert callback._served == served
