"""Makes whole logs and metrics of starts that succeed, for tests/unit/serve/test_own_words.py.

    make healthy-starts                # all of them: five minutes on two cores
    make healthy-starts ARGS=vllm

The real engines are started on the CPU as in make.py, with nothing wrong, asked some questions and ended. What they
wrote and showed is kept in ``tests/unit/serve/healthy_starts/<engine>/<case>``: the log, and ``/metrics`` before the
questions and after them.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import make
from cases import Case

from simulator.engines import tiny_glm, trees
from simulator.settings import Settings
from tests.engines import cpu_start

STARTS = make.ROOT / "tests/unit/serve/healthy_starts"
_MTP = ("--speculative-config.method", "mtp", "--speculative-config.num_speculative_tokens", "3")
HEALTHY = {
    "vllm": (Case("plain"), Case("mtp", _MTP)),
    "sglang": (Case("plain"), Case("data-parallel", ("--dp-size", "2"))),
}
# Four steps with drafts are one answer of the stand-in model.
QUESTIONS = 16


def metrics(port: int) -> bytes:
    """The engine's own lines of its metrics: the rest is Python's and the web server's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines: list[bytes] = answer.read().splitlines(keepends=True)
    return b"".join(line for line in lines if line.startswith((b"vllm:", b"sglang:")) and b"_bucket{" not in line)


def start(case: Case, engine: str, tree: Path, folder: Path) -> dict[str, bytes]:
    """Serve once; what is kept by the ending of its name. Raises RuntimeError for an engine that does not serve."""
    python, log = cpu_start.python(), folder / "log"
    tiny_glm.write(folder / "model")
    with make.taken_port(False) as port:
        fills = {"model": str(folder / "model"), "port": str(port), "scratch": str(folder)}
        argv = make.confined(case, [python, *make.words(case, engine, fills)], fills)
        environ = cpu_start.environment(folder, tree)
        with log.open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ)
        try:
            deadline = time.monotonic() + make.PATIENCE_SECONDS
            while not make.healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"it does not serve:\n{log.read_text('utf-8', 'replace')[-2000:]}")
                time.sleep(0.5)
            before = metrics(port)
            for _ in range(QUESTIONS):
                make.ask(port)
            after = metrics(port)
        finally:
            process.kill()
            process.wait()
    return {"log": make.read(log, folder, tree, python).encode(), "before": before, "after": after}


def main(engines: list[str]) -> int:
    cache = Settings.from_environment().cache_dir
    for engine in engines or list(HEALTHY):
        tree = trees.build_tree(cache, engine)
        for case in HEALTHY[engine]:
            folder = Path(tempfile.mkdtemp(prefix="glm-healthy-start-"))
            try:
                kept = start(case, engine, tree, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            (STARTS / engine).mkdir(parents=True, exist_ok=True)
            for ending, content in kept.items():
                (STARTS / engine / f"{case.name}.{ending}.gz").write_bytes(gzip.compress(content, mtime=0))
            print(f"{engine} {case.name}: {len(kept['log'].splitlines())} lines", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
