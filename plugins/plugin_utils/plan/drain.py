# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long requests that run have when an engine is stopped, and how the engine hears of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Optional

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice

# Tokens of one answer in a second, in a full batch: published for GLM-5.1 with 32 at a time are 40 and 42, and 8 for a
# model of 671 billion parameters whose operators drain by it.
SLOWEST_TOKENS_PER_SECOND: Final = 10
# Few answers take longer, and a stop waits no longer than the last one does.
LONGEST_SECONDS: Final = 600
# systemd forces a reboot after 30 minutes (reboot.target), in which the engine must end as well.
MOST_SECONDS: Final = 1500


@dataclass(frozen=True)
class Drain:
    """``longest``: seconds of the longest answer; ``seconds``: what requests get; ``words``: for the command line."""

    longest: int
    seconds: int
    drains: bool
    words: tuple[str, ...]


def drain(choice: Choice, table: flags.Table, context: Optional[int]) -> Drain:
    """The drain of a replica whose requests have up to ``context`` tokens; None is all that the model takes.

    Raises PlanError for a time that no unit can have.
    """
    asked, stop = choice.intent.drain_seconds, choice.engine.stop
    if asked > MOST_SECONDS:
        choice.refuse(
            f"requests may run on for {asked} s at a stop, but systemd ends a reboot after 1,800 s",
            f"set glm_drain_seconds to at most {MOST_SECONDS}, or to -1 to have it computed",
        )
    longest = -(-(context or choice.model.context_length) // SLOWEST_TOKENS_PER_SECOND)
    seconds = min(longest, LONGEST_SECONDS) if asked < 0 else asked
    option = stop.drain_option
    if option is None:
        return Drain(longest, seconds, True, ())
    known = option in table.options
    return Drain(longest, seconds, known, (option, str(seconds)) if known else ())


def notes(choice: Choice, found: Drain) -> list[str]:
    """What a reader should know of a version that cuts answers off."""
    if found.drains:
        return []
    return [
        f"{choice.engine.name} {choice.version} ends every open answer when it is stopped: it has no "
        f"{choice.engine.stop.drain_option}. Choose a newer glm_engine_version to have them end first."
    ]
