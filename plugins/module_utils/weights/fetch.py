# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch and verify a model's weights; this program runs inside the engine image, which carries ``huggingface_hub``.

With the addresses of an object store, ``origin.py`` takes the place of that client.

``run <folder>`` supervises: it starts ``download <folder>`` as a child (the real client's ``snapshot_download``),
watches bytes arrive, restarts a stalled or failed child (from the second attempt on without Xet, whose transfers are
known to hang near the end: huggingface/xet-core#883), hashes every file, fetches wrong ones once more, and records
the result. ``<folder>`` is ``<hf_home>/glm-fetch/<key>`` and holds ``job.json`` (see ``Job``), ``status.json`` (see
``Status``; rewritten every few seconds, read by the module) and ``client.log`` (what the client printed).

Works with huggingface_hub 0.3x to 2.x and Python 3.9.
"""

from __future__ import annotations

import collections
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files
from ansible_collections.glm.fleet.plugins.module_utils.weights.origin import Addresses, Origin, OriginError
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import (
    Damage,
    Manifest,
    Store,
    human_bytes,
)

POLL_SECONDS = 1.0
EVENTS_KEPT = 20
LOG_TAIL_BYTES = 4000
_RATE_WINDOW_SECONDS = 60.0
_TERM_SECONDS = 10.0
# Errors that another attempt cannot fix.
FATAL = frozenset({"unauthorised", "forbidden", "region", "not_found", "disk_full", "no_client"})
_KINDS_BY_STATUS = {401: "unauthorised", 403: "forbidden", 404: "not_found", 429: "rate_limited"}


@dataclass(frozen=True)
class Job:
    """What to fetch and how; ``requested`` is the revision's name, rates are bytes per second.

    ``repair`` false only verifies: nothing is removed and nothing fetched. ``attempts`` bounds the attempts in a row
    that complete no file. ``addresses`` is the file with the signed addresses of an object store; empty asks the hub.
    """

    manifest: dict[str, Any]
    requested: str
    repair: bool = True
    stall_seconds: float = 120.0
    min_bytes_per_second: float = 1_000_000.0
    attempts: int = 5
    retry_seconds: float = 5.0
    download_workers: int = 8
    hash_workers: int = 0
    addresses: str = ""


@dataclass
class Status:
    """How far it is. ``phase``: starting, download, wait, verify, done, failed or interrupted; times are epochs."""

    phase: str = "starting"
    total_bytes: int = 0
    done_bytes: int = 0
    rate: float = 0.0
    files: int = 0
    files_done: int = 0
    attempt: int = 0
    xet: bool = True
    fetched_bytes: int = 0
    started: float = 0.0
    updated: float = 0.0
    error_kind: str = ""
    error: str = ""
    events: list[str] = field(default_factory=list)


class FetchError(Exception):
    """It cannot be done; ``kind`` is one of FATAL, ``rate_limited``, ``attempts``, ``damaged``, ``stalled``."""

    def __init__(self, kind: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class Interrupted(Exception):
    """The unit was stopped."""


class Supervisor:
    """One run of the job in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = Job(**files.read_json(folder / "job.json"))
        self.manifest = Manifest.from_json(self.job.manifest)
        self.store = Store(folder.parent.parent, self.manifest.repository)
        self.status = Status(total_bytes=self.manifest.total_bytes, files=len(self.manifest.files), started=time.time())
        self.status.xet = not self.job.addresses
        self._samples: collections.deque[tuple[float, int]] = collections.deque()

    def run(self) -> int:
        """Do the job; 0 when every file is there and right."""
        try:
            self._fetch_and_verify()
        except FetchError as exc:
            self.status.error_kind, self.status.error = exc.kind, str(exc)
            self._report("failed", str(exc))
            return 1
        except Interrupted:
            self._report("interrupted", "stopped before the end; the next run continues from here")
            return 1
        except OSError as exc:
            self.status.error_kind = "disk_full" if exc.errno == errno.ENOSPC else "input_output"
            self.status.error = str(exc)
            self._report("failed", str(exc))
            return 1
        self._report("done", f"{len(self.manifest.files)} files verified")
        return 0

    def _fetch_and_verify(self) -> None:
        if not self.job.repair:
            damages = self._verify()
            if damages:
                # Without the record, the next run that may repair hashes everything and does so.
                self.store.forget(self.manifest.commit)
            self._refuse(damages)
        else:
            self._event(self._describe(self.store.remove_wrong_sizes(self.manifest)))
            self._download()
            damages = self._verify()
            if damages:
                self._event(self._describe(damages))
                self.store.remove(self.manifest, [damage.path for damage in damages])
                self._download()
                self._refuse(self._verify())
        self.store.write_record(self.manifest)
        self.store.write_references(self.job.requested, self.manifest.commit)

    def _describe(self, damages: list[Damage]) -> str:
        return "".join(f"removed to fetch again: {damage}; " for damage in damages).rstrip("; ")

    def _refuse(self, damages: list[Damage]) -> None:
        if damages:
            shown = "; ".join(str(damage) for damage in damages[:5])
            more = f"; and {len(damages) - 5} more" if len(damages) > 5 else ""
            raise FetchError("damaged", f"{len(damages)} of {len(self.manifest.files)} files are wrong: {shown}{more}")

    # Download ----------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        fruitless = 0
        before = len(self.store.missing(self.manifest))
        while before:
            self.status.attempt += 1
            failure: Optional[FetchError] = None
            signed = self._signed()
            try:
                self._attempt()
            except FetchError as exc:
                if exc.kind in FATAL:
                    raise
                failure = exc
            after = len(self.store.missing(self.manifest))
            if after == 0:
                return
            failure = failure or FetchError("incomplete", f"the client ended without error, {after} files are missing")
            fruitless = fruitless + 1 if after >= before else 0
            before = after
            self._event(f"attempt {self.status.attempt}: {failure}")
            if fruitless >= self.job.attempts:
                raise FetchError(
                    failure.kind if failure.kind in ("rate_limited", "expired") else "attempts",
                    f"{fruitless} attempts in a row completed no file; the last: {failure}",
                )
            if failure.kind == "expired":
                self._wait_for_addresses(signed, 24 * self.job.retry_seconds)
            elif failure.kind == "rate_limited":
                self._wait(failure.retry_after or 12 * self.job.retry_seconds)
            else:
                self.status.xet = False
                self._wait(min(60.0, self.job.retry_seconds * 2 ** max(0, fruitless - 1)))

    def _attempt(self) -> None:
        """Run the client once; raises FetchError when it stalls or fails."""
        freed = self.store.remove_useless_partials(self.manifest)
        if freed:
            self._event(f"removed {human_bytes(freed)} of partial files that cannot be resumed")
        outcome = self.folder / "outcome.json"
        outcome.unlink(missing_ok=True)
        at_start = self.store.bytes_on_disk(self.manifest)
        self._samples.clear()
        try:
            with (self.folder / "client.log").open("ab") as log, _Client(self.folder, log, self.status.xet) as child:
                while child.poll() is None:
                    self._sample()
                    self._report("download")
                    self._check_stall()
                    try:
                        child.wait(POLL_SECONDS)
                    except subprocess.TimeoutExpired:
                        continue
        finally:
            self._sample()
            self.status.fetched_bytes += max(0, self.status.done_bytes - at_start)
            self._report("download")
        if child.returncode != 0:
            said = files.read_json(outcome) or {}
            kind = said.get("kind", "client")
            message = said.get("message") or f"the client ended with status {child.returncode}: {self._log_tail()}"
            raise FetchError(kind, message, float(said.get("retry_after") or 0))

    def _sample(self) -> None:
        now = time.monotonic()
        done = self.store.bytes_on_disk(self.manifest)
        self._samples.append((now, done))
        while now - self._samples[0][0] > max(self.job.stall_seconds, _RATE_WINDOW_SECONDS) + POLL_SECONDS:
            self._samples.popleft()
        recent = [sample for sample in self._samples if now - sample[0] <= _RATE_WINDOW_SECONDS]
        seconds = now - recent[0][0]
        self.status.done_bytes = done
        self.status.rate = max(0.0, (done - recent[0][1]) / seconds) if seconds > 0 else 0.0
        self.status.files_done = self.status.files - len(self.store.missing(self.manifest))

    def _check_stall(self) -> None:
        now, done = self._samples[-1]
        window = [sample for sample in self._samples if now - sample[0] <= self.job.stall_seconds + POLL_SECONDS]
        seconds = now - window[0][0]
        if seconds < self.job.stall_seconds:
            return
        gained, left = done - window[0][1], self.manifest.total_bytes - window[0][1]
        # At the very end less may be left than the minimum rate asks for; then that much must arrive.
        wanted = max(1.0, min(self.job.min_bytes_per_second * seconds, float(left)))
        if gained < wanted:
            raise FetchError(
                "stalled",
                f"stalled: {human_bytes(max(gained, 0))} in {seconds:.0f} s, "
                f"less than {human_bytes(self.job.min_bytes_per_second)}/s"
                + (", fetching through Xet" if self.status.xet else ""),
            )

    def _signed(self) -> float:
        return Addresses(Path(self.job.addresses)).expires if self.job.addresses else 0.0

    def _wait_for_addresses(self, signed: float, seconds: float) -> None:
        """Until there are others than those of ``signed``, not longer than so many seconds.

        The controller reads the status, and signs them.
        """
        self.status.error_kind = "expired"
        self._report("wait", f"waiting {seconds:.0f} s for the controller to sign addresses anew")
        deadline = time.monotonic() + seconds
        while self._signed() == signed and time.monotonic() < deadline:
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            self._report("wait")
        self.status.error_kind = ""

    def _wait(self, seconds: float) -> None:
        self._report("wait", f"waiting {seconds:.0f} s before the next attempt")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            self._report("wait")

    # Verification ------------------------------------------------------------------------------------------------

    def _verify(self) -> list[Damage]:
        workers = self.job.hash_workers or min(16, os.cpu_count() or 1)
        started = time.monotonic()

        def progress(done_bytes: int, done_files: int) -> None:
            self.status.done_bytes, self.status.files_done = done_bytes, done_files
            self.status.rate = done_bytes / max(0.001, time.monotonic() - started)
            self._report("verify")

        self._event(f"hashing {human_bytes(self.manifest.total_bytes)} with {workers} threads")
        return self.store.verify(self.manifest, workers, progress)

    # Reporting ---------------------------------------------------------------------------------------------------

    def _event(self, text: str) -> None:
        if text:
            stamp = time.strftime("%H:%M:%SZ", time.gmtime())
            self.status.events = [*self.status.events, f"{stamp} {text}"][-EVENTS_KEPT:]
            _say(text)

    def _report(self, phase: str, event: str = "") -> None:
        self._event(event)
        self.status.phase = phase
        self.status.updated = time.time()
        files.write_json(self.folder / "status.json", asdict(self.status), files.READABLE)

    def _log_tail(self) -> str:
        return log_tail(self.folder)


def log_tail(folder: Path) -> str:
    """The last lines that the client printed."""
    try:
        with (folder / "client.log").open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - LOG_TAIL_BYTES))
            return handle.read().decode(errors="replace").strip()
    except OSError:
        return ""


