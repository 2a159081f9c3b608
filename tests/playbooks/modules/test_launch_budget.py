"""That lambda_instance launches nothing past the budget of the month, and says when its instances expire."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import spending
from simulator.lambda_cloud.server import Handle
from tests.playbooks.modules.test_lambda_instance_events import KIND, alive, cloud_with, run

pytestmark = pytest.mark.one_core


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with cloud_with() as handle:
        yield handle


def to_the_end_of_the_month() -> float:
    now = time.time()
    return (spending.month_of(now)[1] - now) / 3600


def test_a_launch_past_the_budget_is_refused_with_the_arithmetic(cloud: Handle) -> None:
    for check in (True, False):
        before = to_the_end_of_the_month()
        result = run(cloud, check, count=2, max_monthly_usd=0.5)
        assert result["failed"] and "fleet default, budget: expected at most 0.50 USD in 20" in result["msg"]
        # It asked the time in between.
        found = re.search(rf"for 2 {KIND} for ([\d.]+) hours", result["msg"])
        assert found and to_the_end_of_the_month() - 0.06 < float(found[1]) < before + 0.06, result["msg"]
        assert alive(cloud) == []


def test_what_runs_and_what_was_spent_count(cloud: Handle) -> None:
    assert not run(cloud, count=1)["failed"]
    price = 53.52 * to_the_end_of_the_month()
    result = run(cloud, count=2, max_monthly_usd=1.5 * price + 0.5)
    assert result["failed"] and "for what runs (1)" in result["msg"] and len(alive(cloud)) == 1
    cloud.control("DELETE", "/counters")
    asked = {"max_monthly_usd": 3 * price + 10, "max_hourly_usd": 200}
    assert not run(cloud, count=3, **asked)["failed"] and len(alive(cloud)) == 3
    assert cloud.state()["pacing"]["counts"]["listInstanceTypes"] == 1, "once, for both limits and the ledger"
    assert not run(cloud, count=2, max_monthly_usd=0.01)["failed"], "nothing is launched"


def test_a_new_instance_says_when_it_may_end_which_the_budget_believes(cloud: Handle) -> None:
    result = run(cloud, count=1, max_hours=0.5, max_monthly_usd=27.0)
    assert not result["failed"], result
    [item] = result["instances"]
    expires = datetime.datetime.fromisoformat(item["tags"]["glm-expires"].replace("Z", "+00:00")).timestamp()
    assert 1700 < expires - time.time() <= 1800
    assert "for what runs (1)" in run(cloud, count=2, max_hours=0.5, max_monthly_usd=27.0)["msg"]
    assert not run(cloud, count=2, max_hours=0.5, max_monthly_usd=60.0)["failed"]
    assert run(cloud, count=3, tags={"glm-expires": "never"})["failed"]


def test_a_ledger_that_cannot_be_read_is_no_budget(
    cloud: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path / "file"))
    result = run(cloud, count=1, max_monthly_usd=1e6)
    assert result["failed"] and "budget: expected to keep the ledger" in result["msg"] and alive(cloud) == []
