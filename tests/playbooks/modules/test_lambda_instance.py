"""lambda_instance against a small cloud over HTTP: what it launches, what it never does twice, what its errors say."""

from __future__ import annotations

import calendar
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import api as lambda_api
from ansible_collections.glm.fleet.plugins.module_utils.cloud.lambda_cloud import members
from ansible_collections.glm.fleet.plugins.modules import lambda_instance
from tests.patience import PATIENCE_SECONDS
from tests.playbooks.lambda_api.fake_cloud import (
    B200,
    JUPYTER_TOKEN,
    KEY,
    Answer,
    FakeCloud,
    Request,
    data,
    error,
    make_instance,
    serve,
)

ROOT = Path(__file__).parents[3]
LAUNCH = "/api/v1/instance-operations/launch"
TERMINATE = "/api/v1/instance-operations/terminate"


class Launching(FakeCloud):
    """A cloud that also launches and terminates: a launch is listed as booting and has its address at the next look."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.no_capacity: set[tuple[str, str]] = set()
        self.launch_answers: list[Answer | None] = []
        self.lose_answer = False
        self.addresses = True
        cloud.handler = self.handle

    def handle(self, request: Request) -> Answer:
        if request.path == LAUNCH:
            return self.launch(request.body)
        if request.path == TERMINATE:
            return self.terminate(request.body["instance_ids"])
        answer = self.cloud.answer(request)
        for instance in self.cloud.instances:
            if instance["status"] == "booting" and self.addresses:
                instance.update(status="active", ip="203.0.113.9")
        return answer

    def launch(self, body: dict[str, Any]) -> Answer:
        if self.launch_answers:
            answer = self.launch_answers.pop(0)
            if answer is not None:
                return answer
        if (body["instance_type_name"], body["region_name"]) in self.no_capacity:
            return error(400, lambda_api.CAPACITY_CODE, "Not enough capacity.")
        new = make_instance(
            100 + len(self.cloud.instances), name=body["name"], ip=None, status="booting", tags=body["tags"],
            region={"name": body["region_name"], "description": ""},
        )  # fmt: skip
        self.cloud.instances.append(new)
        answer = data({"instance_ids": [new["id"]]})
        answer.cut = self.lose_answer
        return answer

    def terminate(self, ids: list[str]) -> Answer:
        chosen = [item for item in self.cloud.instances if item["id"] in ids]
        for item in chosen:
            item["status"] = "terminating"
        return data({"terminated_instances": chosen})

    def launched(self) -> list[dict[str, Any]]:
        return [request.body for request in self.cloud.requests if request.path == LAUNCH]


class Ended(Exception):
    """The module ended; ``result`` is what it returned."""

    def __init__(self, **result: Any) -> None:
        self.result = result
        super().__init__(json.dumps(result, default=str))


class Module:
    """What ``Fleet`` uses of an AnsibleModule."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self.no_log_values: set[str] = set()

    def exit_json(self, **result: Any) -> None:
        raise Ended(failed=False, **result)

    def fail_json(self, **result: Any) -> None:
        raise Ended(failed=True, **result)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def cloud() -> Iterator[Launching]:
    with serve() as running:
        yield Launching(running)


def launch_time(value: str) -> float:
    """Seconds since the epoch of a value like 20261121T072721Z."""
    return calendar.timegm(time.strptime(value, "%Y%m%dT%H%M%SZ"))


