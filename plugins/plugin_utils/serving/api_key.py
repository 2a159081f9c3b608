# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's API key: one file on the controller, made once, readable by its owner only."""

from __future__ import annotations

import stat
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, Refusal, unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import strength

# What a check run shows before the first real run has made the key; never written anywhere.
PLACEHOLDER = "made-by-the-first-real-run"


class ApiKeyError(QuotingError):
    """The key file cannot be used; the text says what to do."""


def read(path: Path) -> str | None:
    """The key in ``path``, or None when there is no such file.

    Raises ApiKeyError when others can read the file, when it does not hold one word, or when that is too weak.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise ApiKeyError(f"cannot read the API key in {path}: {exc}") from exc
    if mode & 0o077:
        raise ApiKeyError(unmet(f"{path} to be its owner's only", f"mode {mode:04o}", f"chmod 600 {path}"))
    if len(text.split()) != 1:
        raise ApiKeyError(unmet(f"one word in {path}", len(text.split()), "remove it; a new key is made"))
    _require_strong(text, f"the API key in {path}", "remove it; a new key is made")
    return text


def given(key: str) -> str:
    """The key that a variable holds. Raises ApiKeyError when it is too weak."""
    if len(key.split()) != 1 or not (key.isascii() and key.isprintable()):
        # It travels as one word in an HTTP header.
        advice = "set the output of `openssl rand -hex 32`, or leave it empty"
        raise ApiKeyError(unmet("one word of printable ASCII in glm_api_key", "something else", advice))
    _require_strong(key, "the key in glm_api_key", "set the output of `openssl rand -hex 32`, or leave it empty")
    return key


def _require_strong(key: str, what: str, next_step: str) -> None:
    try:
        strength.require(key, what, next_step)
    except Refusal as weak:
        raise ApiKeyError(str(weak)) from weak


def read_or_make(path: Path) -> str:
    """The key in ``path``; made first if there is none. Safe when several processes ask at once."""
    key = read(path)
    if key is not None:
        return key
    files.create_text(path, f"{strength.new()}\n")
    made = read(path)
    if made is None:
        raise ApiKeyError(f"the API key in {path} vanished while it was made")
    return made
