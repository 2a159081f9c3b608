"""A gateway as data: its address, and the doors of a fleet behind it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.serving import gateway
from ansible_collections.glm.fleet.plugins.plugin_utils.serving.quoting import UnitError
from tests.unit.serve.plans import listening, nodes, plan, replicas

HERE = {
    "bind": "private", "private_address": "10.0.0.1", "public_address": "", "port": 8443, "tls": "auto",
    "tls_names": [], "authorities": "PEM", "monitor_address": "127.0.0.1", "monitor_port": 9801,
    "requests": 256, "queue": 1000, "host": "g", "names": [], "acme_directory": "https://ca.example.com/dir",
    "acme_email": "", "acme_agree": True, "peers": [],
}  # fmt: skip


def host(name: str, *plans: dict[str, Any], address: str = "") -> dict[str, Any]:
    return {"host": name, "plans": plans, "address": address}


def encrypted(*names: str) -> dict[str, Any]:
    return {"origin": "fleet", "names": list(names), "acme": None}


def made(*fleet: dict[str, Any], **here: Any) -> dict[str, Any]:
    return gateway.gateway(fleet, {**HERE, **here})


def test_every_replica_of_every_host_is_behind_it() -> None:
    found = made(
        host("glm 1", *replicas(2, listen=listening("10.0.0.5", 8000, 18000), tls=encrypted("10.0.0.5"))),
        host("glm-2", plan(listen=listening("10.0.0.6", 8000, 18000), tls=encrypted("two.example.com", "10.0.0.6"))),
    )
    assert [(one["name"], one["address"], one["host_name"], one["tls"]) for one in found["replicas"]] == [
        ("glm_1-0", "10.0.0.5:8000", "", True),
        ("glm_1-1", "10.0.0.5:8001", "", True),
        ("glm-2-0", "10.0.0.6:8000", "two.example.com", True),
    ]
    assert (found["bind"], found["tls"]) == ("10.0.0.1:8443", {"origin": "fleet", "names": ["10.0.0.1"]})
    assert found["files"]["authorities"] == "/etc/glm/gateway/authorities.pem"
    assert found["url"] == "https://10.0.0.1:8443/v1"
    assert made(tls="none", port=80)["url"] == "http://10.0.0.1:80/v1"


def test_of_a_replica_over_several_hosts_the_first_answers() -> None:
    one = plan(listen=listening("10.0.0.5", 8000, 18000), tls=None)
    found = made(host("a", nodes(one, 0)), host("b", nodes(one, 1)))
    assert [replica["name"] for replica in found["replicas"]] == ["a-0"]


def test_a_door_on_every_address_is_reached_by_that_of_its_host() -> None:
    everywhere = plan(listen=listening("0.0.0.0", 8000, 18000), tls=encrypted("203.0.113.5"))
    assert made(host("a", everywhere, address="10.0.0.5"))["replicas"][0]["address"] == "10.0.0.5:8000"
    with pytest.raises(UnitError, match="an address of a by which a gateway reaches its door, found none"):
        made(host("a", everywhere))


def test_a_door_on_loopback_is_nobodys_to_reach() -> None:
    with pytest.raises(UnitError, match=r"an address of a by which a gateway reaches its door, found 127\.0\.0\.1"):
        made(host("a", plan(listen=listening("127.0.0.1", 8000, 18000), tls=None)))
    with pytest.raises(UnitError, match="clients to reach the gateway, found glm_bind loopback"):
        made(bind="loopback")


def test_a_public_gateway_is_encrypted() -> None:
    with pytest.raises(UnitError, match="unencrypted"):
        made(bind="public", tls="none")
    assert made(bind="public", public_address="203.0.113.1")["bind"] == "0.0.0.0:8443"


def test_clients_call_gateways_by_their_own_names_first() -> None:
    found = made(names=["glm.example.com"], tls_names=["one.example.com"])
    assert found["tls"]["names"] == ["glm.example.com", "one.example.com", "10.0.0.1"]
    assert found["url"] == "https://glm.example.com:8443/v1"


ACME = {"directory": "https://ca.example.com/dir", "email": "", "address": "10.0.0.1"}


def test_a_certificate_is_ordered_for_the_gateways_names_and_those_of_its_host() -> None:
    found = made(tls="acme", names=["GLM.example.com"], tls_names=["one.example.com"], authorities="")
    names = ["glm.example.com", "one.example.com"]
    assert found["tls"] == {"origin": "acme", "names": names}
    assert found["files"]["authorities"] == "/etc/ssl/certs/ca-certificates.crt"
    order = found["acme"]["order"]
    assert order == {
        **ACME, "names": names, "answers": "127.0.0.1:981", "folder": "/var/lib/glm/certificate",
        "place": found["place"], "unit": "glm-gateway.service", "socket": "/run/glm-gateway/master.sock",
    }  # fmt: skip
    assert made()["acme"] is None and made()["asked"] == ["glm-gateway.service"]


def test_an_authority_asks_the_door_of_the_host_and_the_gateway_where_there_is_none() -> None:
    one = plan(listen=listening("10.0.0.1", 8000, 18000), tls={"origin": "acme", "names": ["one"], "acme": ACME})
    given: dict[str, Any] = {"tls": "acme", "names": ["glm.example.com"], "peers": ["10.0.0.2:80"]}
    port = {"address": "10.0.0.1", "port": 80, "variable": "glm_tls"}
    behind = made(host("g", one), **given)
    assert behind["acme"]["listen"] == "" and not behind["low_port"] and port not in behind["listen"]
    assert behind["asked"] == ["glm-gateway.service", "glm-door.service"]
    # A further host of a replica has no door.
    for fleet in ([], [host("other", one)], [host("other", nodes(one, 0)), host("g", nodes(one, 1))]):
        alone = made(*fleet, **given)
        assert alone["acme"]["listen"] == "10.0.0.1:80" and alone["low_port"] and port in alone["listen"]
        assert alone["asked"] == ["glm-gateway.service"] and alone["acme"]["peers"] == ["10.0.0.2:80"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": []}, "no name that a certificate could be ordered for"),
        ({"names": ["10.0.0.1"]}, "'10.0.0.1' is an address"),
        ({"acme_agree": False}, "nobody has agreed to the terms"),
        ({"acme_directory": "https://acme-v02.api.letsencrypt.org/directory"}, "cannot ask a host at 10.0.0.1"),
        ({"port": 80}, "an authority asks at port 80"),
        ({"monitor_port": 981}, "certbot answers at 981"),
    ],
)
def test_an_order_that_nobody_could_fill_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnitError, match=words):
        made(**{"tls": "acme", "names": ["glm.example.com"], **changes})


def test_gateways_with_one_name_ask_each_other_for_the_authority() -> None:
    hostvars: dict[str, dict[str, Any]] = {
        "a": {"glm_host_private_address": "10.0.0.5"}, "b": {"glm_host_public_address": "2001:db8::1"}, "c": {},
    }  # fmt: skip
    assert gateway.gateway_peers(["a", "b", "c"], "a", hostvars) == ["[2001:db8::1]:80"]
    assert gateway.gateway_peers(["a", "b"], "b", hostvars) == ["10.0.0.5:80"]
    assert gateway.gateway_peers(["a", "b"], "c", hostvars) == gateway.gateway_peers(["a"], "a", hostvars) == []


@pytest.mark.parametrize(("port", "monitor_port"), [(8000, 9801), (18000, 9801), (8443, 8000)])
def test_a_port_of_a_door_on_the_same_host_is_refused(port: int, monitor_port: int) -> None:
    door = host("a", plan(listen=listening("10.0.0.1", 8000, 18000), tls=None))
    with pytest.raises(UnitError, match="a port of its own for the gateway"):
        made(door, port=port, monitor_port=monitor_port)


@pytest.mark.parametrize("requests", [0, -1, 451])
def test_a_replica_gets_as_many_requests_as_its_door_lets_an_address_have(requests: int) -> None:
    with pytest.raises(UnitError, match="from 1 to 450"):
        made(requests=requests)


def test_replicas_of_a_host_share_the_connections_that_its_door_lets_an_address_have() -> None:
    four = replicas(4, listen=listening("10.0.0.5", 8000, 18000), tls=None)
    assert [one["requests"] for one in made(host("a", *four))["replicas"]] == [112] * 4
    assert [one["requests"] for one in made(host("a", *four), requests=50)["replicas"]] == [50] * 4


@pytest.mark.parametrize(
    ("hosts", "requests", "few"), [(1, 256, 3), (3, 256, 9), (8, 256, 24), (40, 256, 64), (8, 5, 2), (3, 1, 0)]
)
def test_requests_are_few_below_three_for_each_replica_and_never_more_than_half_of_what_one_may_have(
    hosts: int, requests: int, few: int
) -> None:
    doors = [plan(listen=listening(f"10.0.0.{number}", 8000, 18000), tls=None) for number in range(2, hosts + 2)]
    assert made(*(host(f"h{number}", door) for number, door in enumerate(doors)), requests=requests)["few"] == few


def test_other_authorities_are_another_configuration() -> None:
    assert made()["authorities_sha256"] != made(authorities="other PEM")["authorities_sha256"]


def test_the_monitoring_is_not_published() -> None:
    with pytest.raises(UnitError, match="loopback or a private address"):
        made(monitor_address="0.0.0.0")


def test_hosts_without_a_plan_are_left_out() -> None:
    hostvars = {
        "a": {"ansible_facts": {"glm_plans": [plan()]}, "glm_host_private_address": "10.0.0.5"},
        "b": {"ansible_facts": {}},
        "c": {},
        "d": {"ansible_facts": {"glm_plans": [plan()]}, "glm_host_public_address": "203.0.113.5"},
    }
    found = gateway.gateway_doors(list(hostvars), hostvars)
    assert [(one["host"], one["address"]) for one in found] == [("a", "10.0.0.5"), ("d", "203.0.113.5")]


def planned(address: str = "10.0.0.5", node: tuple[int, int] = (1, 0), **known: str) -> dict[str, Any]:
    """What Ansible knows of a host with a plan; ``node`` is how many hosts its replica has, and which it is."""
    one = plan(listen=listening(address, 8000, 18000))
    one["node"] = {**one["node"], "count": node[0], "rank": node[1]}
    return {"ansible_facts": {"glm_plans": [one]}, **known}


SEEN = {"glm_host_public_address": "192.0.2.7"}
EAST, WEST = {"glm_host_region": "us-east-1"}, {"glm_host_region": "us-west-1"}


@pytest.mark.parametrize(
    ("fleet", "number"),
    [
        ([], 0),
        ([planned()], 0),
        ([planned(), planned("10.0.0.6")], 2),
        ([planned(), planned("10.0.0.6"), planned("10.0.0.7")], 2),
        # Doors that no other host reaches: a gateway would refuse them.
        ([planned("127.0.0.1"), planned("127.0.0.1")], 0),
        ([planned(), planned("::1")], 0),
        # A replica over several hosts has one door.
        ([planned(node=(2, 0)), planned(node=(2, 1))], 0),
        ([planned(node=(2, 0)), planned(node=(2, 1)), planned(node=(2, 0)), planned(node=(2, 1))], 2),
        # Hosts reach each other by private addresses, and a private network ends with its region.
        ([planned(**EAST), planned("10.0.0.6", **WEST)], 0),
        ([planned(**EAST), planned("10.0.0.6", **EAST), planned("10.0.0.7")], 2),
        # Of a region that this run does not plan, too.
        ([planned(**EAST), planned("10.0.0.6", **EAST), WEST], 0),
        ([planned("0.0.0.0", **SEEN), planned("0.0.0.0", **SEEN)], 2),
        # On every interface of hosts of which nobody knows an address.
        ([planned("0.0.0.0"), planned("0.0.0.0", **SEEN)], 0),
        # What this run did not plan (--limit) is what it was before, as far as anybody knows.
        ([planned(), {}, {"ansible_facts": {}}], 2),
        ([{}, {}], 2),
        ([{}], 0),
    ],
)
def test_a_fleet_of_several_endpoints_that_reach_each_other_has_two_unasked(
    fleet: list[dict[str, Any]], number: int
) -> None:
    hostvars = {f"h{number}": known for number, known in enumerate(fleet)}
    assert gateway.default_gateways(list(hostvars), hostvars, ["8443", 9801]) == number


def test_a_replica_that_has_the_gateways_port_keeps_it() -> None:
    hostvars = {f"h{number}": planned(f"10.0.0.{number}") for number in (5, 6)}
    port = hostvars["h5"]["ansible_facts"]["glm_plans"][0]["listen"]["port"]
    assert gateway.default_gateways(list(hostvars), hostvars, [port, 9801]) == 0
