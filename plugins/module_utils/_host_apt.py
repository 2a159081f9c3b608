# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt would take, and from whom: the output of ``apt-cache policy`` (apt-cache(8)).

This module util is PRIVATE to the collection. Pure.
"""

from __future__ import annotations

import re
from typing import TypedDict

_PACKAGE = re.compile(r"^(\S+):$")
_FIELD = re.compile(r"^  (Installed|Candidate): (\S+)$")
_VERSION = re.compile(r"^ (?:\*\*\*|   ) (\S+) -?\d+$")
_SOURCE = re.compile(r"^\s+-?\d+ (\S.*)$")
_ORIGIN = re.compile(r"^\s+release .*?\bo=([^,]*)")


class Policy(TypedDict):
    """What apt knows of a package; versions are empty where it has none. ``sources``: by version, as it prints them."""

    installed: str
    candidate: str
    sources: dict[str, list[str]]


def parse_policies(text: str) -> dict[str, Policy]:
    """``apt-cache policy NAME…``, by package."""
    found: dict[str, Policy] = {}
    policy: Policy = {"installed": "", "candidate": "", "sources": {}}
    version = ""
    for line in text.splitlines():
        package, value, row, source = (form.match(line) for form in (_PACKAGE, _FIELD, _VERSION, _SOURCE))
        if package:
            policy = found.setdefault(package[1], {"installed": "", "candidate": "", "sources": {}})
        elif value and value[2] != "(none)":
            policy["installed" if value[1] == "Installed" else "candidate"] = value[2]
        elif row:
            version = row[1]
            policy["sources"][version] = []
        elif source and version in policy["sources"]:
            policy["sources"][version].append(source[1])
    return found


def parse_origins(text: str) -> dict[str, str]:
    """``apt-cache policy``: the origin that each source names in its Release file, by the source as apt prints it."""
    origins = {}
    source = ""
    for line in text.splitlines():
        named, origin = _SOURCE.match(line), _ORIGIN.match(line)
        if origin and source:
            origins[source] = origin[1]
        elif named:
            source = named[1]
    return origins


def strangers(policy: Policy, origins: dict[str, str], wanted: str, version: str) -> list[str]:
    """Sources of another origin that a version comes from; empty when ``wanted`` has it too, or nobody has."""
    sources = [source for source in policy["sources"].get(version, []) if source in origins]
    return [] if any(origins[source] == wanted for source in sources) else sources
