# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From Lambda Cloud instances to inventory hosts: choose, name, address and describe them. Pure logic, no ansible."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from ansible_collections.glm.fleet.plugins.module_utils.lambda_api import tags_of

# What an inventory needs of an instance. Everything else, above all the live credentials jupyter_token and jupyter_url,
# is dropped as soon as an answer arrives, so that it cannot reach host variables or a cache file.
KEPT_FIELDS = frozenset(
    {
        "id", "name", "ip", "private_ip", "hostname", "status", "region", "instance_type", "tags", "actions",
        "ssh_key_names", "file_system_names",
    }
)  # fmt: skip

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}")
_NEEDS_NO_QUOTES = re.compile(r"[\w./%~+:@-]+")
_NOT_IN_HOST_NAME = re.compile(r"[^\w.-]+")
_GPU_DESCRIPTION = re.compile(r"(?P<name>.*?)\s*\((?P<memory>\d+)\s*G(?:i)?B", re.IGNORECASE)
_TYPE_NAME = re.compile(r"gpu_(?P<count>\d+)x_(?P<name>[a-z0-9]+)")
_VENDOR_WORDS = re.compile(r"\b(nvidia|tesla|quadro|geforce)\b", re.IGNORECASE)


class BadInstance(ValueError):
    """An instance that cannot be used safely."""


def kept(instance: Mapping[str, Any]) -> dict[str, Any]:
    """The instance without what an inventory does not need."""
    return {key: instance[key] for key in KEPT_FIELDS if key in instance}


def text(value: object) -> Optional[str]:
    """``value`` when it is a non-empty string, else ``None``: the API leaves out, nulls or empties optional fields."""
    return value if isinstance(value, str) and value else None


def number(value: object) -> Optional[float]:
    """``value`` when it is a number, else ``None``."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` when it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: object) -> list[str]:
    """The strings of a list; anything else counts as an empty list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def spec(instance: Mapping[str, Any], name: str) -> Optional[float]:
    """A number among the specs of the instance's type, such as ``vcpus``."""
    return number(mapping(mapping(instance.get("instance_type")).get("specs")).get(name))


class Hardware(NamedTuple):
    """What an instance type is made of.

    ``total`` is how many accelerators there are. ``memory_gib`` is the memory of one as the vendor sells it
    (B200: 180), not what is usable.
    """

    accelerator: Optional[str]
    total: int
    memory_gib: Optional[int]
    architecture: str


def hardware_of(instance_type: Mapping[str, Any]) -> Hardware:
    """Derive the accelerators from ``gpu_description`` ("B200 (180 GB SXM6)"), else from the type's name.

    The API names no architecture for an instance. Grace machines (GH200, GB200, GB300) are arm64; all others, unknown
    ones included, are taken for x86_64.
    """
    type_name = _TYPE_NAME.match(text(instance_type.get("name")) or "")
    described = _GPU_DESCRIPTION.match(text(instance_type.get("gpu_description")) or "")
    gpus = number(mapping(instance_type.get("specs")).get("gpus"))
    count = int(gpus) if gpus is not None else int(type_name["count"]) if type_name else 0
    if count == 0:
        return Hardware(None, 0, None, "x86_64")
    name = _accelerator_name(described["name"]) if described else None
    if not name and type_name:
        name = type_name["name"].upper()
    memory = int(described["memory"]) if described else None
    # The catalogue's A100 is the one with 80 GB; Lambda sells both under one name.
    if name == "A100" and memory == 40:
        name = "A100-40GB"
    arm = bool(name and re.match(r"G[HB]\d", name))
    return Hardware(name, count, memory, "arm64" if arm else "x86_64")


def _accelerator_name(description: str) -> str:
    """"NVIDIA RTX A6000" -> "A6000", "Tesla V100" -> "V100", "RTX 6000" -> "RTX6000"."""
    name = "".join(_VENDOR_WORDS.sub(" ", description).split())
    return re.sub(r"^RTX(?=A\d)", "", name)


@dataclass(frozen=True)
class Selection:
    """Which instances become hosts. Empty collections do not restrict; a tag value of ``None`` accepts any value."""

    statuses: Collection[str] = ()
    regions: Sequence[str] = ()
    instance_types: Sequence[str] = ()
    name_patterns: Sequence[str] = ()
    tags: Mapping[str, Optional[str]] = field(default_factory=dict)
    exclude_regions: Sequence[str] = ()
    exclude_instance_types: Sequence[str] = ()
    exclude_name_patterns: Sequence[str] = ()
    exclude_tags: Mapping[str, Optional[str]] = field(default_factory=dict)

    def accepts(self, instance: Mapping[str, Any]) -> bool:
        """Whether the instance passes every condition."""
        if self.statuses and instance.get("status") not in self.statuses:
            return False
        region = text(mapping(instance.get("region")).get("name")) or ""
        kind = text(mapping(instance.get("instance_type")).get("name")) or ""
        name = text(instance.get("name")) or ""
        if not (
            _allowed(region, self.regions, self.exclude_regions)
            and _allowed(kind, self.instance_types, self.exclude_instance_types)
            and _allowed(name, self.name_patterns, self.exclude_name_patterns)
        ):
            return False
        if not self.tags and not self.exclude_tags:
            return True
        tags = tags_of(instance)
        return all(_tag_is(tags, key, value) for key, value in self.tags.items()) and not any(
            _tag_is(tags, key, value) for key, value in self.exclude_tags.items()
        )


