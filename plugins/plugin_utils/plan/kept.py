# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts reported and later plans read: JSON files beside the lock file, or objects where the lock file is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import lockfile
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state

_SCHEMA: Final = 1


class Kept:
    """One such file: ``kind`` is its name and the key of its content, ``what`` says what it holds."""

    def __init__(self, kind: str, what: str) -> None:
        self._kind, self._what = kind, what
        self._object = f"glm.{kind}.json"

    def path_of(self, lock_file: Path | str) -> Path:
        """Where it is without a store: beside the lock file, under its name."""
        path = Path(lock_file).expanduser()
        return path.with_name(f"{path.name.removesuffix(path.suffix).removesuffix('.lock')}.{self._kind}.json")

    def read(self, lock_file: Path | str) -> dict[str, Any]:
        """What is kept; nothing where there is no file. Raises Unmet where it cannot be read."""
        store = state.current()
        if store is not None:
            return self._in_store(store, store.read(self._object))
        path = self.path_of(lock_file)
        text = files.text_of(path, f"{self._what}, in {path}")
        return {} if text is None else self._parsed(text, path)

    def refusal(self, lock_file: Path | str, problem: object) -> Unmet:
        """For content of another form than its readers know."""
        store = state.current()
        return self._refusal(self.path_of(lock_file) if store is None else store.address(self._object), problem)

    def change(self, lock_file: Path | str, make: Callable[[dict[str, Any]], Optional[Mapping[str, Any]]]) -> bool:
        """Replace what is kept by what ``make`` makes of it; whether it was. None: there is nothing new.

        ``make`` may be asked more than once. Raises Unmet where it cannot be read or written.
        """
        store = state.current()
        if store is not None:
            return store.change(self._object, lambda content: self._made(make(self._in_store(store, content))))
        try:
            # The lock file's own lock: whoever may write beside it may take that.
            with lockfile.locked(lock_file):
                body = self._made(make(self.read(lock_file)))
                if body is not None:
                    files.write_text(self.path_of(lock_file), body.decode(), files.READABLE)
        except (OSError, lockfile.LockFileError) as exc:
            raise Unmet(
                f"to keep {self._what}, in {self.path_of(lock_file)}", str(exc), "set glm_lock_file to a path beside "
                "which can be written",
            ) from exc  # fmt: skip
        return body is not None

    def _made(self, known: Optional[Mapping[str, Any]]) -> Optional[bytes]:
        if known is None:
            return None
        return json.dumps({"schema": _SCHEMA, self._kind: known}, indent=2, ensure_ascii=False).encode() + b"\n"

    def _in_store(self, store: state.State, content: Optional[bytes]) -> dict[str, Any]:
        """What the store answered, None for no object."""
        where = store.address(self._object)
        return {} if content is None else self._parsed(content.decode("utf-8", "replace"), where)

    def _parsed(self, text: str, where: object) -> dict[str, Any]:
        try:
            content = json.loads(text)
            if content["schema"] != _SCHEMA:
                raise ValueError(f"schema {content['schema']}, this version knows {_SCHEMA}")
            return dict(content[self._kind].items())
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise self._refusal(where, exc) from exc

    def _refusal(self, where: object, problem: object) -> Unmet:
        found = f"a file of another form ({problem})"
        return Unmet(f"{self._what}, in {where}", found, "remove it: deploys write it again")
