# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Model weights on a host's disk: what should be there, what is there, whether it is right.

The layout is the cache of ``huggingface_hub`` (``<hf_home>/hub/models--<org>--<name>/{blobs,snapshots,refs}``), so the
engines load from it offline. Beside it, ``<hf_home>/glm-verified`` records which files were hashed and found right,
with size and modification time, so a later run only has to stat them. A file that the commit does not have is as wrong
as one that is not what the commit says: an engine would load it.

Standard library only: it runs in modules on the host (Python 3.9).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError

RECORD_SCHEMA = 1
_HASH_CHUNK_BYTES = 8 * 1024 * 1024
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
# Pickles run code when they are loaded; the others are code.
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_CODE = frozenset({".dll", ".py", ".pyc", ".so"})


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

    def wanted(self, unsafe: bool) -> tuple[WeightFile, ...]:
        """The files that are brought to a store or a disk: without ``unsafe``, those that run no code when loaded."""
        return self.files if unsafe else tuple(file for file in self.files if _suffix(file) not in _PICKLES | _CODE)

    def require_data(self, unsafe: bool) -> None:
        """Raise QuotingError where its weights are in pickles only, unless they are allowed."""
        kinds = {_suffix(file) for file in self.files}
        if not unsafe and kinds & _PICKLES and not kinds & {".gguf", ".safetensors"}:
            raise QuotingError(
                f"the weights of {self.repository}@{self.commit} are pickles, which run code when they are loaded. "
                "Take a repository with safetensors, or set glm_allow_unsafe_weights=true if you trust who made it."
            )

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
    """The cache below one ``hf_home``. ``unsafe``: pickles and code belong to the files of a commit, too."""

    def __init__(self, hf_home: Path, repository: str, unsafe: bool = False) -> None:
        self.hf_home = hf_home
        self.repository = repository
        self._unsafe = unsafe
        self.folder = hf_home / "hub" / ("models--" + repository.replace("/", "--"))

    def snapshot(self, commit: str) -> Path:
        """Folder that the engines load."""
        return self.folder / "snapshots" / commit

    def record_path(self, commit: str) -> Path:
        """Where the result of a verification is kept."""
        return self.hf_home / "glm-verified" / f"{self.repository.replace('/', '--')}@{commit}.json"

    # What is there -----------------------------------------------------------------------------------------------

    def wanted(self, manifest: Manifest) -> tuple[WeightFile, ...]:
        """The files of ``manifest`` that belong on the disk."""
        return manifest.wanted(self._unsafe)

    def missing(self, manifest: Manifest) -> list[WeightFile]:
        """Files that are absent or have the wrong size."""
        snapshot = self.snapshot(manifest.commit)
        return [file for file in self.wanted(manifest) if size_of(snapshot / file.path) != file.size]

    def unlisted(self, manifest: Manifest) -> list[Damage]:
        """What is in the snapshot and does not belong there."""
        snapshot = self.snapshot(manifest.commit)
        listed = {file.path for file in self.wanted(manifest)}
        there = sorted(path.relative_to(snapshot).as_posix() for path in _files_below(snapshot))
        return [Damage(path, "no such file in the commit", "a file") for path in there if path not in listed]

    def bytes_to_fetch(self, manifest: Manifest) -> int:
        """Bytes that still have to be written; a file that was begun is continued."""
        missing = {file.etag: file.size for file in self.missing(manifest)}
        return sum(size - self.begun(etag, size) for etag, size in missing.items())

    def begun(self, etag: str, size: int) -> int:
        """How many bytes of a blob of ``size`` bytes are on the disk."""
        if size_of(self.blob(etag)) == size:
            return size
        partial = size_of(self.partial(etag)) or 0
        return partial if partial <= size else 0

    def blob(self, etag: str) -> Path:
        """Where a blob is."""
        return self.folder / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """Where the part of a blob is that was fetched."""
        return self.folder / "blobs" / f"{etag}.incomplete"

    # Making it right ---------------------------------------------------------------------------------------------

    def place(self, file: WeightFile, commit: str) -> None:
        """Give a blob that is whole the name of a file. Raises OSError."""
        link = self.snapshot(commit) / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        _clear(link)
        try:
            link.symlink_to(os.path.relpath(self.blob(file.etag), link.parent))
        except OSError as exc:
            if exc.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(errno.EOPNOTSUPP, "the file system has no symbolic links", str(link)) from None
            raise

    def remove(self, file: WeightFile, commit: str) -> None:
        """Remove a file and its blob, so that it is fetched again. Raises OSError."""
        _clear(self.snapshot(commit) / file.path)
        _clear(self.blob(file.etag))

    def remove_unlisted(self, manifest: Manifest) -> list[Damage]:
        """Remove what does not belong into the snapshot, and say what that was. Raises OSError."""
        damages = self.unlisted(manifest)
        for damage in damages:
            (self.snapshot(manifest.commit) / damage.path).unlink(missing_ok=True)
        return damages

    def remove_leftovers(self, manifest: Manifest) -> int:
        """Remove parts of blobs that are whole, which another client began; returns the bytes freed. Raises OSError."""
        freed = 0
        for etag in {file.etag for file in self.wanted(manifest)}:
            for part in self.blob(etag).parent.glob(f"{etag}.*incomplete"):
                freed += size_of(part) or 0
                part.unlink(missing_ok=True)
        return freed

    def remove_wrong_sizes(self, manifest: Manifest) -> list[Damage]:
        """Remove files of the wrong size; returns them. Raises OSError."""
        damages = []
        for file in self.missing(manifest):
            blob = size_of(self.blob(file.etag))
            there = size_of(self.snapshot(manifest.commit) / file.path)
            found = next((size for size in (there, blob) if size not in (None, file.size)), None)
            if found is not None:
                damages.append(Damage(file.path, f"{file.size} bytes", f"{found} bytes"))
                self.remove(file, manifest.commit)
        return damages

    def check(self, file: WeightFile, commit: str, advance: Callable[[int], None]) -> Optional[Damage]:
        """Hash a file as it is on the disk: None when it is right. ``advance`` hears of each piece; it may raise."""
        path = self.snapshot(commit) / file.path
        size = size_of(path)
        if size != file.size:
            return Damage(file.path, f"{file.size} bytes", "no file" if size is None else f"{size} bytes")
        try:
            found = file_hash(path, file, advance)
        except OSError as exc:
            return Damage(file.path, file.expected, f"an error: {exc}")
        return None if found == file.expected else Damage(file.path, file.expected, found)

    # Records and references --------------------------------------------------------------------------------------

    def write_record(self, manifest: Manifest, replaced: bool = False) -> None:
        """Record that every file of ``manifest`` was hashed and found right.

        ``replaced``: some took the place of wrong ones. Whoever loaded those has to load again.
        """
        snapshot = self.snapshot(manifest.commit)
        stats = {file.path: (snapshot / file.path).stat() for file in self.wanted(manifest)}
        record = {
            "schema": RECORD_SCHEMA,
            "verified_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "replaced_at": time.time() if replaced else replaced_at(self.record_path(manifest.commit)),
            "manifest_sha256": manifest.sha256,
            "manifest": manifest.as_json(),
            "modified_ns": {path: stat.st_mtime_ns for path, stat in stats.items()},
        }
        files.write_json(self.record_path(manifest.commit), record, files.READABLE, durable=True)

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
        damages = self.unlisted(manifest)
        for file in self.wanted(manifest):
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


