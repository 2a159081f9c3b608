"""Run modules in this process, and stand in for the commands of a host with small scripts on PATH."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.testing import patch_module_args

FIXTURES = Path(__file__).parent / "unit" / "fixtures"


@pytest.fixture
def fixture_text() -> Callable[[str], str]:
    return lambda name: (FIXTURES / name).read_text("utf-8")


@pytest.fixture
def fake_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``fake_command(name, shell)`` puts a command on PATH; its calls are appended to ``<name>.calls``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, shell: str) -> Path:
        calls = tmp_path / f"{name}.calls"
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n{shell}\n', "utf-8")
        script.chmod(0o755)
        return calls

    return make


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """``run_module(main, check=False, **options)`` returns what the module would send back."""
    # Once a test of a plugin has run in this process, modules would print their warnings as the controller does.
    monkeypatch.setattr(_internal, "is_controller", False)

    def run(main: Callable[[], None], check: bool = False, **options: Any) -> dict[str, Any]:
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
        return result

    return run
