"""The Lambda Cloud simulator keeps the API's contract: every endpoint, its schema, and every status and error code."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lambda_cloud_schemas as schemas
import pytest
import requests
from lambda_cloud_client import PUBLIC_KEY, REGION, TYPE, Client

from simulator.lambda_cloud.app import ROUTES
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.errors import STATUS_OF
from simulator.lambda_cloud.server import running
from tests.patience import PATIENCE_SECONDS

RULE = {"protocol": "tcp", "port_range": [8000, 8000], "source_network": "10.0.0.0/8", "description": "serve"}
PING = {"protocol": "icmp", "source_network": "0.0.0.0/0", "description": ""}
ABSENT = "f" * 32


@pytest.fixture
def client() -> Iterator[Client]:
    with running() as (_, handle):
        yield Client(handle)


class World:
    """One of everything, so that each endpoint has something to answer about."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.key = client.add_key()
        self.file_system = client.add_file_system()
        self.spare_file_system = client.add_file_system("spare")
        self.ruleset = self.make("/firewall-rulesets", {"name": "serve", "region": REGION, "rules": [RULE, PING]})
        self.spare_ruleset = self.make("/firewall-rulesets", {"name": "spare", "region": REGION, "rules": []})
        self.instance = client.launch(
            name="one",
            hostname="one",
            file_system_names=["weights"],
            tags=[{"key": "fleet", "value": "a"}],
            firewall_rulesets=[{"id": self.ruleset}],
        )
        client.wait_active(self.instance)
        self.fabric = self.make("/fabric", {"name": "fabric-1", "region": REGION})
        self.ticket = self.make(
            "/tickets", {"subject": "slow", "description": "a GPU is slow", "type": "incident", "severity": "sev_2"}
        )
        self.attachment = self.attach(b"log")

    def make(self, path: str, body: dict[str, Any]) -> str:
        return str(self.client.data("POST", path, body)["id"])

    def attach(self, content: bytes) -> str:
        path = f"/tickets/{self.ticket}/attachments"
        body = {"filename": "gpu.log", "content_type": "text/plain", "size_bytes": len(content)}
        started = self.client.data("POST", path, body)
        assert requests.put(started["upload_url"], data=content, timeout=PATIENCE_SECONDS).status_code == 200
        return str(started["attachment_id"])

    def fill(self, template: str) -> str:
        """A path with ids of things that exist."""
        own = {
            "/instances": self.instance,
            "/ssh-keys": self.key,
            "/filesystems": self.spare_file_system,
            "/firewall-rulesets": self.spare_ruleset,
            "/fabric": self.fabric,
        }
        collection = template.partition("/{")[0]
        return (
            template.replace("{ticket_id}", self.ticket)
            .replace("{attachment_id}", self.attachment)
            .replace("{id}", own.get(collection, ""))
        )


LAUNCH = {"region_name": REGION, "instance_type_name": TYPE, "ssh_key_names": ["fleet"]}

# operation: (body, schema of data)
SUCCESS: dict[str, tuple[Any, schemas.Schema]] = {
    "listInstances": (None, schemas.list_of(schemas.INSTANCE)),
    "getInstance": (None, schemas.INSTANCE),
    "postInstance": ({"name": "two"}, schemas.INSTANCE),
    "launchInstance": (LAUNCH, schemas.LAUNCHED),
    "restartInstance": ("instance", schemas.RESTARTED),
    "terminateInstance": ("instance", schemas.TERMINATED),
    "listInstanceTypes": (None, schemas.INSTANCE_TYPES),
    "listImages": (None, schemas.list_of(schemas.IMAGE)),
    "listRegions": (None, schemas.list_of(schemas.REGION)),
    "listSSHKeys": (None, schemas.list_of(schemas.SSH_KEY)),
    "addSSHKey": ({"name": "other", "public_key": PUBLIC_KEY}, schemas.SSH_KEY),
    "deleteSSHKey": (None, schemas.EMPTY),
    "listFilesystems": (None, schemas.list_of(schemas.FILE_SYSTEM)),
    "createFilesystem": ({"name": "cache", "region": REGION}, schemas.FILE_SYSTEM),
    "deleteFilesystem": (None, schemas.DELETED_FILE_SYSTEM),
    "firewallRulesList": (None, schemas.list_of(schemas.FIREWALL_RULE)),
    "firewallRulesSet": ({"data": [RULE, PING]}, schemas.list_of(schemas.FIREWALL_RULE)),
    "firewallRulesetsList": (None, schemas.list_of(schemas.RULESET)),
    "firewallRulesetsCreate": ({"name": "n", "region": REGION, "rules": [RULE]}, schemas.RULESET),
    "globalFirewallRulesetGet": (None, schemas.GLOBAL_RULESET),
    "globalFirewallRulesetUpdate": ({"rules": [RULE]}, schemas.GLOBAL_RULESET),
    "firewallRulesetGet": (None, schemas.RULESET),
    "firewallRulesetUpdate": ({"name": "m", "rules": [PING]}, schemas.RULESET),
    "firewallRulesetDelete": (None, schemas.EMPTY),
    "createFabricPartition": ({"name": "f2", "region": REGION, "workspace_id": "w"}, schemas.FABRIC),
    "updateFabricPartition": ({"name": "f3"}, schemas.FABRIC),
    "deleteFabricPartition": (None, schemas.EMPTY),
    "getAuditEvents": (None, schemas.list_of(schemas.AUDIT_EVENT)),
    "listTickets": (None, schemas.TICKET_LIST),
    "createTicket": ({"subject": "s", "description": "d", "type": "service_request"}, schemas.NEW_TICKET),
    "getTicket": (None, schemas.TICKET),
    "updateTicket": ({"comment": {"body": "more"}, "severity": "sev_1", "status": "solved"}, schemas.EMPTY),
    "listAttachments": (None, schemas.ATTACHMENT_LIST),
    "startAttachment": ({"filename": "a", "content_type": "b", "size_bytes": 1}, schemas.NEW_ATTACHMENT),
    "completeAttachment": (None, schemas.ATTACHMENT),
    "downloadAttachment": (None, schemas.DOWNLOAD),
    "deleteAttachment": (None, schemas.EMPTY),
}

