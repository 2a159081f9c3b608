# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock file: what tags and revisions meant when a fleet first resolved them.

A tag and a branch can move under a running fleet. The first host that needs one resolves it (image tag to
digest, model revision to commit); this module records the answer beside the inventory, and every later host
and run uses it. Several users and machines may share the folder it lies in: each change is made under a lock that lies
there, too, and what others wrote meanwhile stays. Those who share an object store instead (``store/state.py``) have it
there, in the same form. Their own files then only bring along what the store does not have yet.

Shape of the data (``LockData``)::

    {"images": {"<repository>:<tag>": {"digest": "sha256:…", "resolved_at": "2026-11-20T12:00:00Z"}},
     "models": {"<repository>@<requested revision>": {"commit": "<40 hex digits>", "bytes": 756160000000,
                                                      "files": 142, "manifest_sha256": "<64 hex digits>"}},
     "builds": {"<repository>:<tag> + <package>==<version>": {
         "image": "glm-fleet/<name>:<tag>-<checksum>", "base": "sha256:…", "digest": "sha256:…",
         "requirements": {"x86_64": ["<package>==<version> --hash=sha256:…"]}}}}

Only ``digest``, ``commit`` and ``image`` are required in an entry of the three; a build has a ``digest`` once it was
pushed to a registry. Keys this version does not know are kept as they are.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import yaml

from ansible_collections.glm.fleet.plugins.module_utils import files, whoami
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state


class ImageEntry(TypedDict):
    """One resolved image tag."""

    digest: str
    resolved_at: NotRequired[str]


class ModelEntry(TypedDict):
    """One resolved model revision; ``bytes`` and ``files`` count what a host downloads."""

    commit: str
    bytes: NotRequired[int]
    files: NotRequired[int]
    manifest_sha256: NotRequired[str]


class BuildEntry(TypedDict):
    """One derived image: its name, the digest of its base, and what was added for each kind of machine."""

    image: str
    base: str
    requirements: dict[str, list[str]]
    digest: NotRequired[str]


class LockData(TypedDict):
    """The whole lock file."""

    images: dict[str, ImageEntry]
    models: dict[str, ModelEntry]
    builds: dict[str, BuildEntry]


class LockFileError(QuotingError):
    """The lock file cannot be read, is malformed, cannot be written, or stayed locked by another process."""


# Of the object in a store.
NAME = "glm.lock.yml"

HEADER = """\
# Lock file of glm.fleet: image tags and model revisions as they were when this fleet first resolved them.
# glm.fleet writes it at the first deploy; the plan and every later deploy follow it.
# It belongs in version control, beside the inventory. To move to a newer image or revision on purpose,
# delete that entry (or the file) and deploy again.
"""

_PATTERNS = {
    "digest": (re.compile(r"sha256:[0-9a-f]{64}"), "'sha256:' and 64 hexadecimal digits"),
    "base": (re.compile(r"sha256:[0-9a-f]{64}"), "'sha256:' and 64 hexadecimal digits"),
    "image": (re.compile(r"[^\s@]+:[^\s@:/]+"), "<repository>:<tag>"),
    "commit": (re.compile(r"[0-9a-f]{40}"), "40 hexadecimal digits (quote it if they are all decimal)"),
    "manifest_sha256": (re.compile(r"[0-9a-f]{64}"), "64 hexadecimal digits"),
}
_SECTIONS = {"images": "digest", "models": "commit", "builds": "image"}


def model_key(repository: str, requested_revision: str) -> str:
    """The key of a model entry, for example ``zai-org/GLM-5.1-FP8@main``."""
    return f"{repository}@{requested_revision}"


def image_key(repository: str, tag: str) -> str:
    """The key of an image entry, for example ``vllm/vllm-openai:v0.32.0``."""
    return f"{repository}:{tag}"


def build_key(base: str, packages: Sequence[str]) -> str:
    """The key of a derived image, for example ``vllm/vllm-openai:v0.18.1 + transformers==5.4.0``."""
    return " + ".join([base, *packages])


