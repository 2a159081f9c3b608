"""The main job as its users run it: launch, prepare, fetch, serve, verify, run again, switch engine, give back.

Real systemd hosts, real ssh, real Docker, real engines, real HTTP. The tests build on one another, in file order.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.podman, pytest.mark.engine]

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".rehearsal"
HOSTS = 2
# Each takes half a minute or more for an engine; the others differ in their numbers only.
WORKLOADS = ["concurrency_sweep", "glm4x_balanced"]
if os.environ.get("GLM_EVERY_WORKLOAD"):
    WORKLOADS += ["glm5_coding", "glm4x_prompt_heavy", "glm4x_decode_heavy"]
# A queue so short that a burst overflows it.
NARROW = {"max-queued-requests": 2}
BURST = {
    "text": "Many at once.",
    "interface": "chat",
    "input_tokens": 64,
    "output_tokens": 32,
    "points": [{"prompts": 64, "parallel": 64}],
    "source": {"who": "a test"},
}


@dataclass
class Run:
    """What one command printed, and how it ended."""

    code: int
    output: str
    seconds: float

    def changed(self) -> dict[str, int]:
        """Changed tasks by host, from the play recap."""
        return {host: int(n) for host, n in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.output, re.M)}


def command(*argv: str, timeout: float = 1200) -> Run:
    start = time.monotonic()
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    print(done.stdout)
    return Run(done.returncode, done.stdout, time.monotonic() - start)


def playbook(name: str, *arguments: str, **variables: object) -> Run:
    extra = ["-e", json.dumps(variables)] if variables else []
    return command("ansible-playbook", name, "-i", "rehearsal", *extra, *arguments)


def inventory() -> dict[str, dict[str, object]]:
    """Host variables of the fleet, by host."""
    listed = subprocess.run(
        ["ansible-inventory", "-i", "rehearsal", "--list"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    data = json.loads(listed.stdout)
    return {host: data["_meta"]["hostvars"][host] for host in data.get("glm_fleet", {}).get("hosts", [])}


def on_host(host: str, *argv: str) -> str:
    """What a command, run as root on a rehearsal host over ssh, prints."""
    variables = inventory()[host]
    done = subprocess.run(
        [
            "ssh", "-i", str(STATE / "id_ed25519"), "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            f"{variables.get('ansible_user', 'ubuntu')}@{variables['ansible_host']}", "sudo", *argv,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def reports() -> dict[str, dict[str, object]]:
    return {r["host"]: r for r in json.loads((STATE / "state/reports/fleet.json").read_text(encoding="utf-8"))["hosts"]}


def ask(url: str, key: str | None, body: dict[str, object] | None = None) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    command("python", "-m", "simulator", "down")
    up = command("python", "-m", "simulator", "up", "--engines", "vllm,sglang", timeout=1800)
    assert up.code == 0, up.output
    yield
    assert command("python", "-m", "simulator", "down").code == 0


def test_without_hosts_the_run_says_what_to_set() -> None:
    run = playbook("deploy_glm51.yml", glm_launch=False)
    assert run.code != 0
    assert "expected at least one host in 'glm_fleet', found none" in run.output
    assert "glm_launch=true" in run.output


def test_check_mode_on_fresh_hosts_touches_nothing() -> None:
    launched = playbook("launch.yml", glm_launch=True, glm_launch_count=HOSTS)
    assert launched.code == 0
    assert len(inventory()) == HOSTS
    run = playbook("deploy_glm51.yml", "--check", glm_launch_count=HOSTS)
    assert run.code == 0
    for host in inventory():
        assert "No such file" in on_host(host, "ls", "/etc/glm", "/etc/systemd/system/glm-serve-0.service")
    assert not (STATE / "glm.lock.yml").exists()


def test_vllm_ends_in_a_verified_endpoint_on_every_host() -> None:
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    fleet = reports()
    assert set(fleet) == set(inventory()) and len(fleet) == HOSTS
    assert all(report["ok"] for report in fleet.values())
    check_endpoints("reasoning")


def check_endpoints(reasoning_field: str) -> None:
    """Do what the README's curl does, and what a client would do next, at every endpoint."""
    key = (STATE / "state/api_key").read_text(encoding="utf-8").strip()
    for report in reports().values():
        url = report["endpoint"]["url"]
        status, models = ask(f"{url}/models", key)
        assert status == 200 and [m["id"] for m in models["data"]] == ["glm-5.1-fp8"]
        assert ask(f"{url}/models", None)[0] == 401
        body = {"model": "glm-5.1-fp8", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
        status, answer = ask(f"{url}/chat/completions", key, body)
        message = answer["choices"][0]["message"]
        assert status == 200 and message["content"] and message[reasoning_field]


def measured(engine: str, **variables: object) -> dict[str, dict[str, Any]]:
    """Records by host of the default workload, made smaller by the rehearsal's inventory."""
    run = playbook("benchmark.yml", glm_engine=engine, benchmark_repeats=2, benchmark_sample_seconds=0.5, **variables)
    assert run.code == 0
    assert re.search(r"benchmark: 11 prompts, 1 parallel, repeat 2 of 2: [\d.,]+ tok/s out", run.output)
    page = (STATE / "state/benchmarks/report.html").read_text(encoding="utf-8")
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (STATE / "state/benchmarks").glob("2*.json")]
    found = {record["host"]: record for record in records if record["plan"]["engine"]["name"] == engine}
    assert set(found) == set(inventory()) and all(host in page for host in found)
    assert all(record["ok"] and record["points"][0]["generation_spread"]["count"] == 2 for record in found.values())
    assert all("@sha256:" in record["client"]["image"] for record in found.values())
    return found