ENDPOINTS = {
    "GET /instances",
    "GET /instances/{id}",
    "POST /instances/{id}",
    "POST /instance-operations/launch",
    "POST /instance-operations/restart",
    "POST /instance-operations/terminate",
    "GET /instance-types",
    "GET /images",
    "GET /regions",
    "GET /ssh-keys",
    "POST /ssh-keys",
    "DELETE /ssh-keys/{id}",
    "GET /file-systems",
    "POST /filesystems",
    "DELETE /filesystems/{id}",
    "GET /firewall-rules",
    "PUT /firewall-rules",
    "GET /firewall-rulesets",
    "POST /firewall-rulesets",
    "GET /firewall-rulesets/global",
    "PATCH /firewall-rulesets/global",
    "GET /firewall-rulesets/{id}",
    "PATCH /firewall-rulesets/{id}",
    "DELETE /firewall-rulesets/{id}",
    "POST /fabric",
    "POST /fabric/{id}",
    "DELETE /fabric/{id}",
    "GET /audit-events",
    "GET /tickets",
    "POST /tickets",
    "GET /tickets/{ticket_id}",
    "PATCH /tickets/{ticket_id}",
    "GET /tickets/{ticket_id}/attachments",
    "POST /tickets/{ticket_id}/attachments",
    "DELETE /tickets/{ticket_id}/attachments/{attachment_id}",
    "POST /tickets/{ticket_id}/attachments/{attachment_id}/complete",
    "GET /tickets/{ticket_id}/attachments/{attachment_id}/download",
}

by_name = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
with_body = pytest.mark.parametrize(
    "route", [route for route in ROUTES if route.body is not None], ids=lambda route: route.name
)
with_id = pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.template], ids=lambda r: r.name)


def test_every_endpoint_of_the_document_has_a_route_and_a_case() -> None:
    assert {f"{route.method} {route.template}" for route in ROUTES} == ENDPOINTS
    assert {route.name for route in ROUTES} == set(SUCCESS)


@by_name
def test_success_keeps_its_schema(client: Client, route: Any) -> None:
    world = World(client)
    body, schema = SUCCESS[route.name]
    if body == "instance":
        body = {"instance_ids": [world.instance]}
    if route.name == "downloadAttachment":
        client.data("POST", f"/tickets/{world.ticket}/attachments/{world.attachment}/complete")
    answer = client.call(route.method, world.fill(route.template), json=body)
    assert answer.status_code == (202 if route.name == "updateTicket" else 200), answer.text
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    assert set(content) == ({"data", "page_token"} if route.name == "getAuditEvents" else {"data"})
    schemas.check(schema, content["data"])
    if isinstance(content["data"], list):
        assert content["data"], "an empty list proves nothing about its items"


@by_name
def test_no_key_and_bad_key_share_a_code_but_not_a_message(client: Client, route: Any) -> None:
    url = client.handle.api_url + route.template
    bare = requests.request(route.method, url, timeout=PATIENCE_SECONDS)
    wrong = requests.request(route.method, url, headers={"Authorization": "Bearer nonsense"}, timeout=PATIENCE_SECONDS)
    for answer, message in ((bare, "No API key was provided."), (wrong, "API key was invalid, expired, or deleted.")):
        schemas.check(schemas.ERROR, answer.json())
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "global/invalid-api-key"
        assert answer.json()["error"]["message"] == message


