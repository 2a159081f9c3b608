# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the state of a fleet lives that several people run: in an object store, else on the disk of the one who does.

The one home of that question. ``use`` answers it for a process and its children, by their environment, so that what
reads or writes a part of the state needs no argument for it. An object is changed only if nobody changed it since it
was read; that the store keeps this promise is proven before the first change, since one that does not would lose
entries silently. Everything raises StoreError: a store that does not answer is never an empty one.

Every action asks for it in a process of its own, so what speaks to stores is imported only where there is one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ansible_collections.glm.fleet.plugins.module_utils.cloud import shared

if TYPE_CHECKING:
    from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, Place
    from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import Kind, StoreError

# Started with the paths of the run: what lies beside this file must not be taken for modules of the standard library.
_PROGRAM: Final = """
import json, sys, types
root, sys.path[:] = json.loads(sys.argv[1])
sys.modules["ansible_collections"] = package = types.ModuleType("ansible_collections")
package.__path__ = [root]
from ansible_collections.glm.fleet.plugins.plugin_utils.store import ledgers
ledgers.main()
"""
# What is kept there are files of kilobytes; anything larger is not ours.
MOST_BYTES: Final = 64 * 2**20
READ_SECONDS: Final = 20
# For how long a change is tried again that others overtake.
CHANGE_SECONDS: Final = 120.0
_PROOF: Final = ".conditional-write"
_PROOF_TEXT: Final = b"glm.fleet writes this to prove that the store refuses writes whose condition is not met.\n"


class State:
    """The state of a fleet in one place of a store. ``name``: of an object below the place's prefix."""

    def __init__(self, where: Place) -> None:
        self.place = where
        self._proven = False

    @functools.cached_property
    def _bucket(self) -> Bucket:
        from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket

        return Bucket(self.place, read_seconds=READ_SECONDS)

    def address(self, name: str) -> str:
        """Where an object is, for people."""
        return f"{self.place}/{name}"

    def read(self, name: str) -> bytes | None:
        """The content of an object; None when the store says that there is none."""
        return self._bucket.read(self.place.key(name), MOST_BYTES)

    def etags(self, below: str) -> dict[str, str]:
        """The names of all objects that begin like this, with what changes when their content does."""
        found, prefix = self._bucket.objects(self.place.key(below)), self.place.key("")
        return {key.removeprefix(prefix): one.etag for key, one in found.items()}

    def change(self, name: str, make: Callable[[bytes | None], bytes | None]) -> bool:
        """Replace what an object holds by what ``make`` makes of it; whether it was.

        ``make`` gets None where there is no object, gives None where nothing is to be written, and is asked again
        whenever somebody else has written meanwhile.
        """
        self._prove()
        key, deadline, refused = self.place.key(name), time.monotonic() + CHANGE_SECONDS, 0
        while True:
            found = self._bucket.content(key, MOST_BYTES)
            body = make(None if found is None else found.body)
            if body is None or (found is not None and found.body == body):
                # After a lost answer the own content is found here, and the refusal was one of its second attempt.
                return refused > 0
            if self._bucket.write_if(key, body, None if found is None else found.etag):
                return True
            refused += 1
            if time.monotonic() > deadline:
                raise _error(
                    "busy", f"to write {self.address(name)}", f"that others wrote it in each of {refused} attempts",
                    "run again when fewer runs are at work",
                )  # fmt: skip
            time.sleep(random.uniform(0.0, min(2.0, 0.05 * 2**refused)))

    def _prove(self) -> None:
        """Raise StoreError for a store that writes whatever the condition is. Asked once in the life of a process."""
        if self._proven:
            return
        key, strange = self.place.key(_PROOF), f'"{"0" * 32}"'
        # After the first time it is there, so that this is refused already.
        made = self._bucket.write_if(key, _PROOF_TEXT, None)
        if (made and self._bucket.write_if(key, _PROOF_TEXT, None)) or self._bucket.write_if(key, _PROOF_TEXT, strange):
            raise _error(
                "refused", f"{self.place} to refuse a write whose condition is not met (If-None-Match, If-Match)",
                "that it wrote all the same, so that runs would lose each other's entries",
                "take a store that has conditional writes for glm_state_store, or leave it empty",
            )  # fmt: skip
        self._proven = True


def use(address: str, endpoint: str = "", region: str = "") -> None:
    """Have this process and its children keep the state there; on the disk where ``address`` is empty."""
    if not address:
        os.environ.pop(shared.ENVIRONMENT, None)
        return
    # A mistake is found here, before anything asks for the state.
    _place(address, endpoint, region)
    root = Path(__file__).absolute().parents[5]
    program = [sys.executable, "-c", _PROGRAM, json.dumps([str(root), sys.path])]
    given = {"address": address, "endpoint": endpoint, "region": region, "program": program}
    os.environ[shared.ENVIRONMENT] = json.dumps(given)


def preload() -> None:
    """Import the library in a process that others are forked from: each would need a third of a second for it."""
    with contextlib.suppress(ImportError):
        importlib.import_module("boto3.session")


def current() -> State | None:
    """The store that this process keeps the state in; None: on the disk."""
    given = os.environ.get(shared.ENVIRONMENT)
    # By process, as connections are not for those who were forked from it.
    return _state(given, os.getpid()) if given else None


@functools.lru_cache(maxsize=1)
def _state(given: str, _process: int) -> State:
    where = json.loads(given)
    return State(_place(where["address"], where["endpoint"], where["region"]))


def _place(address: str, endpoint: str, region: str) -> Place:
    from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import place

    return place(address, endpoint, region)


def _error(kind: Kind, expected: str, found: str, next_step: str) -> StoreError:
    from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError

    return StoreError(kind, expected, found, next_step)
