# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reader of a plan should know before the start."""

from __future__ import annotations

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.arguments import Served
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice


def notes_of(choice: Choice, table: flags.Table, served: Served) -> list[str]:
    """Sentences, the catalogue's first."""
    notes = [*served.notes, *choice.model.notes]
    if choice.checkpoint.note:
        notes.append(choice.checkpoint.note)
    idle = choice.cell.gpus - served.divided.gpus
    if idle:
        notes.append(f"{idle} of {choice.cell.gpus} GPUs stay idle.")
    context = plan_fit.context_of(choice, table, served.arguments)
    if not choice.engine.requires_full_context and context is not None and served.size.per_rank < context:
        notes.append(
            f"The KV cache of one {'rank' if served.divided.data > 1 else 'replica'} holds {served.size.per_rank:,} "
            f"tokens: {choice.engine.name} answers longer requests with an error, although the model takes {context:,}."
        )
    outside = (1 - served.size.fraction) * choice.accelerator.memory_gib
    if outside < choice.engine.overhead_outside_gib:
        notes.append(
            f"{choice.engine.options.memory_fraction} {served.size.fraction} leaves {outside:.1f} GiB for graphs and "
            f"workspaces, where {choice.engine.overhead_outside_gib:.0f} GiB are usual; lower it if the start runs out "
            "of memory."
        )
    if choice.intent.nodes > 1 and not choice.intent.head_address:
        notes.append("HEAD in the command stands for the first host's private address.")
    for key in served.arguments:
        if table.options[key].deprecated:
            notes.append(f"{key} is deprecated in {choice.engine.name} {choice.version}.")
    for name in choice.intent.engine_args:
        notes.append(f"glm_engine_args changes {flags.spelled(name)}.")
    return notes
