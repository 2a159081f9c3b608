"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path, umask: object) -> None:
    files.write_text(tmp_path / "own/report", "é\n")
    files.write_text(tmp_path / "lock", "text", files.READABLE)
    assert (mode(tmp_path / "own/report"), mode(tmp_path / "lock")) == (0o600, 0o644)
    assert mode(tmp_path / "own") == 0o700
    assert (tmp_path / "own/report").read_text("utf-8") == "é\n"


def test_a_readable_file_makes_a_folder_that_can_be_entered(tmp_path: Path) -> None:
    files.write_text(tmp_path / "docker/daemon.json", "{}", files.READABLE)
    assert mode(tmp_path / "docker") == 0o755


def test_a_file_is_replaced_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "utf-8")
    path.chmod(0o644)
    with path.open(encoding="utf-8") as reader:
        files.write_text(path, "new", durable=True)
        assert reader.read() == "old"
    assert path.read_text("utf-8") == "new" and mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_move_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "utf-8")

    def move(new: str, target: str) -> None:
        assert Path(new).read_text("utf-8") == "new" and Path(new).parent == Path(target).parent
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        files.write_text(path, "new", move=move)
    assert path.read_text("utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old", "utf-8")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert path.read_text("utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_another_way_to_move_is_used(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "text", move=shutil.move)
    assert (tmp_path / "file").read_text("utf-8") == "text"


def test_json_is_written_for_people_too(tmp_path: Path) -> None:
    files.write_json(tmp_path / "report.json", {"b": "ü", "a": [1]})
    text = (tmp_path / "report.json").read_text("utf-8")
    assert json.loads(text) == {"b": "ü", "a": [1]}
    assert text.startswith('{\n  "b": "ü"') and text.endswith("}\n")


def test_a_report_that_is_no_json_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    files.write_json(path, {"ok": True})
    with pytest.raises(TypeError):
        files.write_json(path, {"ok": object()})
    assert json.loads(path.read_text("utf-8")) == {"ok": True} and list(tmp_path.iterdir()) == [path]


def test_only_the_first_creates(tmp_path: Path) -> None:
    path = tmp_path / "keys/api_key"
    assert files.create_text(path, "first") is True
    assert files.create_text(path, "second") is False
    assert path.read_text("utf-8") == "first" and mode(path) == 0o600 and mode(path.parent) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_read_is_not_absent(tmp_path: Path) -> None:
    assert files.text_of(tmp_path / "none") is None
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name, found in ((".", "Is a directory"), ("loop", "Too many levels of symbolic links"), ("bytes", "no text")):
        with pytest.raises(Unmet, match=rf"to read the list in .*, found {found}\. Next: look at the file"):
            files.text_of(tmp_path / name, f"the list in {tmp_path / name}")
