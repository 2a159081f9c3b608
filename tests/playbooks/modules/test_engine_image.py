"""engine_image: digests from registries and mirrors, background pulls, the probe, and the lock file around them."""

from __future__ import annotations

import grp
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.glm.fleet.plugins.module_utils.host import probe, pull, registry
from ansible_collections.glm.fleet.plugins.module_utils.host.docker import DockerError, Engine
from ansible_collections.glm.fleet.plugins.modules import engine_image
from tests.patience import PATIENCE_SECONDS
from tests.playbooks import role_variables
from tests.unit.serve.plans import replicas

ROOT = Path(__file__).parents[3]
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
TAGS = ["latest", "v0.31.0", "v0.32.0", "v0.32.0-cu129"]


class Registry(http.server.ThreadingHTTPServer):
    """An image registry with vllm/vllm-openai; ``behaviour`` makes it wrong in the ways registries are wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.behaviour = ""
        self.requests: list[str] = []


class RegistryHandler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, format: str, *args: Any) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        behaviour = self.server.behaviour
        path = self.path.partition("?")[0]
        if path == "/token":
            assert "scope=repository%3Avllm%2Fvllm-openai%3Apull" in self.path and "service=reg" in self.path
            return self.send(200, b'{"token": "let-me-in"}')
        if behaviour == "token" and self.headers.get("Authorization") != "Bearer let-me-in":
            challenge = f'Bearer realm="{self.server.url}/token",service="reg"'
            return self.send(401, b"{}", {"WWW-Authenticate": challenge})
        if behaviour in ("429", "500", "401"):
            return self.send(int(behaviour), b"{}")
        if path == "/v2/vllm/vllm-openai/tags/list":
            if "last=" in self.path:
                return self.send(200, json.dumps({"tags": TAGS[2:]}).encode())
            link = {"Link": '</v2/vllm/vllm-openai/tags/list?last=v0.31.0>; rel="next"'}
            return self.send(200, json.dumps({"tags": TAGS[:2]}).encode(), link)
        if path in [f"/v2/vllm/vllm-openai/manifests/{tag}" for tag in TAGS]:
            if behaviour == "no-head" and self.command == "HEAD":
                return self.send(405, b"")
            assert "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            headers = {} if behaviour in ("no-head", "no-header") else {"Docker-Content-Digest": DIGEST}
            return self.send(200, MANIFEST, headers)
        return self.send(404, b'{"errors": []}')

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Registry, Registry]]:
    """A mirror, and what stands for the Hub."""
    pair = (Registry(), Registry())
    for server in pair:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(registry, "HUB_API", pair[1].url)
    yield pair
    for server in pair:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("behaviour", ["", "token", "no-head", "no-header"])
def test_digest_from_a_mirror(servers: tuple[Registry, Registry], behaviour: str) -> None:
    mirror, hub = servers
    mirror.behaviour = behaviour
    assert registry.resolve("vllm/vllm-openai", "v0.32.0", [mirror.url + "/"]) == registry.Resolved(DIGEST, mirror.url)
    assert hub.requests == []


@pytest.mark.parametrize("behaviour", ["429", "500", "401"])
def test_a_mirror_that_does_not_work_is_passed_over(servers: tuple[Registry, Registry], behaviour: str) -> None:
    mirror, hub = servers
    mirror.behaviour = behaviour
    found = registry.resolve("vllm/vllm-openai", "v0.32.0", ["http://127.0.0.1:9", mirror.url])
    assert found.endpoint == hub.url


def test_a_tag_that_does_not_exist_names_the_similar_ones(servers: tuple[Registry, Registry]) -> None:
    mirror, _hub = servers
    with pytest.raises(registry.RegistryError) as caught:
        registry.resolve("vllm/vllm-openai", "v0.32.0-cu12", [mirror.url])
    assert caught.value.missing
    assert "there is no image vllm/vllm-openai:v0.32.0-cu12" in str(caught.value)
    assert "similar tags that do exist: v0.32.0-cu129, v0.32.0" in str(caught.value)


def test_registry_that_cannot_be_reached_is_told_from_a_missing_tag(servers: tuple[Registry, Registry]) -> None:
    mirror, hub = servers
    hub.behaviour = "500"
    with pytest.raises(registry.RegistryError) as caught:
        registry.resolve("vllm/vllm-openai", "v9", [mirror.url, "http://127.0.0.1:9"])
    assert caught.value.missing
    assert str(caught.value).startswith("no digest was found for vllm/vllm-openai:v9 (")
    for part in (
        f"{mirror.url}: no such tag",
        "http://127.0.0.1:9: ",
        "port 9 refuses connections",
        f"{hub.url}: HTTP 500",
    ):
        assert part in str(caught.value)
    mirror.behaviour = "500"
    with pytest.raises(registry.RegistryError, match="could not be looked up") as caught:
        registry.resolve("vllm/vllm-openai", "v9", [mirror.url])
    assert not caught.value.missing


def test_where_names_live() -> None:
    assert registry.split_repository("vllm/vllm-openai") == ("docker.io", "vllm/vllm-openai")
    assert registry.split_repository("debian") == ("docker.io", "library/debian")
    assert registry.split_repository("ghcr.io/a/b") == ("ghcr.io", "a/b")
    assert registry.endpoints("ghcr.io/a/b", ["http://mirror"]) == ["https://ghcr.io"]
    assert registry.endpoints("a/b", ["mirror.example/"]) == ["https://mirror.example", registry.HUB_API]


class DockerApi(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The Docker engine's socket: it has no image until a pull ends."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), DockerHandler)
        self.images: dict[str, str] = {}
        self.messages: list[dict[str, Any]] = []
        # After each line of a pull it waits for this.
        self.going_on = threading.Event()
        self.going_on.set()


class DockerHandler(http.server.BaseHTTPRequestHandler):
    server: DockerApi

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.removeprefix("/images/").removesuffix("/json")
        if name in self.server.images:
            return self.send(200, {"Id": self.server.images[name]})
        return self.send(404, {"message": f"No such image: {name}"})

    def do_POST(self) -> None:
        path, _mark, query = self.path.partition("?")
        if path.endswith("/tag"):
            name = path.removeprefix("/images/").removesuffix("/tag")
            self.server.images["vllm/vllm-openai:v0.32.0"] = self.server.images[name]
            return self.send(201, {})
        assert query == f"fromImage=vllm%2Fvllm-openai&tag={DIGEST.replace(':', '%3A')}"
        self.send_response(200)
        self.end_headers()
        for message in self.server.messages:
            self.wfile.write(json.dumps(message).encode() + b"\r\n")
            self.wfile.flush()
            self.server.going_on.wait(300)
        if not any("error" in message for message in self.server.messages):
            self.server.images[f"vllm/vllm-openai@{DIGEST}"] = "sha256:1"
        return None

    def send(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


PULL_MESSAGES = [
    {"status": "Pulling from vllm/vllm-openai", "id": DIGEST},
    {"status": "Already exists", "progressDetail": {}, "id": "aaa"},
    {"status": "Downloading", "progressDetail": {"current": 700, "total": 1000}, "id": "bbb"},
    {"status": "Download complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Extracting", "progressDetail": {"current": 5, "total": 1000}, "id": "bbb"},
    {"status": "Pull complete", "progressDetail": {}, "id": "bbb"},
    {"status": "Status: Downloaded newer image"},
]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_command: Callable[..., Path]) -> Iterator[DockerApi]:
    path = tmp_path / "docker.sock"
    server = DockerApi(path)
    server.messages = PULL_MESSAGES
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(engine_image, "Engine", lambda: Engine(str(path)))
    monkeypatch.setattr(
        engine_image, "PullJob", lambda name, digest: pull.PullJob(name, digest, tmp_path / "run", str(path))
    )
    fake_command("docker", "exit 1")
    yield server
    server.going_on.set()
    server.shutdown()
    server.server_close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plan(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "image": {"repository": "vllm/vllm-openai", "tag": "v0.32.0", "min_transformers": "5.2.0"},
        "runtime": {"kind": "container", "network": "bridge"},
        "devices": ["nvidia.com/gpu=all"],
        "confinement": {
            "user": "0",
            "capabilities": [],
            "writable": ["/tmp"],
            "processes": 9,
            "shared_memory_gib": 4,
            "imports": ["engine"],
        },
        "mounts": [
            {"source": "/srv/hub", "target": "/hub", "read_only": True},
            {"source": "/srv/cache", "target": "/cache", "read_only": False},
        ],
        "env": {"TRITON_CACHE_DIR": "/cache/triton", "HF_HUB_OFFLINE": "1"},
        "accelerator": {"name": "B200", "count": 8, "vendor": "nvidia"},
        "model": {"model_type": "glm_moe_dsa"},
        "paths": {"data": str(tmp_path / "data")},
        "disk": {"image_bytes": 1000},
        **changes,
    }


def test_pull_goes_on_in_the_background_and_is_followed(engine: DockerApi, tmp_path: Path, run_module: Any) -> None:
    engine.going_on.clear()
    options = {"plan": plan(tmp_path), "state": "present", "digest": DIGEST}
    first = run_module(engine_image.main, poll=0, **options)
    assert first["pulling"]["layers_done"] == 0 and first["changed"]
    engine.going_on.set()
    second = run_module(engine_image.main, poll=300, follow=True, **options)
    assert second["changed"] and "pulling" not in second
    assert second["pull"]["layers"] == second["pull"]["layers_done"] == 2
    assert second["pull"]["bytes"] == 700
    assert engine.images["vllm/vllm-openai:v0.32.0"] == "sha256:1"
    third = run_module(engine_image.main, **options)
    assert third["changed"] is False and third["reference"] == f"vllm/vllm-openai@{DIGEST}"


def test_only_one_pull_of_an_image_runs(engine: DockerApi, tmp_path: Path) -> None:
    engine.going_on.clear()
    job = pull.PullJob("vllm/vllm-openai", DIGEST, tmp_path / "run", str(engine.server_address))
    job.begin(300)
    began = job.state()["started"]
    other = pull.PullJob("vllm/vllm-openai", DIGEST, tmp_path / "run", str(engine.server_address))
    assert other.running()
    other.begin(300)
    engine.going_on.set()
    wait_for(lambda: not job.running())
    assert job.state()["finished"] and began <= job.state()["started"] < began + 1


def test_a_pull_that_fails_says_why(engine: DockerApi, tmp_path: Path, run_module: Any) -> None:
    engine.messages = [*PULL_MESSAGES[:3], {"error": "write /var/lib/docker/tmp: no space left on device"}]
    result = run_module(engine_image.main, plan=plan(tmp_path), state="present", digest=DIGEST, poll=20)
    assert result["failed"] and "no space left on device" in result["msg"] and "1 of 2 layers" in result["msg"]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        ("received unexpected HTTP status: 502 Bad Gateway", 4),
        ("unexpected EOF", 4),
        ("write /var/lib/docker/tmp: no space left on device", 1),
        ("manifest for vllm/vllm-openai@sha256:1 not found: manifest unknown", 1),
        ("pull access denied for vllm/vllm-openai", 1),
    ],
)
def test_what_may_be_gone_a_moment_later_is_tried_again(
    engine: DockerApi, tmp_path: Path, error: str, tries: int
) -> None:
    engine.messages = [*PULL_MESSAGES[:3], {"error": error}]
    job = pull.PullJob("vllm/vllm-openai", DIGEST, tmp_path / "run", str(engine.server_address))
    job.lock_file.parent.mkdir()
    slept: list[float] = []
    job._pull(300, slept.append)
    assert slept == list(pull.RETRY_SECONDS[: tries - 1])
    assert job.state()["error"] == error and job.state()["finished"]


def test_a_registry_that_fails_once_costs_a_moment(engine: DockerApi, tmp_path: Path) -> None:
    job = pull.PullJob("vllm/vllm-openai", DIGEST, tmp_path / "run", str(engine.server_address))
    job.lock_file.parent.mkdir()
    whole = list(engine.messages)
    engine.messages = [*PULL_MESSAGES[:2], {"error": "unexpected EOF"}]

    def back(_seconds: float) -> None:
        engine.messages = whole

    job._pull(300, back)
    assert job.state()["error"] is None and job.state()["finished"] and job.state()["layers_done"] == 2


def test_a_pull_that_died_is_noticed(engine: DockerApi, tmp_path: Path, run_module: Any) -> None:
    job = pull.PullJob("vllm/vllm-openai", DIGEST, tmp_path / "run", str(engine.server_address))
    job.lock_file.parent.mkdir()
    job.lock_file.touch()
    job.write(pull.Progress().data())
    result = run_module(engine_image.main, plan=plan(tmp_path), state="present", digest=DIGEST, follow=True)
    assert result["failed"] and "ended without an error message" in result["msg"]


def test_an_engine_that_goes_silent_ends_the_pull(engine: DockerApi, tmp_path: Path) -> None:
    engine.going_on.clear()
    messages = Engine(str(engine.server_address), timeout=0.3).pull("vllm/vllm-openai", DIGEST)
    with pytest.raises(DockerError, match="broke off the pull: timed out"):
        list(messages)


def test_no_room_for_the_image(engine: DockerApi, tmp_path: Path, run_module: Any) -> None:
    huge = plan(tmp_path, disk={"image_bytes": 10**18})
    result = run_module(engine_image.main, plan=huge, state="present", digest=DIGEST)
    assert result["failed"] and "expected 1000000000.0 GB free" in result["msg"] and "docker_data_root" in result["msg"]


def test_room_is_looked_for_where_containerd_keeps_images(
    engine: DockerApi, tmp_path: Path, run_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"root_dir": str(tmp_path), "image_store": "containerd"}
    monkeypatch.setattr(engine_image, "docker_facts", lambda: (facts, None))
    huge = plan(tmp_path, disk={"image_bytes": 10**18})
    result = run_module(engine_image.main, plan=huge, state="present", digest=DIGEST)
    assert result["failed"] and "in /var/lib/containerd, found" in result["msg"]


def test_check_mode_pulls_nothing(engine: DockerApi, tmp_path: Path, run_module: Any) -> None:
    result = run_module(engine_image.main, check=True, plan=plan(tmp_path), digest=DIGEST)
    assert result["changed"] and engine.images == {} and not (tmp_path / "run").exists()


def test_probe_runs_once_per_image_driver_and_device(
    engine: DockerApi, tmp_path: Path, run_module: Any, fake_command: Callable[..., Path]
) -> None:
    engine.images.update({f"vllm/vllm-openai@{DIGEST}": "sha256:1", "vllm/vllm-openai:v0.32.0": "sha256:1"})
    found = {**GOOD, "transformers": "5.3.0"}
    answer = f"GLM-PROBE {json.dumps(found)}"
    calls = fake_command("docker", f"case $1 in run) echo noise; echo '{answer}';; *) exit 1;; esac")
    first = run_module(engine_image.main, plan=plan(tmp_path), digest=DIGEST)
    assert first["probe"] == {**found, "cached": False} and first["changed"] is False
    assert "--device nvidia.com/gpu=all" in calls.read_text("utf-8")
    assert "--read-only" in calls.read_text("utf-8"), "under the limits of the unit"
    runs = calls.read_text("utf-8").count("run --rm")
    assert run_module(engine_image.main, plan=plan(tmp_path), digest=DIGEST)["probe"]["cached"] is True
    assert calls.read_text("utf-8").count("run --rm") == runs == 1
    run_module(engine_image.main, plan=plan(tmp_path, devices=["nvidia.com/gpu=0"]), digest=DIGEST)
    assert calls.read_text("utf-8").count("run --rm") == 2
    run_module(engine_image.main, plan=plan(tmp_path, env={"OTHER": "limits"}), digest=DIGEST)
    assert calls.read_text("utf-8").count("run --rm") == 3


def test_probe_failures_are_not_remembered(
    engine: DockerApi, tmp_path: Path, run_module: Any, fake_command: Callable[..., Path]
) -> None:
    engine.images.update({f"vllm/vllm-openai@{DIGEST}": "sha256:1", "vllm/vllm-openai:v0.32.0": "sha256:1"})
    fake_command("docker", "echo 'could not select device driver \"cdi\"' >&2; exit 125")
    result = run_module(engine_image.main, plan=plan(tmp_path), digest=DIGEST)
    assert result["failed"] and "docker run ended with 125" in result["msg"] and 'device driver "cdi"' in result["msg"]
    assert not (tmp_path / "data").exists()


def test_what_was_not_tried_beside_an_engine_is_said_in_every_run(
    engine: DockerApi,
    tmp_path: Path,
    run_module: Any,
    fake_command: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine.images.update({f"vllm/vllm-openai@{DIGEST}": "sha256:1", "vllm/vllm-openai:v0.32.0": "sha256:1"})
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: said.append(text))
    for devices, loaded, words in (([0] * 8, 1.0, []), ([None] + [0] * 7, None, ["GPU 0 may be in use"])):
        found = {**GOOD, "runtime": {"code": 0, "gpus": 8, "devices": devices}, "loaded": {"compiled": loaded}}
        fake_command("docker", f"echo 'GLM-PROBE {json.dumps(found)}'")
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        for cached in (False, True):
            said.clear()
            result = run_module(engine_image.main, plan=plan(tmp_path), digest=DIGEST)
            assert not result.get("failed") and result["probe"]["cached"] is cached, result
            assert len(said) == len(words) and all(word in str(said) for word in words)


def test_a_host_is_probed_once_with_the_gpus_of_all_its_replicas(
    engine: DockerApi, run_module: Any, fake_command: Callable[..., Path], tmp_path: Path
) -> None:
    engine.images.update({f"vllm/vllm-openai@{DIGEST}": "sha256:1", "vllm/vllm-openai:v0.32.0": "sha256:1"})
    plans = [{**one, "env": {**one["env"], "HIP_VISIBLE_DEVICES": "0,1,2,3"}} for one in replicas(2)]
    given = {"engine_image_plans": plans, "__engine_image_plan": "{{ engine_image_plans[0] }}"}
    (task,) = yaml.safe_load((ROOT / "roles/engine_image/tasks/verify.yml").read_text("utf-8"))
    shown = {"loop": task["loop"], "plan": task["glm.fleet.engine_image"]["plan"]}
    role = role_variables.show(tmp_path, "engine_image", {"host": given}, shown)["host"]
    assert len(role["loop"]) == 1
    assert role["plan"]["accelerator"]["indices"] == list(range(8))
    assert role["plan"]["devices"] == [f"nvidia.com/gpu={index}" for index in range(8)]
    assert not [name for name in role["plan"]["env"] if name.endswith("_VISIBLE_DEVICES")]
    calls = fake_command("docker", f"echo 'GLM-PROBE {json.dumps(GOOD)}'")
    probed = plan(tmp_path, devices=role["plan"]["devices"])
    probed["accelerator"] = role["plan"]["accelerator"]
    result = run_module(engine_image.main, plan=probed, digest=DIGEST)
    assert not result.get("failed") and result["probe"]["gpus"] == 8, result
    assert calls.read_text("utf-8").count("--device nvidia.com/gpu=") == 8


def test_another_machine_has_the_devices_or_not(tmp_path: Path) -> None:
    made = {"devices": ["nvidia.com/gpu=all"]}
    assert not probe.has_devices(made, tmp_path)
    (tmp_path / "etc/cdi").mkdir(parents=True)
    spec = {"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}
    (tmp_path / "etc/cdi/nvidia.json").write_text(json.dumps(spec), encoding="utf-8")
    assert probe.has_devices(made, tmp_path)
    assert not probe.has_devices({"devices": ["nvidia.com/gpu=7"]}, tmp_path)
    assert not probe.has_devices({"devices": [], "device_nodes": ["/dev/kfd"]}, tmp_path)


def test_amd_containers_get_nodes_numeric_groups_and_options() -> None:
    own = grp.getgrgid(os.getgid())
    made = {
        "devices": [], "device_nodes": ["/dev/kfd", "/dev/dri"], "device_groups": [own.gr_name],
        "confinement": {"capabilities": ["SYS_NICE"]},
    }  # fmt: skip
    assert probe.device_arguments(made) == [
        "--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", str(own.gr_gid),
        "--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--cap-add", "SYS_NICE",
    ]  # fmt: skip
    with pytest.raises(probe.ProbeError, match="no group no-such-group"):
        probe.device_arguments({**made, "device_groups": ["no-such-group"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"render_nodes": 7}, "expected 8 render nodes and a usable /dev/kfd inside the container, found 7"),
        ({"kfd": False}, "found 8 and no usable /dev/kfd"),
        ({"runtime": {"code": 0, "gpus": 8, "devices": [0] * 8}}, None),
        ({"runtime": {"code": 100, "gpus": 0, "devices": []}}, "HIP sees no device"),
        ({"runtime": {"code": 0, "gpus": 8, "devices": [0] * 7 + [719]}}, "does not initialise on GPU 7 (error 719)"),
    ],
)
def test_judgement_of_amd_devices(change: dict[str, Any], message: str | None) -> None:
    found = {**GOOD, "gpus": None, "runtime": None, "render_nodes": 8, "kfd": True, **change}
    problems = probe.judge(found, {**EXPECTED, "vendor": "amd"})
    assert (problems == []) if message is None else (len(problems) == 1 and message in problems[0])


STATUS = {"CapEff": "0" * 16, "CapPrm": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
GOOD = {"gpus": 8, "nvidia_smi": "", "runtime": {"code": 0, "gpus": 8, "devices": [0] * 8},
        "transformers": "5.2.0", "known": True, "import_error": None,
        "confined": {"status": STATUS, "unwritable": [], "root": False},
        "loaded": {"seeded": 0, "compiled": 1.0}}  # fmt: skip
EXPECTED = {"gpus": 8, "vendor": "nvidia", "model_type": "glm_moe_dsa", "min_transformers": "5.2.0", "limits": None}
LIMITS = {"folders": ["/tmp"], "imports": ["engine"], "capabilities": 0}


def confined(**changes: Any) -> dict[str, Any]:
    found = {"status": {**STATUS, **changes.pop("status", {})}, "unwritable": [], "root": False, **changes}
    return {"confined": found}


@pytest.mark.parametrize(
    ("change", "capabilities", "message"),
    [
        ({}, 0, None),
        (confined(status={"CapBnd": "0000000000800000", "CapEff": "0000000000800000"}), 1, None),
        (confined(status={"CapBnd": "0000000000800000"}), 0, "expected a container with 0 capabilities"),
        (confined(status={"CapBnd": "00000000a80425fb"}), 1, "expected a container with 1 capabilities"),
        (confined(status={"NoNewPrivs": "0"}), 0, "no new privileges"),
        (confined(status={"Seccomp": "0"}), 0, "docker info (Security Options)"),
        (confined(root=True), 0, "and a writable image; look at"),
        (confined(unwritable=["/cache/triton: Permission denied"]), 0, "where it keeps it: /cache/triton: Permission"),
        (
            {"loaded": {"problem": "ended with 1: OSError: Read-only file system"}},
            0,
            "limits of the unit: ended with 1",
        ),
    ],
)
def test_judgement_of_the_limits_of_the_unit(change: dict[str, Any], capabilities: int, message: str | None) -> None:
    limits = {**LIMITS, "capabilities": capabilities}
    problems = probe.judge({**GOOD, **change}, {**EXPECTED, "limits": limits})
    assert problems == [] if message is None else message in problems[0] and len(problems) == 1
    # Acceptance looks at the GPUs only, and its container has not all limits.
    assert probe.judge({**GOOD, **change}, EXPECTED) == []


def probed(
    tmp_path: Path, folders: list[str], imports: list[str], runtime: str = "null", **environ: str
) -> dict[str, Any]:
    """What the script finds here, without a container: ``lib`` below tmp_path has the engine."""
    words = ["glm_moe_dsa", f"print('{runtime}')", "cuda", probe.LOAD, json.dumps(folders), json.dumps(imports)]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "lib"), **environ}
    done = subprocess.run([sys.executable, "-c", probe.SCRIPT, *words], env=env, capture_output=True, text=True)
    return json.loads(done.stdout.partition("GLM-PROBE ")[2])


def test_the_probe_writes_and_loads_where_the_engine_does(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/engine.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()", "utf-8"
    )
    found = probed(tmp_path, [str(tmp_path / "new/triton"), str(tmp_path / "file")], ["engine"])
    assert found["confined"]["unwritable"] == [f"{tmp_path}/file: File exists"]
    assert set(found["confined"]["status"]) == set(STATUS) and (tmp_path / "new/triton").is_dir()
    assert "problem" not in found["loaded"] and (tmp_path / "lib/engine.ran").exists()
    failed = probed(tmp_path, [], ["no_such_engine"])["loaded"]["problem"]
    assert "ended with 1" in failed and "No module named 'no_such_engine'" in failed


TORCH = """
import os
assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
class Values:
    def sum(self):
        open({ran!r}, "w").close()
        return 3.0
