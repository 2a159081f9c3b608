"""What a replica needs must be free before anything that runs is stopped."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import _occupancy
from ansible_collections.glm.fleet.plugins.modules import serving_unit

PARAMS = {"unit": "glm-serve-0.service", "address": "127.0.0.1", "port": 8000, "vendor": "nvidia"}
OWN = "the container glm-serve-0 (vllm/vllm-openai)"
OTHERS = ["process 4711 (python3: python3 -m http.server 8000)", "the container glm-serve-01 (x)"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Who holds the port and the GPUs; tests fill it in."""
    state: dict[str, object] = {"port": None, "gpus": []}
    monkeypatch.setattr(_occupancy, "port_owner", lambda *_args: state["port"])
    monkeypatch.setattr(_occupancy, "gpu_users", lambda *_args: state["gpus"])
    return state


@pytest.mark.parametrize("action", ["start", "restart"])
@pytest.mark.parametrize("owner", OTHERS)
def test_a_port_that_another_holds_stops_the_start(held: dict[str, object], action: str, owner: str) -> None:
    held["port"] = owner
    problem = serving_unit.occupied(PARAMS, action)
    assert problem == (
        f"expected 127.0.0.1 port 8000 to be free, found {owner}. Next: stop it, or choose another glm_port"
    )


def test_a_replica_may_restart_on_its_own_port_and_gpus(held: dict[str, object]) -> None:
    held.update(port=OWN, gpus=["process 4712 (vllm: 170000 MiB)"])
    assert serving_unit.occupied(PARAMS, "restart") is None
    assert "to be free" in str(serving_unit.occupied(PARAMS, "start"))


def test_gpu_memory_that_another_holds_stops_a_start(held: dict[str, object]) -> None:
    held["gpus"] = ["process 4712 (python3: 170000 MiB)"]
    assert "free GPU memory" in str(serving_unit.occupied(PARAMS, "start"))


def test_nothing_is_asked_when_nothing_is_done(held: dict[str, object]) -> None:
    held["port"] = OTHERS[0]
    assert serving_unit.occupied(PARAMS, "none") is None


@pytest.mark.parametrize(
    ("reload", "job", "action"),
    [("no", "4711", "none"), ("yes", "4711", "start"), ("no", "0", "start"), ("no", "", "start")],
)
def test_a_start_that_is_queued_already_is_not_asked_for_again(reload: str, job: str, action: str) -> None:
    """The vendor's CDI refresh runs first and takes seconds; the start will read the files as they are then."""
    properties = {"ActiveState": "inactive", "SubState": "dead", "Job": job, "NeedDaemonReload": reload}
    assert serving_unit.decide(properties, ["/etc/glm/serve-0.env"])[0] == action
