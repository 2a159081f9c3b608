# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt would take, and from whom: the output of ``apt-cache policy`` (apt-cache(8)), and its sources.list(5).

This module util is PRIVATE to the collection. Pure, but for the files of the sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Union

_PACKAGE = re.compile(r"^(\S+):$")
_FIELD = re.compile(r"^  (Installed|Candidate): (\S+)$")
_VERSION = re.compile(r"^ (?:\*\*\*|   ) (\S+) -?\d+$")
_SOURCE = re.compile(r"^\s+-?\d+ (\S.*)$")
_ORIGIN = re.compile(r"^\s+release .*?\bo=([^,]*)")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)$")
_SIGNED_BY = re.compile(r"(?:^|\s)signed-by=(\S+)", re.IGNORECASE)
# StringToBool of apt; its words for yes are not needed.
_NO = ("no", "false", "without", "off", "disable", "0")


class Policy(TypedDict):
    """What apt knows of a package; versions are empty where it has none. ``sources``: by version, as it prints them."""

    installed: str
    candidate: str
    sources: dict[str, list[str]]


class Source(TypedDict):
    """One source of packages. ``name``: the one that a program gave it, often empty."""

    file: str
    name: str
    uris: list[str]
    suites: list[str]
    components: list[str]
    signed_by: str


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
    """Sources of another origin that a version comes from; empty when ``wanted`` has it too, or no source has."""
    sources = [source for source in policy["sources"].get(version, []) if source in origins]
    return [] if any(origins[source] == wanted for source in sources) else sources


def present(folder: Path) -> list[Source]:
    """Every source of a host that is switched on; ``folder`` is /etc/apt."""
    found = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        parse = {".list": parse_list, ".sources": parse_deb822}.get(path.suffix)
        if parse and path.is_file():
            found += parse(path.read_text("utf-8", "replace"), str(path))
    return found


def parse_list(text: str, file: str) -> list[Source]:
    """The sources of a file in the one-line form."""
    lines = (_ONE_LINE.match(line.partition("#")[0].strip()) for line in text.splitlines())
    return [
        {
            "file": file,
            "name": "",
            "uris": [line["uri"]],
            "suites": [line["suite"]],
            "components": line["components"].split(),
            "signed_by": " ".join(_SIGNED_BY.findall(line["options"] or "")),
        }
        for line in lines
        if line
    ]


def parse_deb822(text: str, file: str) -> list[Source]:
    """The sources of a file in the form of deb822, those that are switched on."""
    found: list[Source] = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields = _fields(stanza)
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in _NO:
            inline = "BEGIN PGP" in fields.get("signed-by", "")
            found.append(
                {
                    "file": file,
                    "name": fields.get("x-repolib-name", ""),
                    "uris": fields.get("uris", "").split(),
                    "suites": fields.get("suites", "").split(),
                    "components": fields.get("components", "").split(),
                    "signed_by": "a key in the file itself" if inline else fields.get("signed-by", ""),
                }
            )
    return found


def _fields(stanza: str) -> dict[str, str]:
    """Fields of a stanza by their names in lower case; lines that begin with a space go on with the field above."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
            continue
        name, _colon, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = value.strip()
    return fields


def twins(wanted: Mapping[str, Any], sources: Iterable[Source], architecture: str) -> list[Source]:
    """The sources that name an address and a suite of ``wanted``, which has ``uris`` and ``suites``."""
    places = _places(wanted["uris"], wanted.get("suites") or "/", architecture)
    return [source for source in sources if places & _places(source["uris"], source["suites"], architecture)]


def _places(uris: Union[str, list[str]], suites: Union[str, list[str]], architecture: str) -> set[tuple[str, str]]:
    """Address and suite of each combination, in the form in which apt compares them."""
    addresses, names = (value.split() if isinstance(value, str) else value for value in (uris, suites))
    return {
        (uri.replace("$(ARCH)", architecture).rstrip("/") + "/", "/" if suite == "./" else suite)
        for uri in addresses
        for suite in names
    }
