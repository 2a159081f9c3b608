"""Command line of the simulated hub: ``python -m simulator.hub --listen HOST:PORT --repos DIR``.

Prints one line of JSON with its addresses once it listens, and stops on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from simulator.hub.server import Access, Hub


def address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` as a pair."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    result = argparse.ArgumentParser(prog="python -m simulator.hub", description="A model hub for rehearsals.")
    result.add_argument("--listen", type=address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    result.add_argument("--control", type=address, metavar="HOST:PORT", help="where faults are set; use loopback")
    result.add_argument("--repos", type=Path, required=True, help="folder with <organisation>/<name>/ in it")
    result.add_argument(
        "--with-tiny",
        action="append",
        default=[],
        metavar="REPOSITORY",
        help="write the tiny GLM checkpoint as this repository if it is missing",
    )
    result.add_argument("--token", action="append", default=[], help="a valid token (default: any token is valid)")
    result.add_argument("--gated", action="append", default=[], metavar="REPOSITORY", help="needs one of the tokens")
    return result


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    arguments = parser().parse_args(argv)
    arguments.repos.mkdir(parents=True, exist_ok=True)
    for repository in arguments.with_tiny:
        write_tiny(arguments.repos / repository)
    hub = Hub(arguments.repos, arguments.listen, arguments.control)
    hub.access = Access(set(arguments.token), {name: set(arguments.token) for name in arguments.gated})
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with hub:
        print(
            json.dumps({"url": hub.url, "control": hub.control_url, "repositories": hub.repositories.names()}),
            flush=True,
        )
        stop.wait()
    return 0


def write_tiny(folder: Path) -> None:
    """Write the tiny checkpoint with all lessons as this repository, unless it is there."""
    if (folder / "config.json").exists():
        return
    # Only this option needs the generator and what it imports.
    from simulator.engines import lessons, tiny_glm

    # Written beside and renamed, so an interrupted run leaves no half repository to be served.
    partial = folder.parent / f".{folder.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    tiny_glm.write(partial, lessons.load())
    partial.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
