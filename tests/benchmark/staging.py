"""How fast weights go from a hub to a store through this machine, beside plain copies, and what that takes.

    .venv/bin/python tests/benchmark/staging.py [--gigabytes 1] [--limit 250]

Hub and store are processes here that send from memory and throw away, so that the path through the controller is what
is measured: twice, with both ends as fast as they go, and with each limited to ``--limit`` MB/s in all. On a machine
with few cores both ends take their part of them, and the ratio of the first is one of processor time.

Beside ``stage`` go, with as many files at a time and no signatures, retries or limits of memory: ``copy``, the plainest
client in Python; ``hashed copy``, the same with the hash of each byte; and ``curl | curl``. Three runs of each, side by
side; the medians are compared. Memory is the most that a process had at a time (of curl: not counted).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import http.client
import multiprocessing
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, WeightFile
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged, staging
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, place

MIB = 2**20
BLOCK = os.urandom(4 * MIB)
FILES = 12
RUNS = 3


class Server(ThreadingHTTPServer):
    """Sends each address as many bytes as its last part says; throws away; ``limit`` bytes per second in all."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, limit: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.limit, self.lock, self.next = limit, threading.Lock(), time.monotonic()

    def pace(self, count: int) -> None:
        if self.limit:
            with self.lock:
                self.next = max(self.next, time.monotonic() - 0.05) + count / self.limit
                wait = self.next - time.monotonic()
            if wait > 0:
                time.sleep(wait)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        match = re.search(r"/(\d+)$", self.path)
        if match is None:
            self.answer(b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
            return
        size = int(match[1])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        view = memoryview(BLOCK)
        while size:
            count = min(size, len(view))
            self.server.pace(count)
            self.connection.sendall(view[:count])
            size -= count

    def do_PUT(self) -> None:
        left, view = int(self.headers["Content-Length"]), memoryview(bytearray(MIB))
        while left:
            count = self.rfile.readinto(view[: min(left, MIB)])
            self.server.pace(count)
            left -= count
        self.answer(b"", {"ETag": '"x"'})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "uploads" in self.path:
            self.answer(b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
        else:
            self.answer(b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")

    def answer(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def serve(limit: float, pipe: Any) -> None:
    server = Server(limit)
    pipe.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


def started(limit: float) -> tuple[Any, str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(limit, theirs), daemon=True)
    process.start()
    return process, ours.recv()


def manifest(total: int) -> Manifest:
    size = total // FILES
    digest = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        digest.update(BLOCK)
    digest.update(BLOCK[: size % len(BLOCK)])
    one = digest.hexdigest()
    return Manifest("a/b", "c" * 40, tuple(WeightFile(f"{n}/{size}", size, "0" * 40, one) for n in range(FILES)))


@dataclass(frozen=True)
class Took:
    """What one run took: seconds, seconds of processors, bytes of memory."""

    seconds: float
    processors: float
    memory: int


def stage(hub: str, store: str, files: Manifest) -> None:
    bucket = Bucket(place("s3://bench", store))
    run = staging.Staging(HubClient(hub), bucket, staged.Record(files), files.total_bytes)
    run.run(list(files.files), lambda _progress: None)


def copy(hub: str, store: str, files: Manifest, hashed: bool = False) -> None:
    def one(file: WeightFile) -> None:
        source = http.client.HTTPConnection(urllib.parse.urlsplit(hub).netloc)
        sink = http.client.HTTPConnection(urllib.parse.urlsplit(store).netloc)
        source.request("GET", f"/a/b/resolve/{files.commit}/{file.path}")
        answer = source.getresponse()
        sink.putrequest("PUT", f"/bench/{file.path}")
        sink.putheader("Content-Length", str(file.size))
        sink.endheaders()
        view, digest = memoryview(bytearray(MIB)), hashlib.sha256()
        while count := answer.readinto(view):
            if hashed:
                digest.update(view[:count])
            sink.send(view[:count])
        sink.getresponse().read()
        assert not hashed or digest.hexdigest() == file.sha256

    at_once(one, files)


def hashed_copy(hub: str, store: str, files: Manifest) -> None:
    copy(hub, store, files, hashed=True)


def curl(hub: str, store: str, files: Manifest) -> None:
    def one(file: WeightFile) -> None:
        get = ["curl", "-sf", f"{hub}/a/b/resolve/{files.commit}/{file.path}"]
        put = ["curl", "-sf", "-T", "-", "-H", "Transfer-Encoding:", "-H", f"Content-Length: {file.size}"]
        with subprocess.Popen(get, stdout=subprocess.PIPE) as source:
            subprocess.run([*put, "-H", "Expect:", f"{store}/bench/{file.path}"], stdin=source.stdout, check=True)

    at_once(one, files)


def at_once(one: Any, files: Manifest) -> None:
    with concurrent.futures.ThreadPoolExecutor(staging.FILES_AT_ONCE) as pool:
        list(pool.map(one, files.files))


def processors() -> float:
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def measure(work: Any, given: tuple[str, str, Manifest], pipe: Any) -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
    # Loading boto3 takes its second once, however many bytes there are.
    Bucket(place("s3://bench", given[1])).unfinished("")
    began, before = time.monotonic(), processors()
    work(*given)
    seconds, used = time.monotonic() - began, processors() - before
    memory = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    assert memory is not None
    pipe.send(Took(seconds, used, int(memory[1]) * 1024))


def measured(work: Any, *given: Any) -> Took:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=measure, args=(work, given, theirs))
    process.start()
    found: Took = ours.recv()
    process.join()
    return found


def compare(files: Manifest, limit: float) -> None:
    (hub_process, hub), (store_process, store) = started(limit * 1e6), started(limit * 1e6)
    works = {"stage": stage, "copy": copy, "hashed copy": hashed_copy}
    if shutil.which("curl"):
        works["curl | curl"] = curl
    runs: dict[str, list[Took]] = {name: [] for name in works}
    for _ in range(RUNS):
        for name, work in works.items():
            runs[name].append(measured(work, hub, store, files))
    for process in (hub_process, store_process):
        process.terminate()
    gigabytes = files.total_bytes / 1e9
    medians = {name: statistics.median(one.seconds for one in found) for name, found in runs.items()}
    print(f"both ends limited to {limit:.0f} MB/s each:" if limit else "both ends as fast as they go:")
    for name, found in runs.items():
        rates = ", ".join(f"{gigabytes / one.seconds:.2f}" for one in found)
        used = statistics.median(one.processors for one in found) / gigabytes
        memory = "" if name == "curl | curl" else f", at most {max(one.memory for one in found) / 1e6:.0f} MB of memory"
        ratio = "" if name == "stage" else f"; stage has {medians[name] / medians['stage']:.0%} of its rate"
        print(f"  {name}: {rates} GB/s, {used:.2f} s of processors for each GB{memory}{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=250.0)
    wanted = parser.parse_args()
    files = manifest(int(wanted.gigabytes * 1e9))
    cores = len(os.sched_getaffinity(0))
    print(f"{files.total_bytes / 1e9:.1f} GB in {FILES} files, {staging.FILES_AT_ONCE} at a time, on {cores} cores")
    for limit in (0.0, wanted.limit):
        compare(files, limit)


if __name__ == "__main__":
    main()
