"""host_files: many small files in one call, each replaced in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.glm.fleet.plugins.modules import host_files


def test_only_what_differs_is_written(tmp_path: Path, run_module: Any) -> None:
    same, other, new, gone = (tmp_path / name for name in ("same", "other", "folder/new", "gone"))
    same.write_text("1\n")
    same.chmod(0o644)
    other.write_text("old\n")
    gone.write_text("x\n")
    files = [
        {"path": str(same), "content": "1\n"},
        {"path": str(other), "content": "new\n"},
        {"path": str(new), "content": "secret\n", "mode": "0600"},
        {"path": str(gone), "wanted": False},
        {"path": str(tmp_path / "never"), "wanted": False},
    ]
    written = [str(other), str(new), str(gone)]
    check = run_module(host_files.main, check=True, files=files)
    assert (check["changed"], check["written"]) == (True, written)
    assert other.read_text() == "old\n" and gone.exists() and not new.exists()
    result = run_module(host_files.main, files=files)
    assert result["written"] == written and result["diff"][0]["before"] == "old\n"
    assert (other.read_text(), new.read_text(), gone.exists()) == ("new\n", "secret\n", False)
    assert new.stat().st_mode & 0o777 == 0o600 and new.parent.stat().st_mode & 0o777 == 0o755
    again = run_module(host_files.main, files=files)
    assert (again["changed"], again["written"]) == (False, [])


def test_permissions_alone_are_mended(tmp_path: Path, run_module: Any) -> None:
    path = tmp_path / "file"
    path.write_text("1\n")
    path.chmod(0o666)
    assert run_module(host_files.main, files=[{"path": str(path), "content": "1\n"}])["changed"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, run_module: Any) -> None:
    (tmp_path / "file").touch()
    result = run_module(host_files.main, files=[{"path": str(tmp_path / "file/below"), "content": "1\n"}])
    assert (
        result["failed"]
        and f"expected to write {tmp_path}/file/below, found Not a directory. Written so far: none. Next: "
        in result["msg"]
    )
