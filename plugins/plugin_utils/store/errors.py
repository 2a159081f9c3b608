# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong at an object store, in plain words.

Stores and boto3 name the same few causes in many ways; here each becomes one ``StoreError`` with what to do next.
The text never has a key or a signed address in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ansible_collections.glm.fleet.plugins.module_utils import unreachable
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.module_utils.weights.sources import OTHER_REGION, REDIRECTS

Kind = Literal[
    "address", "library", "credentials", "forbidden", "no_bucket", "not_found", "region", "busy", "full", "aborted",
    "clock", "truncated", "unreachable", "refused",
]  # fmt: skip

_KEYS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to a key pair that the store knows"
_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError", "SSOTokenLoadError", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken",
    "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired",
}  # fmt: skip
_FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
_BUSY = {"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "TooManyRequests", "503", "429"}
_FULL = {"QuotaExceeded", "InsufficientStorage", "InsufficientCapacity", "XMinioStorageFull", "507"}
# Each right by the name that policies of stores have for it.
RIGHTS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetObject": "s3:GetObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
}


class StoreError(Unmet):
    """The store refused, does not know, or cannot be reached; ``kind`` is for programs, the text for people."""

    def __init__(self, kind: Kind, expected: str, found: str, next_step: str) -> None:
        super().__init__(expected, found, next_step)
        self.kind = kind


def of_answer(error: Mapping[str, Any], operation: str, where: str, expected: str) -> StoreError:
    """A StoreError for an error answer of the store; ``error`` is boto3's ``response``, ``where`` the s3 address."""
    said: Mapping[str, Any] = error.get("Error") or {}
    meta: Mapping[str, Any] = error.get("ResponseMetadata") or {}
    code, status = str(said.get("Code") or ""), meta.get("HTTPStatusCode")
    found = f"{code or status} from {where}" + (f" ({str(said.get('Message'))[:200]})" if said.get("Message") else "")
    if code in _CREDENTIALS:
        return StoreError("credentials", expected, found, _KEYS)
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return StoreError("clock", expected, found, "correct the clock of this machine")
    if code == "NoSuchBucket":
        return StoreError("no_bucket", expected, found, "make the bucket, or correct its name and glm_store_endpoint")
    if code in OTHER_REGION or status in REDIRECTS:
        return StoreError("region", expected, found, _region_advice(error))
    if code in _FORBIDDEN or status == 403:
        right = RIGHTS.get(operation, "s3:PutObject")
        return StoreError("forbidden", expected, found, f"give the key pair the right {right} on {where}")
    if code == "NoSuchUpload":
        again = "wait until the other run that stages the same weights has ended, and run again"
        return StoreError("aborted", expected, f"{found}: the upload was aborted by somebody else", again)
    if code in _FULL or status == 507:
        return StoreError("full", expected, found, "free space in the store, or raise its quota")
    if code in _BUSY or status in (429, 503):
        return StoreError("busy", expected, f"{found} in each of several attempts", "run again later: it continues")
    if code in ("NoSuchKey", "404") or status == 404:
        return StoreError("not_found", expected, found, "look at what the bucket has below that name")
    return StoreError("refused", expected, found, "look at glm_store_endpoint and at the store's own log")


def of_library(error: Exception, endpoint: str, expected: str) -> StoreError:
    """A StoreError for an error that boto3 raised without an answer of the store."""
    name = type(error).__name__
    if name in _CREDENTIALS:
        return StoreError("credentials", expected, f"none: {error}", _KEYS)
    if name == "NoRegionError":
        return StoreError("region", expected, "no region for the store", "set glm_store_region")
    if not endpoint.startswith("http"):
        return StoreError("unreachable", expected, f"{name} from the store", "check the network of this machine")
    check = unreachable.check(error, endpoint, "glm_store_endpoint").rstrip(".")
    return StoreError("unreachable", expected, unreachable.why(error, endpoint), check[:1].lower() + check[1:])


def region_of(answer: Mapping[str, Any]) -> str:
    """The bucket's region by an answer of the store, in boto3's form; empty where it names none."""
    said: Mapping[str, Any] = answer.get("Error") or {}
    meta: Mapping[str, Any] = answer.get("ResponseMetadata") or {}
    return str(said.get("Region") or (meta.get("HTTPHeaders") or {}).get("x-amz-bucket-region") or "")


def _region_advice(answer: Mapping[str, Any]) -> str:
    region = region_of(answer)
    known = f"set glm_store_region to {region}" if region else "set glm_store_region to the bucket's region"
    return f"{known}, and glm_store_endpoint to that region's address if the store has one for each"
