# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy would change of what passed on a host last: the intent, what is served, and which replicas restart.

Pure. Both sides are rendered by this release of the collection, so that it finds what a person changed. What a new
release of the collection renders otherwise is found on the host, where files are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, counted
from ansible_collections.glm.fleet.plugins.module_utils.serving import running as seen_running
from ansible_collections.glm.fleet.plugins.module_utils.serving.release import Release, served
from ansible_collections.glm.fleet.plugins.module_utils.serving.status import redact
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.running import options, short

_MOST_SHOWN: Final = 8
_MOST_HOSTS: Final = 4
# What is compared by its words, and what follows from the rest. What `served` leaves out is not compared at all.
_FOLLOWS = ("command", "env", "schema")


class Change(TypedDict):
    """What would change on one host. Without a release nothing passed there yet, and nothing is a change."""

    release: Optional[int]
    """The release that passed last."""
    by: Optional[str]
    """Who had it pass, as user@controller."""
    passed_at: Optional[str]
    """When it passed last: UTC, ISO 8601."""
    intent: list[str]
    """Public variables with another value, as ``name: before -> now``."""
    served: list[str]
    """What is served otherwise, in the same form."""
    restarts: list[int]
    """Numbers of the replicas that would restart, or end."""


def of_host(
    release: Optional[Release],
    then: Sequence[Plan],
    now: Sequence[Plan],
    intent: Mapping[str, Any],
    differing: Sequence[str] = (),
) -> Change:
    """What would change; ``then`` are the plans of ``release``, ``now`` and ``intent`` those of this run.

    ``differing``: files of that release that the host has otherwise now, because somebody edited them, other packages
    were installed, or a run was interrupted.
    """
    if release is None:
        return _none()
    found: Change = {
        "release": release["number"],
        "by": release["by"],
        "passed_at": release["passed_at"],
        "intent": list(_differences(intent, release["intent"], "its default")),
        "served": [],
        "restarts": [],
    }
    others = {one["replica"]: sorted({*differing} & one["files"].keys()) for one in release["observed"]}
    if {plan.get("schema") for plan in then} != {plan.get("schema") for plan in now}:
        made = f"form of the plan: that of glm.fleet {release['collection']} -> that of this release"
        return {**found, "served": [made], "restarts": [int(plan["replica"]) for plan in then]}
    planned = {int(plan["replica"]): plan for plan in now}
    for plan in then:
        number = int(plan["replica"])
        successor = planned.get(number)
        if successor is None:
            found["served"].append(f"replica {number}: served -> none")
        else:
            found["served"] += [line for line in _served(successor, plan) if line not in found["served"]]
            found["served"] += [f"{file}: as it passed -> another" for file in others.get(number, ())]
        if successor is None or others.get(number) or _unit(successor) != _unit(plan):
            found["restarts"].append(number)
    found["served"] += [f"replica {number}: none -> served" for number in planned if number not in _numbers(then)]
    return found


def unread(now: Sequence[Plan]) -> Change:
    """Of a host whose releases cannot be read: everything may change."""
    numbers = [int(plan["replica"]) for plan in now]
    return {**_none(), "served": ["what passed last cannot be read"], "restarts": numbers}


def _none() -> Change:
    return {"release": None, "by": None, "passed_at": None, "intent": [], "served": [], "restarts": []}


def _numbers(plans: Sequence[Plan]) -> set[int]:
    return {int(plan["replica"]) for plan in plans}


def _unit(plan: Plan) -> object:
    """What the replica is started from, but for its keys. A plan that no unit can carry is like no other."""
    groups = {name: ["x", name] for name in plan["device_groups"]}
    try:
        return replica.replica(plan, groups), replica.env_file(plan)
    except QuotingError:
        return object()


def _served(now: Plan, then: Plan) -> Iterator[str]:
    for read in (_words, _environment, _values):
        yield from _differences(read(now), read(then), "none")


def _words(plan: Plan) -> dict[str, Any]:
    found = options(seen_running.without_secrets([str(word) for word in plan["command"]]))
    return {name: " ".join(values) for name, values in found.items() if name}


def _environment(plan: Plan) -> dict[str, Any]:
    return {name: redact(f"{name}={value}", ()).partition("=")[2] for name, value in plan["env"].items()}


def _values(plan: Plan) -> dict[str, Any]:
    return _leaves(served([plan])[0])


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The values of a plan by their dotted keys, but for those that follow from others."""
    if not isinstance(value, Mapping):
        return {path: value}
    inner = ((f"{path}.{key}".lstrip("."), one) for key, one in value.items() if path or key not in _FOLLOWS)
    return {leaf: found for key, one in inner for leaf, found in _leaves(one, key).items()}


def _differences(now: Mapping[str, Any], then: Mapping[str, Any], absent: str) -> Iterator[str]:
    # Through JSON, as what was kept came.
    here, before = (json.loads(json.dumps(dict(one), default=str)) for one in (now, then))
    for name in sorted({*here, *before}):
        if here.get(name, _ABSENT) != before.get(name, _ABSENT):
            yield f"{name}: {_text(before, name, absent)} -> {_text(here, name, absent)}"


_ABSENT: Final = object()


def _text(values: Mapping[str, Any], name: str, absent: str) -> str:
    value = values.get(name, _ABSENT)
    if value is _ABSENT or value is None:
        return absent
    text = redact(value if isinstance(value, str) else json.dumps(value), ())
    return short(text) or "set"


def release_changes(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, list[str]]:
    """See release_changes.yml in the filters."""
    found = {host: (hostvars[host].get("__deploy_compared") or {}).get("change") for host in hosts if host in hostvars}
    changes = {host: change for host, change in found.items() if change}
    return {"lines": lines(changes), "restarting": [host for host, change in changes.items() if change["restarts"]]}


def lines(changes: Mapping[str, Change]) -> list[str]:
    """The changes of a fleet for a person, hosts with the same change together; empty where nothing changes."""
    groups: dict[str, list[str]] = {}
    for host, change in changes.items():
        if change["intent"] or change["served"] or change["restarts"]:
            groups.setdefault(json.dumps([change["intent"], change["served"]]), []).append(host)
    if not groups:
        return []
    found = [f"This run changes what passed last on {sum(map(len, groups.values()))} of {len(changes)} hosts:"]
    for hosts in groups.values():
        one = changes[hosts[0]]
        of = f", which has release {one['release']} of {one['passed_at']} by {one['by']}" if one["release"] else ""
        found.append(f"  {_named(hosts)}{of if len(hosts) == 1 else ''}:")
        found += [f"    {line}" for line in [*one["intent"], *_most(one["served"])]]
    restarted = {host: change["restarts"] for host, change in changes.items() if change["restarts"]}
    replicas = sum(map(len, restarted.values()))
    found.append(f"  {counted(replicas, 'replica')} on {counted(len(restarted), 'host')} would restart.")
    return found


def _named(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _MOST_HOSTS} more" if len(hosts) > _MOST_HOSTS else ""
    return f"{', '.join(hosts[:_MOST_HOSTS])}{more}"


def _most(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - _MOST_SHOWN} more"] if len(texts) > _MOST_SHOWN else []
    return [*texts[:_MOST_SHOWN], *more]
