"""Weights from the simulated hub, with the real huggingface_hub client of three generations.

The first part runs the fetcher as it runs in the engine image. The second part runs playbooks against this machine,
with stand-ins for docker and systemd (tests/integration/weights_host) and everything else real.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.files import write_json
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Store
from simulator.hub import Hub
from simulator.hub.faults import Fault
from simulator.hub.server import Access
from tests import fetch_by_clock
from tests.fetch_by_clock import Clock, wait_for
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "weights_host"
REPO = "zai-org/Tiny"
# One per generation: requests, httpx, and the one that gave up resuming partial files of other processes.
CLIENTS = ("0.36.2", "1.12.0", "2.4.0")
NEWEST = CLIENTS[-1]
SHARD_BYTES = 24_000_000
# The clients write in pieces of 10 MiB; what is left of such a piece they keep to themselves.
PIECE_BYTES = 10 * 1024 * 1024
FREE_BYTES = shutil.disk_usage(tempfile.gettempdir()).free


def client_python(version: str) -> str:
    """A Python that has this huggingface_hub; made once and kept."""
    cache = Path(os.environ.get("GLM_CACHE_DIR") or "~/.cache/glm-fleet").expanduser() / "hub-clients"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{version}-py{sys.version_info.major}{sys.version_info.minor}"
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(folder / "bin/python"), "-m", "pip", "install", "-q", f"huggingface_hub=={version}"]
            subprocess.run(install, check=True)
            (folder / "complete").touch()
    return str(folder / "bin/python")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repos")
    folder = root / REPO
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "sub" / "notes.txt").write_text("a file in a folder")
    for number in range(2):
        content = random.Random(number).randbytes(SHARD_BYTES)
        (folder / f"model-{number}.safetensors").write_bytes(content)
    return root


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    # Large files come from another name than the hub's own, as from a content delivery network.
    with Hub(repositories, page_size=2, cdn_host="localhost") as hub:
        yield hub


class Fetch:
    """The fetcher with one client, without a container."""

    def __init__(self, hub: Hub, hf_home: Path, version: str) -> None:
        self.hub, self.hf_home = hub, hf_home
        self.python = client_python(version)
        client = HubClient(hub.url)
        self.commit = client.resolve(REPO, "main")
        self.manifest = client.manifest(REPO, self.commit)
        self.store = Store(hf_home, REPO)
        self.folder = hf_home / "glm-fetch" / "key"
        self.token: str | None = None
        self.job()
        hub.requests.clear()

    def job(self, **options: Any) -> None:
        # A client that takes its time on a busy machine does not stall.
        settings = {"stall_seconds": 3600.0, "retry_seconds": 0.1, **options}
        job = fetch.Job(manifest=self.manifest.as_json(), requested="main", **settings)
        write_json(self.folder / "job.json", vars(job))

    def start(self, *program: str) -> subprocess.Popen[str]:
        """``program``: instead of the fetcher as the unit starts it."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / ".collections"),
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.hf_home),
            # By itself a client would ask again after 10 s without a byte, whoever had the processor meanwhile.
            "HF_HUB_DOWNLOAD_TIMEOUT": "3600",
        }
        if self.token:
            (self.hf_home.parent / "token").write_text(self.token)
            environment["HF_TOKEN_PATH"] = str(self.hf_home.parent / "token")
        command = [self.python, *(program or ("-m", fetch.__name__, "run")), str(self.folder)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self) -> int:
        return self.end(self.start())

    def end(self, process: subprocess.Popen[str]) -> int:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert "Traceback" not in output, output
        return process.returncode

    def stop_sending_within(self, name: str) -> None:
        """Let the hub stop in the second half of a file, without closing the connection."""
        self.hub.fail(f"{REPO}/{name}", "stall", after_bytes=SHARD_BYTES // 2, seconds=PATIENCE_SECONDS)

    def wait_for_the_rest(self) -> None:
        """Until everything is on disk that comes before the hub stops sending."""
        wanted = self.manifest.total_bytes - SHARD_BYTES + PIECE_BYTES
        wait_for(lambda: self.store.bytes_on_disk(self.manifest) == wanted)

    @property
    def status(self) -> fetch.Status:
        return fetch.Status(**json.loads((self.folder / "status.json").read_text()))

    def asked_for(self, name: str) -> list[str | None]:
        """Range headers of the downloads of a file."""
        return [request.range for request in self.hub.downloads() if request.target == f"{REPO}/{name}"]


@pytest.fixture(params=CLIENTS)
def any_client(request: pytest.FixtureRequest, hub: Hub, tmp_path: Path) -> Fetch:
    return Fetch(hub, tmp_path / "huggingface", request.param)


@pytest.fixture
def newest(hub: Hub, tmp_path: Path) -> Fetch:
    return Fetch(hub, tmp_path / "huggingface", NEWEST)


def test_what_was_fetched_loads_offline_by_repository_id(any_client: Fetch) -> None:
    assert any_client.run() == 0
    assert any_client.store.changed_since_record(any_client.commit) == []
    assert any_client.status.fetched_bytes == any_client.manifest.total_bytes
    load = f"import huggingface_hub as h; print(h.snapshot_download({REPO!r}))"
    environment = {"HF_HOME": str(any_client.hf_home), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    found = subprocess.run(
        [any_client.python, "-c", load], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == str(any_client.store.snapshot(any_client.commit))
    assert json.loads((Path(found) / "config.json").read_text()) == {"model_type": "tiny"}


def test_an_interrupted_fetch_keeps_what_is_complete(any_client: Fetch) -> None:
    any_client.stop_sending_within("model-1.safetensors")
    process = any_client.start()
    first = any_client.store.snapshot(any_client.commit) / "model-0.safetensors"
    wait_for(first.exists)
    any_client.wait_for_the_rest()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 1
    assert any_client.status.phase == "interrupted"
    assert any_client.run() == 0
    assert len(any_client.asked_for("model-0.safetensors")) == 1
    assert len(any_client.asked_for("model-1.safetensors")) == 2
    blobs = any_client.store.folder / "blobs"
    assert [path.name for path in blobs.iterdir() if "incomplete" in path.name] == []


def test_older_clients_resume_within_a_file(hub: Hub, tmp_path: Path) -> None:
    older = Fetch(hub, tmp_path / "huggingface", "1.12.0")
    hub.fail(f"{REPO}/model-1.safetensors", "truncate", after_bytes=15_000_000)
    assert older.run() == 0
    assert older.asked_for("model-1.safetensors") == [None, "bytes=10485760-"]


def test_a_stalled_download_is_restarted(any_client: Fetch) -> None:
    clock = Clock(any_client.folder)
    any_client.job(stall_seconds=60.0)
    any_client.stop_sending_within("model-1.safetensors")
    process = any_client.start(fetch_by_clock.__file__)
    any_client.wait_for_the_rest()
    clock.let_stall(60.5)
    assert any_client.end(process) == 0
    assert any_client.status.attempt == 2
    assert any_client.status.xet is False
    assert any("stalled: " in event for event in any_client.status.events)


def test_wrong_bytes_are_noticed_removed_and_fetched_again(any_client: Fetch) -> None:
    any_client.hub.fail(f"{REPO}/model-0.safetensors", "corrupt", after_bytes=20_000_000)
    assert any_client.run() == 0
    removed = [event for event in any_client.status.events if "removed to fetch again: model-0.safetensors" in event]
    assert len(removed) == 1 and "expected sha256:" in removed[0]
    assert len(any_client.asked_for("model-0.safetensors")) == 2
    assert len(any_client.asked_for("model-1.safetensors")) == 1


def test_wrong_bytes_twice_are_an_error(newest: Fetch) -> None:
    newest.hub.fail(f"{REPO}/config.json", "corrupt", times=-1)
    assert newest.run() == 1
    assert newest.status.error_kind == "damaged"
    assert "1 of 4 files are wrong: config.json: expected git-sha1:" in newest.status.error


def test_a_hub_that_counts_requests_is_waited_for(any_client: Fetch) -> None:
    any_client.hub.fail(f"{REPO}/model-0.safetensors", "status", status=429, retry_after=1)
    assert any_client.run() == 0
    assert len(any_client.asked_for("model-0.safetensors")) == 2


@pytest.mark.parametrize(("token", "kind"), [(None, "unauthorised"), ("stranger", "forbidden")])
def test_a_gate_ends_the_fetch_at_once(any_client: Fetch, token: str | None, kind: str) -> None:
    any_client.hub.access = Access(tokens={"member", "stranger"}, gated={REPO: {"member"}})
    any_client.token = token
    assert any_client.run() == 1
    assert (any_client.status.error_kind, any_client.status.attempt) == (kind, 1)


def test_a_token_opens_the_gate_and_stays_with_the_hub(any_client: Fetch) -> None:
    any_client.hub.access = Access(tokens={"member"}, gated={REPO: {"member"}})
    any_client.token = "member"
    assert any_client.run() == 0
    elsewhere = [request for request in any_client.hub.requests if request.path.startswith("/cdn/")]
    assert elsewhere and not any(request.authenticated for request in elsewhere)


# Playbooks ---------------------------------------------------------------------------------------------------------

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Have the weights
      glm.fleet.model_weights: "{{ weights }}"
      environment: "{{ stand_ins }}"
"""
ROLE = """
- hosts: all
  gather_facts: false
  environment: "{{ stand_ins }}"
  roles:
    - role: glm.fleet.weights
"""


class Controller:
    """Runs playbooks here, as if here were the fleet."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.lock_file = folder / "inventory" / "glm.lock.yml"
        self.state = folder / "state"
        self.state.mkdir()
        self.lock_file.parent.mkdir()
        self.path = f"{STAND_INS}:{os.environ['PATH']}"

    def hf_home(self, host: str = "h1") -> Path:
        return self.folder / host / "huggingface"

    def command(self, *arguments: str, hosts: str = "h1", play: str = PLAY, **options: Any) -> dict[str, Any]:
        (self.folder / "play.yml").write_text(play)
        weights = {
            "repository": REPO,
            "lock_file": str(self.lock_file),
            "hf_home": str(self.folder / "{{ inventory_hostname }}" / "huggingface"),
            "image": "vllm/vllm-openai:v0",
            "endpoint": self.hub.url,
            "disk_margin_bytes": 1_000_000,
            "progress_seconds": 1,
            "retry_seconds": 0.1,
        }
        state = {
            "PATH": self.path,
            "STAND_IN_PYTHON": client_python(NEWEST),
            "STAND_IN_STATE": str(self.state),
        }
        variables = {
            "ansible_python_interpreter": sys.executable,
            "weights": {**weights, **options.pop("weights", {})},
            "stand_ins": state,
            **options,
        }
        (self.folder / "variables.json").write_text(json.dumps(variables))
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", f"{hosts},", "-c", "local"]
        command += ["-e", f"@{self.folder / 'variables.json'}", *arguments, str(self.folder / "play.yml")]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_INVENTORY_ENABLED": "host_list",
            "ANSIBLE_NOCOLOR": "1",
        }
        return {"args": command, "cwd": ROOT, "env": environment, "text": True}

    def play(self, *arguments: str, **options: Any) -> tuple[int, str]:
        done = subprocess.run(
            **self.command(*arguments, **options),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
        )
        # Long values are wrapped; words in their order are what tests look for.
        return done.returncode, " ".join(done.stdout.split())

    def asked(self, words: str) -> int:
        return sum(words in request.path for request in self.hub.requests)


@pytest.fixture
def controller(hub: Hub, tmp_path: Path) -> Controller:
    if os.geteuid() != 0:
        pytest.skip("the module keeps secrets in /run, which only root may write")
    return Controller(hub, tmp_path)


def test_check_mode_on_a_fresh_host_asks_and_writes_nothing(controller: Controller) -> None:
    controller.path = "/usr/bin:/bin"  # no docker, no stand-ins
    code, output = controller.play("--check")
    assert code == 0, output
    assert "changed=1" in output
    assert "would fetch 48.0 MB and verify 4 files" in controller.play("--check", "-v")[1]
    assert not controller.lock_file.exists()
    assert not controller.hf_home().exists()


def test_second_run_changes_nothing_and_asks_nobody(controller: Controller) -> None:
    code, output = controller.play()
    assert code == 0 and "changed=1" in output, output
    entry = yaml.safe_load(controller.lock_file.read_text())["models"][f"{REPO}@main"]
    assert entry["bytes"] == HubClient(controller.hub.url).manifest(REPO, entry["commit"]).total_bytes
    assert entry["files"] == 4
    controller.hub.requests.clear()
    written = controller.lock_file.stat().st_mtime_ns
    for arguments in ((), ("--check",)):
        code, output = controller.play(*arguments)
        assert code == 0 and "changed=0" in output, output
    assert controller.hub.requests == []
    assert controller.lock_file.stat().st_mtime_ns == written


def test_without_containers_the_engine_s_own_python_fetches(controller: Controller) -> None:
    # Its folder has no docker: a call of it would fail.
    tools = controller.folder / "tools"
    tools.mkdir()
    for name in ("systemctl", "systemd-run", "journalctl"):
        (tools / name).symlink_to(STAND_INS / name)
    controller.path = f"{tools}:/usr/bin:/bin"
    code, output = controller.play(weights={"python": sys.executable, "image": None})
    assert code != 0 and f"{sys.executable} has no huggingface_hub" in output and "role engine_venv" in output
    code, output = controller.play(weights={"python": client_python(NEWEST), "image": None})
    assert code == 0 and "changed=1" in output, output
    assert len(list(controller.hf_home().glob("hub/models--zai-org--Tiny/snapshots/*/*.safetensors"))) == 2
    code, output = controller.play(weights={"python": client_python(NEWEST), "image": None})
    assert code == 0 and "changed=0" in output, output


def test_hosts_agree_on_a_commit_even_when_the_branch_moves(controller: Controller, repositories: Path) -> None:
    code, output = controller.play(hosts="h1,h2,h3")
    assert code == 0, output
    assert controller.asked("/revision/main") == 1
    commit = yaml.safe_load(controller.lock_file.read_text())["models"][f"{REPO}@main"]["commit"]
    moved = repositories / REPO
    moved.rename(repositories / f"{REPO}@before")
    try:
        moved.mkdir()
        (moved / "config.json").write_text('{"model_type": "newer"}')
        code, output = controller.play(hosts="h4")
        assert code == 0, output
    finally:
        for path in moved.iterdir():
            path.unlink()
        moved.rmdir()
        (repositories / f"{REPO}@before").rename(moved)
    for host in ("h1", "h2", "h3", "h4"):
        config = Store(controller.hf_home(host), REPO).snapshot(commit) / "config.json"
        assert json.loads(config.read_text()) == {"model_type": "tiny"}


def test_an_interrupted_run_is_taken_up_again(controller: Controller) -> None:
    # A quarter of an hour to its end, until the second run is seen to watch. Nor may it be restarted for being so slow.
    slow = Fault(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=SHARD_BYTES // PATIENCE_SECONDS)
    controller.hub.faults.add(slow)
    command = controller.command(weights={"stall_seconds": 3600})
    first = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert first.stdout is not None
    try:
        wait_for(lambda: "weights: fetched" in first.stdout.readline())
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert len(list(controller.state.glob("*.pid"))) == 1, "the fetch went on"
    watched = "h1: weights: an earlier run's fetch is still running, watching it"
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as second:
        assert second.stdout is not None
        output = ""
        for line in second.stdout:
            output += line
            if watched in line:
                slow.bytes_per_second = 1_000_000_000
    assert second.returncode == 0, output
    assert watched in output
    assert "changed=1" in output
    runs = [line for line in (controller.state / "docker.log").read_text().splitlines() if '["run"' in line]
    assert len(runs) == 1


def test_a_truncated_file_is_found_and_fetched_again(controller: Controller) -> None:
    controller.play()
    blob = next(controller.hf_home().glob("hub/*/snapshots/*/model-0.safetensors")).resolve()
    with blob.open("r+b") as handle:
        handle.truncate(1_000_000)
    code, output = controller.play(weights={"state": "verified"})
    assert code == 2
    assert "model-0.safetensors: expected 24000000 bytes, found 1000000 bytes" in output
    assert "Run the role weights without tags" in output
    code, output = controller.play("-v")
    assert code == 0 and "changed=1" in output, output
    assert "removed to fetch again: model-0.safetensors: expected 24000000 bytes, found 1000000 bytes" in output
    assert blob.stat().st_size == SHARD_BYTES


def test_the_token_is_in_no_argument_and_no_output(controller: Controller) -> None:
    secret = "hf_a_secret_that_must_not_show"
    controller.hub.access = Access(tokens={secret}, gated={REPO: {secret}})
    code, output = controller.play("-vvv", weights={"token": secret})
    assert code == 0, output
    assert secret not in output
    log = (controller.state / "docker.log").read_text()
    assert "hf_home" not in log and secret not in log
    left = [path for path in controller.folder.rglob("*") if path.is_file() and path.name != "variables.json"]
    assert [path for path in left if secret.encode() in path.read_bytes()] == []
    assert list(Path("/run/glm-weights").glob("zai-org--Tiny-*")) == []


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"repository": "zai-org/Typo"}, "answered 401"),
        ({"repository": "zai-org/Typo", "token": "t"}, "answered 404"),
        ({"revision": "v9"}, "Set glm_revision to a branch, tag or commit it has"),
        ({"revision": "../x"}, "cannot be a revision"),
        ({"disk_margin_bytes": FREE_BYTES + 10**16}, "Free 10000.0 TB there, or set glm_data_dir to a larger disk"),
        ({"image": "absent:latest"}, "the image absent:latest is not on this host"),
        ({"image": "absent:latest"}, "Run the role engine_image first"),
        ({"endpoint": "http://127.0.0.1:9"}, "set glm_hub_endpoint to a mirror it reaches"),
        ({"state": "verified"}, "Run the role weights without tags"),
        ({"phase": "status"}, "phase is set by the action plugin"),
        ({"commit": "x"}, "commit is set by the action plugin"),
    ],
)
def test_bad_input_is_explained_with_the_host(controller: Controller, weights: dict[str, Any], words: str) -> None:
    code, output = controller.play(weights=weights)
    assert code == 2, output
    assert words in output
    if "set by" not in words:
        assert "h1: weights: " in output


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"status": 500}, "The hub has a fault"),
        ({"status": 429, "retry_after": 120}, "Wait 120 s and run again, or set glm_hub_token"),
        ({"status": 403, "error_code": "GatedRepo"}, "Accept its conditions on its page, then set glm_hub_token"),
    ],
)
def test_a_refusing_hub_is_explained(controller: Controller, fault: dict[str, Any], words: str) -> None:
    controller.hub.fail("api:*", "status", times=-1, **fault)
    code, output = controller.play()
    assert code == 2
    assert words in output
    assert not controller.lock_file.exists()


