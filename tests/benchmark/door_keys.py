"""Measure what reading tokens out of streams costs at the door.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/door_keys.py [--streams 1000]``. The real HAProxy
runs with the collection's template in front of an engine of the test.

1. Processor time of HAProxy for an event of a stream, on a route whose tokens are read and on one whose are not.
2. Its memory for each of many open streams whose tokens are read.

What a change of 1,000 keys under load takes, ``playbooks/door/test_door_keys.py`` measures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.module_utils.door.master import Master
from tests.playbooks.door import proxy, scripted
from tests.playbooks.door.proxy import Door, entry
from tests.playbooks.door.scripted import Client, Engine

KEY = "key-of-the-load"
EVENT = 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":"word"}}]}\n\n'
READ, UNREAD = "/v1/chat/completions", "/v1/messages/count_tokens"
EVENTS = 2000
PAGE, TICK = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def served() -> Iterator[tuple[Engine, Door]]:
    """A door in front of an engine."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scripted.engine() as engine,
        proxy.running(Path(folder), engine.port, keys=[entry("load", KEY)]) as door,
    ):
        yield engine, door


def worker(door: Door) -> int:
    """The process that does the work."""
    return Master(door.folder / "master.sock").processes()[0].pid


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1]) * PAGE


def event_cost(rounds: int) -> str:
    """The line of the first measurement."""
    costs: dict[str, list[float]] = {READ: [], UNREAD: []}
    with served() as (_engine, door):
        pid = worker(door)
        for _ in range(rounds):
            for path, found in costs.items():
                begun = processor_seconds(pid)
                for _stream in range(5):
                    scripted.ask(door.port, KEY, path, pieces=[EVENT] * EVENTS)
                found.append((processor_seconds(pid) - begun) / (5 * EVENTS) * 1e6)
    read, unread = (statistics.median(found) for found in costs.values())
    return (
        f"An event of a stream takes HAProxy {unread:.1f} us of processor time, "
        f"{read:.1f} us where its tokens are read (x{read / unread:.2f})"
    )


def stream_memory(count: int) -> str:
    """The line of the second measurement."""
    with served() as (engine, door):
        pid = worker(door)
        scripted.ask(door.port, KEY)
        before = resident_bytes(pid)
        clients = [Client(door.port, KEY) for _ in range(count)]
        for client in clients:
            client.begin(pieces=[EVENT] * 200, hold=True)
        for _client in clients:
            assert engine.held.acquire(timeout=60)
        each = (resident_bytes(pid) - before) / count
        engine.go.set()
        for client in clients:
            client.close()
    return f"{count} open streams whose tokens are read take {each * count / 1e6:.0f} MB, {each / 1e3:.0f} kB each"


def main() -> int:
    """Print the two lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    chosen = parser.parse_args()
    for line in (event_cost(5), stream_memory(chosen.streams)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
