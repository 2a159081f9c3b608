"""The command line of the tools that make committed files: write them, or check that they are what they should be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[1]


def main(
    doc: Optional[str],
    made: Callable[[], Mapping[Path, str]],
    remedy: str,
    arguments: Optional[Sequence[str]] = None,
    whole: Sequence[Path] = (),
) -> int:
    """Write what differs, or with ``--check`` only name it. Returns the exit status.

    ``made``: the text of each file. ``remedy``: the command that writes them. ``whole``: folders of nothing else.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a committed file differs")
    check = parser.parse_args(arguments).check
    wanted = made()
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text]
    stale += [path for folder in whole for path in folder.glob("*") if path not in wanted]
    for path in stale:
        print(f"{path.relative_to(ROOT)} {f'differs; run {remedy}' if check else 'written'}", file=sys.stderr)
        if not check and path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        elif not check:
            path.unlink()
    return int(check and bool(stale))
