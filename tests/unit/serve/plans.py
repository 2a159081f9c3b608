"""Serving plans as the planner makes them (docs/architecture.md, schema 4), for tests that start from one."""

from __future__ import annotations

import copy
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
SNAPSHOT = f"/root/.cache/huggingface/hub/models--zai-org--GLM-5.1-FP8/snapshots/{REVISION}"


# What was seen of a replica (module_utils/serving/running.py) that runs something else than these plans.
RUNS: dict[str, Any] = {
    "replica": 0,
    "since": "2026-11-28T10:00:00Z",
    "engine": "sglang",
    "version": "0.5.10",
    "image": "lmsysorg/sglang@sha256:beef",
    "digests": ["sha256:beef"],
    "words": ["--tp-size", "8"],
    "environment": {},
    "unplanned": [],
    "started": {},
    "files": {},
    "ended": {"count": 0, "recent": 0, "since": None, "last_at": None, "last_cause": ""},
    "problems": [],
}


def listening(
    address: str = "10.0.0.5", port: int = 8000, engine_port: int = 18000, container_port: int = 8000
) -> dict[str, Any]:
    """The ``listen`` of a plan."""
    return {
        "address": address,
        "port": port,
        "scheme": "http",
        "engine_port": engine_port,
        "container_port": container_port,
    }


_COMMON: dict[str, Any] = {
    "schema": 4,
    "replica": 0,
    "replicas": 1,
    "profile": "agentic",
    "runtime": {
        "kind": "container",
        "network": "bridge",
        "path": None,
        "package": None,
        "python": None,
        "index_urls": [],
    },
    "node": {"count": 1, "rank": 0, "head_address": None, "addresses": [], "interface": None, "port": 20000},
    "model": {
        "name": "GLM-5.1",
        "precision": "fp8",
        "repository": "zai-org/GLM-5.1-FP8",
        "revision": REVISION,
        "requested_revision": "main",
    },
    "accelerator": {
        "name": "B200",
        "count": 8,
        "vendor": "nvidia",
        "architecture": "sm100",
        "memory_gib": 179.06,
        "indices": list(range(8)),
    },
    "memory": {"token_pool": 1_240_000},
    "parallel": {"tensor": 8, "pipeline": 1, "data": 1, "expert": 1},
    "promises": {"token_pool": 868_000, "draft_tokens": 3, "acceptance_length": 1.4},
    "prices": [],
    "served_model_name": "glm-5.1-fp8",
    "listen": listening(),
    "door": {
        "routes": [
            {"path": "/v1/chat/completions", "methods": ["POST"], "purpose": "chat"},
            {"path": "/v1/completions", "methods": ["POST"], "purpose": "completions"},
            {"path": "/v1/responses", "methods": ["POST"], "purpose": "responses"},
            {"path": "/v1/messages", "methods": ["POST"], "purpose": "messages"},
            {"path": "/v1/messages/count_tokens", "methods": ["POST"], "purpose": "token_counting"},
            {"path": "/v1/models", "methods": ["GET"], "purpose": "models"},
        ],
        "lacking": [],
        "shortfalls": [],
    },
    "tls": None,
    "devices": ["nvidia.com/gpu=all"],
    "device_nodes": [],
    "device_groups": [],
    "confinement": {
        "user": "0",
        "capabilities": [],
        "writable": ["/tmp", "/root"],
        "processes": 32768,
        "shared_memory_gib": 64,
        "imports": ["vllm.engine.arg_utils"],
    },
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
    "timeouts": {
        "start_seconds": 2400,
        "longest_answer_seconds": 20276,
        "drain_seconds": 600,
        "stop_seconds": 660,
        "phases": {"load": 900, "compile": 1200, "warmup": 300},
    },
}

_OF_THE_MODEL: dict[str, Any] = {
    "reasoning_parser": "glm45",
    "thinking_preserved": {"chat_template_kwargs": {"enable_thinking": True, "clear_thinking": False}},
    "sampling": {"default": {"temperature": 1.0, "top_p": 0.95, "thinking": "on"}},
    "context_length": 202_752,
}

