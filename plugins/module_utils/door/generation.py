# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a fleet's key store changed and by whom, so that a host never goes back to keys that were revoked.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Pure.

Each state of a store has a stamp, made from its keys and the stamp before. A store that has the stamp of what a host
got last comes from it; one that has not is an older copy, or another store.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# States back to which it is known where a store comes from.
KEPT = 1000
_STAMP = re.compile(r"[0-9a-f]{16}")
_OVERRULE = "glm_keys_action=push and glm_keys_overrule=true give these keys all the same"


@dataclass(frozen=True)
class Generation:
    """A state of a store: the ``number`` of changes so far, ``by`` whom and when (``at``, UTC) the last one was made.

    ``stamps`` are those of the last states, this one's at the end.
    """

    number: int
    by: str
    at: str
    stamps: tuple[str, ...]

    @property
    def stamp(self) -> str:
        return self.stamps[-1]

    @property
    def words(self) -> str:
        """For people."""
        return f"generation {self.number}, which {self.by} wrote at {self.at}"


def _stamp(parent: str, content: str) -> str:
    """The stamp of a state with this content that follows the one with the stamp ``parent``, empty for the first."""
    return hashlib.sha256(f"{parent}\n{content}".encode()).hexdigest()[:16]


def after(before: Optional[Generation], content: str, by: str, at: str) -> Generation:
    """The next state."""
    known = before.stamps if before else ()
    number = before.number + 1 if before else 1
    # The same change made twice has one stamp.
    return Generation(number, by, at, (*known, _stamp(known[-1] if known else "", content))[-KEPT:])


def is_of(generation: Optional[Generation], content: str) -> bool:
    """Whether a state has this content, and not one that was changed by hand since."""
    if generation is None:
        return False
    parent = generation.stamps[-2] if len(generation.stamps) > 1 else ""
    return _stamp(parent, content) == generation.stamp


def dumped(generation: Optional[Generation]) -> Optional[dict[str, Any]]:
    """As JSON has it."""
    if generation is None:
        return None
    return {
        "number": generation.number,
        "by": generation.by,
        "at": generation.at,
        "stamps": list(generation.stamps),
    }


def parsed(data: Any, where: str, next_step: str) -> Optional[Generation]:
    """The reverse of ``dumped``. Raises Unmet for what is no generation; ``where`` names its place."""
    if data is None:
        return None
    stamps = data.get("stamps") if isinstance(data, Mapping) else None
    if (
        not isinstance(data, Mapping)
        or not isinstance(stamps, list)
        or not stamps
        or not all(_STAMP.fullmatch(str(stamp)) for stamp in stamps)
        or not str(data.get("number")).isdigit()
    ):
        raise Unmet(f"{where} to be a number with stamps", "another form", next_step)
    return Generation(int(data["number"]), str(data.get("by")), str(data.get("at")), tuple(map(str, stamps)))


def require_newer(there: Optional[Generation], given: Optional[Generation]) -> None:
    """Raise Unmet unless keys of the state ``given`` may take the place of those of the state that a host has."""
    if there is None or (given is not None and there.stamp in given.stamps):
        return
    if given is None:
        raise Unmet(
            f"the keys of {there.words}",
            "no key store on this controller (keys.json in glm_state_dir)",
            f"run it where the store is, or copy the store from there. {_OVERRULE}",
        )
    if given.stamp in there.stamps:
        raise Unmet(
            f"the keys of {there.words}, or newer ones",
            f"older ones, of {given.words}",
            f"run again: a run that overlapped with this one, or another controller, was faster. {_OVERRULE}",
        )
    raise Unmet(
        f"keys of the store that gave the host {there.words}",
        f"another store: {given.words}, does not come from it",
        "two controllers changed keys, each in a keys.json of its own: keep one of them, add to it what only the other "
        f"has. {_OVERRULE}",
    )
