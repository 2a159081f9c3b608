"""The program that fetches weights, as its unit runs it, from the simulated hub: what it brings, and every trouble."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.files import write_json
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Store
from simulator.hub import Hub
from simulator.hub.server import Access
from tests import fetch_by_clock
from tests.fetch_by_clock import Clock, wait_for
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
REPO = "zai-org/Tiny"
SHARD_BYTES = 6_000_000
KILLS = int(os.environ.get("GLM_FETCH_KILLS", "3"))


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repos")
    folder = root / REPO
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "sub" / "notes.txt").write_text("a file in a folder")
    (folder / "empty.txt").write_text("")
    for number in range(2):
        (folder / f"model-{number}.safetensors").write_bytes(random.Random(number).randbytes(SHARD_BYTES))
    return root


@pytest.fixture
def hub(repositories: Path) -> Iterator[Hub]:
    # Large files come from another name than the hub's own, as from a content delivery network.
    with Hub(repositories, page_size=2, cdn_host="localhost") as hub:
        yield hub


class Fetch:
    """A host's cache, and the fetcher of one commit into it."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.hf_home, self.folder = hub, folder / "huggingface", folder / "run"
        client = HubClient(hub.url)
        self.commit = client.resolve(REPO, "main")
        self.manifest = client.manifest(REPO, self.commit)
        self.store = Store(self.hf_home, REPO)
        self.token = ""
        self.job()
        hub.requests.clear()

    def job(self, **options: Any) -> None:
        # What takes its time on a busy machine does not stall.
        settings = {"stall_seconds": 3600.0, "retry_seconds": 0.05, "attempts": 3, **options}
        if self.token:
            (self.folder / "token").write_text(self.token)
            settings["token_file"] = str(self.folder / "token")
        settings |= {"hf_home": str(self.hf_home), "manifest": self.manifest.as_json(), "endpoint": self.hub.url}
        job = fetch.Job(requested="main", **settings)
        write_json(self.folder / "job.json", vars(job))

    def start(self, *program: str) -> subprocess.Popen[str]:
        """``program``: instead of the fetcher as the unit starts it."""
        command = [sys.executable, *(program or ("-m", fetch.__name__, "run")), str(self.folder)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / ".collections")}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self) -> int:
        return self.end(self.start())

    def end(self, process: subprocess.Popen[str]) -> int:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert "Traceback" not in output, output
        return process.returncode

    @property
    def status(self) -> fetch.Status:
        """What it says last; that of a fetch that has not said anything yet."""
        path = self.folder / "status.json"
        return fetch.Status(**json.loads(path.read_text())) if path.exists() else fetch.Status()

    @property
    def shard(self) -> Path:
        return self.store.snapshot(self.commit) / "model-1.safetensors"

    def partial(self, name: str = "model-1.safetensors") -> Path:
        return self.store.partial(next(file.etag for file in self.manifest.files if file.path == name))

    def stop_sending_within(self, name: str = "model-1.safetensors") -> None:
        """Let the hub stop in the middle of a file, without closing the connection."""
        self.hub.fail(f"{REPO}/{name}", "stall", after_bytes=SHARD_BYTES // 2, seconds=PATIENCE_SECONDS)

    def wait_for_the_rest(self) -> None:
        """Until everything is on disk that comes before the hub stops sending."""
        left = self.manifest.total_bytes - SHARD_BYTES // 2
        wait_for(lambda: self.manifest.total_bytes - self.store.bytes_to_fetch(self.manifest) == left)

    def asked_for(self, name: str) -> list[str | None]:
        """Range headers of the downloads of a file, without the redirect before each."""
        asked = [request for request in self.hub.downloads() if request.target == f"{REPO}/{name}"]
        return [request.range for request in asked if request.status != 302]

    def require_whole(self) -> None:
        assert self.store.changed_since_record(self.commit) == []
        assert self.store.references_right("main", self.commit)


@pytest.fixture
def host(hub: Hub, tmp_path: Path) -> Fetch:
    return Fetch(hub, tmp_path)


def flip(blob: Path, at: int = 1000) -> None:
    """Change a byte, and leave no sign of it."""
    stat = blob.stat()
    with blob.open("r+b") as handle:
        handle.seek(at)
        byte = handle.read(1)
        handle.seek(at)
        handle.write(bytes([byte[0] ^ 1]))
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_fetches_verifies_and_records(host: Fetch) -> None:
    assert host.run() == 0
    status = host.status
    assert (status.phase, status.retries, status.files_done, status.error_kind) == ("done", 0, 5, "")
    assert status.done_bytes == status.total_bytes == status.fetched_bytes == host.manifest.total_bytes
    host.require_whole()


def test_what_is_there_is_verified_without_the_hub(host: Fetch) -> None:
    assert host.run() == 0
    host.store.forget(host.commit)
    host.hub.requests.clear()
    assert host.run() == 0
    assert (host.status.fetched_bytes, host.hub.requests) == (0, [])
    host.require_whole()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_fetch_goes_on_within_a_file(host: Fetch, number: signal.Signals) -> None:
    host.stop_sending_within()
    process = host.start()
    host.wait_for_the_rest()
    process.send_signal(number)
    process.wait(PATIENCE_SECONDS)
    if number == signal.SIGTERM:
        assert (process.returncode, host.status.phase) == (1, "interrupted")
    assert host.run() == 0
    assert host.asked_for("model-0.safetensors") == [None]
    assert host.asked_for("model-1.safetensors") == [None, f"bytes={SHARD_BYTES // 2}-"]
    assert list((host.store.folder / "blobs").glob("*.incomplete")) == []
    host.require_whole()


@pytest.mark.parametrize("seed", range(KILLS))
def test_kills_at_any_moment_leave_no_false_record_and_waste_little(host: Fetch, seed: int) -> None:
    chance = random.Random(seed)
    names = ["model-0.safetensors", "model-1.safetensors"]
    sizes = {file.path: file for file in host.manifest.files}
    host.hub.fail(f"{REPO}/*.safetensors", "slow", times=-1, bytes_per_second=20_000_000)
    had = dict.fromkeys(names, 0)
    for number in range(kills := chance.randint(1, 4) + 1):
        host.hub.requests.clear()
        process = host.start()
        if number < kills - 1:
            # The start of a Python takes a part of it.
            time.sleep(chance.uniform(0.05, 0.9))
            process.kill()
        host.end(process)
        for name in names:
            if asked := host.asked_for(name):
                assert asked[0] == (f"bytes={had[name]}-" if had[name] else None), "what was there is fetched again"
            had[name] = host.store.begun(sizes[name].etag, sizes[name].size)
        if host.store.read_record(host.commit) is not None:
            host.require_whole()
    assert process.returncode == 0
    host.require_whole()


def test_a_broken_line_goes_on_where_it_broke(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/model-1.safetensors", "truncate", after_bytes=1_000_000, times=4)
    assert host.run() == 0, "each answer brought something, so more of them than attempts are no reason to end"
    assert host.asked_for("model-1.safetensors")[:2] == [None, "bytes=1000000-"]
    assert host.status.fetched_bytes == host.manifest.total_bytes
    assert host.status.retries == 4


def test_answers_without_a_byte_are_counted(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/model-1.safetensors", "status", status=502, times=3)
    assert host.run() == 1
    assert (host.status.phase, host.status.error_kind) == ("failed", "attempts")
    assert host.status.error == f"model-1.safetensors: {host.hub.url} answered 502, 3 times in a row"
    assert host.run() == 0


def test_a_hub_that_is_away_is_named(host: Fetch) -> None:
    host.hub.__exit__()
    assert host.run() == 1
    assert host.status.error_kind == "attempts" and "refuses connections, 3 times in a row" in host.status.error


def test_a_line_that_only_drips_is_asked_for_again(host: Fetch) -> None:
    clock = Clock(host.folder)
    host.job(stall_seconds=60.0)
    host.hub.fail(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=10)
    process = host.start(fetch_by_clock.__file__)
    wait_for(lambda: host.store.bytes_to_fetch(host.manifest) < SHARD_BYTES)
    clock.let_stall(60.5)
    assert host.end(process) == 0
    assert any("B/s; asking again for what is missing" in event for event in host.status.events)
    first, second = host.asked_for("model-1.safetensors")
    assert first is None and second is not None
    host.require_whole()


def test_stalls_in_a_row_are_given_up(host: Fetch) -> None:
    clock = Clock(host.folder)
    host.job(stall_seconds=60.0, attempts=2)
    host.hub.fail(f"{REPO}/model-1.safetensors", "slow", bytes_per_second=10, times=-1)
    process = host.start(fetch_by_clock.__file__)
    wait_for(lambda: host.store.bytes_to_fetch(host.manifest) < SHARD_BYTES)
    clock.let_stall(61.0)
    wait_for(lambda: any("stalled" in event for event in host.status.events))
    clock.let_stall(61.0)
    assert host.end(process) == 1
    assert host.status.error_kind == "stalled"
    assert "less than 1.0 MB/s, 2 times in a row" in host.status.error


def test_a_line_that_is_silent_is_asked_for_again(host: Fetch) -> None:
    host.job(stall_seconds=0.5, min_bytes_per_second=0.0)
    host.stop_sending_within()
    assert host.run() == 0
    assert host.asked_for("model-1.safetensors")[:2] == [None, f"bytes={SHARD_BYTES // 2}-"]
    host.require_whole()


def test_a_limit_of_the_hub_is_waited_out_and_is_no_stall(host: Fetch) -> None:
    clock = Clock(host.folder)
    host.job(stall_seconds=1.0, min_bytes_per_second=1e9)
    host.hub.fail(f"{REPO}/*", "status", status=429, retry_after=3, times=5)
    start = time.monotonic()
    process = host.start(fetch_by_clock.__file__)
    # By the clock of stalls an hour passes.
    wait_for(lambda: host.status.phase == "wait")
    clock.move(3600.0)
    assert host.end(process) == 0
    assert time.monotonic() - start >= 3
    assert any("limits requests from this address, waiting 3 s as it asks" in event for event in host.status.events)
    assert not any("stalled" in event for event in host.status.events)


def test_a_limit_without_an_end_is_named_as_such(host: Fetch) -> None:
    host.job(limit_seconds=2.5)
    host.hub.fail(f"{REPO}/*", "status", status=429, retry_after=1, times=-1)
    assert host.run() == 1
    assert host.status.error_kind == "rate_limited"
    assert "asks to wait 1 s more, 2 s after it first did so" in host.status.error


@pytest.mark.parametrize(("token", "kind"), [("", "unauthorised"), ("stranger", "forbidden")])
def test_a_gate_ends_the_fetch_at_once(host: Fetch, token: str, kind: str) -> None:
    host.hub.access = Access(tokens={"member", "stranger"}, gated={REPO: {"member"}})
    host.token = token
    host.job(download_workers=1)
    assert host.run() == 1
    asked = [request for request in host.hub.requests if "/resolve/" in request.path]
    # A thread may have begun with the next file when the first is seen to be refused.
    assert host.status.error_kind == kind and len(asked) <= 2


def test_a_file_that_is_gone_ends_the_fetch(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/config.json", "status", status=404)
    assert host.run() == 1
    assert host.status.error_kind == "not_found" and host.status.error.startswith("config.json: ")


def test_a_token_opens_the_gate_and_stays_with_the_hub(host: Fetch) -> None:
    host.hub.access = Access(tokens={"member"}, gated={REPO: {"member"}})
    host.token = "member"
    host.job()
    assert host.run() == 0
    elsewhere = [request for request in host.hub.requests if request.path.startswith("/cdn/")]
    assert elsewhere and not any(request.authenticated for request in elsewhere)


def test_wrong_bytes_are_noticed_removed_and_fetched_again(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/model-0.safetensors", "corrupt", after_bytes=5_000_000)
    assert host.run() == 0
    removed = [event for event in host.status.events if "removed to fetch again: model-0.safetensors" in event]
    assert len(removed) == 1 and "expected sha256:" in removed[0]
    assert len(host.asked_for("model-0.safetensors")) == 2
    assert len(host.asked_for("model-1.safetensors")) == 1
    host.require_whole()


def test_wrong_bytes_twice_are_an_error(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/config.json", "corrupt", times=-1)
    assert host.run() == 1
    assert host.status.error_kind == "damaged"
    assert host.status.error.startswith("1 of 5 files are wrong: config.json: expected git-sha1:")
    assert host.store.changed_since_record(host.commit) is None


def test_a_file_is_hashed_while_others_are_fetched(host: Fetch) -> None:
    host.hub.fail(f"{REPO}/model-0.safetensors", "corrupt", after_bytes=5_000_000)
    host.stop_sending_within()
    process = host.start()
    wait_for(lambda: any("removed to fetch again: model-0" in event for event in host.status.events))
    assert host.asked_for("model-1.safetensors") == [None], "the other one is still on its way"
    process.terminate()
    process.wait(PATIENCE_SECONDS)


def test_a_flipped_byte_is_found_and_replaced_when_everything_is_hashed_again(host: Fetch) -> None:
    assert host.run() == 0
    assert json.loads(host.store.record_path(host.commit).read_text())["replaced_at"] == 0
    flip(host.shard.resolve())
    assert host.store.changed_since_record(host.commit) == [], "nothing but the hash shows it"
    before = time.time()
    assert host.run() == 0
    assert any("model-1.safetensors: expected sha256:" in event for event in host.status.events)
    replaced = json.loads(host.store.record_path(host.commit).read_text())["replaced_at"]
    assert before <= replaced <= time.time()
    assert host.run() == 0
    assert json.loads(host.store.record_path(host.commit).read_text())["replaced_at"] == replaced


def test_verifying_only_touches_nothing_but_forgets_a_wrong_record(host: Fetch) -> None:
    assert host.run() == 0
    flip(host.shard.resolve())
    content = host.shard.read_bytes()
    host.job(repair=False)
    host.hub.requests.clear()
    assert host.run() == 1
    assert (host.status.error_kind, host.shard.read_bytes(), host.hub.requests) == ("damaged", content, [])
    assert host.store.changed_since_record(host.commit) is None


def test_what_is_hashed_is_read_from_the_disk(host: Fetch) -> None:
    """The engine reads the disk after the next boot. What the page cache has may never have got there."""
    assert host.run() == 0
    blob = host.shard.resolve()
    handle = os.open(blob, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)
    if cached_pages(blob):
        pytest.skip("this file system keeps pages whatever it is told")
    host.job(repair=False)
    assert host.run() == 0
    assert cached_pages(blob) == 0
    blob.read_bytes()
    assert cached_pages(blob) > 0, "reading as usual would have shown"


def cached_pages(path: Path) -> int:
    """How many pages of a file are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), size, flags=mmap.MAP_PRIVATE) as mapped:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages):
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in pages)


@pytest.mark.parametrize("where", ["chat_template.jinja", "sub/modeling_evil.py"])
def test_a_file_that_the_commit_does_not_have_is_damage(host: Fetch, where: str) -> None:
    assert host.run() == 0
    (host.store.snapshot(host.commit) / where).write_text("{{ evil }}")
    changed = host.store.changed_since_record(host.commit) or []
    assert [str(damage) for damage in changed] == [f"{where}: expected no such file in the commit, found a file"]
    host.job(repair=False)
    assert host.run() == 1 and host.status.error_kind == "damaged"
    host.job()
    assert host.run() == 0
    assert any(f"removed: {where}" in event for event in host.status.events)
    host.require_whole()


def test_pickles_and_code_are_left_out_unless_asked_for(hub: Hub, repositories: Path, tmp_path: Path) -> None:
    folder = repositories / REPO
    names = ["model.bin", "sub/modeling_tiny.py"]
    for name in names:
        (folder / name).write_text("runs")
    try:
        host = Fetch(hub, tmp_path)
        assert host.run() == 0
        assert host.status.files == 5
        assert not any((host.store.snapshot(host.commit) / name).exists() for name in names)
        host.require_whole()
        host.job(unsafe=True)
        assert host.run() == 0
        assert all((host.store.snapshot(host.commit) / name).exists() for name in names)
        assert Store(host.hf_home, REPO, unsafe=True).changed_since_record(host.commit) == []
        assert len(host.store.changed_since_record(host.commit) or []) == 2
    finally:
        for name in names:
            (folder / name).unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda blob: blob.write_bytes(b"a" * 100),
        lambda blob: blob.write_bytes(b"\0" * SHARD_BYTES),
        lambda blob: blob.unlink(),
        lambda blob: (blob.unlink(), blob.symlink_to(blob.name)),
        lambda blob: (blob.unlink(), blob.mkdir()),
        lambda blob: (blob.unlink(), blob.with_name(blob.name + ".incomplete").write_bytes(b"x" * (SHARD_BYTES + 5))),
    ],
    ids=["truncated", "zeros", "no blob", "a loop", "a folder", "a partial file that is too long"],
)
def test_whatever_lies_in_the_place_of_a_file_is_put_right(host: Fetch, spoil: Any) -> None:
    assert host.run() == 0
    spoil(host.shard.resolve())
    assert host.run() == 0
    host.require_whole()


def test_a_second_fetch_waits_for_the_first_and_finds_its_work_done(hub: Hub, tmp_path: Path) -> None:
    first, second = Fetch(hub, tmp_path), Fetch(hub, tmp_path)
    second.folder = tmp_path / "run of another host"
    second.job()
    first.stop_sending_within()
    one = first.start()
    first.wait_for_the_rest()
    other = second.start()
    wait_for(lambda: second.status.phase == "wait")
    assert f"(process {one.pid}) fetches into {second.store.folder}, waiting for it" in second.status.events[0]
    one.kill()
    one.wait()
    assert second.end(other) == 0
    assert second.status.fetched_bytes == SHARD_BYTES // 2
    third = Fetch(hub, tmp_path)
    hub.requests.clear()
    assert third.run() == 0
    assert hub.downloads() == []


# The fetcher on a host whose processes others do not see, and which says nothing for long.
ELSEWHERE = """
import os, sys
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch, lease
lease._kernel = lambda: "another"
lease.STALE_SECONDS = float(sys.argv.pop(1))
os._exit(fetch.main(["run", sys.argv[1]]))
"""


def two_hosts(hub: Hub, tmp_path: Path) -> tuple[Fetch, Fetch]:
    first, second = Fetch(hub, tmp_path), Fetch(hub, tmp_path)
    second.folder = tmp_path / "run of another host"
    second.job()
    return first, second


def test_a_host_that_died_is_named_and_another_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    first, second = two_hosts(hub, tmp_path)
    first.stop_sending_within()
    one = first.start()
    first.wait_for_the_rest()
    one.kill()
    one.wait()
    other = second.start("-c", ELSEWHERE, "4")
    wait_for(lambda: second.status.phase == "wait")
    assert second.end(other) == 0
    assert any(f"(process {one.pid}) has not renewed its lease" in event for event in second.status.events)
    assert second.status.fetched_bytes == SHARD_BYTES // 2
    second.require_whole()


def test_a_host_that_was_halted_leaves_the_folder_to_the_other(hub: Hub, tmp_path: Path) -> None:
    first, second = two_hosts(hub, tmp_path)
    first.stop_sending_within()
    one = first.start()
    first.wait_for_the_rest()
    one.send_signal(signal.SIGSTOP)
    assert second.end(second.start("-c", ELSEWHERE, "4")) == 0
    one.send_signal(signal.SIGCONT)
    assert first.end(one) == 1
    assert (first.status.error_kind, "has taken" in first.status.error) == ("lost", True)
    second.require_whole()


def test_the_program_runs_on_the_oldest_python_that_hosts_have() -> None:
    import ast

    folder = ROOT / "plugins"
    for path in [*folder.glob("module_utils/weights/*.py"), folder / "modules/model_weights.py"]:
        ast.parse(path.read_text(), feature_version=(3, 9))
