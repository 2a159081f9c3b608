# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users add around an engine, environment variables and mounts, checked against what the plan owns and secrets."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Engine
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import budget, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Mount

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# The last word of a name that holds a secret, and values that are one whatever the name.
_SECRET_WORDS = {
    "APIKEY", "AUTH", "AUTHORIZATION", "CREDENTIAL", "CREDENTIALS", "KEY", "PASS", "PASSWD", "PASSWORD", "SECRET",
    "TOKEN",
}  # fmt: skip
_SECRET_VALUE = re.compile(
    r"\b(?:hf|sk|ghp|gho|github_pat|glpat|xox[abp]|nvapi)[-_][A-Za-z0-9_-]{16,}|\bAKIA[A-Z0-9]{16}\b"
    r"|://[^/@\s:]+:[^/@\s]+@|-----BEGIN [A-Z ]*PRIVATE KEY|^Bearer\s"
)
_GPUS = "glm_gpus, glm_replicas"
_WEIGHTS = "glm_data_dir, below which weights and caches lie"
# Variables that the plan, the unit or the container set, with what to use instead.
_OWNED = {
    **dict.fromkeys(
        ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), _GPUS
    ),
    **dict.fromkeys(("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"), _WEIGHTS),
    "HF_HUB_OFFLINE": "nothing: engines fetch nothing, and their weights are locked before",
    "HF_ENDPOINT": "glm_hub_endpoint",
    **dict.fromkeys(("HOME", "PATH", "VIRTUAL_ENV"), "an image of your own (glm_image)"),
}
_NETWORK = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")

# Of the host, what no container may see: other containers, keys, the kernel's own files.
_CLOSED = ("/proc", "/sys", "/dev", "/run", "/var/run", "/var/lib/docker", "/var/lib/containerd", "/boot")
# Of the container, what a mount may not hide whole, and what it may not touch at all.
_WHOLE = {
    "/", "/bin", "/etc", "/home", "/lib", "/lib64", "/opt", "/root", "/sbin", "/tmp", "/usr", "/usr/bin", "/usr/lib",
    "/usr/local", "/var", "/workspace",
}  # fmt: skip
_NOT_INSIDE = ("/proc", "/sys", "/dev", "/run")
_MOUNT_KEYS = ("source", "target", "read_only")


def environment_problem(engine: Engine, name: str, value: Any) -> str:
    """Why nobody sets this variable of an engine by hand; empty where that is fine. A value of None removes it."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name of an environment variable"
    owned = {**_OWNED, **dict.fromkeys(engine.cache_env, _WEIGHTS)}
    owned[engine.multi_node.address_env] = "glm_private_address"
    if engine.secret.name:
        owned[engine.secret.name] = "keys.yml; the engine's own key is the host's, in a 0600 file"
    if name in owned:
        return f"{name} is the plan's own; use {owned[name]}"
    if name.upper().rpartition("_")[2] in _SECRET_WORDS or _SECRET_VALUE.search(str(value)):
        return f"{name} looks like a secret, and the plan with all variables is printed and kept; mount a file with it"
    if isinstance(value, bool):
        return f"{name} is {str(value).lower()} in YAML, which engines write in several ways; quote it, as '1'"
    if value is not None and (not isinstance(value, (str, int, float)) or _CONTROL.search(str(value))):
        return f"{name}: expected one line of text or a number, found {value!r}"
    return ""


def environment(choice: Choice, found: Mapping[str, str]) -> dict[str, str]:
    """The environment of the engine with what glm_engine_env changes. Raises PlanError."""
    asked, intent = choice.intent.engine_env, choice.intent
    for name, value in asked.items():
        problem = environment_problem(choice.engine, str(name), value)
        if not problem and name in _NETWORK and (intent.interface or intent.nodes > 1):
            problem = f"{name} is the plan's own; use glm_network_interface"
        if problem:
            choice.refuse(f"glm_engine_env: {problem}", "correct glm_engine_env; null removes a variable of the recipe")
    changed = {**found, **{str(name): value for name, value in asked.items()}}
    return {name: str(value) for name, value in sorted(changed.items()) if value is not None}


def notes(choice: Choice) -> list[str]:
    """What a reader should know of it."""
    asked, seconds = choice.intent.engine_env, budget.start_seconds(choice)
    short = {
        name: given
        for name in choice.engine.clocks.env
        if (given := flags.number(asked.get(name))) is not None and given < seconds
    }
    return [
        *(f"glm_engine_env changes {name}." for name in asked),
        *(
            f"{name} is {given:g} s in glm_engine_env: the engine may end a start that the plan gives {seconds:,} s."
            for name, given in short.items()
        ),
    ]


def mounts(choice: Choice, planned: Iterable[Mount]) -> list[Mount]:
    """The user's mounts beside those of the plan. Raises PlanError."""
    own = list(planned)
    found: list[Mount] = []
    for index, entry in enumerate(choice.intent.extra_mounts):
        problem, mount = _mount(choice, entry, [*own, *found])
        if problem:
            choice.refuse(f"glm_extra_mounts[{index}]: {problem}", "correct glm_extra_mounts")
        found.append(mount)
    if found and choice.intent.runtime == "venv":
        choice.refuse("an engine without a container sees the files of the host", "leave glm_extra_mounts empty")
    return found