class _Client:
    """The client as a child process, ended when the block is left, however it is left."""

    def __init__(self, folder: Path, log: IO[bytes], xet: bool) -> None:
        environment = dict(os.environ, HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="0")
        if not xet:
            environment["HF_HUB_DISABLE_XET"] = "1"
        # Its own session, so that helpers of the client end with it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, "download", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_exc: object) -> None:
        for number, patience in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _TERM_SECONDS)):
            if self._process.poll() is not None:
                return
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def download(folder: Path) -> int:
    """Run the real client once; on failure leave ``outcome.json`` with kind, message and retry_after."""
    job = Job(**files.read_json(folder / "job.json"))
    manifest = Manifest.from_json(job.manifest)
    if job.addresses:
        return _from_store(folder, job, manifest)
    try:
        # Only the engine image has it, and only the child may be slow to import it.
        import huggingface_hub  # type: ignore[import-not-found,unused-ignore]
    except ImportError as exc:
        _leave(folder, "no_client", f"the image has no huggingface_hub ({exc})")
        return 1
    _say(f"huggingface_hub {huggingface_hub.__version__}")
    try:
        huggingface_hub.snapshot_download(
            manifest.repository,
            revision=manifest.commit,
            cache_dir=str(folder.parent.parent / "hub"),
            max_workers=job.download_workers,
            etag_timeout=30,
        )
    except Exception as exc:  # the client raises errors of three HTTP libraries, depending on its version
        kind, retry_after = classify(exc)
        _leave(folder, kind, f"{type(exc).__name__}: {_first_lines(exc)}", retry_after)
        return 1
    return 0


