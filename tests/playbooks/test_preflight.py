"""What a run refuses before it touches anything, as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, playbook: str, hosts: dict[str, dict[str, object]], *arguments: str) -> tuple[int, str]:
    """Exit status and output (white space folded) of a playbook on an inventory of ``hosts``."""
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"glm_fleet": {"hosts": hosts}}}}), encoding="utf-8")
    done = subprocess.run(
        ["ansible-playbook", playbook, "-i", str(inventory), "-e", f"glm_state_dir={tmp_path / 'state'}", *arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def tagged(fleet: str) -> dict[str, object]:
    return {"glm_host_tags": {"glm-fleet": fleet}, "ansible_connection": "local"}


def test_an_empty_group_says_what_to_set(tmp_path: Path) -> None:
    code, output = run(tmp_path, "playbooks/require_fleet.yml", {})
    assert code != 0
    assert "expected at least one host in 'glm_fleet', found none" in output
    assert "-e glm_launch=true" in output


def test_checking_a_launch_into_an_empty_account_is_no_error(tmp_path: Path) -> None:
    code, output = run(tmp_path, "playbooks/require_fleet.yml", {}, "--check", "-e", "glm_launch=true")
    assert code == 0, output


@pytest.mark.parametrize(
    ("tags", "arguments", "ok"),
    [
        (["default", "default"], [], True),
        (["blue"], ["-e", "glm_fleet_name=blue"], True),
        (["blue"], [], False),
        (["blue", "green"], ["-e", "glm_fleet_name=blue"], False),
    ],
)
def test_hosts_of_another_fleet_are_refused(tmp_path: Path, tags: list[str], arguments: list[str], ok: bool) -> None:
    hosts = {f"h{number}": tagged(tag) for number, tag in enumerate(tags)}
    code, output = run(tmp_path, "playbooks/require_fleet.yml", hosts, *arguments)
    assert (code == 0) is ok, output
    if not ok:
        assert f"whose tag glm-fleet says {', '.join(sorted(set(tags)))}" in output
        assert "-e glm_fleet_name=blue" in output


def test_hosts_that_no_cloud_tagged_are_welcome(tmp_path: Path) -> None:
    code, output = run(tmp_path, "playbooks/require_fleet.yml", {"metal": {"ansible_connection": "local"}})
    assert code == 0, output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"glm_model": "GLM-9"}, ["h0, plan", "GLM-9", "GLM-5.1"]),
        ({"glm_accelerator": "H100"}, ["h0, plan", "does not fit", "99.6 GiB", "71.7 GiB"]),
        ({"glm_engine": "vllm", "glm_engine_version": "0.15.1"}, ["h0, plan", "0.15.1"]),
        ({"glm_engine_args": {"max-num-seq": 3}}, ["h0, plan", "max-num-seq", "max-num-seqs"]),
        ({"glm_engine_args": {"api-key": "x"}}, ["h0, plan", "use keys.yml"]),
    ],
)
def test_what_cannot_work_is_refused_before_a_host_is_touched(
    tmp_path: Path, variables: dict[str, object], words: list[str]
) -> None:
    hosts = {"h0": {"ansible_host": "192.0.2.1", "glm_host_accelerator": "B200", "glm_host_accelerator_count": 8}}
    code, output = run(tmp_path, "deploy.yml", hosts, "-e", json.dumps(variables))
    assert code != 0
    for word in words:
        assert word in output, output
    assert "Wait for ssh" not in output


def test_a_run_that_stops_early_takes_the_last_verdict_back(tmp_path: Path) -> None:
    report = tmp_path / "state/reports/fleet.json"
    report.parent.mkdir(parents=True)
    report.write_text('{"ok": true, "hosts": []}', encoding="utf-8")
    run(tmp_path, "deploy.yml", {"h0": {"ansible_host": "192.0.2.1"}}, "-e", "glm_model=GLM-9")
    fleet = json.loads(report.read_text(encoding="utf-8"))
    assert fleet["ok"] is False
    assert [host["host"] for host in fleet["hosts"]] == ["h0"]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (
            {
                "a": {"glm_host_country": "US"},
                "b": {"glm_host_country": "TH", "glm_country": "US"},
                "c": {"glm_country": "us"},
            },
            [],
        ),
        (
            {"a": {"glm_host_country": "TH"}, "b": {"glm_host_country": None}, "c": {"glm_host_country": "US"}},
            ["a (TH)", "b (country unknown)"],
        ),
    ],
)
def test_hosts_outside_the_allowed_countries_are_refused(
    tmp_path: Path, places: dict[str, dict[str, object]], expected: list[str]
) -> None:
    hosts = {name: {**variables, "ansible_connection": "local"} for name, variables in places.items()}
    code, output = run(tmp_path, "playbooks/require_fleet.yml", hosts, "-e", '{"glm_allowed_countries": ["US"]}')
    assert (code == 0) is (not expected), output
    assert [text for text in expected if text not in output] == []
    assert "c (US)" not in output
    assert run(tmp_path, "playbooks/require_fleet.yml", hosts)[0] == 0, "no guard unless it is asked for"


CANARY = """
- import_playbook: {root}/playbooks/begin_report.yml
- name: Serve and verify
  hosts: glm_fleet
  gather_facts: false
  serial: [1, 1]
  tasks:
    - name: Start the engine
      ansible.builtin.fail:
        msg: "h0, serve: the engine left with status 1"
      no_log: {hidden}
      when: inventory_hostname in {failing}