def _mount(choice: Choice, entry: Mapping[str, Any], others: list[Mount]) -> tuple[str, Mount]:
    """What is wrong with an entry, or nothing, and the mount that it is."""
    nothing = Mount(source="", target="", read_only=True)
    for key in entry:
        if key not in _MOUNT_KEYS:
            known = f"; known are {', '.join(_MOUNT_KEYS)}"
            return f"unknown key {key!r}{did_you_mean(str(key), _MOUNT_KEYS, known)}", nothing
    source = entry.get("source")
    target, read_only = entry.get("target", source), entry.get("read_only", True)
    for key, path in (("source", source), ("target", target)):
        problem = _path_problem(path)
        if problem:
            return f"{key}: expected an absolute path without commas, quotes and .., found {path!r}", nothing
    if not isinstance(read_only, bool):
        return f"read_only: expected true or false, found {read_only!r}", nothing
    mount = Mount(source=str(source), target=str(target), read_only=read_only)
    return _source_problem(choice, mount, others) or _target_problem(choice, mount, others), mount


def _path_problem(path: Any) -> bool:
    return (
        not isinstance(path, str)
        or not path.startswith("/")
        or posixpath.normpath(path) != path
        or path.startswith("//")
        or bool(_CONTROL.search(path))
        or any(sign in path for sign in ",\"'")
    )


def _source_problem(choice: Choice, mount: Mount, others: list[Mount]) -> str:
    source = mount["source"]
    keys = choice.intent.config_dir.rstrip("/")
    closed = next((place for place in (*_CLOSED, keys) if _touch(source, place)), None)
    if closed:
        return f"source: {source} has or is part of {closed}, which no engine may see"
    written = next((one for one in others if not mount["read_only"] and _touch(source, one["source"])), None)
    if written:
        return f"source: {source} touches {written['source']}, which the plan mounts; mount it read-only"
    return ""


def _target_problem(choice: Choice, mount: Mount, others: list[Mount]) -> str:
    target = mount["target"]
    if target in _WHOLE or any(_within(target, place) for place in _NOT_INSIDE):
        return f"target: {target} is the image's own; name a folder or a file that it has not"
    taken = next((one["target"] for one in others if _touch(target, one["target"])), None)
    if taken:
        return f"target: {target} and {taken} lie one in the other"
    hidden = next((place for place in choice.engine.container.writable if target == place), None)
    return f"target: {target} is a folder in memory; name one below another" if hidden else ""


def _within(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _touch(one: str, other: str) -> bool:
    """Whether one path is the other, or lies in it."""
    return one == "/" or other == "/" or _within(one, other) or _within(other, one)
