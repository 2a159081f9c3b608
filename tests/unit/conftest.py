"""Tests here are pure: whoever changes a line runs all of them in less than a minute.

What runs Ansible, a browser or a server, or waits for the clock, belongs to tests/playbooks. It is refused here.
"""

from __future__ import annotations

import socketserver
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

ELSEWHERE = "belongs to tests/playbooks: tests/unit is pure"
PROGRAMS = ("ansible", "chrom")
LONGEST_WAIT = 0.5
"""Seconds between two looks at something."""


@pytest.fixture(autouse=True)
def pure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that starts what does not belong here."""
    start, sleep = subprocess.Popen.__init__, time.sleep

    def serve(*_arguments: Any, **_options: Any) -> NoReturn:
        pytest.fail(f"a server {ELSEWHERE}")

    def popen(process: Any, args: Any, *arguments: Any, **options: Any) -> None:
        program = Path(str(args if isinstance(args, (str, bytes, Path)) else args[0])).name
        if program.startswith(PROGRAMS):
            pytest.fail(f"{program} {ELSEWHERE}")
        start(process, args, *arguments, **options)

    def wait(seconds: float) -> None:
        if seconds > LONGEST_WAIT:
            pytest.fail(f"a sleep of {seconds:g} s {ELSEWHERE}")
        sleep(seconds)

    monkeypatch.setattr(socketserver.BaseServer, "__init__", serve)
    monkeypatch.setattr(subprocess.Popen, "__init__", popen)
    monkeypatch.setattr(time, "sleep", wait)