@by_name
def test_an_inactive_account_is_refused_everywhere(client: Client, route: Any) -> None:
    client.handle.settings(account="inactive")
    assert client.error(route.method, route.template)[:2] == (403, "global/account-inactive")


@with_body
def test_a_body_that_is_not_an_object_is_refused(client: Client, route: Any) -> None:
    world = World(client)
    path = world.fill(route.template)
    for raw in (b"", b"{", b"[]", b"3", b"\xff"):
        answer = client.call(route.method, path, data=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, (raw, answer.text)
        assert answer.json()["error"]["code"] == "global/invalid-parameters"


@with_body
def test_an_unknown_key_is_refused_by_name(client: Client, route: Any) -> None:
    world = World(client)
    body, _ = SUCCESS[route.name]
    body = {"instance_ids": [world.instance]} if body == "instance" else body
    status, code, message = client.error(route.method, world.fill(route.template), {**body, "surprise": 1})
    assert (status, code) == (400, "global/invalid-parameters")
    assert "surprise" in message


NOT_FOUND_CODE = {
    "/ssh-keys": "global/not-found",
    "/fabric": "global/not-found",
    "/tickets": "global/not-found",
    "/instances": "global/object-does-not-exist",
    "/filesystems": "global/object-does-not-exist",
    "/firewall-rulesets": "global/object-does-not-exist",
}


@with_id
def test_an_unknown_id_is_not_found(client: Client, route: Any) -> None:
    body, _ = SUCCESS[route.name]
    path = route.template.replace("{id}", ABSENT).replace("{ticket_id}", ABSENT).replace("{attachment_id}", ABSENT)
    collection = route.template.partition("/{")[0]
    assert client.error(route.method, path, body)[:2] == (404, NOT_FOUND_CODE[collection])


@pytest.mark.parametrize("tail", ["", "/complete", "/download"])
def test_an_unknown_attachment_is_not_found(client: Client, tail: str) -> None:
    world = World(client)
    method = {"": "DELETE", "/complete": "POST", "/download": "GET"}[tail]
    path = f"/tickets/{world.ticket}/attachments/{ABSENT}{tail}"
    assert client.error(method, path)[:2] == (404, "global/object-does-not-exist")


def test_unknown_paths_and_methods(client: Client) -> None:
    assert client.error("GET", "/clusters")[:2] == (404, "global/not-found")
    assert client.error("GET", "/instances/a/b")[:2] == (404, "global/not-found")
    assert client.error("GET", "/")[:2] == (404, "global/not-found")
    assert requests.get(client.handle.base_url + "/", timeout=PATIENCE_SECONDS).status_code == 401


def test_the_hyphen_of_file_systems(client: Client) -> None:
    body = {"name": "weights", "region": REGION}
    for method, path, allowed in (
        ("POST", "/file-systems", "GET"),
        ("GET", "/filesystems", "POST"),
        ("GET", f"/filesystems/{ABSENT}", "DELETE"),
    ):
        answer = client.call(method, path, json=body)
        assert answer.status_code == 405, answer.text
        assert answer.headers["Allow"] == allowed
    assert client.error("DELETE", f"/file-systems/{ABSENT}")[0] == 404
    assert client.data("GET", "/file-systems") == []


def test_global_ruleset_cannot_be_deleted(client: Client) -> None:
    answer = client.call("DELETE", "/firewall-rulesets/global")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, PATCH")


# Keys


@pytest.mark.parametrize("form", ["bearer", "basic", "basic-raw", "lower-case"])
def test_accepted_authorizations(client: Client, form: str) -> None:
    key = client.handle.api_key
    value = {
        "bearer": f"Bearer {key}",
        "basic": "Basic " + base64.b64encode(f"{key}:".encode()).decode(),
        "basic-raw": f"Basic {key}",
        "lower-case": f"bearer {key}",
    }[form]
    answer = requests.get(
        client.handle.api_url + "/regions", headers={"Authorization": value}, timeout=PATIENCE_SECONDS
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Token KEY", "Basic !!!", "KEY", "Basic KEYx"])
def test_refused_authorizations(client: Client, value: str) -> None:
    header = {"Authorization": value.replace("KEY", client.handle.api_key)}
    answer = requests.get(client.handle.api_url + "/regions", headers=header, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "global/invalid-api-key"


# Launch rules


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"region_name": None}, "region_name: Field required"),
        ({"instance_type_name": None}, "instance_type_name: Field required"),
        ({"ssh_key_names": None}, "ssh_key_names: Field required"),
        ({"ssh_key_names": []}, "ssh_key_names"),
        ({"ssh_key_names": ["fleet", "fleet"]}, "ssh_key_names: List should have 1 item(s), not 2"),
        ({"ssh_key_names": "fleet"}, "ssh_key_names: Input should be a valid list"),
        ({"quantity": 2}, "quantity: Input should be less than or equal to 1"),
        ({"name": "n" * 65}, "name"),
        ({"name": 5}, "name: Input should be a valid string"),
        ({"hostname": ""}, "hostname"),
        ({"hostname": "UPPER"}, "hostname"),
        ({"hostname": "a_b"}, "hostname"),
        ({"hostname": "-a"}, "hostname"),
        ({"hostname": "h" * 64}, "hostname"),
        ({"hostname": "ok\n"}, "hostname"),
        ({"user_data": "u" * (1024 * 1024 + 1)}, "user_data"),
        ({"image": "lambda-stack-24-04"}, "image"),
        ({"image": {}}, "image"),
        ({"image": {"id": "a", "family": "b"}}, "image"),
        ({"tags": {"fleet": "a"}}, "tags"),
        ({"tags": [{"key": "a", "value": "one letter"}]}, "tags.0.key"),
        ({"tags": [{"key": "Upper", "value": ""}]}, "tags.0.key"),
        ({"tags": [{"key": "1st", "value": ""}]}, "tags.0.key"),
        ({"tags": [{"key": "under_score", "value": ""}]}, "tags.0.key"),
        ({"tags": [{"key": "k" * 56, "value": ""}]}, "tags.0.key"),
        ({"tags": [{"key": "lambda-ai-x", "value": ""}]}, "reserved"),
        ({"tags": [{"key": "fleet", "value": "v" * 129}]}, "tags.0.value"),
        ({"tags": [{"key": "fleet"}]}, "tags.0.value: Field required"),
        ({"file_system_names": "weights"}, "file_system_names"),
        ({"file_system_mounts": [{"mount_point": "/mnt", "file_system_id": "x"}]}, "mount_point"),
        ({"file_system_mounts": [{"mount_point": "/data/a_b", "file_system_id": "x"}]}, "mount_point"),
        ({"file_system_mounts": [{"mount_point": "/data" + "a" * 256, "file_system_id": "x"}]}, "mount_point"),
        ({"firewall_rulesets": ["x"]}, "firewall_rulesets.0"),
    ],
)
def test_launch_refuses(client: Client, change: dict[str, Any], named: str) -> None:
    client.add_key()
    body = {key: value for key, value in (client.launch_body() | change).items() if value is not None}
    status, code, message = client.error("POST", "/instance-operations/launch", body)
    assert (status, code) == (400, "global/invalid-parameters")
    assert named in message
    assert client.data("GET", "/instances") == []


