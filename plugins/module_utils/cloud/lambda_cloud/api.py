# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client for the Lambda Cloud API 1.10.0 (https://docs-api.lambda.ai/api/cloud).

It keeps to the API's published limits (one request per second, one launch per twelve seconds) across all processes of
one user, repeats what is safe to repeat, and turns every other answer into a typed error that says what to do next.
A launch is never repeated here: the API has no client token, so only the caller can find out what became of it.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any, Dict, List, Optional, TypedDict, cast

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.api import ApiError, AuthError, BadAnswer, RateLimited
from ansible_collections.glm.fleet.plugins.module_utils.cloud.exchange import Received

LambdaError = _cloud_api.CloudError

DEFAULT_BASE_URL = "https://cloud.lambda.ai"
API_KEY_PAGE = "https://cloud.lambda.ai/api-keys"
KEY_ENVIRONMENT = ("LAMBDA_API_KEY", "LAMBDALABS_API_KEY")

ALIVE = frozenset({"booting", "active", "unhealthy"})
GONE = frozenset({"terminating", "terminated", "preempted"})


class Named(TypedDict, total=False):
    name: str
    description: str


class Specs(TypedDict, total=False):
    vcpus: int
    memory_gib: int
    storage_gib: int
    gpus: int


class InstanceType(TypedDict, total=False):
    name: str
    description: str
    gpu_description: str
    price_cents_per_hour: int
    specs: Specs


class Tag(TypedDict):
    key: str
    value: str


class Instance(TypedDict, total=False):
    """One element of ``GET /instances``; every key but ``id`` may be missing or null."""

    id: str
    name: Optional[str]
    ip: Optional[str]
    private_ip: Optional[str]
    hostname: Optional[str]
    status: str
    region: Named
    instance_type: InstanceType
    ssh_key_names: List[str]
    file_system_names: List[str]
    actions: Dict[str, Dict[str, Any]]
    tags: Optional[List[Tag]]


class CapacityError(ApiError):
    """No capacity for this instance type in this region at this moment."""


DUPLICATE = "global/duplicate"
AUTH_CODES = frozenset({"global/invalid-api-key", "global/account-inactive", "global/forbidden"})
CAPACITY_CODE = "instance-operations/launch/insufficient-capacity"
FILE_SYSTEM_IN_USE = "filesystems/filesystem-in-use"
RULESET_IN_USE = "firewall-rulesets/firewall-ruleset-in-use"


