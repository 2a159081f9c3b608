"""How fast weights go from a hub to a store through this machine, beside a plain copy, and how much memory that takes.

    .venv/bin/python tests/benchmark/staging.py [--gigabytes 4] [--limit 100]

Hub and store are processes here that send from memory and throw away, so that the path through the controller is what
is measured. The plain copy has as many connections, hashes nothing and signs nothing. ``--limit`` is the rate of the
hub in MB/s, for a line of that speed; 0 is none. Three runs of each, side by side; the medians are compared.
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
import statistics
import sys
import threading
import time
import urllib.parse
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
    """Sends each address as many bytes as its last part says, at ``limit`` bytes per second in all; throws away."""

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
            left -= self.rfile.readinto(view[: min(left, MIB)])
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


def stage(hub: str, store: str, files: Manifest, pipe: Any) -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
    bucket = Bucket(place("s3://bench", store))
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    run = staging.Staging(HubClient(hub), bucket, staged.Record(files), files.total_bytes)
    run.run(list(files.files), lambda _progress: None)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pipe.send((seconds, used, after.ru_maxrss * 1024))


def copy(hub: str, store: str, files: Manifest, pipe: Any) -> None:
    def one(file: WeightFile) -> None:
        source = http.client.HTTPConnection(urllib.parse.urlsplit(hub).netloc)
        sink = http.client.HTTPConnection(urllib.parse.urlsplit(store).netloc)
        source.request("GET", f"/a/b/resolve/{files.commit}/{file.path}")
        answer = source.getresponse()
        sink.putrequest("PUT", f"/bench/{file.path}")
        sink.putheader("Content-Length", str(file.size))
        sink.endheaders()
        view = memoryview(bytearray(MIB))
        while count := answer.readinto(view):
            sink.send(view[:count])
        sink.getresponse().read()

    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(staging.FILES_AT_ONCE) as pool:
        list(pool.map(one, files.files))
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pipe.send((seconds, used, after.ru_maxrss * 1024))


def measured(work: Any, *given: Any) -> tuple[float, float, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(*given, theirs))
    process.start()
    found: tuple[float, float, int] = ours.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=0.0)
    wanted = parser.parse_args()
    total = int(wanted.gigabytes * 1e9)
    files = manifest(total)
    (_hub, hub), (_store, store) = started(wanted.limit * 1e6), started(0.0)
    runs: dict[str, list[tuple[float, float, int]]] = {"plain copy": [], "stage": []}
    for _ in range(RUNS):
        runs["plain copy"].append(measured(copy, hub, store, files))
        runs["stage"].append(measured(stage, hub, store, files))
    medians = {name: statistics.median(one[0] for one in found) for name, found in runs.items()}
    for name, found in runs.items():
        rates = ", ".join(f"{files.total_bytes / one[0] / 1e9:.2f}" for one in found)
        cpu = statistics.median(one[1] for one in found) / (files.total_bytes / 1e9)
        memory = max(one[2] for one in found) / 1e6
        print(f"{name}: {rates} GB/s, {cpu:.2f} s of processor time for each GB, at most {memory:.0f} MB of memory")
    print(f"stage keeps {medians['plain copy'] / medians['stage']:.0%} of the plain copy's rate")


if __name__ == "__main__":
    main()