def run(cloud: Launching, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    defaults = {name: spec.get("default") for name, spec in lambda_instance.ARGUMENTS.items()}
    params = {
        **defaults, "region": ["us-east-1"], "instance_type": [B200["name"]], "ssh_key_names": ["deploy"],
        "wait_interval": 0.01, "launch_interval": 0, "wait_timeout": 0.2, **options,
    }  # fmt: skip
    pacer = _cloud_api.Pacer(KEY, request_interval=0, launch_interval=0)
    api = lambda_api.LambdaApi(KEY, cloud.cloud.url, pacer=pacer, retries=0)
    fleet = lambda_instance.Fleet(Module(params, check_mode), api)
    with pytest.raises(Ended) as ended:
        getattr(fleet, params["state"])()
    return ended.value.result


def test_what_is_waited_for_is_written_down_for_the_action(cloud: Launching, tmp_path: Path) -> None:
    cloud.addresses = False
    cloud.cloud.instances = [make_instance(1, name="glm-default-1")]
    result = run(cloud, count=2, progress_file=str(tmp_path / "progress"))
    assert result["failed"] and "wait" in result["msg"]
    identifier = cloud.cloud.instances[1]["id"]
    expected = f"1 of 2 up, waiting for an address: glm-default-2 ({identifier}) is booting"
    assert (tmp_path / "progress").read_text("utf-8") == expected
    ended = run(cloud, state="absent", progress_file=str(tmp_path / "folder" / "progress"))
    assert ended["terminated"] == ["glm-default-1", "glm-default-2"]


def test_launches_what_is_missing_and_nothing_the_second_time(cloud: Launching) -> None:
    cloud.cloud.instances = [
        make_instance(1, name="glm-default-1"),
        make_instance(2, name="glm-default-2", status="terminated"),
        make_instance(3, name="other", tags=[{"key": "glm-fleet", "value": "other"}]),
        make_instance(4, name="untagged", tags=None),
    ]
    result = run(cloud, count=3, tags={"role": "serve"}, user_data="#cloud-config")
    assert result["changed"] is True
    assert result["launched"] == ["glm-default-3", "glm-default-4"]
    assert [item["name"] for item in result["instances"]] == ["glm-default-1", "glm-default-3", "glm-default-4"]
    assert all(item["ip"] for item in result["instances"])
    assert result["price_usd_per_hour"] == pytest.approx(3 * 53.52)
    assert result["diff"]["after"]["instances"] == ["glm-default-1", "glm-default-3", "glm-default-4"]
    assert JUPYTER_TOKEN not in json.dumps(result)
    request = cloud.launched()[0]
    stamp = request["tags"].pop(1)
    assert stamp["key"] == "glm-launched" and abs(time.time() - launch_time(stamp["value"])) < 60
    assert request == {
        "region_name": "us-east-1",
        "instance_type_name": "gpu_8x_b200_sxm6",
        "ssh_key_names": ["deploy"],
        "name": "glm-default-3",
        "image": {"family": "gpu-base-24-04"},
        "tags": [{"key": "glm-fleet", "value": "default"}, {"key": "role", "value": "serve"}],
        "user_data": "#cloud-config",
    }
    again = run(cloud, count=3)
    assert again["changed"] is False
    assert again["launched"] == []
    assert len(cloud.launched()) == 2


def test_an_unknown_status_counts_as_existing(cloud: Launching) -> None:
    cloud.cloud.instances = [make_instance(1, status="contactable")]
    assert run(cloud, count=1)["changed"] is False


def test_check_mode_sends_nothing(cloud: Launching) -> None:
    result = run(cloud, check_mode=True, count=2)
    assert result["changed"] is True
    assert result["launched"] == ["glm-default-1", "glm-default-2"]
    assert result["diff"] == {
        "before": {"instances": []},
        "after": {"instances": ["glm-default-1", "glm-default-2"]},
    }
    assert cloud.launched() == []


@pytest.mark.parametrize("state", ["present", "absent"])
def test_other_fleets_of_the_account_are_counted(cloud: Launching, state: str) -> None:
    def tagged(number: int, fleet: str, status: str = "active") -> dict[str, Any]:
        tags = [{"key": "glm-fleet", "value": fleet}]
        return make_instance(number, name=f"{fleet}-{number}", status=status, tags=tags)

    cloud.cloud.instances = [
        tagged(1, "staging"), tagged(2, "production"), tagged(3, "staging", "unhealthy"),
        tagged(4, "gone", "terminated"), make_instance(5, name="untagged", tags=None),
    ]  # fmt: skip
    assert run(cloud, check_mode=True, state=state)["other_fleets"] == {"production": 1, "staging": 2}
    result = run(cloud, state=state)
    assert result["other_fleets"] == {"production": 1, "staging": 2}
    assert result["changed"] is (state == "present")
    assert run(cloud, state=state, fleet="staging")["other_fleets"].get("staging") is None


def test_a_key_in_a_file_is_enough(cloud: Launching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in lambda_api.KEY_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    result = ansible(cloud, {}, "--check", api_key_file=str(tmp_path / "key"), base_url=cloud.cloud.url, count=0)
    assert result["changed"] is False and result["other_fleets"] == {}


def test_only_lack_of_capacity_leads_to_the_next_candidate(cloud: Launching) -> None:
    cloud.no_capacity = {("a", "r1"), ("a", "r2"), ("b", "r1")}
    result = run(cloud, region=["r1", "r2"], instance_type=["a", "b"])
    assert [(body["instance_type_name"], body["region_name"]) for body in cloud.launched()] == [
        ("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "r2"),
    ]  # fmt: skip
    assert result["instances"][0]["region"] == "r2"


def test_another_refusal_ends_the_run_and_tells_the_bill(cloud: Launching) -> None:
    cloud.launch_answers = [None, error(400, "global/quota-exceeded", "Quota exceeded.")]
    result = run(cloud, count=2, region=["r1", "r2"])
    assert result["failed"] and result["changed"]
    assert result["launched"] == ["glm-default-1"]
    assert "global/quota-exceeded" in result["msg"]
    assert "Left running, at 53.52 USD per hour: glm-default-1" in result["msg"]
    assert len(cloud.launched()) == 2


def test_no_capacity_anywhere_names_what_was_tried(cloud: Launching) -> None:
    cloud.no_capacity = {("a", "r1"), ("a", "r2")}
    result = run(cloud, region=["r1", "r2"], instance_type=["a"])
    assert result["failed"] and not result["changed"]
    assert "no capacity for glm-default-1. Tried a in r1, a in r2." in result["msg"]
    assert "Nothing of this fleet is running." in result["msg"]


def test_a_launch_whose_answer_is_lost_is_found_by_name_not_repeated(cloud: Launching) -> None:
    cloud.lose_answer = True
    result = run(cloud, count=2)
    assert result["launched"] == ["glm-default-1", "glm-default-2"]
    assert not result["failed"]
    assert len(cloud.launched()) == 2
    assert len(cloud.cloud.instances) == 2


def test_a_launch_that_failed_without_a_trace_is_not_repeated(cloud: Launching) -> None:
    cloud.launch_answers = [error(500, "global/internal-error", "Oops.")]
    result = run(cloud)
    assert result["failed"]
    assert "no instance named glm-default-1 has turned up, but one may still" in result["msg"]
    assert len(cloud.launched()) == 1
    listings = [request for request in cloud.cloud.requests if request.method == "GET"]
    assert len(listings) >= members.RECONCILE_LOOKS


def test_a_launch_refused_for_being_too_fast_is_asked_again(cloud: Launching) -> None:
    too_fast = error(429, "global/too-many-requests", **{"Retry-After": "0"})
    cloud.launch_answers = [too_fast, too_fast, None]
    assert run(cloud)["launched"] == ["glm-default-1"]
    cloud.launch_answers = [too_fast] * 3
    result = run(cloud, count=2)
    assert result["failed"] and "429" in result["msg"]


def test_an_instance_that_never_gets_an_address_is_named(cloud: Launching) -> None:
    cloud.addresses = False
    result = run(cloud, count=1)
    assert result["failed"]
    identity = cloud.cloud.instances[0]["id"]
    assert f"found none on: glm-default-1 ({identity}) is booting." in result["msg"]
    assert "USD per hour" in result["msg"]


def test_an_instance_that_dies_while_booting_ends_the_wait(cloud: Launching) -> None:
    cloud.addresses = False
    looks = []

    def handle(request: Request) -> Answer:
        if not request.path.endswith("/instance-types"):
            looks.append(request.path)
        if len(looks) > 4:
            cloud.cloud.instances[0]["status"] = "terminated"
        return cloud.handle(request)

    cloud.cloud.handler = handle
    result = run(cloud, wait_timeout=PATIENCE_SECONDS)
    assert result["failed"]
    assert "is terminated, by another machine's run, in the console, or by the cloud; nothing" in result["msg"]
    assert "Nothing of this fleet is running. Next: run again to launch others" in result["msg"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"region": []}, "to launch, region must be set"),
        ({"ssh_key_names": []}, "to launch, ssh_key_names must be set"),
        ({"tags": {"Bad_Key": "x"}}, "Bad_Key cannot be used"),
        ({"name_prefix": "x" * 64}, "more than 64 characters"),
    ],
)
def test_bad_options_are_refused_before_anything_is_launched(
    cloud: Launching, options: dict[str, Any], text: str
) -> None:
    result = run(cloud, **options)
    assert result["failed"] and text in result["msg"]
    assert cloud.launched() == []


