"""gmi_container against the simulator over HTTP: what it makes, ends and leaves alone, and what happens meanwhile."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, locks, record
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import api as gmi_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.gmi_cloud import ending, fleet, present
from ansible_collections.glm.fleet.plugins.module_utils.finding import Unmet
from ansible_collections.glm.fleet.plugins.modules import gmi_container
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.gmi_cloud import holdings
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.holdings import Access
from simulator.gmi_cloud.server import ENVELOPES, Answer, Fault, Handle, running

KEY = "eyJh.cluster.key"
WITH_ADDRESS = {"elastic_ip_product": "eip.bgp"}
NAME, ADDRESS = "glm-web-1", "glm-web-1-ip"
PLACE = {"idc": "us-denver-1", "product": "container.h200.x8"}
BUSY, GONE, LOST = Answer(503, {"message": "busy"}), Answer(404, {"message": "not found"}), Answer(0, None, closed=True)
SLOW = Answer(429, {"message": "slow down"}, {"Retry-After": "2"})

Run = Callable[..., dict[str, Any]]


class Clock:
    """Waits take as long as they are, and no test waits."""

    def __init__(self) -> None:
        self.now = time.time()

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Clock()
    for module in (ending, fleet, present):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def cloud(clock: Clock) -> Iterator[Handle]:
    with running() as handle:
        handle.world.clock = clock.time
        handle.world.add_key(KEY)
        handle.world.templates.append({"id": "t-1", "orgId": "org-1", "name": "vllm", "path": "x/vllm:1"})
        yield handle


@pytest.fixture
def run(cloud: Handle, run_module: Run) -> Run:
    def call(check: bool = False, **options: Any) -> dict[str, Any]:
        account = {"api_key": KEY, "base_url": cloud.base_url, "request_interval": 0, "retries": 0, "fleet": "web"}
        return run_module(gmi_container.main, check=check, **{**account, **options})

    return call


@pytest.fixture
def make(run: Run) -> Run:
    def call(**options: Any) -> dict[str, Any]:
        whole = {"name": NAME, **PLACE, "template_id": "t-1", **options}
        return run(**{option: value for option, value in whole.items() if value is not None})

    return call


@pytest.fixture
def end(run: Run) -> Run:
    """End what is shown."""

    def call(**options: Any) -> dict[str, Any]:
        ids = run(check=True, state="absent", **options)["ids"]
        return run(state="absent", confirmed=ids, **options)

    return call


def changes(cloud: Handle) -> list[str]:
    """What was asked for beside lists, without ids."""
    asked = [(method, target.split("/")) for method, target, _headers in cloud.settings.requests if method != "GET"]
    return [f"{method} {parts[3]}{'/' + parts[5] if len(parts) > 5 else ''}" for method, parts in asked]


def names(cloud: Handle) -> list[str]:
    return [*(item["name"] for item in cloud.world.containers), *(item["name"] for item in cloud.world.elastic_ips)]


def kinds() -> list[str]:
    return [event["event"] for event in ledger.Ledger("gmi", "web").read()]


def fault(cloud: Handle, method: str, path: str, answer: Answer, **more: Any) -> None:
    cloud.settings.script.append(Fault(method, path, answer, **more))


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_container_is_made_once_and_ended_once(cloud: Handle, make: Run, end: Run, envelope: str) -> None:
    cloud.settings.envelope = envelope
    planned = make(check=True)
    assert planned["changed"] and planned["container"] == {} and changes(cloud) == [] and kinds() == []
    made = make(price_usd_per_hour=25.6)
    assert made["changed"] and made["container"]["status"] == "running" and made["elastic_ip"] == {}
    assert made["diff"] == {"before": {"names": []}, "after": {"names": [NAME]}}
    assert kinds() == ["asked", "launched"] and ledger.Ledger("gmi", "web").read()[0]["usd_per_hour"] == 25.6
    again = make()
    assert not again["changed"] and again["container"] == made["container"]
    gone = end()
    assert gone["changed"] and gone["ids"] == [made["container"]["id"]] and names(cloud) == []
    assert not end()["changed"] and kinds() == ["asked", "launched", "ending", "gone"]
    assert changes(cloud) == ["POST containers", "DELETE containers"]


def test_a_request_carries_what_the_options_say_and_no_secret_comes_back(cloud: Handle, make: Run) -> None:
    options = {
        "template_id": None, "image": "docker.io/x/y:1", "args": ["--port", "8000"], "env": {"A": "plain"},
        "secret_env": {"HF_TOKEN": "hf_very_secret"}, "ssh_public_keys": ["ssh-ed25519 AAAA a", "ssh-ed25519 BBBB b"],
        "ports": [{"container_port": 8000}, {"container_port": 22, "port": 2222, "protocol": "tcp"}],
    }  # fmt: skip
    made = make(**options)
    [held] = cloud.world.containers
    assert held["envs"] == [
        {"name": "A", "value": "plain"}, {"name": "HF_TOKEN", "value": "hf_very_secret"},
        {"name": "SSH_KEY", "value": "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b"},
    ]  # fmt: skip
    assert held["ports"][0] == {"containerPort": 8000, "protocol": "TCP"} and held["ports"][1]["port"] == 2222
    assert held["args"] == ["--port", "8000"]
    assert "hf_very_secret" not in json.dumps(made) and "hf_very_secret" not in str(ledger.Ledger("gmi", "web").read())
    assert not make(**options)["changed"] and make(**{**options, "name": "glm-web-2"})["changed"]
    assert changes(cloud) == ["POST templates", "POST containers", "POST containers"], "one template of an image"


def test_its_elastic_ip_comes_and_goes_with_it(cloud: Handle, make: Run, end: Run) -> None:
    made = make(elastic_ip_product="eip.bgp")
    assert made["container"]["ip"] == made["elastic_ip"]["ip"] and made["elastic_ip"]["name"] == ADDRESS
    assert made["elastic_ip"]["container_id"] == made["container"]["id"]
    assert not make(elastic_ip_product="eip.bgp")["changed"]
    cloud.world.add_elastic_ip("198.51.100.7")
    gone = end()
    assert gone["ids"] == [made["container"]["id"], made["elastic_ip"]["id"]]
    assert names(cloud) == ["eip-198.51.100.7"] and kinds().count("gone") == 2
    assert changes(cloud)[-2:] == ["DELETE containers", "DELETE elastic-ips"]


def test_an_elastic_ip_that_somebody_bound_is_used_and_stays(cloud: Handle, make: Run, end: Run) -> None:
    make()
    cloud.world.add_elastic_ip("198.51.100.7", cloud.world.containers[0])
    again = make(elastic_ip_product="eip.bgp")
    assert not again["changed"] and again["elastic_ip"]["ip"] == "198.51.100.7"
    assert end()["elastic_ips"] == [] and names(cloud) == ["eip-198.51.100.7"]


def test_what_the_ledger_does_not_have_is_never_touched(cloud: Handle, run: Run, make: Run, end: Run) -> None:
    foreign = cloud.world.add_container(NAME)
    refused = make()
    assert refused["failed"] and f"expected no container of this name but ours, found {foreign['id']}" in refused["msg"]
    seen = {"names": [NAME], "ids": [foreign["id"]], "type": PLACE["product"]}
    ledger.Ledger("gmi", "web").append(ledger.event("seen", fleet="web", account="", run="", **seen))
    assert end()["ids"] == [] and names(cloud) == [NAME] and make()["failed"], "seen is not made"
    given = run(state="absent", confirmed=[foreign["id"]])
    assert given["failed"] and f"not of this fleet: {foreign['id']}" in given["msg"] and changes(cloud) == []


def test_what_has_another_name_by_now_is_left_alone_and_said(cloud: Handle, make: Run, end: Run) -> None:
    make()
    cloud.world.containers[0]["name"] = "keep-this"
    left = end()
    assert left["ids"] == [] and names(cloud) == ["keep-this"] and "left alone: keep-this" in str(left["warnings"])
    cloud.world.containers[0]["name"] = "glm-web-7"
    assert end(name=NAME)["ids"] == [] and len(end(name="glm-web-7")["ids"]) == 1, "known by the name that it has"


def test_a_container_that_is_named_like_an_elastic_ip_is_none(cloud: Handle, make: Run, end: Run) -> None:
    make(name=ADDRESS)
    made = make(elastic_ip_product="eip.bgp")
    assert end(name=NAME)["ids"] == [made["container"]["id"], made["elastic_ip"]["id"]] and names(cloud) == [ADDRESS]


def test_only_what_was_confirmed_ends(cloud: Handle, run: Run, make: Run) -> None:
    first = make()["container"]["id"]
    assert "confirmed: expected the ids that were shown" in run(state="absent")["msg"]
    second = make(name="glm-web-2")["container"]["id"]
    changed = run(state="absent", confirmed=[first])
    assert changed["failed"] and f"joined: glm-web-2 ({second}). Nothing was ended" in changed["msg"]
    assert "glm-web-1" in changed["msg"] and "at a price that is not known" in changed["msg"]
    assert changes(cloud) == ["POST containers"] * 2
    one = run(state="absent", name=NAME, confirmed=[first])
    assert one["ids"] == [first] and names(cloud) == ["glm-web-2"]
    rest = run(state="absent", confirmed=[first, second])
    assert rest["ids"] == [second] and names(cloud) == [], "what is gone already needs no more"


@pytest.mark.parametrize("answer", [BUSY, LOST, Answer(200, {"ok": True}), Answer(200, None, raw=b"<html>")])
def test_a_lost_answer_is_found_by_its_name(cloud: Handle, make: Run, answer: Answer) -> None:
    fault(cloud, "POST", "containers$", answer, late=True)
    fault(cloud, "POST", "elastic-ips$", answer, late=True)
    made = make(elastic_ip_product="eip.bgp")
    assert made["changed"] and names(cloud) == [NAME, ADDRESS]
    assert kinds() == ["asked", "unknown", "launched"] * 2
    assert changes(cloud) == ["POST containers", "POST elastic-ips", "POST elastic-ips/associate"]


def test_an_outcome_that_nobody_knows_stays_open_and_is_named(
    cloud: Handle, make: Run, end: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(cloud, "POST", "containers$", LOST)
    lost = make()
    assert lost["failed"] and f"none named {NAME} has turned up, but one may still" in lost["msg"]
    assert lost["unsettled"] == [NAME] and "whether it was made is not known" in lost["msg"]
    assert "so it may exist, and is not asked for again" in make()["msg"] and changes(cloud) == ["POST containers"]
    empty = end()
    assert empty["unsettled"] == [NAME] and "asked for without an answer" in str(empty["warnings"])
    monkeypatch.setattr(ledger, "LATE_SECONDS", -(10.0**10))
    assert end()["unsettled"] == [NAME], "one list without it may be wrong"
    monkeypatch.setattr(record, "APART_SECONDS", -(10.0**10))
    assert make()["changed"] and kinds()[-4:] == ["missing", "gone", "asked", "launched"]


def test_what_turns_up_late_is_taken_and_can_be_ended(cloud: Handle, make: Run, end: Run) -> None:
    fault(cloud, "POST", "containers$", LOST)
    make()
    late = cloud.world.add_container(NAME, templateId="t-1", createdAt=ledger.stamp(time.time()))
    assert make()["container"]["id"] == late["id"] and kinds()[-1] == "launched"
    assert end()["ids"] == [late["id"]] and names(cloud) == []


@pytest.mark.parametrize("more", [{"createdAt": "2026-01-01T00:00:00Z"}, {"product": "container.h200.x1"}])
def test_what_only_has_its_name_is_not_taken_for_it(cloud: Handle, make: Run, end: Run, more: dict[str, str]) -> None:
    fault(cloud, "POST", "containers$", LOST)
    make()
    cloud.world.add_container(NAME, **more)
    assert "it may exist" in make()["msg"] and end()["ids"] == [] and names(cloud) == [NAME]


def test_a_refusal_is_closed_and_says_why(cloud: Handle, make: Run) -> None:
    refused = make(product="container.b200.x8")
    assert refused["failed"] and "no such product: container.b200.x8" in refused["msg"]
    assert "By its ledger the fleet has nothing" in refused["msg"] and kinds() == ["asked", "refused"]
    fault(cloud, "POST", "containers$", SLOW, times=2)
    assert make()["changed"] and changes(cloud) == ["POST containers"] * 4, "429 made nothing"
    fault(cloud, "POST", "containers$", Answer(403, {"message": "not enabled"}))
    assert "not enabled" in make(name="glm-web-2")["msg"] and kinds()[-2:] == ["asked", "refused"]


@pytest.mark.parametrize("answer", [BUSY, GONE, SLOW, LOST, Answer(400, {"message": "no"}), Answer(200, None, raw=b"")])
@pytest.mark.parametrize("late", [False, True])
def test_an_end_is_repeated_until_the_account_shows_it(
    cloud: Handle, make: Run, end: Run, answer: Answer, late: bool
) -> None:
    make(elastic_ip_product="eip.bgp")
    make(name="glm-web-2")
    fault(cloud, "DELETE", "containers/", answer, late=late)
    fault(cloud, "DELETE", "elastic-ips/", answer, late=late)
    fault(cloud, "GET", "containers$", BUSY)
    cloud.settings.script[-1].times = 0
    gone = end()
    assert not gone.get("failed"), gone
    assert names(cloud) == [] and kinds().count("gone") == 3


def test_a_list_that_does_not_come_proves_nothing(cloud: Handle, run: Run, make: Run, clock: Clock) -> None:
    identifier = make()["container"]["id"]
    seen = []

    def busy(seconds: float) -> None:
        clock.now += seconds
        seen.append(len(cloud.world.containers))
        if len(seen) == 1:
            fault(cloud, "GET", "containers$", BUSY, times=2)

    clock.sleep = busy  # type: ignore[method-assign]
    gone = run(state="absent", confirmed=[identifier])
    assert not gone.get("failed") and names(cloud) == [] and len(seen) >= 3


def test_what_is_not_ended_is_named_and_keeps_its_address(cloud: Handle, make: Run, end: Run) -> None:
    made = make(elastic_ip_product="eip.bgp")
    fault(cloud, "DELETE", "containers/", Answer(400, {"message": "prepaid until 2027"}), times=99)
    left = end(wait_timeout=60)
    assert left["failed"] and "prepaid until 2027" in left["msg"] and names(cloud) == [NAME, ADDRESS]
    assert f"{NAME} ({made['container']['id']}) is running" in left["msg"]
    assert f"{ADDRESS} ({made['elastic_ip']['id']}) is associated" in left["msg"]
    assert "DELETE elastic-ips" not in changes(cloud)
    cloud.settings.script.clear()
    cloud.world.looks = 60
    assert (
        end()["changed"] and names(cloud) == [] and changes(cloud)[-2:] == ["DELETE containers", "DELETE elastic-ips"]
    )


def test_an_elastic_ip_that_serves_another_container_by_now_stays(cloud: Handle, make: Run, end: Run) -> None:
    made = make(elastic_ip_product="eip.bgp")
    cloud.world.elastic_ips[0]["instanceID"] = cloud.world.add_container("other")["id"]
    left = end()
    assert left["failed"] and "bound to a container that is still there" in left["msg"]
    assert names(cloud) == ["other", ADDRESS] and made["elastic_ip"]["id"] in left["msg"]
    assert "DELETE elastic-ips" not in changes(cloud)


def test_an_elastic_ip_left_by_a_killed_run_is_found_and_used_or_released(cloud: Handle, make: Run, end: Run) -> None:
    fault(cloud, "POST", "associate$", Answer(400, {"message": "no"}), times=99)
    failed = make(elastic_ip_product="eip.bgp", wait_timeout=60)
    assert failed["failed"] and f"elastic IP {ADDRESS}" in failed["msg"] and "costs money all the same" in failed["msg"]
    assert changes(cloud).count("POST elastic-ips/associate") == present.REFUSALS
    cloud.settings.script.clear()
    assert make(elastic_ip_product="eip.bgp")["changed"] and changes(cloud).count("POST elastic-ips") == 1
    cloud.world.containers.clear()
    cloud.world.elastic_ips[0].update(instanceID=None, status="disassociated")
    gone = end()
    assert len(gone["ids"]) == 2 and names(cloud) == [], "a container that others ended proves itself gone by a 404"


def test_a_container_that_does_not_run_is_a_failure_that_names_it(cloud: Handle, make: Run) -> None:
    cloud.world.looks = 10**6
    slow = make(wait_timeout=20)
    identifier = cloud.world.containers[0]["id"]
    assert slow["failed"] and f"expected {NAME} ({identifier}) to run, found after" in slow["msg"]
    cloud.world.containers[0].update(status="error", reason="image not found")
    broken = make()
    assert broken["failed"] and "error (image not found). It may cost money" in broken["msg"]
    assert not make(wait=False).get("failed") and changes(cloud) == ["POST containers"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "web-1"}, "name: expected glm-web-…"),
        ({"name": "glm-web-"}, "name: expected glm-web-…"),
        ({"env": {"A": "1"}, "secret_env": {"A": "22222222"}}, "found twice: A"),
        ({"elastic_ip_product": "eip.bgp", "wait": False}, "only a container that runs gets one"),
        ({"product": None, "template_id": None}, "product, template_id or image must be set"),
    ],
)
def test_bad_options_are_refused(cloud: Handle, make: Run, options: dict[str, Any], words: str) -> None:
    refused = make(**options)
    assert refused["failed"] and words in refused["msg"] and changes(cloud) == []


def test_another_kind_of_container_is_no_container_of_this_name(make: Run) -> None:
    make()
    other = make(product="container.h200.x1")
    assert other["failed"] and "product container.h200.x8 (wanted: container.h200.x1)" in other["msg"]


def test_without_a_ledger_nothing_is_made(
    cloud: Handle, run: Run, make: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Unmet("room", "none", "make room")
    monkeypatch.setattr(ledger.Ledger, "append", lambda *_arguments: (_ for _ in ()).throw(full))
    refused = make()
    assert refused["failed"] and "expected room, found none; it was not asked for" in refused["msg"]
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setenv("GLM_LEDGER_DIR", str(tmp_path / "file"))
    for refused in (make(), run(state="absent", confirmed=[]), run(check=True, state="absent")):
        assert refused["failed"] and "ledger: expected to keep the ledger of launches in" in refused["msg"]
    assert changes(cloud) == []


def test_a_ledger_of_several_machines_that_cannot_be_read_is_no_empty_one(
    cloud: Handle, run: Run, make: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    before, made = names(cloud), changes(cloud)

    class Silent:
        address = "s3://b"

        def ask(self, _do: str, **_more: Any) -> Any:
            raise Unmet("to list s3://b", "no answer", "look at the store")

    monkeypatch.setattr(ledger.shared, "helper", Silent)
    for refused in (make(name=f"{NAME}2"), run(state="absent", confirmed=[]), run(check=True, state="absent")):
        assert refused["failed"] and "ledger: expected to list s3://b, found no answer" in refused["msg"]
    assert names(cloud) == before and changes(cloud) == made


def test_runs_for_one_fleet_wait_for_each_other(cloud: Handle, make: Run) -> None:
    with locks.only_run(cloud.base_url, "web", 1) as alone:
        assert alone
        refused = make(wait_timeout=0)
    assert refused["failed"] and "another run for this fleet" in refused["msg"] and changes(cloud) == []


def test_an_account_without_elastic_ips_has_none(cloud: Handle, run: Run, make: Run, end: Run) -> None:
    cloud.world.enabled.discard("elastic-ips")
    assert make()["changed"] and end()["changed"]
    cloud.world.enabled.add("elastic-ips")
    make(elastic_ip_product="eip.bgp")
    cloud.world.enabled.discard("elastic-ips")
    assert "HTTP 404" in run(check=True, state="absent")["msg"] and names(cloud) == [NAME, ADDRESS], (
        "what is ours cannot be no part of it"
    )


def test_the_cost_of_the_account_knows_the_fleet(cloud: Handle, make: Run) -> None:
    made = make(elastic_ip_product="eip.bgp", price_usd_per_hour=25.6)
    cloud.world.add_container("other")
    seen = holdings.read(Access(KEY, cloud.base_url, keep=True))
    fleets = {item.id: item.fleet for item in seen.held}
    assert [fleets[made["container"]["id"]], fleets[made["elastic_ip"]["id"]]] == ["web", "web"]
    assert sorted(fleets.values()) == ["", "web", "web"]
    prices = {item.name: (item.usd_per_hour, item.estimated) for item in seen.held}
    assert prices[NAME] == (25.6, True) and prices["other"] == prices[made["elastic_ip"]["ip"]] == (None, False)
    assert kinds() == ["asked", "launched"] * 2


def faults_of(chance: random.Random) -> list[Fault]:
    """What goes wrong in one run."""
    unknown = [BUSY, LOST, Answer(200, {"ok": True}), Answer(200, [{"id": "x" * 99}], cut=True)]
    kinds = [
        *(Fault("POST", "(containers|elastic-ips)$", answer, late=True) for answer in unknown),
        *(Fault("POST", "(containers|elastic-ips|associate)$", answer) for answer in (*unknown, SLOW, GONE)),
        *(Fault("DELETE", ".", answer, late=late) for answer in (*unknown, SLOW, GONE) for late in (False, True)),
        *(Fault("GET", "(containers|elastic-ips)$", answer) for answer in (BUSY, SLOW, LOST)),
    ]
    chosen = chance.sample(kinds, chance.choice([0, 1, 2, 4]))
    for one in chosen:
        one.times = chance.choice([1, 1, 2, 9])
    return chosen


@pytest.mark.parametrize("seed", range(8))
def test_random_histories(cloud: Handle, run: Run, make: Run, seed: int) -> None:
    """Nothing ends that nobody confirmed, nothing of ours is there without being named, and none is there twice."""
    chance = random.Random(seed)
    cloud.world.looks = chance.choice([0, 1, 3])
    foreign = [cloud.world.add_container(name)["id"] for name in ("glm-web-9", "other")]
    foreign.append(cloud.world.add_elastic_ip("198.51.100.7")["id"])
    confirmed: set[str] = set()
    ever: set[str] = set()
    for _step in range(chance.randint(4, 8)):
        cloud.settings.script = faults_of(chance)
        name = chance.choice([NAME, "glm-web-2"])
        if chance.random() < 0.6:
            make(name=name, elastic_ip_product=chance.choice([None, "eip.bgp"]), wait_timeout=60)
        else:
            only = {} if chance.random() < 0.3 else {"name": name}
            shown = run(check=True, state="absent", **only).get("ids", [])
            if chance.random() < 0.2:
                shown = shown[:-1]
            confirmed.update(shown)
            run(state="absent", confirmed=shown, wait_timeout=60, **only)
        there = {item["id"]: item["name"] for item in (*cloud.world.containers, *cloud.world.elastic_ips)}
        ever.update(there)
        lives = ledger.open_of(ledger.Ledger("gmi", "web").read())
        open_ids, open_names = {life.id for life in lives}, {life.name for life in lives if not life.id}
        assert set(foreign) <= set(there)
        assert ever - set(there) <= confirmed
        assert {name for key, name in there.items() if key not in (*open_ids, *foreign)} <= open_names
        assert sorted(there.values()) == sorted(set(there.values()))
    cloud.settings.script = []
    for _again in range(2):
        shown = run(check=True, state="absent")["ids"]
        assert not run(state="absent", confirmed=shown).get("failed")
    assert {item["id"] for item in (*cloud.world.containers, *cloud.world.elastic_ips)} == set(foreign)


def test_the_examples_are_valid() -> None:
    validator = ArgumentSpecValidator({**gmi_container.AUTH_ARGUMENTS, **gmi_container.ARGUMENTS})
    for task in yaml.safe_load(gmi_container.EXAMPLES):
        assert validator.validate(task["glm.fleet.gmi_container"]).error_messages == []
    documented = yaml.safe_load(gmi_container.DOCUMENTATION)["options"]
    assert set(documented) == set(gmi_container.ARGUMENTS)


def test_what_somebody_ends_while_it_is_waited_for_ends_the_wait(cloud: Handle, make: Run, clock: Clock) -> None:
    cloud.world.looks = 10**6
    begun, whole = clock.now, cloud.world.pass_time

    def pass_time() -> None:
        whole()
        if clock.now > begun + 60:
            cloud.world.containers.clear()

    cloud.world.pass_time = pass_time  # type: ignore[method-assign]
    ended = make()
    assert ended["failed"] and "is not there any more, though this run did not end it" in ended["msg"], ended["msg"]
    assert clock.now < begun + 120 and changes(cloud) == ["POST containers"]


def test_one_list_without_it_does_not_end_the_wait(cloud: Handle, make: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.world.looks = 6
    listed, looks = gmi_api.GmiApi.list_containers, list[int]()

    def some(api: gmi_api.GmiApi) -> list[dict[str, Any]]:
        looks.append(1)
        return [] if len(looks) == 4 else listed(api)

    monkeypatch.setattr(gmi_api.GmiApi, "list_containers", some)
    assert make()["container"]["status"] == "running" and len(looks) > 4


def test_the_ledger_says_which_run_made_it_and_the_action_what_is_waited_for(make: Run, tmp_path: Path) -> None:
    made = make(run="0123456789ab-77-88", progress_file=str(tmp_path / "progress"))
    assert {event["run"] for event in ledger.Ledger("gmi", "web").read()} == {"0123456789ab-77-88"}
    assert made["ids"] == [made["container"]["id"]]
    said = (tmp_path / "progress").read_text("utf-8")
    assert said == f"waiting for {NAME} ({made['container']['id']}) to run, it is creating"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_hourly_usd": 25}, "come to 25.60"),
        ({"max_hourly_usd": 25.65, **WITH_ADDRESS, "elastic_ip_price_usd_per_hour": 0.1}, "come to 25.70"),
        ({"max_hourly_usd": 99, **WITH_ADDRESS}, f"The price of {ADDRESS} is not known"),
        ({"max_hourly_usd": 99, "price_usd_per_hour": None}, "The price of container.h200.x8 is not known"),
        ({"max_monthly_usd": 0.01}, "expected at most 0.01 USD in 20"),
        ({"max_monthly_usd": 1e6, "price_usd_per_hour": None}, "The price of container.h200.x8 is not known"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_what_is_beyond_a_limit_or_has_no_price_is_not_made(
    cloud: Handle, make: Run, options: dict[str, Any], words: str, check: bool
) -> None:
    refused = make(check=check, **{"price_usd_per_hour": 25.6, **options})
    assert refused["failed"] and words in refused["msg"] and "Nothing was made" in refused["msg"], refused["msg"]
    assert changes(cloud) == [] and kinds() == []


def test_what_runs_and_what_it_has_cost_count_for_the_limits(cloud: Handle, make: Run) -> None:
    limits = {"price_usd_per_hour": 25.6, "max_hourly_usd": 51.2, "max_monthly_usd": 10**6}
    for name in (NAME, "glm-web-2"):
        assert not make(name=name, **limits).get("failed")
    assert "come to 76.80" in make(name="glm-web-3", **limits)["msg"]
    assert not make(**limits)["changed"], "what is there is no reason to fail"
    month = make(name="glm-web-3", price_usd_per_hour=0, max_monthly_usd=0.5)
    assert "for what runs (2)" in month["msg"] and len(cloud.world.containers) == 2
