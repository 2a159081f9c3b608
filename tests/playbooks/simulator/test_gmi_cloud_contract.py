"""The GMI Cloud simulator keeps what is published of the API: each route, and what it refuses of a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from simulator.gmi_cloud.server import Handle, running

KEY = "eyJh.cluster.key"
PLACE = {"idc": "us-denver-1", "count": 1, "name": "one"}
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running() as handle:
        handle.world.add_key(KEY)
        yield handle


@pytest.fixture
def ask(cloud: Handle) -> Ask:
    """Status and body of an answer; text where it is no JSON."""

    def call(line: str, body: Any = None, accept: str = "application/json") -> tuple[int, Any]:
        method, _blank, path = line.partition(" ")
        headers = {"Authorization": f"Bearer {KEY}", "Accept": accept}
        answer = requests.request(method, f"{cloud.base_url}/api/v1{path}", json=body, headers=headers, timeout=30)
        json = answer.headers["Content-Type"] == "application/json"
        return answer.status_code, answer.json() if json else answer.text

    return call


def test_the_life_of_a_container_and_its_elastic_ip(cloud: Handle, ask: Ask) -> None:
    _status, template = ask("POST /templates", {"name": "one", "path": "x/y:1"})
    request = {**PLACE, "product": "container.h200.x8", "templateId": template["id"]}
    status, [made] = ask("POST /containers", request)
    assert status == 200 and ask("POST /containers", {**request, "labels": {}})[0] == 400, "no such field"
    [address] = ask("POST /elastic-ips", {**PLACE, "product": "eip.bgp"})[1]
    bind = (f"POST /elastic-ips/{address['id']}/associate", {"instanceID": made["id"], "instanceType": "container"})
    assert ask(*bind)[0] == 400, "it does not run yet"
    assert [ask("GET /containers")[1][0]["status"] for _look in range(3)][-1] == "running"
    assert ask(*bind)[0] == 200 and ask(f"DELETE /elastic-ips/{address['id']}")[0] == 400, "it is bound"
    assert ask(f"GET /containers/{made['id']}/logs", accept="text/plain")[0] == 410
    cloud.world.logs[made["id"]] = "hello\n"
    assert ask(f"GET /containers/{made['id']}/logs", accept="text/plain") == (200, "hello\n")
    assert ask(f"GET /containers/{made['id']}/logs")[0] == 406, "it is no JSON"
    assert ask("GET /containers/c-9/logs", accept="text/plain")[0] == 404
    assert [ask(f"DELETE /containers/{made['id']}")[0] for _time in range(2)] == [200, 400]
    assert [ask("GET /containers")[1] for _look in range(3)][-1] == []
    assert ask(f"DELETE /elastic-ips/{address['id']}")[0] == 200 and ask("GET /elastic-ips") == (200, [])


def test_the_life_of_a_node(cloud: Handle, ask: Ask) -> None:
    identifier = cloud.world.add_baremetal("metal-1")["id"]
    action = f"POST /baremetals/{identifier}/action"
    refused = [None, {}, {"action": "melt"}, {"action": 1}, {"action": "start"}, {"action": "stop", "force": True}]
    assert [ask(action, body)[0] for body in refused] == [400] * len(refused)
    assert ask(action, {"action": "stop"})[0] == 200 and ask(action, {"action": "stop"})[0] == 400
    assert [ask("GET /baremetals")[1][0]["status"] for _look in range(3)] == ["stopping", "stopped", "stopped"]
    assert ask(action, {"action": "start"})[0] == 200
    assert [ask("GET /baremetals")[1][0]["status"] for _look in range(3)] == ["starting", "active", "active"]
    assert ask("POST /baremetals/b-9/action", {"action": "stop"})[0] == ask("DELETE /baremetals/b-9")[0] == 404
    cloud.world.prepaid[identifier] = "2027-06-01"
    assert ask(f"DELETE /baremetals/{identifier}") == (400, {"message": "prepaid until 2027-06-01"})
    cloud.world.prepaid.clear()
    assert [ask(f"DELETE /baremetals/{identifier}")[0] for _time in range(2)] == [200, 409]
    assert [ask("GET /baremetals")[1] for _look in range(3)][-1] == []
    assert ask(f"GET /baremetals/{identifier}")[0] == ask(f"DELETE /baremetals/{identifier}")[0] == 404


@pytest.mark.parametrize("kind", ["containers", "baremetals", "elastic-ips"])
def test_products_are_those_of_the_kind_and_the_data_centre(cloud: Handle, ask: Ask, kind: str) -> None:
    cloud.world.products[kind] = [{"name": "a", "idc": "us-denver-1"}, {"name": "b", "idc": "sim-thailand-1"}]
    assert [row["name"] for row in ask(f"GET /{kind}/products")[1]] == ["a", "b"]
    assert [row["name"] for row in ask(f"GET /{kind}/products?idc=us-denver-1")[1]] == ["a"]
    cloud.world.enabled.discard(kind)
    assert ask(f"GET /{kind}/products")[0] == 404
