"""reap.yml and the extension of an expiry, as their users run them, against the API simulator."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger
from tests.playbooks.fleet import KIND, Fleet

BOOK = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [{"name": "Extend", "glm.fleet.expiry": {"hosts": "{{ groups['glm_fleet'] }}", "hours": 2}}],
    }
]


def seed(fleet: Fleet, name: str, hours: float, of: str = "default", recorded: bool = True, **tags: str) -> str:
    """An instance that expires so many hours from now, in the ledger as if it had been launched an hour ago."""
    tags = {"glm-fleet": of, "glm-expires": ledger.stamp(time.time() + hours * 3600), **tags}
    more: dict[str, Any] = {"instance_type": KIND, "region": "us-east-1", "status": "active"}
    [identifier] = fleet.cloud.seed(name=name, tags=tags, **more)
    if recorded:
        account = ledger.account_of(fleet.cloud.base_url, fleet.cloud.api_key)
        known = {"fleet": of, "account": account, "run": "r", "names": [name], "launch": name}
        at = ledger.stamp(time.time() - 3600)
        ledger.Ledger("lambda", of).append(ledger.event("asked", usd_per_hour=53.52, at=at, **known))
        ledger.Ledger("lambda", of).append(ledger.event("launched", ids=[identifier], at=at, **known))
    return identifier


def reap(fleet: Fleet, *arguments: str, **variables: Any) -> tuple[int, str]:
    """A run of it. The instances are no hosts: who asks them finds this machine, without what a deploy installs."""
    local = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    return fleet.run("reap.yml", *arguments, **{"glm_reap_hard": True, **local, **variables})


def test_what_is_past_its_time_ends_in_every_fleet_and_only_when_confirmed(fleet: Fleet) -> None:
    first = seed(fleet, "a-1", -1)
    seed(fleet, "a-2", 1)
    seed(fleet, "b-1", -1, of="b")
    seed(fleet, "safe", -1, **{"glm-protect": "yes"})
    everything = ["a-1", "a-2", "b-1", "safe"]
    for arguments, code in (((), 2), (("--check",), 0)):
        found, output = reap(fleet, *arguments)
        assert found == code and fleet.alive() == everything, output
        assert f"a-1 ({first}, fleet default, 53.52 USD per hour, expires 20" in output and "b-1 (" in output
        assert "kept: safe (" in output and "protected by its tag" in output and "a-2 (" not in output
    assert "Next: run again with -e glm_confirm=yes" not in output
    # One fleet that cannot be ended stops no other.
    fleet.cloud.fault("error", path="terminate$", code="global/forbidden")
    found, output = reap(fleet, glm_confirm=True)
    assert found == 2 and fleet.alive() == ["a-2", "b-1", "safe"], output
    assert "to end all that is past its time, found that this failed in 1 fleet(s): fleet b, terminate" in output
    found, output = reap(fleet, glm_confirm=True)
    assert found == 0 and fleet.alive() == ["a-2", "safe"], output


def test_in_doubt_it_keeps_says_so_and_fails(fleet: Fleet) -> None:
    seed(fleet, "a-1", -1)
    seed(fleet, "elsewhere", -1, recorded=False)
    for book in ("reap.yml", "cost.yml"):
        code, output = fleet.run(book, "--limit", "a-1", glm_confirm=True)
        assert code == 2 and "expected localhost in --limit" in output and "USD/H" not in output, output
    assert fleet.alive() == ["a-1", "elsewhere"]
    code, output = reap(fleet, glm_confirm=True)
    assert code == 2 and fleet.alive() == ["elsewhere"], output
    assert "kept in doubt elsewhere (" in output and "no ledger here has it" in output
    code, output = reap(fleet, glm_confirm=True, glm_reap_unrecorded=True)
    assert code == 0 and fleet.alive() == [], output


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ("", 2, "its host does not say whether requests run (glm_reap_hard=true ends it even so)"),
        ({"open": None}, 2, "its host does not say whether requests run"),
        ({"open": 3}, 0, "3 request(s) run"),
        ({}, 0, "past its time: a-1 ("),
    ],
)
def test_only_what_says_that_no_request_runs_ends(
    fleet: Fleet, answer: dict[str, Any] | str, code: int, words: str
) -> None:
    seed(fleet, "a-1", -1)
    stub = fleet.folder / "stub.py"
    told = json.dumps({"open": 0, "idle": "", "follows": "", **answer}) if isinstance(answer, dict) else "?"
    stub.write_text(f"print({told!r})", "utf-8")
    found, output = reap(fleet, glm_confirm=True, glm_reap_hard=False, __reap_program=str(stub))
    assert found == code and words in output, output
    assert fleet.alive() == ([] if answer == {} else ["a-1"])


def test_idle_hosts_end_and_those_without_an_engine_at_their_time(fleet: Fleet) -> None:
    seed(fleet, "a-1", -1)
    seed(fleet, "a-2", 1)
    # Without the program, and without a unit: this machine has none.
    code, output = reap(fleet, glm_confirm=True, glm_reap_hard=False, __reap_program="/no/such/program")
    assert code == 0 and fleet.alive() == ["a-2"], output
    stub = fleet.folder / "stub.py"
    stub.write_text("""print('{"open": 0, "idle": "no request since 2026-11-29T06:00:00Z", "follows": ""}')""", "utf-8")
    code, output = reap(fleet, glm_confirm=True, glm_reap_hard=False, __reap_program=str(stub))
    assert code == 0 and fleet.alive() == [] and "53.52 USD per hour, no request since 20" in output, output


def test_a_run_extends_the_time_which_reap_and_cost_believe(fleet: Fleet) -> None:
    seed(fleet, "a-1", -1)
    seed(fleet, "elsewhere", -1, recorded=False)
    code, output = fleet.run("cost.yml")
    assert code == 2 and "is past its time" in output and "EXPIRED" in output, output
    book = fleet.folder / "extend.yml"
    book.write_text(json.dumps(BOOK), "utf-8")
    code, output = fleet.run(str(book))
    assert code == 0 and "(2 hours from now)" in output, output
    assert "elsewhere: expiry: not extended, because no ledger on this controller has" in output
    code, output = reap(fleet, glm_confirm=True)
    assert fleet.alive() == ["a-1", "elsewhere"] and "Nothing is to be ended" in output, output
    assert "changed=0" in output


def test_a_run_extends_the_time_when_it_begins_but_not_of_what_is_to_end(fleet: Fleet) -> None:
    seed(fleet, "a-1", -1)
    ending = seed(fleet, "a-2", -1)
    more: dict[str, Any] = {"fleet": "default", "account": "a", "run": "r", "names": ["a-2"], "ids": [ending]}
    ledger.Ledger("lambda", "default").append(ledger.event("ending", **more, why="terminated by request"))
    code, output = fleet.run("playbooks/begin_report.yml", glm_max_hours=2)
    assert code == 0 and "a-1: expiry: 20" in output and "(2 hours from now)" in output, output
    assert "a-2: expiry: not extended, because its end was asked for" in output
    events = ledger.Ledger("lambda", "default").read()
    assert [(item["event"], item["names"]) for item in events if "expires" in item] == [("launched", ["a-1"])]