def empty() -> LockData:
    """What a fleet knows before its first deploy."""
    return {"images": {}, "models": {}, "builds": {}}


def read(path: Path | str) -> LockData:
    """Read the lock file at ``path``, and that in the store where there is one; a missing file is an empty one.

    Raises LockFileError, naming the file and the line, when it is not valid YAML or not of the shape above, and when
    file and store disagree; Unmet when the store does not say what it has.
    """
    path, store = Path(path).expanduser(), state.current()
    return _on_disk(path) if store is None else _with_own(_in_store(store, store.read(NAME)), path, store)


def _on_disk(path: Path) -> LockData:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return empty()
    except (OSError, UnicodeDecodeError) as exc:
        raise LockFileError(f"{path}: the lock file cannot be read: {exc}") from exc
    return _parse(text, path)


def _in_store(store: state.State, content: bytes | None) -> LockData:
    """What the store answered, None for no object."""
    if content is None:
        return empty()
    if not content.strip():
        # Nothing here writes such an object, and fleets that have a lock must not resolve everything again.
        raise _malformed(store.address(NAME), 1, "it is empty")
    try:
        return _parse(content.decode("utf-8"), store.address(NAME))
    except UnicodeDecodeError as exc:
        raise _malformed(store.address(NAME), 1, f"not text ({exc.reason})") from exc


def _with_own(stored: LockData, path: Path, store: state.State) -> LockData:
    """What the store has, and the entries of this checkout's file that it lacks: of fleets that had one before."""

    def differ(key: str, name: str, ours: Any, theirs: Any) -> LockFileError:
        return LockFileError(
            f"{path} and {store.address(NAME)} disagree about {key!r}: the file has {name} {ours}, the store {theirs}. "
            "Nothing was written. The fleet follows the store: remove the file, or correct its entry; to make the "
            "file's entry the one that holds, delete that entry in the store."
        )

    return _merged(empty(), _on_disk(path), stored, differ)


class Lock:
    """The lock file while no other process here may change it: edit ``data``, then call ``save``.

    ``found``: what the file, or the store, had; None: ``data``.
    """

    def __init__(self, path: Path, data: LockData, found: LockData | None = None) -> None:
        self.path = path
        self.data = data
        self._found = copy.deepcopy(data if found is None else found)

    def save(self) -> bool:
        """Write ``data`` in one step (readers see the old file or the new one); True when the file changed.

        Another machine, an editor, git or an earlier release may have changed it in spite of the lock: their entries
        stay. Raises LockFileError when they disagree with ours, the data has the wrong shape or the folder cannot be
        written; Unmet when the store does not take it.
        """
        store = state.current()
        if store is not None:
            return store.change(NAME, lambda content: self._beside(store, content))
        text = self._text(_on_disk(self.path), self.path)
        try:
            before = self.path.stat() if self.path.exists() else None
            if before and self.path.read_text(encoding="utf-8") == text:
                return False
            mode = stat.S_IMODE(before.st_mode) if before else files.READABLE
            files.write_text(self.path, text, mode, durable=True, move=_replace)
        except OSError as exc:
            raise LockFileError(
                f"{self.path}: the lock file cannot be written: {exc}. "
                "Make its folder writable, or set glm_lock_file to a path that is."
            ) from exc
        return True

    def _beside(self, store: state.State, content: bytes | None) -> bytes | None:
        """The object with our entries; None where nothing is to be added, so that what people wrote keeps its form."""
        theirs = _in_store(store, content)
        text = self._text(theirs, store.address(NAME))
        return None if _parse(text, store.address(NAME)) == theirs else text.encode()

    def _text(self, theirs: LockData, where: Path | str) -> str:
        def differ(key: str, name: str, ours: Any, theirs: Any) -> LockFileError:
            return LockFileError(
                f"{where}: two runs resolved {key!r} at the same time and disagree: the file has {name} {theirs}, this "
                f"run found {ours}. Nothing was written. Find out which one is meant, and run again to use the one in "
                "the file; for the other, delete that entry before."
            )

        text = _render(_merged(self._found, self.data, theirs, differ))
        _parse(text, where)
        return text