def test_launch_accepts_the_limits(client: Client) -> None:
    client.add_key()
    client.add_file_system()
    instance = client.launch(
        name="n" * 64,
        hostname="0" + "h" * 62,
        user_data="u" * (1024 * 1024),
        quantity=1,
        image={"family": "gpu-base-24-04"},
        tags=[{"key": "k" * 55, "value": "v" * 128}, {"key": "a1-:", "value": ""}],
        file_system_names=["weights"],
    )
    view = client.get(instance)
    assert view["name"] == "n" * 64
    assert view["hostname"] == "0" + "h" * 62
    assert [tag["key"] for tag in view["tags"]] == ["k" * 55, "a1-:"]
    assert view["file_system_names"] == ["weights"]
    assert view["file_system_mounts"][0]["mount_point"] == "/lambda/nfs/weights"


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"region_name": "mars-1"}, 400, "mars-1"),
        ({"instance_type_name": "gpu_8x_h900"}, 400, "gpu_8x_h900"),
        ({"ssh_key_names": ["nobody"]}, 404, "nobody"),
        ({"file_system_names": ["nothing"]}, 404, "nothing"),
        ({"file_system_mounts": [{"mount_point": "/data", "file_system_id": ABSENT}]}, 404, ABSENT),
        ({"image": {"family": "windows"}}, 404, "windows"),
        ({"image": {"id": ABSENT}}, 404, ABSENT),
        ({"firewall_rulesets": [{"id": ABSENT}]}, 404, ABSENT),
    ],
)
def test_launch_names_what_does_not_exist(client: Client, change: dict[str, Any], status: int, named: str) -> None:
    client.add_key()
    found = client.error("POST", "/instance-operations/launch", client.launch_body(**change))
    assert found[:2] == (status, "global/object-does-not-exist")
    assert named in found[2]


def test_file_system_in_wrong_region(client: Client) -> None:
    client.add_key()
    elsewhere = client.add_file_system(region="us-west-1")
    expected = (400, "instance-operations/launch/file-system-in-wrong-region")
    path = "/instance-operations/launch"
    assert client.error("POST", path, client.launch_body(file_system_names=["weights"]))[:2] == expected
    mounts = [{"mount_point": "/data", "file_system_id": elsewhere}]
    assert client.error("POST", path, client.launch_body(file_system_mounts=mounts))[:2] == expected


