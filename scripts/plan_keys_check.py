#!/usr/bin/env python3
"""Rename every key of the serving plan in a copy of its schema, and require that mypy notices each of them.

A key can then not be renamed in one place only. That readers take a plan by its type is checked in tests/unit.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = Path("ansible_collections/glm/fleet/plugins")
SCHEMA = Path("plugin_utils/plan/schema.py")
ENDING = "_renamed"


def keys(source: str) -> dict[str, list[str]]:
    """The keys of each TypedDict in ``source``."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            found[node.name] = [part.target.id for part in fields if isinstance(part.target, ast.Name)]
    return found


def renamed(source: str, kinds: Iterable[str]) -> str:
    """``source`` with another name for every key of these TypedDicts."""
    blocks = re.split(r"(?m)^(?=class )", source)
    for number, block in enumerate(blocks):
        if block.startswith(tuple(f"class {kind}(" for kind in kinds)):
            blocks[number] = re.sub(r"(?m)^(    [a-z_]+)(: )", rf"\1{ENDING}\2", block)
    return "".join(blocks)


def named(line: str) -> set[tuple[str, str]]:
    """TypedDict and key of an error about a key, in one of mypy's wordings; of a union it names the types alone."""
    ambiguous = re.search(r"Type of TypedDict is ambiguous, none of \((.*)\) matches", line)
    if ambiguous:
        return {(kind, "*") for kind in re.findall(r'"(\w+)"', ambiguous.group(1))}
    kind = re.search(r'TypedDict "(\w+)"', line)
    return {(kind.group(1), key) for key in re.findall(r'"(\w+)"', line)} if kind else set()


def missed(scratch: Path, source: str, kinds: Iterable[str]) -> list[str]:
    """Keys of these TypedDicts that may be renamed without an error."""
    plugins = scratch / COLLECTION
    (plugins / SCHEMA).write_text(renamed(source, kinds), encoding="utf-8")
    rooms = [str(plugins / room) for room in ("plugin_utils", "action", "filter")]
    done = subprocess.run(
        ["mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", f"{scratch}/cache", *rooms],
        env={**os.environ, "MYPYPATH": str(scratch)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seen = set().union(*map(named, done.stdout.splitlines()))
    return [f"{kind}.{key}" for kind in kinds for key in keys(source)[kind] if not {(kind, key), (kind, "*")} & seen]


def main() -> int:
    """Returns the exit status."""
    source = (ROOT / "plugins" / SCHEMA).read_text(encoding="utf-8")
    parts = [kind for kind in keys(source) if kind != "Plan"]
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "plugins", Path(scratch) / COLLECTION, ignore=shutil.ignore_patterns("__pycache__"))
        # One after the other: mypy does not check what is below a key that it cannot find.
        found = [*missed(Path(scratch), source, ["Plan"]), *missed(Path(scratch), source, parts)]
    if found:
        print(f"mypy does not notice when these are renamed: {', '.join(found)}")
        return 1
    print(f"mypy notices when any of {sum(map(len, keys(source).values()))} keys is renamed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
