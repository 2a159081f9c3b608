"""lambda_instance and what can happen to a fleet while it is launched, against the API simulator over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud import ledger, locks
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import ending, launching, members, present
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import fleet as _lambda_fleet
from ansible_collections.glm.fleet.plugins.modules import lambda_instance
from simulator.lambda_cloud import faults, instances
from simulator.lambda_cloud.backend import FakeBackend, HostState, LaunchSpec
from simulator.lambda_cloud.config import Config, Settings
from simulator.lambda_cloud.server import Handle, running
from simulator.lambda_cloud.types import InstanceRecord
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.modules.test_lambda_instance import Ended, Module

pytestmark = pytest.mark.one_core

KIND, OTHER_KIND = "gpu_8x_b200_sxm6", "gpu_8x_h100_sxm5"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cy1mcW0pdhL2lKq1zK0Zp0cB1b5vTq3o9mQGg0lq1"
TAGS = {"glm-fleet": "default"}


class Fates(FakeBackend):
    """Hosts that end as ``fates`` says, one for each launch in order; those without a fate boot well."""

    def __init__(self, *fates: str, public_pool: str = "192.0.2.0/24") -> None:
        super().__init__(polls_to_address=1, polls_to_ready=1, public_pool=public_pool)
        self.fates = list(fates)
        self.fate_of: dict[str, str] = {}
        # What happens when hosts that never boot have been looked at so often.
        self.looks = 0
        self.at_look: dict[int, Callable[[], Any]] = {}
        self.handle: Handle | None = None

    def launch(self, instance: LaunchSpec) -> None:
        super().launch(instance)
        if self.fates:
            self.fate_of[instance.id] = self.fates.pop(0)

    def poll(self, instance_id: str) -> HostState:
        fate = self.fate_of.get(instance_id, "well")
        if fate == "booting":
            self.looks += 1
            self.at_look.get(self.looks, str)()
            return HostState("booting")
        if fate == "unhealthy":
            return HostState("failed", detail="told by the test")
        if fate in ("preempted", "terminated") and self.handle is not None:
            instances.adjust(self.handle.world, instance_id, {"status": fate})
        return super().poll(instance_id)


@contextlib.contextmanager
def cloud_with(*fates: str, **more: Any) -> Iterator[Handle]:
    backend = Fates(*fates, **more)
    with running(Config(port=0), backend) as (_url, handle):
        backend.handle = handle
        handle.control(
            "PUT", "/capacity", {name: {"us-east-1": None, "us-west-1": None} for name in (KIND, OTHER_KIND)}
        )
        api_of(handle).add_ssh_key("deploy", PUBLIC_KEY)
        handle.control("DELETE", "/counters")
        yield handle


class Clock:
    """The time of waits: they take as long as they are, and none is over sooner on a busy machine."""

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (ending, members, present):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with cloud_with() as handle:
        yield handle


def api_of(cloud: Handle, **options: Any) -> lambda_api.LambdaApi:
    pacer = _cloud_api.Pacer(cloud.api_key, 0, 0)
    options = {"timeout": PATIENCE_SECONDS, "budget": PATIENCE_SECONDS, "sleep": lambda _seconds: None, **options}
    return lambda_api.LambdaApi(cloud.api_key, cloud.base_url, pacer, **options)


def run(
    cloud: Handle, check_mode: bool = False, api: lambda_api.LambdaApi | None = None, **options: Any
) -> dict[str, Any]:
    params = {
        **{name: spec.get("default") for name, spec in lambda_instance.ARGUMENTS.items()},
        "region": ["us-east-1", "us-west-1"], "instance_type": [KIND], "ssh_key_names": ["deploy"],
        "wait_interval": 0.005, "wait_timeout": PATIENCE_SECONDS, "launch_interval": 0, **options,
    }  # fmt: skip
    module = Module(params, check_mode)
    with pytest.raises(Ended) as ended:
        lambda_instance.act(module, api or api_of(cloud, retries=1))
    return {**ended.value.result, "warned": module.warnings}


def alive(cloud: Handle) -> list[str]:
    """Names of what is there to stay, whatever the API's answers say of it."""
    return sorted(item["name"] or "" for item in cloud.state()["instances"] if item["status"] in lambda_api.ALIVE)


def launches(cloud: Handle) -> int:
    return int(cloud.state()["pacing"]["counts"].get("launchInstance", 0))


