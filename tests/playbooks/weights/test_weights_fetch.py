"""The supervisor of a fetch, with a stand-in for the client that does what each test says.

The real clients are in tests/integration/test_weights.py; here are the troubles that a real one shows rarely.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.files import write_json
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, Store, WeightFile
from tests import fetch_by_clock
from tests.fetch_by_clock import Clock, wait_for
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
REPO = "org/name"
COMMIT = "c" * 40
PROGRAM = ("-m", fetch.__name__, "run")
CONTENT = {"a.safetensors": b"a" * 50_000, "b.safetensors": b"b" * 60_000, "config.json": b"{}"}

# Takes the first step of the script: "all" writes everything, "hang" writes one file and waits, "stuck" just waits,
# {"error": …} raises,
# {"only": n} writes n files, {"corrupt": name} writes everything with that file wrong, "exit" dies without a word.
CLIENT = """
import json, os, time
from pathlib import Path

__version__ = "0.0-stand-in"

class Response:
    def __init__(self, status, retry_after):
        self.status_code, self.headers = status, {"Retry-After": retry_after} if retry_after else {}

class HubHTTPError(Exception):
    pass

def do_nothing():
    with (Path(os.environ["STAND_IN"]) / "idle").open("a") as idle:
        idle.write(".")
    time.sleep(3600)

def snapshot_download(repository, revision, cache_dir, max_workers, etag_timeout):
    here = Path(os.environ["STAND_IN"])
    steps = json.loads((here / "script.json").read_text())
    step = steps.pop(0)
    (here / "script.json").write_text(json.dumps(steps))
    with (here / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps({name: value for name, value in os.environ.items() if name.startswith("HF_")}) + "\\n")
    manifest = json.loads((here / "manifest.json").read_text())
    folder = Path(cache_dir) / ("models--" + repository.replace("/", "--"))
    snapshot = folder / "snapshots" / revision
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    if isinstance(step, dict) and "error" in step:
        error = HubHTTPError(step["error"])
        error.response = Response(step["status"], step.get("retry_after"))
        raise RuntimeError("wrapped") from error
    if step == "stuck":
        do_nothing()
    if step == "full":
        raise OSError(28, "No space left on device")
    if step == "exit":
        print("Bus error", flush=True)
        os._exit(7)
    count = step["only"] if isinstance(step, dict) and "only" in step else 1 if step == "hang" else len(manifest)
    todo = [item for item in manifest.items() if not (snapshot / item[0]).exists()]
    for name, etag in todo[:count]:
        content = (here / "content" / name).read_bytes()
        if isinstance(step, dict) and step.get("corrupt") == name:
            content = b"X" + content[1:]
        (folder / "blobs" / etag).write_bytes(content)
        (snapshot / name).symlink_to("../../blobs/" + etag)
    if step == "hang":
        do_nothing()
