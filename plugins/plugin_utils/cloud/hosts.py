# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory host is, whatever the cloud: neutral variables, name, address, id, ssh arguments, country. Pure."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils import address
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import text_of

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]{0,254}")
_NEEDS_NO_QUOTES = re.compile(r"[\w./%~+:@-]+")
_NOT_IN_HOST_NAME = re.compile(r"[^\w.-]+")
# Words of the options hostnames and address that name a key of Host.
_ADDRESSES = {
    "public": "public_address", "ip": "public_address", "private": "private_address", "private_ip": "private_address",
}  # fmt: skip


# Host variables are named by this and a key of Host, whatever the cloud and its option hostvars_prefix.
HOST_PREFIX = "glm_host_"


class Host(TypedDict):
    """One instance in the words of no cloud: the host variables ``glm_host_<key>`` that roles and playbooks read.

    Every key is always there. ``None``: the cloud does not (yet) say.
    """

    id: str
    name: Optional[str]
    # The word by which a cloud is registered, such as ``lambda``.
    provider: str
    # In the cloud's own words, as are instance type and region.
    status: Optional[str]
    instance_type: Optional[str]
    # A name of the catalogue, such as B200; 0 of them on an instance without.
    accelerator: Optional[str]
    accelerator_count: int
    # x86_64 or arm64.
    architecture: str
    public_address: Optional[str]
    # Of a private network, whatever the cloud calls by that name: endpoints are published on it.
    private_address: Optional[str]
    region: Optional[str]
    # ISO 3166-1 alpha-2, such as US.
    country: Optional[str]
    # Empty where a cloud has no tags.
    tags: dict[str, str]
    # Of the whole instance.
    price_usd_per_hour: Optional[float]


# Machine, host and variables -> a text that may name the host.
NameSource = Callable[[Mapping[str, Any], Host, Mapping[str, Any]], Optional[str]]


class BadInstance(ValueError):
    """An instance that cannot be used safely."""


def first_private(values: Iterable[object]) -> Optional[str]:
    """The first address of a private network among what a cloud calls so; anything else is not known to be private."""
    return next((value for value in values if isinstance(value, str) and not address.public_because(value)), None)


def number(value: object) -> Optional[float]:
    """``value`` when it is a number, else ``None``."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` when it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def texts(value: object) -> list[str]:
    """The strings of a list; anything else counts as an empty list."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def status_of(host: Host) -> str:
    """The status of a host in lower case, empty where the cloud does not say."""
    return (host["status"] or "").lower()


def some(names: Sequence[str], most: int = 10) -> str:
    """The names for a message: the first of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


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


def check_id(instance: Mapping[str, Any]) -> None:
    """The id names the host key and appears in ssh arguments; raises ``BadInstance`` if it is not id-like."""
    identity = text_of(instance.get("id")) or ""
    if not _ID.fullmatch(identity):
        raise BadInstance(f"an instance id should be letters and digits, found {identity[:80]!r}")


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


def jump_arguments(arguments: str, user: str, address: str) -> str:
    """The ssh option that connects through another host, to which ssh connects with ``arguments`` of its own.

    As a ProxyCommand, because options on a command line do not reach the jump host of a ProxyJump. ssh expands "%" in
    it once more than in the arguments themselves.
    """
    login = f"{user}@{address}" if user else address
    command = " ".join(["ssh", *filter(None, [arguments.replace("%", "%%")]), "-W [%h]:%p"])
    return f"-o {shlex.quote(f'ProxyCommand={command} {shlex.quote(login)}')}"


def preferred_name(
    machine: Mapping[str, Any], host: Host, variables: Mapping[str, Any], sources: Sequence[NameSource]
) -> str:
    """The first usable of what the ``sources`` say, else the id.

    What has a meaning in host patterns or paths (blanks, commas, colons, brackets, slashes, ...) becomes "_".
    """
    names = (_NOT_IN_HOST_NAME.sub("_", say(machine, host, variables) or "").strip("_.-") for say in sources)
    return next(filter(None, names), host["id"])


def with_prefix(name: str, before: Sequence[str], separator: str) -> NameSource:
    """A source that puts what others say before a name, where there is both; without the name it says nothing."""

    def say(machine: Mapping[str, Any], host: Host, _variables: Mapping[str, Any]) -> Optional[str]:
        end = said(machine, host, name)
        return separator.join([*filter(None, (said(machine, host, word) for word in before)), end]) if end else None

    return say


def address_of(machine: Mapping[str, Any], host: Host, sources: Sequence[str]) -> Optional[str]:
    """The first of what the ``sources`` (``public``, ``private``, ``tag:<key>``) say, or ``None``.

    Only something that looks like an address counts, because it ends up as an argument of ssh.
    """
    words = (said(machine, host, source) for source in sources)
    return next((raw for raw in words if is_address(raw)), None)


def is_address(raw: object) -> bool:
    """Whether something looks like an address, so that ssh can read it as nothing else."""
    return isinstance(raw, str) and _ADDRESS.fullmatch(raw) is not None


def said(machine: Mapping[str, Any], host: Host, source: str) -> Optional[str]:
    """What a source (``name``, ``id``, ``ip``, ``public``, ``tag:<key>``, a key of Host, ...) says of a machine."""
    if source.startswith("tag:"):
        return host["tags"].get(source[4:])
    values: Mapping[str, Any] = host
    key = _ADDRESSES.get(source, source)
    return text_of(values[key] if key in values else machine.get(key))


def country_of(variables: Mapping[str, Any]) -> Optional[str]:
    """The country of a host by its variables: ``glm_country``, else what its cloud says."""
    found = variables.get("glm_country") or variables.get("glm_host_country")
    return str(found) if found else None


def outside(hosts: Iterable[tuple[str, Mapping[str, Any]]], allowed: Iterable[str]) -> list[str]:
    """``host (country)`` of each host that is not in an allowed country; an unknown country is not an allowed one."""
    wanted = {country.upper() for country in allowed}
    found = ((host, country_of(variables)) for host, variables in hosts)
    return [
        f"{host} ({country or 'country unknown'})" for host, country in found if (country or "").upper() not in wanted
    ]
