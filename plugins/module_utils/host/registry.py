# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an image registry which digest a tag means, with nothing but the standard library.

This module util is PRIVATE to the collection.

Sources: OCI distribution specification 1.1 (manifests, tags), docs.docker.com/reference/api/registry/auth (the bearer
token exchange, which needs no account for public images).
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import urllib.error
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from typing import Optional
from urllib.parse import urlencode, urljoin

from ansible.module_utils.urls import open_url

from ansible_collections.glm.fleet.plugins.module_utils import unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import QuotingError
from ansible_collections.glm.fleet.plugins.module_utils.names import nearest

HUB = "docker.io"
HUB_API = "https://registry-1.docker.io"
USER_AGENT = "glm-fleet"
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Enough to hold every tag of the engines' repositories on the Hub, and a bound on a registry that never ends.
TAG_PAGES = 10
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(QuotingError):
    """No digest. ``missing``: the tag does not exist. Otherwise no registry could be asked."""

    def __init__(self, message: str, missing: bool) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True)
class Resolved:
    """``digest`` (sha256:…) of a tag and the base URL of the registry or mirror that said so."""

    digest: str
    endpoint: str


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Message[str, str]
    body: bytes
    link: str


class _Unreachable(Exception):
    """An endpoint gave no usable answer; the text says why."""


def split_repository(repository: str) -> tuple[str, str]:
    """``(registry host, path)`` as docker reads a name: ``vllm/vllm-openai`` lives on docker.io."""
    first, _slash, rest = repository.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return HUB, repository if rest else f"library/{repository}"


def endpoints(repository: str, mirrors: Iterable[str]) -> list[str]:
    """Base URLs to ask, in docker's order: mirrors (they only stand in for docker.io), then the registry itself."""
    host, _path = split_repository(repository)
    if host != HUB:
        return [f"https://{host}"]
    listed = [mirror.rstrip("/") for mirror in mirrors]
    return [mirror if "://" in mirror else f"https://{mirror}" for mirror in listed] + [HUB_API]


def resolve(repository: str, tag: str, mirrors: Iterable[str] = (), timeout: float = 20) -> Resolved:
    """The digest that ``repository:tag`` means now.

    Raises RegistryError with what was tried and how each try ended: ``missing`` when one answered that there is no
    such tag (similar ones are named then), otherwise none answered at all.
    """
    _host, path = split_repository(repository)
    tried: list[str] = []
    answered: Optional[_Client] = None
    for endpoint in endpoints(repository, mirrors):
        client = _Client(endpoint, path, timeout)
        try:
            digest = client.digest(tag)
        except _Unreachable as error:
            tried.append(f"{endpoint}: {error}")
            continue
        if digest:
            return Resolved(digest, endpoint)
        answered = client
        tried.append(f"{endpoint}: no such tag")
    if answered is None:
        raise RegistryError(
            f"the digest of {repository}:{tag} could not be looked up ({'; '.join(tried)})", missing=False
        )
    # A mirror that lacks the tag proves nothing while the registry itself cannot be asked.
    certain = tried[-1].endswith("no such tag")
    said = f"there is no image {repository}:{tag}" if certain else f"no digest was found for {repository}:{tag}"
    raise RegistryError(f"{said} ({'; '.join(tried)}); {_similar_tags(tag, answered)}", missing=True)


def _similar_tags(tag: str, client: _Client) -> str:
    tags = client.tags()
    if tags is None:
        return f"{client.endpoint} lists no tags for it"
    close = nearest(tag, tags, 6)
    if not close:
        return f"{client.endpoint} has {len(tags)} tags of it, none similar"
    return f"similar tags that do exist: {', '.join(close)}"


class _Client:
    """One repository at one endpoint, with the token it asked for."""

    def __init__(self, endpoint: str, path: str, timeout: float) -> None:
        self.endpoint = endpoint
        self.path = path
        self.timeout = timeout
        self.token = ""

    def digest(self, tag: str) -> Optional[str]:
        """Digest of the manifest, None when the endpoint says there is none. Raises _Unreachable."""
        url = f"{self.endpoint}/v2/{self.path}/manifests/{tag}"
        answer = self._ask("HEAD", url)
        if answer.status == 404:
            return None
        named = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and DIGEST.fullmatch(named):
            return named
        # HEAD is optional for mirrors, and so is the header; the digest is the hash of the manifest anyway.
        answer = self._ask("GET", url)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _Unreachable(f"HTTP {answer.status} {answer.body[:200].decode('utf-8', 'replace').strip()}")
        return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"

    def tags(self) -> Optional[list[str]]:
        """Tags of the repository as far as a few pages go, or None when it cannot be listed."""
        url = f"{self.endpoint}/v2/{self.path}/tags/list?n=1000"
        found: list[str] = []
        for _page in range(TAG_PAGES):
            try:
                answer = self._ask("GET", url)
                page = json.loads(answer.body).get("tags") if answer.status == 200 else None
            except (_Unreachable, ValueError, AttributeError):
                page = None
            if page is None:
                return found or None
            found += [str(tag) for tag in page]
            following = re.match(r"<([^>]+)>", answer.link)
            if not following:
                break
            url = urljoin(url, following.group(1))
        return found

    def _ask(self, method: str, url: str) -> _Answer:
        answer = self._send(method, url)
        if answer.status == 401 and not self.token:
            self.token = self._fetch_token(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(method, url)
        if answer.status in (401, 403):
            # The Hub says 401 for a repository that does not exist, so both are possible.
            raise _Unreachable(f"HTTP {answer.status}: the repository does not exist or is not public")
        if answer.status == 429:
            raise _Unreachable("HTTP 429: the registry's rate limit for this address is used up; set a mirror or wait")
        if answer.status >= 500:
            raise _Unreachable(f"HTTP {answer.status}")
        return answer

    def _fetch_token(self, challenge: str) -> str:
        kind, _space, rest = challenge.partition(" ")
        fields = dict(_CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in fields:
            raise _Unreachable(f"HTTP 401 with an unknown challenge: {challenge[:120] or 'none'}")
        query = {"service": fields.get("service", ""), "scope": f"repository:{self.path}:pull"}
        answer = self._send("GET", f"{fields['realm']}?{urlencode(query)}")
        try:
            data = json.loads(answer.body)
            return str(data.get("token") or data["access_token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise _Unreachable(f"no token from {fields['realm']} (HTTP {answer.status})") from error

    def _send(self, method: str, url: str) -> _Answer:
        headers = {"Accept": MANIFESTS}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with open_url(url, method=method, headers=headers, http_agent=USER_AGENT, timeout=self.timeout) as response:
                return _Answer(response.status, response.headers, response.read(), response.headers.get("Link", ""))
        except urllib.error.HTTPError as error:
            return _Answer(error.code, error.headers, error.read(), "")
        except (urllib.error.URLError, socket.timeout, OSError, ValueError) as error:
            raise _Unreachable(unreachable.why(error, url)) from None
