"""Scenario of conversations: their turns stay with one host, also while and after another host is rolled."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.benchmark.fleet import counting, measured
from tests.benchmark.fleet.counting import ANSWERED, Asked
from tests.benchmark.fleet.load import MODEL
from tests.benchmark.fleet.measured import Check, Proof, at_least, equal

# Each conversation has a client of its own.
SESSIONS = WORKERS = 50
TURNS = 4
SHARE = 0.95
# Sizes that no other request of a rehearsal has, and by how much those of two turns differ.
_SMALLEST, _STEP = 30_000, 16
_LINE = re.compile(r"method=POST to=(\S+) .*bytes=(\d+)/")


class Talk:
    """Conversations through all gateways, and which host answered each turn."""

    def __init__(self, proof: Proof) -> None:
        self._proof, self._client = proof, proof.client()
        self._since = int(time.time()) - 1
        self._lock = threading.Lock()
        self._next = 0
        self.asked: list[Asked] = []
        # Session and number of a turn by the bytes of its body; phase of each turn.
        self._bodies: dict[int, tuple[str, int]] = {}
        self._phases: dict[tuple[str, int], str] = {}
        self._turns = dict.fromkeys((f"session {self._since} {number}" for number in range(SESSIONS)), 0)

    def round(self, phase: str) -> None:
        """One turn of every conversation, some at a time."""
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda name: self._turn(name, phase), self._turns))

    def _turn(self, name: str, phase: str) -> None:
        with self._lock:
            turn, number = self._turns[name], self._next
            self._turns[name], self._next = turn + 1, number + 1
        body: dict[str, Any] = {"model": MODEL, "stream": True, "max_tokens": 20, "user": ""}
        body["messages"] = [{"role": "user", "content": name}]
        for past in range(turn):
            body["messages"] += [{"role": "assistant", "content": f"{past}"}, {"role": "user", "content": f"on {past}"}]
        size = _SMALLEST + _STEP * number
        body["user"] = "u" * (size - counting.size_of(body))
        with self._lock:
            self._bodies[size] = (name, turn)
            self._phases[name, turn] = phase
        # Each turn from another client, so through another gateway.
        one = self._client.ask(body, turn, "turn")
        with self._lock:
            self.asked.append(one)

    def hosts(self) -> dict[tuple[str, int], str]:
        """Which replica answered each turn, by what the gateways wrote."""
        lines = []
        for gateway in self._proof.gateways:
            show = ("journalctl", "--unit=glm-gateway", f"--since=@{self._since}", "--output=cat", "--no-pager")
            lines += [(int(size), to) for to, size in _LINE.findall(self._proof.fleet.on(gateway, *show))]
        return counting.by_size(self._bodies, [line for line in lines if line[0] >= _SMALLEST])

    def by_phase(self) -> dict[str, dict[str, list[str]]]:
        """The hosts of each conversation's turns, in each phase."""
        found: dict[str, dict[str, list[str]]] = {}
        for (name, turn), host in sorted(self.hosts().items()):
            found.setdefault(self._phases[name, turn], {}).setdefault(name, []).append(host)
        return found


def affinity(proof: Proof) -> list[Check]:
    """Conversations before, while and after the last host is rolled."""
    rolled = proof.fleet.names[-1]
    out = proof.fleet.replica(rolled)
    talk = Talk(proof)
    talk.round("first")
    for _turn in range(TURNS - 1):
        talk.round("before")
    done = threading.Event()
    runs: list[Any] = []

    def roll() -> None:
        runs.append(proof.play("roll.yml", "--limit", f"{rolled},localhost"))
        done.set()

    thread = threading.Thread(target=roll)
    thread.start()
    while not done.wait(2):
        talk.round("meanwhile")
    thread.join()
    all_in = measured.admitting_all(proof)
    for _turn in range(TURNS):
        talk.round("after")
    turns = talk.by_phase()
    homes = {name: hosts[0] for name, hosts in turns["first"].items()}
    others = {name: hosts for name, hosts in turns["meanwhile"].items() if homes[name] != out}
    spread = {host: list(homes.values()).count(host) for host in sorted(set(homes.values()))}
    lost = [one for one in talk.asked if one.outcome != ANSWERED]
    return [
        equal("exit status of the roll", 0, runs[0].code),
        Check("turns lost", "0", f"{counting.lost(lost)} of {len(talk.asked)}", not lost),
        equal("gateways that admit every replica after the roll", len(proof.gateways), all_in),
        at_least("share of turns at their host", SHARE, counting.at_home(turns["before"], homes)),
        at_least("the same while another host is rolled", SHARE, counting.at_home(others, homes)),
        at_least("the same of all, after the roll", SHARE, counting.at_home(turns["after"], homes)),
        Check("conversations by host", "-", str(spread), len(spread) == len(proof.fleet.names)),
    ]
