# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where weights, caches and environments lie, on the host and as the engine sees them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils.weights import store
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice, Intent
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Mount, Paths

# HF_HOME in a container of an engine's image, and where its caches are.
CONTAINER_HF_HOME = "/root/.cache/huggingface"
CONTAINER_CACHE = "/var/cache/glm"


def paths(choice: Choice) -> Paths:
    """Folders on the host."""
    data, engine = choice.intent.data_dir.rstrip("/"), f"{choice.engine.name}-{choice.version}"
    return {
        "data": data,
        "hf_home": choice.intent.hf_home,
        # By runtime: each has another user, who owns the folder and all in it.
        "cache": f"{data}/cache/{engine}-{choice.intent.runtime}",
        "config": choice.intent.config_dir.rstrip("/"),
        "engines": choice.intent.engine_dir.rstrip("/"),
    }


def venv_path(choice: Choice) -> str:
    """The engine's virtual environment on the host."""
    return f"{choice.intent.engine_dir.rstrip('/')}/{choice.engine.name}-{choice.version}"


def hf_home_inside(intent: Intent) -> str:
    """Where the engine sees weights: in its container, or on the host."""
    return intent.hf_home if intent.runtime == "venv" else CONTAINER_HF_HOME


def inside(choice: Choice) -> tuple[str, str]:
    """Where the engine sees weights and caches."""
    cache = paths(choice)["cache"] if choice.intent.runtime == "venv" else CONTAINER_CACHE
    return hf_home_inside(choice.intent), cache


def snapshot(hf_home: str, repository: str, revision: str) -> str:
    """Folder of a commit's files below an HF_HOME."""
    return str(store.Store(Path(hf_home), repository).snapshot(revision))


def record(hf_home: str, repository: str, commit: str) -> str:
    """File on the host that says when a commit's files were verified and replaced."""
    return str(store.Store(Path(hf_home), repository).record_path(commit))


def mounts(choice: Choice) -> list[Mount]:
    """What a container sees of the host."""
    if choice.intent.runtime == "venv":
        return []
    folders = paths(choice)
    return [
        {"source": folders["hf_home"], "target": CONTAINER_HF_HOME, "read_only": True},
        # Every compile cache lies below it (see env), so kernels are built once per engine version.
        {"source": folders["cache"], "target": CONTAINER_CACHE, "read_only": False},
    ]