# What a launch can answer.


def test_a_launch_that_failed_after_all_was_made_is_found_not_repeated(cloud: Handle) -> None:
    cloud.fault("late-error", path="launch$", code="global/internal-error", status=500)
    result = run(cloud, count=2)
    assert not result["failed"], result["msg"]
    assert alive(cloud) == result["launched"] == ["glm-default-1", "glm-default-2"]
    assert launches(cloud) == 2


@pytest.mark.parametrize("retry_after", ["0", None])
def test_a_launch_refused_as_too_fast_is_asked_again_with_or_without_a_time(
    cloud: Handle, retry_after: str | None
) -> None:
    cloud.fault("rate-limited", path="launch$", times=2, **({"retry_after": retry_after} if retry_after else {}))
    assert run(cloud)["launched"] == ["glm-default-1"]
    assert launches(cloud) == 3


def test_capacity_lost_after_the_listing_moves_on_and_any_other_refusal_does_not(cloud: Handle) -> None:
    cloud.fault("capacity-lost", path="launch$", times=2)
    assert run(cloud, instance_type=[KIND, OTHER_KIND])["instances"][0]["instance_type"] == OTHER_KIND
    cloud.fault("error", path="launch$", code="global/quota-exceeded", status=400)
    result = run(cloud, count=2, instance_type=[KIND, OTHER_KIND])
    assert result["failed"] and "global/quota-exceeded" in result["msg"]
    assert "Left running, at 31.92 USD per hour: glm-default-1" in result["msg"]


def test_a_key_that_expires_while_launching_leaves_a_failure_with_names(cloud: Handle) -> None:
    code = "global/invalid-api-key"
    cloud.fault("error", path="/(ssh-keys|instances|instance-operations)", code=code, status=401, times=999, after=3)
    result = run(cloud, count=3)
    assert result["failed"] and "global/invalid-api-key" in result["msg"]
    assert alive(cloud) == ["glm-default-1"]
    assert "could not be listed" in result["msg"] and "glm-default-1" in result["msg"]


def test_an_instance_whose_tags_were_dropped_is_named_when_the_listing_fails(cloud: Handle) -> None:
    cloud.settings(drop_tags=True)
    cloud.fault("unavailable", path="/instances$", times=2, after=1)
    result = run(cloud, count=1)
    assert result["failed"] and alive(cloud) == ["glm-default-1"]
    assert "Launched but without the tag glm-fleet: glm-default-1 (" in result["msg"]


# What becomes of an instance.


@pytest.mark.parametrize("fate", ["booting", "unhealthy", "preempted"])
def test_an_instance_that_does_not_come_up_is_named_or_replaced(fate: str, tmp_path: Path) -> None:
    with cloud_with("well", fate) as cloud:
        result = run(cloud, count=2, wait_timeout=0.2)
        assert result["failed"] and "glm-default-2" in result["msg"] and fate in result["msg"]
    with cloud_with("well", fate) as cloud:
        result = run(cloud, count=2, wait_timeout=0.2, replacements=1, evidence_dir=str(tmp_path / "evidence"))
        assert not result["failed"], result["msg"]
        assert alive(cloud) == ["glm-default-1", "glm-default-3"] == result["launched"]
        assert [entry["instance"]["name"] for entry in result["replaced"]] == ["glm-default-2"]
        kept = json.loads(Path(result["replaced"][0]["evidence"]).read_text("utf-8"))
        assert kept["instance"]["id"] == result["replaced"][0]["instance"]["id"]
        assert kept["reason"] and "jupyter" not in json.dumps(kept)


def test_no_more_are_replaced_than_allowed() -> None:
    with cloud_with("unhealthy", "unhealthy", "unhealthy") as cloud:
        result = run(cloud, replacements=2)
        assert result["failed"] and len(result["replaced"]) == 2
        assert alive(cloud) == ["glm-default-3"] and "glm-default-3 (unhealthy)" in result["msg"]
        assert launches(cloud) == 3


