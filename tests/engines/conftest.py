"""Engine sources and the interpreter that loads their parsers, downloaded once into the cache; the engines that run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes
from ansible_collections.glm.fleet.plugins.plugin_utils.tls import authority
from simulator.engines import parser_loader, trees, wheels
from tests.engines.live_engine import ADMIN, Running, started
from tests.playbooks.door import proxy
from tests.unit.serve.plans import plan

# Engine, version, cells, refused, distinct lines accepted.
Figures = list[tuple[str, str, int, int, int]]
_FIGURES = pytest.StashKey[Figures]()
Parse = Callable[[str, str, Sequence[str]], parser_loader.ParseResult]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand all tests of a running engine to one worker, so that each engine starts once; the others one by one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _separator, name = nodeid.partition("::")
            live = Path(file).name.startswith("test_live_")
            return next((engine for engine in trees.ENGINES if live and engine in name), nodeid)

    return ByEngine(config, log)


@pytest.fixture(scope="session", params=["vllm", "sglang"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Each engine behind doors with the allowlist of its version."""
    name: str = request.param
    allowed = routes.door(catalog.load(), name, trees.ENGINES[name].version)
    now = datetime.now(timezone.utc)
    signer = authority.read_or_make(tmp_path_factory.mktemp("tls"), "blue", now)
    pair = authority.issue(signer, ["127.0.0.1"], now).together
    places = [tmp_path_factory.mktemp(place) for place in (name, "door", "secure")]
    with pytest.MonkeyPatch.context() as patch, started(name, places[0], proxy.ENGINE_KEY, ADMIN) as port:
        patch.setattr(proxy, "plan", functools.partial(plan, name, door=allowed))
        with proxy.running(places[1], port) as front, proxy.running(places[2], port, certificate=pair) as secure:
            yield Running(name, port, front.port, secure.port, signer)


@pytest.fixture(scope="session")
def parser_python() -> Path:
    """Interpreter of the parser environment."""
    return parser_loader.ensure_python()


@pytest.fixture(scope="session")
def engine_parse(parser_python: Path) -> Parse:
    """Parse a command line with the parser of the named engine version."""

    def run(engine: str, version: str, argv: Sequence[str]) -> parser_loader.ParseResult:
        source = wheels.fetch_source(engine, version)
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