- name: Report
  import_playbook: {root}/playbooks/report.yml
"""


@pytest.mark.parametrize(
    ("failing", "hidden", "table"),
    [
        (["h0"], "false", ["Start the engine: h0, serve: the engine left with status 1", "h1: not reached"]),
        (["h0"], "true", ["h0: Start the engine: the output has been hidden"]),
        ([], "false", []),
    ],
)
def test_a_failed_canary_still_gets_a_table(tmp_path: Path, failing: list[str], hidden: str, table: list[str]) -> None:
    book = tmp_path / "canary.yml"
    book.write_text(CANARY.format(root=ROOT, failing=failing, hidden=hidden), encoding="utf-8")
    hosts: dict[str, dict[str, object]] = {name: {"ansible_connection": "local"} for name in ("h0", "h1", "h2")}
    code, output = run(tmp_path, str(book), hosts)
    assert code != 0, "no host of these is verified"
    assert [text for text in table if text not in output] == [], output
    assert ("The run ended before its report" in output) is bool(failing)
    assert output.count("NOT VERIFIED") == 3
    fleet = json.loads((tmp_path / "state/reports/fleet.json").read_text(encoding="utf-8"))
    assert fleet["ok"] is False
    assert [host["host"] for host in fleet["hosts"]] == ["h0", "h1", "h2"]
    if hidden == "false" and failing:
        assert fleet["hosts"][0]["reason"] == "h0, serve: the engine left with status 1"


VERIFY = """
- hosts: glm_fleet
  gather_facts: false
  tasks:
    - name: Ask the endpoint
      glm.fleet.endpoint_check:
        port: {port}
        model: glm-5.1-fp8
        timeout: 1
        report: {report}
"""


def test_a_verdict_survives_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    book = tmp_path / "verify.yml"
    book.write_text(VERIFY.format(port=9, report=tmp_path / "file" / "h0.json"), encoding="utf-8")
    own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    code, output = run(tmp_path, str(book), {"h0": own})
    assert code != 0 and "Traceback" not in output
    assert "h0, verify:" in output and "checks failed" in output
    assert f"the report cannot be written to {tmp_path / 'file' / 'h0.json'}" in output
    assert "set glm_state_dir" in output


def test_a_refused_plan_is_a_finding_of_the_fleet_s_report(tmp_path: Path) -> None:
    small = {"ansible_connection": "local", "glm_accelerator": "H100", "glm_accelerator_count": 8}
    code, output = run(tmp_path, "playbooks/deploy.yml", {"gpu-1": small})
    assert code != 0
    assert "gpu-1, plan: GLM-5.1 fp8 on 8x H100" in output
    [host] = json.loads((tmp_path / "state/reports/fleet.json").read_text(encoding="utf-8"))["hosts"]
    assert not host["ok"]
    [finding] = host["checks"]
    assert (finding["phase"], finding["outcome"]) == ("plan", "failed")
    assert "does not fit" in finding["found"] and finding["next"]
    assert "NOT VERIFIED" in output
