"""What hashing adds to a fetch of weights, and how that compares with curl and the hub's own client.

    .venv/bin/python tests/benchmark/weights_fetch.py [--gigabytes 3] [--limit 500] [--client .venv-hub/bin/python]

The simulated hub sends over loopback from this machine's own disk; ``--limit`` is the rate of a fetch in MB/s, for a
line of that speed (0: none, where hub, client and hash share the cores of this machine). Side by side in each of three
runs: curl, to disk; the fetcher with its hash switched off; the fetcher as hosts run it; with
``--client``, a Python with huggingface_hub, also ``snapshot_download``. A connection has about as many files as with
the shards of GLM-5.1. Medians and ratios are printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils.files import write_json
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient
from simulator.hub import Hub

REPO = "zai-org/Tiny"
FILES = 48
AT_ONCE = 6
RUNS = 3
# The fetcher, with a hash of every file that is known before: all else is as hosts run it.
WITHOUT_HASH = """
import os, sys
from ansible_collections.glm.fleet.plugins.module_utils.weights import fetch, store
store.file_hash = lambda path, file, advance: (advance(file.size), file.expected)[1]
os._exit(fetch.main(["run", sys.argv[1]]))
"""


def repository(root: Path, gigabytes: float) -> None:
    folder = root / REPO
    folder.mkdir(parents=True)
    block = os.urandom(32 * 2**20)
    size = int(gigabytes * 1e9 / FILES)
    for number in range(FILES):
        with (folder / f"model-{number}.safetensors").open("wb") as out:
            left = size
            while left > 0:
                # Files of equal content would be fetched once.
                piece = bytes([number]) + block[1 : min(left, len(block))]
                out.write(piece)
                left -= len(piece)
    (folder / "config.json").write_text("{}")


class Bench:
    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        client = HubClient(hub.url)
        self.commit = client.resolve(REPO, "main")
        self.manifest = client.manifest(REPO, self.commit)
        self.environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / ".collections")}

    def timed(self, work: Callable[[Path], list[str]], **more: str) -> float:
        """Seconds of a command that fetches into a new folder, until what it wrote is on the disk."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            os.sync()
            begun = time.monotonic()
            subprocess.run(work(home), env={**self.environment, **more}, check=True, stdout=subprocess.DEVNULL)
            os.sync()
            return time.monotonic() - begun
        finally:
            shutil.rmtree(home)

    def job(self, home: Path) -> Path:
        job = fetch.Job(
            hf_home=str(home), manifest=self.manifest.as_json(), requested="main", endpoint=self.hub.url,
            download_workers=AT_ONCE,
        )  # fmt: skip
        write_json(home / "run" / "job.json", vars(job))
        return home / "run"

    def curl(self, home: Path) -> list[str]:
        words = [
            "curl",
            "--silent",
            "--no-progress-meter",
            "--fail",
            "--location",
            "--parallel",
            "--parallel-max",
            str(AT_ONCE),
        ]
        for file in self.manifest.files:
            words += ["--output", str(home / file.path), f"{self.hub.url}/{REPO}/resolve/{self.commit}/{file.path}"]
        return words

    def without_hash(self, home: Path) -> list[str]:
        return [sys.executable, "-c", WITHOUT_HASH, str(self.job(home))]

    def ours(self, home: Path) -> list[str]:
        return [sys.executable, "-m", fetch.__name__, "run", str(self.job(home))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--client", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="glm-weights-", dir="/var/tmp") as name:
        folder = Path(name)
        repository(folder / "repos", given.gigabytes)
        (folder / "homes").mkdir()
        with Hub(folder / "repos") as hub:
            if given.limit:
                hub.fail(f"{REPO}/*", "slow", times=-1, bytes_per_second=given.limit * 1_000_000 // AT_ONCE)
            bench = Bench(hub, folder / "homes")
            ways: dict[str, Callable[[], float]] = {
                "curl": lambda: bench.timed(bench.curl),
                "without the hash": lambda: bench.timed(bench.without_hash),
                "glm.fleet": lambda: bench.timed(bench.ours),
            }
            if given.client:
                load = f"import huggingface_hub as h; h.snapshot_download({REPO!r}, max_workers={AT_ONCE})"
                ways["huggingface_hub"] = lambda: bench.timed(
                    lambda home: ["env", f"HF_HOME={home}", given.client, "-c", load],
                    HF_ENDPOINT=hub.url,
                    HF_HUB_DISABLE_PROGRESS_BARS="1",
                )
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for _run in range(RUNS):
                for way, measure in ways.items():
                    seconds[way].append(measure())
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    line = f"{given.limit} MB/s" if given.limit else "no limit, hub and client on the same cores"
    print(f"{given.gigabytes} GB in {FILES} files, {AT_ONCE} at once, over loopback, {line}")
    print(f"{os.cpu_count()} cores, medians of {RUNS}:")
    for way, each in medians.items():
        print(f"  {way:<18} {each:6.1f} s  {given.gigabytes * 1000 / each:7.0f} MB/s")
    print(f"hashing adds {100 * (medians['glm.fleet'] / medians['without the hash'] - 1):.1f} % to the fetch")
    print(f"glm.fleet takes {medians['glm.fleet'] / medians['curl']:.2f} times as long as curl, which hashes nothing")


if __name__ == "__main__":
    main()
