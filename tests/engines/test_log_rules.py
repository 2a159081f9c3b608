"""Rules about log lines stand on the engines' sources: the line that a rule names has the text that it looks for.

Of what an engine says of itself the whole message is looked at, since nothing else shows that these lines are met: most
are only written on GPUs.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from simulator.engines import wheels

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
            file = wheels.fetch_source(engine, version) / path
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


# What the engines put into their messages: a number, a name, a path, a list, and what SGLang says of its own arguments.
FILLINGS = (
    *("7", "1,024", "GPU", "Glm5", "/data/E=8,N=2048.json", "['CUSTOM']"),
    "ServerArgs(attention_backend='fa3', moe_runner_backend='triton', fp8_gemm_runner_backend='cutlass')",
)
REMARKS = [(engine.name, rule) for engine in CATALOG.engines.values() for rule in engine.remarks]


def messages(file: Path, line: int) -> Iterator[list[str]]:
    """The texts that a program writes near a line, each cut where something is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "%s" for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        else:
            continue
        if node.lineno <= line <= (node.end_lineno or node.lineno) or abs(node.lineno - line) <= AROUND:
            yield re.split(r"%\.?\d*[sdf]", "".join(map(str, parts)))


def is_written(pattern: str, pieces: list[str]) -> bool:
    """Whether a message reads like the pattern from its beginning, with something in its gaps."""
    for filling in itertools.product(FILLINGS, repeat=min(len(pieces) - 1, 4)):
        gaps = [*filling, *("7" for _ in pieces[len(filling) :])]
        if re.match(pattern, "".join(piece + gap for piece, gap in zip(pieces, [*gaps[:-1], ""], strict=True))):
            return True
    return False


def written(pattern: str, file: Path, line: int) -> bool:
    return any(is_written(pattern, pieces) for pieces in messages(file, line))


def test_every_remark_names_its_source() -> None:
    assert [(engine, rule.pattern) for engine, rule in REMARKS if not list(places(rule.source))] == []


@pytest.mark.parametrize("engine", sorted(CATALOG.engines))
def test_every_remark_is_a_message_of_the_engine(engine: str) -> None:
    """From its beginning, at the place that the rule names, in each release that it names."""
    named = [(rule, *place) for name, rule in REMARKS if name == engine for place in places(rule.source)]
    missing = [
        (rule.pattern, version, path, line)
        for rule, version, path, line in named
        if not written(rule.pattern, wheels.fetch_source(engine, version) / path, line)
    ]
    print(f"\n{engine}: {len(named)} places read")
    assert missing == [] and named


def test_a_wrong_source_is_seen() -> None:
    rule = next(rule for name, rule in REMARKS if name == "vllm" and rule.kind == "failed")
    version, path, line = next(places(rule.source))
    file = wheels.fetch_source("vllm", version) / path
    assert written(rule.pattern, file, line) and not written(rule.pattern, file, line - 60)
    assert not written(rule.pattern + " indeed", file, line)
    # It begins elsewhere.
    assert not written("falling back to Transformers", file, line)


def test_remarks_hold_in_the_releases_that_their_sources_are_of() -> None:
    wrong = [
        (rule.pattern, version)
        for _engine, rule in REMARKS
        for version, _path, _line in places(rule.source)
        if not rule.holds(version)
    ]
    assert wrong == []


def test_remarks_say_what_is_the_matter_and_what_to_do() -> None:
    for _engine, rule in REMARKS:
        groups = re.compile(rule.pattern).groups
        used = {int(number) for number in re.findall(r"\\(\d)", rule.says + rule.next)}
        assert max(used, default=0) <= groups, rule.pattern
        assert bool(rule.says) == (rule.kind != "pool") and (rule.next or rule.kind != "failed"), rule.pattern
        assert rule.kind != "pool" or groups == 1, rule.pattern
