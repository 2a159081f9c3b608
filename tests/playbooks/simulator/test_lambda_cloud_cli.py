"""``python -m simulator.lambda_cloud``: its options, its files and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from lambda_cloud_client import PUBLIC_KEY

from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import control_call, main
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
H200 = """
settings: {page_size: 7, boot_seconds: 1.5}
capacity: {gpu_8x_b200_sxm6: {us-east-1: 2}}
instance_types:
  - name: gpu_8x_h200_sxm5
    gpu_description: "H200 (141 GB SXM5)"
    price_cents_per_hour: 3000
    gpus: 8
    vcpus: 208
    memory_gib: 2000
    storage_gib: 22528
    capacity: {us-east-1: 4}
backend_options: {polls_to_ready: 1, polls_to_address: 1}
"""


@contextmanager
def simulator(tmp_path: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    ready = tmp_path / "ready.json"
    ready.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator.lambda_cloud", "--ready-file", str(ready), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (ready.exists() and ready.read_text().endswith("\n")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads(ready.read_text())["base_url"], process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_SECONDS)


def get(base_url: str, path: str, key: str = "k") -> requests.Response:
    return requests.get(
        f"{base_url}/api/v1{path}", headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS
    )


def test_options_config_and_ready_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(H200)
    arguments = ["--api-key", "k", "--control-token", "t", "--config", str(config), "--listen", "127.0.0.1:0"]
    with simulator(tmp_path, *arguments) as (base_url, process):
        assert get(base_url, "/instances").json() == {"data": []}
        assert get(base_url, "/instances", "other").status_code == 401
        types = get(base_url, "/instance-types").json()["data"]
        assert [row["name"] for row in types["gpu_8x_h200_sxm5"]["regions_with_capacity_available"]] == ["us-east-1"]
        assert [row["name"] for row in types["gpu_8x_b200_sxm6"]["regions_with_capacity_available"]] == ["us-east-1"]
        settings = control_call(base_url, "t", "GET", "/state")["settings"]
        assert (settings["page_size"], settings["boot_seconds"]) == (7, 1.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out.strip()) == (0, f"lambda cloud simulator on {base_url}")
        assert "Traceback" not in err


def test_secrets_from_files_and_environment(tmp_path: Path) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("from-file\n")
    token.write_text("token-file\n")
    with simulator(tmp_path, "--api-key-file", str(key), "--control-token-file", str(token)) as (base_url, _):
        assert get(base_url, "/regions", "from-file").status_code == 200
        assert control_call(base_url, "token-file", "GET", "/faults") == []
    environment = {"LAMBDA_SIMULATOR_API_KEY": "from-env", "LAMBDA_SIMULATOR_CONTROL_TOKEN": "token-env"}
    with simulator(tmp_path, **environment) as (base_url, _):
        assert get(base_url, "/regions", "from-env").status_code == 200
        assert control_call(base_url, "token-env", "GET", "/faults") == []


def test_without_a_token_the_control_endpoint_is_closed(tmp_path: Path) -> None:
    with simulator(tmp_path, "--api-key", "k") as (base_url, _):
        for token in ("", "control", "None"):
            with pytest.raises(ValueError, match="X-Simulator-Token"):
                control_call(base_url, token, "GET", "/state")


def test_a_killed_simulator_goes_on_where_it_was(tmp_path: Path) -> None:
    arguments = ["--api-key", "k", "--state", str(tmp_path / "state.json")]
    headers = {"Authorization": "Bearer k"}
    with simulator(tmp_path, *arguments) as (base_url, process):
        made = requests.post(
            f"{base_url}/api/v1/ssh-keys",
            json={"name": "a", "public_key": PUBLIC_KEY},
            headers=headers,
            timeout=PATIENCE_SECONDS,
        ).json()["data"]
        process.kill()
        process.wait()
    with simulator(tmp_path, *arguments) as (base_url, _):
        assert get(base_url, "/ssh-keys").json() == {"data": [made]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no API key: give --api-key"),
        (["--api-key", ""], "no API key"),
        (["--api-key", "k", "--listen", "nowhere"], "expected HOST:PORT"),
        (["--api-key", "k", "--listen", "127.0.0.1:99999"], "expected HOST:PORT"),
        (["--api-key", "k", "--backend", "vmware"], "backend 'vmware'"),
        (["--api-key", "k", "--config", "absent.yml"], "absent.yml: cannot be read"),
        (["--api-key-file", "absent"], "absent"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAMBDA_SIMULATOR_API_KEY", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(arguments) == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert message in capsys.readouterr().err


TYPE = {
    "name": "gpu_8x_x",
    "gpu_description": "X (1 GB)",
    "price_cents_per_hour": 1,
    "gpus": 8,
    "vcpus": 1,
    "memory_gib": 1,
    "storage_gib": 1,
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected a mapping at the top"),
        ("a: [", "cannot be read"),
        ("colour: red", "unknown key 'colour'"),
        ("settings: 5", "settings: expected a mapping"),
        ("instance_types: {}", "instance_types: expected a list"),
        ("settings: {colour: red}", "unknown key 'colour'"),
        ("capacity: {gpu_8x_x: {us-east-1: 1}}", "unknown instance type 'gpu_8x_x'"),
        ("capacity: {gpu_8x_b200_sxm6: {mars-1: 1}}", "mars-1"),
        (json.dumps({"instance_types": [{**TYPE, "colour": "red"}]}), "gpu_8x_x: unknown key.s. colour"),
        (json.dumps({"instance_types": [{**TYPE, "gpus": "8"}]}), "gpu_8x_x: gpus must be a int"),
        (json.dumps({"instance_types": [{**TYPE, "architecture": "vax"}]}), "gpu_8x_x: architecture must be one of"),
        (json.dumps({"instance_types": [{**TYPE, "name": "gpu_8x_b200_sxm6"}]}), "already in the catalogue"),
        (json.dumps({"instance_types": [{**TYPE, "capacity": {"us-east-1": "all"}}]}), "expected a count or null"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"config.yml: .*{message}"):
        Config().merge_file(path)