def test_a_node_that_failed_acceptance_is_replaced_once_with_the_evidence(cloud: Handle, tmp_path: Path) -> None:
    first = run(cloud, count=2)["instances"][0]
    verdict = {"checks": [{"check": "gpu", "ok": False}]}
    replace = [{"id": first["id"], "reason": "7 of 8 GPUs", "evidence": verdict}]
    dear = run(cloud, count=2, replace=replace, max_hourly_usd=100)
    assert dear["failed"] and "max_hourly_usd" in dear["msg"] and len(alive(cloud)) == 2, (
        "nothing is given back in vain"
    )
    planned = run(cloud, check_mode=True, count=2, replace=replace)
    assert planned["changed"] and planned["launched"] == ["glm-default-3"] and alive(cloud)[0] == "glm-default-1"
    assert planned["launch_price_usd_per_hour"] == 53.52 and planned["price_usd_per_hour"] == 53.52
    result = run(cloud, count=2, replace=replace, evidence_dir=str(tmp_path / "evidence"))
    assert result["launched"] == ["glm-default-3"] and alive(cloud) == ["glm-default-2", "glm-default-3"]
    evidence = tmp_path / "evidence" / f"glm-default-1-{first['id'][:8]}.json"
    kept = json.loads(evidence.read_text("utf-8"))
    assert kept["reason"] == "7 of 8 GPUs" and kept["found"] == verdict
    assert evidence.stat().st_mode & 0o777 == 0o600 and list(evidence.parent.iterdir()) == [evidence]
    again = run(cloud, count=2, replace=replace)
    assert not again["changed"] and again["replaced"] == []


def test_a_node_is_replaced_without_waiting_too(cloud: Handle) -> None:
    first = run(cloud)["instances"][0]
    result = run(cloud, replace=[{"id": first["id"], "reason": "x"}], wait=False)
    assert result["launched"] == ["glm-default-2"] == alive(cloud)


def test_without_a_place_for_the_evidence_nothing_is_given_back(cloud: Handle, tmp_path: Path) -> None:
    first = run(cloud)["instances"][0]
    (tmp_path / "file").write_text("", "utf-8")
    result = run(cloud, replace=[{"id": first["id"], "reason": "x"}], evidence_dir=str(tmp_path / "file" / "folder"))
    assert result["failed"] and "cannot be written" in result["msg"]
    assert alive(cloud) == ["glm-default-1"]


def test_a_member_that_ends_meanwhile_is_missed(cloud: Handle) -> None:
    with cloud_with("well", "well", "booting") as cloud:
        run(cloud, count=2)
        backend = cloud.backend
        assert isinstance(backend, Fates)
        first = next(iter(cloud.world.state.instances))
        backend.at_look = {
            10: lambda: backend.fate_of.update({first: "preempted"}),
            20: lambda: backend.fate_of.clear() or backend.fate_of.update({first: "preempted"}),
        }
        result = run(cloud, count=3)
        assert backend.looks >= 20
        assert result["failed"] and "expected 3 instances, found 2" in result["msg"]
        assert "glm-default-1" in result["msg"] and "is preempted" in result["msg"]


@pytest.mark.parametrize("waiting", [2, 1], ids=["all are waited for", "one is up"])
def test_what_another_run_ended_meanwhile_is_not_launched_again(waiting: int) -> None:
    with cloud_with("booting" if waiting == 2 else "well", "booting") as cloud:
        if waiting == 1:
            run(cloud, count=1)
        backend = cloud.backend
        assert isinstance(backend, Fates)
        ended: list[dict[str, Any]] = []
        other = threading.Thread(target=lambda: ended.append(run(cloud, state="absent")))
        backend.at_look = {20: other.start}
        result = run(cloud, count=2, replacements=2)
        other.join()
        assert not ended[0]["failed"] and len(ended[0]["terminated"]) == 2
        assert result["failed"] and "that another run ended glm-default-" in result["msg"], result
        assert alive(cloud) == [] and launches(cloud) == 2


@pytest.mark.parametrize("listed", [True, False], ids=["shown as terminated", "not listed any more"])
@pytest.mark.parametrize("whose", ["launched here", "there before"])
def test_what_somebody_ends_in_the_console_ends_the_wait(listed: bool, whose: str) -> None:
    with cloud_with("well", "booting", "booting") as cloud:
        run(cloud)
        backend, before = cloud.backend, next(iter(cloud.world.state.instances))
        assert isinstance(backend, Fates)

        def end() -> None:
            others = [key for key in cloud.world.state.instances if key != before]
            key = before if whose == "there before" else others[0]
            instances.adjust(cloud.world, key, {"status": "terminated"})
            if not listed:
                cloud.world.forget(key)

        backend.at_look = {20: end}
        result = run(cloud, count=3, replacements=3, wait_timeout=5)
        assert backend.looks < 40, "it goes on waiting for the others"
        name = "glm-default-1" if whose == "there before" else "glm-default-2"
        state = "terminated" if listed else "not there any more"
        assert result["failed"] and f"{name} (" in result["msg"] and f"is {state}, by another machine" in result["msg"]
        assert launches(cloud) == 3 and len(alive(cloud)) == 2


