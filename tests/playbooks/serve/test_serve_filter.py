"""Who a replica may talk to, and how the guard notices that systemd's filter is not in force. The effect on hosts is in
tests/integration/test_serve_on_host.py."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from roles.serve.files.serve_guard import serve_filter as walls

LOOPBACK = ["127.0.0.0/8", "::1"]
SLICE = "glm-serve-0.slice"
LISTED = json.dumps(
    [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "addr_info": [{"local": "127.0.0.1"}, {"local": "::1"}]},
        {
            "ifname": "ens3",
            "flags": ["UP"],
            "addr_info": [{"local": "fd00::5"}, {"local": "10.0.0.5"}, {"local": "fe80::5"}],
        },
        {"ifname": "docker0", "flags": ["UP"], "addr_info": [{"local": "172.17.0.1"}]},
        {"ifname": "ens9", "flags": ["BROADCAST"], "addr_info": [{"local": "10.9.9.9"}]},
        {"flags": ["UP"], "addr_info": []},
    ]
)


class Host:
    """A host whose filter works, or does not: what systemd was asked, and which addresses are let through."""

    def __init__(self, works: bool = True, inspected: tuple[str, ...] = ()) -> None:
        self.works, self.inspected = works, list(inspected)
        self.allowed: list[str] | None = None
        self.asked: list[list[str]] = []

    def run(self, *words: str) -> str:
        if words[0] == "ip":
            return LISTED
        if words[0] == walls.DOCKER:
            if not self.inspected:
                raise walls.FilterError("no such container")
            return self.inspected.pop(0)
        assert words[:4] == (walls.SYSTEMCTL, "set-property", "--runtime", SLICE)
        assert words[4:6] == ("IPAddressDeny=any", "IPAddressAllow=")
        self.allowed = words[6].partition("=")[2].split()
        self.asked.append(self.allowed)
        return ""

    def passes(self, address: str) -> bool:
        return not self.works or self.allowed is None or address in self.allowed


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[[Host], Host]:
    def put(host: Host, inside: bool = True) -> Host:
        def require_inside(_slice: str, process: str = "self") -> None:
            if not inside:
                raise walls.FilterError(f"process {process} is outside")

        monkeypatch.setattr(walls, "run", host.run)
        monkeypatch.setattr(walls, "passes", host.passes)
        monkeypatch.setattr(walls, "require_inside", require_inside)
        monkeypatch.setattr(walls, "SETTLE_SECONDS", 0)
        return host

    return put


def test_a_replica_talks_to_its_own_host_and_its_other_hosts(put: Callable[..., Host]) -> None:
    host = put(Host())
    walls.close(SLICE, ["10.0.0.5", "10.0.0.6"])
    own = ["10.0.0.5", "172.17.0.1", "fd00::5"]
    assert host.asked == [[*LOOPBACK], [*LOOPBACK, *own, "10.0.0.5", "10.0.0.6"]]


def test_a_filter_that_is_not_in_force_is_noticed_by_a_packet(put: Callable[..., Host]) -> None:
    put(Host(works=False))
    with pytest.raises(walls.FilterError, match=r"not in force: a packet to 10\.0\.0\.5 was sent.*unified_cgroup"):
        walls.close(SLICE, [])


def test_a_packet_that_a_firewall_refuses_is_not_taken_for_the_filter_s_work(
    put: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(Host())
    monkeypatch.setattr(walls, "passes", lambda _address: False)
    with pytest.raises(walls.FilterError, match=r"although glm-serve-0\.slice allows it.*nft list ruleset"):
        walls.close(SLICE, [])


# Before 29 Docker prints nothing for an address that is not there; since (API 1.52) it is a netip.Addr without value.
@pytest.mark.parametrize("none", ["", " invalid IP"])
def test_a_container_reaches_itself_once_it_has_an_address(put: Callable[..., Host], none: str) -> None:
    host = put(Host(inspected=(f"0 bridge{none}", f"4711 bridge{none}", f"4711 bridge{none} 172.17.0.2")))
    walls.admit(SLICE, "glm-serve-0", [], lambda: True)
    assert host.asked == [[*LOOPBACK, "10.0.0.5", "172.17.0.1", "fd00::5", "172.17.0.2"]]


@pytest.mark.parametrize("addresses", ["", " invalid IP", " 10.0.0.5"])
def test_a_container_on_the_host_s_network_needs_no_address_of_its_own(
    put: Callable[..., Host], addresses: str
) -> None:
    host = put(Host(inspected=(f"4711 host{addresses}",)))
    walls.admit(SLICE, "glm-serve-0", ["10.0.0.6"], lambda: True)
    assert host.asked == []


def test_a_container_outside_the_slice_is_refused(put: Callable[..., Host]) -> None:
    put(Host(inspected=("4711 bridge 172.17.0.2",)), inside=False)
    with pytest.raises(walls.FilterError, match="process 4711 is outside"):
        walls.admit(SLICE, "glm-serve-0", [], lambda: True)


def test_nothing_is_waited_for_when_the_container_never_starts(put: Callable[..., Host]) -> None:
    host = put(Host())
    walls.admit(SLICE, "glm-serve-0", [], lambda: False)
    assert host.asked == []


@pytest.mark.parametrize(
    ("own", "container", "problem"),
    [
        ("/a.slice/glm-serve-0.slice/x.service", "/a.slice/glm-serve-0.slice/docker-1.scope", ""),
        ("/a.slice/glm-serve-0.slice/x.service", "/glm-serve-0.slice/1", "native.cgroupdriver=systemd"),
        ("/a.slice/glm-serve-0.slice/x.service", "/system.slice/docker-1.scope", "native.cgroupdriver=systemd"),
        ("/a.slice/glm-serve-0.slice/x.service", "", "native.cgroupdriver=systemd"),
        ("/system.slice/x.service", "/system.slice/docker-1.scope", "unified_cgroup_hierarchy"),
        ("", "", "unified_cgroup_hierarchy"),
    ],
)
def test_a_container_is_where_the_filter_is_only_below_the_same_slice(
    own: str, container: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walls, "group_of", {"self": own, "4711": container}.get)
    if not problem:
        return walls.require_inside(SLICE, "4711")
    with pytest.raises(walls.FilterError, match=problem):
        walls.require_inside(SLICE, "4711")


@pytest.mark.parametrize(
    ("address", "name"), [("10.0.0.5", "ens3"), ("fd00::5", "ens3"), ("FD00:0::5", "ens3"), ("172.17.0.1", "docker0")]
)
def test_the_interface_is_the_one_that_has_the_address(address: str, name: str) -> None:
    assert walls.interface_of(address, LISTED) == name


@pytest.mark.parametrize("address", ["10.0.0.6", "fd00::6", "10.9.9.9"])
def test_an_address_that_the_host_lacks_or_that_is_down_is_named(address: str) -> None:
    with pytest.raises(walls.FilterError, match=rf"expected {address} .* found 10\.0\.0\.5, .*glm_private_address"):
        walls.interface_of(address, LISTED)


def test_a_packet_says_whether_a_filter_stopped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert walls.passes("127.0.0.1")

    class Stopped(socket.socket):
        def sendto(self, *_arguments: object) -> int:
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", Stopped)
    assert not walls.passes("127.0.0.1")


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(walls.FilterError, match="failed with 2"):
        walls.run("ls", str(tmp_path / "nothing"))
