# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A read-only client for GMI Cloud's Cluster Engine API 2.4.0 (https://docs.gmicloud.ai/api-reference).

Experimental: container paths, names and the elastic IP object are documented by the vendor; the schema of a bare-metal
node, the envelope of lists, the body of an error and the rate limits are not. So lists are found by their shape,
unknown fields are ignored, and an answer that cannot be understood is an error that names what is missing.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, AuthError, BadAnswer, CloudError

if TYPE_CHECKING:
    import requests

DEFAULT_BASE_URL = "https://console.gmicloud.ai"
KEY_ENVIRONMENT = ("GMI_API_KEY", "GMI_CLOUD_API_KEY")
ORGANIZATION_HEADER = "X-Organization-ID"
# Under these names an envelope may say how many entries there are; no pagination is documented.
TOTAL_KEYS = ("total", "totalCount", "total_count")

SCOPE_ADVICE = (
    "GMI Cloud has keys of two scopes, and one for inference (the common one) is refused by the Cluster Engine: make a "
    "key with the Cluster Engine scope (ce_resource) in the organisation's settings of the console."
)


class NotServed(ApiError):
    """HTTP 404: this account or this version of the API has no such collection."""


class GmiApi(_cloud_api.CloudClient):
    """The lists that an inventory needs, for one organisation."""

    prefix = "/api/v1"

    def __init__(self, api_key: str, base_url: str, organization: Optional[str] = None, **options: Any) -> None:
        headers = {ORGANIZATION_HEADER: organization} if organization else {}
        super().__init__(api_key, base_url, headers=headers, **options)

    def list_containers(self) -> List[Dict[str, Any]]:
        """Containers with GPUs: ``id, name, idc, product, status, publicIP, inboundIP, outboundIP, …``."""
        return self._list("/containers", identified=True)

    def list_baremetals(self) -> List[Dict[str, Any]]:
        """Bare-metal nodes. Their fields are not published; ``id`` is required here."""
        return self._list("/baremetals", identified=True)

    def list_elastic_ips(self) -> List[Dict[str, Any]]:
        """Elastic IPs: ``ipAddress, status, instanceID, instanceType, …``."""
        return self._list("/elastic-ips")

    def list_idcs(self) -> List[Dict[str, Any]]:
        """Data centres: ``idcId, name, country, countrySubdivision, status``."""
        return self._list("/idcs")

    def list_products(self, kind: str, idc: Optional[str] = None) -> List[Dict[str, Any]]:
        """Products of ``containers`` or ``baremetals``: ``name, idc, price, gpuModel, spec, …``."""
        query = "?" + urllib.parse.urlencode({"idc": idc}) if idc else ""
        return self._list(f"/{kind}/products{query}")

    def _list(self, path: str, identified: bool = False) -> List[Dict[str, Any]]:
        what = f"GET {self._url(path)}"
        holder, items = _items(self._read(path))
        if items is None:
            raise BadAnswer(f"{what}: expected a list, or an object that holds one, and found neither.")
        total = next((holder[key] for key in TOTAL_KEYS if isinstance(holder.get(key), int)), len(items))
        if total > len(items):
            raise BadAnswer(
                f"{what}: {len(items)} of {total} entries came back. How this API gives the rest is not documented, "
                "and a partial list could hide hosts; please report this answer's shape."
            )
        return _cloud_api.usable_rows(what, items, *(["id"] if identified else []))

    def _content(self, what: str, response: requests.Response, answer: Any) -> Any:
        if not isinstance(answer, (dict, list)):
            raise BadAnswer(f"{what}: HTTP 200, but the body is not the API's JSON: {_cloud_api.excerpt(response)}")
        return answer

    def _failure(self, what: str, response: requests.Response, answer: Any) -> CloudError:
        status = response.status_code
        code, message = _complaint(answer)
        message = message or _cloud_api.excerpt(response)
        if status == 429:
            return _cloud_api.RateLimited(what, status, code, message)
        if status == 401:
            return AuthError(what, status, code, message, advice=SCOPE_ADVICE)
        if status == 403:
            return AuthError(
                what, status, code, message,
                advice="the key's organisation may not see this; set organization to one it belongs to, or ask GMI "
                "Cloud to enable the product for the account.",
            )  # fmt: skip
        if status == 404:
            return NotServed(what, status, code, message)
        return ApiError(what, status, code, message)


def _items(answer: Any) -> tuple[Mapping[str, Any], Optional[List[Dict[str, Any]]]]:
    """The object that holds the list of an answer, and the list: the answer itself, or the first list in it."""
    if isinstance(answer, list):
        return {}, answer
    for holder in (answer, *answer.values()):
        if isinstance(holder, dict):
            for value in holder.values():
                if isinstance(value, list):
                    return holder, value
    return answer, None


def _complaint(answer: Any) -> tuple[str, str]:
    """``(code, message)`` of an error body, whose schema is not published; empty texts where there is none."""
    if not isinstance(answer, dict):
        return "", ""
    error = answer.get("error")
    if isinstance(error, dict):
        return _complaint(error)
    code = "/".join(str(answer[key]) for key in ("group", "code") if answer.get(key) not in (None, ""))
    for key in ("message", "reason", "error"):
        if isinstance(answer.get(key), str) and answer[key]:
            return code, answer[key]
    return code, ""
