# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines of an account become hosts, the same for all clouds: filters as conditions on neutral hosts. Pure.

A filter is refused when it cannot mean what it says (``BadOption``): an unknown name, a value of another kind. What
each filter left out is counted, because a filter that leaves out everything looks like an empty account.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import kind_of
from ansible_collections.glm.fleet.plugins.module_utils.names import did_you_mean, nearest
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.hosts import Host, status_of

TAG = "tag:"
# Keys of Host that filters name; the others are no text, or the same for all.
FILTER_KEYS = tuple(sorted(set(Host.__annotations__) - {"provider", "tags", "price_usd_per_hour", "accelerator_count"}))

# The options that ``conditions`` reads, whatever the cloud.
OPTIONS = (
    "statuses", "exclude_statuses", "name_patterns", "exclude_name_patterns", "tags", "exclude_tags", "tag_selector",
    "include_filters", "exclude_filters",
)  # fmt: skip

_KEY = r"[A-Za-z0-9][A-Za-z0-9._/:-]*"
_REQUIREMENTS = (
    (re.compile(rf"(?P<key>{_KEY})\s+(?P<sign>in|notin)\s+\((?P<values>[^()]*)\)"), None),
    (re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<values>[^,()=!]*)"), None),
    (re.compile(rf"(?P<sign>!?)\s*(?P<key>{_KEY})"), ()),
)
# A comma between two requirements, not one within brackets.
_BETWEEN = re.compile(r",(?![^()]*\))")


class BadOption(ValueError):
    """An option that does not say what to choose."""


@dataclass(frozen=True)
class Condition:
    """What an option requires of a host."""

    option: str
    accepts: Callable[[Host], bool]


@dataclass(frozen=True)
class Chosen:
    """``positions`` of the hosts that all conditions accept; how many each option left out, as the first that did."""

    positions: list[int]
    left_out: Counter[str]


def choose(hosts: Sequence[Host], conditions: Sequence[Condition]) -> Chosen:
    """Apply the conditions to each host, in their order."""
    positions: list[int] = []
    left_out: Counter[str] = Counter()
    for position, host in enumerate(hosts):
        for condition in conditions:
            if not condition.accepts(host):
                left_out[condition.option] += 1
                break
        else:
            positions.append(position)
    return Chosen(positions, left_out)


def conditions(options: Mapping[str, Any], named: Mapping[str, str], cloud: str, tags: bool) -> list[Condition]:
    """What the options of an inventory require of a host. Raises BadOption.

    ``named``: options that are about this key of Host. ``tags``: whether the ``cloud`` (its title) has tags.
    """
    statuses, not_statuses = (patterns_in(option, options[option]) for option in ("statuses", "exclude_statuses"))
    made = by_status(statuses, not_statuses)
    for option, key in {**named, "name_patterns": "name", "exclude_name_patterns": "name"}.items():
        made += by_text(option, reader(key), patterns_in(option, options[option]))
    for option in ("include_filters", "exclude_filters"):
        made += by_filters(option, options[option], tags)
    about_tags = [*by_tags("tags", options["tags"]), *by_tags("exclude_tags", options["exclude_tags"])]
    about_tags += by_selector("tag_selector", options["tag_selector"] or "")
    if about_tags and not tags:
        names = ", ".join(condition.option for condition in about_tags)
        raise BadOption(f"{names}: {cloud} has no tags; choose by name_patterns or include_filters")
    return made + about_tags


# One value against patterns.


def patterns_in(option: str, value: object, *, empty: bool = True) -> list[str]:
    """The patterns that an option gives, alone or in a list; ``empty`` says whether there may be none."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values and not empty:
        raise BadOption(f"{option}: expected a value or several, found an empty list")
    return [_pattern(option, item) for item in values]


def _pattern(option: str, value: object) -> str:
    if isinstance(value, bool):
        # A tag says "true"; and YAML reads NO, the country, as false.
        if option == "countries":
            raise BadOption(f"{option}: expected a country code, found {str(value).lower()}: put it in quotes")
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    found = "nothing" if value is None else "a mapping" if isinstance(value, Mapping) else f"a {kind_of(value)}"
    raise BadOption(f"{option}: expected text or a shell pattern, found {found}")


def matches(value: Optional[str], patterns: Iterable[str]) -> bool:
    """Whether a value is one of the patterns, or fits one as a shell pattern."""
    text = value or ""
    return any(text == pattern or fnmatch.fnmatchcase(text, pattern) for pattern in patterns)


# Options as conditions.


def by_text(option: str, read: Callable[[Host], Optional[str]], patterns: Sequence[str]) -> list[Condition]:
    """Only hosts of which this text fits; with ``exclude_`` before the option's name, none of these."""
    if not patterns:
        return []
    if option.startswith("exclude_"):
        return [Condition(option, lambda host: not matches(read(host), patterns))]
    return [Condition(option, lambda host: matches(read(host), patterns))]


def by_status(statuses: Sequence[str], exclude_statuses: Sequence[str]) -> list[Condition]:
    """Only these statuses, else none of the excluded ones, in any case. So one that nobody knows is kept."""
    if statuses:
        return by_text("statuses", status_of, [status.lower() for status in statuses])
    return by_text("exclude_statuses", status_of, [status.lower() for status in exclude_statuses])


