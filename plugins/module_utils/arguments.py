# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that a module and the action in front of it check by the same table.

This module util is PRIVATE to the collection.
"""

from __future__ import annotations

from typing import Any

BENCHMARK_RUN: dict[str, dict[str, Any]] = {
    "plan": {"type": "dict", "required": True},
    "workload": {"type": "str", "required": True},
    "workloads": {"type": "dict", "default": {}},
    "catalog": {"type": "list", "elements": "path", "default": []},
    "keep": {"type": "bool", "default": False},
    "scale": {"type": "float", "default": 1.0},
    "repeats": {"type": "int", "default": 1},
    "warmup": {"type": "int", "default": 32},
    "seed": {"type": "int"},
    "client_image": {"type": "str", "default": ""},
    "client_path": {"type": "str", "default": ""},
    "client_host": {"type": "str", "default": ""},
    "address": {"type": "str", "default": ""},
    "tls_ca": {"type": "path"},
    "monitor_address": {"type": "str", "default": "127.0.0.1"},
    "monitor_port": {"type": "int", "default": 9800},
    "tokenizer": {"type": "path"},
    "gpus": {"type": "dict", "default": {}},
    "api_key": {"type": "str", "no_log": True},
    "quality": {"type": "list", "elements": "dict", "default": []},
    "strict": {"type": "bool", "default": True},
    "run_timeout": {"type": "int", "default": 14400},
    "sample_seconds": {"type": "float", "default": 5.0},
    "poll": {"type": "int", "default": 15},
    "folder": {"type": "path"},
    "state_dir": {"type": "path", "required": True},
    "phase": {"type": "str", "choices": ["start", "status"], "default": "start"},
    "job": {"type": "dict"},
}

# Groups of checks of an endpoint, in the order they are made.
GATE = (
    "contract",
    "answers",
    "sampling",
    "thinking_interleaved",
    "thinking_preserved",
    "tool_turns",
    "parallel",
    "needle",
    "engine",
)

_PATH = {"type": "path", "required": True}
DOOR_LISTEN: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "variable": {"type": "str", "required": True},
    },
}

DOOR_FILES: dict[str, dict[str, Any]] = {
    "place": {
        "type": "dict",
        "required": True,
        "options": {
            "program": _PATH,
            "config": _PATH,
            "usage": _PATH,
            "certificate": _PATH,
            "engine_key": {"type": "path", "no_log": False},
            "group": {"type": "str", "default": "root"},
        },
    },
    "config": {"type": "str", "required": True},
    "usage": {"type": "str", "default": ""},
    "unit": {"type": "str", "default": "glm-door.service"},
    "listen": {**DOOR_LISTEN, "default": []},
    "origin": {"type": "str", "choices": ["none", "fleet", "own", "acme"], "default": "none"},
    "names": {"type": "list", "elements": "str", "default": []},
    "fleet": {"type": "str", "default": "default"},
    "authority": {"type": "path"},
    "certificate": {"type": "path"},
    "key": {"type": "path", "no_log": False},
    "step": {"type": "str", "choices": ["read", "write"], "default": "write"},
    "content": {"type": "str", "no_log": True},
}

ENDPOINT_CHECK: dict[str, dict[str, Any]] = {
    "plan": {"type": "dict"},
    "checks": {"type": "list", "elements": "str", "choices": list(GATE), "default": list(GATE)},
    "strict": {"type": "bool", "default": True},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8000},
    "engine_port": {"type": "int"},
    "model": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "tls_name": {"type": "str"},
    "tls_authorities": {"type": "str", "default": ""},
    "tls_ca": {"type": "path"},
    "reasoning_field": {"type": "str", "default": "reasoning"},
    "thinking_on": {"type": "dict", "default": {}},
    "thinking_off": {"type": "dict", "default": {"chat_template_kwargs": {"enable_thinking": False}}},
    "thinking_preserved": {"type": "dict", "default": {}},
    "sampling": {"type": "dict", "default": {}},
    "context": {"type": "int"},
    "context_share": {"type": "float", "default": 0.04},
    "needle_tokens": {"type": "int", "default": 8000, "no_log": False},
    "prefix_cache": {"type": "bool", "default": False},
    "ranks": {"type": "int", "default": 1},
    "routes": {"type": "list", "elements": "dict", "default": []},
    "known_routes": {"type": "list", "elements": "dict", "default": []},
    "unit": {"type": "str"},
    "secret_files": {"type": "list", "elements": "path", "default": [], "no_log": False},
    "promised": {"type": "dict", "default": {}},
    "questions": {"type": "dict"},
    "tool_call": {"type": "bool", "default": True},
    "health_path": {"type": "str", "default": "/health"},
    "timeout": {"type": "int", "default": 300},
    "max_tokens": {"type": "int", "default": 4096, "no_log": False},
    "reasoning_parser": {"type": "str", "default": ""},
    "tool_parser": {"type": "str", "default": ""},
    "eval": {"type": "bool", "default": False},
    "eval_scores": {"type": "path"},
    "eval_margin": {"type": "float", "default": 0.05},
    "places": {"type": "list", "elements": "dict"},
    "meant": {"type": "list", "elements": "dict", "default": []},
    "neighbour": {"type": "dict", "default": {}},
    "ssh_port": {"type": "int"},
    "walls": {"type": "dict"},
    "running": {"type": "dict"},
    "report": {"type": "path"},
}

ENGINE_VENV: dict[str, dict[str, Any]] = {
    "package": {"type": "str", "required": True},
    "path": {"type": "path", "required": True},
    "python": {"type": "str", "required": True},
    "platform": {"type": "str", "default": "nvidia"},
    "lock_file": {"type": "path", "required": True},
    "overrides": {"type": "list", "elements": "str", "default": []},
    "index_url": {"type": "str", "default": "https://pypi.org/simple"},
    "extra_index_urls": {"type": "list", "elements": "str", "default": []},
    "uv_wheels": {"type": "dict", "required": True},
    "uv_url": {"type": "str"},
    "environment": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 3600},
    "progress_seconds": {"type": "float", "default": 10},
    "phase": {"type": "str", "choices": ["look", "resolve", "start", "status"], "default": "look"},
    "requirements": {"type": "str"},
}

MODEL_WEIGHTS: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["present", "verified"], "default": "present"},
    "repository": {"type": "str", "required": True},
    "revision": {"type": "str", "default": "main"},
    "lock_file": {"type": "path", "required": True},
    "hf_home": {"type": "path", "required": True},
    "image": {"type": "str"},
    "python": {"type": "path"},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "token": {"type": "str", "no_log": True},
    "rehash": {"type": "bool", "default": False},
    "environment": {"type": "dict", "default": {}},
    "disk_margin_bytes": {"type": "int", "default": 10_000_000_000},
    "stall_seconds": {"type": "float", "default": 120},
    "min_bytes_per_second": {"type": "float", "default": 1_000_000},
    "attempts": {"type": "int", "default": 5},
    "retry_seconds": {"type": "float", "default": 5},
    "download_workers": {"type": "int", "default": 8},
    "hash_workers": {"type": "int", "default": 0},
    "progress_seconds": {"type": "float", "default": 10},
    "phase": {"type": "str", "choices": ["resolve", "start", "status"], "default": "start"},
    "commit": {"type": "str"},
    "manifest_sha256": {"type": "str"},
}

NODE_ACCEPTANCE: dict[str, dict[str, Any]] = {
    "plans": {"type": "list", "elements": "dict"},
    "data_dir": {"type": "path", "default": "/var/lib/glm"},
    "measure_disk": {"type": "bool", "default": True},
    "network_url": {"type": "str"},
    "network_seconds": {"type": "float", "default": 10},
    "container": {"type": "bool", "default": True},
    "floors": {"type": "dict", "default": {"disk_write": 200, "disk_read": 200, "network": 50}},
    "leave_out": {"type": "list", "elements": "str", "default": []},
    "fabric_wait": {"type": "int", "default": 0},
    "report": {"type": "path"},
    "strict": {"type": "bool", "default": False},
    "fail": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 60},
    "probe_timeout": {"type": "int", "default": 600},
}
