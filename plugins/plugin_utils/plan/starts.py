# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starts of a fleet reported of the one size that a plan estimates; kept where the lock file is for later plans.

An engine says how many tokens its KV cache holds; with the weights, which are exact, that leaves what it keeps of each
GPU for itself. verify keeps it for the host, and plans of the same configuration use the figures in the place of the
estimate. A configuration is all that changes that size, and not what is only measured with it: the share of the GPU,
the longest request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Optional, TypedDict

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import fit as plan_fit
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, kept, meaning, own_memory
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Choice
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

# The youngest count: of hosts in one configuration, and of configurations.
MOST_HOSTS: Final = 32
MOST_CONFIGURATIONS: Final = 200
# Sizes of a plan are rounded to hundredths. An engine that says more than its room was given its pool by hand.
_ROUNDING_GIB: Final = 0.05
KEPT: Final = kept.Kept("starts", "what starts of this fleet reported")


class Start(TypedDict):
    """What one host's last start reported; ``context`` as own_memory.Reading has it."""

    taken_gib: float
    token_pool: int
    context: Optional[int]
    at: str


# By configuration, then by host and replica.
Starts = Mapping[str, Mapping[str, Start]]


def configuration(
    choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: plan_fit.Parallel
) -> Optional[str]:
    """The name of all that decides what an engine keeps for itself; None where the pool's size is set by hand.

    Its head is for those who read the file, its end a fingerprint of the arguments of the class ``memory``.
    """
    options, engine = choice.engine.options, choice.engine
    by_hand = (options.pool_tokens, options.pool_bytes, options.pool_blocks)
    if any(plan_fit.argument(table, arguments, flag) is not None for flag in by_hand):
        return None
    measured_with = {table.find(name).key for name in (options.memory_fraction, options.context)}
    # How the weights came into the GPUs does not change what is in them.
    measured_with |= set(engine.loading.options)
    # As text: what one catalogue writes as 32768 is read back from a command line as "32768".
    deciding = {
        key: str(value)
        for key, value in arguments.items()
        if key not in measured_with and meaning.class_of(engine, table.options[key]) == "memory"
    }
    image = choice.intent.image or choice.intent.image_variant or ""
    parts = [deciding, dict(choice.intent.engine_env), image, choice.intent.runtime, divided.__dict__]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return (
        f"{choice.repository}, {engine.name} {choice.version}, {choice.cell.gpus}x {choice.accelerator.name}, {digest}"
    )


def readings(
    choice: Choice, table: flags.Table, arguments: flags.Arguments, divided: plan_fit.Parallel
) -> list[own_memory.Reading]:
    """What starts of the same configuration reported."""
    known = choice.intent.starts
    name = configuration(choice, table, arguments, divided) if known else None
    return [own_memory.Reading(one["taken_gib"], one["context"]) for one in known.get(name or "", {}).values()]


def read(lock_file: Path | str) -> Starts:
    """What is kept; nothing where there is no file. Raises Unmet for one that cannot be read."""
    return _starts(KEPT.read(lock_file), lock_file)


def _starts(known: Mapping[str, Any], lock_file: Path | str) -> Starts:
    try:
        return {name: {host: _start(one) for host, one in hosts.items()} for name, hosts in known.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise KEPT.refusal(lock_file, exc) from exc


def _start(read_: Mapping[str, Any]) -> Start:
    context = read_["context"]
    return {
        "taken_gib": float(read_["taken_gib"]),
        "token_pool": int(read_["token_pool"]),
        "context": None if context is None else int(context),
        "at": str(read_["at"]),
    }


def taken(plan: Plan, token_pool: int) -> Optional[float]:
    """GiB that the engine kept of each GPU, by how many tokens its KV cache holds; None where that cannot be."""
    size = plan["memory"]
    room = size["static_fraction"] * plan["accelerator"]["memory_gib"] - size["weights_per_gpu_gib"]
    pool = token_pool / plan["parallel"]["data"] * size["kv_bytes_per_token"] / memory.GIB
    left = room - pool
    return max(0.0, round(left, 2)) if token_pool > 0 and left >= -_ROUNDING_GIB else None


def keep(lock_file: Path | str, plan: Plan, host: str, token_pool: int, at: str) -> bool:
    """Keep what a start reported; whether that is something new. ``at``: when, as report.now() says.

    Raises Unmet when the file cannot be read or written.
    """
    # A release of an earlier version has no configuration.
    name = plan["memory"].get("configuration")
    left = taken(plan, token_pool) if name else None
    if not name or left is None:
        return False
    replica = f"{host}/{plan['replica']}"
    start: Start = {
        "taken_gib": left, "token_pool": token_pool, "context": plan["contract"]["context_length"], "at": at,
    }  # fmt: skip
    return KEPT.change(lock_file, lambda known: _with(_starts(known, lock_file), name, replica, start))


def _with(known: Starts, name: str, replica: str, start: Start) -> Optional[Starts]:
    """All that is known with this start; None where that is nothing new."""
    hosts = known.get(name, {})
    before = hosts.get(replica)
    if before is not None and {**before, "at": start["at"]} == start:
        return None
    return _latest({**known, name: _youngest({**hosts, replica: start})})


def _youngest(hosts: Mapping[str, Start]) -> dict[str, Start]:
    names = sorted(hosts, key=lambda name: hosts[name]["at"])[-MOST_HOSTS:]
    return {name: hosts[name] for name in sorted(names)}


def _latest(known: Starts) -> Starts:
    """The configurations that were started last."""

    def age(name: str) -> str:
        return max(one["at"] for one in known[name].values())

    return {name: known[name] for name in sorted(sorted(known, key=age)[-MOST_CONFIGURATIONS:])}
