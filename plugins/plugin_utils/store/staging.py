# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the weights of a commit from the hub into a store: streamed, each file hashed on the way.

Nothing is kept on the controller's disk. A file is read into buffers of fixed number and size while it is hashed, and
each full buffer is one part of an upload; only when the hash is the hub's are the parts made an object. A file whose
stream breaks goes on where it broke; a run that ended goes on with the files that are not in the store yet.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import queue
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ansible_collections.glm.fleet.plugins.module_utils import unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import HubClient, seconds_asked
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, WeightFile
from ansible_collections.glm.fleet.plugins.plugin_utils.store import staged
from ansible_collections.glm.fleet.plugins.plugin_utils.store.bucket import Bucket, Stored
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError

MIB = 1024 * 1024
# The buffers of all files together are the memory that a run takes beside the program's own 100 MB.
BUFFER_BYTES = 8 * MIB
BUFFERS = 16
FILES_AT_ONCE = 6
UPLOADS_AT_ONCE = 12
# An upload has 10,000 parts at most; none but the last may be smaller than 5 MiB.
_MOST_PARTS = 10_000
# Hashed while it is still in the processor's cache.
_READ_BYTES = 512 * 1024
_RECORD_SECONDS = 30.0
# A stream that breaks so often in a row without a byte is given up.
_ATTEMPTS = 6
_LONGEST_WAIT_SECONDS = 300.0


@dataclass
class Progress:
    """How far a run is; ``events`` are what people should know of, not yet shown."""

    total_bytes: int
    done_bytes: int = 0
    events: list[str] = field(default_factory=list)


class Stopped(Exception):
    """Another file failed in a way that ends the run."""


