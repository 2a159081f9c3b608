# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledgers of all machines in a store: the program that ``module_utils/cloud/shared.py`` asks.

Each machine writes only objects of its own, ``ledger/<provider>-<fleet>/<who>.jsonl``, with all that its own file has,
so that no two wait for each other. Read are the objects of all, in the order in which things happened. Who is not a
host's name, as machines of CI and containers share those: it is drawn when a file is first brought to the store, kept
beside it, and drawn anew when the object there is not the beginning of the file (the disk was copied, restored, lost).
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ansible_collections.glm.fleet.plugins.module_utils import files, whoami
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, shared
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.plugin_utils.store import state

FOLDER = "ledger"


class Placed(NamedTuple):
    """A line of a ledger. ``moment``: where it belongs among those of others; ``number``: which of equal ones it is."""

    moment: str
    number: int
    line: bytes


def in_order(lines: Iterable[bytes]) -> Iterator[Placed]:
    """The events of one machine, which stay in their order, whatever its clock did; other lines are left out."""
    moment, seen = "", Counter[bytes]()
    for line in lines:
        for event in ledger.events_in([line]):
            moment = max(moment, event["at"], str(event.get("after") or ""))
            seen[line] += 1
            yield Placed(moment, seen[line], line)


def merged(machines: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """The lines of all machines in the order in which things happened. What several have is one event.

    That is so after a disk was copied: a line that one machine has twice stays two events.
    """
    given, found = Counter[bytes](), []
    for placed in heapq.merge(*(in_order(machines[name]) for name in sorted(machines)), key=lambda one: one.moment):
        if placed.number > given[placed.line]:
            given[placed.line] = placed.number
            found.append(placed.line)
    return found


def newest(machines: Mapping[str, Sequence[bytes]], own: Sequence[bytes]) -> str:
    """The moment of the last event that is not in one's own file; empty where there is none."""
    known = set(own)
    others = (one for lines in machines.values() for one in in_order(lines) if one.line not in known)
    return max((one.moment for one in others), default="")


class _Foreign(Exception):
    """The object under this machine's name is not the beginning of its file."""


class Ledgers:
    """The ledgers in one store, seen from one machine. What was read is read again only when it changed."""

    def __init__(self, store: state.State) -> None:
        self._store = store
        self._read: dict[str, tuple[str, bytes]] = {}

    def names(self) -> list[str]:
        """The ledgers that there are, as ``<provider>-<fleet>``."""
        return sorted({name.split("/")[1] for name in self._store.etags(f"{FOLDER}/")})

    def read(self, book: str, local: str) -> dict[str, Any]:
        """All lines of a ledger, one's own included, and the moment of the last that is of another machine."""
        below = f"{FOLDER}/{book}/"
        machines = {name: _lines(self._content(name, etag)) for name, etag in self._store.etags(below).items()}
        own = _lines(_whole(Path(local)))
        lines = merged({**machines, "": own})
        return {"lines": [os.fsdecode(line) for line in lines], "newest": newest(machines, own)}

    def put(self, book: str, local: str) -> None:
        """Bring one's own file to the store. The caller keeps others of this machine from writing it meanwhile."""
        path = Path(local)
        content = _whole(path)
        if not content:
            return
        try:
            self._put(book, _who(path), content)
        except _Foreign:
            self._put(book, _who(path, anew=True), content)

    def sync(self, book: str, local: str) -> None:
        """The same for what an earlier run could not bring there, unless another process is just about to."""
        with contextlib.suppress(OSError), Path(local).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.put(book, local)

    def _put(self, book: str, who: str, content: bytes) -> None:
        def longer(there: bytes | None) -> bytes:
            if there is not None and not content.startswith(there):
                raise _Foreign
            return content

        self._store.change(f"{FOLDER}/{book}/{who}.jsonl", longer)

    def _content(self, name: str, etag: str) -> bytes:
        known = self._read.get(name)
        if known is None or known[0] != etag:
            body = self._store.read(name)
            if body is None or not ledger.events_in(_lines(body)):
                where = self._store.address(name)
                found = "that it is gone" if body is None else "no event in it"
                raise Unmet(f"the ledger of a machine in {where}", found, "run again, or look at who changed it")
            known = self._read[name] = (etag, body)
        return known[1]


def _whole(path: Path) -> bytes:
    """The whole lines of a file; nothing where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def _lines(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def _who(path: Path, anew: bool = False) -> str:
    """The name of this file's object, which lies beside it."""
    kept = ledger.shared_mark(path)
    known = None if anew else files.text_of(kept)
    if known and known.strip():
        return known.strip()
    made = f"{re.sub('[^A-Za-z0-9@._-]+', '-', whoami.user_at_machine())[:60]}-{secrets.token_hex(6)}"
    files.write_text(kept, f"{made}\n", durable=True)
    return made


def answer(book: Ledgers, question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one question, or what was expected in its place."""
    given = {key: value for key, value in question.items() if key != "do"}
    try:
        return {"answer": getattr(book, str(question["do"]))(**given)}
    except Unmet as error:
        return {"unmet": [error.expected, error.found, error.next_step]}
    except OSError as error:
        return {"unmet": ["to read and write the ledger on this disk", str(error), "correct this, and run again"]}


def main(questions: TextIO = sys.stdin) -> None:
    """Answer until nobody can ask any more."""
    store = state.current()
    if store is None:
        raise AssertionError(f"{shared.ENVIRONMENT} is set by who starts this program")
    book = Ledgers(store)
    for line in questions:
        print(json.dumps(answer(book, json.loads(line))), flush=True)