def compile(function):
    return lambda values: values
def ones(count, device):
    if {blind}:
        raise RuntimeError("No CUDA GPUs are available")
    return Values()
"""


@pytest.mark.parametrize(
    ("runtime", "compiles"),
    [
        ({"code": 0, "gpus": 2, "devices": [0, None]}, True),
        ({"code": 0, "gpus": 2, "devices": [None, 0]}, False),
        ({"code": 0, "gpus": 2, "devices": [46, 0]}, False),
        ({"code": 0, "gpus": 0, "devices": []}, False),
        ({"problem": "timed out"}, False),
        (None, False),
    ],
)
def test_no_kernel_is_compiled_on_a_gpu_that_may_serve(
    tmp_path: Path, runtime: dict[str, Any] | None, compiles: bool
) -> None:
    """A context takes memory that a full GPU does not have, and another process's exclusive GPU refuses it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/torch.py").write_text(TORCH.format(ran=str(tmp_path / "ran"), blind=False), "utf-8")
    found = probed(tmp_path, [], [], json.dumps(runtime))["loaded"]
    assert found == {"seeded": 0, "compiled": 3.0 if compiles else None}
    assert (tmp_path / "ran").exists() is compiles


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"runtime": {"code": 0, "gpus": 8, "devices": [None] * 8}}, "GPU 0 may be in use"),
        ({"runtime": {"code": 0, "gpus": 8, "devices": [46] * 8}}, "GPU 0 may be in use"),
        ({"runtime": None}, "the container has no library of the GPUs' vendor (CUDA, HIP)"),
    ],
)
def test_kernels_that_were_not_compiled_are_not_proven(change: dict[str, Any], why: str) -> None:
    said = probe.not_proven({**GOOD, **change})
    assert (f"because {why}: that is not proven" in said) if why else said == ""


