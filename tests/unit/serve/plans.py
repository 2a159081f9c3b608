"""Serving plans as the planner makes them (docs/architecture.md, schema 1), for tests that start from one."""

from __future__ import annotations

import copy
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
SNAPSHOT = f"/root/.cache/huggingface/hub/models--zai-org--GLM-5.1-FP8/snapshots/{REVISION}"

_COMMON: dict[str, Any] = {
    "schema": 1,
    "replica": 0,
    "model": {
        "name": "GLM-5.1",
        "precision": "fp8",
        "repository": "zai-org/GLM-5.1-FP8",
        "revision": REVISION,
        "requested_revision": "main",
    },
    "accelerator": {"name": "B200", "count": 8, "vendor": "nvidia", "architecture": "sm100", "memory_gib": 179.06},
    "served_model_name": "glm-5.1-fp8",
    "listen": {"address": "10.0.0.5", "port": 8000, "container_port": 8000},
    "devices": ["nvidia.com/gpu=all"],
    "mounts": [
        {"source": "/var/lib/glm/huggingface", "target": "/root/.cache/huggingface", "read_only": True},
        {"source": "/var/lib/glm/cache/engine", "target": "/root/.cache/engine", "read_only": False},
    ],
    "paths": {
        "data": "/var/lib/glm",
        "hf_home": "/var/lib/glm/huggingface",
        "cache": "/var/lib/glm/cache/engine",
        "config": "/etc/glm",
    },
    "timeouts": {"start_seconds": 2400, "stop_seconds": 60, "phases": {"load": 900, "compile": 1200, "warmup": 300}},
}

_VLLM: dict[str, Any] = {
    "engine": {"name": "vllm", "version": "0.32.0"},
    "image": {
        "repository": "vllm/vllm-openai",
        "tag": "v0.32.0",
        "digest": "sha256:" + "ab" * 32,
        "reference": "vllm/vllm-openai@sha256:" + "ab" * 32,
    },
    "command": [
        SNAPSHOT,
        "--served-model-name",
        "glm-5.1-fp8",
        "--tensor-parallel-size",
        "8",
        "--tool-call-parser",
        "glm47",
        "--reasoning-parser",
        "glm45",
        "--enable-auto-tool-choice",
        "--speculative-config.method",
        "mtp",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
    ],
    "env": {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    "secret": {"kind": "env", "name": "VLLM_API_KEY"},
    "stop": {"success_exit_status": []},
    "contract": {
        "reasoning_field": "reasoning",
        "tool_parser": "glm47",
        "thinking_on": {},
        "thinking_off": {"chat_template_kwargs": {"enable_thinking": False}},
        "health_path": "/health",
    },
}

_SGLANG: dict[str, Any] = {
    "engine": {"name": "sglang", "version": "0.5.10"},
    "image": {
        "repository": "lmsysorg/sglang",
        "tag": "v0.5.10",
        "digest": "sha256:" + "cd" * 32,
        "reference": "lmsysorg/sglang@sha256:" + "cd" * 32,
    },
    "command": [
        "python3",
        "-m",
        "sglang.launch_server",
        "--config",
        "/run/glm/engine.yaml",
        "--model-path",
        SNAPSHOT,
        "--tp-size",
        "8",
    ],
    "env": {"HF_HUB_OFFLINE": "1", "SGLANG_ENABLE_SPEC_V2": "1"},
    "secret": {"kind": "config", "option": "api-key", "container_path": "/run/glm/engine.yaml"},
    "stop": {"success_exit_status": [137]},
    "contract": {**_VLLM["contract"], "reasoning_field": "reasoning_content"},
}


def plan(engine: str = "vllm", **changes: Any) -> dict[str, Any]:
    """A complete plan for ``engine``; top-level keys can be replaced."""
    chosen = {"vllm": _VLLM, "sglang": _SGLANG}[engine]
    return copy.deepcopy({**_COMMON, **chosen, **changes})
