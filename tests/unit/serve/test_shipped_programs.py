"""A program that a host or an image runs by itself comes with everything that it imports of the collection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.modules import model_weights
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import shipped


def imports(entry: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Import it in a Python that has nothing else, as on a host."""
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import {entry}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", shipped._PROGRAMS)
def test_a_program_of_a_host_is_whole(name: str, tmp_path: Path) -> None:
    program = shipped._PROGRAMS[name]
    for file in shipped.shipped_program(name):
        path = tmp_path / Path(file["path"]).relative_to(program.folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"], encoding="utf-8")
    done = imports(f"shipped.{program.entry}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_fetcher_of_weights_is_whole(tmp_path: Path) -> None:
    for code in model_weights.FETCHER:
        path = tmp_path / Path(*code.__name__.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Path(str(code.__file__)).read_text("utf-8"), encoding="utf-8")
    done = imports(model_weights.FETCHER[0].__name__, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_program_that_there_is_not_is_refused() -> None:
    with pytest.raises(shipped.UnknownProgram, match="door_order or door_drain or expiry"):
        shipped.shipped_program("guard")
