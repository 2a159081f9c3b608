# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store of client keys on the controller: ``keys.json`` and the plain keys to hand out, for their owner only.

A fleet's state has ``keys.json`` with what ``records.py`` says and ``keys/<name>`` with the newest plain key of a name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files, whoami
from ansible_collections.glm.fleet.plugins.module_utils.door import generation
from ansible_collections.glm.fleet.plugins.module_utils.door.generation import Generation
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils import private
from ansible_collections.glm.fleet.plugins.plugin_utils.keys import records
from ansible_collections.glm.fleet.plugins.plugin_utils.keys.records import Keys


def path_of(state: Path) -> Path:
    """The store of the fleet with this state folder."""
    return state / "keys.json"


def plain_path(state: Path, name: str) -> Path:
    """Where the newest plain key of a name is, for the operator to hand out."""
    return state / "keys" / name


def read(state: Path) -> Keys:
    """The keys of a fleet, none when it has no store. Raises Unmet when the store cannot be used."""
    return _stored(state)[0]


def for_doors(state: Path, api_key: str, check: bool) -> dict[str, Any]:
    """What the module door_keys takes: the ``keys`` that clients may use now, and the ``generation`` that they are of.

    A store that was changed by hand, or whose fleet has another key of its own, is in a new generation; it is written
    unless this is a ``check``. Without a store there is none. Raises Unmet.
    """
    now = records.now()
    keys, made = _of_fleet(state, api_key)
    if path_of(state).exists() and not generation.is_of(made, records.content(keys)):
        if check:
            made = _next(made, keys)
        else:
            with changing(state):
                keys, made = _of_fleet(state, api_key)
                if not generation.is_of(made, records.content(keys)):
                    made = write(state, keys)
    return {"keys": records.for_doors(keys, now), "generation": generation.dumped(made)}


def _of_fleet(state: Path, api_key: str) -> tuple[Keys, Optional[Generation]]:
    keys, made = _stored(state)
    return records.with_fleet(keys, api_key, records.now()), made


def _next(before: Optional[Generation], keys: Keys) -> Generation:
    return generation.after(before, records.content(keys), whoami.user_at_machine(), records.text(records.now()))


def _stored(state: Path) -> tuple[Keys, Optional[Generation]]:
    path = path_of(state)
    stored = private.read(path, f"the key store {path}", "make it readable for this user")
    if stored is None:
        return (), None
    try:
        return records.parse(stored)
    except Unmet as error:
        raise Unmet(f"in {path}: {error.expected}", error.found, error.next_step) from error


@contextlib.contextmanager
def changing(state: Path) -> Iterator[Keys]:
    """The keys while this process alone may change them; it does so by ``write``. Raises Unmet.

    Another process that changes them is waited for; the kernel frees the lock when its holder ends.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        guard = os.open(state / ".keys.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise Unmet(f"to write in {state}", str(exc), "make that folder writable, or set glm_state_dir") from exc
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield read(state)
    finally:
        os.close(guard)


def write(state: Path, keys: Keys) -> Generation:
    """Replace the store in one step by its next generation; on the disk before it returns. Raises Unmet."""
    made = _next(_stored(state)[1], keys)
    try:
        files.write_text(path_of(state), records.dump(keys, made), durable=True)
    except OSError as exc:
        raise Unmet(f"to write {path_of(state)}", str(exc), "make its folder writable, or set glm_state_dir") from exc
    return made


def write_plain(path: Path, key: str) -> None:
    """A plain key in a file of its own, for its owner only. Raises Unmet."""
    try:
        files.write_text(path, f"{key}\n", durable=True)
    except OSError as exc:
        raise Unmet(f"to write {path}", str(exc), "make its folder writable, or set glm_state_dir") from exc


def made(path: Path) -> datetime:
    """When the key in a file was made, as far as the file says."""
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), timezone.utc)
    except OSError:
        return records.now()
