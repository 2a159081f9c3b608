"""How long answers that run have at a stop: what the plan promises, bounds it, and has engine and unit do."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text as plan_text
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import replica as unit
from tools import matrix

CATALOG = catalog.load()


def plan(**changes: Any) -> dict[str, Any]:
    return planner.make(
        planner.Intent(**{"model": "GLM-5.1", "accelerator": "B200", "accelerator_count": 8, **changes}), CATALOG
    )


def told(made: dict[str, Any]) -> str | None:
    """The seconds in the engine's command; None where it is not given any."""
    command = made["command"]
    return command[command.index("--shutdown-timeout") + 1] if "--shutdown-timeout" in command else None


def test_the_default_is_the_longest_answer_within_its_bound() -> None:
    made = plan()
    times = made["timeouts"]
    assert times["longest_answer_seconds"] == -(-made["contract"]["context_length"] // 10)
    assert (times["drain_seconds"], times["stop_seconds"], told(made)) == (600, 660, "600")
    short = plan(engine_args={"max-model-len": 4000})
    assert (short["timeouts"]["drain_seconds"], short["timeouts"]["stop_seconds"], told(short)) == (400, 460, "400")


@pytest.mark.parametrize("seconds", [0, 60, 1500])
def test_a_time_of_the_user_is_taken_as_it_is(seconds: int) -> None:
    made = plan(drain_seconds=seconds)
    assert (made["timeouts"]["drain_seconds"], told(made)) == (seconds, str(seconds))
    assert made["timeouts"]["stop_seconds"] == seconds + 60


def test_a_time_that_a_reboot_would_cut_off_is_refused() -> None:
    with pytest.raises(planner.PlanError, match="set glm_drain_seconds to at most 1500"):
        plan(drain_seconds=1501)


def test_the_engine_s_option_is_the_plan_s() -> None:
    with pytest.raises(planner.PlanError, match="use glm_drain_seconds"):
        plan(engine_args={"shutdown-timeout": 5})


@pytest.mark.parametrize("engine", sorted(CATALOG.engines))
def test_every_version_drains_or_says_that_it_does_not(engine: str) -> None:
    without = []
    for version in CATALOG.engines[engine].versions:
        made = next(made for intent in matrix.intents(CATALOG, engine, version) if (made := _made(intent)) is not None)
        notes = [note for note in made["notes"] if "ends every open answer" in note]
        if made["stop"]["drains"]:
            assert notes == []
            assert made["timeouts"]["stop_seconds"] > made["timeouts"]["drain_seconds"]
            assert (told(made) is not None) == (engine == "vllm")
            continue
        without.append(version)
        assert told(made) is None
        assert notes[0].startswith(f"{engine} {version} ends every open answer when it is stopped")
        assert made["timeouts"]["stop_seconds"] == 60
        assert any("ends every open answer at once" in line for line in plan_text.report({"a": made}))
    assert without == {"vllm": ["0.15.1", "0.16.0", "0.17.1"], "sglang": []}[engine]


def _made(intent: planner.Intent) -> dict[str, Any] | None:
    try:
        return planner.make(intent, CATALOG, advise=False)
    except planner.PlanError:
        return None


def test_docker_and_systemd_wait_for_the_drain() -> None:
    made = plan(drain_seconds=1500)
    found = unit.replica(made)
    stop = found["exec"]["stop"]
    assert stop[stop.index("-t") + 1] == "1560"
    assert found["stop_seconds"] > 1560
    assert found["serving_unit"]["stop_seconds"] == found["stop_seconds"]
    # A reboot is forced after half an hour.
    assert found["stop_seconds"] + 60 < 1800


def test_the_plan_says_so_in_words() -> None:
    words = " ".join(" ".join(plan_text.report({"a": plan()})).split())
    assert "stop requests that run have 10 min (the longest answer would take 338 min)" in words
