"""By which addresses the hosts of one replica talk to each other: what they say there takes no key."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import PlanError

FLEET = ["a", "b", "c", "d"]


def node_of(host: str, variables: dict[str, dict[str, Any]], nodes: int = 2) -> dict[str, Any]:
    return request.node_of(host, {"fleet_hosts": FLEET, "nodes": nodes}, {"hostvars": variables})


def at(*addresses: str, variable: str = "glm_private_address") -> dict[str, dict[str, Any]]:
    return {host: {variable: where} for host, where in zip(FLEET, addresses)}


@pytest.mark.parametrize(
    ("first", "second"),
    [("10.0.0.5", "10.0.0.6"), ("100.64.0.1", "100.64.0.2"), ("FD00::5", "fd00:0::6")],
)
def test_hosts_in_a_private_network_form_a_replica(first: str, second: str) -> None:
    node = node_of("b", at(first, second))
    expected = [first.lower(), second.replace(":0::", "::")]
    assert node == {"node_rank": 1, "head_address": expected[0], "node_addresses": expected}


def test_the_clouds_private_address_is_taken_where_the_user_names_none() -> None:
    variables = {
        host: {"glm_host_private_address": f"10.0.0.{n}", "ansible_host": "8.8.8.8"} for n, host in enumerate(FLEET, 1)
    }
    variables["d"]["glm_private_address"] = "10.9.0.4"
    assert node_of("c", variables)["node_addresses"] == ["10.0.0.3", "10.9.0.4"]


@pytest.mark.parametrize("variable", ["glm_private_address", "glm_host_private_address", "ansible_host"])
@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("203.0.113.6", "in no private range"),
        ("8.8.8.8", "in no private range"),
        ("2001:4860:4860::8888", "in no private range"),
        ("::ffff:10.0.0.6", "an IPv4 address in IPv6 notation"),
        ("169.254.1.6", "link-local"),
        ("fe80::6%eth0", "an address with a zone"),
        ("127.0.0.1", "loopback"),
        ("0.0.0.0", "every address of the host"),
        ("gpu-2.example.net", "not an IP address"),
    ],
)
def test_a_network_that_others_are_in_is_refused_with_the_ways_out(variable: str, where: str, why: str) -> None:
    # Each rank of the replica says so, not only the one whose address it is.
    for host in ("a", "b"):
        with pytest.raises(PlanError, match=f"b would do so at {where}, which is {why}") as refused:
            node_of(host, at("10.0.0.5", where, variable=variable))
        assert all(word in refused.value.next_step for word in ("glm_private_address", "WireGuard", "glm_nodes 1"))
    # The other replica of the fleet is not concerned.
    assert node_of("c", at("10.0.0.5", where, "10.0.0.7", "10.0.0.8", variable=variable))["node_rank"] == 0


def test_a_host_without_any_address_is_refused_by_its_name() -> None:
    with pytest.raises(PlanError, match="b would do so at b, which is not an IP address"):
        node_of("a", at("10.0.0.5"))


def test_an_address_cannot_be_that_of_two_hosts() -> None:
    with pytest.raises(PlanError, match=r"the same address: a 10\.0\.0\.5, b 10\.0\.0\.5"):
        node_of("a", at("10.0.0.5", "10.0.0.5"))
    with pytest.raises(PlanError, match="the same address: a fd00::5, b fd00::5"):
        node_of("a", at("fd00::5", "FD00:0::5"))


def test_two_kinds_of_addresses_are_refused() -> None:
    with pytest.raises(PlanError, match=r"by IPv4 and by IPv6: a 10\.0\.0\.5, b fd00::6"):
        node_of("a", at("10.0.0.5", "fd00::6"))


def test_hosts_that_serve_alone_need_no_such_address() -> None:
    assert node_of("a", {}, nodes=1) == {}
    assert request.node_of("elsewhere", {"fleet_hosts": FLEET, "nodes": 2}, {}) == {}
