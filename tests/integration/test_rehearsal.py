"""A full deploy as its users run it: launch, prepare, fetch, serve, verify, run again, switch engine, terminate.

Its hosts reach what is outside through a proxy, and trust a company's authority. Real systemd hosts, real ssh, real
Docker, real engines, real HTTP. The tests build on one another, in file order.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.logins import wait_for
from tests.integration.measuring import BURST, burst, every_workload, measured, newest_record
from tests.integration.rehearsal import (
    ALWAYS,
    HOSTS,
    STATE,
    ask,
    check_endpoints,
    gateways,
    inventory,
    on_host,
    playbook,
    refused,
    reports,
    running_containers,
)

# No more at once than the queue of ``narrow`` takes, however slow the engine is to take them up.
LONG, TOKENS = 8, 1500

pytestmark = [pytest.mark.podman, pytest.mark.engine, pytest.mark.usefixtures("rehearsal", "way_out")]


def outside() -> tuple[str, str]:
    """The host and the hub's address of what hosts of this rehearsal find outside."""
    hub = str(yaml.safe_load((STATE / "vars.yml").read_text("utf-8"))["hub_url"])
    return str(urllib.parse.urlsplit(hub).hostname), hub


def listens(address: str, port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((address, port)) == 0


SQUID = """
http_port {address}:{port}
visible_hostname rehearsal
acl anyone src all
http_access allow anyone
cache deny all
shutdown_lifetime 0 seconds
pid_filename {folder}/pid
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
"""


@pytest.fixture(scope="module")
def way_out(rehearsal: None) -> Iterator[Path]:
    """A proxy for the hosts, and an authority that they trust; gives what the proxy logs."""
    address, _hub = outside()
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="glm-way-out-") as name:
        folder = Path(name)
        # It writes as a user of its own.
        folder.chmod(0o777)
        ca = folder / "ca.pem"
        (folder / "squid.conf").write_text(SQUID.format(address=address, port=port, folder=folder), "utf-8")
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        make += ["-days", "2", "-subj", "/CN=Example Company CA", "-keyout", str(folder / "ca.key"), "-out", str(ca)]
        subprocess.run(make, check=True, capture_output=True)
        squid = ["squid", "--foreground", "-f", str(folder / "squid.conf")]
        proxy = subprocess.Popen(squid, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ALWAYS.update(glm_proxy=f"http://{address}:{port}", glm_ca_bundle=str(ca))
        try:
            wait_for("the proxy", lambda: listens(address, port))
            yield folder / "access.log"
        finally:
            ALWAYS.clear()
            proxy.terminate()
            proxy.wait()


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


def test_hosts_are_pinned_with_the_keys_that_they_were_launched_with() -> None:
    expected = {path.stem: path.read_text("utf-8").strip() for path in (STATE / "state/host_keys").iterdir()}
    assert expected.keys() == {str(variables["glm_host_id"]) for variables in inventory().values()}
    pinned = dict(line.split(" ", 1) for line in (STATE / "known_hosts").read_text("utf-8").splitlines())
    assert pinned == expected
    host, variables = next(iter(inventory().items()))
    file = STATE / f"state/host_keys/{variables['glm_host_id']}.pub"
    right = file.read_text("utf-8")
    file.write_text(next(key for key in expected.values() if key != right.strip()), "utf-8")
    try:
        refused(
            playbook("deploy_glm51.yml", "--check", glm_launch_count=HOSTS), host, "was launched with, SHA256:", "rm "
        )
    finally:
        file.write_text(right, "utf-8")


def test_vllm_ends_in_a_verified_endpoint_on_every_host() -> None:
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    fleet = reports()
    assert set(fleet) == set(inventory()) and len(fleet) == HOSTS
    assert all(report["ok"] for report in fleet.values())
    check_endpoints("reasoning")
    # Unasked, each host is a gateway to both.
    key = (STATE / "state/api_key").read_text(encoding="utf-8").strip()
    assert set(gateways()) == set(inventory())
    for host, url in gateways().items():
        assert ask(f"{url}/models", key)[0] == 200 and ask(f"{url}/models", None)[0] == 401
        view = on_host(host, "curl", "-s", "http://127.0.0.1:9801/metrics")
        up = re.findall(r'^haproxy_server_status{proxy="replicas",server="(\S+)-0",state="UP"} 1$', view, re.M)
        assert set(up) == set(inventory()), view
    assert f"curl --cacert {STATE}/state/tls/ca.pem -H @- {next(iter(gateways().values()))}/chat" in run.output


def test_hosts_reached_what_is_outside_through_the_proxy_and_trust_the_authority(way_out: Path) -> None:
    # time, milliseconds, client, outcome, bytes, method, URL
    asked = [(words[2], words[6]) for words in map(str.split, way_out.read_text("utf-8").splitlines())]
    address, hub = outside()
    # Not from where it was seen to listen.
    clients = {client for client, _url in asked} - {address}
    assert len(clients) == HOSTS, clients
    for client in clients:
        urls = [url for one, url in asked if one == client]
        # The weights, the image, and the distribution's packages.
        for wanted in (rf"^{hub}/\S*/resolve/\S+\.safetensors", r"/v2/\S+/blobs/", r"\.deb$"):
            assert any(re.search(wanted, url) for url in urls), (wanted, urls)
    # Hosts ask each other, and themselves, without it.
    own = {str(variables["ansible_host"]) for variables in inventory().values()} | clients
    assert [url for _client, url in asked if any(f"{host}:" in url for host in own)] == []
    ca = Path(str(ALWAYS["glm_ca_bundle"])).read_text("utf-8").strip()
    for host in inventory():
        assert on_host(host, "cat", "/usr/local/share/ca-certificates/glm-fleet.crt").strip() == ca
        assert ca.splitlines()[1] in on_host(host, "cat", "/etc/ssl/certs/ca-certificates.crt")


def test_a_second_run_changes_nothing_and_restarts_nothing() -> None:
    before = running_containers()
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    assert set(run.changed().values()) == {0}, run.changed()
    assert running_containers() == before


def test_status_and_verify_say_what_runs_and_not_what_is_planned() -> None:
    run = playbook("status.yml", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    found = json.loads((STATE / "state/status.json").read_text("utf-8"))
    assert {host["host"] for host in found["hosts"]} == set(inventory())
    for host in found["hosts"]:
        [replica] = host["replicas"]
        assert (host["release"], host["good"], replica["state"], replica["drift"]) == (1, 1, "serving", [])
        assert replica["running"]["engine"] == {"name": "vllm", "version": "0.32.0"}, replica
        assert (replica["open"], replica["waiting"]) == (0, 0) and replica["tokens_per_second"] == 0
    # The plan of another run, whose variables the fleet was not deployed with.
    other = {"glm_engine": "vllm", "glm_engine_args": {"max-num-seqs": 22}, "glm_launch_count": HOSTS}
    refused(playbook("verify.yml", **other), "serves --max-num-seqs", ", plan says 22")
    refused(playbook("status.yml", **other), "serves --max-num-seqs", ", plan says 22", f"0 of {HOSTS} hosts are well")
    for host in inventory():
        folder = "/var/lib/glm/releases"
        modes = on_host(host, "stat", "-c", "%a-%U", f"{folder}/1", f"{folder}/1/plan.json", f"{folder}/good")
        assert modes.split() == ["700-root", "600-root", "600-root"]
        key = on_host(host, "cat", "/etc/glm/engine.key").strip()
        places = on_host(host, "grep", "-rl", key, folder, "/etc/glm/engine.key")
        assert len(key) > 30 and places.split() == ["/etc/glm/engine.key"]


def test_check_mode_on_converged_hosts_is_clean() -> None:
    run = playbook("deploy_glm51.yml", "--check", glm_engine="vllm", glm_launch_count=HOSTS)
    assert run.code == 0
    assert set(run.changed().values()) == {0}, run.changed()


def test_secrets_are_neither_in_arguments_nor_readable() -> None:
    key = (STATE / "state/api_key").read_text(encoding="utf-8").strip()
    host = next(iter(inventory()))
    assert key not in on_host(host, "ps", "-eo", "args")
    assert key not in on_host(host, "systemctl", "cat", "glm-serve-0.service")
    assert on_host(host, "grep", "-rl", key, "/etc/glm") == "", "the door has its hash"
    engine_key = on_host(host, "cat", "/etc/glm/engine.key").strip()
    assert len(engine_key) >= 32 and engine_key not in on_host(host, "ps", "-eo", "args")
    files = on_host(host, "grep", "-rl", engine_key, "/etc/glm").split()
    modes = {file: on_host(host, "stat", "-c", "%a:%U:%G", file).strip() for file in files}
    assert modes.pop("/etc/glm/door/haproxy.cfg") == "640:root:glm-door"
    assert set(modes.values()) == {"600:root:root"} and len(modes) == 2
    assert (STATE / "state/api_key").stat().st_mode & 0o777 == 0o600


def test_the_lock_file_holds_what_was_resolved() -> None:
    lock = yaml.safe_load((STATE / "glm.lock.yml").read_text(encoding="utf-8"))
    [(image, entry)] = lock["images"].items()
    assert image.startswith("vllm/vllm-openai:v") and re.fullmatch(r"sha256:[0-9a-f]{64}", entry["digest"])
    [(model, entry)] = lock["models"].items()
    assert model == "zai-org/GLM-5.1-FP8@main" and re.fullmatch(r"[0-9a-f]{40}", entry["commit"])
    host = next(iter(inventory()))
    assert entry["commit"] in on_host(host, "systemctl", "cat", "glm-serve-0.service")


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


def test_a_canary_whose_engine_exits_serves_its_release_again_and_spares_the_other_host() -> None:
    before = running_containers()
    # In a folder that the container has: the plan refuses others.
    lacking = {"chat-template": "/root/.cache/huggingface/no-such-template.jinja"}
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_engine_args=lacking, glm_launch_count=HOSTS)
    refused(run, "release 1 was put back and passed its gate", "no-such-template.jinja")
    assert f"glm_engine_args: its default -> {json.dumps(lacking)}" in run.output
    assert "not reached" in run.output.partition("The run ended before its report.")[2]
    after = running_containers()
    [host] = [name for name in before if after[name] != before[name]]
    assert f"{host}, serve: release 1 was put back" in run.output
    assert "no-such" not in on_host(host, "systemctl", "cat", "glm-serve-0.service")
    assert on_host(host, "cat", "/var/lib/glm/releases/good").strip() == "1"
    assert playbook("verify.yml", glm_engine="vllm", glm_launch_count=HOSTS).code == 0
    check_endpoints("reasoning")


def test_two_hosts_become_one_replica() -> None:
    run = playbook("deploy_glm51.yml", glm_engine="vllm", glm_nodes=2, glm_launch_count=HOSTS)
    assert run.code == 0
    head, worker = list(inventory())
    assert re.search(rf"^{head} +https://\S+:8000/v1 .* ok +(\d\d)/\1 ", run.output, re.M)
    assert re.search(rf"^{worker} .* worker +(\d)/\1 ", run.output, re.M)
    for rank, host in enumerate((head, worker)):
        assert f"--node-rank {rank}" in on_host(host, "systemctl", "cat", "glm-serve-0.service")
        assert f"rank {rank} of 2 hosts" in on_host(host, "journalctl", "-u", "glm-serve-0", "-o", "cat")
    assert ":8000" in on_host(head, "ss", "-ltn") and ":8000" not in on_host(worker, "ss", "-ltn")
    # One endpoint needs no gateway.
    assert gateways() == {} and ":8443" not in on_host(head, "ss", "-ltn") + on_host(worker, "ss", "-ltn")


def test_a_rollback_serves_what_was_before() -> None:
    run = playbook("rollback.yml", glm_engine="vllm", glm_nodes=2, glm_launch_count=HOSTS)
    assert run.code == 0 and "from release 2 to release 1" in run.output
    for host in inventory():
        assert "--node-rank" not in on_host(host, "systemctl", "cat", "glm-serve-0.service")
        assert on_host(host, "cat", "/var/lib/glm/releases/good").strip() == "1"
    check_endpoints("reasoning")
    assert set(gateways()) == set(inventory())


def narrow() -> str:
    """Engine arguments: on the second host a queue that a burst overflows, and the eight at once of verify do not."""
    return f"{{{{ {{'max-queued-requests': 8}} if inventory_hostname == '{list(inventory())[1]}' else {{}} }}}}"


def test_sglang_ends_in_a_verified_endpoint_on_every_host() -> None:
    run = playbook(
        "deploy_glm51.yml", glm_engine="sglang", glm_engine_args=narrow(), glm_launch_count=HOSTS, glm_confirm=True
    )
    assert run.code == 0 and "  glm_engine: vllm -> sglang\n" in run.output
    assert f"{HOSTS} replicas on {HOSTS} hosts would restart." in run.output
    fleet = reports()
    assert len(fleet) == HOSTS and all(report["ok"] for report in fleet.values())
    check_endpoints("reasoning_content")


def test_sglang_is_measured_with_vllm_s_client() -> None:
    for record in measured("sglang", glm_engine_args=narrow()).values():
        assert record["points"][0]["metrics"]["kv_pool_tokens"] > 0
        assert record["client"]["image"].startswith("vllm/vllm-openai@sha256:")
        assert record["plan"]["image"].startswith("lmsysorg/sglang@sha256:")


def test_every_workload_of_sglang() -> None:
    every_workload("sglang", glm_engine_args=narrow())


def test_an_endpoint_that_turns_requests_away_is_overloaded() -> None:
    host = list(inventory())[1]
    run = playbook(
        "benchmark.yml", "--limit", f"{host},localhost", glm_engine="sglang", glm_engine_args=narrow(), **burst(BURST)
    )
    refused(
        run,
        "accepted requests and returned no token, as an overloaded engine with a full queue does",
        "max-queued-requests",
    )
    assert not newest_record()["ok"]


def test_sglang_stops_cleanly_under_systemd() -> None:
    host = next(iter(inventory()))
    on_host(host, "systemctl", "stop", "glm-serve-0.service")
    assert "inactive" in on_host(host, "systemctl", "is-active", "glm-serve-0.service")
    assert "failed" not in on_host(host, "systemctl", "is-failed", "glm-serve-0.service")


def test_a_host_whose_time_is_over_stops_when_its_last_request_has_ended() -> None:
    """By its own timer's program, without the controller; the other host, which has time, serves on."""
    over, other = list(inventory())[::-1]
    more = {"glm_engine": "sglang", "glm_launch_count": HOSTS, "expiry_at": "2126-01-01T00:00:00Z"}
    assert playbook("deploy_glm51.yml", "--tags", "expiry", **more).code == 0
    again = playbook("deploy_glm51.yml", "--tags", "expiry", **more)
    assert again.code == 0 and set(again.changed().values()) == {0}, again.changed()
    assert "active" in on_host(over, "systemctl", "is-active", "glm-expiry.timer")
    url = reports()[over]["endpoint"]["url"]
    key = (STATE / "state/api_key").read_text("utf-8").strip()
    body = {"model": "glm-5.1-fp8", "messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
    # As many as the engine needs a while for.
    with ThreadPoolExecutor(LONG) as pool:
        long = [pool.submit(ask, f"{url}/chat/completions", key, {**body, "max_tokens": TOKENS}) for _ in range(LONG)]
        wait_until(lambda: answer_of(over)["open"] == LONG)
        on_host(over, "sed", "-i", "s/2126-/2026-/", "/var/lib/glm/expiry/orders.json")
        on_host(over, "systemctl", "start", "glm-expiry.service")
        assert answer_of(over)["phase"] == "draining"
        assert ask(f"{url}/chat/completions", key, {**body, "max_tokens": 3})[0] == 503
        answers = [one.result() for one in long]
    assert [(status, answer["usage"]["completion_tokens"]) for status, answer in answers] == [(200, TOKENS)] * LONG
    on_host(over, "systemctl", "start", "glm-expiry.service")
    assert "inactive" in on_host(over, "systemctl", "is-active", "glm-serve-0.service")
    found = answer_of(over)
    assert (found["phase"], found["open"]) == ("stopped", 0)
    assert found["over"] == "its time ended at 2026-01-01T00:00:00Z"
    journal = on_host(over, "journalctl", "-u", "glm-expiry.service", "-o", "cat", "--no-pager")
    assert "request(s) run" in journal and "the engines are stopped" in journal
    assert answer_of(other)["over"] == ""


def answer_of(host: str) -> dict[str, Any]:
    """What reap.yml hears from a host."""
    found: dict[str, Any] = json.loads(
        on_host(host, "python3", "-I", "-B", "/usr/local/lib/glm/expiry", "report", "/var/lib/glm/expiry")
    )
    return found


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_the_fleet_is_given_back_only_when_confirmed() -> None:
    refused(playbook("terminate.yml"), "glm_confirm=yes")
    assert len(inventory()) == HOSTS
    assert playbook("terminate.yml", glm_confirm="yes").code == 0
    assert inventory() == {}