def replaced_at(record: Path) -> float:
    """When wrong files were replaced last, in seconds since 1970; 0 for never, and without a record."""
    said = files.read_json(record)
    when = said.get("replaced_at") if isinstance(said, dict) else None
    return float(when) if isinstance(when, (int, float)) else 0.0


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
    for piece in _read_from_disk(path, size):
        digest.update(piece)
        advance(len(piece))
    return f"{'sha256' if file.sha256 else 'git-sha1'}:{digest.hexdigest()}"


def _read_from_disk(path: Path, size: int) -> Iterator[memoryview]:
    """The content of a file in pieces, from the disk and not from memory, which may hold what the disk does not.

    Where a file system reads through memory only (tmpfs), what is written back is dropped from it before.
    """
    handle = os.open(path, os.O_RDONLY)
    direct = None
    try:
        os.fsync(handle)
        with contextlib.suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        direct = _unbuffered(path)
        # Anonymous memory begins at a page, as reading past the cache requires.
        room, at = mmap.mmap(-1, _HASH_CHUNK_BYTES), 0
        while at < size and (count := os.preadv(handle if direct is None else direct, [room], at)):
            at += count
            yield memoryview(room)[:count]
    finally:
        os.close(handle)
        if direct is not None:
            os.close(direct)


def _unbuffered(path: Path) -> Optional[int]:
    """The file, opened past the page cache; None where its file system cannot."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return None
        raise


def size_of(path: Path) -> Optional[int]:
    """The size of a file in bytes, None where there is none or it does not show."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _clear(path: Path) -> None:
    """Remove what is in the place of a file: a file, a link, an empty folder. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _suffix(file: WeightFile) -> str:
    return PurePosixPath(file.path).suffix.lower()


def _files_below(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` that is no folder. Raises OSError: what cannot be listed is not empty."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path))
        else:
            yield Path(entry.path)
