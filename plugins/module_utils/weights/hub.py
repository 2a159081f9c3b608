# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to a model hub: which commit a revision is, and which files with which hashes it has.

Addresses are those of the public hub (``/api/models/<repository>/revision/<revision>`` and ``…/tree/<commit>``), which
mirrors imitate. Standard library only, because it runs on a host before anything is installed there.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import PurePosixPath
from typing import IO, Any, Optional

from ansible_collections.glm.fleet.plugins.module_utils import unreachable
from ansible_collections.glm.fleet.plugins.module_utils.address import in_clear
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError, unmet
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import Manifest, WeightFile

USER_AGENT = "glm.fleet model_weights"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')
_ATTEMPTS = 4
# Longer waits are the operator's decision, not ours.
_LONGEST_WAIT_SECONDS = 30.0
# Far more than any repository needs: a thousand files take 300 kB.
_MOST_BYTES = 32 * 1024 * 1024
_MOST_FILES = 100_000
_MOST_SECONDS = 300.0
_KINDS = {401: "unauthorised", 403: "forbidden", 404: "not_found"}
# "resolvers";r=0;t=45 (draft-ietf-httpapi-ratelimit-headers): seconds until there are requests again.
_RESET = re.compile(r";\s*t=(\d+)")


class HubError(QuotingError):
    """The hub refused, does not know, or cannot be reached; the message says what to do.

    ``kind``: unauthorised, forbidden, not_found, or hub for everything else.
    """

    def __init__(self, message: str, kind: str = "hub") -> None:
        super().__init__(message)
        self.kind = kind


class _SameHostRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects (a renamed repository), and keep the token on the hub's own host only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if new is not None and token and _origin(req.full_url) == _origin(newurl):
            new.add_unredirected_header("Authorization", token)
        return new


class HubClient:
    """A hub at ``endpoint``, asked with ``token`` when there is one."""

    def __init__(
        self,
        endpoint: str,
        token: Optional[str] = None,
        timeout: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise HubError(
                f"the hub endpoint {endpoint!r} is not an http(s) address without credentials. "
                "Correct glm_hub_endpoint; a token goes into glm_hub_token."
            )
        refuse_in_clear(endpoint, token)
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_SameHostRedirects())

    def resolve(self, repository: str, revision: str) -> str:
        """The commit that ``revision`` (branch, tag or commit) means now; raises HubError."""
        check_repository(repository)
        check_revision(revision)
        url = f"{self.endpoint}/api/models/{repository}/revision/{urllib.parse.quote(revision, safe='')}"
        document, _headers = self._get(url, repository, revision)
        commit = document.get("sha") if isinstance(document, dict) else None
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise HubError(
                f"{self.endpoint} answered without a commit for {repository}@{revision}: it is not a model hub, or "
                "something between here and it answers in its place. Check glm_hub_endpoint and the proxy."
            )
        return commit

    def manifest(self, repository: str, commit: str) -> Manifest:
        """All files of ``commit``, with sizes and hashes; raises HubError."""
        check_repository(repository)
        url: Optional[str] = f"{self.endpoint}/api/models/{repository}/tree/{commit}?recursive=true&expand=false"
        files: list[WeightFile] = []
        seen: set[str] = set()
        begun = time.monotonic()
        while url is not None:
            entries, headers = self._get(url, repository, commit)
            if not isinstance(entries, list):
                raise HubError(f"{self.endpoint} answered {repository}@{commit} without a list of files.")
            files += [weight_file(entry, repository) for entry in entries if _is_file(entry)]
            seen.add(url)
            match = _NEXT.search(headers.get("Link") or "")
            url = urllib.parse.urljoin(url, match[1]) if match else None
            if url is not None and _origin(url) != _origin(self.endpoint):
                # A mirror that passes the public hub's own links on: stay with the mirror.
                url = self.endpoint + url[len(_origin(url)) :]
            if url in seen or len(files) > _MOST_FILES or time.monotonic() - begun > _MOST_SECONDS:
                raise HubError(
                    f"the list of files of {repository}@{commit} does not end on {self.endpoint}: {len(files)} files "
                    f"after {len(seen)} pages. Check glm_hub_endpoint: it does not answer as a hub does."
                )
        if not files:
            raise HubError(f"{repository}@{commit} has no files on {self.endpoint}. Check the repository's name.")
        return Manifest(repository, commit, tuple(sorted(files, key=lambda file: file.path)))

    def open_file(self, repository: str, commit: str, path: str, offset: int = 0) -> http.client.HTTPResponse:
        """The answer with a file's content from ``offset`` on. Raises OSError, HTTPException or HubError.

        Status 200 instead of 206 means that it begins at the file's beginning all the same.
        """
        url = f"{self.endpoint}/{repository}/resolve/{commit}/{urllib.parse.quote(path)}"
        request = self._request(url)
        request.add_header("Accept-Encoding", "identity")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
            return answer
        except urllib.error.HTTPError as exc:
            if exc.code in (416, 429) or exc.code >= 500:
                raise
            raise self._refusal(exc, repository, commit) from None

    def _get(self, url: str, repository: str, revision: str) -> tuple[Any, Message]:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._get_once(url)
            except urllib.error.HTTPError as exc:
                asked = seconds_asked(exc.headers)
                wait = float(2**attempt) if asked is None else asked
                retry = exc.code == 429 or exc.code >= 500
                if not retry or attempt == _ATTEMPTS or wait > _LONGEST_WAIT_SECONDS:
                    raise self._refusal(exc, repository, revision) from None
                self._sleep(wait)
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as exc:
                if attempt == _ATTEMPTS:
                    raise HubError(
                        f"cannot query {self.endpoint} for {repository}: {unreachable.why(exc, url)}. "
                        "Check this host's network, DNS and proxy, or set glm_hub_endpoint to a mirror it reaches."
                    ) from None
                self._sleep(float(attempt))
        raise AssertionError("the loop returns or raises")

    def _get_once(self, url: str) -> tuple[Any, Message]:
        request = self._request(url)
        request.add_header("Accept", "application/json")
        with self._opener.open(request, timeout=self._timeout) as response:
            return json.loads(_whole(response, url)), response.headers

    def _request(self, url: str) -> urllib.request.Request:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    def _refusal(self, exc: urllib.error.HTTPError, repository: str, revision: str) -> HubError:
        return HubError(self._explain(exc, repository, revision), _KINDS.get(exc.code, "hub"))

    def _explain(self, exc: urllib.error.HTTPError, repository: str, revision: str) -> str:
        code = exc.headers.get("X-Error-Code") or ""
        said = exc.headers.get("X-Error-Message") or exc.reason
        answer = f"{self.endpoint} answered {exc.code} ({said}) for {repository}@{revision}"
        return f"{answer}. {advice(exc.code, code, repository, bool(self._token), exc.headers.get('Retry-After'))}"