class Staging:
    """One run: ``files`` of a manifest from ``hub`` into ``bucket``. ``record`` says what is there, and is kept.

    ``total_bytes`` is the size of all that belongs there.
    """

    def __init__(
        self, hub: HubClient, bucket: Bucket, record: staged.Record, total_bytes: int,
        sleep: Callable[[float], object] | None = None,
    ) -> None:  # fmt: skip
        self._hub, self._bucket, self._record = hub, bucket, record
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._lock = threading.Lock()
        self._buffers: queue.Queue[bytearray] = queue.Queue()
        self._uploads = concurrent.futures.ThreadPoolExecutor(UPLOADS_AT_ONCE, "upload")
        self._before: dict[str, Stored] = {}
        self.progress = Progress(total_bytes)

    def run(self, files: list[WeightFile], report: Callable[[Progress], object]) -> None:
        """Stage these files; ``report`` is called about once a second. Raises StoreError, HubError or Unmet."""
        self.progress.done_bytes = self.progress.total_bytes - sum(file.size for file in files)
        self._look(files)
        largest = max((file.size for file in files), default=0)
        size = max(BUFFER_BYTES, -(-largest // (_MOST_PARTS * MIB)) * MIB)
        for _ in range(max(FILES_AT_ONCE + 1, min(BUFFERS, BUFFERS * BUFFER_BYTES // size))):
            self._buffers.put(bytearray())
        with concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE, "stage") as pool, self._uploads:
            # The largest first, so that none is left alone at the end.
            ordered = sorted(files, key=lambda file: -file.size)
            running = {pool.submit(self._stage, file, size): file for file in ordered}
            try:
                self._follow(running, report)
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                self._keep(running)
                raise
        staged.write_record(self._bucket, self._record)

    def _keep(self, running: Mapping[concurrent.futures.Future[str], WeightFile]) -> None:
        """Record what was completed before a run failed, so that the next one does not stage it again."""
        for one, file in running.items():
            if one.done() and not one.cancelled() and one.exception() is None:
                self._record.etags[file.path] = one.result()
        with contextlib.suppress(StoreError):
            staged.write_record(self._bucket, self._record)

    def _follow(
        self, running: Mapping[concurrent.futures.Future[str], WeightFile], report: Callable[[Progress], object]
    ) -> None:
        waiting, recorded = set(running), time.monotonic()
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, 1.0, concurrent.futures.FIRST_COMPLETED)
            for one in done:
                self._record.etags[running[one].path] = one.result()
            if done and time.monotonic() - recorded > _RECORD_SECONDS:
                staged.write_record(self._bucket, self._record)
                recorded = time.monotonic()
            report(self.progress)

    def _look(self, files: list[WeightFile]) -> None:
        """See which objects there are before this run, and abort what a killed one left: parts cost money, unseen."""
        manifest = self._record.manifest
        ours = {staged.key_of(self._bucket.place, manifest, file) for file in files}
        below = self._bucket.place.key(manifest.repository, manifest.commit) + "/"
        left = [entry for entry in self._bucket.unfinished(below) if entry[0] in ours] if files else []
        self._before = self._bucket.objects(below) if files else {}
        for key, upload in left:
            self._bucket.abort(key, upload)
        if left:
            self.progress.events.append(f"dropped {len(left)} unfinished uploads of an earlier run")

    # One file ----------------------------------------------------------------------------------------------------

    def _stage(self, file: WeightFile, part_bytes: int) -> str:
        """Stage a file and return its ETag; a wrong one is fetched once more."""
        key = staged.key_of(self._bucket.place, self._record.manifest, file)
        for last in (False, True):
            found, etag = self._attempt(file, key, part_bytes)
            if found == file.expected:
                return etag
            self._count(-file.size)
            text = f"{file.path} from {self._hub.endpoint}"
            if last:
                hint = "if the hash differs each time, check this machine's memory; if not, the proxy or mirror"
                raise Unmet(f"{file.expected} of {text}, fetched twice", found, hint)
            self.progress.events.append(f"expected {file.expected} of {text}, found {found}: fetching it again")
        raise AssertionError("the loop returns or raises")

    def _attempt(self, file: WeightFile, key: str, part_bytes: int) -> tuple[str, str]:
        """The hash of what came, and the ETag of the object; none is made when the hash is wrong."""
        kind = "sha256" if file.sha256 else "git-sha1"
        digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {file.size}\0".encode())
        stream = _Stream(self._hub, self._record.manifest, file, self._note, self._sleep)
        if file.size <= part_bytes:
            buffer = self._taken(part_bytes)
            try:
                length = self._fill(buffer, stream, file.size, digest.update)
                found = f"{kind}:{digest.hexdigest()}"
                return found, self._bucket.write(key, memoryview(buffer)[:length]) if found == file.expected else ""
            finally:
                self._buffers.put(buffer)
        upload = self._bucket.begin(key)
        etags: dict[int, str] = {}
        parts: list[concurrent.futures.Future[None]] = []
        try:
            try:
                for number in range(1, -(-file.size // part_bytes) + 1):
                    buffer = self._taken(part_bytes)
                    wanted = min(part_bytes, file.size - (number - 1) * part_bytes)
                    try:
                        self._fill(buffer, stream, wanted, digest.update)
                        self._raise_first(parts)
                    except BaseException:
                        self._buffers.put(buffer)
                        raise
                    parts.append(self._uploads.submit(self._send, key, upload, number, buffer, wanted, etags))
            finally:
                concurrent.futures.wait(parts)
            self._raise_first(parts)
            found = f"{kind}:{digest.hexdigest()}"
            if found != file.expected:
                self._bucket.abort(key, upload)
                return found, ""
            return found, self._completed(key, upload, etags, file.size)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._bucket.abort(key, upload)
            raise

    def _completed(self, key: str, upload: str, etags: Mapping[int, str], size: int) -> str:
        """The ETag of the object of these parts, also where only the answer that says so was lost."""
        try:
            return self._bucket.complete(key, upload, etags)
        except StoreError as exc:
            if exc.kind not in ("aborted", "truncated", "unreachable"):
                raise
            made = self._bucket.objects(key).get(key)
            if made is None or made.size != size or made == self._before.get(key):
                raise
            return made.etag

    @staticmethod
    def _raise_first(parts: list[concurrent.futures.Future[None]]) -> None:
        for part in parts:
            if part.done():
                part.result()

    def _taken(self, size: int) -> bytearray:
        buffer = self._buffers.get()
        if len(buffer) != size:
            buffer = bytearray(size)
        return buffer

    def _fill(self, buffer: bytearray, stream: _Stream, wanted: int, hashed: Callable[[memoryview], None]) -> int:
        view = memoryview(buffer)
        for piece in stream.into(view[:wanted]):
            if self._stop.is_set():
                raise Stopped
            hashed(piece)
            self._count(len(piece))
        return wanted

    def _send(self, key: str, upload: str, number: int, buffer: bytearray, length: int, etags: dict[int, str]) -> None:
        try:
            if self._stop.is_set():
                raise Stopped
            body = buffer if length == len(buffer) else buffer[:length]
            etags[number] = self._bucket.part(key, upload, number, body)
        finally:
            self._buffers.put(buffer)

    def _count(self, count: int) -> None:
        with self._lock:
            self.progress.done_bytes += count

    def _note(self, text: str) -> None:
        self.progress.events.append(text)


class _Stream:
    """The content of one file of the hub, in order, over as many answers as it takes."""

    def __init__(
        self, hub: HubClient, manifest: Manifest, file: WeightFile, note: Callable[[str], None],
        sleep: Callable[[float], object],
    ) -> None:  # fmt: skip
        self._hub, self._manifest, self._file = hub, manifest, file
        self._note, self._sleep = note, sleep
        self._at = 0
        self._answer: http.client.HTTPResponse | None = None
        self._fruitless = 0

    def into(self, view: memoryview) -> Iterator[memoryview]:
        """Fill ``view``, and give each piece as it arrives. Raises HubError, or Unmet when no try brings more."""
        filled = 0
        while filled < len(view):
            try:
                count = self._opened().readinto(view[filled : filled + _READ_BYTES])
                if count == 0:
                    raise http.client.IncompleteRead(b"")
            except (OSError, http.client.HTTPException) as exc:
                self._broke(exc)
                continue
            self._fruitless = 0
            self._at += count
            yield view[filled : filled + count]
            filled += count
        if self._at == self._file.size:
            self._close()

    def _opened(self) -> http.client.HTTPResponse:
        if self._answer is None:
            manifest = self._manifest
            self._answer = self._hub.open_file(manifest.repository, manifest.commit, self._file.path, self._at)
            if self._at and self._answer.status != 206:
                _skip(self._answer, self._at)
        return self._answer

    def _broke(self, error: Exception) -> None:
        self._close()
        self._fruitless += 1
        why = unreachable.why(error, self._hub.endpoint)
        status = error.code if isinstance(error, urllib.error.HTTPError) else 0
        if isinstance(error, http.client.IncompleteRead):
            why = "the answer ended early"
        elif status:
            why = f"it answered {status}"
        if self._fruitless >= _ATTEMPTS:
            advice = "set glm_hub_token, or wait and run again" if status == 429 else "run again: it continues"
            at = f"{self._file.path} of {self._manifest.repository} from {self._hub.endpoint}"
            raise Unmet(f"all of {at}", f"{why} in {_ATTEMPTS} attempts in a row", advice)
        wait = min(60.0, 2.0 ** (self._fruitless - 1))
        if isinstance(error, urllib.error.HTTPError) and (asked := seconds_asked(error.headers)) is not None:
            wait = min(_LONGEST_WAIT_SECONDS, asked)
        self._note(f"{self._file.path}: {why}; going on at byte {self._at} after {wait:.0f} s")
        self._sleep(wait)

    def _close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


def _skip(answer: http.client.HTTPResponse, count: int) -> None:
    """Read what came before, where a mirror does not begin in the middle."""
    while count:
        read = len(answer.read(min(count, _READ_BYTES)))
        if not read:
            raise http.client.IncompleteRead(b"")
        count -= read
