"""Measuring what vLLM serves: each workload, from the host itself and from another, and what cannot be measured.

A rehearsal of its own beside that of the main job. The tests build on one another, in file order.
"""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.integration.measuring import BURST, burst, every_workload, measured, newest_record
from tests.integration.rehearsal import HOSTS, ROOT, Run, inventory, playbook, refused, root_on, running_containers

pytestmark = [pytest.mark.podman, pytest.mark.engine, pytest.mark.usefixtures("rehearsal")]


# Each host's GPUs are also seen from the other. Their speed is measured in test_rehearsal.
SEEN = {"glm_gateways": 0, "glm_monitor_address": "{{ glm_private_address }}", "acceptance_gpu_speed": False}


@pytest.fixture(scope="module", autouse=True)
def served(rehearsal: None) -> None:
    """Launched and deployed in one run."""
    assert playbook("deploy_glm51.yml", glm_engine="vllm", glm_launch_count=HOSTS, **SEEN).code == 0


def test_vllm_is_measured_with_its_own_client() -> None:
    for record in measured("vllm", **SEEN).values():
        assert record["client"]["image"] == record["plan"]["image"] and record["engine_says"]["version"] == "0.32.0"
        metrics = record["points"][0]["metrics"]
        assert metrics["acceptance_length"] > 1 and metrics["prefix_hit_rate"] < 0.1 and metrics["kv_pool_tokens"] > 0
        assert record["points"][0]["gpus"]["count"] == 8


def test_every_workload_of_vllm() -> None:
    every_workload("vllm", **SEEN)


def test_one_host_measures_the_other() -> None:
    served, client = list(inventory())
    own = {"glm_engine": "vllm", "benchmark_client_host": client, **SEEN}
    run = playbook("benchmark.yml", "--limit", f"{served},localhost", **own)
    assert run.code == 0
    record = newest_record()
    assert record["host"] == served and record["client"]["host"] == client and record["ok"]
    assert f"glm-benchmark-{served}-0" in record["client"]["command"]
    assert record["points"][0]["gpus"]["samples"] == 0 and record["points"][0]["gpus"]["count"] == 8
    assert record["points"][0]["metrics"]["kv_pool_tokens"] > 0


def test_a_wrong_model_name_is_refused_before_it_is_measured() -> None:
    run = playbook("benchmark.yml", glm_engine="vllm", glm_served_model_name="glm-9", benchmark_quality=[])
    refused(run, "to serve glm-9, found glm-5.1-fp8", "compare glm_served_model_name with what was deployed")


def test_a_port_where_nothing_listens_is_refused_before_it_is_measured() -> None:
    run = playbook("benchmark.yml", glm_engine="vllm", glm_port=8123, benchmark_quality=[])
    refused(run, ":8123, found none", "check the unit")


def test_an_engine_that_is_killed_while_it_is_measured_fails_the_measurement() -> None:
    # On the first one the engine of the test before does not start.
    host = list(inventory())[1]
    kill = [*root_on(host), "docker", "kill", "--signal", "KILL", running_containers()[host]]
    # So many that it is not at its end when the kill comes.
    long = {**BURST, "points": [{"prompts": 1024, "parallel": 4}], "output_tokens": 256}
    variables = json.dumps({"glm_engine": "vllm", **burst(long)})
    seen = ""
    with subprocess.Popen(
        ["ansible-playbook", "benchmark.yml", "-i", "rehearsal", "--limit", f"{host},localhost", "-e", variables],
        cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as going:  # fmt: skip
        assert going.stdout
        for line in going.stdout:
            seen += line
            if re.search(r"run 1 of 1 .*, [1-9]\d* of 1024 done", line):
                subprocess.run(kill, check=True)
                break
        seen += going.stdout.read()
    print(seen)
    refused(Run(going.returncode, seen, 0), "the engine ended, or was killed, while it answered")
    assert not newest_record()["ok"]
