"""Measure what the front door adds to a request: a real HAProxy with the product's configuration against direct.

Run from the root of a checkout: ``.venv/bin/python tests/benchmark/door_overhead.py [--requests 400] [--rounds 3]``.
The engine is a loopback server that answers at once, so that nothing but the way is measured. Requests come at a steady
rate, spread over the connections: without pauses the figures would be those of a full machine. Direct and door are
asked in turn, round after round, so that a busy machine slows both alike. The table shows milliseconds over direct, at
the median and at the 99th percentile of all rounds: of whole answers, and of the first piece of a stream. Below it: the
memory of the door with 1,000 open streams. Client, door and engine share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from tests.playbooks.door import proxy

OPEN_STREAMS = 1000
REQUESTS_PER_SECOND = 200
_BODY = b'{"choices":[{"message":{"role":"assistant","content":"Hello"}}],"usage":{"completion_tokens":1}}'
_WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECE = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'
_CHUNK = b"%x\r\n%s\r\n" % (len(_PIECE), _PIECE)


class Engine:
    """Answers at once. A stream stays open until ``let_go``, except for one that asks for its end."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _head(reader):
                close = b"connection: close" in request.lower()
                body = await reader.readexactly(_length(request))
                if b"stream" not in body:
                    writer.write(_WHOLE)
                else:
                    writer.write(_HEAD + _CHUNK)
                    if b"open" in body:
                        await self.let_go.wait()
                    writer.write(b"0\r\n\r\n")
                await writer.drain()
                if close:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def _head(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _request(body: bytes, kept: bool) -> bytes:
    connection = "keep-alive" if kept else "close"
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {proxy.CLIENT_KEY}\r\n"
        f"Connection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _ask(port: int, moments: Sequence[float], body: bytes, kept: bool, times: list[float]) -> None:
    """A request at each of these moments, over one connection or each over its own; seconds until its first piece."""
    reader = writer = None
    for moment in moments:
        await asyncio.sleep(moment - time.perf_counter())
        begun = time.perf_counter()
        if writer is None or reader is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request(body, kept))
        head = await _head(reader)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"expected an answer at port {port}, found {head[:200]!r}")
        if b"chunked" in head.lower():
            await reader.readuntil(_PIECE)
            times.append(time.perf_counter() - begun)
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(_length(head))
            times.append(time.perf_counter() - begun)
        if not kept:
            writer.close()
            reader = writer = None
    if writer:
        writer.close()


async def measured(ports: Sequence[int], connections: int, kept: bool, body: bytes, requests: int, rounds: int) -> str:
    """A row: the median and the 99th percentile of direct, and what the door adds, in milliseconds."""
    times: dict[int, list[float]] = {port: [] for port in ports}
    for _round in range(rounds):
        for port in ports:
            begun = time.perf_counter()
            moments = [begun + number / REQUESTS_PER_SECOND for number in range(requests)]
            asked = [_ask(port, moments[first::connections], body, kept, times[port]) for first in range(connections)]
            await asyncio.gather(*asked)
    direct, door = (statistics.quantiles(times[port], n=100) for port in ports)
    what = "first piece" if b"stream" in body else "answer"
    how = "kept alive" if kept else "fresh"
    figures = [1e3 * value for value in (direct[49], direct[98], door[49] - direct[49], door[98] - direct[98])]
    return f"{what:<12} {how:<11} {connections:>11}" + "".join(f"{figure:>12.2f}" for figure in figures)


async def memory(port: int, door: proxy.Door, engine: Engine) -> str:
    """What the door's processes hold with many open streams, in MB."""
    streams = []
    for _number in range(OPEN_STREAMS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request(b'{"stream": true, "open": true}', kept=True))
        await reader.readuntil(_PIECE)
        streams.append(writer)
    held = sum(_resident(pid) for pid in _family(door.process.pid))
    engine.let_go.set()
    for writer in streams:
        writer.close()
    return f"{OPEN_STREAMS} open streams: {held / 1e6:.0f} MB"


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(int(child) for child in children)]


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=400, help="of each kind in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    engine = Engine()
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, proxy.running(Path(folder), port) as door:
        ports = (port, door.port)
        print(f"{'ms':<24} connections  direct p50  direct p99   door +p50   door +p99")
        for body in (b"{}", b'{"stream": true}'):
            for kept in (True, False):
                for connections in (1, 32, 256):
                    print(await measured(ports, connections, kept, body, options.requests, options.rounds), flush=True)
        print(await memory(door.port, door, engine))


if __name__ == "__main__":
    asyncio.run(main())
