# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object store that speaks S3, as the controller uses it: list, read, write, and sign addresses for hosts.

boto3 finds the key pair (environment, profile, instance role); nothing here reads or keeps it. Everything raises
StoreError. Checksums are asked for only where the store requires them: not every store takes those of boto3's default.
A store may say that a bucket is at another address, and go on answering at the first one only for that. At AWS's own
addresses boto3 follows; where an endpoint was given it asks there again, without an end if no region is named. Here the
address is kept, for all later requests and for what is signed: nobody who has a signed address can follow.
"""

from __future__ import annotations

import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from ansible_collections.glm.fleet.plugins.module_utils.address import in_clear
from ansible_collections.glm.fleet.plugins.module_utils.weights.sources import REDIRECTS
from ansible_collections.glm.fleet.plugins.plugin_utils.store.errors import StoreError, of_answer, of_library, region_of

# The bucket of a file system is its id.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=+,@/-]*")
ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 60
# A store may take minutes to make an object of thousands of parts.
COMPLETE_SECONDS = 600
# Connections of one client: as many as there are transfers at a time.
CONNECTIONS = 32
# A bucket whose address changes more often in one request has none.
_MOST_MOVES = 3
# S3 itself signs for no longer than a week.
LONGEST_SIGNED_SECONDS = 604_800

# What stores answer to a write whose condition is not met (412), or that another one overtook (409).
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """Where in which store; ``prefix`` has no slash at its ends. boto3 finds an empty ``endpoint`` or ``region``."""

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, *parts: str) -> str:
        """The key of an object below the prefix."""
        return "/".join([*([self.prefix] if self.prefix else []), *parts])


@dataclass(frozen=True)
class Content:
    """A whole object; ``etag`` as the store writes it, for ``write_if``."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Stored:
    """What the store says of one object; the ETag changes when the content does."""

    size: int
    etag: str


def place(address: str, endpoint: str = "", region: str = "") -> Place:
    """The place that ``s3://bucket/prefix`` names. Raises StoreError."""
    parts = urllib.parse.urlsplit(address)
    prefix = parts.path.strip("/")
    plain = not prefix or (_PREFIX.fullmatch(prefix) and not {"", ".", ".."} & set(prefix.split("/")))
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or not plain or parts.query or parts.fragment:
        raise StoreError("address", "an address like s3://bucket/prefix", repr(address), "correct it")
    if endpoint:
        _check_endpoint(endpoint)
    return Place(parts.netloc, prefix, endpoint.rstrip("/"), region)


def _check_endpoint(endpoint: str) -> None:
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        expected = "an http(s) address without credentials for the store"
        raise StoreError("address", expected, repr(endpoint), "correct glm_store_endpoint")


@dataclass(frozen=True)
class Home:
    """The address that a store named for a bucket. ``virtual``: with the bucket in front of the host."""

    endpoint: str
    region: str
    virtual: bool


def home_of(answer: Mapping[str, Any], bucket: str, asked: str) -> Home | None:
    """Where an error answer of the address ``asked`` says that the bucket is; None where it does not.

    Never from https to http: what travels is signed, and not encrypted.
    """
    said: Mapping[str, Any] = answer.get("Error") or {}
    headers: Mapping[str, Any] = answer["ResponseMetadata"].get("HTTPHeaders") or {}
    scheme = urllib.parse.urlsplit(asked).scheme
    located = str(headers.get("location") or (f"{scheme}://{said['Endpoint']}" if said.get("Endpoint") else ""))
    parts = urllib.parse.urlsplit(located)
    if parts.scheme not in ("https", scheme) or not parts.hostname or parts.username:
        return None
    virtual = parts.netloc.startswith(f"{bucket}.")
    netloc = parts.netloc[len(bucket) + 1 :] if virtual else parts.netloc
    return Home(f"{parts.scheme}://{netloc}", region_of(answer), virtual)


class _Moved(Exception):
    """The store says that the bucket is elsewhere."""

    def __init__(self, answer: Mapping[str, Any], operation: str, home: Home | None) -> None:
        super().__init__(operation)
        self.answer, self.operation, self.home = answer, operation, home


