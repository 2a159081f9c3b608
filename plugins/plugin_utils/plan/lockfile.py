# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock file: what tags and revisions meant when a fleet first resolved them.

A tag and a branch can move under a running fleet. The first host that needs one resolves it (image tag to
digest, model revision to commit); this module records the answer beside the inventory, and every later host
and run uses it.

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
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired, TextIO, TypedDict, cast

import yaml

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError


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
    """Read the lock file at ``path``; a missing file is an empty one.

    Raises LockFileError, naming the file and the line, when it is not valid YAML or not of the shape above.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return empty()
    except (OSError, UnicodeDecodeError) as exc:
        raise LockFileError(f"{path}: the lock file cannot be read: {exc}") from exc
    return _parse(text, path)


class Lock:
    """The lock file while this process alone may change it: edit ``data``, then call ``save``."""

    def __init__(self, path: Path, data: LockData) -> None:
        self.path = path
        self.data = data

    def save(self) -> bool:
        """Write ``data`` in one step (readers see the old file or the new one); True when the file changed.

        Raises LockFileError when the data has the wrong shape or the folder cannot be written.
        """
        text = _render(self.data)
        _parse(text, self.path)
        try:
            if self.path.exists() and self.path.read_text(encoding="utf-8") == text:
                return False
            files.write_text(self.path, text, files.READABLE, durable=True)
        except OSError as exc:
            raise LockFileError(
                f"{self.path}: the lock file cannot be written: {exc}. "
                "Make its folder writable, or set glm_lock_file to a path that is."
            ) from exc
        return True


@contextlib.contextmanager
def locked(path: Path | str, timeout: float = 900.0) -> Iterator[Lock]:
    """Hold the lock file at ``path`` for this process alone and give its current data.

    Waits up to ``timeout`` seconds for another holder (which may be asking a slow registry), then raises
    LockFileError naming that holder. The kernel frees the lock when its holder dies. The file that carries it
    lies in ``${XDG_STATE_HOME:-~/.local/state}/glm-fleet/locks``, so nothing appears beside the inventory.
    """
    # A link is followed first: two names of one lock file must exclude each other, and the link must survive.
    resolved = Path(path).expanduser().resolve()
    guard = _guard_path(resolved)
    with guard.open("a+", encoding="utf-8") as handle:
        _acquire(handle, resolved, timeout)
        yield Lock(resolved, read(resolved))


def _guard_path(path: Path) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    folder = state / "glm-fleet" / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        problem = f"{folder}: cannot make the folder for lock guards: {exc}. Set XDG_STATE_HOME."
        raise LockFileError(problem) from exc
    return folder / f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.lock"


def _acquire(handle: TextIO, path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            # flock, not POSIX record locks: those are shared by all threads of a process.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                handle.seek(0)
                holder = handle.read().strip() or "unknown"
                raise LockFileError(
                    f"{path}: still locked by process {holder} after {timeout:g} s. "
                    "Wait for that run to finish, or stop it, and run again."
                ) from None
            time.sleep(0.1)
    handle.seek(0)
    handle.truncate()
    handle.write(f"{os.getpid()}\n")
    handle.flush()


def _render(data: LockData) -> str:
    # Through JSON, because values from a play are subclasses of str that YAML's safe dumper refuses.
    known = cast("dict[str, Any]", data)
    # Most fleets derive no image: their file has no empty section for it.
    sections = {section: known[section] for section in _SECTIONS if section != "builds" or known[section]}
    plain = json.loads(json.dumps(sections, default=str))
    return HEADER + "---\n" + yaml.safe_dump(plain, sort_keys=True, default_flow_style=False, width=110)


def _parse(text: str, path: Path) -> LockData:
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


def _entry(node: yaml.Node, path: Path, key: str, required: str) -> dict[str, Any]:
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


def _items(node: yaml.Node, path: Path, what: str) -> list[tuple[str, yaml.Node]]:
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


def _malformed(path: Path, where: int | yaml.Node, problem: str) -> LockFileError:
    line = where if isinstance(where, int) else where.start_mark.line + 1
    return LockFileError(
        f"{path}, line {line}: {problem}. "
        "Repair it by hand, restore it from version control, or delete it to resolve everything again."
    )
