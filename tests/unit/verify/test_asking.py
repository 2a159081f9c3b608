"""What verify asks of an endpoint for a plan."""

from __future__ import annotations

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.serving import asking

CATALOGUE = catalog.load()


@pytest.mark.parametrize("engine", CATALOGUE.engines)
def test_every_route_that_is_asked_is_a_path(engine: str) -> None:
    plan = planner.make(planner.Intent("GLM-5.1", "B200", 8, engine=engine), CATALOGUE)
    for version in CATALOGUE.engines[engine].versions:
        plan["engine"]["version"] = version
        asked = asking.options(plan, 0.04)["known_routes"]
        assert len(asked) > 20, version
        assert all(row["path"].startswith("/") and row["methods"] for row in asked), version
