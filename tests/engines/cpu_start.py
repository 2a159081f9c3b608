"""How tests start the real engines on the CPU: one command line for each, and one environment."""

from __future__ import annotations

import os
from pathlib import Path

from simulator.engines import trees

MODEL = "glm-5.1-fp8"
# What is in braces is filled in for each start.
WORDS = {
    "vllm": (
        *("-m", "vllm.entrypoints.cli.main", "serve", "{model}", "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", "{port}", "--max-model-len", "2048", "--max-num-seqs", "8"),
        *("--tool-call-parser", "glm47", "--reasoning-parser", "glm45", "--enable-auto-tool-choice", "--enforce-eager"),
    ),
    "sglang": (
        *("-m", "sglang.launch_server", "--model-path", "{model}", "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", "{port}", "--device", "cpu", "--attention-backend", "torch_native"),
        *("--disable-cuda-graph", "--mem-fraction-static", "0.2", "--max-total-tokens", "20000"),
        *("--max-running-requests", "8", "--tool-call-parser", "glm47", "--reasoning-parser", "glm45"),
        # Its scheduler polls otherwise, which takes a third of a core.
        *("--enable-metrics", "--skip-server-warmup", "--sleep-on-idle"),
    ),
}
_ENVIRON = {
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


def python() -> str:
    """The interpreter that the engines' trees are for."""
    return trees.find_python() or "python3.11"


def environment(home: Path, tree: Path) -> dict[str, str]:
    """The whole environment of an engine from ``tree``; what it writes beside its log goes to ``home``."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(tree), **_ENVIRON}
