"""A piece of work on a fleet under load, and what clients and gateways saw meanwhile; bounds, and whether they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.benchmark.fleet import counting
from tests.benchmark.fleet.counting import Asked, Look
from tests.benchmark.fleet.hosts import Fleet, Watch
from tests.benchmark.fleet.load import Client, Load
from tests.integration.rehearsal import Run, playbook

SETTLE_SECONDS = 8.0


@dataclass(frozen=True)
class Check:
    """A bound, what was found, and whether it holds."""

    what: str
    expected: str
    found: str
    holds: bool


def at_most(what: str, bound: float, found: float, unit: str = "") -> Check:
    return Check(what, f"at most {bound:g}{unit}", f"{found:.3g}{unit}", found <= bound)


def at_least(what: str, bound: float, found: float | None, unit: str = "") -> Check:
    text = "none" if found is None else f"{found:.4g}{unit}"
    return Check(what, f"at least {bound:g}{unit}", text, found is not None and found >= bound)


def equal(what: str, expected: Any, found: Any) -> Check:
    return Check(what, str(expected), str(found), expected == found)


@dataclass
class Proof:
    """What the scenarios of one run share."""

    fleet: Fleet
    intent: dict[str, Any]
    streams: int
    tokens: int
    pause: float
    kills: int
    seed: int
    roll_seconds: float
    gateways: list[str] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        return [self.fleet.address(host) for host in self.gateways]

    def client(self, timeout: float = 300) -> Client:
        return Client(self.addresses, timeout)

    def load(self, client: Client | None = None) -> Load:
        return Load(client or self.client(), self.streams * len(self.fleet.names), self.tokens, self.pause)

    def watch(self) -> Watch:
        return Watch(self.fleet, self.gateways)

    def play(self, name: str, *arguments: str, **more: Any) -> Run:
        return playbook(name, *arguments, **{**self.intent, **more})


@dataclass
class Seen:
    """What happened while something was done."""

    run: Any
    asked: list[Asked]
    looks: list[Look]
    seconds: float
    begun: float


def under_load(proof: Proof, work: Callable[[], Any], client: Client | None = None) -> Seen:
    """Do something while clients send requests and gateways are watched."""
    with proof.watch() as watch, proof.load(client) as load:
        time.sleep(SETTLE_SECONDS)
        begun = time.time()
        run = work()
        seconds = time.time() - begun
        time.sleep(SETTLE_SECONDS)
    return Seen(run, load.asked, watch.looks, seconds, begun)


def nothing_lost(seen: Seen) -> list[Check]:
    """Every request was answered, to its end, and there were some of each kind."""
    failed = counting.lost(seen.asked)
    kinds = {kind: sum(one.kind == kind for one in seen.asked) for kind in ("chat", "tools", "long")}
    unfinished = sum(count for how, count in failed.items() if how.startswith("lost: ended with"))
    shown = ", ".join(f"{count} {how}" for how, count in failed.items()) or "0"
    return [
        Check("requests lost", "0", f"{shown} of {len(seen.asked):,} ({kinds})", not failed and bool(seen.asked)),
        equal("streams that ended without stop, length or tool_calls", 0, unfinished),
    ]


def capacity(proof: Proof, seen: Seen) -> list[Check]:
    """Never more than one host was out at a time."""
    hosts = len(proof.fleet.names)
    return [at_least(f"replicas admitted of {hosts}, at the least", hosts - 1, counting.least_admitted(seen.looks))]


def out_of(proof: Proof, seen: Seen) -> dict[str, float]:
    """For how many seconds each host was out."""
    of_replica = {proof.fleet.replica(host): host for host in proof.fleet.names}
    return {of_replica[one]: round(s, 1) for one, s in counting.seconds_out(seen.looks, of_replica).items()}


def ends_well(proof: Proof, states: Iterable[dict[str, Any]], freed: bool = True) -> list[Check]:
    """Nothing is drained or held any more, and every gateway admits every replica.

    A run that ends before any host serves frees none (``freed``): the next one of this controller takes over.
    """
    left = [f"{one['drained']} {one['lease']}" for one in states if one["drained"] or (one["lease"] and freed)]
    return [
        equal("hosts that drain or are held at the end" if freed else "hosts that drain at the end", [], left),
        equal("gateways that admit every replica at the end", len(proof.gateways), admitting_all(proof)),
    ]


def admitting_all(proof: Proof, seconds: float = 20) -> int:
    """How many gateways admit every replica, once all do or the time is over."""
    everything = frozenset(map(proof.fleet.replica, proof.fleet.names))
    last: dict[str, frozenset[str] | None] = {}
    with proof.watch() as watch:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(0.5)
            last = {look.gateway: look.admitted for look in watch.looks}
            if len(last) == len(proof.gateways) and all(seen == everything for seen in last.values()):
                break
    return sum(seen == everything for seen in last.values())
