"""Tables of the catalogue that are made from each engine version's wheel: which there are, and the command line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import yaml

ROOT = Path(__file__).resolve().parents[1]
ENGINES = ROOT / "catalog" / "engines"


def known_versions() -> list[tuple[str, str]]:
    """All (engine, version) pairs of the catalogue."""
    files = sorted(ENGINES.glob("*/versions.yml"))
    return [(path.parent.name, version) for path in files for version in yaml.safe_load(path.read_bytes())["versions"]]


def table_path(kind: str, engine: str, version: str) -> Path:
    """Where the table of a version is. ``kind``: flags or routes."""
    return ENGINES / engine / kind / f"{version}.json"


def main(doc: Optional[str], kind: str, row: str, render: Callable[[str, str], str]) -> int:
    """Write or check the tables of a kind; 1 when a committed one differs. ``row``: the key that each row has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="engine:version")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    wanted = [tuple(item.split(":", 1)) for item in asked.versions] or known_versions()
    differing = 0
    for engine, version in wanted:
        path = table_path(kind, engine, version)
        text = render(engine, version)
        if asked.check:
            same = path.is_file() and path.read_text(encoding="utf-8") == text
            differing += not same
            print(f"{engine} {path.name}: {'same' if same else 'DIFFERS'}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            rows = text.count(json.dumps(row))
            print(f"{engine} {path.name}: {rows} {kind}")
    return 1 if differing else 0
