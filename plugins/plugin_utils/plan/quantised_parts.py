# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of a model its ``quantization_config`` leaves as they were.

Every method has a list of its own: names (or pieces of names) of modules, ``re:`` expressions, or patterns with ``*``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.memory import Config, Part

_LISTS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude")
_MLP = ("gate_proj", "up_proj", "down_proj")


def plain_parts(config: Config, quantised: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts all of whose linear layers the lists of a ``quantization_config`` name."""
    excluded = list(_excluded(quantised))
    modules = _modules(config)
    return tuple(part for part, names in modules.items() if names and all(_named(name, excluded) for name in names))


def _excluded(quantised: Mapping[str, Any]) -> Iterable[str]:
    for key in _LISTS:
        found = quantised.get(key)
        yield from (str(name) for name in found) if isinstance(found, list) else ()
    dynamic = quantised.get("dynamic")  # GPTQModel: "-:" and an expression leaves modules out
    yield from (f"re:{key[2:]}" for key in dynamic if str(key).startswith("-:")) if isinstance(dynamic, Mapping) else ()


def _modules(config: Config) -> dict[Part, list[str]]:
    """Names of the linear layers of each part, in its first and last layer."""
    dense, layers = config.first_k_dense_replace, config.num_hidden_layers
    attention = ("q_b_proj", "kv_b_proj", "o_proj") if config.is_mla else ("q_proj", "k_proj", "v_proj", "o_proj")

    def of(first: int, behind: int, within: str, names: Iterable[str]) -> list[str]:
        return [f"model.layers.{layer}.{within}.{name}" for layer in {first, behind - 1} for name in names]

    return {
        "attention": of(0, layers, "self_attn", attention),
        "dense": of(0, dense, "mlp", _MLP) if dense else [],
        "shared": of(dense, layers, "mlp.shared_experts", _MLP) if config.n_shared_experts else [],
        "experts": of(dense, layers, "mlp.experts.0", _MLP),
    }


def _named(name: str, excluded: Iterable[str]) -> bool:
    return any(_matches(name, entry) for entry in excluded)


def _matches(name: str, entry: str) -> bool:
    if entry.startswith("re:"):
        try:
            return re.match(entry[3:], name) is not None
        except re.error:
            return False
    if "*" in entry:
        return fnmatch.fnmatchcase(name, entry) or fnmatch.fnmatchcase(name, f"{entry}.*")
    # Whole segments: mlp.gate is the router, not mlp.gate_proj.
    return f".{entry.strip('.')}." in f".{name}."
