# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances the words of a run mean when it ends some: the words that name hosts everywhere, and two of its own.

Words only narrow. One that is given but empty, or that matches nothing, is an error: it never means the whole fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

FLEET_TAG = "glm-fleet"
_CONTROLLER = frozenset({"localhost", "127.0.0.1", "::1"})
# How core begins a term that takes hosts away from the others. One that matches nothing takes nothing away.
_TAKES_AWAY = ("!", "&")


@dataclass(frozen=True)
class Words:
    """What a run was given. None: not given, which is not the same as empty; null is empty, too."""

    fleet: str
    empty: Sequence[str] = ()
    """Variables that choose the fleet, or part of it, and were given without a value."""
    hosts: Any = None
    """glm_hosts, a pattern or a list of patterns."""
    limit: Optional[str] = None
    """--limit."""
    only: Any = None
    """glm_terminate_only."""
    run: Any = None
    """glm_terminate_run."""


@dataclass(frozen=True)
class Target:
    """What the module that ends instances gets: ids or names, and the run; None means all."""

    only: Optional[list[str]]
    run: Optional[str]


def require_fleet(fleet: str, shown: Iterable[str]) -> None:
    """Raise Unmet when the inventories show other fleets only. ``shown``: the fleet of each; empty means any."""
    fleets = sorted(set(shown))
    if fleets and "" not in fleets and fleet not in fleets:
        raise Unmet(
            f"an inventory that shows the fleet '{fleet}' (glm_fleet_name)",
            f"one that shows {', '.join(fleets)} only (its option fleet)",
            f"name the fleet you mean, in both: -e glm_fleet_name={fleets[0]}, or correct the inventory",
        )


def target(
    words: Words,
    terms_of: Callable[[Any], Sequence[str]],
    matching: Callable[[Any], Sequence[str]],
    variables_of: Callable[[str], Mapping[str, Any]],
) -> Target:
    """What the words mean together. Raises Unmet.

    ``terms_of`` takes a pattern apart, ``matching`` gives its hosts, ``variables_of`` the variables of a host.
    """
    if words.empty:
        raise Unmet(f"a value for {', '.join(words.empty)}", "an empty one", "leave it out, or give it its value")
    run = None if words.run is None else str(words.run).strip()
    if run == "":
        raise Unmet("the value of a tag glm-run in glm_terminate_run", "an empty one", "leave it out, or name the run")
    only = None if words.only is None else _names(words.only)
    hosts = _hosts(words, terms_of, matching)
    if hosts is None:
        return Target(only, run)
    instances = {host: _instance(host, variables_of(host), words.fleet) for host in hosts}
    if only is None:
        return Target(sorted(identifier for identifier, _name in instances.values()), run)
    ids = {
        word: identifier for host, (identifier, name) in instances.items() for word in (host, identifier, name) if word
    }
    outside = [entry for entry in only if entry not in ids]
    if outside:
        raise Unmet(
            "instances in glm_terminate_only that glm_hosts and --limit mean, too",
            ", ".join(outside),
            "correct the names, or leave glm_hosts and --limit out",
        )
    return Target(sorted({ids[entry] for entry in only}), run)


def _names(given: Any) -> list[str]:
    """The entries of glm_terminate_only; text counts as ansible counts it for a list."""
    entries = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, (list, tuple)) else []
    names = [str(entry).strip() for entry in entries]
    if not names or not all(names):
        raise Unmet(
            "names or ids of instances in glm_terminate_only",
            "an empty list" if not names else "an empty entry",
            "leave it out to mean the whole fleet, or name the instances",
        )
    return names


def _hosts(
    words: Words, terms_of: Callable[[Any], Sequence[str]], matching: Callable[[Any], Sequence[str]]
) -> Optional[list[str]]:
    """The hosts that glm_hosts and --limit mean; None when neither is given."""
    if words.hosts is None and words.limit is None:
        return None
    pattern = "glm_fleet" if words.hosts is None else words.hosts
    hosts = list(matching(pattern))
    for word, given in (("glm_hosts", words.hosts), ("--limit", words.limit)):
        if given is not None:
            _require_matches(word, terms_of(given), matching)
    if words.limit is not None:
        limited = set(matching(words.limit))
        hosts = [host for host in hosts if host in limited]
    hosts = [host for host in hosts if host not in _CONTROLLER]
    if not hosts:
        raise Unmet(
            f"at least one host in {_said(words)}",
            "none",
            "name instances by the names that the inventory gives them, or leave the word out to mean the whole fleet",
        )
    return hosts


def _require_matches(word: str, terms: Sequence[str], matching: Callable[[Any], Sequence[str]]) -> None:
    named = {term: term[1:] if term.startswith(_TAKES_AWAY) else term for term in terms}
    files = [term for term, name in named.items() if name.startswith("@")]
    if files:
        raise Unmet(f"names, groups or patterns in {word}", f"a file, {files[0]}", "name the hosts in glm_hosts")
    empty = [term for term, name in named.items() if name not in _CONTROLLER and not (name.strip() and matching(name))]
    if empty or not terms:
        raise Unmet(
            f"hosts of the inventory for each part of {word}",
            f"none for {', '.join(map(repr, empty))}" if empty else "an empty one",
            "correct the name (names and groups as in ansible-inventory --graph, not ids)",
        )


def _said(words: Words) -> str:
    said = [] if words.hosts is None else [f"glm_hosts ({words.hosts})"]
    said += [] if words.limit is None else [f"--limit ({words.limit})"]
    return " and ".join(said)


def _instance(host: str, variables: Mapping[str, Any], fleet: str) -> tuple[str, str]:
    """The id and name of the instance that a host is; raises Unmet for what is none of this fleet."""
    identifier = variables.get("glm_host_id")
    if not identifier:
        raise Unmet(f"instances of a cloud in {host}'s place", "a host without glm_host_id", "leave it out")
    of_fleet = (variables.get("glm_host_tags") or {}).get(FLEET_TAG)
    if of_fleet != fleet:
        raise Unmet(
            f"hosts of the fleet '{fleet}' (glm_fleet_name)",
            f"{host}, whose tag {FLEET_TAG} says {of_fleet or 'nothing'}",
            "leave it out, or name its fleet in glm_fleet_name",
        )
    return str(identifier), str(variables.get("glm_host_name") or "")