def test_vllm_is_measured_with_its_own_client() -> None:
    for record in measured("vllm").values():
        assert record["client"]["image"] == record["plan"]["image"] and record["engine_says"]["version"] == "0.32.0"
        metrics = record["points"][0]["metrics"]
        assert metrics["acceptance_length"] > 1 and metrics["prefix_hit_rate"] < 0.1 and metrics["kv_pool_tokens"] > 0
        assert record["points"][0]["gpus"]["count"] == 8


def every_workload(engine: str, **variables: object) -> None:
    """Workloads of each interface and pace on one host, so small that only their shape is left."""
    host = next(iter(inventory()))
    for name in WORKLOADS:
        run = playbook(
            "benchmark.yml", "--limit", f"{host},localhost", glm_engine=engine, glm_workload=name, benchmark_warmup=0,
            benchmark_scale=0.002, benchmark_quality=[], **variables,
        )  # fmt: skip
        assert run.code == 0, name
        record = newest_record()
        assert record["ok"] and record["workload"]["name"] == name and record["points"]


def test_every_workload_of_vllm() -> None:
    every_workload("vllm")


def test_one_host_measures_the_other() -> None:
    served, client = list(inventory())
    run = playbook("benchmark.yml", "--limit", f"{served},localhost", glm_engine="vllm", benchmark_client_host=client)
    assert run.code == 0
    record = newest_record()
    assert record["host"] == served and record["client"]["host"] == client and record["ok"]
    assert f"glm-benchmark-{served}-0" in record["client"]["command"]
    assert record["points"][0]["gpus"]["samples"] == 0 and record["points"][0]["gpus"]["count"] == 8
    assert record["points"][0]["metrics"]["kv_pool_tokens"] > 0


def newest_record() -> dict[str, Any]:
    newest = max((STATE / "state/benchmarks").glob("2*.json"), key=lambda path: path.name)
    return json.loads(newest.read_text(encoding="utf-8"))


def test_a_wrong_model_name_is_refused_before_it_is_measured() -> None:
    run = playbook("benchmark.yml", glm_engine="vllm", glm_served_model_name="glm-9", benchmark_quality=[])
    refused(run, "to serve glm-9, found glm-5.1-fp8", "compare glm_served_model_name with what was deployed")


