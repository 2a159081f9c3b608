# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How strong a key is, and new ones. Pure but for the random bytes of a new key."""

from __future__ import annotations

import math
import secrets

from ansible_collections.glm.fleet.plugins.module_utils.finding import Refusal

LEAST_BITS = 128
# Beyond so many equal or consecutive characters in a row a character adds nothing. A random key hardly ever has them.
_LONGEST_RUN = 4
_FEWEST_DISTINCT = 8


def new() -> str:
    """A new key: 256 random bits."""
    return f"glm-{secrets.token_urlsafe(32)}"


def bits(key: str) -> float:
    """The most bits that a key of this form can have: its length times that of its alphabet.

    Characters that repeat the key's beginning, or go on with a run such as ``aaaa`` or ``1234``, count nothing. What
    looks random but is not (a sentence, a key that was published) cannot be seen here.
    """
    unit = _unit(key)
    if len(set(unit)) < _FEWEST_DISTINCT:
        return len(set(unit)) * math.log2(_alphabet(unit)) if unit else 0.0
    return _unforeseen(unit) * math.log2(_alphabet(unit))


def require(key: str, what: str, next_step: str) -> None:
    """Raise Refusal when a key has fewer than 128 bits; ``what`` names the key, which is not quoted."""
    found = bits(key)
    if found < LEAST_BITS:
        raise Refusal(f"{what} has at most {math.floor(found)} bits; a key needs {LEAST_BITS}", next_step)


def _unit(key: str) -> str:
    """What is repeated in a key that is a repetition, else the key."""
    period = (key + key).find(key, 1) if key else 0
    return key[:period]


def _alphabet(key: str) -> int:
    """The size of the smallest usual alphabet that has all characters of a key."""
    if all(char in "0123456789" for char in key):
        return 10
    if all(char in "0123456789abcdef" for char in key) or all(char in "0123456789ABCDEF" for char in key):
        return 16
    letters = any(char.islower() for char in key), any(char.isupper() for char in key)
    if all(letters):
        return 64
    return 36 if any(char.isdigit() for char in key) else 26


def _unforeseen(key: str) -> int:
    """How many characters are not the rest of a run of equal or consecutive ones."""
    count, run, step = 1, 1, None
    for before, char in zip(key, key[1:], strict=False):
        now = ord(char) - ord(before)
        run = run + 1 if now == step and now in (-1, 0, 1) else 2 if now in (-1, 0, 1) else 1
        step = now
        count += run <= _LONGEST_RUN
    return count
