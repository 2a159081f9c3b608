"""The real vLLM or SGLang on the CPU, with the tiny model and a secret file as the product writes it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from simulator.engines import tiny_glm, trees
from simulator.settings import Settings
from tests.unit.serve.plans import plan

MODEL = "glm-5.1-fp8"
START_SECONDS = 300
ENVIRON = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",
    "SGLANG_USE_CPU_ENGINE": "1",
    "LANG": "C.UTF-8",
}
COMMANDS = {
    "vllm": (
        *("-m", "vllm.entrypoints.cli.main", "serve", "{model}", "--max-model-len", "2048", "--max-num-seqs", "8"),
        *("--tool-call-parser", "glm47", "--reasoning-parser", "glm45", "--enable-auto-tool-choice", "--enforce-eager"),
    ),
    "sglang": (
        *("-m", "sglang.launch_server", "--config", "{secret}", "--model-path", "{model}", "--device", "cpu"),
        *("--attention-backend", "torch_native", "--disable-cuda-graph", "--mem-fraction-static", "0.2"),
        *("--max-total-tokens", "20000", "--max-running-requests", "8", "--tool-call-parser", "glm47"),
        *("--reasoning-parser", "glm45", "--enable-metrics", "--skip-server-warmup"),
    ),
}


def ask(
    port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
) -> tuple[int, str]:
    """Status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status), answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def bearer(key: str) -> dict[str, str]:
    """The header with a key."""
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def started(engine: str, folder: Path, key: str, admin_key: str) -> Iterator[int]:
    """The port of an engine that serves, with the keys that the product would give it. It is ended afterwards."""
    tiny_glm.write(folder / "model")
    secret, log = folder / "secret.yaml", folder / "log"
    text = replica.secret_file(plan(engine), key, admin_key)  # type: ignore[arg-type]  # test plans are dicts
    secret.write_text(f"# written by the role\n{text}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    tree = trees.build_tree(Settings.from_environment().cache_dir, engine)
    words = [word.format(model=folder / "model", secret=secret) for word in COMMANDS[engine]]
    where = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(tree), **ENVIRON}
    if plan(engine)["secret"]["kind"] == "env":
        environ |= dict(line.split("=", 1) for line in text.splitlines())
    with log.open("wb") as output:
        command = [trees.find_python() or "python3.11", *words, *where]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
    try:
        _wait(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail(f"the engine does not serve:\n{log.read_text('utf-8', 'replace')[-2000:]}")