def _replace(new: str, path: str) -> None:
    """Put ``new`` in the place of ``path``, with the owner and the group that it had, as far as that is allowed."""
    with contextlib.suppress(FileNotFoundError):
        _give(new, Path(path).stat())
    Path(new).replace(path)


def _give(path: int | str, like: os.stat_result) -> None:
    for uid, gid in ((-1, like.st_gid), (like.st_uid, -1)):
        with contextlib.suppress(PermissionError):
            os.chown(path, uid, gid)


def _merged(
    base: LockData, ours: LockData, theirs: LockData, differ: Callable[[str, str, Any, Any], LockFileError]
) -> LockData:
    """``theirs`` with what ``ours`` changed since ``base``. Raises what ``differ`` makes where both changed one."""
    merged = copy.deepcopy(theirs)
    sections = cast("dict[str, dict[str, Any]]", merged)
    for section, entries in cast("dict[str, dict[str, Any]]", ours).items():
        before = cast("dict[str, dict[str, Any]]", base)[section]
        for key, entry in entries.items():
            found, there = before.get(key), sections[section].get(key)
            if entry != found:
                if there is not None and there != found:
                    for name in sorted((entry.keys() & there.keys()) - {"resolved_at"}):
                        if entry[name] != there[name]:
                            raise differ(key, name, entry[name], there[name])
                    entry = {**entry, **there}
                sections[section][key] = entry
    return merged


def model_entry(path: Path | str, key: str, resolve: Callable[[], ModelEntry], keep: bool) -> tuple[ModelEntry, bool]:
    """The entry of a model, and whether this call wrote it: who needs it first resolves it, all others wait for that.

    Without ``keep`` what was resolved is not written. Raises LockFileError, and what ``resolve`` does.
    """
    entry = read(path)["models"].get(key)
    if entry is not None:
        return entry, False
    if not keep:
        return resolve(), False
    with locked(path) as lock:
        # Another host of this run may have resolved it while this one waited.
        entry = lock.data["models"].get(key)
        if entry is not None:
            return entry, False
        lock.data["models"][key] = entry = resolve()
        return entry, lock.save()


@contextlib.contextmanager
def locked(path: Path | str, timeout: float = 900.0) -> Iterator[Lock]:
    """Hold the lock file at ``path`` for this process alone and give its current data, with a store: that of both.

    Waits up to ``timeout`` seconds for another holder (which may be asking a slow registry), then raises
    LockFileError naming that holder. The kernel frees the lock when its holder dies. The file that carries it lies
    beside the lock file, since that is what all have in common who share the folder, over a network file system, too.
    """
    # A link is followed first: two names of one lock file must exclude each other, and the link must survive.
    resolved = Path(path).expanduser().resolve()
    guard = resolved.with_name(f".{resolved.name}.lock")
    descriptor = _open_guard(guard)
    try:
        if descriptor is not None:
            _acquire(descriptor, resolved, timeout)
        yield _current(resolved)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _current(path: Path) -> Lock:
    store = state.current()
    if store is None:
        return Lock(path, _on_disk(path))
    found = _in_store(store, store.read(NAME))
    return Lock(path, _with_own(found, path, store), found)


def _open_guard(guard: Path) -> int | None:
    """The guard's descriptor; None where the folder can only be read, so that nobody here changes anything in it."""
    try:
        guard.parent.mkdir(parents=True, exist_ok=True)
        return _make_guard(guard) if not guard.exists() else _opened(guard)
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EROFS) and not guard.exists():
            return None
        problem = f"{guard}: cannot be opened: {exc.strerror}. Make it readable for this user, or set glm_lock_file."
        raise LockFileError(problem) from exc


