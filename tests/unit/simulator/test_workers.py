"""Workers of the integration tests that had one world would take each other's hosts down."""

from __future__ import annotations

import pytest

from tests.integration.workers import worker_world


@pytest.mark.parametrize(("given", "first"), [({}, 1), ({"GLM_REHEARSAL_WORLD": "7"}, 7)])
def test_each_worker_has_a_world_of_its_own_and_none_has_the_one_of_a_person(given: dict[str, str], first: int) -> None:
    starter = {**given, "GLM_REHEARSAL_WORLD": str(worker_world(given))}
    workers = [worker_world({**starter, "PYTEST_XDIST_WORKER": f"gw{number}"}) for number in range(3)]
    assert workers == [first, first + 1, first + 2]
