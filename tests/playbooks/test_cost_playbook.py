"""cost.yml as its users run it, against the simulators of both clouds over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, spending
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from simulator.gmi_cloud import server as gmi_server
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import running
from tests.playbooks.fleet import KIND, ROOT, Fleet
from tests.playbooks.inventory.test_gmi_cloud import KEY
from tests.playbooks.modules.test_lambda_instance_events import api_of


def kept(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fleet.folder / "state" / "cost.json").read_text("utf-8"))
    return found


def requests(fleet: Fleet) -> list[str]:
    return [item["operation"] for item in fleet.cloud.state()["pacing"]["requests"] if item["method"] != "GET"]


def seed(fleet: Fleet, name: str, **tags: str) -> None:
    more = {"instance_type": KIND, "region": "us-east-1", "status": "active"}
    fleet.cloud.control("POST", "/instances", {"name": name, "tags": tags, **more})


def test_cost_shows_the_whole_account_and_changes_nothing(fleet: Fleet) -> None:
    begun = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - 3600))
    seed(fleet, "web-1", **{"glm-fleet": "web", "glm-owner": "ann", "glm-protect": "yes", "glm-launched": begun})
    seed(fleet, "by-hand")
    code, output = fleet.run("launch.yml", glm_launch=True, glm_idle_minutes=90)
    assert code == 0, output
    [launched] = [row for row in api_of(fleet.cloud).list_instances() if row["name"] == "glm-default-1"]
    assert lambda_api.tags_of(launched)["glm-idle-minutes"] == "90"
    before = requests(fleet)
    code, output = fleet.run("cost.yml", "--check")
    assert code == 0 and not (fleet.folder / "state" / "cost.json").exists(), output
    code, output = fleet.run("cost.yml")
    assert code == 0 and requests(fleet) == before, output
    assert fleet.cloud.api_key not in output
    found = kept(fleet)
    items = {item["name"]: item for item in found["items"]}
    web, by_hand = items["web-1"], items["by-hand"]
    assert (web["fleet"], web["owner"], web["protected"]) == ("web", "ann", True)
    assert 53.52 <= web["cost"]["usd"] <= 60 and not web["cost"]["at_least"]
    assert by_hand["fleet"] is None and by_hand["cost"] is None and by_hand["hours"] is None
    assert found["usd_per_hour"] == {"usd": 160.56, "at_least": False}
    assert [one["fleet"] for one in found["fleets"]] == ["default", "web"]
    # A begun minute is billed whole.
    assert found["fleets"][0]["spent"]["usd"] in [round(53.52 * minutes / 60, 2) for minutes in range(1, 10)]
    assert "All together: 160.56 USD per hour" in output and "(none)" in output and "unknown" in output


def test_hosts_are_asked_when_they_were_last_used_only_if_that_is_wanted(fleet: Fleet) -> None:
    seed(fleet, "glm-default-1", **{"glm-fleet": "default"})
    stub, asked = fleet.folder / "stub.py", ledger.stamp(time.time() - 7200)
    answer = json.dumps({"open": 0, "idle": "", "follows": "", "active": asked})
    stub.write_text(f"open({str(fleet.folder / 'asked')!r}, 'w').close(); print({answer!r})", "utf-8")
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    code, output = fleet.run("cost.yml", **local, __reap_program=str(stub))
    assert code == 0 and "UNREACHABLE" not in output and "WARNING" not in output, output
    assert not (fleet.folder / "asked").exists() and kept(fleet)["items"][0]["idle_hours"] is None
    code, output = fleet.run("cost.yml", **local, __reap_program=str(stub), glm_cost_idle=True)
    assert code == 0 and kept(fleet)["items"][0]["last_active"] == asked and " 2.0 h " in output, output


def test_what_is_not_read_fails_after_all_else_is_shown(fleet: Fleet) -> None:
    seed(fleet, "glm-default-1", **{"glm-fleet": "default"})
    fleet.cloud.fault("error", path="file-systems$", status=403, times=100)
    code, output = fleet.run("cost.yml")
    assert code == 2 and "file systems could not be read" in output, output
    assert "All together: at least 53.52 USD per hour" in output
    assert kept(fleet)["ok"] is False and [item["name"] for item in kept(fleet)["items"]] == ["glm-default-1"]
    command = fleet.command("cost.yml", fleet.variables(lambda_api_key="wrong"))
    command[command.index("-i") + 1] = "localhost,"
    done = subprocess.run(command, cwd=ROOT, env=fleet.environment(), capture_output=True, text=True, check=False)
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2 and "instances could not be read" in output, output
    assert "All together: at least 0.00 USD per hour" in output


def not_over_the_end_of_a_month() -> None:
    """Sums are of a month: what a test spends in one must not be reported in the next."""
    left = spending.month_of(time.time())[1] - time.time()
    if left < 600:
        time.sleep(left + 1)


def test_the_ledger_outlives_the_fleet_and_its_budget_is_watched(fleet: Fleet) -> None:
    not_over_the_end_of_a_month()
    for step, more in (("launch.yml", {"glm_launch": True}), ("terminate.yml", {"glm_confirm": True})):
        code, output = fleet.run(step, **more)
        assert code == 0, output
    month = ledger.stamp(time.time())[:7]
    usage = fleet.folder / "state" / "usage"
    usage.mkdir(parents=True)
    header = "host,key,requests,refused,uncounted,prompt_tokens,completion_tokens,first_use,last_use"
    (usage / f"{month}.csv").write_text(f"{header}\nh,k,1,0,0,700000,300000,,\n", "utf-8")
    code, output = fleet.run("cost.yml")
    assert code == 0 and "Nothing that costs money was listed" in output, output
    [found] = kept(fleet)["fleets"]
    assert found["spent"]["usd"] > 0 and found["months"] == {month: found["spent"]}
    assert found["usd_per_million_tokens"] == found["spent"]["usd"]
    [entry] = found["history"]
    assert entry["stopped"] and entry["why"] == "terminated by request" and entry["cost"] == found["spent"]
    code, output = fleet.run("cost.yml", glm_max_monthly_usd=0.5)
    assert code == 2 and "more than its budget of 0.50 USD" in output, output


@pytest.mark.one_core
def test_both_clouds_are_read_side_by_side(fleet: Fleet, tmp_path: Path) -> None:
    seed(fleet, "glm-default-1", **{"glm-fleet": "default"})
    inventory = tmp_path / "more.gmi.yml"
    inventory.write_text("plugin: glm.fleet.gmi_cloud\n", "utf-8")
    with gmi_server.running() as cloud:
        cloud.world.add_key(KEY)
        first = cloud.world.add_container("glm-prod-1")
        cloud.world.add_elastic_ip("203.0.113.8", first)
        cloud.world.add_elastic_ip("203.0.113.10")
        cloud.world.add_baremetal("metal")
        command = [*fleet.command("cost.yml", fleet.variables()), "-i", str(inventory)]
        environment = {**fleet.environment(), "GMI_API_KEY": KEY, "GMI_API_URL": cloud.base_url}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and KEY not in done.stdout + done.stderr, done.stdout + done.stderr
        found = kept(fleet)
        kinds = sorted((item["provider"], item["kind"]) for item in found["items"])
        assert kinds == [("gmi", "address")] * 2 + [("gmi", "instance")] * 2 + [("lambda", "instance")]
        assert found["usd_per_hour"] == {"usd": 53.52, "at_least": True}
        cloud.settings.broken["/baremetals"] = gmi_server.Answer(403, {"message": "no"})
        # An inventory needs all of it; the report is made of what can be read.
        command = [*command[:2], "-i", "localhost,", *command[4:-2]]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "gmi: bare-metal nodes could not be read" in " ".join(done.stdout.split())


def test_every_account_of_the_inventory_is_read(fleet: Fleet) -> None:
    """With its own key and address; what is there is only ended by a run with that key."""
    seed(fleet, "glm-default-1", **{"glm-fleet": "default"})
    past = {"glm-fleet": "web", "glm-expires": "2026-01-01T00:00:00Z"}
    with running(Config(port=0, api_key="the.other.key")) as (_url, other):
        other.seed(name="web-1", tags=past, instance_type=KIND, region="us-east-1", status="active")
        fleet.inventory.write_text(
            f"""
plugin: glm.fleet.lambda_cloud
accounts:
  - {{name: first, api_key: {fleet.cloud.api_key}}}
  - {{name: second, api_key: {other.api_key}, base_url: "{other.base_url}"}}
""",
            "utf-8",
        )
        code, output = fleet.run("cost.yml")
        assert code == 2 and "is past its time" in output, output
        assert {item["name"] for item in kept(fleet)["items"]} == {"glm-default-1", "web-1"}
        assert "All together: 107.04 USD per hour" in output and "could not be read" not in output
        code, output = fleet.run("reap.yml", glm_confirm=True, glm_reap_unrecorded=True)
        assert code == 2 and "it is in account second of the inventory; run reap.yml with that key" in output, output
        assert [row["status"] for row in other.state()["instances"]] == ["active"]
        other.fault("error", path="file-systems$", status=403, times=100)
        code, output = fleet.run("cost.yml")
        assert code == 2 and "lambda: file systems of account second could not be read" in output, output
        assert "All together: at least 107.04 USD per hour" in output and other.api_key not in output
