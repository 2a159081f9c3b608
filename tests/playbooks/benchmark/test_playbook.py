"""The playbook from end to end on this machine: a real client process against a real HTTP engine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.playbooks.door import proxy
from tests.playbooks.verify.fake.faults import fault
from tests.playbooks.verify.fake.server import KEY, Behaviour, engine
from tests.unit.serve.plans import REVISION, listening, plan

ROOT = Path(__file__).parents[3]
CLIENT = Path(__file__).parent / "toy_client.py"
WORKLOAD = {
    "text": "A small one.",
    "interface": "chat",
    "input_tokens": 64,
    "output_tokens": 16,
    "points": [{"prompts": 4, "parallel": 2}],
    "source": {"who": "a test"},
}
CONTRACT = {
    **plan()["contract"],
    "thinking_preserved": {"chat_template_kwargs": {"enable_thinking": True, "clear_thinking": False}},
    "sampling": {"default": {"temperature": 1.0, "thinking": "on"}},
}


def play(
    folder: Path, port: int, *arguments: str, heard: Callable[[str], Any] = str, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """The end of a run; ``heard`` is called with each line of it at once."""
    listen = listening("127.0.0.1", port, port)
    made = plan(listen=listen, contract=CONTRACT, paths={**plan()["paths"], "data": str(folder / "data")})
    given = {
        "benchmark_plans": [made],
        "benchmark_workload": "small",
        "benchmark_workloads": {"small": WORKLOAD},
        "benchmark_client_path": str(CLIENT),
        "benchmark_api_key": KEY,
        "benchmark_poll_seconds": 1,
        "benchmark_sample_seconds": 0.2,
        "glm_accelerator": "B200",
        "glm_accelerator_count": 8,
        "glm_state_dir": str(folder / "state"),
        "glm_lock_file": str(folder / "glm.lock.yml"),
        # Hosts are this machine, which has one of its own.
        "__lease_path": f"{folder}/{{{{ inventory_hostname }}}}.lease",
        **variables,
    }
    (folder / "given.json").write_text(json.dumps(given), encoding="utf-8")
    local = f"ansible_connection=local ansible_become=false ansible_python_interpreter={sys.executable}"
    hosts = f"[glm_fleet]\ngpu-1 {local}\n[clients]\nbench-1 {local}\n"
    (folder / "hosts").write_text(hosts, encoding="utf-8")
    playbook = Path(sys.executable).with_name("ansible-playbook")
    output = ""
    with subprocess.Popen(
        [str(playbook), "-i", "hosts", "-e", "@given.json", str(ROOT / "benchmark.yml"), *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_INJECT_FACT_VARS": "false"},
    ) as going:  # fmt: skip
        hung = threading.Timer(900, going.kill)
        hung.start()
        for line in going.stdout:
            output += line
            heard(line)
        hung.cancel()
    return subprocess.CompletedProcess(going.args, going.returncode, output, "")


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "state/benchmarks").glob("2*.json")]


def test_a_good_endpoint_ends_in_a_report(tmp_path: Path) -> None:
    running = re.compile(r"gpu-1: benchmark: run \d of 2 \(.*\), .*\d running, 0 waiting")
    with engine(Behaviour(seconds=600)) as (behaviour, port):

        def go_on(line: str) -> None:
            """However seldom somebody looks, the run is under way until a look saw it."""
            if running.search(line):
                behaviour.seconds = 0.5

        catalogue = tmp_path / "catalogue"
        catalogue.mkdir()
        done = play(tmp_path, port, heard=go_on, glm_catalog=[str(catalogue)], benchmark_keep=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Kept as recipe: {catalogue}/measured.yml" in done.stdout
    [recipe] = yaml.safe_load((catalogue / "measured.yml").read_text("utf-8"))["recipes"]
    assert (recipe["models"], recipe["measured"]["workload"]) == (["GLM-5.1"], "small")
    (record,) = kept(tmp_path)
    assert record["ok"] and len(record["points"]) == 1 and {one["outcome"] for one in record["quality"]} == {"passed"}
    page = (tmp_path / "state/benchmarks/report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "state/benchmarks/report.md").read_text(encoding="utf-8")
    assert "small on gpu-1" in page and "## small on gpu-1: measured" in markdown
    assert KEY not in done.stdout + page + markdown + json.dumps(record)
    assert running.search(done.stdout), done.stdout
    assert re.search(r"gpu-1: benchmark: 4 prompts, 2 parallel: [\d.]+ tok/s out", done.stdout)


def test_another_host_measures_with_the_model_s_tokenizer(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / "models--zai-org--GLM-5.1-FP8" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}", encoding="utf-8")
    paths = {**plan()["paths"], "data": str(tmp_path / "data"), "hf_home": str(tmp_path / "hf")}
    behaviour = Behaviour(seconds=0.5, key=proxy.ENGINE_KEY)
    with engine(behaviour) as (_behaviour, engine_port), proxy.running(tmp_path, engine_port) as front:
        port = front.port
        listen = listening("0.0.0.0", port)
        elsewhere = {
            "benchmark_client_host": "bench-1",
            "benchmark_endpoint_address": "127.0.0.1",
            "benchmark_api_key": proxy.CLIENT_KEY,
            "glm_monitor_address": "0.0.0.0",
            "glm_monitor_port": front.monitor,
        }
        made = plan(listen=listen, contract=CONTRACT, paths=paths)
        done = play(tmp_path, port, benchmark_plans=[made], benchmark_quality=[], **elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = kept(tmp_path)
    folder = Path(record["client"]["tokenizer"])
    assert record["host"] == "gpu-1" and record["client"]["host"] == "bench-1"
    assert folder.parent.parent == tmp_path / "data/benchmarks" and (folder / "tokenizer.json").is_file()
    assert record["runs"][0]["gpus"]["samples"] == 0
    assert record["points"][0]["metrics"]["kv_pool_tokens"] > 0
    assert "on bench-1" in (tmp_path / "state/benchmarks/report.md").read_text(encoding="utf-8")


@pytest.mark.one_core
def test_another_host_cannot_measure_what_was_never_deployed(tmp_path: Path) -> None:
    made = plan(contract=CONTRACT, model={**plan()["model"], "revision": None})
    done = play(tmp_path, 1, benchmark_plans=[made], benchmark_client_host="bench-1", benchmark_quality=[])
    assert done.returncode == 2 and "Next: deploy first" in done.stdout
    assert not (tmp_path / "state/benchmarks/tokenizers").exists()


@pytest.mark.one_core
def test_a_host_that_is_not_in_the_inventory_cannot_measure(tmp_path: Path) -> None:
    done = play(tmp_path, 1, benchmark_client_host="bench-9", benchmark_quality=[])
    assert done.returncode == 2
    told = " ".join(done.stdout.split())
    assert "expected benchmark_client_host to be a host of the inventory, found bench-9" in told


@pytest.mark.one_core
def test_check_mode_measures_nothing(tmp_path: Path) -> None:
    with engine() as (behaviour, port):
        done = play(tmp_path, port, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert behaviour.requests == [] and not (tmp_path / "state").exists()


@pytest.mark.one_core
def test_a_wrong_name_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with engine(Behaviour(model="glm-4.7")) as (_behaviour, port):
        done = play(tmp_path, port, benchmark_quality=[])
    assert done.returncode == 2
    assert "to serve glm-5.1-fp8, found glm-4.7. Next: compare glm_served_model_name" in done.stdout


@pytest.mark.one_core
def test_a_dead_port_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = play(tmp_path, port, benchmark_quality=[])
    assert done.returncode == 2
    assert f"gpu-1: benchmark: expected an endpoint at http://127.0.0.1:{port}, found none" in done.stdout


@pytest.mark.parametrize("strict", [True, pytest.param(False, marks=pytest.mark.one_core)])
def test_an_engine_that_dies_fails_the_run_after_the_report(tmp_path: Path, strict: bool) -> None:
    with engine(Behaviour(dies_after=3)) as (_behaviour, port):
        strictly = {"benchmark_strict": True} if strict else {}
        done = play(tmp_path, port, benchmark_quality=[], benchmark_warmup=0, **strictly)
    assert done.returncode == 2 and "the engine ended, or was killed, while it answered" in done.stdout
    (record,) = kept(tmp_path)
    assert not record["ok"]
    page = tmp_path / "state/benchmarks/report.html"
    assert page.exists() != strict
    assert strict or "not a measurement" in page.read_text(encoding="utf-8")


def test_a_wrong_answer_fails_the_run_and_keeps_the_figures(tmp_path: Path) -> None:
    with engine(Behaviour(faults=(fault("seven-above-a-length"),))) as (_behaviour, port):
        done = play(tmp_path, port)
    assert done.returncode == 2 and "verify, needle: expected a number hidden in a long prompt" in done.stdout
    (record,) = kept(tmp_path)
    assert not record["ok"] and record["trouble"] is None and record["points"]