"""


class Bench:
    """A host's cache, a stand-in client, and the supervisor as its own process."""

    def __init__(self, tmp_path: Path) -> None:
        self.here = tmp_path / "stand-in"
        self.hf_home = tmp_path / "huggingface"
        self.folder = self.hf_home / "glm-fetch" / "key"
        files = []
        for name, content in CONTENT.items():
            path = self.here / "content" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            files.append(WeightFile(name, len(content), "0" * 40, hashlib.sha256(content).hexdigest()))
        self.manifest = Manifest(REPO, COMMIT, tuple(files))
        write_json(self.here / "manifest.json", {file.path: file.etag for file in files})
        package = self.here / "package" / "huggingface_hub"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(CLIENT)
        self.store = Store(self.hf_home, REPO)
        self.job()

    def job(self, **options: Any) -> None:
        # A client that takes its time on a busy machine does not stall.
        settings = {
            "stall_seconds": 3600.0, "min_bytes_per_second": 10.0, "retry_seconds": 0.05, "attempts": 3, **options
        }  # fmt: skip
        job = fetch.Job(manifest=self.manifest.as_json(), requested="main", **settings)
        write_json(self.folder / "job.json", vars(job))

    def start(self, *script: Any, client: bool = True, program: Sequence[str] = PROGRAM) -> subprocess.Popen[str]:
        write_json(self.here / "script.json", list(script))
        path = [str(ROOT / ".collections"), *([str(self.here / "package")] if client else [])]
        return subprocess.Popen(
            [sys.executable, *program, str(self.folder)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path), "STAND_IN": str(self.here)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *script: Any, client: bool = True) -> int:
        return self.end(self.start(*script, client=client))

    def end(self, process: subprocess.Popen[str]) -> int:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert "Traceback" not in output, output
        return process.returncode

    def run_with_stalls(self, *script: Any, seconds: float) -> int:
        """Like ``run``; clients that hang or are stuck do so for this long, by a clock of their own."""
        clock = Clock(self.folder)
        process = self.start(*script, program=[fetch_by_clock.__file__])
        for number in range(1, len([step for step in script if step in ("hang", "stuck")]) + 1):
            wait_for(lambda number=number: self.idle == number)
            clock.let_stall(seconds)
        return self.end(process)

    @property
    def idle(self) -> int:
        """How many clients came to the point where they do nothing any more."""
        path = self.here / "idle"
        return len(path.read_text()) if path.exists() else 0

    @property
    def status(self) -> fetch.Status:
        return fetch.Status(**json.loads((self.folder / "status.json").read_text()))

    @property
    def calls(self) -> list[dict[str, str]]:
        path = self.here / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def command_line(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_fetches_verifies_and_records(bench: Bench) -> None:
    assert bench.run("all") == 0
    status = bench.status
    assert (status.phase, status.attempt, status.files_done) == ("done", 1, 3)
    assert status.done_bytes == status.total_bytes == status.fetched_bytes == bench.manifest.total_bytes
    assert bench.store.changed_since_record(COMMIT) == []
    assert bench.store.references_right("main", COMMIT)
    assert bench.calls[0]["HF_HUB_OFFLINE"] == "0"
    assert "HF_HUB_DISABLE_XET" not in bench.calls[0]


def test_what_is_there_is_verified_without_the_client(bench: Bench) -> None:
    assert bench.run("all") == 0
    bench.store.forget(COMMIT)
    assert bench.run() == 0
    assert (bench.status.attempt, bench.status.fetched_bytes, len(bench.calls)) == (0, 0, 1)
    assert bench.store.changed_since_record(COMMIT) == []


def test_a_stalled_client_is_restarted_without_xet(bench: Bench) -> None:
    bench.job(stall_seconds=60)
    assert bench.run_with_stalls("hang", "all", seconds=60.5) == 0
    assert [call.get("HF_HUB_DISABLE_XET") for call in bench.calls] == [None, "1"]
    assert bench.status.attempt == 2
    assert any("stalled" in event and "through Xet" in event for event in bench.status.events)


def test_a_client_that_always_stalls_is_given_up(bench: Bench) -> None:
    bench.job(stall_seconds=1.0, min_bytes_per_second=1e9, attempts=2)
    assert bench.run_with_stalls("stuck", "hang", "stuck", "stuck", "all", seconds=1.25) == 1
    assert (bench.status.error_kind, len(bench.calls)) == ("attempts", 4)
    assert "2 attempts in a row completed no file; the last: stalled: 0 bytes in 1 s" in bench.status.error


def test_attempts_without_progress_are_counted(bench: Bench) -> None:
    fault = {"error": "boom", "status": 502}
    assert bench.run(fault, {"only": 1}, fault, fault, fault, "all") == 1
    status = bench.status
    assert (status.phase, status.error_kind) == ("failed", "attempts")
    assert "3 attempts in a row completed no file; the last: RuntimeError: wrapped" in status.error
    assert len(bench.calls) == 5


def test_a_rate_limit_is_waited_out_and_keeps_xet(bench: Bench) -> None:
    start = time.monotonic()
    assert bench.run({"error": "slow down", "status": 429, "retry_after": "2"}, "all") == 0
    assert time.monotonic() - start >= 2
    assert bench.calls[1].get("HF_HUB_DISABLE_XET") is None


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"error": "who are you", "status": 401}, "unauthorised"),
        ({"error": "gated", "status": 403}, "forbidden"),
        ({"error": "nothing", "status": 404}, "not_found"),
        ("full", "disk_full"),
    ],
)
def test_errors_that_no_attempt_mends_end_at_once(bench: Bench, step: Any, kind: str) -> None:
    assert bench.run(step, "all") == 1
    assert (bench.status.phase, bench.status.error_kind, len(bench.calls)) == ("failed", kind, 1)


