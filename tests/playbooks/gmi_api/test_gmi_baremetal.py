"""gmi_baremetal against the simulator over HTTP: only nodes that were given, shown and confirmed start, stop or end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, locks
from ansible_collections.glm.fleet.plugins.module_utils.cloud import record as _record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import ending, fleet, nodes
from ansible_collections.glm.fleet.plugins.modules import gmi_baremetal, gmi_container
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import holdings
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Access
from simulator.gmi_cloud.server import Answer, Handle, running
from tests.playbooks.gmi_api.test_gmi_container import BUSY, GONE, KEY, LOST, SLOW, Clock, Run, changes, fault

ROOT = Path(__file__).parents[3]
NAME = "metal-1"
SHOW = {
    "ansible.builtin.debug": {
        "msg": "{{ offers.products[0].name }} is {{ offers.products[0].price_unit }}; {{ seen.logs.text }}"
    }
}
NO = Answer(400, {"message": "no"})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Clock()
    for module in (ending, fleet, nodes):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def cloud(clock: Clock) -> Iterator[Handle]:
    with running() as handle:
        handle.world.clock = clock.time
        handle.world.add_key(KEY)
        handle.world.add_baremetal("other")
        yield handle


@pytest.fixture
def node(cloud: Handle) -> str:
    """The id of the node that is meant; another one is there, too."""
    identifier: str = cloud.world.add_baremetal(NAME)["id"]
    return identifier


@pytest.fixture
def run(cloud: Handle, node: str, run_module: Run) -> Run:
    def call(state: str, check: bool = False, **options: Any) -> dict[str, Any]:
        account = {"api_key": KEY, "base_url": cloud.base_url, "request_interval": 0, "retries": 0, "fleet": "web"}
        return run_module(gmi_baremetal.main, check=check, **{**account, "state": state, "ids": [node], **options})

    return call


@pytest.fixture
def bring(run: Run) -> Run:
    """Bring to a state what is shown."""

    def call(state: str, **options: Any) -> dict[str, Any]:
        return run(state, confirmed=run(state, check=True, **options)["names"], **options)

    return call


def statuses(cloud: Handle) -> dict[str, str]:
    return {item["name"]: item["status"] for item in cloud.world.baremetals}


def kinds() -> list[str]:
    return [event["event"] for event in ledger.Ledger("gmi", "web").read()]


def test_a_node_stops_and_starts_once(cloud: Handle, node: str, bring: Run, run: Run, tmp_path: Path) -> None:
    cloud.world.looks = 3
    planned = run("stopped", check=True)
    assert planned["changed"] and planned["names"] == {node: NAME} and changes(cloud) == []
    stopped = bring("stopped", progress_file=str(tmp_path / "progress"))
    assert stopped["changed"] and stopped["nodes"][0]["status"] == "stopped"
    assert statuses(cloud) == {"other": "active", NAME: "stopped"}
    assert (tmp_path / "progress").read_text("utf-8") == f"waiting for {NAME} ({node}) is stopping"
    assert not bring("stopped")["changed"]
    assert bring("started")["nodes"][0]["status"] == "active" and not bring("started")["changed"]
    assert changes(cloud) == ["POST baremetals/action"] * 2 and kinds() == []


def test_nothing_but_what_is_meant_for_eyes_leaves_the_module(node: str, bring: Run) -> None:
    stopped = bring("stopped")
    assert "node_secret" not in json.dumps(stopped)
    assert stopped["nodes"] == [
        {
            "id": node, "name": NAME, "status": "stopped", "reason": None, "idc": "us-denver-1",
            "product": "baremetal.b200.x8", "created": None, "ip": None,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["started", "stopped", "absent"])
def test_only_ids_that_were_shown_under_their_name_are_touched(cloud: Handle, node: str, run: Run, state: str) -> None:
    cloud.world.baremetals[1]["status"] = "stopped" if state == "started" else "active"
    other = cloud.world.baremetals[0]["id"]
    container = cloud.world.add_container("glm-web-1")["id"]
    refusals = [
        ({}, "confirmed: expected the name of each id as it was shown, found none"),
        ({"confirmed": {node: "metal-2"}}, f"{node} is named 'metal-1', not 'metal-2'"),
        ({"confirmed": {}}, f"{node} ({NAME}) is not in confirmed"),
        ({"confirmed": {node: NAME, other: "other"}}, f"{other} is not in ids"),
        ({"confirmed": {node: NAME}, "ids": [node, other]}, f"{other} (other) is not in confirmed"),
        (
            {"confirmed": {"b-9": NAME}, "ids": ["b-9"]},
            f"found 'b-9'; the account has other ({other}), {NAME} ({node})",
        ),
        ({"confirmed": {container: "glm-web-1"}, "ids": [container]}, f"bare-metal nodes, found {container!r}"),
    ]
    for options, words in refusals:
        refused = run(state, **options)
        assert refused["failed"] and words in refused["msg"] and "Nothing was changed" in refused["msg"], refused["msg"]
    assert "not 'metal-2'" in run(state, check=True, confirmed={node: "metal-2"})["msg"]
    assert changes(cloud) == [] and len(cloud.world.baremetals) == 2


def test_a_node_without_a_name_is_confirmed_as_such(cloud: Handle, node: str, run: Run) -> None:
    del cloud.world.baremetals[1]["name"]
    shown = run("absent", check=True)
    assert shown["names"] == {node: ""}
    assert "is named '', not 'metal-1'" in run("absent", confirmed={node: NAME})["msg"]
    assert run("absent", confirmed=shown["names"])["changed"] and len(cloud.world.baremetals) == 1


def test_a_refused_action_says_that_its_body_is_a_guess(cloud: Handle, node: str, bring: Run) -> None:
    cloud.world.action_key = "operation"
    refused = bring("stopped")
    assert refused["failed"] and f"{NAME} ({node}) is active: POST" in refused["msg"] and "HTTP 400" in refused["msg"]
    assert 'but not its body: {"action": "stop"} is a guess' in refused["msg"] and "action_body" in refused["msg"]
    assert bring("stopped", action_body={"operation": "stop"})["changed"]
    assert "action_body is a guess" in bring("started", action_body={"verb": "start"})["msg"]


@pytest.mark.parametrize("answer", [BUSY, LOST, SLOW, GONE, NO, Answer(401, {"message": "no"})])
@pytest.mark.parametrize("late", [False, True])
def test_an_action_is_judged_by_what_the_account_shows(
    cloud: Handle, node: str, bring: Run, answer: Answer, late: bool
) -> None:
    cloud.world.looks = 0
    fault(cloud, "POST", "action$", answer, late=late)
    found = bring("stopped", wait_timeout=20)
    if late:
        assert (
            found["changed"]
            and statuses(cloud)[NAME] == "stopped"
            and f"{NAME} ({node}) is stopped after: " in str(found["warnings"])
        )
    else:
        assert found["failed"] and statuses(cloud)[NAME] == "active"
        assert ("guess" in found["msg"]) == (answer in (GONE, NO)), "only what refuses the request may mean its body"
    assert bring("stopped", retries=2)["nodes"][0]["status"] == "stopped"
    assert changes(cloud) == ["POST baremetals/action"] * (1 if late else 2)


def test_an_action_that_is_busy_for_a_moment_is_asked_for_again(cloud: Handle, bring: Run) -> None:
    fault(cloud, "POST", "action$", Answer(429, {"message": "slow down"}, {"Retry-After": "0"}))
    assert bring("stopped", retries=1)["changed"] and changes(cloud) == ["POST baremetals/action"] * 2


def test_a_status_that_is_not_known_is_no_reason_to_call_it_done(cloud: Handle, node: str, bring: Run) -> None:
    cloud.world.baremetals[1]["status"] = "active"
    cloud.world.looks = 10**6
    late = bring("stopped", wait_timeout=20)
    assert late["failed"] and late["changed"]
    assert "expected nodes that are stopped (stopped), found after 2" in late["msg"] and "is stopping" in late["msg"]
    assert "Nobody publishes the words for a node's status" in late["msg"]
    fault(cloud, "POST", "action$", Answer(200, {}))
    assert bring("started", wait=False)["nodes"][0]["status"] == "stopping", "shown as it is"


def test_a_node_ends_once_and_its_elastic_ip_stays_and_is_named(cloud: Handle, node: str, bring: Run, run: Run) -> None:
    cloud.world.looks = 9
    address = cloud.world.add_elastic_ip("203.0.113.8", cloud.world.baremetals[1], "baremetal")
    cloud.world.add_elastic_ip("198.51.100.7")
    shown = run("absent", check=True)
    assert shown["changed"] and shown["nodes"][0]["ip"] == "203.0.113.8" and changes(cloud) == [] and kinds() == []
    gone = run("absent", confirmed=shown["names"], price_usd_per_hour=32)
    assert gone["changed"] and statuses(cloud) == {"other": "active"}
    assert [(item["id"], item["node_id"]) for item in gone["elastic_ips"]] == [(address["id"], node)]
    said = f"These stay and cost money: eip-203.0.113.8 ({address['id']}, 203.0.113.8)."
    assert said in str(gone["warnings"]) and said in str(shown["warnings"]) and len(cloud.world.elastic_ips) == 2
    assert changes(cloud) == ["DELETE baremetals"] * 2, "a second one after a while, whose refusal means nothing"
    assert kinds() == ["seen", "ending", "gone"]
    [life] = ledger.lives_of(ledger.Ledger("gmi", "web").read())
    assert (life.id, life.name, life.usd_per_hour, life.adopted, life.region) == (node, NAME, 32, True, "us-denver-1")
    again = run("absent", confirmed=shown["names"])
    assert not again["changed"] and again["nodes"] == [] and len(changes(cloud)) == 2, "the ledger knows it"
    assert "expected ids of bare-metal nodes" in run("stopped", confirmed=shown["names"])["msg"]


@pytest.mark.parametrize("answer", [BUSY, GONE, SLOW, LOST, NO, Answer(200, None, raw=b"")])
@pytest.mark.parametrize("late", [False, True])
def test_an_end_is_repeated_until_the_account_shows_it(
    cloud: Handle, node: str, bring: Run, answer: Answer, late: bool
) -> None:
    fault(cloud, "DELETE", "baremetals/", answer, late=late)
    gone = bring("absent")
    assert not gone.get("failed"), gone
    assert statuses(cloud) == {"other": "active"} and kinds()[:2] == ["seen", "ending"]
    if (answer, late) != (NO, True):
        assert kinds()[-1] == "gone"


def test_a_list_that_does_not_come_proves_nothing(cloud: Handle, run: Run, node: str, clock: Clock) -> None:
    cloud.world.looks = 2
    seen = []

    def busy(seconds: float) -> None:
        clock.now += seconds
        seen.append(len(cloud.world.baremetals))
        if len(seen) == 1:
            fault(cloud, "GET", "baremetals$", BUSY, times=2)

    clock.sleep = busy  # type: ignore[method-assign]
    gone = run("absent", confirmed={node: NAME})
    assert not gone.get("failed") and statuses(cloud) == {"other": "active"} and len(seen) >= 3


def test_what_is_prepaid_stays_and_the_message_says_until_when(cloud: Handle, node: str, bring: Run) -> None:
    cloud.world.prepaid[node] = "2027-06-01"
    left = bring("absent", wait_timeout=60)
    assert left["failed"] and "prepaid until 2027-06-01" in left["msg"] and f"{NAME} ({node}) is active" in left["msg"]
    assert "What is prepaid cannot end before its term" in left["msg"] and NAME in statuses(cloud)
    cloud.world.prepaid.clear()
    assert bring("absent")["changed"] and statuses(cloud) == {"other": "active"}


def test_what_a_killed_run_ended_is_taken_up_by_the_next(cloud: Handle, node: str, run: Run) -> None:
    book = ledger.Ledger("gmi", "web")
    cloud.world.baremetals.pop()
    unknown = run("absent", confirmed={node: NAME})
    assert unknown["failed"] and "expected ids of bare-metal nodes" in unknown["msg"], "nothing proves that it is gone"
    account = {"fleet": "web", "account": ledger.account_of(cloud.base_url, KEY), "run": ""}
    for kind in ("seen", "ending"):
        book.append(ledger.event(kind, **account, names=[NAME], ids=[node], type="bare-metal", region="us-denver-1"))
    gone = run("absent", confirmed={node: NAME})
    assert not gone.get("failed") and kinds() == ["seen", "ending", "ending", "gone"]
    assert changes(cloud) == ["DELETE baremetals"], "the API's 404 proves it"
    book.append(ledger.event("ending", **{**account, "account": "other"}, names=["x"], ids=["b-7"], type="bare-metal"))
    assert "found 'b-7'" in run("absent", ids=["b-7"], confirmed={"b-7": "x"})["msg"], "another key may list it"


def test_lists_without_nodes_close_no_node_and_lists_of_nodes_no_container(
    cloud: Handle, node: str, run: Run, bring: Run, run_module: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.world.prepaid[node] = "2027-06-01"
    bring("absent", wait_timeout=60)
    account = {"fleet": "web", "account": ledger.account_of(cloud.base_url, KEY), "run": ""}
    made = {"names": ["glm-web-1"], "ids": ["c-1"], "launch": "glm-web-1@x", "type": "container.h200.x8"}
    ledger.Ledger("gmi", "web").append(ledger.event("launched", **account, **made))
    monkeypatch.setattr(_record, "is_late", lambda _life: True)
    options = {"api_key": KEY, "base_url": cloud.base_url, "request_interval": 0, "retries": 0, "fleet": "web"}
    shown = run_module(gmi_container.main, state="absent", confirmed=[], **options)
    assert "joined: glm-web-1 (c-1)" in shown["msg"] and f"{NAME} ({node}, bare-metal" in shown["msg"], shown["msg"]
    assert kinds()[-1] == "missing", "the container, by the list of containers"
    run("stopped", confirmed={node: NAME})
    assert kinds().count("missing") == 1 and "gone" not in kinds()
    cloud.world.baremetals.pop()
    holdings.read(Access(KEY, cloud.base_url, keep=True))
    assert kinds()[-1] == "missing" and kinds().count("missing") == 2, "the node, by the list of all"


def test_the_cost_of_the_account_knows_who_ends_a_node(cloud: Handle, node: str, bring: Run) -> None:
    cloud.world.prepaid[node] = "2027-06-01"
    bring("absent", wait_timeout=60, price_usd_per_hour=32)
    held = {item.id: item for item in holdings.read(Access(KEY, cloud.base_url)).held}
    assert (held[node].fleet, held[node].usd_per_hour, held[node].type) == ("web", 32, "baremetal.b200.x8")


def test_runs_for_one_fleet_wait_for_each_other(cloud: Handle, node: str, run: Run) -> None:
    with locks.only_run(cloud.base_url, "web", 1) as free:
        assert free
        refused = run("absent", confirmed={node: NAME}, wait_timeout=0)
    assert refused["failed"] and "another run for this fleet" in refused["msg"] and changes(cloud) == []


@pytest.mark.parametrize("kind", ["baremetals", "elastic-ips"])
def test_an_account_without_a_collection(cloud: Handle, run: Run, bring: Run, kind: str) -> None:
    cloud.world.enabled.discard("containers")
    cloud.world.enabled.discard(kind)
    if kind == "baremetals":
        assert "baremetals is not enabled" in run("absent", check=True)["msg"]
    else:
        assert bring("absent")["changed"] and statuses(cloud) == {"other": "active"}


def test_the_examples_are_valid() -> None:
    validator = ArgumentSpecValidator({**gmi_baremetal.AUTH_ARGUMENTS, **gmi_baremetal.ARGUMENTS})
    for task in yaml.safe_load(gmi_baremetal.EXAMPLES):
        given = {**task["glm.fleet.gmi_baremetal"]}
        if isinstance(given.get("confirmed"), str):
            given["confirmed"] = {}
        assert validator.validate(given).error_messages == []
    assert set(yaml.safe_load(gmi_baremetal.DOCUMENTATION)["options"]) == set(gmi_baremetal.ARGUMENTS)


def test_the_examples_of_the_page_do_what_they_say(cloud: Handle, node: str, tmp_path: Path) -> None:
    page = (ROOT / "docs/gmi_cloud.md").read_text("utf-8")
    blocks = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "gmi_container:" not in text]
    tasks = [task for text in blocks for task in yaml.safe_load(text)]
    assert len(tasks) == 4
    cloud.world.looks = 0
    container = cloud.world.add_container("glm-research-1")["id"]
    cloud.world.logs[container] = "Application startup complete.\n"
    here = {"connection": "local", "vars": {"ansible_python_interpreter": sys.executable}}
    said = json.dumps([{"hosts": "localhost", "gather_facts": False, **here, "tasks": [*tasks, SHOW]}])
    said = said.replace(tasks[0]["glm.fleet.gmi_baremetal"]["ids"][0], node)
    said = said.replace(tasks[3]["glm.fleet.gmi_info"]["container_id"], container)
    (tmp_path / "play.yml").write_text(said, "utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", tmp_path / "play.yml"], cwd=ROOT,
        env={**os.environ, "GMI_API_URL": cloud.base_url, "GMI_API_KEY": KEY}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "container.h200.x1 is unknown; Application startup complete." in done.stdout
    assert statuses(cloud) == {"other": "active"} and changes(cloud) == ["DELETE baremetals"]