def test_file_system_mounts_by_id_and_by_name(client: Client) -> None:
    client.add_key()
    weights, cache = client.add_file_system(), client.add_file_system("cache")
    mounts = [{"mount_point": "/data/w", "file_system_id": weights}]
    view = client.get(client.launch(file_system_names=["weights", "cache"], file_system_mounts=mounts))
    found = {item["file_system_id"]: item["mount_point"] for item in view["file_system_mounts"]}
    assert found == {weights: "/data/w", cache: "/lambda/nfs/cache"}
    clash = [{"mount_point": "/data", "file_system_id": identifier} for identifier in (weights, cache)]
    status, _, message = client.error(
        "POST", "/instance-operations/launch", client.launch_body(file_system_mounts=clash)
    )
    assert status == 400
    assert "mount_point" in message


def test_ruleset_of_another_region_is_refused_at_launch(client: Client) -> None:
    client.add_key()
    ruleset = client.data("POST", "/firewall-rulesets", {"name": "w", "region": "us-west-1", "rules": []})["id"]
    body = client.launch_body(firewall_rulesets=[{"id": ruleset}])
    status, code, message = client.error("POST", "/instance-operations/launch", body)
    assert (status, code) == (400, "global/invalid-parameters")
    assert REGION in message


def test_image_must_fit_the_architecture(client: Client) -> None:
    client.add_key()
    rows = client.data("GET", "/images")
    wanted = ("gpu-base-24-04", "x86_64", "us-east-3")
    intel = next(row["id"] for row in rows if (row["family"], row["architecture"], row["region"]["name"]) == wanted)
    grace = {"region_name": "us-east-3", "instance_type_name": "gpu_1x_gh200", "image": {"id": intel}}
    status, code, message = client.error("POST", "/instance-operations/launch", client.launch_body(**grace))
    assert (status, code) == (400, "global/invalid-parameters")
    assert "arm64" in message
    client.launch(**(grace | {"image": {"family": "gpu-base-24-04"}}))


def test_default_image_differs_by_region(client: Client) -> None:
    client.add_key()
    for region in ("us-east-1", "us-west-1"):
        client.launch(region_name=region)
    families = [spec.image_family for spec in client.handle.backend.launched]  # type: ignore[attr-defined]
    assert families == ["lambda-stack-22-04", "lambda-stack-24-04"]


# Quotas and money


def test_quota_exceeded(client: Client) -> None:
    client.add_key()
    client.add_file_system()
    client.launch()
    client.handle.settings(instance_quota=1, file_system_quota=1, ruleset_quota=0)
    expected = (400, "global/quota-exceeded")
    assert client.error("POST", "/instance-operations/launch", client.launch_body())[:2] == expected
    assert client.error("POST", "/filesystems", {"name": "b", "region": REGION})[:2] == expected
    ruleset = {"name": "b", "region": REGION, "rules": []}
    assert client.error("POST", "/firewall-rulesets", ruleset)[:2] == expected


def test_invalid_billing_address_stops_only_what_costs_money(client: Client) -> None:
    client.add_key()
    client.handle.settings(account="invalid-address")
    expected = (403, "global/invalid-address")
    assert client.error("POST", "/instance-operations/launch", client.launch_body())[:2] == expected
    assert client.error("POST", "/filesystems", {"name": "b", "region": REGION})[:2] == expected
    assert client.data("GET", "/instances") == []


# The catalogue


def test_prices_and_descriptions(client: Client) -> None:
    types = client.data("GET", "/instance-types")
    prices = {name: row["instance_type"]["price_cents_per_hour"] for name, row in types.items()}
    known = {
        "gpu_8x_b200_sxm6": 5352,
        "gpu_8x_h100_sxm5": 3192,
        "gpu_8x_a100_80gb_sxm4": 2232,
        "gpu_1x_h100_pcie": 329,
        "gpu_1x_h100_sxm5": 429,
        "gpu_1x_gh200": 229,
    }
    assert {name: prices[name] for name in known} == known
    b200 = types[TYPE]["instance_type"]
    assert (b200["gpu_description"], b200["description"]) == ("B200 (180 GB SXM6)", "8x B200 (180 GB SXM6)")
    accelerators = {row["instance_type"]["gpu_description"].split(" (")[0] for row in types.values()}
    assert not {"H200", "B300", "GB300"} & accelerators, "no such type is rented on demand"
    assert all(name == row["instance_type"]["name"] for name, row in types.items())