def by_tags(option: str, tags: Mapping[str, Any]) -> list[Condition]:
    """Hosts that have all these tags; with ``exclude_`` before the option's name, none that has any of them."""
    wanted = {str(key): _allowed(f"{option}: {key}", value) for key, value in tags.items()}
    if not wanted:
        return []
    if option.startswith("exclude_"):
        return [Condition(option, lambda host: not any(_tag_is(host, key, value) for key, value in wanted.items()))]
    return [Condition(option, lambda host: all(_tag_is(host, key, value) for key, value in wanted.items()))]


def _allowed(what: str, value: object) -> Optional[list[str]]:
    """The patterns of one of which a value must fit; None, which YAML writes as null, accepts any."""
    return None if value is None else patterns_in(what, value, empty=False)


def _tag_is(host: Host, key: str, patterns: Optional[Sequence[str]]) -> bool:
    return key in host["tags"] and (patterns is None or matches(host["tags"][key], patterns))


def by_selector(option: str, text: str) -> list[Condition]:
    """Hosts whose tags meet an expression such as ``env=prod,role!=head,tier in (a,b),!old``: all of its parts."""
    parts = [part.strip() for part in _BETWEEN.split(text)] if text.strip() else []
    requirements = [_requirement(option, part) for part in parts]
    return [Condition(option, lambda host: all(met(host) for met in requirements))] if requirements else []


def _requirement(option: str, text: str) -> Callable[[Host], bool]:
    for form, alone in _REQUIREMENTS:
        found = form.fullmatch(text)
        if found:
            key, negated = found["key"], found["sign"] in ("!", "!=", "notin")
            values = None if alone is not None else [value.strip() for value in found["values"].split(",")]
            if values == [""] and found["sign"] in ("in", "notin"):
                raise BadOption(f"{option}: expected values in the brackets, found none in {text!r}")
            return lambda host: _tag_is(host, key, values) is not negated
    raise BadOption(
        f"{option}: expected parts such as key=value, key!=value, key in (a,b), key notin (a,b), key or !key, with "
        f"commas between them, found {text!r}"
    )


def by_filters(option: str, filters: Sequence[Any], tags: bool) -> list[Condition]:
    """Hosts that meet every entry of one of these mappings; with ``exclude_`` before the option's name, of none."""
    any_of = [_filter(f"{option}[{number}]", entry, tags) for number, entry in enumerate(filters)]
    if not any_of:
        return []
    unwanted = option.startswith("exclude_")
    return [Condition(option, lambda host: any(met(host) for met in any_of) is not unwanted)]


def _filter(what: str, entry: object, tags: bool) -> Callable[[Host], bool]:
    if not isinstance(entry, Mapping) or not entry:
        raise BadOption(f"{what}: expected a mapping such as {{region: us-*, status: active}}, found {entry!r}")
    wanted = [_entry(what, str(key), value, tags) for key, value in entry.items()]
    return lambda host: all(met(host) for met in wanted)


def _entry(what: str, key: str, value: object, tags: bool) -> Callable[[Host], bool]:
    patterns = _allowed(f"{what}: {key}", value)
    if tags and key.startswith(TAG) and len(key) > len(TAG):
        return lambda host: _tag_is(host, key.removeprefix(TAG), patterns)
    known(what, [key], (*FILTER_KEYS, *([f"{TAG}<key>"] if tags else [])), "key")
    read = status_of if key == "status" else reader(key)
    lowered = [pattern.lower() for pattern in patterns] if patterns is not None and key == "status" else patterns
    return lambda host: bool(read(host)) if lowered is None else matches(read(host), lowered)


def reader(key: str) -> Callable[[Host], Optional[str]]:
    """The function that gives this key of a host, which is a text or None."""
    return lambda host: host[key]  # type: ignore[literal-required]


# Names that must exist.


def known(what: str, found: Iterable[object], allowed: Sequence[str], kind: str) -> None:
    """Raises BadOption for a name that is not among the ``allowed``, with the nearest that is."""
    unknown = [str(name) for name in found if name not in allowed]
    if unknown:
        hint = did_you_mean(unknown[0], allowed, f"; expected {', '.join(allowed)}")
        raise BadOption(f"{what}: unknown {kind} {', '.join(unknown)}{hint}")


def unseen(values: Iterable[str], seen: Iterable[Optional[str]]) -> list[str]:
    """The patterns that fit none of the names."""
    names = {name for name in seen if name}
    return [value for value in values if value not in names and not fnmatch.filter(names, value)]


def refuse_unseen(option: str, values: Sequence[str], names: Iterable[Optional[str]], *, complete: bool = True) -> None:
    """Raises BadOption for a pattern that fits none of the names there are.

    Where the ``names`` are not all there may be (``complete`` is false), only for one that looks like a typing error.
    """
    there = sorted({name for name in names if name})
    for value in unseen(values, there):
        close = nearest(value, there, 1, cutoff=0.75)
        if close or complete:
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(there) or 'none'}."
            raise BadOption(f"{option}: {value!r} fits nothing that the cloud knows or the account has; {hint}")