def test_an_image_without_the_client_is_named(bench: Bench) -> None:
    assert bench.run(client=False) == 1
    assert bench.status.error_kind == "no_client"
    assert "huggingface_hub" in bench.status.error


def test_a_client_that_dies_silently_shows_its_last_lines(bench: Bench) -> None:
    assert bench.run("exit", "exit", "exit") == 1
    assert "the client ended with status 7" in bench.status.error
    assert "Bus error" in bench.status.error


def test_a_wrong_file_is_fetched_once_more(bench: Bench) -> None:
    assert bench.run({"corrupt": "b.safetensors"}, "all") == 0
    removed = [event for event in bench.status.events if "removed to fetch again" in event]
    assert len(removed) == 1
    assert "b.safetensors: expected sha256:" in removed[0] and "found sha256:" in removed[0]


def test_a_file_that_stays_wrong_is_an_error(bench: Bench) -> None:
    wrong = {"corrupt": "b.safetensors"}
    assert bench.run(wrong, wrong, "all") == 1
    assert (bench.status.error_kind, len(bench.calls)) == ("damaged", 2)
    assert bench.status.error.startswith("1 of 3 files are wrong: b.safetensors: expected sha256:")
    assert bench.store.changed_since_record(COMMIT) is None


def test_a_truncated_file_is_named_and_fetched_again(bench: Bench) -> None:
    assert bench.run("all") == 0
    blob = (bench.store.snapshot(COMMIT) / "a.safetensors").resolve()
    blob.write_bytes(b"a" * 100)
    assert bench.run("all") == 0
    assert any("a.safetensors: expected 50000 bytes, found 100 bytes" in event for event in bench.status.events)
    assert bench.store.changed_since_record(COMMIT) == []


def test_verifying_only_touches_nothing_but_forgets_a_wrong_record(bench: Bench) -> None:
    assert bench.run("all") == 0
    blob = (bench.store.snapshot(COMMIT) / "a.safetensors").resolve()
    stat = blob.stat()
    blob.write_bytes(b"b" * 50_000)
    os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bench.store.changed_since_record(COMMIT) == [], "nothing but the hash can tell"
    bench.job(repair=False)
    assert bench.run("all") == 1
    assert bench.status.error_kind == "damaged"
    assert blob.read_bytes() == b"b" * 50_000
    assert bench.store.changed_since_record(COMMIT) is None
    assert len(bench.calls) == 1


def test_stopping_the_unit_ends_the_client_too(bench: Bench) -> None:
    process = bench.start("hang")
    wait_for(lambda: bench.idle)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 1
    assert bench.status.phase == "interrupted"
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(bench.folder) in command_line(path)]
    assert left == []


def test_errors_are_found_behind_wrappers() -> None:
    inner = OSError(errno.ENOSPC, "No space left on device")
    try:
        try:
            raise inner
        except OSError:
            raise ValueError("outer")  # noqa: B904  (an error raised while another was handled)
    except ValueError as exc:
        assert fetch.classify(exc) == ("disk_full", 0.0)
    assert fetch.classify(ValueError("plain")) == ("client", 0.0)


def test_the_program_runs_on_the_oldest_python_that_hosts_have() -> None:
    import ast

    folder = ROOT / "plugins"
    for path in [*folder.glob("module_utils/weights/*.py"), folder / "modules/model_weights.py"]:
        ast.parse(path.read_text(), feature_version=(3, 9))
