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
from hypothesis import settings

# A case of a test by random cases may take as long as a busy machine makes it.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Tests read what ansible-playbook prints of each task; tests/playbooks/test_console.py tests what people see.
os.environ["ANSIBLE_STDOUT_CALLBACK"] = "ansible.builtin.default"

FIXTURES = Path(__file__).parent / "unit" / "fixtures"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--first-cases", action="store_true", help="run the first case of each parametrised test only")
    parser.addoption(
        "--first-tests", action="store_true", help="of tests/playbooks, run the first test of each file only"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What another ansible-core need not repeat.

    With ``--first-cases``: the cases of a test run the same tasks. With ``--first-tests``: the first test of a file
    uses what all of it does.
    """
    first: dict[str, pytest.Item] = {}
    for item in items:
        file, _separator, name = item.nodeid.partition("::")
        one_each = config.getoption("--first-tests") and "tests/playbooks/" in file
        name = name.partition("[")[0] if config.getoption("--first-cases") else name
        first.setdefault(file if one_each and not item.get_closest_marker("one_core") else f"{file}::{name}", item)
    kept = set(map(id, first.values()))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


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