@pytest.mark.parametrize("torch", [TORCH.format(ran="", blind=True), None], ids=["blind", "no torch"])
def test_an_image_whose_torch_sees_no_gpu_cannot_serve(tmp_path: Path, torch: str | None) -> None:
    """A build for CPUs, or for another CUDA: the driver's own library sees every GPU all the same."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/torch.py").write_text(torch or "raise ModuleNotFoundError('No module named torch')", "utf-8")
    found = probed(tmp_path, [], [], json.dumps({"code": 0, "gpus": 8, "devices": [0] * 8}))
    (problem,) = probe.judge({**GOOD, "loaded": found["loaded"]}, {**EXPECTED, "limits": LIMITS})
    assert ("No module named torch" if torch is None else "No CUDA GPUs are available") in problem


def test_the_probe_is_given_the_time_that_its_steps_may_take() -> None:
    steps = [int(seconds) for seconds in re.findall(r"timeout=(\d+)", probe.SCRIPT)]
    allowed = yaml.safe_load(engine_image.DOCUMENTATION)["options"]["probe_timeout"]["default"]
    assert len(steps) == 3 and sum(steps) + 60 <= allowed


def test_the_probe_finds_its_folders_whatever_part_of_the_role_is_run() -> None:
    steps = yaml.safe_load((ROOT / "roles/engine_image/tasks/main.yml").read_text("utf-8"))
    tags = {step["ansible.builtin.import_tasks"]: set(step["tags"]) for step in steps}
    assert tags["verify.yml"] <= tags["configure.yml"]


def test_the_kernels_of_aiter_are_put_where_it_will_build_others(tmp_path: Path) -> None:
    jit, target = tmp_path / "lib/aiter/jit", tmp_path / "cache/aiter"
    jit.mkdir(parents=True)
    # It needs a GPU to be imported; its kernels are put there before that.
    (jit.parent / "__init__.py").write_text("raise RuntimeError", "utf-8")
    (jit / "module_moe.so").write_text("of this image", "utf-8")
    (jit / "core.py").touch()
    target.mkdir(parents=True)
    (target / "module_moe.so").write_text("of another image", "utf-8")
    (target / "module_built_here.so").write_text("mine", "utf-8")
    assert probed(tmp_path, [], [], AITER_JIT_DIR=str(target))["loaded"]["seeded"] == 1
    assert {file.name: file.read_text("utf-8") for file in target.iterdir()} == {
        "module_moe.so": "of this image",
        "module_built_here.so": "mine",
    }
    assert probed(tmp_path, [], [])["loaded"]["seeded"] == 0


def test_kernels_that_are_gone_or_of_another_image_are_put_there_again(
    engine: DockerApi, tmp_path: Path, run_module: Any, fake_command: Callable[..., Path]
) -> None:
    """AITER finds kernels by their name alone; two images of one version share the folder."""
    digests = [DIGEST, "sha256:" + "b" * 64]
    for digest in digests:
        engine.images[f"vllm/vllm-openai@{digest}"] = "sha256:1"
    engine.images["vllm/vllm-openai:v0.32.0"] = "sha256:1"
    cache = tmp_path / "cache"
    made = plan(
        tmp_path,
        mounts=[{"source": str(cache), "target": "/cache", "read_only": False}],
        env={"AITER_JIT_DIR": "/cache/aiter"},
    )
    calls = fake_command("docker", f"mkdir -p {cache}/aiter; echo 'GLM-PROBE {json.dumps(GOOD)}'")

    def cached(digest: str) -> bool:
        return bool(run_module(engine_image.main, plan=made, digest=digest)["probe"]["cached"])

    assert [cached(digests[0]), cached(digests[0])] == [False, True]
    shutil.rmtree(cache / "aiter")
    assert [cached(digests[0]), cached(digests[0])] == [False, True]
    assert [cached(digests[1]), cached(digests[0]), cached(digests[0])] == [False, False, True]
    assert calls.read_text("utf-8").count("run --rm") == 4
    # A probe that fails may have put some there.
    made["env"]["OTHER"] = "limits"
    fake_command("docker", "exit 1")
    assert run_module(engine_image.main, plan=made, digest=digests[0])["failed"]
    del made["env"]["OTHER"]
    fake_command("docker", f"echo 'GLM-PROBE {json.dumps(GOOD)}'")
    assert not cached(digests[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"gpus": 7, "nvidia_smi": "GPU 0: …"}, "expected 8 GPUs inside the container, found 7"),
        ({"gpus": None, "nvidia_smi": "No such file or directory: 'nvidia-smi'"}, "found 0 (nvidia-smi -L: No such"),
        ({"runtime": None}, None),
        ({"runtime": {"code": 0, "gpus": 8, "devices": [0, 46, None, 0, 0, 0, 0, 0]}}, None),
        ({"runtime": {"code": 802, "gpus": 0, "devices": []}}, "CUDA error 802, system not yet initialised"),
        ({"runtime": {"code": 46, "gpus": 0, "devices": []}}, "CUDA does not initialise: error 46"),
        ({"runtime": {"problem": "timed out"}}, "CUDA does not answer: timed out"),
        ({"known": False, "transformers": "4.57.1"}, "4.57.1 in the image does not know model_type glm_moe_dsa"),
        ({"transformers": "5.1.9"}, "expected transformers 5.2.0 or newer in the image, found 5.1.9"),
        ({"import_error": "ImportError: libtorch"}, "cannot be imported in the image: ImportError: libtorch"),
    ],
)
def test_judgement_of_a_probe(change: dict[str, Any], message: str | None) -> None:
    problems = probe.judge({**GOOD, **change}, EXPECTED)
    assert (problems == []) if message is None else (len(problems) == 1 and message in problems[0])


def test_the_probes_script_runs_in_a_plain_python(fake_command: Callable[..., Path]) -> None:
    fake_command("nvidia-smi", 'printf "GPU 0: NVIDIA B200 (UUID: a)\\nGPU 1: NVIDIA B200 (UUID: b)\\n"')
    argv = [sys.executable, "-c", probe.SCRIPT, "glm_moe_dsa"]

    def found(*asked: str) -> dict[str, Any]:
        done = subprocess.run([*argv, *asked], capture_output=True, text=True, check=True)
        answer: dict[str, Any] = json.loads(done.stdout.partition("GLM-PROBE ")[2])
        return answer

    answer = found("print('noise'); print('{\"code\": 0}')", "cuda")
    assert answer["gpus"] == 2 and answer["runtime"] == {"code": 0}
    assert answer["known"] is True or "transformers" in answer["import_error"]
    assert "ended with -11" in found("import os; os.kill(os.getpid(), 11)", "cuda")["runtime"]["problem"]


PLAYBOOK = """
- hosts: all
  gather_facts: false
  strategy: linear
  tasks:
    - glm.fleet.engine_image:
        plan:
          image: {repository: %s, tag: v0.32.0, digest: null}
        state: resolved
        mirrors: ["%s"]
      register: __result
    - ansible.builtin.debug:
        msg: "{{ inventory_hostname }} {{ __result.resolved_by }} {{ __result.reference }}"
