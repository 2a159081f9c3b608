# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch and verify a model's weights; this program runs on the host, in a systemd unit of its own.

``<folder>`` holds ``job.json`` (see ``Job``) and ``status.json`` (see ``Status``; rewritten every second, read by the
module). It is not on the disk that is written to: a disk that is full must not hide that it is. Each file is hashed as
soon as it is whole, from the disk, while others are fetched; a wrong one is fetched once more.

One fetch works in a repository's folder at a time, whatever the host (lease.py): on a file system that several share
the others wait, and find the work done.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.weights.download import Download
from ansible_collections.glm.fleet.plugins.module_utils.weights.lease import Lease
from ansible_collections.glm.fleet.plugins.module_utils.weights.sources import SourceError, source
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import (
    Damage,
    Manifest,
    Store,
    WeightFile,
    human_bytes,
)

POLL_SECONDS = 1.0
EVENTS_KEPT = 20
_RATE_WINDOW_SECONDS = 60.0
_SILENCE_SECONDS = 60.0
# What a disk says that no second try changes.
_DISK = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "quota",
    errno.EROFS: "read_only",
    errno.EACCES: "no_rights",
    errno.EPERM: "no_rights",
    errno.ESTALE: "stale",
    errno.EOPNOTSUPP: "no_links",
    errno.EIO: "input_output",
}


@dataclass(frozen=True)
class Job:
    """What to fetch and how; ``requested`` is the revision's name, rates are bytes per second.

    ``repair`` false only verifies: nothing is removed and nothing fetched. ``attempts`` bounds the answers in a row
    that bring nothing of a file, ``limit_seconds`` how long a hub may ask everybody to wait. ``addresses`` is the file
    with the signed addresses of an object store; empty asks the hub at ``endpoint``. ``unsafe`` fetches pickles and
    code, too.
    """

    hf_home: str
    manifest: dict[str, Any]
    requested: str
    endpoint: str = ""
    token_file: str = ""
    addresses: str = ""
    repair: bool = True
    unsafe: bool = False
    stall_seconds: float = 120.0
    min_bytes_per_second: float = 1_000_000.0
    attempts: int = 5
    retry_seconds: float = 5.0
    limit_seconds: float = 3600.0
    download_workers: int = 16
    hash_workers: int = 0


@dataclass
class Status:
    """How far it is. ``phase``: starting, download, wait, verify, done, failed or interrupted; times are epochs."""

    phase: str = "starting"
    total_bytes: int = 0
    done_bytes: int = 0
    rate: float = 0.0
    files: int = 0
    files_done: int = 0
    retries: int = 0
    fetched_bytes: int = 0
    started: float = 0.0
    updated: float = 0.0
    error_kind: str = ""
    error: str = ""
    events: list[str] = field(default_factory=list)


