# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's front door knows of keys, as maps of HAProxy: which key is whose, until when, with which limits.

This module util is PRIVATE to the collection. Standard library, Python 3.9 or newer. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

# The limits that a key can have, and the file of each, without its ending.
LIMITS = {"requests_per_minute": "requests", "parallel": "parallel", "tokens_per_minute": "tokens"}
NAMES = ("keys", "expires", *LIMITS.values())

Maps = dict[str, dict[str, str]]

# Of keys. Nothing else may come into a line of a map, or of HAProxy's runtime API.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def of(keys: Sequence[Mapping[str, Any]]) -> Maps:
    """The entries of each map for keys as the lookup ``client_keys`` gives them.

    ``keys`` and ``expires`` are by SHA-256, the limits by name; of two keys of one name the later one's count. Raises
    Unmet for what is no key.
    """
    maps: Maps = {name: {} for name in NAMES}
    for key in keys:
        name, digest = str(key.get("name")), str(key.get("sha256"))
        if not NAME.fullmatch(name) or not SHA256.fullmatch(digest):
            raise Unmet("a key to have a name and a sha256", repr(name), "take what the lookup client_keys gives")
        maps["keys"][digest] = name
        if key.get("expires"):
            maps["expires"][digest] = str(int(key["expires"]))
        limits = key.get("limits") or {}
        for limit, file in LIMITS.items():
            maps[file].pop(name, None)
            if limits.get(limit):
                maps[file][name] = str(int(limits[limit]))
    return maps


def text(entries: Mapping[str, str]) -> str:
    """The file of a map."""
    return "".join(f"{key} {value}\n" for key, value in entries.items())
