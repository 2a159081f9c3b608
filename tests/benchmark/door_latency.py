"""What door and gateway add to the engine itself: latency of requests and of the first token, memory of open streams.

    .venv/bin/python tests/benchmark/door_latency.py [--seconds 4] [--rounds 3] [--streams 1000]

Both are the real HAProxy with the templates that hosts get; the gateway is in front of a door, both with TLS. Behind
them is an engine that answers after a set time, so that the processors are not the limit: what is measured is the way,
not the queue. What two HAProxies add that only pass on is shown beside. Requests are sent by wrk (package wrk),
directly and through them in turn, kept alive and on a fresh connection each, with TLS and without, on 1, 32 and 256
connections. Each connection pauses for a random time before a request: without that all of them ask, and are answered,
at the same moment for ever. Streams are read by this program and sent by another process: their first token comes at
once, the others one by one.
Run it on an idle machine. Printed are medians of the rounds; nothing fails (``make roll-proof`` has bounds).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / ".collections")]

from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from tests.playbooks.door import gateways, proxy

# Connections, and the milliseconds that the engine takes: about 320 requests per second with the pauses.
LOADS = ((1, 2), (32, 50), (256, 400))
# Tokens of a stream and the seconds between them: of one that is measured, and of one that stays open.
SHORT, LONG = (25, 0.02), (600, 1.0)
STREAM_RATE = 40
_CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
# A conversation, whose gateway reads which one it is and whose door counts its tokens.
_CHAT = '{"model":"glm-5.1-fp8","messages":[{"role":"user","content":"conversation"}]}'
# Ways through two proxies.
_THROUGH = ("gateway, TLS", "two bare, TLS")
_SCALE = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Sample:
    """Milliseconds."""

    p50: float
    p99: float


@contextmanager
def answering(folder: Path, port: int, wait: int) -> Iterator[None]:
    """An engine that answers a request after ``wait`` milliseconds: HAProxy again, which waits without a processor."""
    body = '{"object":"list","data":[{"id":"glm-5.1-fp8","object":"model","max_model_len":202752}]}'
    script, config = folder / "wait.lua", folder / "engine.cfg"
    script.write_text(f'core.register_action("wait", {{"http-req"}}, function(txn) core.msleep({wait}) end)\n')
    config.write_text(
        f"global\n  lua-load {script}\n  maxconn 4096\ndefaults\n  mode http\n  timeout client 1m\n"
        f"frontend engine\n  bind 127.0.0.1:{port}\n  http-request lua.wait\n"
        f"  http-request return status 200 content-type application/json string '{body}'\n"
    )
    process = subprocess.Popen([proxy.program(), "-f", str(config), "-q"])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.terminate()
        process.wait()


def asked(url: str, connections: int, seconds: int, fresh: bool, pauses: Path) -> Sample:
    """Requests to ``url`` for so many seconds, with a script of pauses."""
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    command = [
        wrk,
        "-t",
        "1",
        "-c",
        str(connections),
        "-d",
        f"{seconds}s",
        "--latency",
        "--timeout",
        "30s",
        "-s",
        str(pauses),
    ]
    command += ["-H", f"Authorization: Bearer {proxy.CLIENT_KEY}", *(["-H", "Connection: close"] if fresh else []), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"not every request was answered:\n{said}")
    found = {part: float(value) * _SCALE[unit] for part, value, unit in re.findall(r"(50|99)%\s+([\d.]+)(\w+)", said)}
    return Sample(found["50"], found["99"])


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: tuple[int, float]) -> None:
    """One request of an engine that streams."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        tokens, seconds = pace
        for number in range(tokens):
            if number:
                await asyncio.sleep(seconds)
            writer.write(f"{len(_CHUNK):x}\r\n".encode() + _CHUNK + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def _serve(port: int, pace: tuple[int, float]) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: _stream(reader, writer, pace), "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


def _run_engine(port: int, pace: tuple[int, float]) -> None:
    asyncio.run(_serve(port, pace))


@contextmanager
def streaming(port: int, pace: tuple[int, float]) -> Iterator[None]:
    """An engine that streams at a pace on a port, in a process of its own as a real one."""
    process = multiprocessing.get_context("spawn").Process(target=_run_engine, args=(port, pace), daemon=True)
    process.start()
    try:
        while True:
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.join()


_REQUEST = (
    f"GET /v1/models HTTP/1.1\r\nHost: door\r\nConnection: close\r\nAuthorization: Bearer {proxy.CLIENT_KEY}\r\n\r\n"
).encode()


async def first_token(port: int, tls: ssl.SSLContext | None) -> float:
    """Milliseconds from a request on an open connection to the first token; the rest is read to its end."""
    name = "127.0.0.1" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    begun = time.perf_counter()
    writer.write(_REQUEST)
    await reader.readuntil(b"\n\n")
    took = (time.perf_counter() - begun) * 1000
    while await reader.read(65536):
        pass
    writer.close()
    return took


async def first_tokens(ports: dict[str, tuple[int, ssl.SSLContext | None]], count: int) -> dict[str, Sample]:
    """First tokens of streams that begin at a steady rate, of each way in turn."""
    running: dict[str, list[asyncio.Task[float]]] = {name: [] for name in ports}
    for _number in range(count):
        for name, (port, tls) in ports.items():
            running[name].append(asyncio.create_task(first_token(port, tls)))
            await asyncio.sleep(1 / STREAM_RATE)
    found = {name: sorted(await asyncio.gather(*tasks)) for name, tasks in running.items()}
    return {name: Sample(statistics.median(all_), all_[int(len(all_) * 0.99)]) for name, all_ in found.items()}


async def held(port: int, tls: ssl.SSLContext | None, count: int, process: int) -> int:
    """Bytes that HAProxy has in memory while so many streams are open."""
    name = "127.0.0.1" if tls else None
    writers = []
    for _number in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        writer.write(_REQUEST)
        await reader.readuntil(b"\n\n")
        writers.append(writer)
    taken = resident(process)
    for writer in writers:
        writer.transport.abort()
    return taken


def resident(process: int) -> int:
    """Bytes in memory of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if process in (int(fields["Pid"]), int(fields["PPid"])):
            total += int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
    return total


@contextmanager
def bare(folder: Path, engine: int, certificate: str, authorities: Path) -> Iterator[int]:
    """Two HAProxies with TLS that only pass on: what two hops cost on this machine, whatever is configured in them."""
    outer, inner = proxy.free_ports(2)
    (folder / "bare.pem").write_text(certificate, "ascii")
    hops = {
        inner: f"127.0.0.1:{engine}",
        outer: f"127.0.0.1:{inner} ssl verify required ca-file {authorities}",
    }
    processes = []
    for port, server in hops.items():
        config = folder / f"bare-{port}.cfg"
        config.write_text(
            "global\n  maxconn 4096\n  nbthread 1\ndefaults\n  mode http\n  option http-no-delay\n"
            "  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
            f"listen bare\n  bind 127.0.0.1:{port} ssl crt {folder}/bare.pem\n  server next {server}\n"
        )
        processes.append(subprocess.Popen([proxy.program(), "-f", str(config), "-q"]))
    try:
        time.sleep(0.3)
        yield outer
    finally:
        for process in processes:
            process.terminate()
            process.wait()


@contextmanager
def doors(folder: Path, engine: int, certificate: str, ca: str) -> Iterator[dict[str, str]]:
    """The ways to an engine: where each begins."""
    plain, secure, gateway = folder / "plain", folder / "secure", folder / "gateway"
    for part in (plain, secure, gateway):
        part.mkdir(exist_ok=True)
    authorities = folder / "authorities.pem"
    authorities.write_text(ca, "ascii")
    with (
        proxy.running(plain, engine) as one,
        proxy.running(secure, engine, certificate=certificate) as other,
        gateways.before(gateway, other.port, certificate, authorities) as first,
        bare(folder, engine, certificate, authorities) as passing,
    ):
        yield {
            "direct": f"http://127.0.0.1:{engine}",
            "door": f"http://127.0.0.1:{one.port}",
            "door, TLS": f"https://127.0.0.1:{other.port}",
            "gateway, TLS": f"https://127.0.0.1:{first}",
            "two bare, TLS": f"https://127.0.0.1:{passing}",
        }


def overhead(seconds: int, rounds: int) -> dict[int, dict[str, Sample]]:
    """What gateway and door together, and two bare HAProxies, add to conversations on kept connections, by number."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as name:
        folder = Path(name)
        now = datetime.now(timezone.utc)
        signer = authority.read_or_make(folder / "tls", "benchmark", now)
        certificate = authority.issue(signer, ["127.0.0.1"], now).together
        for connections, wait in LOADS:
            (engine,) = proxy.free_ports(1)
            pauses = folder / "pauses.lua"
            pauses.write_text(
                f"wrk.method = 'POST'\nwrk.body = '{_CHAT}'\nwrk.headers['Content-Type'] = 'application/json'\n"
                f"function delay() return math.random(0, {2 * wait}) end\n"
            )
            with answering(folder, engine, wait), doors(folder, engine, certificate, signer.pem) as all_:
                ways = {way: f"{url}/v1/chat/completions" for way, url in all_.items() if way in ("direct", *_THROUGH)}
                samples = _medians(ways, lambda url: asked(url, connections, seconds, False, pauses), rounds)  # noqa: B023
            direct = samples["direct"]
            found[connections] = {
                way: Sample(samples[way].p50 - direct.p50, samples[way].p99 - direct.p99) for way in _THROUGH
            }
    return found


def _medians(ways: dict[str, str], ask: Callable[[str], Sample], rounds: int) -> dict[str, Sample]:
    """The medians of so many rounds of each way, in turn."""
    found: dict[str, list[Sample]] = {way: [] for way in ways}
    for _round in range(rounds):
        for way, url in ways.items():
            found[way].append(ask(url))
    return {
        way: Sample(statistics.median(one.p50 for one in all_), statistics.median(one.p99 for one in all_))
        for way, all_ in found.items()
    }


def requests_table(folder: Path, seconds: int, rounds: int, certificate: str, ca: str) -> None:
    print(f"{'connections':>11} {'kind':8} {'way':12} {'p50 ms':>8} {'p99 ms':>8} {'over':>8} {'p99 over':>9}")
    for connections, wait in LOADS:
        (engine,) = proxy.free_ports(1)
        pauses = folder / "pauses.lua"
        pauses.write_text(f"function delay() return math.random(0, {2 * wait}) end\n")
        with answering(folder, engine, wait), doors(folder, engine, certificate, ca) as all_:
            ways = {way: f"{url}/v1/models" for way, url in all_.items()}
            for fresh in (False, True):
                medians = _medians(ways, lambda url: asked(url, connections, seconds, fresh, pauses), rounds)  # noqa: B023
                _print_rows(connections, "fresh" if fresh else "kept", medians)


def _print_rows(connections: int, kind: str, medians: dict[str, Sample]) -> None:
    base = medians["direct"]
    for way, sample in medians.items():
        over = "" if way == "direct" else f"{sample.p50 - base.p50:+8.2f} {sample.p99 - base.p99:+9.2f}"
        print(f"{connections:11} {kind:8} {way:12} {sample.p50:8.2f} {sample.p99:8.2f} {over}", flush=True)


def streams_table(folder: Path, count: int, streams: int, certificate: str, ca: str) -> None:
    (engine,) = proxy.free_ports(1)
    tls = ssl.create_default_context(cadata=ca)
    with (
        proxy.running(folder / "plain", engine) as one,
        proxy.running(folder / "secure", engine, certificate=certificate) as other,
    ):
        ways = {"direct": (engine, None), "door": (one.port, None), "door, TLS": (other.port, tls)}
        with streaming(engine, SHORT):
            found = asyncio.run(first_tokens(ways, count))
        print(f"\nfirst token of {count} streams each, {STREAM_RATE} begun per second")
        print(f"{'way':12} {'p50 ms':>8} {'p99 ms':>8} {'over':>8} {'p99 over':>9}")
        base = found["direct"]
        for way, sample in found.items():
            over = "" if way == "direct" else f"{sample.p50 - base.p50:+8.2f} {sample.p99 - base.p99:+9.2f}"
            print(f"{way:12} {sample.p50:8.2f} {sample.p99:8.2f} {over}")
        with streaming(engine, LONG):
            for way, door in (("door", one), ("door, TLS", other)):
                port, context = ways[way]
                taken = asyncio.run(held(port, context, streams, door.process.pid))
                print(f"{way}: HAProxy holds {taken / 1e6:.0f} MB with {streams} open streams", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=1000)
    arguments = parser.parse_args()
    now = datetime.now(timezone.utc)
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as name:
        folder = Path(name)
        signer = authority.read_or_make(folder / "tls", "benchmark", now)
        certificate = authority.issue(signer, ["127.0.0.1"], now).together
        requests_table(folder, arguments.seconds, arguments.rounds, certificate, signer.pem)
        streams_table(folder, 200, arguments.streams, certificate, signer.pem)


if __name__ == "__main__":
    main()