def test_a_gate_met_while_fetching_is_explained_with_the_last_lines(controller: Controller) -> None:
    controller.hub.access = Access(tokens={"member"}, gated={REPO: {"member"}})
    code, output = controller.play()
    assert code == 2
    assert "Its last lines:" in output and f"huggingface_hub {NEWEST}" in output
    assert "set glm_hub_token" in output


def test_a_container_that_does_not_start_shows_its_last_lines(controller: Controller) -> None:
    (controller.state / "docker-fails").touch()
    code, output = controller.play()
    assert code == 2
    assert "the stand-in was told to fail" in output
    assert "without a result. Run again" in output


def test_a_lock_file_that_contradicts_the_hub_stops_the_run(controller: Controller) -> None:
    commit = HubClient(controller.hub.url).resolve(REPO, "main")
    entry = {"commit": commit, "manifest_sha256": "0" * 64}
    controller.lock_file.write_text(yaml.safe_dump({"models": {f"{REPO}@main": entry}}))
    code, output = controller.play()
    assert code == 2
    assert "A commit cannot change" in output
    controller.lock_file.write_text("models: [")
    code, output = controller.play()
    assert code == 2
    assert "glm.lock.yml, line 1: not valid YAML" in output


def test_the_image_is_taken_by_the_digest_of_the_lock_file(controller: Controller) -> None:
    digest = "sha256:" + "ab" * 32
    controller.lock_file.write_text(yaml.safe_dump({"images": {"vllm/vllm-openai:v0": {"digest": digest}}}))
    code, output = controller.play()
    assert code == 0, output
    assert f'"vllm/vllm-openai@{digest}"' in (controller.state / "docker.log").read_text()