def test_a_port_where_nothing_listens_is_refused_before_it_is_measured() -> None:
    run = playbook("benchmark.yml", glm_engine="vllm", glm_port=8123, benchmark_quality=[])
    refused(run, ":8123, found none", "check the unit")


def running_containers() -> dict[str, str]:
    return {h: on_host(h, "docker", "inspect", "--format", "{{.Id}}", "glm-serve-0").strip() for h in inventory()}


def test_a_second_run_changes_nothing_and_restarts_nothing() -> None:
    before = running_containers()
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    assert set(run.changed().values()) == {0}, run.changed()
    assert running_containers() == before


def test_check_mode_on_converged_hosts_is_clean() -> None:
    run = playbook("deploy_glm51.yml", "--check", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    assert set(run.changed().values()) == {0}, run.changed()


def test_secrets_are_neither_in_arguments_nor_readable() -> None:
    key = (STATE / "state/api_key").read_text(encoding="utf-8").strip()
    host = next(iter(inventory()))
    assert key not in on_host(host, "ps", "-eo", "args")
    assert key not in on_host(host, "systemctl", "cat", "glm-serve-0.service")
    assert key in on_host(host, "grep", "-rh", key, "/etc/glm")
    secret = on_host(host, "grep", "-rl", key, "/etc/glm").strip()
    assert on_host(host, "stat", "-c", "%a:%U", secret).strip() == "600:root"
    assert (STATE / "state/api_key").stat().st_mode & 0o777 == 0o600


def test_the_lock_file_holds_what_was_resolved() -> None:
    lock = yaml.safe_load((STATE / "glm.lock.yml").read_text(encoding="utf-8"))
    [(image, entry)] = lock["images"].items()
    assert image.startswith("vllm/vllm-openai:v") and re.fullmatch(r"sha256:[0-9a-f]{64}", entry["digest"])
    [(model, entry)] = lock["models"].items()
    assert model == "zai-org/GLM-5.1-FP8@main" and re.fullmatch(r"[0-9a-f]{40}", entry["commit"])
    host = next(iter(inventory()))
    assert entry["commit"] in on_host(host, "systemctl", "cat", "glm-serve-0.service")


def refused(run: Run, *words: str) -> None:
    assert run.code != 0
    flat = " ".join(run.output.split())
    for word in words:
        assert word in flat, f"{word!r} is not in the output"


def test_an_image_that_does_not_exist_is_named() -> None:
    before = running_containers()
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_engine_version="0.31.0", glm_launch_count=HOSTS)
    refused(run, "vllm/vllm-openai:v0.31.0", "Tags are never guessed")
    assert running_containers() == before


def test_a_full_disk_is_refused_before_the_download() -> None:
    host = next(iter(inventory()))
    on_host(host, "sh", "-c", "'mkdir -p /mnt/small && mount -t tmpfs -o size=1m tmpfs /mnt/small'")
    run = playbook("deploy_glm51.yml", "--limit", f"{host},localhost", glm_engine="vllm", glm_data_dir="/mnt/small",
                   glm_launch_count=HOSTS)  # fmt: skip
    refused(run, host, "/mnt/small", "free")


def test_a_port_in_use_names_who_has_it() -> None:
    host = next(iter(inventory()))
    before = running_containers()[host]
    on_host(host, "systemd-run", "--unit", "squatter", "python3", "-m", "http.server", "8123")
    run = playbook("deploy_glm51.yml", "--limit", f"{host},localhost", glm_engine="vllm", glm_port=8123,
                   glm_launch_count=HOSTS)  # fmt: skip
    on_host(host, "systemctl", "stop", "squatter")
    refused(run, host, "expected", "port 8123 to be free, found process", "http.server", "choose another glm_port")
    assert running_containers()[host] == before


def test_an_engine_that_exits_shows_its_last_lines_and_spares_the_other_host() -> None:
    host, other = list(inventory())
    before = running_containers()[other]
    run = playbook("deploy_glm51.yml", "--limit", f"{host},localhost", glm_engine="vllm",
                   glm_engine_args={"chat-template": "/no/such/template.jinja"}, glm_launch_count=HOSTS)  # fmt: skip
    refused(run, host, "/no/such/template.jinja")
    assert running_containers()[other] == before