def test_added_types_are_labelled(client: Client) -> None:
    config = Config()
    entry = {
        "name": "gpu_8x_h200_sxm5",
        "gpu_description": "H200 (141 GB SXM5)",
        "price_cents_per_hour": 1,
        "gpus": 8,
        "vcpus": 208,
        "memory_gib": 2000,
        "storage_gib": 22528,
        "capacity": {REGION: None},
    }
    config.merge({"instance_types": [entry]})
    with running(config) as (_, handle):
        h200 = Client(handle)
        row = h200.data("GET", "/instance-types")["gpu_8x_h200_sxm5"]
        assert row["instance_type"]["gpu_description"] == "H200 (141 GB SXM5)"
        assert "rehearsal only" in row["instance_type"]["description"]
        h200.add_key()
        h200.launch(instance_type_name="gpu_8x_h200_sxm5")
        spec = handle.backend.launched[0].instance_type  # type: ignore[attr-defined]
        assert (spec.accelerator.name, spec.accelerator.count, spec.accelerator.memory_gb) == ("H200", 8, 141)


def test_images_cover_regions_and_architectures(client: Client) -> None:
    rows = client.data("GET", "/images")
    regions = {row["name"] for row in client.data("GET", "/regions")}
    for family in ("gpu-base-24-04", "lambda-stack-24-04", "lambda-stack-22-04"):
        for architecture in ("x86_64", "arm64"):
            found = [
                row["region"]["name"] for row in rows if (row["family"], row["architecture"]) == (family, architecture)
            ]
            assert set(found) == regions
            assert len(found) == len(regions)
    assert len({row["id"] for row in rows}) == len(rows)


# SSH keys


def test_a_generated_key_is_shown_once_and_opens_its_public_half(client: Client, tmp_path: Path) -> None:
    made = client.data("POST", "/ssh-keys", {"name": "made"})
    schemas.check(schemas.GENERATED_SSH_KEY, made)
    (listed,) = client.data("GET", "/ssh-keys")
    assert listed == {key: made[key] for key in ("id", "name", "public_key")}
    private = tmp_path / "key"
    private.touch(mode=0o600)
    private.write_text(made["private_key"])
    public = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == made["public_key"].split()[:2]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "n" * 65},
        {"name": "x", "public_key": ""},
        {"name": "x", "public_key": "ssh-ed25519"},
        {"name": "x", "public_key": "ssh-ed25519 !!!!"},
        {"name": "x", "public_key": "ssh-ed25519 AAAA"},
        {"name": "x", "public_key": PUBLIC_KEY.replace("ssh-ed25519 ", "ssh-rsa ")},
        {"name": "x", "public_key": f"{PUBLIC_KEY}\n{PUBLIC_KEY}"},
        {"name": "x", "public_key": f"{PUBLIC_KEY} {'c' * 4096}"},
    ],
)
def test_ssh_key_rules(client: Client, body: dict[str, str]) -> None:
    assert client.error("POST", "/ssh-keys", body)[:2] == (400, "global/invalid-parameters")
    assert client.data("GET", "/ssh-keys") == []


def test_ssh_key_names_are_unique_and_deletable(client: Client) -> None:
    identifier = client.add_key()
    status, code, message = client.error("POST", "/ssh-keys", {"name": "fleet", "public_key": PUBLIC_KEY})
    assert (status, code) == (400, "global/invalid-parameters")
    assert "fleet" in message
    assert client.data("DELETE", f"/ssh-keys/{identifier}") == {}
    client.add_key()


# File systems


@pytest.mark.parametrize("name", ["", "1st", "-a", "a_b", "a b", "n" * 61])
def test_file_system_names(client: Client, name: str) -> None:
    found = client.error("POST", "/filesystems", {"name": name, "region": REGION})
    assert found[:2] == (400, "global/invalid-parameters")


def test_file_system_duplicates_are_per_region(client: Client) -> None:
    client.add_file_system()
    found = client.error("POST", "/filesystems", {"name": "weights", "region": REGION})
    assert found[:2] == (400, "global/duplicate")
    client.add_file_system(region="us-west-1")
    assert client.error("POST", "/filesystems", {"name": "x", "region": "mars-1"})[:2] == (
        400,
        "global/object-does-not-exist",
    )


# Firewall


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "sctp"},
        {"port_range": None},
        {"port_range": [22]},
        {"port_range": [22, 23, 24]},
        {"port_range": [0, 22]},
        {"port_range": [22, 65536]},
        {"port_range": [23, 22]},
        {"port_range": ["22", "22"]},
        {"port_range": [True, 22]},
        {"source_network": "10.0.0.1/8"},
        {"source_network": "::/0"},
        {"source_network": "everywhere"},
        {"description": "d" * 129},
        {"protocol": "icmp"},
    ],
)
def test_firewall_rules_are_checked(client: Client, change: dict[str, Any]) -> None:
    rule = {**RULE, **change}
    for method, path, body in (
        ("PUT", "/firewall-rules", {"data": [PING, rule]}),
        ("POST", "/firewall-rulesets", {"name": "n", "region": REGION, "rules": [PING, rule]}),
        ("PATCH", "/firewall-rulesets/global", {"rules": [PING, rule]}),
    ):
        status, code, message = client.error(method, path, body)
        assert (status, code) == (400, "global/invalid-parameters")
        assert ".1" in message, "the message says which rule is wrong"