def test_absent_terminates_what_the_tag_marks_and_only_that(cloud: Launching) -> None:
    cloud.cloud.instances = [
        make_instance(1, name="a"),
        make_instance(2, name="b", status="terminating"),
        make_instance(3, name="c", tags=[{"key": "glm-fleet", "value": "other"}]),
        make_instance(4, name="d", status="unhealthy"),
    ]
    planned = run(cloud, check_mode=True, state="absent")
    assert planned["terminated"] == ["a", "d"]
    assert planned["diff"] == {"before": {"instances": ["a", "d"]}, "after": {"instances": []}}
    assert [item["status"] for item in cloud.cloud.instances] == ["active", "terminating", "active", "unhealthy"]
    result = run(cloud, state="absent")
    assert result["changed"] is True
    assert result["terminated"] == ["a", "d"]
    assert [item["status"] for item in cloud.cloud.instances] == ["terminating", "terminating", "active", "terminating"]
    assert run(cloud, state="absent")["changed"] is False


def test_terminating_without_an_answer_is_checked(cloud: Launching) -> None:
    cloud.cloud.instances = [make_instance(1, name="a")]

    def handle(request: Request) -> Answer:
        answer = cloud.handle(request)
        return error(500, "global/internal-error") if request.path == TERMINATE else answer

    cloud.cloud.handler = handle
    assert run(cloud, state="absent")["changed"] is True
    cloud.cloud.instances = [make_instance(2, name="b")]
    cloud.cloud.handler = lambda request: error(500, "x") if request.path == TERMINATE else cloud.cloud.answer(request)
    result = run(cloud, state="absent")
    assert result["failed"] and "Left running, at 53.52 USD per hour: b (active)" in result["msg"]


