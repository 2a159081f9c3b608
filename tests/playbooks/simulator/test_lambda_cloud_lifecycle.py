"""Simulated instances live as real ones do: over reads and time, with capacity, failures and hosts of a backend."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lambda_cloud_schemas as schemas
import pytest
from lambda_cloud_client import PUBLIC_KEY, REGION, TYPE, Client

from simulator.lambda_cloud.backend import (
    Backend,
    CapacityError,
    FakeBackend,
    FileSystemMount,
    HostState,
    LaunchSpec,
    load_backend,
)
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import running
from simulator.lambda_cloud.world import World
from tests.patience import PATIENCE_SECONDS

LAUNCH = "/instance-operations/launch"


@pytest.fixture
def client() -> Iterator[Client]:
    with running() as (_, handle):
        made = Client(handle)
        made.add_key()
        yield made


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, world: World) -> None:
        self.now = 1_800_000_000.0
        world.clock = lambda: self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


class ScriptedBackend:
    """A backend whose hosts are in the state that a test puts them in, and whose calls can fail or be slow."""

    def __init__(self) -> None:
        self.hosts: dict[str, HostState] = {}
        self.calls: list[tuple[str, str]] = []
        self.errors: dict[str, list[Exception]] = {"launch": [], "terminate": [], "restart": [], "poll": []}
        self.gate = threading.Event()
        self.gate.set()

    def _call(self, name: str, instance_id: str) -> None:
        self.gate.wait(10)
        self.calls.append((name, instance_id))
        if self.errors[name]:
            raise self.errors[name].pop(0)

    def launch(self, instance: LaunchSpec) -> None:
        self._call("launch", instance.id)
        self.hosts[instance.id] = HostState("booting")

    def poll(self, instance_id: str) -> HostState:
        if self.errors["poll"]:
            raise self.errors["poll"].pop(0)
        return self.hosts.get(instance_id, HostState("failed", detail="no such host"))

    def terminate(self, instance_id: str) -> None:
        self._call("terminate", instance_id)
        self.hosts.pop(instance_id, None)

    def restart(self, instance_id: str) -> None:
        self._call("restart", instance_id)

    def ready(self, instance_id: str) -> None:
        self.hosts[instance_id] = HostState("ready", "192.0.2.9", "10.0.0.9")


@pytest.fixture
def scripted() -> Iterator[tuple[Client, ScriptedBackend]]:
    backend = ScriptedBackend()
    with running(backend=backend) as (_, handle):
        made = Client(handle)
        made.add_key()
        yield made, backend
        backend.gate.set()


def statuses(client: Client, instance_id: str, reads: int) -> list[str]:
    """The status of an instance over several listings; ``gone`` when it is not listed."""
    found = []
    for _ in range(reads):
        rows = {row["id"]: row for row in client.data("GET", "/instances")}
        found.append(rows[instance_id]["status"] if instance_id in rows else "gone")
    return found


def settle(client: Client, instance_id: str) -> None:
    client.handle.world.wait_idle([instance_id])


# From launch to active


def test_boot_over_reads_shows_the_address_early(client: Client) -> None:
    instance = client.launch()
    views = [client.get(instance) for _ in range(5)]
    assert [(view["status"], "ip" in view) for view in views] == [
        ("booting", False),
        ("booting", True),
        ("booting", True),
        ("active", True),
        ("active", True),
    ]
    assert "private_ip" in views[1]
    assert "jupyter_token" not in views[2]
    for view in views:
        schemas.check(schemas.INSTANCE, view)


def test_boot_over_time(client: Client) -> None:
    clock = Clock(client.handle.world)
    client.handle.settings(address_seconds=25, boot_seconds=120)
    instance = client.launch()
    for _ in range(6):
        assert client.get(instance)["status"] == "booting"
    assert "ip" not in client.get(instance)
    clock.pass_seconds(25)
    assert "ip" in client.get(instance)
    clock.pass_seconds(94)
    assert client.get(instance)["status"] == "booting"
    clock.pass_seconds(1)
    assert client.get(instance)["status"] == "active"


def test_active_lags_behind_a_ready_host(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    clock = Clock(client.handle.world)
    client.handle.settings(active_lag_seconds=40)
    instance = client.launch()
    clock.pass_seconds(500)
    backend.ready(instance)
    assert client.get(instance)["status"] == "booting"
    clock.pass_seconds(39)
    assert client.get(instance)["status"] == "booting"
    clock.pass_seconds(1)
    assert client.get(instance)["status"] == "active"


def test_active_may_come_before_the_host_answers(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    client.handle.settings(active_at_address=True)
    instance = client.launch()
    assert client.get(instance)["status"] == "booting"
    backend.hosts[instance] = HostState("booting", "192.0.2.9", "10.0.0.9")
    assert client.get(instance)["status"] == "active"


def test_ready_without_an_address_is_not_active(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.hosts[instance] = HostState("ready")
    assert statuses(client, instance, 3) == ["booting"] * 3


def test_a_failed_host_is_unhealthy_until_it_recovers(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.hosts[instance] = HostState("failed", detail="kernel panic")
    assert statuses(client, instance, 2) == ["unhealthy"] * 2
    backend.ready(instance)
    assert statuses(client, instance, 1) == ["active"]


def test_a_reboot_inside_the_guest_is_invisible(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.ready(instance)
    client.wait_active(instance)
    backend.hosts[instance] = HostState("booting", "192.0.2.9", "10.0.0.9")
    assert statuses(client, instance, 2) == ["active"] * 2


def test_a_backend_that_cannot_be_polled_is_a_failed_host(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.ready(instance)
    backend.errors["poll"] = [RuntimeError("no engine")]
    assert statuses(client, instance, 2) == ["unhealthy", "active"]


def test_the_backend_is_told_everything(client: Client) -> None:
    weights = client.add_file_system()
    instance = client.launch(
        name="Node One",
        image={"family": "gpu-base-24-04"},
        user_data="#cloud-config\n",
        tags=[{"key": "fleet", "value": "a"}],
        file_system_names=["weights"],
    )
    backend = client.handle.backend
    assert isinstance(backend, FakeBackend)
    (spec,) = backend.launched
    assert spec.id == instance
    assert (spec.name, spec.hostname, spec.region, spec.image_family) == (
        "Node One",
        "node-one",
        REGION,
        "gpu-base-24-04",
    )
    assert spec.ssh_public_keys == [PUBLIC_KEY]
    assert (spec.user_data, spec.tags) == ("#cloud-config\n", {"fleet": "a"})
    assert spec.file_systems == [FileSystemMount(weights, "weights", "/lambda/nfs/weights")]
    kind = spec.instance_type
    assert kind.accelerator is not None
    assert (kind.name, kind.gpus, kind.memory_gib, kind.architecture) == (TYPE, 8, 2900, "x86_64")
    assert (kind.accelerator.name, kind.accelerator.count, kind.accelerator.memory_gb) == ("B200", 8, 180)


@pytest.mark.parametrize(("name", "starts"), [(None, "vm-"), ("___", "vm-"), ("A_b c!", "a-b-c")])
def test_a_host_always_has_a_valid_hostname(client: Client, name: str | None, starts: str) -> None:
    client.launch(name=name)
    backend = client.handle.backend
    assert isinstance(backend, FakeBackend)
    assert backend.launched[0].hostname.startswith(starts)
    view = client.wait_active(backend.launched[0].id)
    assert view["hostname"] == backend.launched[0].hostname, "the API shows what the host is called"


# Capacity


def regions_of(client: Client, name: str = TYPE) -> list[str]:
    row = client.data("GET", "/instance-types")[name]
    return [region["name"] for region in row["regions_with_capacity_available"]]


def test_capacity_runs_out_and_comes_back(client: Client) -> None:
    client.handle.control("PUT", "/capacity", {TYPE: {REGION: 1, "us-west-1": 1}})
    assert regions_of(client) == [REGION, "us-west-1"]
    instance = client.launch()
    assert regions_of(client) == ["us-west-1"]
    refused = client.error("POST", LAUNCH, client.launch_body())
    assert refused[:2] == (400, "instance-operations/launch/insufficient-capacity")
    client.launch(region_name="us-west-1")
    client.terminate(instance)
    settle(client, instance)
    assert regions_of(client) == [REGION]
    client.launch()


def test_a_type_that_a_region_does_not_have(client: Client) -> None:
    found = client.error("POST", LAUNCH, client.launch_body(region_name="me-west-1"))
    assert found[:2] == (400, "instance-operations/launch/insufficient-capacity")
    assert "me-west-1" not in regions_of(client)


def test_capacity_is_lost_between_listing_and_launch(client: Client) -> None:
    assert REGION in regions_of(client)
    client.handle.fault("capacity-lost", path="/launch$")
    found = client.error("POST", LAUNCH, client.launch_body())
    assert found[:2] == (400, "instance-operations/launch/insufficient-capacity")
    assert client.data("GET", "/instances") == []
    client.launch()


def test_the_backend_may_be_full(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    backend.errors["launch"] = [CapacityError("full")]
    found = client.error("POST", LAUNCH, client.launch_body())
    assert found[:2] == (400, "instance-operations/launch/insufficient-capacity")
    assert client.data("GET", "/instances") == []
    assert client.handle.state()["capacity_used"] == {f"{TYPE}/{REGION}": 0}


def test_a_launch_that_the_backend_cannot_do(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    backend.errors["launch"] = [OSError("no bridge")]
    found = client.error("POST", LAUNCH, client.launch_body())
    assert found[:2] == (503, "provider/internal-unavailable")
    assert client.data("GET", "/instances") == []
    client.launch()


# Two at once


def test_two_launches_at_once_are_two_instances(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: Client(client.handle).launch(name=f"n{number}"), range(16)))
    assert len(set(ids)) == 16
    for _ in range(4):
        rows = client.data("GET", "/instances")
    assert {row["status"] for row in rows} == {"active"}
    assert len({row["ip"] for row in rows}) == 16


def test_the_last_host_is_rented_once(client: Client) -> None:
    client.handle.control("PUT", "/capacity", {TYPE: {REGION: 3}})

    def launch(_: int) -> int:
        return Client(client.handle).call("POST", LAUNCH, json=client.launch_body()).status_code

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(launch, range(12)))
    assert found == {200: 3, 400: 9}
    assert len(client.data("GET", "/instances")) == 3


def test_a_slow_launch_does_not_stop_other_calls(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    backend.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(Client(client.handle).launch)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (rows := client.data("GET", "/instances")):
            assert time.monotonic() < deadline
        assert [row["status"] for row in rows] == ["booting"]
        client.terminate(rows[0]["id"])
        assert backend.calls == []
        backend.gate.set()
        instance = future.result(300)
    settle(client, instance)
    assert backend.calls == [("launch", instance), ("terminate", instance)], "no host is left behind"
    assert backend.hosts == {}


def test_the_same_body_twice_is_two_instances(client: Client) -> None:
    assert client.launch(name="same") != client.launch(name="same")
    assert [row["name"] for row in client.data("GET", "/instances")] == ["same", "same"]


# Restart


def test_restart_boots_again(client: Client) -> None:
    instance = client.launch()
    address = client.wait_active(instance)["ip"]
    (view,) = client.data("POST", "/instance-operations/restart", {"instance_ids": [instance]})["restarted_instances"]
    assert view["status"] == "booting"
    assert view["actions"]["restart"]["reason_code"] == "vm-action-in-progress"
    settle(client, instance)
    assert client.wait_active(instance)["ip"] == address
    assert client.get(instance)["actions"]["restart"] == {"available": True}
    backend = client.handle.backend
    assert isinstance(backend, FakeBackend)
    assert backend.restarted == [instance]


@pytest.mark.parametrize("state", ["booting", "restarting", "terminating", "terminated", "preempted"])
def test_restart_conflicts(scripted: tuple[Client, ScriptedBackend], state: str) -> None:
    client, backend = scripted
    other = client.launch()
    instance = client.launch()
    backend.ready(other)
    backend.ready(instance)
    if state != "booting":
        client.wait_active(instance)
    client.wait_active(other)
    if state == "restarting":
        backend.gate.clear()
        client.data("POST", "/instance-operations/restart", {"instance_ids": [instance]})
    elif state == "preempted":
        client.handle.adjust(instance, status="preempted")
    elif state.startswith("terminat"):
        client.handle.settings(terminating_reads=0 if state == "terminated" else 9, terminated_reads=9)
        client.terminate(instance)
        settle(client, instance)
        assert client.get(instance)["status"] == state
    found = client.error("POST", "/instance-operations/restart", {"instance_ids": [other, instance]})
    assert found[:2] == (409, "global/conflict")
    assert instance in found[2]
    assert client.get(other)["status"] == "active", "no instance of a refused call restarts"
    backend.gate.set()


def test_operations_on_unknown_ids_touch_nothing(client: Client) -> None:
    instance = client.launch()
    client.wait_active(instance)
    for operation in ("restart", "terminate"):
        body = {"instance_ids": [instance, "f" * 32]}
        found = client.error("POST", f"/instance-operations/{operation}", body)
        assert found[:2] == (404, "global/object-does-not-exist")
    assert client.get(instance)["status"] == "active"
    for body in ({}, {"instance_ids": []}, {"instance_ids": instance}, {"instance_ids": [5]}):
        assert client.error("POST", "/instance-operations/terminate", body)[:2] == (400, "global/invalid-parameters")


# The end


def test_termination_over_reads(client: Client) -> None:
    instance = client.launch()
    client.wait_active(instance)
    (view,) = client.terminate(instance)["terminated_instances"]
    assert view["status"] == "terminating"
    assert {action["reason_code"] for action in view["actions"].values()} == {"vm-is-terminating"}
    settle(client, instance)
    assert statuses(client, instance, 4) == ["terminating", "terminated", "gone", "gone"]
    assert client.error("GET", f"/instances/{instance}")[:2] == (404, "global/object-does-not-exist")


def test_termination_over_time(client: Client) -> None:
    clock = Clock(client.handle.world)
    client.handle.settings(
        terminating_reads=0, terminated_reads=0, terminating_seconds=30, terminated_seconds=60, release_reads=0
    )
    instance = client.launch()
    client.wait_active(instance)
    client.terminate(instance)
    settle(client, instance)
    assert statuses(client, instance, 3) == ["terminating"] * 3
    clock.pass_seconds(30)
    found = statuses(client, instance, 3)
    assert found == ["terminated"] * 3
    assert "ip" not in client.get(instance)
    clock.pass_seconds(60)
    assert statuses(client, instance, 1) == ["gone"]


def test_terminating_twice_is_the_unknown_error(client: Client) -> None:
    instance = client.launch()
    other = client.launch()
    client.terminate(instance)
    found = client.error("POST", "/instance-operations/terminate", {"instance_ids": [other, instance]})
    assert found[1] == "global/unknown"
    assert client.get(other)["status"] == "booting"


def test_terminating_waits_for_the_host(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.gate.clear()
    client.terminate(instance)
    assert statuses(client, instance, 5) == ["terminating"] * 5
    backend.gate.set()
    settle(client, instance)
    assert statuses(client, instance, 2) == ["terminated", "gone"]


def test_a_host_that_will_not_go_is_tried_again(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.errors["terminate"] = [OSError("busy")]
    client.terminate(instance)
    settle(client, instance)
    assert instance in backend.hosts
    client.get(instance)
    settle(client, instance)
    assert backend.hosts == {}
    assert [name for name, _ in backend.calls] == ["launch", "terminate", "terminate"]


def test_preemption(scripted: tuple[Client, ScriptedBackend]) -> None:
    client, backend = scripted
    instance = client.launch()
    backend.ready(instance)
    client.wait_active(instance)
    view = client.handle.adjust(instance, status="preempted")
    assert (view["status"], "ip" in view) == ("preempted", False)
    settle(client, instance)
    assert backend.hosts == {}
    assert statuses(client, instance, 3) == ["preempted"] * 3
    client.terminate(instance)
    assert statuses(client, instance, 3)[-1] == "gone"


def test_an_unhealthy_status_set_by_hand_stays(client: Client) -> None:
    instance = client.launch()
    client.wait_active(instance)
    client.handle.adjust(instance, status="unhealthy")
    assert statuses(client, instance, 3) == ["unhealthy"] * 3
    client.terminate(instance)
    settle(client, instance)
    backend = client.handle.backend
    assert backend.poll(instance).phase == "failed", "the host behind it is really removed"


# File systems


def test_a_file_system_is_released_late(client: Client) -> None:
    weights = client.add_file_system()
    client.handle.settings(release_reads=2)

    def in_use() -> bool:
        (row,) = client.data("GET", "/file-systems")
        return bool(row["is_in_use"])

    def delete() -> tuple[int, str]:
        return client.error("DELETE", f"/filesystems/{weights}")[:2]

    refused = (400, "filesystems/filesystem-in-use")
    assert not in_use()
    instance = client.launch(file_system_names=["weights"])
    assert in_use()
    assert delete() == refused
    client.terminate(instance)
    settle(client, instance)
    assert delete() == refused
    assert statuses(client, instance, 3)[-1] == "gone"
    assert delete() == refused
    assert [in_use() for _ in range(3)] == [True, True, False]
    assert client.data("DELETE", f"/filesystems/{weights}") == {"deleted_ids": [weights]}


def test_a_file_system_is_released_after_seconds(client: Client) -> None:
    clock = Clock(client.handle.world)
    weights = client.add_file_system()
    client.handle.settings(release_reads=0, release_seconds=90)
    instance = client.launch(file_system_names=["weights"])
    client.terminate(instance)
    settle(client, instance)
    assert statuses(client, instance, 3)[-1] == "gone"
    assert client.error("DELETE", f"/filesystems/{weights}")[0] == 400
    clock.pass_seconds(90)
    client.data("DELETE", f"/filesystems/{weights}")


def test_one_file_system_serves_many_instances(client: Client) -> None:
    client.add_file_system()
    ids = [client.launch(file_system_names=["weights"]) for _ in range(3)]
    client.terminate(ids[0])
    settle(client, ids[0])
    assert statuses(client, ids[0], 3)[-1] == "gone"
    for _ in range(4):
        (row,) = client.data("GET", "/file-systems")
        assert row["is_in_use"], "two instances still use it"


# The state file


def test_state_survives_a_restart(tmp_path: Path) -> None:
    config = Config(state_file=tmp_path / "deep" / "state.json")
    with running(config) as (_, handle):
        client = Client(handle)
        client.add_key()
        weights = client.add_file_system()
        instance = client.launch(name="one", file_system_names=["weights"], tags=[{"key": "fleet", "value": "a"}])
        ending = client.launch()
        before = client.wait_active(instance)
        client.terminate(ending)
        events = client.call("GET", "/audit-events").json()["data"]
    assert config.state_file is not None
    assert config.state_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.state_file.parent.iterdir()] == ["state.json"]
    assert config.api_key not in config.state_file.read_text()

    with running(Config(state_file=config.state_file)) as (_, handle):
        client = Client(handle)
        assert client.get(instance) == before
        assert statuses(client, ending, 4)[-1] == "gone"
        assert [row["id"] for row in client.data("GET", "/file-systems")] == [weights]
        assert client.call("GET", "/audit-events").json()["data"] == events
        other = client.launch()
        assert client.wait_active(other)["ip"] != before["ip"]
        assert handle.state()["capacity_used"] == {f"{TYPE}/{REGION}": 2}


def test_a_termination_that_a_stop_interrupted_is_finished(tmp_path: Path) -> None:
    backend = ScriptedBackend()
    config = Config(state_file=tmp_path / "state.json")
    with running(config, backend) as (_, handle):
        client = Client(handle)
        client.add_key()
        instance = client.launch()
        backend.errors["terminate"] = [OSError("stopped")]
        client.terminate(instance)
        settle(client, instance)
    assert instance in backend.hosts
    with running(Config(state_file=config.state_file), backend) as (_, handle):
        client = Client(handle)
        assert client.get(instance)["status"] == "terminating"
        settle(client, instance)
        assert backend.hosts == {}
        assert statuses(client, instance, 2) == ["terminated", "gone"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"version": 99, "state": {}}', '{"version": 1, "state": {}}']
)
def test_a_damaged_state_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"state\.json: not a state file"), running(Config(state_file=path)):
        pass
    assert path.read_text() == content


# Backends


def test_backend_classes_keep_the_protocol() -> None:
    assert isinstance(FakeBackend(), Backend)
    assert isinstance(ScriptedBackend(), Backend)
    assert isinstance(load_backend("simulator.lambda_cloud.backend:FakeBackend", {"capacity": 1}), FakeBackend)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("vmware", {}, "expected one of fake, podman"),
        ("simulator.nothing:Backend", {}, "cannot be made"),
        ("simulator.lambda_cloud.backend:Nothing", {}, "cannot be made"),
        ("fake", {"colour": "red"}, "colour"),
        ("pathlib:Path", {}, "lacks a method"),
    ],
)
def test_bad_backends_are_named(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        load_backend(name, options)


def test_fake_backend_pool_and_capacity() -> None:
    def spec(identifier: str) -> LaunchSpec:
        kind = Config().instance_types[TYPE].spec()
        return LaunchSpec(identifier, "", "h", REGION, kind, "gpu-base-24-04", [])

    small = FakeBackend(public_pool="192.0.2.0/30", polls_to_address=1)
    small.launch(spec("a"))
    small.launch(spec("b"))
    assert [small.poll(name).ip for name in "ab"] == ["192.0.2.1", "192.0.2.2"]
    with pytest.raises(CapacityError, match="address pool"):
        small.launch(spec("c"))
    small.terminate("a")
    small.launch(spec("c"))
    assert small.poll("c").ip == "192.0.2.1"
    full = FakeBackend(capacity=1)
    full.launch(spec("a"))
    with pytest.raises(CapacityError, match="1 hosts"):
        full.launch(spec("b"))