def test_put_replaces_all_rules_and_is_the_global_ruleset(client: Client) -> None:
    before = client.data("GET", "/firewall-rules")
    shown = {(rule["protocol"], tuple(rule.get("port_range", ()))) for rule in before}
    assert shown == {("tcp", (22, 22)), ("icmp", ())}
    bare = {**RULE, "source_network": "10.0.0.1"}
    client.data("PUT", "/firewall-rules", {"data": [bare]})
    assert client.data("GET", "/firewall-rules") == [bare]
    assert client.data("GET", "/firewall-rulesets/global")["rules"] == [bare]
    client.data("PATCH", "/firewall-rulesets/global", {"rules": [PING]})
    assert client.data("GET", "/firewall-rules") == [PING]


def test_ruleset_in_use(client: Client) -> None:
    world = World(client)
    assert client.data("GET", f"/firewall-rulesets/{world.ruleset}")["instance_ids"] == [world.instance]
    found = client.error("DELETE", f"/firewall-rulesets/{world.ruleset}")
    assert found[:2] == (400, "firewall-rulesets/firewall-ruleset-in-use")
    client.terminate(world.instance)
    for _ in range(4):
        client.data("GET", "/instances")
    assert client.data("DELETE", f"/firewall-rulesets/{world.ruleset}") == {}


# Fabric


@pytest.mark.parametrize("name", ["", "-a", "Upper", "a_b", "n" * 33])
def test_fabric_names(client: Client, name: str) -> None:
    assert client.error("POST", "/fabric", {"name": name, "region": REGION})[:2] == (400, "global/invalid-parameters")


def test_fabric_has_no_listing(client: Client) -> None:
    made = client.data("POST", "/fabric", {"name": "a", "region": REGION})
    assert client.call("GET", "/fabric").status_code == 405
    assert client.call("GET", f"/fabric/{made['id']}").status_code == 405
    assert client.data("POST", f"/fabric/{made['id']}", {"name": "b"})["name"] == "b"
    assert client.data("DELETE", f"/fabric/{made['id']}") == {}
    assert client.error("DELETE", f"/fabric/{made['id']}")[0] == 404


# Paging


def test_audit_events_page_and_filter(client: Client) -> None:
    client.handle.settings(page_size=2)
    for number in range(5):
        client.add_key(f"key-{number}")
    client.add_file_system()
    events: list[Any] = []
    token: str | None = None
    sizes = []
    while True:
        answer = client.call("GET", "/audit-events", params={"page_token": token} if token else {}).json()
        sizes.append(len(answer["data"]))
        events += answer["data"]
        token = answer["page_token"]
        if token is None:
            break
    assert sizes == [2, 2, 2]
    assert [event["resource_name"] for event in events] == ["ssh_key"] * 5 + ["filesystem"]
    assert len({event["event_id"] for event in events}) == 6

    client.handle.settings(page_size=50)

    def found(**params: str) -> list[Any]:
        return list(client.call("GET", "/audit-events", params=params).json()["data"])

    assert found(resource_type="cloud.filesystem") == events[5:]
    assert found(start=events[2]["event_time"]) == events[2:]
    assert found(end=events[2]["event_time"]) == events[:3]


@pytest.mark.parametrize("query", ["page_token=x", "page_token=page-99", "start=yesterday", "end=1"])
def test_audit_query_rules(client: Client, query: str) -> None:
    client.add_key()
    found = client.error("GET", f"/audit-events?{query}")
    assert found[:2] == (400, "global/invalid-parameters")
    assert query.split("=")[0] in found[2]


def test_tickets_page_filter_and_sort(client: Client) -> None:
    client.handle.settings(page_size=2)
    for number, severity in enumerate(("sev_1", "sev_2", "sev_3")):
        body = {"subject": f"s{number}", "description": "d", "type": "incident", "severity": severity}
        client.data("POST", "/tickets", body)
    first = client.data("GET", "/tickets")
    second = client.data("GET", f"/tickets?page_token={first['page_token']}")
    assert [row["subject"] for row in first["tickets"] + second["tickets"]] == ["s2", "s1", "s0"]
    assert second["page_token"] is None
    chosen = client.data("GET", "/tickets?severity=sev_1&severity=sev_3&direction=asc&order_by=updated_at")
    assert [row["subject"] for row in chosen["tickets"]] == ["s0", "s2"]
    assert client.data("GET", "/tickets?status=solved")["tickets"] == []
    for query in ("status=lost", "type=joke", "severity=sev_9", "order_by=name", "direction=up", "page_token=x"):
        assert client.error("GET", f"/tickets?{query}")[:2] == (400, "global/invalid-parameters")