_VLLM: dict[str, Any] = {
    "engine": {"name": "vllm", "version": "0.32.0"},
    "image": {
        "repository": "vllm/vllm-openai",
        "tag": "v0.32.0",
        "digest": "sha256:" + "ab" * 32,
        "reference": "vllm/vllm-openai@sha256:" + "ab" * 32,
        "build": None,
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
    "secret": {
        "kind": "env",
        "name": "VLLM_API_KEY",
        "container_path": "/run/glm/engine.env",
        "program": ["vllm", "serve"],
    },
    "stop": {"drains": True, "success_exit_status": []},
    "contract": {
        "reasoning_field": "reasoning",
        "tool_parser": "glm47",
        "thinking_on": {},
        "thinking_off": {"chat_template_kwargs": {"enable_thinking": False}},
        "health_path": "/health",
        "alive_path": "/health",
        **_OF_THE_MODEL,
    },
}

_SGLANG: dict[str, Any] = {
    "engine": {"name": "sglang", "version": "0.5.10"},
    "image": {
        "repository": "lmsysorg/sglang",
        "tag": "v0.5.10",
        "digest": "sha256:" + "cd" * 32,
        "reference": "lmsysorg/sglang@sha256:" + "cd" * 32,
        "build": None,
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
    "secret": {
        "kind": "config",
        "option": "api-key",
        "admin_option": "admin-api-key",
        "container_path": "/run/glm/engine.yaml",
    },
    "stop": {"drains": True, "success_exit_status": ["137", "SIGKILL"]},
    "contract": {**_VLLM["contract"], "reasoning_field": "reasoning_content"},
}


def plan(engine: str = "vllm", **changes: Any) -> dict[str, Any]:
    """A complete plan for ``engine``; top-level keys can be replaced."""
    chosen = {"vllm": _VLLM, "sglang": _SGLANG}[engine]
    return copy.deepcopy({**_COMMON, **chosen, **changes})


def replicas(count: int = 2, engine: str = "vllm", **changes: Any) -> list[dict[str, Any]]:
    """Plans of ``count`` replicas that share a host of eight GPUs, with a port each."""
    made = []
    for number in range(count):
        one = plan(engine, replica=number, replicas=count, **changes)
        indices = list(range(number * 8 // count, (number + 1) * 8 // count))
        one["accelerator"]["indices"] = indices
        one["devices"] = [f"nvidia.com/gpu={index}" for index in indices]
        one["listen"]["port"] += number
        one["listen"]["engine_port"] += number
        made.append(one)
    return made


def rocm(engine: str = "vllm", **changes: Any) -> dict[str, Any]:
    """A plan for eight MI300X in a container."""
    made = plan(engine, **changes)
    made["accelerator"].update(name="MI300X", vendor="amd", architecture="gfx942", memory_gib=191.69)
    made.update(
        devices=[],
        device_nodes=["/dev/kfd", "/dev/dri"],
        device_groups=["video", "render"],
    )
    made["confinement"]["capabilities"] = ["SYS_NICE"]
    return made


def venv(engine: str = "vllm", **changes: Any) -> dict[str, Any]:
    """A plan for bare metal, with what the planner makes different there."""
    made = plan(engine)
    path = f"/opt/glm/engines/{made['engine']['name']}-{made['engine']['version']}"
    made["runtime"] = {
        "kind": "venv",
        "network": "host",
        "path": path,
        "package": f"{made['engine']['name']}=={made['engine']['version']}",
        "python": "3.12",
        "index_urls": [],
    }
    made["paths"]["engines"] = "/opt/glm/engines"
    made.update(image=None, mounts=[], confinement=None)
    words = [word.replace("/root/.cache/huggingface", "/var/lib/glm/huggingface") for word in made["command"]]
    if engine == "vllm":
        made["secret"].update(container_path=None, program=[])
        made["command"] = [f"{path}/bin/vllm", "serve", *words]
    else:
        made["secret"]["container_path"] = "/run/glm-serve-0/engine.yaml"
        words = [word.replace("/run/glm/engine.yaml", "/run/glm-serve-0/engine.yaml") for word in words]
        made["command"] = [f"{path}/bin/python", *words[1:]]
    return {**made, **copy.deepcopy(changes)}


def nodes(made: dict[str, Any], rank: int, interface: str | None = None) -> dict[str, Any]:
    """``made`` as one of two hosts of a replica."""
    several = {
        "count": 2,
        "rank": rank,
        "head_address": "10.0.0.5",
        "addresses": ["10.0.0.5", "10.0.0.6"],
        "interface": interface,
        "port": 20000,
    }
    return {**made, "runtime": {**made["runtime"], "network": "host"}, "node": several}
