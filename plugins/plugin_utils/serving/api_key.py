# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's API key: one file on the controller, made once, readable by its owner only."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import private
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import strength

# What a check run shows before the first real run has made the key; never written anywhere.
PLACEHOLDER = "made-by-the-first-real-run"


def read(path: Path) -> str | None:
    """The key in ``path``, or None when there is no such file.

    Raises Unmet when it cannot be read, when others can read it, or when it does not hold one word, and Refusal when
    that is too weak.
    """
    text = private.read(path, f"the API key in {path}", "make it readable for this user")
    if text is None:
        return None
    words = text.split()
    if len(words) != 1:
        raise Unmet(f"one word in {path}", len(words), "remove it; a new key is made")
    strength.require(words[0], f"the API key in {path}", "remove it; a new key is made")
    return words[0]


def given(key: str) -> str:
    """The key that a variable holds. Raises Unmet, or Refusal when it is too weak."""
    if len(key.split()) != 1 or not (key.isascii() and key.isprintable()):
        # It travels as one word in an HTTP header.
        advice = "set the output of `openssl rand -hex 32`, or leave it empty"
        raise Unmet("one word of printable ASCII in glm_api_key", "something else", advice)
    strength.require(key, "the key in glm_api_key", "set the output of `openssl rand -hex 32`, or leave it empty")
    return key


def read_or_make(path: Path) -> str:
    """The key in ``path``; made first if there is none. Safe when several processes ask at once."""
    key = read(path)
    if key is not None:
        return key
    files.create_text(path, f"{strength.new()}\n")
    made = read(path)
    if made is None:
        raise Unmet(f"the API key that was just made in {path}", "none", "see who removes files there, and run again")
    return made