def ansible(cloud: Launching, environment: dict[str, str], *options: str, **arguments: Any) -> dict[str, Any]:
    """Run the module the way a playbook does and return its result."""
    command = [
        str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local",
        "-m", "glm.fleet.lambda_instance", "-a", json.dumps({"request_interval": 0, "launch_interval": 0, **arguments}),
        *options,
    ]  # fmt: skip
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LAMBDA")},
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        **environment,
    }
    output = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False).stdout
    assert "=> {" in output, output
    result: dict[str, Any] = json.loads(output[output.rindex("=> {") + 3 :])
    return result


def test_a_real_run_takes_key_and_address_from_the_environment_and_shows_neither_key_nor_tokens(
    cloud: Launching,
) -> None:
    environment = {"LAMBDA_API_KEY": KEY, "LAMBDALABS_API_KEY": "wrong", "LAMBDA_API_URL": cloud.cloud.url}
    cloud.cloud.instances = [make_instance(1)]
    result = ansible(
        cloud, environment, "-vvv", count=2, region=["r"], instance_type=["t"], ssh_key_names=["deploy"],
        wait_interval=0.1,
    )  # fmt: skip
    assert result["changed"] is True
    assert result["launched"] == ["glm-default-1"]
    assert KEY not in json.dumps(result) and JUPYTER_TOKEN not in json.dumps(result)


def test_a_real_run_without_key_says_where_to_get_one(cloud: Launching) -> None:
    result = ansible(cloud, {"LAMBDA_API_URL": cloud.cloud.url})
    assert "no API key. Set the environment variable LAMBDA_API_KEY" in result["msg"]
    assert lambda_api.API_KEY_PAGE in result["msg"]


def test_a_real_run_with_a_wrong_key_says_so(cloud: Launching, tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text("another-key-0123456789\n", encoding="utf-8")
    result = ansible(cloud, {}, api_key_file=str(tmp_path / "key"), base_url=cloud.cloud.url)
    assert "global/invalid-api-key" in result["msg"]
    assert "another-key-0123456789" not in json.dumps(result)
