# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the content of a model's files comes from: a hub, or signed addresses of an object store.

The controller signs the addresses and has the key; here is only a file of mode 0600 with addresses that expire, which
the controller replaces while a fetch goes on. An address is a secret as long as it lasts: none is printed or kept
elsewhere. Standard library only, Python 3.9.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any, NoReturn, Optional, Protocol

from ansible_collections.glm.fleet.plugins.module_utils import files, unreachable
from ansible_collections.glm.fleet.plugins.module_utils.weights.hub import (
    USER_AGENT,
    HubClient,
    HubError,
    seconds_asked,
)
from ansible_collections.glm.fleet.plugins.module_utils.weights.store import WeightFile

# A source that says that it is busy, and not for how long: a hub counts requests of minutes, a store of a moment.
_HUB_WAIT_SECONDS = 60.0
_STORE_WAIT_SECONDS = 5.0
_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
# What stores answer where a request was signed for another region, or for the host of all regions.
OTHER_REGION = frozenset({
    "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "IllegalLocationConstraintException",
    "PermanentRedirect", "TemporaryRedirect", "Redirect",
})  # fmt: skip
REDIRECTS = (301, 302, 307, 308)
_REGION = re.compile(r"<Region>\s*([\w-]+)|expecting '([\w-]+)'")
_SIGNATURE = re.compile(r"Signature=[^&]+")
_EXPIRED = re.compile(r"<Code>\s*(?:ExpiredToken|RequestExpired)|<Message>[^<]*expired", re.IGNORECASE)


class SourceError(Exception):
    """No second question changes it. ``kind``: unauthorised, forbidden, not_found, region, or hub for the rest."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Expired(Exception):
    """The address was signed for a time that is over."""


class Busy(Exception):
    """The source wants to be asked again after so many seconds."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class Broke(Exception):
    """There is no answer, or none that is of use; another question may bring one. ``afresh``: from the first byte."""

    def __init__(self, message: str, afresh: bool = False) -> None:
        super().__init__(message)
        self.afresh = afresh


class Source(Protocol):
    """What a fetch asks."""

    def open(self, file: WeightFile, offset: int) -> http.client.HTTPResponse:
        """The content of a file from ``offset`` on; status 200 instead of 206 means from the beginning.

        Raises SourceError, Expired, Busy or Broke.
        """

    def why(self, error: Exception, file: WeightFile) -> str:
        """An error of the network in words, without what makes an address a secret."""

    @property
    def expires(self) -> float:
        """When its addresses expire, in seconds since 1970; 0 for those that do not."""


class Hub:
    """The files of one commit on a hub."""

    expires = 0.0

    def __init__(self, client: HubClient, repository: str, commit: str) -> None:
        self._client, self._repository, self._commit = client, repository, commit

    def open(self, file: WeightFile, offset: int) -> http.client.HTTPResponse:
        """As ``Source.open``."""
        try:
            return self._client.open_file(self._repository, self._commit, file.path, offset)
        except HubError as exc:
            raise SourceError(exc.kind, f"{file.path}: {exc}") from None
        except urllib.error.HTTPError as exc:
            with exc:
                said = f"{self._client.endpoint} answered {exc.code}"
                asked = seconds_asked(exc.headers)
            if exc.code == 429 or (exc.code == 503 and asked is not None):
                raise Busy(said, _HUB_WAIT_SECONDS if asked is None else asked) from None
            raise Broke(said, afresh=exc.code == 416) from None
        except (OSError, http.client.HTTPException) as exc:
            raise Broke(self.why(exc, file)) from None

    def why(self, error: Exception, file: WeightFile) -> str:
        """As ``Source.why``."""
        return unreachable.why(error, self._client.endpoint)


class Addresses:
    """The file with the addresses: ``{"expires": <seconds since 1970>, "addresses": {<path>: <address>}}``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, file: WeightFile) -> str:
        """The address of a file, as the controller signed it last. Raises Expired where there is none."""
        try:
            return str(self._read()["addresses"][file.path])
        except (KeyError, TypeError) as exc:
            raise Expired("there is no signed address for it") from exc

    @property
    def expires(self) -> float:
        """When those that were signed last expire, in seconds since 1970; 0 where there are none."""
        return float(self._read().get("expires", 0))

    def _read(self) -> Any:
        return files.read_json(self._path) or {}


class ObjectStore:
    """Files of an object store, by their signed addresses."""

    def __init__(self, addresses: Addresses, timeout: float = 60.0) -> None:
        self._addresses = addresses
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_KeepHost())

    @property
    def expires(self) -> float:
        """As ``Source.expires``."""
        return self._addresses.expires

    def open(self, file: WeightFile, offset: int) -> http.client.HTTPResponse:
        """As ``Source.open``."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(self._addresses.of(file), headers=headers)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._timeout)
            return answer
        except urllib.error.HTTPError as exc:
            with exc:
                self._judge(exc, file)
        except (OSError, http.client.HTTPException) as exc:
            raise Broke(self.why(exc, file)) from None

    def why(self, error: Exception, file: WeightFile) -> str:
        """As ``Source.why``."""
        return unreachable.why(error, self._host(file))

    def _judge(self, error: urllib.error.HTTPError, file: WeightFile) -> NoReturn:
        """Raise what an error answer means."""
        said = error.read(4000).decode("utf-8", "replace")
        code = _CODE.search(said)
        found = f"{self._host(file)} answered {error.code}" + (f" ({code[1]})" if code else "")
        redirected = error.code in REDIRECTS
        if error.code in (400, 401, 403) or redirected:
            if _EXPIRED.search(said) or time.time() >= self.expires:
                raise Expired("the signed address has expired")
            if error.code == 400 or redirected or (code and code[1] in OTHER_REGION):
                region = _REGION.search(said)
                named = f", which expects the region {region[1] or region[2]}" if region else ""
                if redirected and error.headers.get("Location"):
                    named += f", and sends to {_origin(error.headers['Location'])}"
                raise SourceError("region", f"{file.path}: {found}{named}")
            raise SourceError("forbidden", f"{file.path}: {found}")
        if error.code in (404, 410):
            raise SourceError("not_found", f"{file.path}: {found}")
        if error.code in (429, 503):
            asked = seconds_asked(error.headers)
            raise Busy(found, _STORE_WAIT_SECONDS if asked is None else asked)
        raise Broke(found, afresh=error.code == 416)

    def _host(self, file: WeightFile) -> str:
        """The store without what makes its address a secret."""
        return _origin(self._addresses.of(file))


class _KeepHost(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but not with our signature: it is for one host, and another would call it wrong."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        ours = _SIGNATURE.search(req.full_url)
        if ours is not None and ours[0] in newurl:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _origin(address: str) -> str:
    """An address without what makes it a secret."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def source(repository: str, commit: str, endpoint: str, token_file: str, addresses: str, timeout: float) -> Source:
    """A hub at ``endpoint``, or where there is a file of ``addresses``, the store that these are of.

    Raises OSError for a token that cannot be read: without it the hub would answer as to a stranger.
    """
    if addresses:
        return ObjectStore(Addresses(Path(addresses)), timeout)
    token = Path(token_file).read_text("utf-8").strip() if token_file else None
    return Hub(HubClient(endpoint, token, timeout), repository, commit)
