# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine must say of itself once it serves: the least that verify takes for as planned.

A floor is where a fault begins, not what is hoped for: healthy engines stay far above it.
"""

from __future__ import annotations

from typing import Final, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import arguments, flags, schema, set_pool
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

# The one size that the arithmetic estimates is what an engine keeps for itself (own_memory.py): published
# between 6 and 10 GiB, and up to 4.4 GiB more where weights are streamed. So a pool may be this much smaller than
# planned, whichever is more. What is reported as a fault is a pool of a hundredth (sglang issue 36583).
POOL_SHARE: Final = 0.7
POOL_SLACK_GIB: Final = 4.4
# Two accepted drafts in five steps. Published for GLM-5.1 with three drafts a step are lengths of 3.5, 3.1 and 2.7, and
# 1.64 with random text; as faults 1.02 to 1.06 (vllm issue 55605), and 1.59 that had been 4.49 (sglang issue 32176).
ACCEPTANCE_LENGTH: Final = 1.4


def promises(choice: Choice, table: flags.Table, served: arguments.Served) -> schema.Promises:
    """The floors of a plan. Raises PlanError for a number of drafts that is none."""
    options, given = choice.engine.options, served.arguments
    method = plan_fit.argument(table, given, options.speculation)
    drafts = 0
    if method is not None:
        value = plan_fit.argument(table, given, options.drafts)
        # Without a number the engine decides, and drafts one at least.
        drafts = 1 if value is None else int(value)
    # How many drafts of another kind are accepted depends on the text.
    mtp = drafts > 0 and str(method) in choice.engine.speculation_with_mtp
    return {
        "token_pool": _token_pool(choice, table, served),
        "draft_tokens": drafts,
        "acceptance_length": ACCEPTANCE_LENGTH if mtp else None,
    }


def _token_pool(choice: Choice, table: flags.Table, served: arguments.Served) -> Optional[int]:
    size, options = served.size, choice.engine.options
    if plan_fit.argument(table, served.arguments, options.pool_blocks) is not None:
        return None
    if set_pool.option(choice, table, served.arguments) is not None:
        return int(POOL_SHARE * size.tokens) or None
    # What starts reported may raise the floor and never lower it: a fault that comes slowly would become the measure.
    kept = min(POOL_SHARE * size.usual, size.usual - POOL_SLACK_GIB)
    floor = size.tokens * max(0.0, kept) / size.pool
    return int(floor) or None