"""


def play(
    tmp_path: Path, mirror: str, *arguments: str, repository: str = "vllm/vllm-openai", **variables: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "play.yml").write_text(PLAYBOOK % (repository, mirror), "utf-8")
    (tmp_path / "hosts.ini").write_text(
        "".join(f"{n} ansible_connection=local ansible_python_interpreter={sys.executable}\n" for n in ("a", "b", "c"))
    )
    environment = {
        **os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "XDG_STATE_HOME": str(tmp_path / "state"),
        "ANSIBLE_INVENTORY_ENABLED": "ini", "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        **variables,
    }  # fmt: skip
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml"), "-i",
         str(tmp_path / "hosts.ini"), "-e", f"glm_lock_file={tmp_path}/glm.lock.yml", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_first_host_resolves_and_all_others_obey_the_lock(tmp_path: Path, servers: Any) -> None:
    mirror = servers[0]
    checked = play(tmp_path, mirror.url, "--check")
    assert checked.returncode == 0, checked.stdout
    assert not (tmp_path / "glm.lock.yml").exists()
    mirror.requests.clear()
    first = play(tmp_path, mirror.url)
    assert first.returncode == 0, first.stdout
    assert first.stdout.count("lock file vllm/vllm-openai@" + DIGEST) == 2
    assert len([request for request in mirror.requests if "manifests" in request]) == 1
    locked = yaml.safe_load((tmp_path / "glm.lock.yml").read_text("utf-8"))
    assert locked["images"]["vllm/vllm-openai:v0.32.0"]["digest"] == DIGEST
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        later = play(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert later.returncode == 0 and later.stdout.count("lock file vllm/vllm-openai@" + DIGEST) == 3


def test_a_digest_that_the_catalogue_knows_otherwise_stops_the_play_unless_the_lock_file_has_it(
    tmp_path: Path, servers: Any
) -> None:
    collection = tmp_path / "collections" / "ansible_collections" / "glm" / "fleet"
    for part in ("plugins", "catalog", "meta", "roles"):
        shutil.copytree(ROOT / part, collection / part)
    known = {
        "images": [{"name": "vllm/vllm-openai:v0.32.0", "digest": f"sha256:{1:064}", "source": "a test"}],
        "models": [],
    }
    (collection / "catalog" / "known.yml").write_text(yaml.safe_dump({"known": known}))
    path = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections")}
    refused = play(tmp_path, servers[0].url, **path)
    text = " ".join(refused.stdout.split())
    assert refused.returncode != 0 and f"found {DIGEST} at the registry" in text and "(a test)" in text
    assert not (tmp_path / "glm.lock.yml").exists()
    (tmp_path / "glm.lock.yml").write_text(yaml.safe_dump({"images": {"vllm/vllm-openai:v0.32.0": {"digest": DIGEST}}}))
    own = play(tmp_path, servers[0].url, **path)
    assert own.returncode == 0 and own.stdout.count("lock file vllm/vllm-openai@" + DIGEST) == 3


def test_a_registry_that_does_not_answer_stops_the_play_and_writes_no_lock(tmp_path: Path) -> None:
    result = play(tmp_path, "http://127.0.0.1:9", repository="localhost:9/vllm/vllm-openai")
    assert result.returncode != 0
    text = " ".join(result.stdout.split())
    assert "the digest of localhost:9/vllm/vllm-openai:v0.32.0 could not be looked up" in text
    assert "port 9 refuses connections" in text and "set docker_registry_mirrors" in text
    assert not (tmp_path / "glm.lock.yml").exists()
