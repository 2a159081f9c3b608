# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for GMI Cloud's Cluster Engine API 2.4.0 (https://docs.gmicloud.ai/api-reference).

Experimental: container paths, names and the elastic IP object are documented by the vendor; the schema of a bare-metal
node, what a request for one of its actions says, the envelope of lists, the body of an error and the rate limits are
not. So lists are found by name,
unknown fields are ignored, and an answer that cannot be understood is an error that names what is missing. What makes
something is sent once, because the API has no token to recognise a repetition by: the caller finds out by its name.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Dict, List, Optional

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, AuthError, BadAnswer, CloudError
from ansible_collections.glm.fleet.plugins.module_utils.cloud.exchange import Received
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import lists

DEFAULT_BASE_URL = "https://console.gmicloud.ai"
KEY_ENVIRONMENT = ("GMI_API_KEY", "GMI_CLOUD_API_KEY")
ORGANIZATION_HEADER = "X-Organization-ID"
# No pagination is documented; a list that goes on for longer is one that does not end.
MOST_PAGES = 200

# What has products, by the names of its collections.
KINDS = ("containers", "baremetals", "elastic-ips")
# The collections of what an account rents.
MACHINES = ("containers", "bare-metal nodes")

SCOPE_ADVICE = (
    "GMI Cloud has keys of two scopes, and one for inference (the common one) is refused by the Cluster Engine: make a "
    "key with the Cluster Engine scope (ce_resource) in the organisation's settings of the console."
)


class NotServed(ApiError):
    """HTTP 404: this account or this version of the API has no such collection."""


class NoLogs(ApiError):
    """There are no logs, and asking again would bring none."""


# Another API of the vendor answers so to a request for logs; of this one no status is published for that.
_NO_LOGS = {
    410: "its logs are gone",
    422: "it is of a kind without logs",
    501: "it is of a kind without logs",
}


def refuse_unserved(errors: Sequence[CloudError]) -> None:
    """What asking for each kind of machine gave: an account has one of them, so that one without any is no account.

    Raises BadAnswer where all of them are not served; a proxy or a wrong address answers so, too.
    """
    if len(errors) == len(MACHINES) and all(isinstance(error, NotServed) for error in errors):
        raise BadAnswer(
            f"{errors[0]}: this address serves neither {' nor '.join(MACHINES)}, so what the account has is not known; "
            "correct the API's address (gmi_api_url, or base_url of the inventory) and the organization."
        )


