# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model weights on a host's disk: what should be there, what is there, whether it is right.

The layout is the cache of ``huggingface_hub`` (``<hf_home>/hub/models--<org>--<name>/{blobs,snapshots,refs}``), so the
engines load from it offline. Beside it, ``<hf_home>/glm-verified`` records which files were hashed and found right,
with size and modification time, so a later run only has to stat them.

Standard library only: it runs in modules on the host (Python 3.9) and inside the engine image.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files

RECORD_SCHEMA = 1
# HF_HOME in a container of an engine's image.
CONTAINER_HF_HOME = "/root/.cache/huggingface"
_HASH_CHUNK_BYTES = 8 * 1024 * 1024
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
# Newer clients write to "<etag>.<8 hex digits>.incomplete", a name that no later process takes up again.
_ORPHAN = re.compile(r"(?P<etag>[0-9a-f]{40,64})\.[0-9a-f]{8}\.incomplete")


@dataclass(frozen=True)
class WeightFile:
    """One file of a model revision; ``sha256`` is known for LFS files, ``blob_id`` (git SHA-1) for all others."""

    path: str
    size: int
    blob_id: str
    sha256: Optional[str] = None

    @property
    def etag(self) -> str:
        """The name of the file's blob in the cache."""
        return self.sha256 or self.blob_id

    @property
    def expected(self) -> str:
        """The hash to compare with, with its kind."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git-sha1:{self.blob_id}"


@dataclass(frozen=True)
class Manifest:
    """All files of one commit of one repository."""

    repository: str
    commit: str
    files: tuple[WeightFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)

    @property
    def sha256(self) -> str:
        """Fingerprint of the file list: SHA-256 over ``<hash>  <size>  <path>`` lines in path order."""
        lines = (f"{file.expected}  {file.size}  {file.path}\n" for file in sorted(self.files, key=lambda f: f.path))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        return {"repository": self.repository, "commit": self.commit, "files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        """The inverse of ``as_json``; raises KeyError or TypeError when ``data`` is something else."""
        return cls(data["repository"], data["commit"], tuple(WeightFile(**file) for file in data["files"]))


@dataclass(frozen=True)
class Damage:
    """A file that is not what the manifest says."""

    path: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, found {self.found}"


class Store:
    """The cache below one ``hf_home``."""

    def __init__(self, hf_home: Path, repository: str) -> None:
        self.hf_home = hf_home
        self.repository = repository
        self.folder = hf_home / "hub" / ("models--" + repository.replace("/", "--"))

    def snapshot(self, commit: str) -> Path:
        """Folder that the engines load."""
        return self.folder / "snapshots" / commit

    def record_path(self, commit: str) -> Path:
        """Where the result of a verification is kept."""
        return self.hf_home / "glm-verified" / f"{self.repository.replace('/', '--')}@{commit}.json"

    # What is there -----------------------------------------------------------------------------------------------

    def missing(self, manifest: Manifest) -> list[WeightFile]:
        """Files that are absent or have the wrong size."""
        snapshot = self.snapshot(manifest.commit)
        return [file for file in manifest.files if _size(snapshot / file.path) != file.size]

    def bytes_to_fetch(self, manifest: Manifest) -> int:
        """Bytes that still have to be written; counts on nothing but complete blobs and resumable partial ones."""
        needed = 0
        seen: set[str] = set()
        for file in self.missing(manifest):
            if file.etag in seen:
                continue
            seen.add(file.etag)
            blob = self.folder / "blobs" / file.etag
            if _size(blob) == file.size:
                continue
            partial = _size(blob.with_name(f"{file.etag}.incomplete")) or 0
            needed += file.size - min(partial, file.size)
        return needed

    def bytes_on_disk(self, manifest: Manifest) -> int:
        """Bytes of this manifest written so far, partial files included; never more than its total."""
        sizes = {file.etag: file.size for file in manifest.files}
        written = dict.fromkeys(sizes, 0)
        for entry in _scan(self.folder / "blobs"):
            etag = entry.name.split(".")[0]
            if etag in sizes:
                stat = entry.stat()
                # A client may allocate the whole file first; blocks show what has really arrived.
                size = stat.st_size if entry.name == etag else min(stat.st_size, stat.st_blocks * 512)
                written[etag] = min(sizes[etag], max(written[etag], size))
        return sum(written.values())

    # Making it right ---------------------------------------------------------------------------------------------

    def remove(self, manifest: Manifest, paths: Iterable[str]) -> None:
        """Remove files and their blobs, so that the client fetches them again."""
        etags = {file.path: file.etag for file in manifest.files}
        for path in paths:
            (self.snapshot(manifest.commit) / path).unlink(missing_ok=True)
            (self.folder / "blobs" / etags[path]).unlink(missing_ok=True)

    def remove_wrong_sizes(self, manifest: Manifest) -> list[Damage]:
        """Remove files of the wrong size, which the client would take for complete; returns them."""
        damages = []
        snapshot = self.snapshot(manifest.commit)
        for file in self.missing(manifest):
            size = _size(snapshot / file.path)
            blob_size = _size(self.folder / "blobs" / file.etag)
            if size is None and blob_size in (None, file.size):
                continue
            found = blob_size if size is None else size
            damages.append(Damage(file.path, f"{file.size} bytes", f"{found} bytes"))
        self.remove(manifest, [damage.path for damage in damages])
        return damages

    def remove_useless_partials(self, manifest: Manifest) -> int:
        """Remove partial downloads that cannot be resumed; returns the bytes freed. No client may be running."""
        sizes = {file.etag: file.size for file in manifest.files}
        freed = 0
        for entry in _scan(self.folder / "blobs"):
            match = _ORPHAN.fullmatch(entry.name)
            orphan = match is not None and match["etag"] in sizes
            etag = entry.name[: -len(".incomplete")] if entry.name.endswith(".incomplete") else ""
            oversized = etag in sizes and entry.stat().st_size > sizes[etag]
            if orphan or oversized:
                freed += entry.stat().st_size
                Path(entry.path).unlink(missing_ok=True)
        return freed

    def verify(self, manifest: Manifest, workers: int, progress: Callable[[int, int], None]) -> list[Damage]:
        """Hash every file with ``workers`` threads and return those that are absent or wrong.

        ``progress`` is called about once a second with the bytes and files hashed so far.
        """
        snapshot = self.snapshot(manifest.commit)
        hashed: dict[str, int] = {}
        damages: list[Damage] = []
        done_files = 0
        pool = concurrent.futures.ThreadPoolExecutor(max_workers=workers)
        try:
            # The largest first, so that no thread is left alone with one at the end.
            ordered = sorted(manifest.files, key=lambda file: -file.size)
            waiting = {pool.submit(_check, snapshot, file, hashed) for file in ordered}
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=1.0)
                done_files += len(done)
                damages += [damage for damage in (future.result() for future in done) if damage is not None]
                progress(sum(list(hashed.values())), done_files)
        finally:
            # When the run is stopped, files that no thread has begun are left alone.
            pool.shutdown(cancel_futures=True)
        return sorted(damages, key=lambda damage: damage.path)

    # Records and references --------------------------------------------------------------------------------------

    def write_record(self, manifest: Manifest) -> None:
        """Record that every file of ``manifest`` was hashed and found right."""
        snapshot = self.snapshot(manifest.commit)
        stats = {file.path: (snapshot / file.path).stat() for file in manifest.files}
        record = {
            "schema": RECORD_SCHEMA,
            "verified_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "manifest_sha256": manifest.sha256,
            "manifest": manifest.as_json(),
            "modified_ns": {path: stat.st_mtime_ns for path, stat in stats.items()},
        }
        files.write_json(self.record_path(manifest.commit), record, files.READABLE)

    def forget(self, commit: str) -> None:
        """Remove the record of a verification."""
        self.record_path(commit).unlink(missing_ok=True)

    def read_record(self, commit: str) -> Optional[tuple[Manifest, dict[str, int]]]:
        """The recorded manifest and modification times; None without a record that this version can use."""
        record = files.read_json(self.record_path(commit))
        try:
            if record is None or record["schema"] != RECORD_SCHEMA:
                return None
            return Manifest.from_json(record["manifest"]), dict(record["modified_ns"])
        except (KeyError, TypeError, ValueError):
            return None

    def changed_since_record(self, commit: str) -> Optional[list[Damage]]:
        """Files that changed since they were verified; empty when all is well, None without a record."""
        record = self.read_record(commit)
        if record is None:
            return None
        manifest, modified = record
        damages = []
        for file in manifest.files:
            try:
                stat = (self.snapshot(commit) / file.path).stat()
            except OSError:
                damages.append(Damage(file.path, f"{file.size} bytes", "no file"))
                continue
            if stat.st_size != file.size:
                damages.append(Damage(file.path, f"{file.size} bytes", f"{stat.st_size} bytes"))
            elif stat.st_mtime_ns != modified.get(file.path):
                damages.append(Damage(file.path, "the file that was verified", "one modified since"))
        return damages

    def references(self, requested: str, commit: str) -> dict[Path, str]:
        """Reference files that make an engine find ``commit`` offline by repository id alone, and their content."""
        names = {"main", requested} - {commit}
        return {self.folder / "refs" / name: commit for name in sorted(names)}

    def references_right(self, requested: str, commit: str) -> bool:
        """Whether all reference files say ``commit``."""
        wanted = self.references(requested, commit)
        # To the byte: the client takes a line end for a part of the name.
        return all(path.is_file() and path.read_bytes() == content.encode() for path, content in wanted.items())

    def write_references(self, requested: str, commit: str) -> None:
        """Write the reference files."""
        for path, content in self.references(requested, commit).items():
            files.write_text(path, content, files.READABLE)


def human_bytes(count: float) -> str:
    """``count`` bytes for people, in decimal units as vendors use them: ``756.2 GB``."""
    for unit in _UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def file_hash(path: Path, file: WeightFile, advance: Callable[[int], None]) -> str:
    """Hash of ``path`` of the kind that ``file`` is known by, with its kind in front; raises OSError."""
    size = path.stat().st_size
    # SHA-1 only where git itself names a small file by it.
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as handle:
        while chunk := handle.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return f"{'sha256' if file.sha256 else 'git-sha1'}:{digest.hexdigest()}"


def _check(snapshot: Path, file: WeightFile, hashed: dict[str, int]) -> Optional[Damage]:
    path = snapshot / file.path
    size = _size(path)
    if size is None:
        return Damage(file.path, f"{file.size} bytes", "no file")
    if size != file.size:
        return Damage(file.path, f"{file.size} bytes", f"{size} bytes")

    def advance(count: int) -> None:
        hashed[file.path] = hashed.get(file.path, 0) + count

    try:
        found = file_hash(path, file, advance)
    except OSError as exc:
        return Damage(file.path, file.expected, f"an error: {exc}")
    return None if found == file.expected else Damage(file.path, file.expected, found)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _size(path: Path) -> Optional[int]:
    try:
        return path.stat().st_size
    except OSError:
        return None