def test_one_list_without_an_instance_is_no_reason_to_launch_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with cloud_with("booting") as cloud:
        backend = cloud.backend
        assert isinstance(backend, Fates)
        whole = lambda_api.LambdaApi.list_instances
        looks: list[int] = []

        def listed(api: lambda_api.LambdaApi, cluster_id: str | None = None) -> list[lambda_api.Instance]:
            looks.append(1)
            return [] if len(looks) in (6, 7, 11) else whole(api, cluster_id)

        monkeypatch.setattr(lambda_api.LambdaApi, "list_instances", listed)
        backend.at_look = {15: backend.fate_of.clear}
        result = run(cloud, replacements=2, wait_timeout=60)
        assert len(looks) > 11 and not result["failed"], result["msg"]
        assert launches(cloud) == 1 and alive(cloud) == ["glm-default-1"] == result["launched"]


def test_what_has_lost_its_tag_is_ended_but_not_restarted(cloud: Handle) -> None:
    run(cloud, count=2)
    first, second = cloud.world.state.instances.values()
    first.tags = type(first.tags)()
    assert run(cloud, state="restarted")["restarted"] == [second.name]
    assert sorted(run(cloud, state="absent")["terminated"]) == sorted([first.name, second.name])


# Counting.


def test_names_that_are_not_unique_are_counted_each_and_not_used_again(cloud: Handle) -> None:
    cloud.seed(count=2, name="glm-default-1", tags=TAGS)
    result = run(cloud, count=3)
    assert result["launched"] == ["glm-default-2"] and len(alive(cloud)) == 3
    assert not run(cloud, count=3)["changed"]


def test_roles_are_counted_apart(cloud: Handle) -> None:
    assert run(cloud, count=1, role="serve")["launched"] == ["glm-default-serve-1"]
    assert run(cloud, count=2, role="draft")["launched"] == ["glm-default-draft-1", "glm-default-draft-2"]
    assert not run(cloud, count=3)["changed"], "without a role all of them count"
    assert run(cloud, role="draft", state="absent")["terminated"] == ["glm-default-draft-1", "glm-default-draft-2"]
    assert alive(cloud) == ["glm-default-serve-1"]


def test_surplus_is_kept_unless_it_shall_go_unhealthy_first_then_the_highest_number(cloud: Handle) -> None:
    cloud.seed(count=11, name="glm-default-{n}", tags=TAGS)
    ids = {item["name"]: item["id"] for item in cloud.state()["instances"]}
    cloud.adjust(ids["glm-default-4"], status="unhealthy")
    kept = run(cloud, count=9)
    assert not kept["changed"] and kept["surplus"] == ["glm-default-9", "glm-default-10"]
    planned = run(cloud, check_mode=True, count=9, surplus="terminate")
    assert planned["terminated"] == ["glm-default-4", "glm-default-10"] and len(alive(cloud)) == 11
    result = run(cloud, count=9, surplus="terminate")
    assert result["terminated"] == planned["terminated"] and len(alive(cloud)) == 9
    assert not run(cloud, count=9, surplus="terminate")["changed"]


def test_only_the_named_are_terminated(cloud: Handle) -> None:
    ids = [item["id"] for item in run(cloud, count=3)["instances"]]
    for nobody in ("somebody-else", "GLM-default-1", "glm-default-", "glm-default-*", ids[2][:8], "", "all"):
        for check_mode in (True, False):
            result = run(cloud, check_mode, state="absent", only=["glm-default-1", nobody])
            assert result["failed"] and f"found {nobody!r}; it has glm-default-1, " in result["msg"], result["msg"]
    result = run(cloud, state="absent", only=[])
    assert result["failed"] and "found an empty list; nothing was changed" in result["msg"]
    assert len(alive(cloud)) == 3
    result = run(cloud, state="absent", only=["glm-default-1", ids[2]])
    assert result["terminated"] == ["glm-default-1", "glm-default-3"]
    assert alive(cloud) == ["glm-default-2"] and result["price_usd_per_hour"] == 53.52