def test_a_ticket_can_be_commented_solved_and_hold_a_file(client: Client) -> None:
    world = World(client)
    path = f"/tickets/{world.ticket}"
    change = {"comment": {"body": "still slow"}, "status": "solved"}
    assert client.call("PATCH", path, json=change).status_code == 202
    ticket = client.data("GET", path)
    assert (ticket["status"], ticket["comments"][0]["body"]) == ("solved", "still slow")
    assert ticket["resolved_at"] == ticket["updated_at"]

    attachment = f"{path}/attachments/{world.attachment}"
    assert client.error("GET", f"{attachment}/download")[0] == 404
    client.data("POST", f"{attachment}/complete")
    address = client.data("GET", f"{attachment}/download")["download_url"]
    assert requests.get(address, timeout=PATIENCE_SECONDS).content == b"log"
    assert len(client.data("GET", f"{path}/attachments?status=uploaded")["attachments"]) == 1
    client.data("DELETE", attachment)
    assert requests.get(address, timeout=PATIENCE_SECONDS).status_code == 404
    body = {"filename": "a", "content_type": "b", "size_bytes": 5}
    started = client.data("POST", f"{path}/attachments", body)["attachment_id"]
    assert client.error("POST", f"{path}/attachments/{started}/complete")[0] == 400
    body["size_bytes"] = 0
    assert client.error("POST", f"{path}/attachments", body)[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        {"subject": "s", "description": "d", "type": "incident"},
        {"subject": "s", "description": "d", "type": "automated_event"},
        {"subject": "", "description": "d", "type": "service_request"},
        {"description": "d", "type": "service_request"},
        {"subject": "s", "description": "d", "type": "incident", "severity": "sev_0"},
    ],
)
def test_ticket_rules(client: Client, body: dict[str, str]) -> None:
    assert client.error("POST", "/tickets", body)[:2] == (400, "global/invalid-parameters")


# Renaming, clusters, optional keys


def test_rename(client: Client) -> None:
    world = World(client)
    path = f"/instances/{world.instance}"
    assert client.data("POST", path, {"name": "new"})["name"] == "new"
    assert client.data("POST", path, {"name": ""})["name"] == ""
    assert client.error("POST", path, {"name": "n" * 65})[:2] == (400, "global/invalid-parameters")
    assert client.get(world.instance)["name"] == ""


def test_cluster_members(client: Client) -> None:
    (member,) = client.handle.seed(cluster_id="c1")
    (other,) = client.handle.seed()
    assert [row["id"] for row in client.data("GET", "/instances?cluster_id=c1")] == [member]
    assert {row["id"] for row in client.data("GET", "/instances")} == {member, other}
    client.handle.settings(cluster_members_in_plain_list=False)
    assert [row["id"] for row in client.data("GET", "/instances")] == [other]
    assert client.error("GET", "/instances?cluster_id=c2")[:2] == (403, "global/forbidden")


def test_optional_keys_are_absent_or_null(client: Client) -> None:
    client.add_key()
    instance = client.launch()
    optional = {"name", "ip", "private_ip", "hostname", "jupyter_token", "jupyter_url", "tags", "file_system_mounts"}
    assert not optional & set(client.get(instance))
    client.handle.settings(null_optionals=True)
    other = client.get(client.launch())
    assert all(other[key] is None for key in optional)


def test_names_and_tags_may_be_forgotten(client: Client) -> None:
    client.add_key()
    client.handle.settings(drop_tags=True, drop_names=True)
    view = client.get(client.launch(name="one", tags=[{"key": "fleet", "value": "a"}]))
    assert "name" not in view
    assert "tags" not in view


def test_jupyter_credentials_come_with_the_listing(client: Client) -> None:
    world = World(client)
    view = next(row for row in client.data("GET", "/instances") if row["id"] == world.instance)
    assert len(view["jupyter_token"]) == 32
    assert view["jupyter_token"] in view["jupyter_url"]


def test_every_error_code_can_be_produced(client: Client) -> None:
    for code, status in STATUS_OF.items():
        client.handle.fault("error", code=code)
        assert client.error("GET", "/regions")[:2] == (status, code)
    client.handle.fault("error", code="global/internal-error", status=409)
    assert client.error("PATCH", "/firewall-rulesets/global", {"rules": []})[:2] == (409, "global/internal-error")
