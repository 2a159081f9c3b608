# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are written whole or not at all, and that are read although they may be absent.

This module util is PRIVATE to the collection. A reader sees the old content or the new one, never a part of it, and a
file is never more open than its ``mode``, not even while it is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet

OWNER_ONLY = 0o600
READABLE = 0o644


def text_of(path: Path, what: str = "", next_step: str = "look at the file") -> Optional[str]:
    """The whole text of a file, None where there is none.

    One that is there and cannot be read is not an absent one: raises Unmet, with ``what`` it is and the next step.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise Unmet(f"to read {what or path}", getattr(exc, "strerror", None) or "no text", next_step) from exc


def read_text(path: Path) -> str:
    """The content of a file without the white space around it; empty when it cannot be read.

    For what one machine has and another has not; ``text_of`` is for files whose absence is a statement.
    """
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def read_assignments(path: Path) -> dict[str, str]:
    """The lines ``name=value`` of an environment file or of os-release, without quotes; a missing file has none."""
    values: dict[str, str] = {}
    for line in read_text(path).splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            values[name.strip()] = value.strip().strip("\"'")
    return values


def read_json(path: Path) -> Any:
    """What a file of JSON holds; None when it is absent or broken."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def write_text(
    path: Path,
    text: str,
    mode: int = OWNER_ONLY,
    *,
    durable: bool = False,
    move: Callable[[str, str], object] = os.replace,
) -> None:
    """Replace ``path`` in one step; its folder is made when it is missing, as private as the file.

    ``durable``: the content is on the disk before the name is, and the name when this returns, so that a power cut
    leaves no empty file and takes nothing back. ``move`` takes the new file and ``path``, both absolute or both
    relative; a module passes its own ``atomic_move``, which keeps the owner, the security context and the mode of a
    file that was there. Raises OSError.
    """
    with _scratch(path, text.encode("utf-8"), mode, durable) as new:
        move(new, str(path))
    if durable:
        _settle(path.parent)


def _settle(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes, mode: int = OWNER_ONLY) -> None:
    """Replace ``path`` by content that is no text, as ``write_text`` does."""
    with _scratch(path, content, mode, durable=False) as new:
        Path(new).replace(path)


def write_json(path: Path, value: Any, mode: int = OWNER_ONLY, *, durable: bool = False) -> None:
    """Replace ``path`` by ``value`` as indented JSON, as ``write_text`` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", mode, durable=durable)


def create_text(path: Path, text: str, mode: int = OWNER_ONLY) -> bool:
    """Make ``path`` in one step unless it is there; False when it was. Of several processes, one is the first."""
    with _scratch(path, text.encode("utf-8"), mode, durable=False) as new:
        try:
            os.link(new, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _scratch(path: Path, content: bytes, mode: int, durable: bool) -> Iterator[str]:
    """The name of a file beside ``path`` with the content; removed at the end if it still has that name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if mode == OWNER_ONLY else 0o755)
    # Made for the owner only, whatever the umask.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if durable:
                os.fsync(stream.fileno())
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