def _make_guard(guard: Path) -> int:
    """As open as its folder: who may replace the lock file may write the guard."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
    try:
        descriptor = os.open(guard, flags, files.READABLE)
    except FileExistsError:
        return _opened(guard)
    folder = guard.parent.stat()
    os.fchmod(descriptor, folder.st_mode & 0o666)
    _give(descriptor, folder)
    return descriptor


def _opened(guard: Path) -> int:
    try:
        return os.open(guard, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EROFS):
            raise
        # Another user's, who lets us read it. A lock needs no more, except on a network file system.
        return os.open(guard, os.O_RDONLY | os.O_CLOEXEC)


def _acquire(guard: int, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            # flock, not POSIX record locks: those are shared by all threads of a process.
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                last = os.pread(guard, 200, 0).decode("utf-8", "replace").strip() or "an unknown process"
                raise LockFileError(
                    f"{path}: still locked after {timeout:g} s, last by {last}. "
                    "Wait for that run to finish, or stop it, and run again."
                ) from None
            time.sleep(0.1)
        except OSError as exc:
            problem = f"{path}: cannot be locked: {exc.strerror}. Set glm_lock_file to a path of another file system."
            raise LockFileError(problem) from exc
    # Not through a descriptor that only reads.
    with contextlib.suppress(OSError):
        os.ftruncate(guard, 0)
        os.pwrite(guard, f"process {os.getpid()} of {whoami.user_at_machine()}\n".encode(), 0)


def _render(data: LockData) -> str:
    # Through JSON, because values from a play are subclasses of str that YAML's safe dumper refuses.
    known = cast("dict[str, Any]", data)
    # Most fleets derive no image: their file has no empty section for it.
    sections = {section: known[section] for section in _SECTIONS if section != "builds" or known[section]}
    plain = json.loads(json.dumps(sections, default=str))
    return HEADER + "---\n" + yaml.safe_dump(plain, sort_keys=True, default_flow_style=False, width=110)


def _parse(text: str, path: Path | str) -> LockData:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise _malformed(path, line, f"not valid YAML ({exc.problem})") from exc
    except yaml.YAMLError as exc:
        raise _malformed(path, 1, f"not valid YAML ({exc})") from exc
    data = empty()
    if root is None:
        return data
    sections = cast("dict[str, Any]", data)
    for name, node in _items(root, path, "the lock file"):
        if name not in _SECTIONS:
            raise _malformed(path, node, f"unknown section {name!r} (known: {', '.join(_SECTIONS)})")
        if _is_null(node):
            continue
        for key, entry in _items(node, path, f"section {name!r}"):
            sections[name][key] = _entry(entry, path, key, _SECTIONS[name])
    return data


def _entry(node: yaml.Node, path: Path | str, key: str, required: str) -> dict[str, Any]:
    fields = dict(_items(node, path, f"entry {key!r}"))
    if required not in fields:
        raise _malformed(path, node, f"entry {key!r} has no {required!r}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        value = _construct(field)
        if name in _PATTERNS:
            pattern, wanted = _PATTERNS[name]
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise _malformed(path, field, f"{name!r} of {key!r} must be {wanted}, found {value!r}")
        elif name in ("bytes", "files") and not _is_count(value):
            raise _malformed(path, field, f"{name!r} of {key!r} must be a number, found {value!r}")
        values[name] = value
    return values


def _items(node: yaml.Node, path: Path | str, what: str) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise _malformed(path, node, f"{what} must be a mapping")
    seen: dict[str, yaml.Node] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        if key in seen:
            # Typical after a merge of two branches that resolved one tag; YAML would keep the last silently.
            raise _malformed(path, key_node, f"{key!r} appears twice; keep one")
        seen[key] = value_node
    return list(seen.items())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _malformed(path: Path | str, where: int | yaml.Node, problem: str) -> LockFileError:
    line = where if isinstance(where, int) else where.start_mark.line + 1
    return LockFileError(
        f"{path}, line {line}: {problem}. "
        "Repair it by hand, restore it from version control, or delete it to resolve everything again."
    )
