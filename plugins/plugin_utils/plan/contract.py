# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an endpoint promises its users."""

from __future__ import annotations

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import records
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Contract, Sampling


def contract(choice: Choice, table: flags.Table, arguments: flags.Arguments) -> Contract:
    thinking, options = choice.model.thinking, choice.engine.options
    return {
        "reasoning_field": choice.engine.contract.reasoning_field,
        "tool_parser": plan_fit.argument(table, arguments, options.tool_parser),
        "reasoning_parser": plan_fit.argument(table, arguments, options.reasoning_parser),
        "thinking_default": thinking.default,
        "thinking_on": thinking.on,
        "thinking_off": thinking.off,
        "thinking_preserved": thinking.preserved,
        "reasoning_efforts": list(thinking.efforts),
        "sampling": {name: _sampling(sampling) for name, sampling in choice.model.sampling.items()},
        "health_path": choice.engine.contract.health_path,
    }


def _sampling(known: records.Sampling) -> Sampling:
    found: Sampling = {"temperature": known.temperature, "thinking": known.thinking}
    if known.top_p is not None:
        found["top_p"] = known.top_p
    if known.max_new_tokens is not None:
        found["max_new_tokens"] = known.max_new_tokens
    if known.context_length is not None:
        found["context_length"] = known.context_length
    return found