class Bucket:
    """One place in a store. Safe to use from several threads."""

    def __init__(self, where: Place, read_seconds: int | None = None) -> None:
        self.place = where
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._home: Home | None = None
        # For prices and messages: the one that was given.
        self.host = urllib.parse.urlsplit(self._endpoint).hostname or ""

    @property
    def _endpoint(self) -> str:
        return str(self._client.meta.endpoint_url)

    @property
    def _of_aws(self) -> bool:
        """Whether boto3 chooses the address by the region, and follows by itself."""
        return not self.place.endpoint and self.host.startswith("s3.") and ".amazonaws." in self.host

    # Reading -----------------------------------------------------------------------------------------------------

    def objects(self, below: str) -> dict[str, Stored]:
        """All objects whose keys begin with ``below``, by key."""
        found: dict[str, Stored] = {}
        for page in self._pages("list_objects_v2", f"to list {self.place}", Prefix=below):
            # An answer of something else than a store has none of its words, and no objects either.
            if "Name" not in page and "KeyCount" not in page:
                answer = f"an answer of {self._endpoint} that is not a store's"
                raise StoreError("refused", f"to list {self.place}", answer, "correct glm_store_endpoint")
            for entry in page.get("Contents") or []:
                found[str(entry["Key"])] = Stored(int(entry["Size"]), str(entry["ETag"]).strip('"'))
        return found

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """The content of an object; None when the store says that it has none of that name."""
        found = self.content(key, most_bytes)
        return None if found is None else found.body

    def content(self, key: str, most_bytes: int) -> Content | None:
        """The same with its ETag."""
        from botocore.exceptions import ClientError

        expected = f"to read {self._name(key)}"

        def no_store(said: str) -> StoreError:
            return StoreError("refused", expected, f"{said} from {self._endpoint}", "correct glm_store_endpoint")

        def body() -> Content | None:
            try:
                answer = self._client.get_object(Bucket=self.place.bucket, Key=key)
            except ClientError as exc:
                code = exc.response.get("Error", {}).get("Code")
                if code == "NoSuchKey":
                    return None
                if code != "NoSuchBucket" and exc.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
                    # Of a server that is no store, or not this one, it says nothing about the object.
                    raise no_store(f"404 without a store's word for that ({code})") from None
                raise
            if not answer.get("ETag"):
                raise no_store("an answer that is not a store's")
            size = int(answer["ContentLength"])
            if size > most_bytes:
                most = f"at most {most_bytes} bytes in {self._name(key)}"
                raise StoreError("refused", most, f"{size}", "look at who wrote that object")
            with answer["Body"] as stream:
                content: bytes = stream.read(size)
            if len(content) != size:
                raise StoreError("truncated", f"{size} bytes of {self._name(key)}", f"{len(content)}", "run again")
            return Content(content, str(answer["ETag"]))

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._asked(expected, body)
            except StoreError as exc:
                if exc.kind != "truncated" or attempt == ATTEMPTS:
                    raise
        raise AssertionError("the loop returns or raises")

    def sign(self, keys: Iterable[str], seconds: int) -> dict[str, str]:
        """By key, an address that anybody can fetch that object from for so long: a secret.

        The store is asked the first time only, for the bucket's region.
        """

        def signed(key: str) -> str:
            given = {"Bucket": self.place.bucket, "Key": key}
            return str(self._signer.generate_presigned_url("get_object", Params=given, ExpiresIn=seconds))

        return self._asked(f"to sign addresses of {self.place}", lambda: {key: signed(key) for key in keys})

    @cached_property
    def _signer(self) -> Any:
        """A client of the bucket's own region and host: requests are redirected there, signed addresses are not."""
        region = self._region()
        if self._of_aws:
            return _client(replace(self.place, region=region), style="virtual", regional=True)
        return self._made(region=region)

    def _region(self) -> str:
        """The bucket's region; the client's where the store names none. Raises ClientError while it is busy."""
        from botocore.exceptions import ClientError

        try:
            answer: Mapping[str, Any] = self._client.head_bucket(Bucket=self.place.bucket)
        except ClientError as exc:
            answer = exc.response
            status = int(answer["ResponseMetadata"]["HTTPStatusCode"])
            # Not every store has this request, and to one without regions any is right.
            if status == 429 or (status >= 500 and status != 501):
                raise
        return region_of(answer) or str(self._client.meta.region_name)

    # Writing -----------------------------------------------------------------------------------------------------

    def write(self, key: str, body: bytes | bytearray | memoryview) -> str:
        """Write a whole object; returns its ETag."""
        given = {"Bucket": self.place.bucket, "Key": key, "Body": bytes(body)}
        answer = self._asked(f"to write {self._name(key)}", lambda: self._client.put_object(**given))
        return str(answer["ETag"]).strip('"')

    def write_if(self, key: str, body: bytes, etag: str | None) -> bool:
        """Write a whole object only if its ETag is still this one; None: only if there is no such object.

        Whether it was written. After a lost answer boto3 asks again, so that False may come of one's own write.
        """
        from botocore.exceptions import ClientError, ParamValidationError

        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}

        def put() -> bool:
            try:
                self._client.put_object(Bucket=self.place.bucket, Key=key, Body=body, **condition)
            except ClientError as exc:
                code = exc.response.get("Error", {}).get("Code")
                # The last: it was removed since its ETag was read.
                if code in _CHANGED or (etag is not None and code == "NoSuchKey"):
                    return False
                raise
            except ParamValidationError as exc:
                next_step = "install a newer one into the Python that runs Ansible: pip install 'glm-fleet[store]'"
                raise StoreError("library", "boto3 1.36 or newer on the controller", str(exc), next_step) from None
            return True

        return self._asked(f"to write {self._name(key)}", put)

    def begin(self, key: str) -> str:
        """Begin an upload in parts; its id. Nothing is to be seen of it until ``complete``."""
        given = {"Bucket": self.place.bucket, "Key": key}
        answer = self._asked(f"to write {self._name(key)}", lambda: self._client.create_multipart_upload(**given))
        return str(answer["UploadId"])

    def part(self, key: str, upload: str, number: int, body: bytearray) -> str:
        """Upload a part (numbers begin with 1); returns its ETag."""
        given = {"Bucket": self.place.bucket, "Key": key, "UploadId": upload, "PartNumber": number, "Body": body}
        expected = f"to write part {number} of {self._name(key)}"
        answer = self._asked(expected, lambda: self._client.upload_part(**given))
        return str(answer["ETag"])

    def complete(self, key: str, upload: str, etags: Mapping[int, str]) -> str:
        """Make the object of its parts; returns its ETag.

        A StoreError of kind aborted, truncated or unreachable does not mean that there is no object: boto3 asks again
        when an answer is lost, and a store knows a completed upload no more.
        """
        parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        given = {"Bucket": self.place.bucket, "Key": key, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
        expected = f"to complete {self._name(key)}"
        answer = self._asked(expected, lambda: self._patient.complete_multipart_upload(**given))
        if not answer.get("ETag"):
            raise StoreError("truncated", f"the ETag of {self._name(key)}", "an answer without it", "run again")
        return str(answer["ETag"]).strip('"')

    @cached_property
    def _patient(self) -> Any:
        return self._made(read_seconds=COMPLETE_SECONDS)

    def abort(self, key: str, upload: str) -> None:
        """Drop an upload and its parts, which cost money; one that is gone is dropped."""
        given = {"Bucket": self.place.bucket, "Key": key, "UploadId": upload}
        expected = f"to abort the upload of {self._name(key)}"
        try:
            self._asked(expected, lambda: self._client.abort_multipart_upload(**given))
        except StoreError as exc:
            if exc.kind not in ("aborted", "not_found"):
                raise

    def unfinished(self, below: str) -> list[tuple[str, str]]:
        """Key and id of uploads that were begun and neither completed nor aborted."""
        pages = self._pages("list_multipart_uploads", f"to list unfinished uploads of {self.place}", Prefix=below)
        return [(str(entry["Key"]), str(entry["UploadId"])) for page in pages for entry in page.get("Uploads") or []]

    # The library -------------------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return f"s3://{self.place.bucket}/{key}"

    def _pages(self, operation: str, expected: str, **given: Any) -> Iterator[Mapping[str, Any]]:
        def pages() -> list[Mapping[str, Any]]:
            return list(self._client.get_paginator(operation).paginate(Bucket=self.place.bucket, **given))

        yield from self._asked(expected, pages)

    def _asked(self, expected: str, call: Callable[[], _T]) -> _T:
        """What ``call`` gives, which takes the client anew each time; asked where the bucket is."""
        from botocore.exceptions import BotoCoreError, ClientError

        for moves in range(_MOST_MOVES + 1):
            try:
                return call()
            except _Moved as exc:
                if exc.home is None or moves == _MOST_MOVES:
                    raise of_answer(exc.answer, exc.operation, str(self.place), expected) from None
                self._move(exc.home)
            except ClientError as exc:
                raise of_answer(exc.response, exc.operation_name, str(self.place), expected) from None
            except BotoCoreError as exc:
                raise of_library(exc, self._endpoint, expected) from None
        raise AssertionError("the loop returns or raises")

    @cached_property
    def _client(self) -> Any:
        return self._made(read_seconds=self._read_seconds)

    def _made(self, region: str = "", read_seconds: int | None = None) -> Any:
        """A client of where the bucket is."""
        home = self._home or Home(self.place.endpoint, "", virtual=False)
        where = replace(self.place, endpoint=home.endpoint, region=region or home.region or self.place.region)
        # Names of buckets in front of the host need a wildcard in its certificate and in DNS.
        style = "virtual" if home.virtual else "path" if home.endpoint else "auto"
        client = _client(where, style, read_seconds=read_seconds)
        client.meta.events.register_first("needs-retry.s3", self._look_for_move)
        return client

    def _look_for_move(self, response: Any, operation: Any, **_more: object) -> None:
        """Called by boto3 with each answer, before it thinks of asking again."""
        if response is None or response[0] is None or response[0].status_code not in REDIRECTS or self._of_aws:
            return
        raise _Moved(response[1], operation.name, home_of(response[1], self.place.bucket, response[0].url))

    def _move(self, home: Home) -> None:
        with self._lock:
            if home != self._home:
                self._home = home
                for made in ("_client", "_patient", "_signer"):
                    self.__dict__.pop(made, None)


def _client(where: Place, style: str, regional: bool = False, read_seconds: int | None = None) -> Any:
    """boto3's client. Imported here only, because few runs need it and it takes a while.

    ``regional``: of the host of a region, where boto3 may take the one of all regions.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as exc:
        next_step = "install the package boto3 into the Python that runs Ansible: pip install 'glm-fleet[store]'"
        raise StoreError("library", "boto3 on the controller", str(exc), next_step) from None
    try:
        session = boto3.session.Session()
        # Stores without regions take any.
        region = where.region or session.region_name or "us-east-1"

        def made(signed: bool) -> Any:
            s3: dict[str, Any] = {"payload_signing_enabled": signed, "addressing_style": style}
            if regional:
                s3["us_east_1_regional_endpoint"] = "regional"
            config = Config(
                signature_version="s3v4", retries={"mode": "standard", "max_attempts": ATTEMPTS}, s3=s3,
                connect_timeout=CONNECT_SECONDS, read_timeout=read_seconds or READ_SECONDS,
                max_pool_connections=CONNECTIONS,
                request_checksum_calculation="when_required", response_checksum_validation="when_required",
            )  # fmt: skip
            return session.client("s3", endpoint_url=where.endpoint or None, region_name=region, config=config)

        client = made(signed=False)
        # Without TLS the hash of each part is a part of the signature, so that the store sees a damaged one. It takes
        # as long as the hash of the file; with TLS it would say nothing more. boto3 may have found the address.
        return made(signed=True) if in_clear(str(client.meta.endpoint_url)) else client
    except (BotoCoreError, ValueError) as exc:
        raise of_library(exc, where.endpoint, f"to use {where}") from None
