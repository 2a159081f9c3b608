"""Rules about log lines stand on the engines' sources: the line that a rule names has the text that it looks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from simulator.engines import parser_loader

CATALOG = catalog.load()
# A message is written over several lines, and the number is that of one of them.
AROUND = 8
_PLACE = re.compile(r"(?:(\S+\.py))?:(\d+)|\((\d[\w.]*)\)")
_UNLETTERED = re.compile(r"\\[A-Za-z]|\[[^\]]*\][*+?]*|\(\?[:i]|[^A-Za-z0-9_ '.\\/-]+|\\")


def places(source: str) -> Iterator[tuple[str, str, int]]:
    """Version, path and line of each place; a place without a path is in the file before it."""
    path, waiting = "", []
    for match in _PLACE.finditer(source):
        if match.group(3):
            yield from ((match.group(3), *place) for place in waiting)
            waiting = []
        else:
            path = match.group(1) or path
            waiting.append((path, int(match.group(2))))


def literal(pattern: str) -> list[str]:
    """The pieces of a pattern that are plain text, without quotes and space at their ends."""
    return [piece for piece in (part.strip(" '.-") for part in _UNLETTERED.split(pattern)) if len(piece) >= 7]


RULES = [
    (engine.name, kind, rule)
    for engine in CATALOG.engines.values()
    for kind in ("causes", "cascades", "wrappers", "harmless")
    for rule in getattr(engine, kind)
]


def test_every_rule_names_its_source() -> None:
    assert [(engine, rule.pattern) for engine, _kind, rule in RULES if not list(places(rule.source))] == []


@pytest.mark.parametrize("engine", sorted(CATALOG.engines))
def test_the_source_of_every_rule_has_its_text(engine: str) -> None:
    missing, seen = [], 0
    for name, _kind, rule in RULES:
        for version, path, line in places(rule.source) if name == engine else ():
            file = parser_loader.fetch_source(engine, version) / path
            seen += 1
            if not any(piece in text(file, line) for piece in literal(rule.pattern)):
                missing.append((rule.pattern, version, path, line))
    print(f"\n{engine}: {seen} places read")
    assert missing == [] and seen


def text(file: Path, line: int) -> str:
    """Some lines of a file without quotes, as one text."""
    near = file.read_text(encoding="utf-8").splitlines()[max(0, line - AROUND) : line + AROUND]
    joined = " ".join(re.sub(r"""\bf?["']|["']""", "", row).strip() for row in near)
    return re.sub(r"\s+", " ", joined)
