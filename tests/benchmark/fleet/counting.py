"""What is counted of a fleet under load: how streams end, what gateways admitted, where turns went. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

ANSWERED = "answered"
ENDED = ("stop", "length", "tool_calls")


@dataclass(frozen=True)
class Asked:
    """One request of a client. Times are seconds since 1970; ``tries`` is how many addresses it took."""

    begun: float
    ended: float
    outcome: str
    kind: str = "chat"
    tries: int = 1


@dataclass(frozen=True)
class Look:
    """The replicas that a gateway admitted at a moment; None where it did not answer."""

    at: float
    gateway: str
    admitted: frozenset[str] | None


def ended(stream: str) -> str:
    """``answered``, or how the stream ended. An aborted one has a ``[DONE]``, too."""
    reason = None
    for line in stream.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return "lost: an error in the stream"
            for choice in event.get("choices", []):
                reason = choice.get("finish_reason") or reason
    return ANSWERED if reason in ENDED else f"lost: ended with {reason}"


def lost(asked: Iterable[Asked]) -> dict[str, int]:
    """How many requests were lost, by how."""
    found: dict[str, int] = {}
    for one in asked:
        if one.outcome != ANSWERED:
            found[one.outcome] = found.get(one.outcome, 0) + 1
    return dict(sorted(found.items()))


def percentile(values: Collection[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed. Of no values there is none."""
    if not values:
        raise ValueError("a percentile of no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def least_admitted(looks: Iterable[Look]) -> int | None:
    """The fewest replicas that a gateway admitted at a moment; None where no gateway answered."""
    return min((len(one.admitted) for one in looks if one.admitted is not None), default=None)


def seconds_out(looks: Sequence[Look], replicas: Collection[str]) -> dict[str, float]:
    """Of each replica that was out, for how long: by the gateway that had it out longest."""
    found: dict[str, dict[str, float]] = {}
    before: dict[str, Look] = {}
    for look in sorted(looks, key=lambda one: one.at):
        if look.admitted is None:
            continue
        last = before.get(look.gateway)
        before[look.gateway] = look
        for replica in sorted(set(replicas) - look.admitted):
            of_one = found.setdefault(replica, {}).setdefault(look.gateway, 0.0)
            if last is not None and replica not in (last.admitted or ()):
                found[replica][look.gateway] = of_one + look.at - last.at
    return {replica: max(of_one.values()) for replica, of_one in sorted(found.items())}


def first_without(looks: Iterable[Look], replica: str, since: float) -> dict[str, float]:
    """Seconds after ``since`` until each gateway no longer admitted a replica; those that never did so are missing."""
    found: dict[str, float] = {}
    for look in sorted(looks, key=lambda one: one.at):
        if look.at >= since and look.admitted is not None and replica not in look.admitted:
            found.setdefault(look.gateway, look.at - since)
    return found


def longest_gap(answers: Sequence[tuple[float, bool]]) -> float:
    """The longest time between two good answers with others between them, of moments in order."""
    longest, good, failed = 0.0, None, False
    for at, answered in answers:
        if not answered:
            failed = True
            continue
        if failed and good is not None:
            longest = max(longest, at - good)
        good, failed = at, False
    # What never came back counts to the end.
    if failed and good is not None:
        longest = max(longest, answers[-1][0] - good)
    return longest


def at_home(turns: Mapping[str, Sequence[str]], homes: Mapping[str, str]) -> float:
    """The share of turns that the host of their conversation answered; ``turns`` has the hosts by conversation."""
    met = [host == homes[name] for name, hosts in turns.items() for host in hosts]
    if not met:
        raise ValueError("a share of no turns")
    return sum(met) / len(met)


def size_of(body: Mapping[str, object]) -> int:
    """The bytes of a request's body."""
    return len(json.dumps(body).encode())


def by_size(bodies: Mapping[int, tuple[str, int]], lines: Iterable[tuple[int, str]]) -> dict[tuple[str, int], str]:
    """Which host answered each turn, where every turn has a size of its own.

    ``bodies`` is the turn by the bytes of its body, ``lines`` the bytes of a request with its header and the host, as
    the gateways wrote them. Headers are of one length, so requests are in the order of their bodies. Raises ValueError.
    """
    found = sorted(lines)
    sizes = sorted(bodies)
    more = {line[0] - size for line, size in zip(found, sizes)}
    if len(found) != len(sizes) or len(more) > 1:
        raise ValueError(f"expected {len(sizes)} requests in the journals, found {len(found)}, longer by {more}")
    return {bodies[size]: host for size, (_bytes, host) in zip(sizes, found)}
