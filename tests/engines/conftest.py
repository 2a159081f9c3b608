"""Engine sources and the interpreter that loads their parsers; downloaded once into the cache directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from simulator.engines import parser_loader

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