def test_what_stays_is_named_before_and_after(cloud: Handle) -> None:
    run(cloud, count=2)
    cloud.seed(name="safe", tags={**TAGS, "glm-protect": "yes"})
    refused = run(cloud, state="absent", unprotect=["glm-default-9"])
    assert refused["failed"] and "found glm-default-9; nothing was terminated" in refused["msg"]
    for check_mode in (True, False):
        told = run(cloud, check_mode, state="absent")
        assert told["terminated"] == ["glm-default-1", "glm-default-2"]
        assert (told["running"], told["protected"], told["price_usd_per_hour"]) == (["safe"], ["safe"], 53.52)
    assert alive(cloud) == ["safe"]


@pytest.mark.parametrize("open_", ["unknown", "launched"])
def test_a_fleet_of_which_nothing_is_listed_is_known_by_its_ledger(cloud: Handle, open_: ledger.Kind) -> None:
    cloud.seed(name="theirs", tags={"glm-fleet": "other"})
    more: dict[str, Any] = {"names": ["glm-default-1"], "ids": ["i1"] if open_ == "launched" else [], "launch": "l"}
    of_it = {"fleet": "default", "account": api_of(cloud).account, "run": "r", "at": "2026-11-01T00:00:00Z"}
    ledger.Ledger("lambda", "default").append(ledger.event(open_, **of_it, **more))
    told = run(cloud, check_mode=True, state="absent")
    assert (told["instances"], told["recorded"], told["other_fleets"]) == ([], 1, {"other": 1})
    assert run(cloud, check_mode=True, state="absent", fleet="defualt")["recorded"] == 0


def test_what_a_run_has_extended_meanwhile_is_left_out_where_that_counts(cloud: Handle) -> None:
    ids = [item["id"] for item in run(cloud, count=3)["instances"]]
    for identifier, hours in ((ids[0], -1), (ids[1], 1)):
        of_it = {"fleet": "default", "account": api_of(cloud).account, "run": "r", "ids": [identifier]}
        expires = ledger.stamp(time.time() + hours * 3600)
        ledger.Ledger("lambda", "default").append(ledger.event("kept", **of_it, names=["x"], expires=expires))
    looked = ledger.stamp(time.time() - 60)
    asked = {"state": "absent", "only": ids[:2], "confirmed": ids[:2], "unless_extended_since": looked}
    for check_mode in (True, False):
        told = run(cloud, check_mode, **asked)
        assert told["terminated"] == ["glm-default-1"], told
        assert "kept, because a run has extended its time: glm-default-2" in told["warned"][0]
    assert alive(cloud) == ["glm-default-2", "glm-default-3"]
    # Who looked later knew of it.
    later = ledger.stamp(time.time() + 60)
    told = run(cloud, **{**asked, "only": ids[1:2], "confirmed": ids[1:2], "unless_extended_since": later})
    assert told["terminated"] == ["glm-default-2"]


def test_restart(cloud: Handle) -> None:
    run(cloud, count=2)
    # A restart takes a while.
    cloud.settings(active_lag_seconds=0.2)
    planned = run(cloud, check_mode=True, state="restarted", only=["glm-default-2"])
    assert planned["restarted"] == ["glm-default-2"] and launches(cloud) == 2
    result = run(cloud, state="restarted", only=["glm-default-2"])
    assert result["changed"] and [item["status"] for item in result["instances"]] == ["active"]
    cloud.fault("late-error", path="restart$", status=500)
    assert run(cloud, state="restarted")["restarted"] == ["glm-default-1", "glm-default-2"]
    assert cloud.state()["pacing"]["counts"]["restartInstance"] == 2
    cloud.fault("error", path="restart$", status=500)
    failed = run(cloud, state="restarted")
    assert failed["failed"] and "global/internal-error" in failed["msg"] and "glm-default-1" in failed["msg"]
    cloud.adjust(result["instances"][0]["id"], status="booting")
    refused = run(cloud, state="restarted")
    assert refused["failed"] and "found glm-default-2 (vm-has-not-launched); none was restarted" in refused["msg"]


