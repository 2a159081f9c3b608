"""The code that processes of a test run keep for each other is that of the source they have."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import ast, sys
sys.path.insert(0, sys.argv[1])
import one
print(one.VALUE, one.__file__)
try:
    one.fail()
except ZeroDivisionError as error:
    print(error.__traceback__.tb_next.tb_frame.f_code.co_filename)
tree = compile("1", "x", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
print(type(tree).__name__, eval(compile("6 * 7", "x", "eval")))
"""


def archive(folder: Path, value: int) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.writestr("one.py", f"VALUE = {value}\ndef fail():\n    1 / 0\n")
    return folder / "a.zip"


def said(place: Path, kept: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/compiled"), "GLM_COMPILED": str(kept)}
    command = [sys.executable, "-c", PROGRAM, str(place)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_code_is_kept_by_its_source_and_says_where_it_is_now(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    places = [archive(tmp_path / str(number), value) for number, value in enumerate((1, 1, 2))]
    for place, value in zip(places, (1, 1, 2)):
        file = f"{place}/one.py"
        assert said(place, kept) == [f"{value} {file}", file, "Module 42"]
    assert len([name for name in kept.iterdir() if name.read_bytes()]) == 2


def test_hosts_keep_it_by_a_file_that_their_python_reads(tmp_path: Path) -> None:
    kept, site, place = tmp_path / "kept", tmp_path / "site", archive(tmp_path / "a", 1)
    kept.mkdir()
    site.mkdir()
    compiled = ROOT / "tests/compiled"
    text = (compiled / "on_hosts.pth").read_text("utf-8")
    for there, here in (("/opt/glm-compiled", compiled), ("/var/cache/glm-compiled", kept)):
        assert there in (ROOT / "scripts/test.sh").read_text("utf-8")
        text = text.replace(there, str(here))
    (site / "on_hosts.pth").write_text(text, "utf-8")
    command = [sys.executable, "-c", f"import site; site.addsitedir({str(site)!r})\n{PROGRAM}", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"1 {place}/one.py", f"{place}/one.py", "Module 42"]
    assert len(list(kept.iterdir())) == 1


def test_what_was_kept_in_part_or_cannot_be_kept_is_compiled(tmp_path: Path) -> None:
    kept, place = tmp_path / "kept", archive(tmp_path / "a", 1)
    expected = [f"1 {place}/one.py", f"{place}/one.py", "Module 42"]
    assert said(place, kept) == expected, "no folder"
    kept.mkdir()
    assert said(place, kept) == expected
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    for part in (b"", whole[: len(whole) // 2], b"no code"):
        file.write_bytes(part)
        assert said(place, kept) == expected and file.read_bytes() == whole
