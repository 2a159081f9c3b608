# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the files of a commit to the disk, several at once: what is there is continued and never fetched again.

A file is fetched in order into ``<blob>.incomplete`` and gets its name when it has all its bytes; whether they are
right is for ``store.py`` to say. What a source asks for is obeyed: all wait while it asks for that. Standard library
only, Python 3.9.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional, Union

from ansible_collections.glm.fleet.plugins.module_utils.weights.sources import (
    Broke,
    Busy,
    Expired,
    Source,
    SourceError,
)
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Store, WeightFile, size_of

_CHUNK_BYTES = 1024 * 1024
_LONGEST_RETRY_SECONDS = 60.0
_LOOK_SECONDS = 0.2


class Stopped(Exception):
    """The fetch as a whole has ended."""


class Download:
    """What the threads of a fetch share.

    ``attempts``: answers in a row without a byte after which a file is given up; ``retry_seconds``: the wait after the
    first of them, which doubles. ``limit_seconds``: for how long a source may ask everybody to wait, without a byte
    meanwhile. ``note`` hears what people should know.
    """

    def __init__(
        self,
        store: Store,
        source: Source,
        commit: str,
        attempts: int,
        retry_seconds: float,
        limit_seconds: float,
        note: Callable[[str], None],
    ) -> None:
        self._store, self._source, self._commit = store, source, commit
        self._attempts, self._retry_seconds, self._limit_seconds = attempts, retry_seconds, limit_seconds
        self._note = note
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._round = 0
        self._until = 0.0
        self._limited_since: Optional[float] = None
        self._unsigned: set[str] = set()
        self.received = 0
        self.retries = 0

    # What the supervisor asks ------------------------------------------------------------------------------------

    @property
    def limited(self) -> float:
        """For how many seconds more the source is not asked, because it said so."""
        return max(0.0, self._until - time.monotonic())

    @property
    def unsigned(self) -> bool:
        """Whether a file waits for an address that is signed anew."""
        return bool(self._unsigned)

    def reconnect(self) -> None:
        """Have each thread ask again for what it is fetching."""
        self._round += 1

    def stop(self) -> None:
        """Have all threads end soon."""
        self._stop.set()

    def bring(self, alike: list[WeightFile]) -> None:
        """Fetch the blob of files of equal content, and give it their names.

        Raises SourceError (also of the kinds attempts, rate_limited and expired), OSError of the disk, or Stopped.
        """
        self._blob(alike[0])
        for file in alike:
            self._store.place(file, self._commit)

    # One blob ----------------------------------------------------------------------------------------------------

    def _blob(self, file: WeightFile) -> None:
        blob, partial = self._store.blob(file.etag), self._store.partial(file.etag)
        if size_of(blob) == file.size:
            return
        partial.parent.mkdir(parents=True, exist_ok=True)
        if (size_of(partial) or 0) > file.size:
            partial.unlink()
        partial.touch()
        fruitless = 0
        while (have := partial.stat().st_size) != file.size:
            self._wait_for_the_source()
            problem = self._answer(partial, file, have)
            if problem is None or partial.stat().st_size > have:
                fruitless = 0
                continue
            fruitless += 1
            if fruitless >= self._attempts:
                kind = "expired" if isinstance(problem, Expired) else "attempts"
                raise SourceError(kind, f"{file.path}: {problem}, {fruitless} times in a row")
            if isinstance(problem, Expired):
                continue
            wait = min(_LONGEST_RETRY_SECONDS, self._retry_seconds * 2 ** (fruitless - 1))
            self._note(f"{file.path}: {problem}; going on at byte {have} after {wait:.0f} s")
            self._sleep(wait)
        partial.replace(blob)

    def _answer(self, partial: Path, file: WeightFile, have: int) -> Union[Broke, Expired, None]:
        """Add what one answer brings; what was wrong with it, or None where waiting was all."""
        signed = self._source.expires
        try:
            problem = self._append(partial, file, have)
        except Busy as exc:
            self._limit(exc, file)
            return None
        except Expired as exc:
            # New ones may be refused, too: whoever signs may have no right to any more.
            self._wait_for_addresses(str(exc), file, signed)
            return exc
        except Broke as exc:
            if exc.afresh:
                partial.unlink()
                partial.touch()
            self._count_retry()
            return exc
        if problem is None:
            return None
        self._count_retry()
        return Broke(problem)

    def _append(self, partial: Path, file: WeightFile, have: int) -> Optional[str]:
        this_round = self._round
        with self._source.open(file, have) as answer:
            # A source that ignores the range begins at the beginning, and so does the file.
            at = have if answer.status == 206 else 0
            with partial.open("ab" if at else "wb", buffering=0) as out:
                while at < file.size:
                    self._require_going()
                    if self._round != this_round:
                        return "it stalled"
                    piece = self._read(answer, file, file.size - at)
                    if not piece:
                        return "the answer ended early"
                    _write(out.fileno(), piece)
                    at += len(piece)
                    self._count(len(piece))
        return None

    def _read(self, answer: http.client.HTTPResponse, file: WeightFile, most: int) -> bytes:
        """What has arrived; errors of the network are not those of the disk."""
        try:
            return answer.read1(min(_CHUNK_BYTES, most))
        except (OSError, http.client.HTTPException) as exc:
            raise Broke(self._source.why(exc, file)) from None

    def _count(self, count: int) -> None:
        with self._lock:
            self.received += count
            self._limited_since = None

    def _count_retry(self) -> None:
        with self._lock:
            self.retries += 1

    # Waiting -----------------------------------------------------------------------------------------------------

    def _limit(self, busy: Busy, file: WeightFile) -> None:
        """Have all wait; raises SourceError when that takes longer than anybody should wait."""
        now = time.monotonic()
        with self._lock:
            self.retries += 1
            first = self._limited_since is None
            self._limited_since = since = now if self._limited_since is None else self._limited_since
            if now + busy.seconds - since > self._limit_seconds:
                raise SourceError(
                    "rate_limited",
                    f"{file.path}: {busy}, and asks to wait {busy.seconds:.0f} s more, {now - since:.0f} s after it "
                    "first did so, without a byte between",
                )
            self._until = max(self._until, now + busy.seconds)
        if first:
            self._note(f"{busy}: it limits requests from this address, waiting {busy.seconds:.0f} s as it asks")

    def _wait_for_the_source(self) -> None:
        while self.limited:
            self._sleep(min(_LOOK_SECONDS, self.limited))
        self._require_going()

    def _wait_for_addresses(self, why: str, file: WeightFile, signed: float) -> None:
        """Until there are others than those of ``signed``. The controller reads that they are wanted."""
        seconds = 24 * self._retry_seconds
        if not self._unsigned:
            self._note(f"waiting {seconds:.0f} s for the controller to sign addresses anew")
        self._unsigned.add(file.path)
        deadline = time.monotonic() + seconds
        try:
            while self._source.expires == signed:
                if time.monotonic() > deadline:
                    raise SourceError("expired", f"{file.path}: {why}")
                self._sleep(_LOOK_SECONDS)
        finally:
            self._unsigned.discard(file.path)

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _require_going(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _write(handle: int, piece: bytes) -> None:
    """All of it: a disk that is nearly full takes a part, and says so with the next."""
    view = memoryview(piece)
    while view:
        view = view[os.write(handle, view) :]
