"""Each worker process of pytest has a rehearsal world of its own, so that files of tests run side by side.

World 0 is left to the person at the keyboard, and to molecule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.integration.workers import worker_world

os.environ["GLM_REHEARSAL_WORLD"] = str(worker_world(os.environ))
pytest.register_assert_rewrite("tests.integration.measuring", "tests.integration.rehearsal")

LONGEST_FIRST = ("test_rehearsal.py", "test_serve_on_host.py", "test_rehearsal_benchmark.py", "test_engine_venv.py")
"""Files that would end last if a worker took them up late; the others follow in their order.

The second needs no engine, which may still be built for the first.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hand out the longest files first (with --no-loadscope-reorder)."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="module")
def rehearsal() -> Iterator[None]:
    """Everything that ``-i rehearsal`` needs, and no hosts yet."""
    from tests.integration.rehearsal import command

    command("python", "-m", "simulator", "down")
    up = command("python", "-m", "simulator", "up", "--engines", "vllm,sglang")
    assert up.code == 0, up.output
    yield
    assert command("python", "-m", "simulator", "down").code == 0