def burst(workload: dict[str, Any]) -> dict[str, Any]:
    """Variables that measure a workload of one's own as it is, and nothing else."""
    return {
        "glm_workload": "burst",
        "benchmark_workloads": {"burst": workload},
        "benchmark_scale": 1.0,
        "benchmark_warmup": 0,
        "benchmark_quality": [],
        "benchmark_poll_seconds": 1,
    }


def test_an_engine_that_is_killed_while_it_is_measured_fails_the_measurement() -> None:
    # On the first one the engine of the test before does not start.
    host = list(inventory())[1]
    before = running_containers()[host]
    long = {**BURST, "points": [{"prompts": 64, "parallel": 4}], "output_tokens": 256}
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
            if re.search(r"run 1 of 1 .*, [1-9]\d* of 64 done", line):
                on_host(host, "docker", "kill", "--signal", "KILL", before)
                break
        seen += going.stdout.read()
    print(seen)
    refused(Run(going.returncode, seen, 0), "the engine ended, or was killed, while it answered")
    assert not newest_record()["ok"]


def test_two_hosts_become_one_replica() -> None:
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_nodes=2, glm_launch_count=HOSTS)
    assert run.code == 0
    head, worker = list(inventory())
    assert re.search(rf"^{head} +http://\S+:8000/v1 .* ok +9/9 ", run.output, re.M)
    assert re.search(rf"^{worker} .* worker +0/0 ", run.output, re.M)
    for rank, host in enumerate((head, worker)):
        assert f"--node-rank {rank}" in on_host(host, "systemctl", "cat", "glm-serve-0.service")
        assert f"rank {rank} of 2 hosts" in on_host(host, "journalctl", "-u", "glm-serve-0", "-o", "cat")
    assert ":8000" in on_host(head, "ss", "-ltn") and ":8000" not in on_host(worker, "ss", "-ltn")


def test_sglang_ends_in_a_verified_endpoint_on_every_host() -> None:
    run = playbook("deploy_glm51.yml", glm_engine="sglang", glm_engine_args=NARROW, glm_launch_count=HOSTS)
    assert run.code == 0
    fleet = reports()
    assert len(fleet) == HOSTS and all(report["ok"] for report in fleet.values())
    check_endpoints("reasoning_content")


def test_sglang_is_measured_with_vllm_s_client() -> None:
    for record in measured("sglang", glm_engine_args=NARROW).values():
        assert record["points"][0]["metrics"]["kv_pool_tokens"] > 0
        assert record["client"]["image"].startswith("vllm/vllm-openai@sha256:")
        assert record["plan"]["image"].startswith("lmsysorg/sglang@sha256:")


def test_every_workload_of_sglang() -> None:
    every_workload("sglang", glm_engine_args=NARROW)


def test_an_endpoint_that_turns_requests_away_is_overloaded() -> None:
    host = next(iter(inventory()))
    run = playbook(
        "benchmark.yml", "--limit", f"{host},localhost", glm_engine="sglang", glm_engine_args=NARROW, **burst(BURST)
    )
    refused(run, "took requests and gave no token, as an overloaded SGLang does", "max-queued-requests")
    assert not newest_record()["ok"]


def test_sglang_stops_cleanly_under_systemd() -> None:
    host = next(iter(inventory()))
    on_host(host, "systemctl", "stop", "glm-serve-0.service")
    assert "inactive" in on_host(host, "systemctl", "is-active", "glm-serve-0.service")
    assert "failed" not in on_host(host, "systemctl", "is-failed", "glm-serve-0.service")


def test_the_fleet_is_given_back_only_when_confirmed() -> None:
    refused(playbook("terminate.yml"), "glm_confirm=yes")
    assert len(inventory()) == HOSTS
    assert playbook("terminate.yml", glm_confirm="yes").code == 0
    assert inventory() == {}
