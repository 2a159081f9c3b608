"""The GMI Cloud client against the simulator over HTTP: shapes of lists, scopes, organisations, repeats, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import holdings
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Access
from simulator.gmi_cloud.server import ENVELOPES, Answer, Handle, running
from simulator.gmi_cloud.world import INFERENCE_SCOPE

KEY = "eyJh.cluster.key"


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running() as handle:
        handle.world.add_key(KEY)
        yield handle


def client(cloud: Handle, folder: Path, key: str = KEY, **options: Any) -> gmi_api.GmiApi:
    pacer = _cloud_api.Pacer(key, request_interval=0, directory=folder)
    return gmi_api.GmiApi(key, cloud.base_url, pacer=pacer, sleep=lambda _seconds: None, **options)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_lists_are_found_whatever_their_envelope(cloud: Handle, tmp_path: Path, envelope: str) -> None:
    cloud.settings.envelope = envelope
    made = cloud.world.add_container("serve-1")
    node = cloud.world.add_baremetal("metal-1")
    cloud.world.add_elastic_ip("203.0.113.8", made)
    api = client(cloud, tmp_path)
    assert [item["id"] for item in api.list_containers()] == [made["id"]]
    assert [item["id"] for item in api.list_baremetals()] == [node["id"]]
    assert api.list_elastic_ips()[0]["instanceID"] == made["id"]
    assert {item["country"] for item in api.list_idcs()} == {"US", "TH"}
    assert {item["name"] for item in api.list_products("containers", "us-denver-1")} == {
        "container.h200.x1",
        "container.h200.x8",
    }


def test_an_inference_key_is_told_about_scopes(cloud: Handle, tmp_path: Path) -> None:
    cloud.world.add_key("eyJh.inference", INFERENCE_SCOPE)
    with pytest.raises(_cloud_api.AuthError, match=r"HTTP 401.*unauthorized.*Cluster Engine scope \(ce_resource\)"):
        client(cloud, tmp_path, key="eyJh.inference").list_containers()
    assert len(cloud.settings.requests) == 1, "a refused key is not tried again"


def test_the_organisation_is_named_in_a_header(cloud: Handle, tmp_path: Path) -> None:
    cloud.world.add_container("mine")
    assert client(cloud, tmp_path, organization="org-1").list_containers()
    assert cloud.settings.requests[-1][2]["x-organization-id"] == "org-1"
    accounts = {client(cloud, tmp_path, organization=name).account for name in (None, "org-1", "org-2")}
    assert len(accounts) == 3, "the list of one organisation closes nothing in the ledger of another"
    with pytest.raises(_cloud_api.AuthError, match=r"not a member of organization org-9.*set organization"):
        client(cloud, tmp_path, organization="org-9").list_containers()


def test_what_the_account_has_not_is_its_own_error(cloud: Handle, tmp_path: Path) -> None:
    cloud.world.enabled.discard("baremetals")
    with pytest.raises(gmi_api.NotServed, match="not enabled"):
        client(cloud, tmp_path).list_baremetals()


@pytest.mark.parametrize(
    ("enabled", "unread"),
    [
        ({"containers"}, []),
        ({"baremetals"}, []),
        ({"elastic-ips"}, ["containers and bare-metal nodes"]),
        (set(), ["containers and bare-metal nodes"]),
    ],
)
def test_an_account_without_any_kind_of_machine_was_not_read(
    cloud: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enabled: set[str], unread: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cloud.world.enabled = enabled
    seen = holdings.read(Access(KEY, cloud.base_url))
    assert list(seen.unread) == unread and seen.held == []
    assert all("404" in why and "correct the API's address" in why for why in seen.unread.values())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "no such idc"}, "no such idc"),
        ({"error": "bad product"}, "bad product"),
        ({"reason": "maintenance"}, "maintenance"),
        ({"error": {"group": "container", "code": 7, "message": "nested"}}, "container/7: nested"),
        ({"group": "container", "code": "E12"}, "container/E12"),
        ("plain text", "plain text"),
    ],
)
def test_every_known_form_of_an_error_is_shown(cloud: Handle, tmp_path: Path, body: Any, words: str) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    cloud.settings.faults = [Answer(400, None, raw=raw)]
    with pytest.raises(_cloud_api.ApiError, match=f"HTTP 400.*{words}"):
        client(cloud, tmp_path).list_containers()


def test_failures_of_the_moment_are_repeated(cloud: Handle, tmp_path: Path) -> None:
    cloud.world.add_container("serve-1")
    cloud.settings.faults = [
        Answer(503, {"message": "busy"}),
        Answer(429, {"message": "slow down"}, {"Retry-After": "2"}),
        Answer(200, [{"id": "x" * 40}] * 20, cut=True),
    ]
    assert [item["name"] for item in client(cloud, tmp_path).list_containers()] == ["serve-1"]
    assert len(cloud.settings.requests) == 4


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"ok": True}, "expected a list"),
        ([{"id": "a"}, {"name": "no id"}], "entry 1 of 2 has no usable id"),
        ([{"id": "a"}, "b"], "entry 1 of 2 has no usable fields"),
        ({"total": 12, "containers": [{"id": "a"}]}, "1 of 12 entries came back"),
        ("a page", "not the API's JSON"),
    ],
)
def test_a_list_that_is_not_whole_is_refused(cloud: Handle, tmp_path: Path, body: Any, words: str) -> None:
    cloud.settings.faults = [Answer(200, body)]
    with pytest.raises(_cloud_api.BadAnswer, match=words):
        client(cloud, tmp_path, retries=0).list_containers()


def test_the_key_is_not_carried_to_another_host(cloud: Handle, tmp_path: Path) -> None:
    cloud.settings.faults = [Answer(301, {}, {"Location": "http://127.0.0.1:9/api/v1/containers"})]
    with pytest.raises(_cloud_api.FinalAnswer, match="redirected"):
        client(cloud, tmp_path).list_containers()


def pages_of(cloud: Handle, *pages: Any) -> None:
    cloud.settings.faults = [Answer(200, page) for page in pages]


def test_links_to_further_pages_are_followed(cloud: Handle, tmp_path: Path) -> None:
    said: list[str] = []
    pages_of(
        cloud,
        {"containers": [{"id": "a"}], "total": 3, "next": "/api/v1/containers?page=2", "warnings": ["slow"]},
        {"containers": [{"id": "b"}], "total": 3, "links": {"next": f"{cloud.base_url}/api/v1/containers?page=3"}},
        {"containers": [{"id": "c"}], "total": 3, "next": None},
    )
    found = client(cloud, tmp_path, retries=0, say=said.append).list_containers()
    assert [item["id"] for item in found] == ["a", "b", "c"]
    assert [target for _method, target, _headers in cloud.settings.requests] == [
        "/api/v1/containers", "/api/v1/containers?page=2", "/api/v1/containers?page=3",
    ]  # fmt: skip
    assert said == [f"GET {cloud.base_url}/api/v1/containers: warnings: ['slow']"]


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/api/v1/containers?page=2",
        "/api/v1/elastic-ips?page=2",
        "//evil.example/x?page=2",
        "/?page=2",
    ],
)
def test_a_link_to_elsewhere_is_not_followed(cloud: Handle, tmp_path: Path, link: str) -> None:
    pages_of(cloud, {"containers": [{"id": "a"}], "next": link})
    with pytest.raises(_cloud_api.BadAnswer, match="may be a part of the list"):
        client(cloud, tmp_path, retries=0).list_containers()
    assert len(cloud.settings.requests) == 1


def test_pages_that_do_not_add_up_are_refused(cloud: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = {"containers": [{"id": "a"}], "next": "?page=2"}
    pages_of(cloud, again, {"containers": [{"id": "a"}]})
    with pytest.raises(_cloud_api.BadAnswer, match="an id came twice"):
        client(cloud, tmp_path, retries=0).list_containers()
    pages_of(cloud, again, {"containers": [{"id": "b"}], "total": 3})
    with pytest.raises(_cloud_api.BadAnswer, match="2 of 3 entries came back"):
        client(cloud, tmp_path, retries=0).list_containers()
    monkeypatch.setattr(gmi_api, "MOST_PAGES", 3)
    pages_of(cloud, *[{"containers": [{"id": str(number)}], "next": "?page=2"} for number in range(9)])
    with pytest.raises(_cloud_api.BadAnswer, match="more than 3 pages"):
        client(cloud, tmp_path, retries=0).list_containers()