def refuse_in_clear(endpoint: str, token: Optional[str]) -> None:
    """Raise HubError when the token would cross a network unencrypted; without one a mirror may be plain http."""
    if token and in_clear(endpoint):
        raise HubError(
            unmet(
                "an https address for the hub, because glm_hub_token is sent to it",
                f"{endpoint!r}; the token was not sent",
                "set glm_hub_endpoint to an https address, or leave glm_hub_token empty where the mirror needs none",
            )
        )


def advice(status: int, code: str, repository: str, has_token: bool, retry_after: Optional[str] = None) -> str:
    """What an operator does about an error answer of a hub."""
    if code == "RevisionNotFound":
        return "The repository exists, this revision does not. Set glm_revision to a branch, tag or commit it has."
    if code == "GatedRepo" or status == 403:
        if has_token:
            return f"Accept the conditions on the page of {repository} with the account whose token glm_hub_token is."
        return f"{repository} needs a token. Accept its conditions on its page, then set glm_hub_token."
    if status == 401 and has_token:
        return "The hub does not accept the token. Make a new one with read access and set glm_hub_token."
    if status == 401:
        return f"Either {repository} does not exist or it is not public. Check the name, or set glm_hub_token."
    if status == 404:
        return f"Check the name {repository} and glm_hub_endpoint; a private repository needs glm_hub_token."
    if status == 429:
        wait = f"Wait {retry_after} s" if retry_after else "Wait a few minutes"
        return f"The hub limits requests from this address. {wait} and run again, or set glm_hub_token."
    return "The hub has a fault. Run again later, or set glm_hub_endpoint to a mirror."


def check_repository(repository: str) -> None:
    """Raise HubError unless ``repository`` is ``<organisation>/<name>``."""
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise HubError(f"{repository!r} is not a repository name of the form <organisation>/<name>.")


def check_revision(revision: str) -> None:
    """Raise HubError unless ``revision`` can be a branch, tag or commit; it becomes part of a path."""
    if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith("/"):
        raise HubError(f"{revision!r} cannot be a revision. Set glm_revision to a branch, tag or commit.")


def _is_file(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") == "file"


def weight_file(entry: dict[str, Any], repository: str) -> WeightFile:
    """One entry of a file list, checked: names and hashes from the network become paths on this host."""
    path = PurePosixPath(str(entry.get("path", "")))
    lfs = entry.get("lfs") or {}
    if not isinstance(lfs, dict):
        raise HubError(f"the file list of {repository} has an entry that cannot be right: {entry!r:.300}")
    size, blob_id, sha256 = lfs.get("size", entry.get("size")), str(entry.get("oid", "")), lfs.get("oid")
    safe_path = path.parts and not path.is_absolute() and ".." not in path.parts and str(path).isprintable()
    safe_hash = _COMMIT.fullmatch(blob_id) and (sha256 is None or _SHA256.fullmatch(str(sha256)))
    if not safe_path or not safe_hash or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise HubError(f"the file list of {repository} has an entry that cannot be right: {entry!r:.300}")
    return WeightFile(str(path), size, blob_id, sha256)


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def seconds_asked(headers: Message) -> Optional[float]:
    """For how many seconds a source wants not to be asked; None where it does not say."""
    for value in (headers.get("Retry-After"), _first(_RESET, headers.get("RateLimit"))):
        if value and value.strip().isdigit():
            return float(value)
    return None


def _first(pattern: re.Pattern[str], value: Optional[str]) -> Optional[str]:
    match = pattern.search(value or "")
    return match[1] if match else None


def _whole(answer: http.client.HTTPResponse, url: str) -> bytes:
    """All of an answer, unless it is larger or slower than any that a hub gives. Raises OSError or HubError."""
    content, begun = bytearray(), time.monotonic()
    while piece := answer.read1(1024 * 1024):
        content += piece
        if len(content) > _MOST_BYTES or time.monotonic() - begun > _MOST_SECONDS:
            raise HubError(
                f"{_origin(url)} answered with {len(content)} bytes in {time.monotonic() - begun:.0f} s and went "
                "on. Check glm_hub_endpoint: it does not answer as a hub does."
            )
    return bytes(content)