# Where instances go and what they have.


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_key_the_account_lacks_is_refused_before_a_launch(cloud: Handle, check_mode: bool) -> None:
    refused = run(cloud, check_mode=check_mode, ssh_key_names=["my-key"])
    assert refused["failed"] and launches(cloud) == 0
    assert "found none named my-key; it has deploy" in refused["msg"] and "lambda_ssh_key" in refused["msg"]


def test_a_region_without_the_file_system_or_the_rules_is_not_tried(cloud: Handle) -> None:
    api = api_of(cloud)
    wants = {"file_system_names": ["weights"], "firewall_rulesets": ["office"]}
    refused = run(cloud, **wants)
    assert refused["failed"] and launches(cloud) == 0
    assert "us-east-1 has no file system weights and no firewall ruleset office" in refused["msg"]
    api.create_file_system("weights", "us-west-1")
    ruleset = api.create_firewall_ruleset("office", "us-west-1", [])
    result = run(cloud, **wants)
    assert result["instances"][0]["region"] == "us-west-1"
    assert "us-east-1 has no file system weights" in result["warned"][0]
    listed = api.list_instances()[0]
    assert listed["file_system_names"] == ["weights"] and listed["firewall_rulesets"] == [{"id": ruleset["id"]}]


@pytest.mark.parametrize(
    ("limit", "kinds", "ok"),
    [(120, [KIND], True), (107.04, [KIND], True), (107.03, [KIND], False), (100, [OTHER_KIND, KIND], False),
     (100, ["gpu_16x_unheard_of"], False)],
)  # fmt: skip
def test_a_launch_that_could_cost_too_much_is_refused_before_it(
    cloud: Handle, limit: float, kinds: list[str], ok: bool
) -> None:
    run(cloud, role="other")
    result = run(cloud, count=1, role="serve", max_hourly_usd=limit, instance_type=kinds)
    assert result["failed"] is (not ok)
    if not ok:
        assert "max_hourly_usd" in result["msg"] and launches(cloud) == 1
        assert "Left running" in result["msg"] or "Nothing of this fleet" in result["msg"]