def _from_store(folder: Path, job: Job, manifest: Manifest) -> int:
    store = Store(folder.parent.parent, manifest.repository)
    try:
        Origin(store, Addresses(Path(job.addresses))).fetch(manifest, job.download_workers)
    except OriginError as exc:
        _leave(folder, exc.kind, str(exc))
        return 1
    except OSError as exc:
        _leave(folder, classify(exc)[0], f"{type(exc).__name__}: {_first_lines(exc)}")
        return 1
    return 0


def classify(error: BaseException) -> tuple[str, float]:
    """Kind of a client's error, and the seconds after which the hub wants to be asked again (0: not said)."""
    for exc in _chain(error):
        if isinstance(exc, OSError) and exc.errno == errno.ENOSPC:
            return "disk_full", 0.0
        response = getattr(exc, "response", None)
        status = getattr(response, "status_code", None)
        if response is not None and status in _KINDS_BY_STATUS:
            seconds = response.headers.get("Retry-After") or ""
            return _KINDS_BY_STATUS[status], min(600.0, float(seconds)) if seconds.isdigit() else 0.0
    return "client", 0.0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    current: Optional[BaseException] = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]


def _say(text: str) -> None:
    """One line for the journal of the unit, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _leave(folder: Path, kind: str, message: str, retry_after: float = 0.0) -> None:
    _say(f"{kind}: {message}")
    outcome = {"kind": kind, "message": message, "retry_after": retry_after}
    files.write_json(folder / "outcome.json", outcome, files.READABLE)


def main(argv: list[str]) -> int:
    """``run <folder>`` or ``download <folder>``."""
    verb, folder = argv[0], Path(argv[1])
    if verb == "download":
        return download(folder)

    def stop(_number: int, _frame: object) -> None:
        raise Interrupted

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    return Supervisor(folder).run()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
