"""Engine sources and the interpreter that loads their parsers; downloaded once into the cache directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from simulator.engines import parser_loader

# Engine, version, cells, refused, distinct lines accepted.
Figures = list[tuple[str, str, int, int, int]]
_FIGURES = pytest.StashKey[Figures]()
Parse = Callable[[str, str, Sequence[str]], parser_loader.ParseResult]


@pytest.fixture(scope="session")
def parser_python() -> Path:
    """Interpreter of the parser environment."""
    return parser_loader.ensure_python()


@pytest.fixture(scope="session")
def engine_parse(parser_python: Path) -> Parse:
    """Parse a command line with the parser of the named engine version."""

    def run(engine: str, version: str, argv: Sequence[str]) -> parser_loader.ParseResult:
        source = parser_loader.fetch_source(engine, version)
        return parser_loader.parse(engine, version, source, argv, parser_python)

    return run


@pytest.fixture(scope="session")
def matrix_figures(request: pytest.FixtureRequest) -> Figures:
    """Where the matrix test leaves its figures, one row per engine version."""
    return request.config.stash.setdefault(_FIGURES, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the figures of a worker process (pytest-xdist) to the one that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["matrix_figures"] = session.config.stash.get(_FIGURES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the figures of a worker process that is done."""
    rows = getattr(node, "workeroutput", {}).get("matrix_figures", [])
    node.config.stash.setdefault(_FIGURES, []).extend(tuple(row) for row in rows)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how much of the matrix was planned, and how many command lines the engines' own parsers took."""
    rows = config.stash.get(_FIGURES, [])
    if not rows:
        return
    terminalreporter.section("supported matrix")
    titles = ("engine", "cells", "planned", "refused", "distinct lines accepted")
    terminalreporter.write_line("{:<20} {:>7} {:>8} {:>8} {:>24}".format(*titles))
    for engine, version, cells, refused, lines in sorted(rows):
        name = f"{engine} {version}"
        terminalreporter.write_line(f"{name:<20} {cells:>7} {cells - refused:>8} {refused:>8} {lines:>24}")
    cells, refused, lines = (sum(row[column] for row in rows) for column in (2, 3, 4))
    terminalreporter.write_line(f"{'all':<20} {cells:>7} {cells - refused:>8} {refused:>8} {lines:>24}")
