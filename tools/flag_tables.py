#!/usr/bin/env python3
"""Regenerate catalog/engines/<engine>/flags/<version>.json from each engine version's own parser.

Needs no engine: simulator/engines/parser_loader.py loads the argument parser from the unpacked wheel. Run it after
adding a version to catalog/engines/<engine>/versions.yml::

    python tools/flag_tables.py                     # every version the catalogue knows
    python tools/flag_tables.py vllm:0.32.0         # one
    python tools/flag_tables.py --check             # exit 1 when a committed table differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from simulator.engines import parser_loader, wheels
from tools import version_tables


def render(engine: str, version: str) -> str:
    """The text of one table: an option per line, so that a new version is a readable diff."""
    python = parser_loader.ensure_python()
    source = wheels.fetch_source(engine, version)
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
    """Leave out what is usual (one value, any text, not deprecated), and what no plan needs."""
    usual = {"nargs": 1, "choices": None, "type": None, "deprecated": False}
    kept = {key: value for key, value in option.items() if key not in ("dest", "default")}
    return {key: value for key, value in kept.items() if key not in usual or usual[key] != value}


if __name__ == "__main__":
    sys.exit(version_tables.main(__doc__, "flags", "names", render))
