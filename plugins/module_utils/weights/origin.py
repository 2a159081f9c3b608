# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a model's files from signed addresses of an object store into the cache that the engines load from.

The controller signs the addresses and has the key; here is only a file of mode 0600 with addresses that expire, which
the controller replaces while a fetch goes on. An address is a secret as long as it lasts: none is printed or kept
elsewhere. What is on the disk already is continued, not fetched again. Standard library only, Python 3.9.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import files, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, Store, WeightFile

USER_AGENT = "glm.fleet model_weights"
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_SECONDS = 60.0
# A file is given up after so many answers in a row without a byte.
_ATTEMPTS = 6
_LONGEST_WAIT_SECONDS = 60.0
_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
# What stores answer where an address was signed for another region, or for the host of all regions.
_OTHER_REGION = frozenset({
    "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "IllegalLocationConstraintException",
    "PermanentRedirect", "TemporaryRedirect", "Redirect",
})  # fmt: skip
_REGION = re.compile(r"<Region>\s*([\w-]+)|expecting '([\w-]+)'")
_EXPIRED = re.compile(r"<Code>\s*(?:ExpiredToken|RequestExpired)|<Message>[^<]*expired", re.IGNORECASE)


class OriginError(Exception):
    """It cannot be fetched; ``kind`` is expired, region, forbidden, not_found, busy, stopped or client."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Addresses:
    """The file with the addresses: ``{"expires": <seconds since 1970>, "addresses": {<path>: <address>}}``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, file: WeightFile) -> str:
        """The address of a file, as the controller signed it last."""
        try:
            return str(self._read()["addresses"][file.path])
        except (KeyError, TypeError) as exc:
            raise OriginError("expired", f"there is no signed address for {file.path}") from exc

    @property
    def expires(self) -> float:
        """When those that were signed last expire, in seconds since 1970; 0 where there are none."""
        return float(self._read().get("expires", 0))

    def _read(self) -> Any:
        return files.read_json(self._path) or {}


class Origin:
    """One run: the files of a manifest that are missing, several at a time."""

    def __init__(self, store: Store, addresses: Addresses, sleep: Optional[Callable[[float], object]] = None) -> None:
        self._store, self._addresses = store, addresses
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._blobs = store.folder / "blobs"

    def fetch(self, manifest: Manifest, workers: int) -> None:
        """Fetch what is missing. Raises OriginError for the first file that cannot be fetched, or OSError."""
        missing = sorted(self._store.missing(manifest), key=lambda file: -file.size)
        # Files of equal content are one blob.
        alike: dict[str, list[WeightFile]] = {}
        for file in missing:
            alike.setdefault(file.etag, []).append(file)
        snapshot = self._store.snapshot(manifest.commit)
        self._blobs.mkdir(parents=True, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
            try:
                running = [pool.submit(self._files, snapshot, one) for one in alike.values()]
                for done in concurrent.futures.as_completed(running):
                    done.result()
            finally:
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _files(self, snapshot: Path, alike: list[WeightFile]) -> None:
        """Bring files of equal content; each counts as there at once, whatever becomes of the others."""
        self._blob(alike[0])
        for file in alike:
            self._link(snapshot / file.path, self._blobs / file.etag)

    def _link(self, link: Path, blob: Path) -> None:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))

    def _blob(self, file: WeightFile) -> None:
        blob = self._blobs / file.etag
        if blob.exists() and _size(blob) == file.size:
            return
        partial = blob.with_name(f"{file.etag}.incomplete")
        partial.touch()
        fruitless = 0
        while _size(partial) != file.size:
            before = _size(partial)
            wait = 0.0
            try:
                self._append(partial, file, before)
                problem = "the answer ended early"
            except urllib.error.HTTPError as exc:
                with exc:
                    problem, wait = self._judged(exc, file, partial)
            except (http.client.HTTPException, urllib.error.URLError, ConnectionError, socket.timeout) as exc:
                problem = unreachable.why(exc, self._host(file))
            if self._stop.is_set():
                raise OriginError("stopped", f"{file.path}: another file failed")
            if _size(partial) > before:
                fruitless = 0
                continue
            if _size(partial) == file.size:
                break
            fruitless += 1
            if fruitless >= _ATTEMPTS:
                kind = "busy" if wait else "client"
                raise OriginError(kind, f"{file.path}: {problem}, {_ATTEMPTS} times in a row")
            self._sleep(wait or min(_LONGEST_WAIT_SECONDS, 2.0 ** (fruitless - 1)))
        partial.replace(blob)

    def _append(self, partial: Path, file: WeightFile, have: int) -> None:
        """Add to the partial file what one answer brings."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self._addresses.of(file), headers=headers)
        view = memoryview(bytearray(_CHUNK_BYTES))
        with urllib.request.build_opener().open(request, timeout=_TIMEOUT_SECONDS) as answer:
            # A store that ignores the range begins at the beginning, and so does the file.
            at = have if answer.status == 206 else 0
            with partial.open("ab" if at else "wb", buffering=0) as out:
                while at < file.size and not self._stop.is_set():
                    count = answer.readinto(view[: min(_CHUNK_BYTES, file.size - at)])
                    if not count:
                        return
                    out.write(view[:count])
                    at += count

    def _judged(self, error: urllib.error.HTTPError, file: WeightFile, partial: Path) -> tuple[str, float]:
        """What an error answer means, and how long to wait. Raises OriginError for what no second question changes."""
        said = error.read(4000).decode("utf-8", "replace")
        code = _CODE.search(said)
        found = f"{self._host(file)} answered {error.code}" + (f" ({code[1]})" if code else "")
        redirected = error.code in (301, 302, 307, 308)
        if error.code in (400, 401, 403) or redirected:
            if _EXPIRED.search(said) or time.time() >= self._addresses.expires:
                raise OriginError("expired", f"{file.path}: the signed address has expired")
            if error.code == 400 or redirected or (code and code[1] in _OTHER_REGION):
                region = _REGION.search(said)
                named = f", which expects the region {region[1] or region[2]}" if region else ""
                raise OriginError("region", f"{file.path}: {found}{named}")
            raise OriginError("forbidden", f"{file.path}: {found}")
        if error.code in (404, 410):
            raise OriginError("not_found", f"{file.path}: {found}")
        if error.code == 416:
            partial.unlink(missing_ok=True)
            return found, 0.0
        if error.code in (429, 503):
            asked = error.headers.get("Retry-After") or ""
            return found, min(_LONGEST_WAIT_SECONDS, float(asked)) if asked.isdigit() else 5.0
        return found, 0.0

    def _host(self, file: WeightFile) -> str:
        """The store without what makes its address a secret."""
        parts = urllib.parse.urlsplit(self._addresses.of(file))
        return f"{parts.scheme}://{parts.netloc}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