def test_cost_is_counted_from_the_launch_and_not_for_strangers(cloud: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.seed(name="mine", tags=TAGS)
    run(cloud, count=2)
    later = _lambda_fleet.time.time() + 1800
    monkeypatch.setattr(_lambda_fleet.time, "time", lambda: later)
    result = run(cloud, count=2)
    assert result["price_usd_per_hour"] == 107.04
    assert result["cost_usd_so_far"] == pytest.approx(26.76, abs=0.1)
    assert [item["cost_usd"] is None for item in result["instances"]] == [False, True]


@pytest.mark.parametrize("status", ["contactable", "hibernating"])
def test_a_status_type_and_region_nobody_knows_count_and_crash_nothing(cloud: Handle, status: str) -> None:
    strange = {"status": status, "region": {"name": "moon-1"}, "instance_type": None, "actions": [], "ip": None}
    cloud.seed(name="strange", tags=TAGS, overrides=strange)
    result = run(cloud, count=1, wait_timeout=0.05)
    assert result["failed"] and f"strange ({result['instances'][0]['id']}) is {status}" in result["msg"]
    assert launches(cloud) == 0
    assert run(cloud, count=1, wait=False)["instances"][0]["region"] == "moon-1"
    assert run(cloud, state="restarted", check_mode=True)["restarted"] == ["strange"]


def test_waiting_for_ssh_takes_an_answer_not_an_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, cloud_with(public_pool="127.0.0.0/24") as cloud:
        port = server.getsockname()[1]

        def greet() -> None:
            connection, _peer = server.accept()
            connection.sendall(b"SSH-2.0-test\r\n")
            connection.close()

        late = threading.Timer(0.3, greet)
        late.start()
        result = run(cloud, wait_for="ssh", ssh_port=port)
        late.join()
        assert not result["failed"], result["msg"]
    with cloud_with(public_pool="127.0.0.0/24") as cloud:
        result = run(cloud, wait_for="ssh", ssh_port=port, wait_timeout=0.1)
        assert result["failed"] and "ssh that answers" in result["msg"] and "glm-default-1" in result["msg"]


# Runs side by side, and the pace.


def side_by_side(cloud: Handle, number: int, **options: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    patient = {"wait_timeout": 600, **options}
    threads = [threading.Thread(target=lambda: results.append(run(cloud, **patient))) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_two_runs_of_one_user_launch_once(cloud: Handle) -> None:
    results = side_by_side(cloud, 2, count=4)
    assert [result["failed"] for result in results] == [False, False]
    assert alive(cloud) == [f"glm-default-{number}" for number in (1, 2, 3, 4)]
    assert launches(cloud) == 4
    assert sorted(result["changed"] for result in results) == [False, True]


def test_two_runs_on_two_machines_end_with_the_wanted_number(cloud: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two machines share neither the lock nor the pace.
    monkeypatch.setattr(locks, "only_run", lambda *_arguments: contextlib.nullcontext(True))
    # Between two looks a request of the other machine is answered, as in use, where it is ten seconds.
    results = side_by_side(cloud, 2, count=3, wait_interval=2)
    assert [result["msg"] for result in results if result["failed"]] == []
    # Whose launches stay depends on who looked first.
    assert len(set(alive(cloud))) == 3 == len(alive(cloud))
    given_back = [entry["instance"]["id"] for result in results for entry in result["replaced"]]
    assert launches(cloud) - len(given_back) == 3
    assert sorted(key for result in results for key in result["launched_ids"]) == sorted(
        item["id"] for item in cloud.state()["instances"] if item["status"] in lambda_api.ALIVE
    )


def test_a_run_that_cannot_wait_for_another_says_so(cloud: Handle) -> None:
    with locks.only_run(cloud.base_url, "default", 1) as alone:
        assert alone
        result = run(cloud, wait_timeout=0.3)
    assert result["failed"] and "another run for this fleet has been launching" in result["msg"]
    assert launches(cloud) == 0
    assert not run(cloud)["failed"]


def test_sixteen_nodes_keep_to_the_rate_limit(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    # By one clock on both sides, so that no machine is too busy for a request to arrive when it was sent.
    for module in (_cloud_api, launching, faults):
        monkeypatch.setattr(module, "time", clock)
    request, launch = 0.2, 0.7
    limits = Settings(
        rate_limit=True, request_interval=request, launch_interval=launch, rate_tolerance=0.5, retry_after=False
    )
    with running(Config(port=0, settings=limits), Fates()) as (_url, cloud):
        cloud.control("PUT", "/capacity", {KIND: {"us-east-1": None}})
        pacer = _cloud_api.Pacer(cloud.api_key, request, launch, tmp_path / "pace")
        api = lambda_api.LambdaApi(cloud.api_key, cloud.base_url, pacer, sleep=clock.sleep)
        api.add_ssh_key("deploy", PUBLIC_KEY)
        result = run(cloud, api=api, count=16, region=["us-east-1"], launch_interval=launch)
        assert not result["failed"], result["msg"]
        assert len(result["launched"]) == 16 and len(alive(cloud)) == 16
        pacing = cloud.state()["pacing"]
        assert (pacing["too_fast"], pacing["too_fast_launches"]) == (0, 0), pacing
        assert pacing["counts"]["launchInstance"] == 16 and pacing["smallest_launch_gap_seconds"] > 0.5


# Whatever happens.

STRANGE = {"region": {"name": "moon-1"}, "instance_type": {"name": "npu_1x_new"}, "actions": {"sing": {}}}
LAUNCH_EVENTS: dict[str, Callable[[Handle, int], Any]] = {
    "capacity lost": lambda cloud, after: cloud.fault("capacity-lost", path="launch$", after=after),
    "too fast": lambda cloud, after: cloud.fault("rate-limited", path="launch$", after=after),
    "too fast, try now": lambda cloud, after: cloud.fault("rate-limited", path="launch$", after=after, retry_after="0"),
    "answer lost": lambda cloud, after: cloud.fault("answer-lost", path="launch$", after=after),
    "half an answer": lambda cloud, after: cloud.fault("truncated", path="launch$", after=after),
    "500 after the launch": lambda cloud, after: cloud.fault("late-error", path="launch$", after=after),
    "500 without a launch": lambda cloud, after: cloud.fault("error", path="launch$", after=after),
    "refused": lambda cloud, after: cloud.fault("error", code="global/quota-exceeded", path="launch$", after=after),
    "reset": lambda cloud, after: cloud.fault("reset", path="launch$", after=after),
    "listing fails once": lambda cloud, after: cloud.fault("unavailable", path="/instances$", after=after),
    "listing fails": lambda cloud, after: cloud.fault("unavailable", path="/instances$", after=after, times=4),
    "terminating fails": lambda cloud, after: cloud.fault("error", path="terminate$"),
    "terminating fails but does": lambda cloud, after: cloud.fault("late-error", path="terminate$"),
    "key expires": lambda cloud, after: cloud.fault(
        "error", code="global/invalid-api-key", status=401, times=9999, after=after * 3
    ),
    "duplicate name": lambda cloud, after: cloud.seed(name="glm-default-1", tags=TAGS),
    "preempted before": lambda cloud, after: cloud.seed(name="glm-default-2", tags=TAGS, status="preempted"),
    "another fleet": lambda cloud, after: cloud.seed(name="glm-other-1", tags={"glm-fleet": "other"}),
    "tags are dropped": lambda cloud, after: cloud.settings(drop_tags=True),
    "a status, type and region nobody knows": lambda cloud, after: cloud.seed(
        name="strange", tags=TAGS, overrides={**STRANGE, "status": "hibernating"}
    ),
    "a name and tags that are missing": lambda cloud, after: cloud.seed(
        name=None, overrides={"name": None, "tags": None, "ip": None, "actions": None}
    ),
}  # fmt: skip
FATES = ("well", "booting", "unhealthy", "preempted", "terminated")


def whatever_happens(examples: int, events: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with many sequences of fates and events, the same ones each time."""
    quiet = settings(
        max_examples=examples, derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    anything = given(
        fates=st.lists(st.sampled_from(FATES), max_size=5),
        events=st.lists(st.tuples(st.sampled_from(sorted(events)), st.integers(0, 3)), max_size=4),
        count=st.integers(1, 3),
        replacements=st.integers(0, 2),
    )
    return lambda test: quiet(anything(test))


@contextlib.contextmanager
def struck_cloud(fates: list[str], events: list[tuple[str, int]]) -> Iterator[tuple[Handle, set[str]]]:
    """A cloud in which that happens, and the ids that are there before anybody runs."""
    with cloud_with(*fates) as cloud:
        for name, after in events:
            LAUNCH_EVENTS[name](cloud, after)
        yield cloud, {record.id for record in there(cloud)}


@whatever_happens(80, LAUNCH_EVENTS)
def test_a_run_ends_with_exactly_the_wanted_number_or_names_every_instance_it_left(
    fates: list[str], events: list[tuple[str, int]], count: int, replacements: int
) -> None:
    with struck_cloud(fates, events) as (cloud, before):
        result = run(cloud, count=count, replacements=replacements, wait_timeout=0.15, wait_interval=0.005)
        left = there(cloud)
        if result["failed"]:
            assert " Next: " in result["msg"]
            if "The running instances could not be listed" in result["msg"]:
                # The key was refused before the run saw anything: it launched nothing and says where to look.
                assert {record.id for record in left} == before
            else:
                assert [record.name for record in left if str(record.name) not in result["msg"]] == [], result["msg"]
        else:
            assert len(left) == max(count, len(before))
            assert len(result["instances"]) == len(left)
            assert all(record.ip for record in left)


# What strikes either run; a key that expires or tags that are dropped end both in the ways shown above.
SHARED_EVENTS = set(LAUNCH_EVENTS) - {"key expires", "tags are dropped", "listing fails"}


@whatever_happens(40, SHARED_EVENTS)
def test_two_runs_at_once_never_launch_twice_whatever_happens(
    fates: list[str], events: list[tuple[str, int]], count: int, replacements: int
) -> None:
    with struck_cloud(fates, events) as (cloud, before):
        options = {"count": count, "replacements": replacements, "wait_timeout": 0.3, "wait_interval": 0.005}
        results = side_by_side(cloud, 2, **options)
        left = there(cloud)
        assert len(left) <= max(count, len(before))
        if not any(result["failed"] for result in results):
            assert len(left) == max(count, len(before))
        told = " ".join(result["msg"] for result in results if result["failed"])
        if all(result["failed"] for result in results):
            assert [record.name for record in left if str(record.name) not in told] == [], told


def there(cloud: Handle) -> list[InstanceRecord]:
    """What is there to stay of the fleet, tag or no tag, without asking the API, which may be about to fail."""
    return [
        record
        for record in cloud.world.state.instances.values()
        if record.status in lambda_api.ALIVE and record.name and not record.name.startswith("glm-other")
    ]
