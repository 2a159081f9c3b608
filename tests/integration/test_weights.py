"""Weights from the simulated hub by playbooks against this machine, with stand-ins for systemd (weights_host).

What needs root besides: a disk that is full, one that has other bytes than the page cache, and the clients of three
generations that engines load the weights with. The program that fetches: tests/playbooks/weights.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Store
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import disks
from simulator.hub import Hub
from simulator.hub.faults import Fault
from simulator.hub.server import Access
from tests.fetch_by_clock import wait_for
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "weights_host"
REPO = "zai-org/Tiny"
DRAFT = "acme/draft"
# One per generation of huggingface_hub that engines have.
CLIENTS = ("0.36.2", "1.12.0", "2.4.0")
SHARD_BYTES = 24_000_000
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
    draft = root / DRAFT
    draft.mkdir(parents=True)
    (draft / "model.safetensors").write_bytes(b"draft" * 100)
    return root


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    # Large files come from another name than the hub's own, as from a content delivery network.
    with Hub(repositories, page_size=2, cdn_host="localhost") as hub:
        yield hub


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
            "endpoint": self.hub.url,
            "disk_margin_bytes": 1_000_000,
            "progress_seconds": 1,
            "retry_seconds": 0.1,
        }
        state = {
            "PATH": self.path,
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
    controller.path = "/usr/bin:/bin"  # no stand-ins
    code, output = controller.play("--check")
    assert code == 0, output
    assert "changed=1" in output
    assert "would fetch 48.0 MB and verify 4 files" in controller.play("--check", "-v")[1]
    assert not controller.lock_file.exists()
    assert not disks.KEPT.path_of(controller.lock_file).exists()
    assert not controller.hf_home().exists()


def test_second_run_changes_nothing_and_asks_nobody(controller: Controller) -> None:
    code, output = controller.play()
    assert code == 0 and "changed=1" in output, output
    entry = yaml.safe_load(controller.lock_file.read_text())["models"][f"{REPO}@main"]
    assert entry["bytes"] == HubClient(controller.hub.url).manifest(REPO, entry["commit"]).total_bytes
    assert entry["files"] == 4
    kept = disks.of_host(controller.lock_file, "h1")
    assert kept and kept["hf_home"] == str(controller.hf_home()) and kept["memory_gib"] > 0
    assert kept["filesystem"], "plans choose the loader by it"
    controller.hub.requests.clear()
    written = controller.lock_file.stat().st_mtime_ns
    for arguments in ((), ("--check",)):
        code, output = controller.play(*arguments)
        assert code == 0 and "changed=0" in output, output
    assert controller.hub.requests == []
    assert controller.lock_file.stat().st_mtime_ns == written


@pytest.mark.parametrize("version", CLIENTS)
def test_what_was_fetched_loads_offline_by_repository_id(controller: Controller, version: str) -> None:
    code, output = controller.play()
    assert code == 0, output
    load = f"import huggingface_hub as h; print(h.snapshot_download({REPO!r}))"
    environment = {"HF_HOME": str(controller.hf_home()), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    found = subprocess.run(
        [client_python(version), "-c", load], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    commit = yaml.safe_load(controller.lock_file.read_text())["models"][f"{REPO}@main"]["commit"]
    assert found == str(Store(controller.hf_home(), REPO).snapshot(commit))
    assert json.loads((Path(found) / "config.json").read_text()) == {"model_type": "tiny"}


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_and_stays_so_is_named(controller: Controller) -> None:
    """How it ended is not written to that disk."""
    home = controller.hf_home()
    with mounted(home, "-t", "tmpfs", "-o", "size=30m", "tmpfs"):
        # What is free is looked at before; this disk fills up meanwhile.
        code, output = controller.play(weights={"disk_margin_bytes": -10 * SHARD_BYTES})
        assert code == 2
        assert "No space left on device. Free space on the file system of" in output, output
        assert "Traceback" not in output
        assert list((home / "glm-verified").glob("*")) == []
        subprocess.run(["mount", "-o", "remount,size=100m", str(home)], check=True)
        code, output = controller.play(weights={"disk_margin_bytes": 0})
        assert code == 0 and "changed=1" in output, output


def test_a_disk_that_may_not_be_written_is_named(controller: Controller) -> None:
    home = controller.hf_home()
    (home / "hub").mkdir(parents=True)
    with mounted(home / "hub", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        code, output = controller.play()
        assert code == 2
        assert "Read-only file system." in output and "mount it for writing" in output, output


def test_wrong_bytes_below_the_file_system_are_found_before_they_are_served(controller: Controller) -> None:
    """What is hashed comes from the disk, although the page cache has all of it, and has it right."""
    home = controller.hf_home()
    disk = controller.folder / "disk"
    with disk.open("wb") as image:
        image.truncate(200 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", disk], capture_output=True, text=True, check=False)
    if loop.returncode:
        pytest.skip(f"no loop device for a disk of its own: {loop.stderr.strip()}")
    device = loop.stdout.strip()
    try:
        with mounted(home, device):
            code, output = controller.play()
            assert code == 0, output
            blob = next(home.glob("hub/*/snapshots/*/model-0.safetensors")).resolve()
            subprocess.run(["sync", "-f", str(blob)], check=True)
            overwrite(Path(device), blob.read_bytes()[8 * 1024 * 1024 :][:4096])
            assert blob.read_bytes() == (controller.hub.repositories.root / REPO / "model-0.safetensors").read_bytes()
            assert controller.play()[0] == 0, "nothing but reading all of it can show that"
            code, output = controller.play("-v", weights={"rehash": True})
            assert code == 0 and "changed=1" in output, output
            assert "removed to fetch again: model-0.safetensors: expected sha256:" in output
            code, output = controller.play(weights={"rehash": True})
            assert code == 0 and "changed=0" in output, output
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def overwrite(device: Path, block: bytes) -> None:
    """Put other bytes in the place of a block, past every cache."""
    room = mmap.mmap(-1, 1024 * 1024)
    handle = os.open(device, os.O_RDWR | os.O_DIRECT)
    try:
        at = 0
        while count := os.preadv(handle, [room], at):
            if (found := room[:count].find(block)) >= 0:
                room[found : found + len(block)] = bytes(byte ^ 1 for byte in block)
                os.pwritev(handle, [room], at)
                return
            at += count
    finally:
        os.close(handle)
    raise AssertionError("the block is not on the device")


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


@contextlib.contextmanager
def one_folder(controller: Controller, *hosts: str) -> Iterator[None]:
    """The data folder of each host is the same folder of a file server."""
    server = controller.folder / "server"
    server.mkdir()
    with contextlib.ExitStack() as mounts:
        for host in hosts:
            mounts.enter_context(mounted(controller.hf_home(host), "--bind", str(server)))
        yield


def test_hosts_of_one_shared_folder_fetch_once(controller: Controller) -> None:
    """Each with a unit of its own; those that come second wait, hash nothing, and have the weights as well."""
    hosts = ("h1", "h2", "h3")
    controller.hub.faults.add(Fault(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=SHARD_BYTES // 5))
    with one_folder(controller, *hosts):
        code, output = controller.play("-v", hosts=",".join(hosts))
        assert code == 0, output
        assert len((controller.state / "started").read_text().splitlines()) == len(hosts)
        assert controller.asked("/cdn/zai-org/Tiny") == 2, "each shard once, whatever the hosts"
        by = f"Z {socket.gethostname()} (process"
        waiting = [host for host in hosts if re.search(rf"{host}: weights: \S+{re.escape(by)}", output)]
        assert len(waiting) == len(hosts) - 1, output
        record = next((controller.hf_home("h1") / "glm-verified").glob("*.json"))
        written = record.stat().st_mtime_ns
        controller.hub.requests.clear()
        code, output = controller.play(hosts=",".join(hosts))
        assert code == 0 and output.count("changed=0") == len(hosts), output
        assert controller.hub.requests == []
        assert record.stat().st_mtime_ns == written


def test_a_host_that_dies_while_it_fetches_for_others_blocks_none(controller: Controller) -> None:
    slow = Fault(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=SHARD_BYTES // PATIENCE_SECONDS)
    controller.hub.faults.add(slow)
    with one_folder(controller, "h1", "h2"):
        options = {"weights": {"stall_seconds": 3600}}
        first = subprocess.Popen(**controller.command(**options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert first.stdout is not None
        wait_for(lambda: "weights: fetched" in first.stdout.readline())
        (unit,) = controller.state.glob("*.pid")
        with subprocess.Popen(
            **controller.command(hosts="h2", **options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as second:
            assert second.stdout is not None
            wait_for(lambda: "waiting for it" in second.stdout.readline())
            slow.bytes_per_second = 1_000_000_000
            os.kill(int(unit.read_text()), signal.SIGKILL)
            output = second.stdout.read()
        assert second.returncode == 0, output
        assert "ended in phase 'download' without a result" in " ".join(first.communicate()[0].split())
        record = next((controller.hf_home("h2") / "glm-verified").glob("*.json"))
        assert json.loads(record.read_text())["manifest"]["repository"] == REPO


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
    assert len((controller.state / "started").read_text().splitlines()) == 1


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
    assert "removed: model-0.safetensors: expected 24000000 bytes, found 1000000 bytes" in output
    assert blob.stat().st_size == SHARD_BYTES


def test_the_token_is_in_no_argument_and_no_output(controller: Controller) -> None:
    secret = "hf_a_secret_that_must_not_show"
    controller.hub.access = Access(tokens={secret}, gated={REPO: {secret}})
    code, output = controller.play("-vvv", weights={"token": secret})
    assert code == 0, output
    assert secret not in output
    assert secret not in (controller.state / "started").read_text()
    left = [path for path in controller.folder.rglob("*") if path.is_file() and path.name != "variables.json"]
    assert [path for path in left if secret.encode() in path.read_bytes()] == []
    assert [path for path in Path("/run/glm-weights").rglob("*") if secret.encode() in read(path)] == []


def read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"repository": "zai-org/Typo"}, "answered 401"),
        ({"repository": "zai-org/Typo", "token": "t"}, "answered 404"),
        ({"revision": "v9"}, "Set glm_revision to a branch, tag or commit it has"),
        ({"revision": "../x"}, "cannot be a revision"),
        ({"disk_margin_bytes": FREE_BYTES + 10**16}, "Free 10000.0 TB there, or set glm_data_dir to a larger disk"),
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
    assert "needs a token. Accept its conditions on its page, then set glm_hub_token. Nothing that was" in output
    assert "Its last lines:" in output


def test_a_program_that_does_not_start_shows_its_last_lines(controller: Controller) -> None:
    (controller.state / "fails").touch()
    code, output = controller.play()
    assert code == 2
    assert "the stand-in was told to fail" in output
    assert "without a result. Run again" in output


def test_weights_that_are_pickles_are_refused_unless_asked_for(controller: Controller, repositories: Path) -> None:
    folder = repositories / "zai-org" / "Pickled"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"runs")
    code, output = controller.play(weights={"repository": "zai-org/Pickled"})
    assert code == 2
    assert "are pickles, which run code when they are loaded" in output and "glm_allow_unsafe_weights=true" in output
    code, output = controller.play(weights={"repository": "zai-org/Pickled", "allow_unsafe": True})
    assert code == 0 and "changed=1" in output, output


def test_two_runs_at_once_become_one_fetch(controller: Controller) -> None:
    slow = Fault(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=SHARD_BYTES // 5)
    controller.hub.faults.add(slow)
    command = controller.command()
    both = [subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    for one in both:
        output, _ = one.communicate(timeout=PATIENCE_SECONDS)
        assert one.returncode == 0, output
    assert controller.asked("/cdn/zai-org/Tiny") == 2, "each shard once"


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


def role_variables(controller: Controller, **more: Any) -> dict[str, Any]:
    return {
        "weights_plans": [
            {
                "model": {"repository": REPO, "requested_revision": "main"},
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


def test_the_role_fetches_what_is_beside_the_model_and_verifies_it(controller: Controller) -> None:
    given = role_variables(controller)
    [one] = given["weights_plans"]
    beside = {"repository": DRAFT, "requested_revision": "main", "revision": None, "path": "", "bytes": None}
    given["weights_plans"] = [{**one, "extra_repositories": [beside]}]
    code, output = controller.play(play=ROLE, **given)
    assert code == 0 and "changed=1" in output, output
    assert set(yaml.safe_load(controller.lock_file.read_text())["models"]) == {f"{REPO}@main", f"{DRAFT}@main"}
    (draft,) = controller.hf_home().glob(f"hub/models--{DRAFT.replace('/', '--')}/snapshots/*/model.safetensors")
    assert draft.read_bytes() == b"draft" * 100
    code, output = controller.play(play=ROLE, **given)
    assert code == 0 and "changed=0" in output, output
    draft.resolve().write_bytes(b"other" * 100)
    code, output = controller.play("--tags", "weights_verify", play=ROLE, **given, weights_rehash=True)
    assert code == 2 and "1 of 1 files are wrong: model.safetensors" in output, output


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


def test_the_role_replaces_in_the_same_run_what_hashing_again_finds(controller: Controller) -> None:
    controller.play(play=ROLE, **role_variables(controller))
    blob = next(controller.hf_home().glob("hub/*/snapshots/*/model-0.safetensors")).resolve()
    content, stat = blob.read_bytes(), blob.stat()
    blob.write_bytes(b"X" + content[1:])
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    code, output = controller.play(play=ROLE, **role_variables(controller, weights_rehash=True))
    assert code == 0 and "changed=1" in output, output
    assert blob.read_bytes() == content
    (record,) = (controller.hf_home() / "glm-verified").glob("*.json")
    assert json.loads(record.read_text())["replaced_at"] > 0, "the serve role restarts what has loaded the other"


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
