"""Print ``<passed> <failed>`` of a pytest JUnit report, for the table that ends a test run."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def counts(report: Path) -> tuple[int, int]:
    """Passed and failed tests (errors count as failed, skipped as neither); (0, 1) without a readable report."""
    try:
        suites = ET.parse(report).getroot().iter("testsuite")
        totals = [{k: int(s.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")} for s in suites]
    except (OSError, ET.ParseError):
        return 0, 1
    failed = sum(t["failures"] + t["errors"] for t in totals)
    return sum(t["tests"] - t["skipped"] for t in totals) - failed, failed


if __name__ == "__main__":
    print(*counts(Path(sys.argv[1])))