class FetchError(Exception):
    """It cannot be done. ``kind``: that of a SourceError, one of a disk, damaged or stalled."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Interrupted(Exception):
    """The unit was stopped."""


class Supervisor:
    """One run of the job in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = Job(**files.read_json(folder / "job.json"))
        self.manifest = Manifest.from_json(self.job.manifest)
        self.store = Store(Path(self.job.hf_home), self.manifest.repository, self.job.unsafe)
        self.wanted = self.store.wanted(self.manifest)
        self.total_bytes = sum(file.size for file in self.wanted)
        self.status = Status(total_bytes=self.total_bytes, files=len(self.wanted), started=time.time())
        self._hashed = 0
        self._right = 0
        self._replaced = False
        self._samples: collections.deque[tuple[float, int]] = collections.deque()
        self._stalls = 0
        self._lock = threading.Lock()
        self._lease: Optional[Lease] = None

    def run(self) -> int:
        """Do the job; 0 when every file is there and right."""
        try:
            self._work()
        except FetchError as exc:
            return self._failed(exc.kind, str(exc))
        except Interrupted:
            self._report("interrupted", "stopped before the end; the next run continues from here")
            return 1
        except OSError as exc:
            place = exc.filename or self.job.hf_home
            return self._failed(_DISK.get(exc.errno or 0, "input_output"), f"{place}: {exc.strerror or exc}")
        self._report("done", f"{len(self.wanted)} files verified")
        return 0

    def _failed(self, kind: str, message: str) -> int:
        self.status.error_kind, self.status.error = kind, message
        self._report("failed", message)
        return 1

    def _work(self) -> None:
        if not self.job.repair:
            damages = [*self.store.unlisted(self.manifest), *self._bring_and_check()]
            if damages:
                # Without the record, the next run that may repair hashes everything and does so.
                self.store.forget(self.manifest.commit)
            self._refuse(damages)
            self.store.write_record(self.manifest)
        else:
            with self._alone() as waited:
                # Another host has just done it.
                if not waited or self.store.changed_since_record(self.manifest.commit) != []:
                    self._repair()
        self.store.write_references(self.job.requested, self.manifest.commit)

    def _repair(self) -> None:
        for damage in (*self.store.remove_unlisted(self.manifest), *self.store.remove_wrong_sizes(self.manifest)):
            self._event(f"removed: {damage}")
            self._replaced = True
        self._refuse(self._bring_and_check())
        self._require_lease()
        self.store.write_record(self.manifest, self._replaced)
        freed = self.store.remove_leftovers(self.manifest)
        if freed:
            self._event(f"removed {human_bytes(freed)} that another client had begun")

    def _refuse(self, damages: list[Damage]) -> None:
        if damages:
            damages = sorted(damages, key=lambda damage: damage.path)
            shown = "; ".join(str(damage) for damage in damages[:5])
            more = f"; and {len(damages) - 5} more" if len(damages) > 5 else ""
            raise FetchError("damaged", f"{len(damages)} of {len(self.wanted)} files are wrong: {shown}{more}")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """While no other fetch works in this folder; gives whether this one waited for another."""
        self.store.folder.mkdir(parents=True, exist_ok=True)
        self._lease = Lease(self.store.folder, self._wait_for, self._event)
        waited = self._lease.take()
        try:
            yield waited
        finally:
            self._lease.release()

    def _wait_for(self, why: str) -> None:
        self._report("wait", "" if self.status.phase == "wait" else why)

    def _require_lease(self) -> None:
        """Raise FetchError when another host works in the folder by now: this one was halted for too long."""
        if self._lease is not None and self._lease.lost_to:
            raise FetchError("lost", f"{self._lease.lost_to} has taken {self.store.folder} over")

    # Fetching and hashing ----------------------------------------------------------------------------------------

    def _bring_and_check(self) -> list[Damage]:
        """Fetch what is missing, and hash every file as soon as it is whole; what is wrong in the end."""
        alike: dict[str, list[WeightFile]] = {}
        # The largest first, so that none is left alone at the end.
        for file in sorted(self.wanted, key=lambda file: -file.size):
            alike.setdefault(file.etag, []).append(file)
        absent = {file.etag for file in self.store.missing(self.manifest)} if self.job.repair else set()
        there = sum(
            self.store.begun(etag, group[0].size) if etag in absent else group[0].size for etag, group in alike.items()
        )
        download = self._download()
        try:
            return self._follow(download, list(alike.values()), absent, there)
        except SourceError as exc:
            raise FetchError(exc.kind, str(exc)) from None
        finally:
            download.stop()
            self._account(download, there, fetching=0)

    def _follow(self, download: Download, groups: list[list[WeightFile]], absent: set[str], there: int) -> list[Damage]:
        """Check what was fetched, fetch once more what is wrong, until nothing is left to do."""
        bring: Callable[[list[WeightFile]], Optional[list[Damage]]] = download.bring
        running: dict[concurrent.futures.Future[Optional[list[Damage]]], list[WeightFile]] = {}
        fetching, damages = len(absent), []
        again: set[str] = set()
        workers = self.job.hash_workers or min(16, os.cpu_count() or 1)
        with _pool(self.job.download_workers, "fetch") as fetchers, _pool(workers, "hash") as hashers:
            for group in groups:
                of_absent = group[0].etag in absent
                running[fetchers.submit(bring, group) if of_absent else hashers.submit(self._check, group)] = group
            while running:
                done, _ = concurrent.futures.wait(running, POLL_SECONDS, concurrent.futures.FIRST_COMPLETED)
                for one in done:
                    group, wrong = running.pop(one), one.result()
                    if wrong is None:
                        fetching -= 1
                        running[hashers.submit(self._check, group)] = group
                    elif wrong and self.job.repair and group[0].etag not in again:
                        again.add(group[0].etag)
                        self._remove(group, wrong)
                        fetching += 1
                        running[fetchers.submit(bring, group)] = group
                    else:
                        damages += wrong
                        self._right += 0 if wrong else len(group)
                self._look(download, there, fetching)
        return damages

    def _download(self) -> Download:
        job, manifest = self.job, self.manifest
        silence = min(_SILENCE_SECONDS, job.stall_seconds)
        origin = source(
            manifest.repository, manifest.commit, job.endpoint, job.token_file, job.addresses, silence
        )  # fmt: skip
        return Download(
            self.store, origin, manifest.commit, job.attempts, job.retry_seconds, job.limit_seconds, self._event
        )

    def _check(self, group: list[WeightFile]) -> Optional[list[Damage]]:
        """What is wrong with files of equal content."""
        found = [self.store.check(file, self.manifest.commit, self._advance) for file in group]
        return [damage for damage in found if damage is not None]

    def _advance(self, count: int) -> None:
        with self._lock:
            self._hashed += count

    def _remove(self, group: list[WeightFile], wrong: list[Damage]) -> None:
        self._replaced = True
        for damage in wrong:
            self._event(f"removed to fetch again: {damage}")
        for file in group:
            self.store.remove(file, self.manifest.commit)

    # How far it is -----------------------------------------------------------------------------------------------

    def _look(self, download: Download, there: int, fetching: int) -> None:
        """Once a second: say how far it is, and ask anew where nothing arrives."""
        if time.time() - self.status.updated < POLL_SECONDS:
            return
        self._require_lease()
        phase = self._account(download, there, fetching)
        if phase == "download":
            self._require_progress(download)
        else:
            self._stalls = 0
        self._report(phase)

    def _account(self, download: Download, there: int, fetching: int) -> str:
        """Bring the status up to date; the phase."""
        status = self.status
        waits = fetching > 0 and (download.limited > 0 or download.unsigned)
        phase = "wait" if waits else "download" if fetching else "verify"
        status.fetched_bytes, status.retries = download.received, download.retries
        status.error_kind = "expired" if download.unsigned else ""
        done = self._hashed if phase == "verify" else there + download.received
        status.files_done = self._right if phase == "verify" else len(self.wanted) - fetching
        if phase != status.phase:
            self._samples.clear()
        self._sample(min(done, self.total_bytes))
        return phase

    def _sample(self, done: int) -> None:
        now = time.monotonic()
        self._samples.append((now, done))
        while now - self._samples[0][0] > max(self.job.stall_seconds, _RATE_WINDOW_SECONDS) + POLL_SECONDS:
            self._samples.popleft()
        recent = [sample for sample in self._samples if now - sample[0] <= _RATE_WINDOW_SECONDS]
        seconds = now - recent[0][0]
        self.status.done_bytes = done
        self.status.rate = max(0.0, (done - recent[0][1]) / seconds) if seconds > 0 else 0.0

    def _require_progress(self, download: Download) -> None:
        """Drop all connections when they bring too little; raises FetchError when that did not help several times."""
        now, done = self._samples[-1]
        window = [sample for sample in self._samples if now - sample[0] <= self.job.stall_seconds + POLL_SECONDS]
        seconds = now - window[0][0]
        if seconds < self.job.stall_seconds:
            return
        gained, left = done - window[0][1], self.total_bytes - window[0][1]
        # At the very end less may be left than the minimum rate asks for; then that much must arrive.
        if gained >= max(1.0, min(self.job.min_bytes_per_second * seconds, float(left))):
            self._stalls = 0
            return
        self._stalls += 1
        problem = (
            f"stalled: {human_bytes(max(gained, 0))} in {seconds:.0f} s, "
            f"less than {human_bytes(self.job.min_bytes_per_second)}/s"
        )
        if self._stalls >= self.job.attempts:
            raise FetchError("stalled", f"{problem}, {self._stalls} times in a row")
        self._event(f"{problem}; asking again for what is missing")
        self._samples.clear()
        download.reconnect()

    def _event(self, text: str) -> None:
        if text:
            stamp = time.strftime("%H:%M:%SZ", time.gmtime())
            with self._lock:
                self.status.events = [*self.status.events, f"{stamp} {text}"][-EVENTS_KEPT:]
            _say(text)

    def _report(self, phase: str, event: str = "") -> None:
        self._event(event)
        self.status.phase = phase
        self.status.updated = time.time()
        try:
            files.write_json(self.folder / "status.json", asdict(self.status), files.READABLE)
        except OSError as exc:
            # The journal has the events, and the unit its exit status: neither needs this file.
            _say(f"{self.folder / 'status.json'}: {exc.strerror}")


@contextlib.contextmanager
def _pool(workers: int, name: str) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Threads that are not waited for when something failed: one may be in a read of a minute."""
    pool = concurrent.futures.ThreadPoolExecutor(workers, name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _say(text: str) -> None:
    """One line for the journal of the unit, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """``run <folder>``."""

    def stop(_number: int, _frame: object) -> None:
        raise Interrupted

    signal.signal(signal.SIGTERM, stop)
    return Supervisor(Path(argv[1])).run()


if __name__ == "__main__":
    # Threads may be in a read; what they wrote is on the disk, and continued by the next run.
    os._exit(main(sys.argv[1:]))
