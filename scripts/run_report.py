"""The end of a test run: stages, the slowest tests, what was skipped and why, what failed, and the count.

    python scripts/run_report.py FOLDER

``FOLDER/table.tsv`` has one line for each check and each run of pytest: name, passed, failed, skipped, seconds, seconds
of processor time, reason of a skip. Next to it lie pytest's JUnit reports (``*.xml``). Ends with 1 when a test failed.

    python scripts/run_report.py --counts REPORT

prints ``passed<TAB>failed<TAB>skipped`` of one report, and what no report can say counts as one failure.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

SLOWEST = 25
# Of what a failed test found; the whole text is in the log of its stage.
FOUND_LINES = 8
LINE_LENGTH = 300


class Row(NamedTuple):
    """One line of the table. ``cpu`` leaves out what runs in hosts."""

    name: str
    passed: int
    failed: int
    skipped: int
    wall: float
    cpu: float
    reason: str


class Case(NamedTuple):
    """One test; ``skipped`` is the reason, empty when it ran; ``found`` is empty when it passed."""

    name: str
    seconds: float
    skipped: str
    found: list[str]


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed and skipped tests; errors count as failed; (0, 1, 0) without a readable report."""
    try:
        suites = list(ET.parse(report).getroot().iter("testsuite"))
    except (OSError, ET.ParseError):
        return 0, 1, 0
    tests, failed, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites for key in keys)
        for keys in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return tests - failed - skipped, failed, skipped


def cases(report: Path) -> list[Case]:
    """All tests of a report; none when it cannot be read."""
    try:
        found = ET.parse(report).getroot().iter("testcase")
    except (OSError, ET.ParseError):
        return []
    return [_case(element, report.stem) for element in found]


def _case(element: ET.Element, run: str) -> Case:
    place = element.get("classname", "").removeprefix("tests.")
    skipped = element.find("skipped")
    reason = "" if skipped is None else skipped.get("message") or "no reason given"
    name = f"{place}::{element.get('name')}  ({run})"
    return Case(name, float(element.get("time", 0)), reason, _found(element))


def _found(element: ET.Element) -> list[str]:
    """What pytest marks with an E in the traceback, or the message alone; empty for a test that passed."""
    failed = next((element.find(kind) for kind in ("failure", "error") if element.find(kind) is not None), None)
    if failed is None:
        return []
    marked = [line[8:] for line in (failed.text or "").splitlines() if line.startswith("E ")]
    return [line[:LINE_LENGTH] for line in marked or [failed.get("message") or "no message"]][:FOUND_LINES]


def rows(table: Path) -> list[Row]:
    """The stages in the order in which they ended."""
    parts = [line.split("\t") for line in table.read_text("utf-8").splitlines()]
    return [
        Row(name, int(passed), int(failed), int(skipped), float(wall), float(cpu), reason)
        for name, passed, failed, skipped, wall, cpu, reason in parts
    ]


def report(folder: Path) -> str:
    """Everything that is printed."""
    table = rows(folder / "table.tsv")
    tests = [case for path in sorted(folder.glob("*.xml")) for case in cases(path)]
    lines = [f"{'stage':<46} {'passed':>7} {'failed':>7} {'skipped':>7} {'wall s':>8} {'cpu s':>8}"]
    lines += [
        f"{row.name:<46} {row.passed:>7} {row.failed:>7} {row.skipped:>7} {row.wall:>8.0f} {row.cpu:>8.0f}"
        for row in table
    ]
    slowest = sorted(tests, key=lambda case: -case.seconds)[:SLOWEST]
    if slowest:
        lines += ["", f"The {len(slowest)} slowest tests:"]
        lines += [f"{case.seconds:>8.1f} s  {case.name}" for case in slowest]
    skips = [f"{row.name}: {row.reason}" for row in table if row.reason]
    skips += [f"{case.name}: {case.skipped}" for case in tests if case.skipped]
    if skips:
        lines += ["", "Skipped:", *(f"  {skip}" for skip in skips)]
    broken = [case for case in tests if case.found]
    if broken:
        lines += ["", "Failed:"]
        for case in broken:
            lines += [f"  {case.name}", *(f"      {line}" for line in case.found)]
    passed = sum(row.passed for row in table)
    failed = sum(row.failed for row in table)
    skipped = sum(row.skipped for row in table)
    lines += ["", f"{passed} passed, {failed} failed, {skipped} skipped"]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "--counts":
        print(*counts(Path(sys.argv[2])), sep="\t")
    else:
        folder = Path(sys.argv[1])
        print(report(folder))
        sys.exit(any(row.failed for row in rows(folder / "table.tsv")))