def role_variables(controller: Controller, **more: Any) -> dict[str, Any]:
    return {
        "weights_plans": [
            {
                "model": {"repository": REPO, "requested_revision": "main"},
                "image": {"repository": "vllm/vllm-openai", "tag": "v0"},
                "paths": {"hf_home": str(controller.hf_home())},
            }
        ],
        "glm_hub_endpoint": controller.hub.url,
        "glm_lock_file": str(controller.lock_file),
        "weights_disk_margin_bytes": 1_000_000,
        "weights_progress_seconds": 1,
        **more,
    }


def test_the_role_fetches_verifies_and_is_idempotent(controller: Controller) -> None:
    code, output = controller.play("--check", play=ROLE, **role_variables(controller))
    assert code == 0 and "changed=1" in output, output
    code, output = controller.play(play=ROLE, **role_variables(controller))
    assert code == 0 and "changed=1" in output, output
    code, output = controller.play(play=ROLE, **role_variables(controller, weights_rehash=True))
    assert code == 0 and "changed=0" in output, output


def test_the_role_finds_a_flipped_byte_when_told_to_hash_again(controller: Controller) -> None:
    controller.play(play=ROLE, **role_variables(controller))
    blob = next(controller.hf_home().glob("hub/*/snapshots/*/model-0.safetensors")).resolve()
    stat = blob.stat()
    with blob.open("r+b") as handle:
        handle.seek(5_000_000)
        byte = handle.read(1)
        handle.seek(5_000_000)
        handle.write(bytes([byte[0] ^ 1]))
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    verify = ("--tags", "weights_verify")
    code, output = controller.play(*verify, play=ROLE, **role_variables(controller))
    assert code == 0 and "changed=0" in output, "without hashing nobody can tell"
    code, output = controller.play(*verify, play=ROLE, **role_variables(controller, weights_rehash=True))
    assert code == 2
    assert "1 of 4 files are wrong: model-0.safetensors: expected sha256:" in output
    code, output = controller.play(play=ROLE, **role_variables(controller))
    assert code == 0 and "changed=1" in output, output


def test_the_role_says_when_there_is_no_plan(controller: Controller) -> None:
    code, output = controller.play(play=ROLE, **role_variables(controller, weights_plans=[]))
    assert code == 2
    assert "h1, weights, preflight: expected a serving plan" in output


def test_the_role_refuses_replicas_that_name_other_weights(controller: Controller) -> None:
    given = role_variables(controller)
    [one] = given["weights_plans"]
    other = {**one, "model": {**one["model"], "repository": "zai-org/GLM-4.6"}}
    code, output = controller.play(play=ROLE, **{**given, "weights_plans": [one, one, other]})
    assert code == 2 and f"to name the same weights, found {REPO} and zai-org/GLM-4.6. Next:" in " ".join(
        output.split()
    )
