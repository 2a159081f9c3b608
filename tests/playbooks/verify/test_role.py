"""The role verify on two hosts: who is asked for the mini-eval, what is kept of it, and what a worse version gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.playbooks.verify.fake import effects
from tests.playbooks.verify.fake.answers import question
from tests.playbooks.verify.fake.fault import Fault, Scope
from tests.playbooks.verify.fake.server import KEY, Behaviour, engine
from tests.unit.serve.plans import listening, plan

ROOT = Path(__file__).parents[3]
BOOK = """
- hosts: glm_fleet
  gather_facts: false
  serial: [1, 1]
  roles:
    - role: glm.fleet.verify
"""
# Seven of the 80 questions of the mini-eval, which no other check asks.
CONVERSIONS = Scope("conversions", lambda asked: question(asked.body).startswith("Convert"), lambda _check: False)
FORGETFUL = Fault("no conversions", CONVERSIONS, reply=effects.text("I do not know."))


def verify(folder: Path, behaviour: Behaviour, **variables: Any) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Exit status, output with folded white space, and the reports by host."""
    with engine(behaviour) as (_behaviour, port):
        # No door is in front of it.
        made = plan(listen=listening("127.0.0.1", port, port), door={"routes": [], "lacking": [], "shortfalls": []})
        made["accelerator"]["memory_gib"] = 178.35
        made["memory"].update(
            static_fraction=0.9, weights_per_gpu_gib=90.27, kv_bytes_per_token=40_000, configuration="of this test"
        )
        given = {"verify_plans": [made], "verify_api_key": KEY, **variables}
        (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
        (folder / "book.yml").write_text(BOOK, encoding="utf-8")
        local = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
        (folder / "hosts").write_text(f"[glm_fleet]\ngpu-1 {local}\ngpu-2 {local}\n", encoding="utf-8")
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts", "-e", "@given.json", "book.yml",
             "-e", f"glm_state_dir={folder / 'state'}"],
            cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400",
                 "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        )  # fmt: skip
    reports = {
        path.stem: {check["check"]: check for check in json.loads(path.read_text(encoding="utf-8"))["checks"]}
        for path in (folder / "state/reports").glob("gpu-*.json")
    }
    return done.returncode, " ".join((done.stdout + done.stderr).split()), reports


def kept(folder: Path) -> list[tuple[str, int]]:
    scores = json.loads((folder / "state/eval.json").read_text(encoding="utf-8"))["scores"]
    return [(score["engine_version"], score["right"]) for score in scores["GLM-5.1 fp8 vllm"]]


def test_the_first_host_makes_the_mini_eval_and_a_worse_version_fails(tmp_path: Path) -> None:
    code, output, reports = verify(tmp_path, Behaviour())
    assert code == 0, output
    assert reports["gpu-1"]["closed"]["expected"].startswith("nothing of ours open to the controller but")
    assert "open to the neighbour gpu-2 but" in reports["gpu-1"]["closed_neighbour"]["expected"]
    assert "open to the neighbour gpu-1 but" in reports["gpu-2"]["closed_neighbour"]["expected"]
    assert [host for host in sorted(reports) if "eval" in reports[host]] == ["gpu-1"]
    assert all(check["outcome"] != "failed" for checks in reports.values() for check in checks.values())
    assert reports["gpu-1"]["eval"]["found"] == "80 of 80 right (sums 50 of 50, tool calls 30 of 30)"
    assert kept(tmp_path) == [("0.32.0", 80)]
    # 1,600,000 tokens by the engine's own word.
    reported = json.loads((tmp_path / "glm.starts.json").read_text("utf-8"))["starts"]["of this test"]
    assert {host: (one["token_pool"], one["taken_gib"]) for host, one in reported.items()} == {
        "gpu-1/0": (1_600_000, 10.64), "gpu-2/0": (1_600_000, 10.64),
    }  # fmt: skip

    code, output, reports = verify(tmp_path, Behaviour(faults=(FORGETFUL,)))
    assert code != 0
    assert "gpu-1, verify: 1 of" in output and "verify, eval: expected at least 76 right answers of 80" in output
    assert "found 73 of 80 right (sums 50 of 50, tool calls 23 of 30)" in output and "no tool call" in output
    assert kept(tmp_path) == [("0.32.0", 80)]


def test_without_the_mini_eval_nothing_is_kept(tmp_path: Path) -> None:
    code, output, reports = verify(tmp_path, Behaviour(faults=(FORGETFUL,)), glm_verify_eval="never")
    assert code == 0, output
    assert "eval" not in reports["gpu-1"] and not (tmp_path / "state/eval.json").exists()


def test_after_a_failed_check_there_is_no_score(tmp_path: Path) -> None:
    deaf = Fault("no second city", Scope("always", lambda asked: "Oslo" in question(asked.body), lambda _check: True),
                 reply=effects.text("!" * 200))  # fmt: skip
    code, output, reports = verify(tmp_path, Behaviour(faults=(deaf,)), glm_verify_eval="always")
    assert code != 0 and "verify, tool_several: expected a parsed call" in output
    for checks in reports.values():
        assert (checks["eval"]["outcome"], checks["eval"]["found"]) == ("not_proven", "a check before it failed")


def test_what_a_start_reported_is_kept_of_sound_ones_and_never_decides_the_verdict(tmp_path: Path) -> None:
    small = Fault("a small pool", metrics=effects.small_pool)
    code, output, _reports = verify(tmp_path, Behaviour(faults=(small,)), glm_verify_eval="never")
    assert code != 0 and "verify, kv_pool" in output
    assert not (tmp_path / "glm.starts.json").exists()

    (tmp_path / "glm.starts.json").write_text("<<<<<<< ours\n", "utf-8")
    code, output, _reports = verify(tmp_path, Behaviour(), glm_verify_eval="never")
    assert code == 0, output
    assert "gpu-1, verify: expected what starts of this fleet reported" in output and "another form" in output