class GmiApi(_cloud_api.CloudClient):
    """The lists that an inventory needs, and the life of containers, for one organisation."""

    prefix = "/api/v1"

    def __init__(self, api_key: str, base_url: str, organization: Optional[str] = None, **options: Any) -> None:
        headers = {ORGANIZATION_HEADER: organization} if organization else {}
        super().__init__(api_key, base_url, headers=headers, **options)
        if organization:
            # A key may open several, and a list of one says nothing about the others.
            self.account = ledger.account_of(f"{self.base_url} {organization}", api_key)
        # Those of the last good answer: some APIs say there how long a list is.
        self._headers: Mapping[str, str] = {}

    def list_containers(self) -> List[Dict[str, Any]]:
        """Containers with GPUs: ``id, name, idc, product, status, publicIP, inboundIP, outboundIP, …``."""
        return self._list("/containers", "containers", identified=True)

    def has_container(self, identifier: str) -> bool:
        """Whether there is a container of this id; a list without it says less."""
        try:
            self._read(f"/containers/{_quoted(identifier)}")
        except NotServed:
            return False
        return True

    def container(self, identifier: str) -> Dict[str, Any]:
        """One container. Its environment and arguments come in clear, and must not leave the caller."""
        path = f"/containers/{_quoted(identifier)}"
        found = self._read(path)
        if not isinstance(found, dict) or found.get("id") != identifier:
            raise BadAnswer(f"GET {self._url(path)}: expected the container of this id, found another answer.")
        return found

    def container_logs(self, identifier: str, last: int) -> Received:
        """The ``last`` bytes of what a container has written, as they are."""
        path = f"/containers/{_quoted(identifier)}/logs"
        received = self._read_text(path, last)
        kind = received.headers.get("Content-Type", "text/plain").partition(";")[0].strip().lower()
        if kind != "text/plain":
            raise BadAnswer(f"GET {self._url(path)}: expected logs as text/plain, found {kind}.")
        return received

    def list_baremetals(self) -> List[Dict[str, Any]]:
        """Bare-metal nodes. Their fields are not published; ``id`` is required here."""
        return self._list("/baremetals", "baremetals", identified=True)

    def list_elastic_ips(self, identified: bool = False) -> List[Dict[str, Any]]:
        """Elastic IPs: ``id, name, ipAddress, status, instanceID, …``; ``identified``: each must have an id."""
        return self._list("/elastic-ips", "elastic-ips", identified=identified)

    def list_idcs(self) -> List[Dict[str, Any]]:
        """Data centres: ``idcId, name, country, countrySubdivision, status``."""
        return self._list("/idcs", "idcs")

    def list_products(self, kind: str, idc: Optional[str] = None) -> List[Dict[str, Any]]:
        """Products of one of ``KINDS``: ``name, idc, price, gpuModel, spec, …``."""
        query = "?" + urllib.parse.urlencode({"idc": idc}) if idc else ""
        return self._list(f"/{kind}/products{query}", "products")

    def list_templates(self) -> List[Dict[str, Any]]:
        """What containers can be made from: ``id, name, path`` (an image's address), …``."""
        return self._list("/templates", "templates", identified=True)

    def create_template(self, name: str, image: str) -> str:
        """Make a template of an image, and return its id. Ask once: without an answer, look for its name."""
        return self._made("/templates", {"name": name, "path": image, "description": "", "status": "published"})

    def create_container(self, request: Mapping[str, Any]) -> str:
        """Ask once for one container, and return its id.

        Raises errors with ``outcome_unknown`` when it may exist all the same: list the containers before anything else.
        """
        return self._made("/containers", {**request, "count": 1})

    def delete_container(self, identifier: str) -> None:
        """Ask once that a container ends. Its elastic IP stays, and goes on costing money."""
        self._change(f"/containers/{_quoted(identifier)}", None, method="DELETE")

    def allocate_elastic_ip(self, name: str, idc: str, product: str) -> str:
        """Ask once for an elastic IP, and return its id; as ``create_container``."""
        return self._made("/elastic-ips", {"name": name, "idc": idc, "product": product, "count": 1})

    def associate_elastic_ip(self, identifier: str, container: str) -> None:
        """Bind an elastic IP to a container; the answer is not documented, so look whether it is."""
        body = {"instanceID": container, "instanceType": "container"}
        self._change(f"/elastic-ips/{_quoted(identifier)}/associate", body)

    def release_elastic_ip(self, identifier: str) -> None:
        """Ask once that an elastic IP is released."""
        self._change(f"/elastic-ips/{_quoted(identifier)}", None, method="DELETE")

    def act_on_baremetal(self, identifier: str, body: Dict[str, Any]) -> None:
        """Ask that a node starts or stops, which can be asked twice. The path is published, no body is."""
        self._repeated("POST", f"/baremetals/{_quoted(identifier)}/action", body)

    def delete_baremetal(self, identifier: str) -> None:
        """Ask once that a node ends, with all its data. Its elastic IP stays, and goes on costing money."""
        self._change(f"/baremetals/{_quoted(identifier)}", None, method="DELETE")

    def _made(self, path: str, body: Dict[str, Any]) -> str:
        """The id of the one thing that this made; the answer is an object with it, or a list of one."""
        answer = self._change(path, body)
        found = answer if isinstance(answer, list) else [answer]
        ids: List[str] = [row["id"] for row in found if isinstance(row, dict) and isinstance(row.get("id"), str)]
        if len(found) != 1 or not any(ids):
            raise BadAnswer(f"POST {self._url(path)}: expected the id of what was made, found {len(ids)} ids.")
        return ids[0]

    def _list(self, path: str, name: str, identified: bool = False) -> List[Dict[str, Any]]:
        """All entries of a list; links to further pages on the same path are followed, and each entry comes once."""
        items: List[Dict[str, Any]] = []
        where = path
        for pages in range(1, MOST_PAGES + 1):
            what = f"GET {self._url(where)}"
            page = lists.page_of(what, self._read(where), name, self._headers)
            for note in page.notes:
                self._say(f"{what}: {note}")
            items += _cloud_api.usable_rows(what, page.items, *(["id"] if identified else []))
            following = page.items and self._same_list(path, page.next)
            if not following:
                lists.refuse_more(what, page, len(items), pages)
                break
            where = following
        else:
            raise BadAnswer(f"GET {self._url(path)}: more than {MOST_PAGES} pages; that is no list that ends.")
        if identified and len({item["id"] for item in items}) < len(items):
            raise BadAnswer(f"GET {self._url(path)}: an id came twice; its pages do not differ as they should.")
        return items

    def _same_list(self, path: str, link: Optional[str]) -> str:
        """The path, below the API's, of a link to another part of a list; empty if it leads anywhere else."""
        own = urllib.parse.urlsplit(self._url(path))
        there = urllib.parse.urlsplit(urllib.parse.urljoin(self._url(path), link or ""))
        if not link or not there.query or (there.scheme, there.netloc, there.path) != own[:3]:
            return ""
        return f"{path.partition('?')[0]}?{there.query}"

    def _content(self, what: str, response: Received, answer: Any) -> Any:
        # What comes back for an end or a binding is not documented; whether it came about is read from the lists.
        bare = not what.startswith("GET ") and (answer is not None or not response.content.strip())
        if not isinstance(answer, (dict, list)) and not bare:
            raise _cloud_api.not_the_apis(what, response)
        self._headers = response.headers
        return answer

    def _failure(self, what: str, response: Received, answer: Any) -> CloudError:
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
        if status in _NO_LOGS and what.startswith("GET ") and what.endswith("/logs"):
            error = NoLogs(what, status, code, f"{_NO_LOGS[status]}: {message}")
            error.outcome_unknown = False
            return error
        return ApiError(what, status, code, message)


def _quoted(identifier: str) -> str:
    return urllib.parse.quote(identifier, safe="")


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