class LambdaApi(_cloud_api.CloudClient):
    """The API calls the collection needs, for one account. Raises ``LambdaError`` subclasses only."""

    prefix = "/api/v1"

    def list_instances(self, cluster_id: Optional[str] = None) -> List[Instance]:
        """Every instance of the account, or of one of its 1-Click Clusters (``GET /instances`` is not paginated)."""
        query = f"?cluster_id={_quoted(cluster_id)}" if cluster_id else ""
        return cast(List[Instance], self._rows(f"/instances{query}", "id"))

    def get_instance(self, identifier: str) -> Optional[Instance]:
        """One instance by its id; None when the API says that there is none. A list without it says less."""
        path = f"/instances/{_quoted(identifier)}"
        try:
            return cast(Instance, self._described("GET", path, self._read(path)))
        except ApiError as error:
            if error.absent:
                return None
            raise

    def list_instance_types(self) -> Dict[str, Dict[str, Any]]:
        """Instance types by name: ``{instance_type, regions_with_capacity_available}`` each."""
        data = self._read("/instance-types")
        if not isinstance(data, dict):
            found = _cloud_api.kind_of(data)
            raise BadAnswer(f"GET {self._url('/instance-types')}: expected a mapping, found {found}.")
        return cast(Dict[str, Dict[str, Any]], data)

    def list_images(self) -> List[Dict[str, Any]]:
        """The images, one row for each region that has them."""
        return self._rows("/images", "id")

    def list_regions(self) -> List[Dict[str, Any]]:
        """The regions: ``name`` and ``description``."""
        return self._rows("/regions", "name")

    def list_ssh_keys(self) -> List[Dict[str, Any]]:
        """The account's ssh keys: ``id``, ``name`` and ``public_key``."""
        return self._rows("/ssh-keys", "id", "name")

    def add_ssh_key(self, name: str, public_key: Optional[str] = None) -> Dict[str, Any]:
        """Register a public key, or let the API make a pair: then the answer, and no later one, has ``private_key``."""
        body = {"name": name} if public_key is None else {"name": name, "public_key": public_key}
        return self._made("/ssh-keys", body)

    def delete_ssh_key(self, key_id: str) -> None:
        """Forget a key; instances that were launched with it keep it."""
        self._delete(f"/ssh-keys/{_quoted(key_id)}")

    def list_file_systems(self) -> List[Dict[str, Any]]:
        """The account's file systems, of all regions."""
        # The only path with a hyphen: POST and DELETE know /filesystems only.
        return self._rows("/file-systems", "id", "name")

    def create_file_system(self, name: str, region: str) -> Dict[str, Any]:
        """Make a file system; it can be attached in its own region only."""
        return self._made("/filesystems", {"name": name, "region": region})

    def delete_file_system(self, file_system_id: str) -> None:
        """Delete a file system with all it holds; refused with ``FILE_SYSTEM_IN_USE`` while an instance has it."""
        self._delete(f"/filesystems/{_quoted(file_system_id)}")

    def list_firewall_rulesets(self) -> List[Dict[str, Any]]:
        """The rulesets of the regions, without the one of the account."""
        return self._rows("/firewall-rulesets", "id", "name")

    def get_global_firewall_ruleset(self) -> Dict[str, Any]:
        """The rules that hold for every instance of the account."""
        data = self._read("/firewall-rulesets/global")
        if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
            raise BadAnswer(f"GET {self._url('/firewall-rulesets/global')}: expected a ruleset with rules.")
        return data

    def create_firewall_ruleset(self, name: str, region: str, rules: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Make a ruleset that instances of ``region`` can be launched with."""
        return self._made("/firewall-rulesets", {"name": name, "region": region, "rules": rules})

    def change_firewall_ruleset(self, ruleset_id: str, rules: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Replace all rules of a ruleset; ``global`` is the one of the account."""
        path = f"/firewall-rulesets/{_quoted(ruleset_id)}"
        return self._described("PATCH", path, self._repeated("PATCH", path, {"rules": rules}))

    def delete_firewall_ruleset(self, ruleset_id: str) -> None:
        """Delete a ruleset; refused with ``RULESET_IN_USE`` while an instance has it."""
        self._delete(f"/firewall-rulesets/{_quoted(ruleset_id)}")

    def launch(self, request: Dict[str, Any]) -> List[str]:
        """Ask once for one instance and return the ids of what was launched.

        Raises ``CapacityError`` when another candidate may be tried, and errors with ``outcome_unknown`` when the
        instance may or may not exist: list the instances before anything else then.
        """
        data = self._change("/instance-operations/launch", request, pace=("launch", "request"))
        ids = data.get("instance_ids") if isinstance(data, dict) else None
        if not isinstance(ids, list) or not ids or not all(isinstance(item, str) for item in ids):
            raise BadAnswer(f"POST {self.base_url}/api/v1/instance-operations/launch: the answer names no instance.")
        return cast(List[str], ids)

    def restart(self, instance_ids: List[str]) -> None:
        """Restart the instances, all or none; a conflict (409) when one of them cannot restart now."""
        self._change("/instance-operations/restart", {"instance_ids": instance_ids})

    def terminate(self, instance_ids: List[str]) -> List[Instance]:
        """Terminate the instances; those that the API returns, with status ``terminating``, end."""
        data = self._change("/instance-operations/terminate", {"instance_ids": instance_ids})
        found = data.get("terminated_instances") if isinstance(data, dict) else None
        what = f"POST {self._url('/instance-operations/terminate')}"
        return cast(List[Instance], _cloud_api.usable_rows(what, found, "id"))

    def _rows(self, path: str, *keys: str) -> List[Dict[str, Any]]:
        """A list whose entries have text under each of ``keys``; whatever else they hold may be new or missing."""
        return _cloud_api.usable_rows(f"GET {self._url(path)}", self._read(path), *keys)

    def _delete(self, path: str) -> None:
        """Delete by id, again when no answer came; what is not there any more is deleted."""
        try:
            self._repeated("DELETE", path)
        except ApiError as error:
            if not error.absent:
                raise

    def _made(self, path: str, body: Dict[str, Any]) -> Dict[str, Any]:
        return self._described("POST", path, self._change(path, body))

    def _described(self, method: str, path: str, data: Any) -> Dict[str, Any]:
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            raise BadAnswer(f"{method} {self._url(path)}: the answer does not describe what was made.")
        return data

    def _content(self, what: str, response: Received, answer: Any) -> Any:
        if not isinstance(answer, dict) or "data" not in answer:
            raise _cloud_api.not_the_apis(what, response)
        return answer["data"]

    def _failure(self, what: str, response: Received, answer: Any) -> LambdaError:
        status = response.status_code
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            error = {}
        code, message, suggestion = (str(error.get(key) or "") for key in ("code", "message", "suggestion"))
        if status == 429:
            return RateLimited(what, status, code, message or "too many requests", suggestion)
        if status == 401 or code in AUTH_CODES:
            return AuthError(what, status, code, message, suggestion, f"make or check the key at {API_KEY_PAGE}.")
        if code == CAPACITY_CODE:
            return CapacityError(what, status, code, message, suggestion)
        return ApiError(what, status, code, message or _cloud_api.excerpt(response), suggestion)


def tags_of(instance: Mapping[str, object]) -> Dict[str, str]:
    """The tags of an instance as a mapping; entries of an unexpected form are left out."""
    tags = instance.get("tags")
    if not isinstance(tags, list):
        return {}
    usable = [tag for tag in tags if isinstance(tag, dict) and tag.get("key") is not None]
    return {str(tag["key"]): str(tag.get("value") or "") for tag in usable}


def region_of(thing: Mapping[str, object]) -> Optional[str]:
    """The name of the region that an instance, image, file system or ruleset is in, if it says."""
    region = thing.get("region")
    name = region.get("name") if isinstance(region, dict) else None
    return name if isinstance(name, str) else None


def type_of(instance: Mapping[str, object]) -> Optional[str]:
    """The name of an instance's type, if it says."""
    kind = instance.get("instance_type")
    name = kind.get("name") if isinstance(kind, dict) else None
    return name if isinstance(name, str) else None


def price_usd_per_hour(instance: Mapping[str, object]) -> Optional[float]:
    """Price of the whole instance in USD per hour (the API gives cents), or ``None`` when it is not given."""
    kind = instance.get("instance_type")
    cents = kind.get("price_cents_per_hour") if isinstance(kind, dict) else None
    return cents / 100 if isinstance(cents, (int, float)) else None


def _quoted(identifier: str) -> str:
    return urllib.parse.quote(identifier, safe="")
