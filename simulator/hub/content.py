"""Folders as model repositories: files, hashes and commits.

``<root>/<organisation>/<name>/`` holds the files of branch ``main``; ``<root>/<organisation>/<name>@<revision>/``
holds those of another branch, tag or older state. A commit id is the SHA-1 of the file list, so the same files always
have the same commit, and a commit stays servable for as long as some folder holds its files.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

MAIN = "main"
# The public hub stores these through LFS; everything else below the threshold is a plain git blob.
LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".onnx", ".model"})
LFS_THRESHOLD_BYTES = 10 * 1000 * 1000


@dataclass(frozen=True)
class Sibling:
    """One file of a revision; ``sha256`` is set for LFS files, ``blob_id`` (git SHA-1) for all, sizes in bytes."""

    path: str
    source: Path
    size: int
    blob_id: str
    sha256: str | None
    pointer_size: int

    @property
    def etag(self) -> str:
        """What the public hub uses as ETag: the SHA-256 of an LFS file, the git blob id of any other."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class Revision:
    """A commit and its files, by path."""

    commit: str
    files: dict[str, Sibling]


class Repositories:
    """All repositories below one folder, read anew on every question; hashes are remembered per unchanged file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._hashes: dict[tuple[Path, int, int], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """``<organisation>/<name>`` of every repository."""
        folders = [path for path in self.root.glob("[!.]*/[!.]*") if path.is_dir()]
        return sorted({path.relative_to(self.root).as_posix().split("@")[0] for path in folders})

    def branches(self, repository: str) -> dict[str, str]:
        """Commit of every named revision of ``repository``; empty when there is no such repository."""
        return {name: self._read(folder).commit for name, folder in self._folders(repository).items()}

    def find(self, repository: str, revision: str) -> Revision | None:
        """The revision called ``revision`` (name, or commit id of at least 7 digits), or None."""
        folders = self._folders(repository)
        if revision in folders:
            return self._read(folders[revision])
        if len(revision) >= 7:
            for folder in folders.values():
                candidate = self._read(folder)
                if candidate.commit.startswith(revision):
                    return candidate
        return None

    def _folders(self, repository: str) -> dict[str, Path]:
        organisation, _, name = repository.partition("/")
        parent = self.root / organisation
        if not name or organisation in ("", ".", "..") or not parent.is_dir():
            return {}
        folders = {}
        for path in sorted(parent.iterdir()):
            base, _, revision = path.name.partition("@")
            if base == name and path.is_dir():
                folders[revision or MAIN] = path
        return folders

    def _read(self, folder: Path) -> Revision:
        files = {}
        for source in sorted(path for path in folder.rglob("*") if path.is_file()):
            path = source.relative_to(folder).as_posix()
            files[path] = self._sibling(path, source)
        listing = "".join(f"{sibling.etag} {path}\n" for path, sibling in files.items())
        return Revision(hashlib.sha1(b"commit\0" + listing.encode()).hexdigest(), files)

    def _sibling(self, path: str, source: Path) -> Sibling:
        size = source.stat().st_size
        blob_id, sha256 = self._hash(source)
        if source.suffix not in LFS_SUFFIXES and size <= LFS_THRESHOLD_BYTES:
            return Sibling(path, source, size, blob_id, None, 0)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        pointer_id = hashlib.sha1(f"blob {len(pointer)}\0".encode() + pointer).hexdigest()
        return Sibling(path, source, size, pointer_id, sha256, len(pointer))

    def _hash(self, source: Path) -> tuple[str, str]:
        """Git blob id and SHA-256 of a file."""
        stat = source.stat()
        key = (source, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if key not in self._hashes:
                blob, sha256 = hashlib.sha1(f"blob {stat.st_size}\0".encode()), hashlib.sha256()
                with source.open("rb") as handle:
                    while chunk := handle.read(1 << 20):
                        blob.update(chunk)
                        sha256.update(chunk)
                self._hashes[key] = (blob.hexdigest(), sha256.hexdigest())
            return self._hashes[key]
