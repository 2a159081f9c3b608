"""What ends a test run: every stage, every skip with its reason, and the count as the last line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run_report

ROOT = Path(__file__).parents[3]
JUNIT = """<?xml version="1.0"?><testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">
<testcase classname="tests.unit.test_a" name="test_fast" time="0.01"/>
<testcase classname="tests.unit.test_a" name="test_slow" time="7.5"/>
<testcase classname="tests.unit.test_a" name="test_bad" time="1"><failure message="3 != 2">def test_bad():
&gt;       assert attempts == 2
E       AssertionError: 3 != 2
E        +  where 3 = attempts
test_a.py:7: AssertionError</failure></testcase>
<testcase classname="tests.unit.test_a" name="test_broken" time="0"><error message="no"/></testcase>
<testcase classname="tests.unit.test_a" name="test_left_out" time="0"><skipped message="no browser"/></testcase>
</testsuite></testsuites>"""


def ended(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/run_report.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unit.xml").write_text(JUNIT, "utf-8")
    rows = ["ruff\t1\t0\t0\t3\t2.5\t", "second ansible-core\t0\t0\t1\t0\t0\tonly 2.19 is here"]
    (tmp_path / "table.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return tmp_path


def test_errors_count_as_failed_and_skips_as_skipped(folder: Path) -> None:
    assert run_report.counts(folder / "unit.xml") == (2, 2, 1)


@pytest.mark.parametrize("text", [None, "<testsuites"])
def test_a_report_that_cannot_be_read_is_a_failure(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "unit.xml").write_text(text, "utf-8")
    assert run_report.counts(tmp_path / "unit.xml") == (0, 1, 0)


def test_a_run_ends_with_stages_slowest_tests_skips_and_the_count(folder: Path) -> None:
    done = ended(folder)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "1 passed, 0 failed, 1 skipped"
    assert lines[1].split() == ["ruff", "1", "0", "0", "3", "2"]
    slowest = lines.index("The 5 slowest tests:")
    assert lines[slowest + 1].split() == ["7.5", "s", "unit.test_a::test_slow", "(unit)"]
    skips = lines[lines.index("Skipped:") + 1 : lines.index("Failed:") - 1]
    assert [skip.strip() for skip in skips] == [
        "second ansible-core: only 2.19 is here",
        "unit.test_a::test_left_out  (unit): no browser",
    ]


def test_failures_stand_at_the_end_with_what_the_test_found(folder: Path) -> None:
    lines = ended(folder).stdout.splitlines()
    assert lines[lines.index("Failed:") + 1 : -2] == [
        "  unit.test_a::test_bad  (unit)",
        "      AssertionError: 3 != 2",
        "       +  where 3 = attempts",
        "  unit.test_a::test_broken  (unit)",
        "      no",
    ]


def test_a_failed_stage_fails_the_run(folder: Path) -> None:
    with (folder / "table.tsv").open("a") as table:
        table.write("unit\t2\t2\t1\t20\t30\t\n")
    done = ended(folder)
    assert done.returncode == 1 and done.stdout.splitlines()[-1] == "3 passed, 2 failed, 2 skipped"
