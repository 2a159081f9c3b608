"""Sockets of this machine as a host lists them and as others try them, and doors with and without a fault."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.host import commands
from ansible_collections.glm.fleet.plugins.module_utils.serving import exposure, routes
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import CheckError, Endpoint
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import routes as plan_routes
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.door import proxy
from tests.playbooks.verify.fake.server import KEY, MODEL, Behaviour, engine

pytestmark = pytest.mark.one_core
TABLE = [
    {"path": route.path, "methods": list(route.methods)}
    for route in plan_routes.load("vllm", "0.32.0", catalog.ROOT / "engines")
]
PASSING = plan_routes.door(catalog.load(), "vllm", "0.32.0")["routes"]


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that this process listens on, on all addresses."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_socket_on_all_addresses_is_listed_for_each_address_and_loopback_never(listener: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inside:
        named = ["10.1.2.3", "192.0.2.7", "fd00::5", "no-such-host.invalid", "localhost", "127.0.1.1"]
        found = exposure.places(commands.run, named)
        hidden = inside.getsockname()[1]
    mine = [(one["address"], one["process"], one["unit"]) for one in found if one["port"] == listener]
    assert [address for address, _process, _unit in mine] == ["10.1.2.3", "192.0.2.7"]
    assert all(f"process {os.getpid()} " in process and not unit for _address, process, unit in mine)
    assert hidden not in {one["port"] for one in found}
    assert not any(ipaddress.ip_address(one["address"]).is_loopback for one in found)


def test_what_is_open_refused_or_silent_is_told_apart(listener: int) -> None:
    (closed,) = proxy.free_ports(1)
    with socket.socket() as full:
        # A queue of none that is taken: the kernel says nothing to the next one.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        taken = [socket.socket() for _number in range(3)]
        for one in taken:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        where = [{"address": "127.0.0.1", "port": number} for number in (listener, closed, port)]
        assert exposure.tried(where, seconds=0.5) == ["open", "refused", "silent"]
        for one in taken:
            one.close()


def test_a_door_is_asked_in_four_ways_and_an_engine_without_one_is_seen(tmp_path: Path) -> None:
    behaviour = Behaviour(key=proxy.ENGINE_KEY)
    with engine(behaviour) as (_chosen, port), proxy.running(tmp_path, port) as door:
        where = [{"address": "127.0.0.1", "port": number} for number in (door.port, port, *proxy.free_ports(1))]
        seen = exposure.seen(where, [door.port, port], proxy.CLIENT_KEY)
        assert seen["outcomes"] == ["open", "open", "refused"]
        assert seen["answers"][f"127.0.0.1:{door.port}"] == {
            "no_key": 401, "wrong_key": 401, "right_key": 200, "unlisted": 404, "problem": "",
        }  # fmt: skip
        assert seen["answers"][f"127.0.0.1:{port}"]["unlisted"] != 404
    gone = exposure.answers(Endpoint("127.0.0.1", door.port, "", api_key="x", timeout=PATIENCE_SECONDS))
    assert gone["no_key"] == 0 and "no answer" in gone["problem"]


def test_every_route_of_the_engine_is_asked_of_the_door(tmp_path: Path) -> None:
    behaviour = Behaviour(key=proxy.ENGINE_KEY)
    with engine(behaviour) as (_chosen, port), proxy.running(tmp_path, port) as door:
        endpoint = Endpoint(
            "127.0.0.1", door.port, MODEL, api_key=proxy.CLIENT_KEY, timeout=PATIENCE_SECONDS,
            engine=Endpoint("127.0.0.1", port, MODEL, timeout=PATIENCE_SECONDS),
        )  # fmt: skip
        found = routes.check(endpoint, PASSING, TABLE)
        assert int(found.split()[0]) > 40 and "for clients ask for a key, the others are not found" in found
        assert behaviour.requests == []
        # The door has a route that the plan does not: as after a plan that lets less pass.
        with pytest.raises(CheckError, match=r"^without a key: POST /v1/completions answers 401, not 404$"):
            routes.check(endpoint, [row for row in PASSING if row["purpose"] != "completions"], TABLE)


def test_an_engine_without_a_door_fails_by_its_routes_and_is_asked_nothing_with_the_key() -> None:
    behaviour = Behaviour()
    with engine(behaviour) as (_chosen, port):
        endpoint = Endpoint("127.0.0.1", port, MODEL, api_key=KEY, timeout=PATIENCE_SECONDS)
        with pytest.raises(CheckError, match=r"^without a key: .*GET /health answers 200, not 404") as failed:
            routes.check(endpoint, PASSING, TABLE)
    assert "more" in failed.value.found and behaviour.requests == []
