# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a host lets in what it should and nothing else, by what somebody elsewhere got who tried. Pure.

Proven is only what a control shows: an address counts where its ssh server answered from the same place. Without that,
refusals and silence may be those of a firewall between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.glm.fleet.plugins.module_utils import address, finding
from ansible_collections.glm.fleet.plugins.module_utils.door.gateway import FRONTS
from ansible_collections.glm.fleet.plugins.module_utils.finding import Finding
from ansible_collections.glm.fleet.plugins.module_utils.serving.exposure import UNLISTED, Answers, Place

# Where a host's ssh server is for its neighbours, whatever port is forwarded to it elsewhere.
SSH_PORT = 22
_RIGHT = {
    "no_key": (401, "without a key"),
    "wrong_key": (401, "with a wrong key"),
    "unlisted": (404, f"for {UNLISTED}"),
    "right_key": (200, "with the right key"),
}
_CLOSE = (
    "deploy the host again, bind the endpoint to loopback or a private address (glm_bind), or close the port in the "
    "cloud's firewall"
)


@dataclass(frozen=True)
class Tried:
    """What somebody got who tried: an outcome for each place, and the answers of the doors that were open."""

    vantage: str
    outcomes: Sequence[str]
    answers: Mapping[str, Answers]
    seconds: float = 0.0


@dataclass(frozen=True)
class Host:
    """What is tried of a host.

    ``places`` is everything it listens on; ``control`` has the port by which its ssh server is reached; ``meant`` says
    by ``address`` and ``port`` where the host is meant to be open.
    """

    places: Sequence[Place]
    control: Collection[int]
    meant: Sequence[Mapping[str, Any]]


def of_neighbour(host: Host, answer: Mapping[str, Any]) -> Finding:
    """The finding about another host of the fleet: ``answer`` is that of the module exposure there, with ``host``."""
    host = replace(host, control={SSH_PORT, *host.control})
    vantage = f"the neighbour {answer.get('host')}"
    if "outcomes" not in answer:
        found = str(answer.get("problem") or f"{vantage} did not try: it did not answer")
        return finding.not_proven("verify", "closed_neighbour", _expected(vantage), found)
    tried = Tried(vantage, answer["outcomes"], answer["answers"], float(answer.get("seconds", 0)))
    return judged("closed_neighbour", host, tried)


def judged(check: str, host: Host, tried: Tried) -> Finding:
    """The finding about one vantage point."""
    pairs = list(zip(host.places, tried.outcomes, strict=True))
    reached = {place["address"] for place, outcome in pairs if place["port"] in host.control and outcome == "open"}
    others = [(place, outcome) for place, outcome in pairs if place["port"] not in host.control]
    # What is open is open, whatever a control says.
    problems = [
        f"{_named(place)} is open" for place, outcome in others if outcome == "open" and _unwanted(place, host.meant)
    ]
    problems += [text for door, said in tried.answers.items() for text in _wrong(door, said)]
    if problems:
        return finding.judged(
            "verify", check, False, _expected(tried.vantage), "; ".join(problems), _CLOSE, tried.seconds
        )
    unseen = [_named(place) for place, outcome in others if outcome == "open" and place["unit"] is None]
    if unseen:
        found = f"open, and it could not be seen whose it is: {', '.join(unseen)}"
        return finding.judged("verify", check, None, _expected(tried.vantage), found, seconds=tried.seconds)
    if not reached:
        where = ", ".join(sorted({place["address"] for place in host.places})) or "the host"
        found = f"{tried.vantage} does not reach {where} at all: no ssh server answered there either"
        next_step = _next(host, tried.vantage)
        return finding.judged("verify", check, None, _expected(tried.vantage), found, next_step, tried.seconds)
    return finding.judged(
        "verify", check, True, _expected(tried.vantage), _said(others, reached, tried), seconds=tried.seconds
    )


def _next(host: Host, vantage: str) -> str:
    """What to do where nothing shows that this vantage point would have reached an open port."""
    if any(place["port"] in host.control for place in host.places):
        return f"let {vantage} reach the host's ssh port, or verify from a machine that does"
    return (
        f"this cannot be proven from here: ssh comes by port {min(host.control)}, on which nothing on the host "
        "listens, so something forwards it, and what answers at that address is not the host. Look at what else is "
        "forwarded there, and verify from a machine in the host's network (closed_neighbour does, with a second host)"
    )


def _expected(vantage: str) -> str:
    return f"nothing of ours open to {vantage} but the front door, and that only with a key"


def _unwanted(place: Place, meant: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a place is one of the collection's that nobody else should reach."""
    return bool(place["unit"]) and not (place["unit"] in FRONTS and any(_meant(place, one) for one in meant))


def _meant(place: Place, one: Mapping[str, Any]) -> bool:
    everywhere = address.is_wildcard(str(one["address"]))
    return place["port"] == int(one["port"]) and (everywhere or place["address"] == one["address"])


def _wrong(door: str, said: Answers) -> list[str]:
    """What a door answered that it should not have."""
    given = {name: status for name, status in said.items() if isinstance(status, int) and status}
    wrong = [
        f"{door} answers {status} {_RIGHT[name][1]}, not {_RIGHT[name][0]}"
        for name, status in given.items()
        if status != _RIGHT[name][0]
    ]
    return wrong


def _said(others: Sequence[tuple[Place, str]], reached: set[str], tried: Tried) -> str:
    """What was tried, for a finding that passed."""
    parts = [f"{len(others)} sockets tried on {', '.join(sorted(reached))} beside ssh"]
    parts.append(f"doors: {', '.join(tried.answers) or 'none open to it'}")
    parts += [f"{door}: {said['problem']}" for door, said in tried.answers.items() if said["problem"]]
    missed = sorted({place["address"] for place, _outcome in others} - reached)
    if missed:
        parts.append(f"not reached: {', '.join(missed)}")
    foreign = [_named(place) for place, outcome in others if outcome == "open" and not place["unit"]]
    if foreign:
        parts.append(f"open and not ours: {', '.join(foreign)}")
    return "; ".join(parts)


def _named(place: Place) -> str:
    return f"{address.bracketed(place['address'])}:{place['port']} ({place['unit'] or place['process']})"
