# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's API key: one file on the controller, made once, readable by its owner only."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, unmet

# What a check run shows before the first real run has made the key; never written anywhere.
PLACEHOLDER = "made-by-the-first-real-run"


class ApiKeyError(QuotingError):
    """The key file cannot be used; the text says what to do."""


def read(path: Path) -> str | None:
    """The key in ``path``, or None when there is no such file.

    Raises ApiKeyError when others can read the file, or when it does not hold one word.
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
    return text


def read_or_make(path: Path) -> str:
    """The key in ``path``; made first if there is none. Safe when several processes ask at once."""
    key = read(path)
    if key is not None:
        return key
    files.create_text(path, f"glm-{secrets.token_urlsafe(32)}\n")
    made = read(path)
    if made is None:
        raise ApiKeyError(f"the API key in {path} vanished while it was made")
    return made
