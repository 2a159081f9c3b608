"""Measure how many turns meet the host of their conversation, through a real gateway in front of stand-ins for doors.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/gateway_affinity.py [--turns 1000]``. So many
conversations as ``--conversations`` says take turns, some of them at a time; a turn is held for ``--seconds`` at its
host. The host of a conversation is the one that it has while nothing else runs. Two gateways share what runs at once:
of 10 at a time each has 5, which is what is asked of the one here. On a machine that is too busy for the checks of the
gateway, which have half a second, hosts seem to be away: such turns count as not met, and refused ones are left out.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from tests.playbooks.door import gateways

BODY = {"model": "glm", "messages": [{"role": "user", "content": "a turn"}]}


def met(gateway: gateways.Gateway, names: list[str], at_once: int, turns: int) -> float:
    """The share of turns that meet the host of their conversation, of which no two turns run at once."""
    homes = {name: gateway.host_of(BODY, **{"x-session-id": name}) for name in names}
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in random.Random(1).sample(names, len(names)):
        free.put(name)

    def turn(_number: int) -> bool | None:
        name = free.get()
        status, answer = gateway.ask(BODY, **{"x-session-id": name})
        free.put(name)
        return answer["host"] == homes[name] if status == 200 else None

    with ThreadPoolExecutor(at_once) as pool:
        answered = [found for found in pool.map(turn, range(turns)) if found is not None]
    return sum(answered) / len(answered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.05)
    parser.add_argument("--hosts", type=int, nargs="+", default=[3, 4, 8])
    parser.add_argument("--at-once", type=int, nargs="+", default=[5, 10, 25])
    arguments = parser.parse_args()
    names = [f"conversation {number}" for number in range(arguments.conversations)]
    begun = time.process_time()
    print("at once, of one gateway".ljust(26), *(f"{count:>8}" for count in arguments.at_once))
    for hosts in arguments.hosts:
        folder = tempfile.TemporaryDirectory(prefix="glm-benchmark-")
        with folder as name, gateways.running(Path(name), hosts=hosts) as gateway:
            gateways.until(lambda: gateway.ask(BODY)[0] == 200, "the gateway sends requests on")
            for host in gateway.hosts:
                host.takes = arguments.seconds
            shares = [met(gateway, names, count, arguments.turns) for count in arguments.at_once]
        print(f"{hosts} hosts".ljust(26), *(f"{share:>8.1%}" for share in shares), flush=True)
    print(f"\n{time.process_time() - begun:.1f} s of this processor, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