def _allowed(value: str, wanted: Sequence[str], unwanted: Sequence[str]) -> bool:
    if wanted and not any(fnmatch.fnmatchcase(value, pattern) for pattern in wanted):
        return False
    return not any(fnmatch.fnmatchcase(value, pattern) for pattern in unwanted)


def _tag_is(tags: Mapping[str, str], key: str, value: Optional[str]) -> bool:
    return key in tags and (value is None or tags[key] == str(value))


def preferred_name(instance: Mapping[str, Any], precedence: Sequence[str]) -> str:
    """The first usable of the ``precedence`` sources (``tag:<key>``, ``name``, ``hostname``, ``id``); else the id.

    What has a meaning in host patterns or paths (blanks, commas, colons, brackets, slashes, ...) becomes "_".
    """
    for source in precedence:
        raw = tags_of(instance).get(source[4:]) if source.startswith("tag:") else text(instance.get(source))
        name = _NOT_IN_HOST_NAME.sub("_", raw or "").strip("_.-")
        if name:
            return name
    return str(instance["id"])


def unique_names(wanted: Sequence[tuple[str, str]], taken: Collection[str]) -> tuple[list[str], list[str]]:
    """Turn ``(preferred name, id)`` pairs into distinct names; returns them in order, and the names that clashed.

    Every instance of a clash is renamed ``<name>_<first 8 of id>``, so that no name depends on the order in which the
    API lists instances. Names in ``taken`` (groups, localhost) clash too.
    """
    counts = Counter(name for name, _id in wanted)
    clashing = sorted(name for name, count in counts.items() if count > 1 or name in taken)
    if not clashing:
        return [name for name, _id in wanted], []
    suffixed = [f"{name}_{identity[:8]}" if name in clashing else name for name, identity in wanted]
    counts = Counter(suffixed)
    names = [
        f"{name}_{identity}" if counts[new] > 1 or new in taken else new
        for new, (name, identity) in zip(suffixed, wanted)
    ]
    return names, clashing


def address_of(instance: Mapping[str, Any], precedence: Sequence[str]) -> Optional[str]:
    """The first address that the instance has among ``public``, ``private`` and ``tag:<key>``, or ``None``.

    Only something that looks like an address counts, because it ends up as an argument of ssh.
    """
    fields = {"public": "ip", "private": "private_ip"}
    for source in precedence:
        raw = tags_of(instance).get(source[4:]) if source.startswith("tag:") else text(instance.get(fields[source]))
        if raw and _ADDRESS.fullmatch(raw):
            return raw
    return None


def checked_id(instance: Mapping[str, Any]) -> str:
    """The id, which names the host key and appears in ssh arguments; raises ``BadInstance`` if it is not id-like."""
    identity = text(instance.get("id")) or ""
    if not _ID.fullmatch(identity):
        raise BadInstance(f"an instance id should be letters and digits, found {identity[:80]!r}")
    return identity


def pinned_key_arguments(known_hosts: str) -> tuple[str, str]:
    """The ssh options, before and after the instance id, that accept only the pinned key of that instance.

    ssh splits the value of UserKnownHostsFile at blanks and expands "%" and "${}" in it; ansible splits the whole
    string like a shell. Raises ``ValueError`` for a path that ssh has no way to quote.
    """
    if any(sign in known_hosts for sign in '"\\\n') or "${" in known_hosts:
        raise ValueError(f"known_hosts_file: ssh cannot use a path with quotes, backslashes or ${{}}: {known_hosts!r}")
    path = known_hosts.replace("%", "%%")
    if not _NEEDS_NO_QUOTES.fullmatch(path):
        path = f'"{path}"'
    option = shlex.quote(f"UserKnownHostsFile={path}")
    return f"-o {option} -o HostKeyAlias=", " -o StrictHostKeyChecking=yes"


def unavailable_actions(instance: Mapping[str, Any]) -> dict[str, str]:
    """The actions that the API would refuse now, each with its reason code ("" when it gives none)."""
    actions = mapping(instance.get("actions"))
    return {
        name: text(action.get("reason_code")) or ""
        for name, action in actions.items()
        if isinstance(action, dict) and action.get("available") is False
    }
