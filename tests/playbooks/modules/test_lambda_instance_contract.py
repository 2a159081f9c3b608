"""lambda_instance and the inventory's client against the API simulator, which refuses what the real one would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import ending, launching, members, present
from ansible_collections.glm.fleet.plugins.modules import lambda_instance
from simulator.lambda_cloud import faults
from simulator.lambda_cloud.config import Config, Settings
from simulator.lambda_cloud.server import Handle, running
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.modules.test_lambda_instance import Ended, Module
from tests.playbooks.modules.test_lambda_instance_events import Clock

pytestmark = pytest.mark.one_core

KIND = "gpu_8x_b200_sxm6"
# The limits of the API, shortened alike on both sides.
REQUEST_INTERVAL, LAUNCH_INTERVAL = 0.1, 0.5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One for both sides: no machine is too busy for a request to arrive when it was sent."""
    made = Clock()
    for module in (_cloud_api, ending, launching, members, present, faults):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def simulator(clock: Clock) -> Iterator[Handle]:
    settings = Settings(
        rate_limit=True, request_interval=REQUEST_INTERVAL, launch_interval=LAUNCH_INTERVAL, address_seconds=0.3,
        boot_seconds=0.6,
    )  # fmt: skip
    with running(Config(port=0, settings=settings)) as (_url, handle):
        handle.world.clock = clock.time
        handle.control("PUT", "/capacity", {KIND: {"us-east-1": 3, "us-west-1": 3}})
        handle.control("DELETE", "/counters")
        yield handle


def client(simulator: Handle, folder: Path) -> lambda_api.LambdaApi:
    pacer = _cloud_api.Pacer(simulator.api_key, REQUEST_INTERVAL, LAUNCH_INTERVAL, folder / "pace")
    url = simulator.api_url.removesuffix("/api/v1")
    return lambda_api.LambdaApi(simulator.api_key, url, pacer=pacer, sleep=_cloud_api.time.sleep)


def ensure_ssh_key(simulator: Handle, folder: Path) -> str:
    api = client(simulator, folder)
    keys = api._read("/ssh-keys")
    if keys:
        return str(keys[0]["name"])
    return str(api._change("/ssh-keys", {"name": "deploy"}, ("request",))["name"])


def run(simulator: Handle, folder: Path, **options: Any) -> dict[str, Any]:
    params = {
        **{name: spec.get("default") for name, spec in lambda_instance.ARGUMENTS.items()},
        "region": ["us-east-1", "us-west-1"], "instance_type": [KIND],
        "wait_interval": 0.1, "wait_timeout": PATIENCE_SECONDS, "launch_interval": LAUNCH_INTERVAL,
        "ssh_key_names": [ensure_ssh_key(simulator, folder)], **options,
    }  # fmt: skip
    fleet = lambda_instance.Fleet(Module(params, False), client(simulator, folder))
    with pytest.raises(Ended) as ended:
        getattr(fleet, params["state"])()
    return ended.value.result


def alive(simulator: Handle) -> list[str]:
    return [item["name"] for item in simulator.state()["instances"] if item["status"] in lambda_api.ALIVE]


def test_launch_list_and_terminate_within_the_limits(simulator: Handle, tmp_path: Path) -> None:
    result = run(simulator, tmp_path, count=4, tags={"role": "serve"}, user_data="#cloud-config\n")
    assert not result["failed"], result["msg"]
    assert result["launched"] == [f"glm-default-{number}" for number in (1, 2, 3, 4)]
    assert sorted(item["region"] for item in result["instances"]) == ["us-east-1"] * 3 + ["us-west-1"]
    assert all(item["ip"] for item in result["instances"])
    assert run(simulator, tmp_path, count=4)["changed"] is False
    listed = client(simulator, tmp_path).list_instances()
    assert {"glm-fleet": "default", "role": "serve"}.items() <= lambda_api.tags_of(listed[0]).items()
    assert run(simulator, tmp_path, state="absent")["terminated"] == result["launched"]
    assert alive(simulator) == []
    pacing = simulator.state()["pacing"]
    assert pacing["too_fast"] == 0, pacing


@pytest.mark.parametrize("kind", ["answer-lost", "truncated"])
def test_a_lost_answer_does_not_launch_twice(simulator: Handle, tmp_path: Path, kind: str) -> None:
    simulator.fault(kind, path="launch$")
    result = run(simulator, tmp_path, count=2)
    assert not result["failed"], result["msg"]
    assert sorted(alive(simulator)) == ["glm-default-1", "glm-default-2"]


def test_a_launch_refused_as_too_fast_succeeds_later(simulator: Handle, tmp_path: Path) -> None:
    simulator.fault("rate-limited", path="launch$", retry_after="1")
    assert run(simulator, tmp_path)["launched"] == ["glm-default-1"]


def test_capacity_lost_between_listing_and_launch_moves_on(simulator: Handle, tmp_path: Path) -> None:
    simulator.fault("capacity-lost", path="launch$")
    assert run(simulator, tmp_path)["instances"][0]["region"] == "us-west-1"


def test_dropped_tags_stop_the_run_and_the_next_one(simulator: Handle, tmp_path: Path) -> None:
    simulator.control("PATCH", "/settings", {"drop_tags": True})
    for _run in range(2):
        result = run(simulator, tmp_path, count=3)
        assert result["failed"]
        assert "expected instances with this fleet's names to carry the tag glm-fleet, found none on" in result["msg"]
    assert alive(simulator) == ["glm-default-1"]
