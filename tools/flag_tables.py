#!/usr/bin/env python3
"""Regenerate catalog/engines/<engine>/flags/<version>.json from each engine version's own parser.

Needs no engine: simulator/engines/parser_loader.py loads the argument parser from the unpacked wheel. Run it after
adding a version to catalog/engines/<engine>/versions.yml::

    python tools/flag_tables.py                     # every version the catalogue knows
    python tools/flag_tables.py vllm:0.32.0         # one
    python tools/flag_tables.py --check             # exit 1 when a committed table differs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simulator.engines import parser_loader

ENGINES = ROOT / "catalog" / "engines"


def known_versions() -> list[tuple[str, str]]:
    """All (engine, version) pairs of the catalogue."""
    files = sorted(ENGINES.glob("*/versions.yml"))
    return [(path.parent.name, version) for path in files for version in yaml.safe_load(path.read_bytes())["versions"]]


def table_path(engine: str, version: str) -> Path:
    """Where the table of a version is."""
    return ENGINES / engine / "flags" / f"{version}.json"


def render(engine: str, version: str, python: Path) -> str:
    """The text of one table: an option per line, so that a new version is a readable diff."""
    source = parser_loader.fetch_source(engine, version)
    options = parser_loader.describe(engine, version, source, python)
    names = parser_loader.parser_names(engine, version, source, python)
    lines = [
        "{",
        f' "engine": {json.dumps(engine)}, "version": {json.dumps(version)},',
        f' "tool_parsers": {json.dumps(names["tool"])},',
        f' "reasoning_parsers": {json.dumps(names["reasoning"])},',
        ' "options": [',
        ",\n".join("  " + json.dumps(_compact(option)) for option in options),
        " ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _compact(option: dict[str, object]) -> dict[str, object]:
    """Leave out what is usual (one value, any text, not deprecated)."""
    usual = {"nargs": 1, "choices": None, "type": None, "deprecated": False}
    return {key: value for key, value in option.items() if key not in usual or usual[key] != value}


def main() -> int:
    """Write or check the tables; the number of problems is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="engine:version")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    wanted = [tuple(item.split(":", 1)) for item in asked.versions] or known_versions()
    python = parser_loader.ensure_python()
    differing = 0
    for engine, version in wanted:
        path = table_path(engine, version)
        text = render(engine, version, python)
        if asked.check:
            same = path.is_file() and path.read_text(encoding="utf-8") == text
            differing += not same
            print(f"{engine} {path.name}: {'same' if same else 'DIFFERS'}")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{engine} {path.name}: {text.count('names')} options")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
