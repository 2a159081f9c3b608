"""The modules for what instances are launched with and from, against the API simulator over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils.cloud import api as _cloud_api
from ansible_collections.glm.fleet.plugins.modules import (
    lambda_filesystem,
    lambda_firewall_ruleset,
    lambda_image_info,
    lambda_instance,
    lambda_instance_type_info,
    lambda_region_info,
    lambda_ssh_key,
)
from simulator.lambda_cloud.config import Config
from simulator.lambda_cloud.server import Handle, running
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]
MODULES = {
    "lambda_filesystem": lambda_filesystem,
    "lambda_firewall_ruleset": lambda_firewall_ruleset,
    "lambda_image_info": lambda_image_info,
    "lambda_instance": lambda_instance,
    "lambda_instance_type_info": lambda_instance_type_info,
    "lambda_region_info": lambda_region_info,
    "lambda_ssh_key": lambda_ssh_key,
}
KEY_A = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1cy1mcW0pdhL2lKq1zK0Zp0cB1b5vTq3o9mQGg0lq1"
KEY_B = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2cy1mcW0pdhL2lKq1zK0Zp0cB1b5vTq3o9mQGg0lq2"
SSH = {"protocol": "tcp", "ports": [22], "source": "203.0.113.0/24", "description": "ssh"}
PING = {"protocol": "icmp", "source": "203.0.113.7"}

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def cloud() -> Iterator[Handle]:
    with running(Config(port=0)) as (_url, handle):
        yield handle


@pytest.fixture
def run(cloud: Handle, run_module: Run) -> Run:
    """``run(module, check=False, **options)`` with the simulator's key and address, and without its pace."""

    def call(module: Any, check: bool = False, **options: Any) -> dict[str, Any]:
        account = {
            "api_key": cloud.api_key, "base_url": cloud.base_url, "request_interval": 0, "retries": 0,
        }  # fmt: skip
        return run_module(module.main, check=check, **{**account, **options})

    return call


def changes(cloud: Handle) -> list[str]:
    """The operations so far that were not reads."""
    seen = cloud.state()["pacing"]["requests"]
    return [item["operation"] for item in seen if item["method"] != "GET"]


# File systems.


def test_a_file_system_is_made_once_and_deleted_once(cloud: Handle, run: Run) -> None:
    planned = run(lambda_filesystem, check=True, name="weights", region="us-east-1")
    assert planned["changed"] and planned["filesystem"] == {} and changes(cloud) == []
    assert planned["diff"] == {"before": {}, "after": {"name": "weights", "region": "us-east-1"}}
    made = run(lambda_filesystem, name="weights", region="us-east-1")
    assert made["changed"]
    assert made["filesystem"]["mount_point"] == "/lambda/nfs/weights"
    again = run(lambda_filesystem, name="weights", region="us-east-1")
    assert not again["changed"] and again["filesystem"]["id"] == made["filesystem"]["id"]
    elsewhere = run(lambda_filesystem, name="weights", region="us-west-1")
    assert elsewhere["changed"] and elsewhere["filesystem"]["region"] == "us-west-1"
    gone = run(lambda_filesystem, name="weights", region="us-east-1", state="absent")
    assert gone["changed"] and gone["filesystem"] == {}
    assert not run(lambda_filesystem, name="weights", region="us-east-1", state="absent")["changed"]
    assert not run(lambda_filesystem, name="weights", region="us-west-1")["changed"]


@pytest.mark.parametrize("kind", ["answer-lost", "truncated"])
def test_a_file_system_made_without_an_answer_is_found_not_made_again(cloud: Handle, run: Run, kind: str) -> None:
    cloud.fault(kind, path="/filesystems$", method="POST")
    made = run(lambda_filesystem, name="weights", region="us-east-1")
    assert made["changed"] and made["filesystem"]["name"] == "weights"
    assert changes(cloud) == ["createFilesystem"]


def test_a_file_system_released_late_is_deleted_when_it_is(cloud: Handle, run: Run) -> None:
    place = {"name": "weights", "region": "us-east-1"}
    run(lambda_filesystem, **place)
    hour = 3600.0
    cloud.settings(release_seconds=hour, release_reads=0)
    run(lambda_ssh_key, name="deploy", public_key=KEY_A)
    launch = {
        "count": 1, "region": ["us-east-1"], "instance_type": ["gpu_8x_b200_sxm6"], "ssh_key_names": ["deploy"],
        "file_system_names": ["weights"], "launch_interval": 0, "wait_interval": 0.05,
    }  # fmt: skip
    assert run(lambda_instance, **launch)["changed"]
    refused = run(lambda_filesystem, **place, state="absent")
    assert refused["failed"] and "expected no instance to have it attached, found glm-default-1" in refused["msg"]
    assert "deleteFilesystem" not in changes(cloud)
    assert run(lambda_instance, state="absent", wait_interval=0.05)["changed"]
    short = run(lambda_filesystem, **place, state="absent", wait_timeout=0.1, wait_interval=0.05)
    assert short["failed"] and "filesystems/filesystem-in-use" in short["msg"]
    released = time.time() + hour
    cloud.world.clock = lambda: released
    assert run(lambda_filesystem, **place, state="absent", wait_timeout=PATIENCE_SECONDS, wait_interval=0.1)["changed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "1st", "region": "us-east-1"}, "expected a letter followed by up to 59"),
        ({"name": "weights", "region": "moon-1"}, "global/object-does-not-exist"),
        ({"name": "weights", "region": "us-east-1", "api_key": "expired-key-0123456789"}, "global/invalid-api-key"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(run: Run, options: dict[str, Any], words: str) -> None:
    result = run(lambda_filesystem, **options)
    assert result["failed"] and words in result["msg"]
    assert result["msg"].startswith(f"file system {options['name']} in {options['region']}, ")
    assert " Next: " in result["msg"]
    assert "expired-key-0123456789" not in json.dumps(result["msg"])


# SSH keys.


def test_a_key_is_registered_compared_and_removed(cloud: Handle, run: Run) -> None:
    planned = run(lambda_ssh_key, check=True, name="deploy", public_key=KEY_A)
    assert planned["changed"] and changes(cloud) == []
    made = run(lambda_ssh_key, name="deploy", public_key=f"{KEY_A} team\n")
    assert made["changed"] and made["ssh_key"]["name"] == "deploy"
    assert not run(lambda_ssh_key, name="deploy", public_key=f"{KEY_A} another comment")["changed"]
    assert not run(lambda_ssh_key, name="deploy")["changed"]
    other = run(lambda_ssh_key, name="deploy", public_key=KEY_B)
    assert other["failed"] and "found another key of this name" in other["msg"] and "set replace" in other["msg"]
    replaced = run(lambda_ssh_key, name="deploy", public_key=KEY_B, replace=True)
    assert replaced["changed"] and replaced["ssh_key"]["id"] != made["ssh_key"]["id"]
    assert replaced["diff"]["before"]["deploy"] == [f"{KEY_A} team"]
    assert run(lambda_ssh_key, name="deploy", state="absent")["changed"]
    assert not run(lambda_ssh_key, name="deploy", state="absent")["changed"]


def test_a_pair_made_by_lambda_leaves_its_private_half_in_the_file_alone(
    cloud: Handle, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "deploy"
    without = run(lambda_ssh_key, name="deploy")
    assert without["failed"] and "neither public_key nor private_key_file" in without["msg"]
    nowhere = run(lambda_ssh_key, name="deploy", private_key_file=str(tmp_path / "no" / "folder"))
    assert nowhere["failed"] and changes(cloud) == [], "the file comes first: the key is told once"
    made = run(lambda_ssh_key, name="deploy", private_key_file=str(path))
    assert made["changed"] and made["private_key_file"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in path.read_text("utf-8") and "PRIVATE KEY" not in json.dumps(made)
    assert not run(lambda_ssh_key, name="deploy", private_key_file=str(path))["changed"]
    taken = run(lambda_ssh_key, name="other", private_key_file=str(path))
    assert taken["failed"] and "PRIVATE KEY" in path.read_text("utf-8")


def test_a_pair_whose_private_half_was_lost_is_said_to_be_and_leaves_no_file(
    cloud: Handle, run: Run, tmp_path: Path
) -> None:
    cloud.fault("answer-lost", path="/ssh-keys$", method="POST")
    lost = run(lambda_ssh_key, name="deploy", private_key_file=str(tmp_path / "deploy"))
    assert lost["failed"] and "whose private half is lost" in lost["msg"]
    assert not (tmp_path / "deploy").exists()


# Firewall rulesets.


def test_a_ruleset_has_exactly_the_given_rules(cloud: Handle, run: Run) -> None:
    place = {"name": "office", "region": "us-east-1"}
    planned = run(lambda_firewall_ruleset, check=True, rules=[SSH], **place)
    assert planned["changed"] and changes(cloud) == []
    made = run(lambda_firewall_ruleset, rules=[SSH, PING], **place)
    assert made["changed"]
    assert [rule["protocol"] for rule in made["ruleset"]["rules"]] == ["icmp", "tcp"]
    same = [{**PING, "source": "203.0.113.7/32"}, {**SSH, "ports": [22, 22]}]
    assert not run(lambda_firewall_ruleset, rules=same, **place)["changed"]
    less = run(lambda_firewall_ruleset, rules=[SSH], **place)
    assert less["changed"] and less["ruleset"]["id"] == made["ruleset"]["id"]
    assert [len(less["diff"][side]["rules"]) for side in ("before", "after")] == [2, 1]
    assert run(lambda_firewall_ruleset, state="absent", **place)["changed"]
    assert not run(lambda_firewall_ruleset, state="absent", **place)["changed"]


def test_the_accounts_own_ruleset_is_changed_and_never_deleted(cloud: Handle, run: Run) -> None:
    assert run(lambda_firewall_ruleset, name="global", rules=[SSH])["changed"]
    assert not run(lambda_firewall_ruleset, name="global", rules=[SSH])["changed"]
    refused = run(lambda_firewall_ruleset, name="global", state="absent")
    assert refused["failed"] and "cannot be deleted" in refused["msg"]
    assert run(lambda_firewall_ruleset, name="office", rules=[])["failed"], "a region is needed"


def test_a_ruleset_changed_without_an_answer_is_looked_at(cloud: Handle, run: Run) -> None:
    place = {"name": "office", "region": "us-east-1"}
    cloud.fault("answer-lost", path="/firewall-rulesets$", method="POST")
    assert run(lambda_firewall_ruleset, rules=[SSH], **place)["changed"]
    cloud.fault("truncated", path="/firewall-rulesets/", method="PATCH")
    assert run(lambda_firewall_ruleset, rules=[PING], **place)["changed"]
    cloud.fault("unavailable", path="/firewall-rulesets/", method="PATCH")
    failed = run(lambda_firewall_ruleset, rules=[SSH], **place)
    assert failed["failed"] and "provider/internal-unavailable" in failed["msg"]
    assert changes(cloud).count("firewallRulesetsCreate") == 1


def test_two_rulesets_of_one_name_are_named_not_guessed_between(cloud: Handle, run: Run) -> None:
    place = {"name": "office", "region": "us-east-1"}
    first = run(lambda_firewall_ruleset, rules=[SSH], **place)["ruleset"]["id"]
    client = lambda_instance.lambda_api.LambdaApi(cloud.api_key, cloud.base_url, _cloud_api.Pacer(cloud.api_key, 0, 0))
    second = client.create_firewall_ruleset("office", "us-east-1", [])["id"]
    result = run(lambda_firewall_ruleset, rules=[SSH], **place)
    assert result["failed"] and first in result["msg"] and second in result["msg"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({**SSH, "ports": [443, 80]}, "first and last of a range"),
        ({**SSH, "ports": None}, "first and last of a range"),
        ({**PING, "ports": [1]}, "none for icmp"),
        ({**SSH, "source": "office"}, "expected an IPv4 network"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_before_the_api_is_asked(
    cloud: Handle, run: Run, rule: dict[str, Any], words: str
) -> None:
    result = run(lambda_firewall_ruleset, name="office", region="us-east-1", rules=[rule])
    assert result["failed"] and words in result["msg"]
    assert cloud.state()["pacing"]["total"] == 0


def test_a_region_without_a_firewall_is_warned_about(run: Run) -> None:
    result = run(lambda_firewall_ruleset, name="office", region="us-south-1", rules=[SSH])
    assert result["changed"] and "does not apply firewall rules in us-south-1" in str(result["warnings"])


# What there is.


def test_types_come_with_price_and_capacity(cloud: Handle, run: Run) -> None:
    cloud.control("PUT", "/capacity", {"gpu_8x_b200_sxm6": {"us-east-1": 1, "us-west-2": 0, "us-south-2": None}})
    result = run(lambda_instance_type_info, instance_type=["gpu_8x_b200*"])
    assert [kind["name"] for kind in result["instance_types"]] == ["gpu_8x_b200_sxm6"]
    kind = result["instance_types"][0]
    assert (kind["gpus"], kind["price_usd_per_hour"], kind["regions"]) == (8, 53.52, ["us-east-1", "us-south-2"])
    assert result["types_by_region"]["us-south-2"] == ["gpu_8x_b200_sxm6"]
    cloud.control("PUT", "/capacity", {"gpu_8x_b200_sxm6": {"us-east-1": 0}})
    assert run(lambda_instance_type_info, instance_type=["gpu_8x_b200*"], available=True)["instance_types"] == []
    everything = run(lambda_instance_type_info)
    assert len(everything["instance_types"]) > 5 and not everything["changed"]
    south = run(lambda_instance_type_info, region=["us-south-*"])["types_by_region"]
    assert south and all(region.startswith("us-south-") for region in south)


def test_images_and_regions_are_listed(run: Run) -> None:
    images = run(lambda_image_info, family=["gpu-base-*"], architecture="x86_64")
    assert {image["architecture"] for image in images["images"]} == {"x86_64"}
    regions = [region["name"] for region in run(lambda_region_info)["regions"]]
    assert sorted(regions) == regions == sorted(images["regions_by_family"]["gpu-base-24-04"])


def test_values_that_nobody_knows_yet_crash_nothing(cloud: Handle, run: Run) -> None:
    def answer(path: str, data: Any) -> None:
        cloud.fault("raw", path=path, body=json.dumps({"data": data}))

    answer("/instance-types$", {"npu_3x_new": {"instance_type": {"price_cents_per_hour": None}, "extra": [1]}, "x": {
        "instance_type": None, "regions_with_capacity_available": [{"name": "moon-1"}, "mars-1", {}]}})  # fmt: skip
    kinds = run(lambda_instance_type_info)["instance_types"]
    assert [(kind["name"], kind["price_usd_per_hour"], kind["regions"]) for kind in kinds] == [
        ("npu_3x_new", None, []), ("x", None, ["moon-1"]),
    ]  # fmt: skip
    answer("/images$", [{"id": "a", "architecture": "riscv64", "region": None}])
    assert run(lambda_image_info)["images"][0]["architecture"] == "riscv64"
    answer("/regions$", [{"name": "moon-1", "gravity": 0.17}])
    assert run(lambda_region_info)["regions"] == [{"name": "moon-1", "description": None}]
    answer("/file-systems$", [{"id": "a", "name": "weights", "region": "not a region"}])
    assert run(lambda_filesystem, check=True, name="weights", region="us-east-1")["changed"]
    answer("/firewall-rulesets$", [{"id": "a", "name": "office", "region": {"name": "us-east-1"}, "rules": [
        {"protocol": "quic", "port_range": "any", "source_network": None}, 7]}])  # fmt: skip
    changed = run(lambda_firewall_ruleset, check=True, name="office", region="us-east-1", rules=[SSH])
    assert changed["changed"] and changed["diff"]["before"]["rules"][0]["protocol"] == "quic"


@pytest.mark.parametrize("data", [{"not": "a list"}, [{"name": "no id"}], ["text"]])
def test_an_answer_that_is_not_the_apis_is_a_failure_not_a_change(cloud: Handle, run: Run, data: Any) -> None:
    cloud.fault("raw", path="/file-systems$", body=json.dumps({"data": data}))
    result = run(lambda_filesystem, name="weights", region="us-east-1")
    assert result["failed"] and changes(cloud) == []


# Documentation.


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    names = [f"glm.fleet.{name}" for name in MODULES]
    command = [str(Path(sys.executable).parent / "ansible-doc"), "--json", *names]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(output))


@pytest.mark.parametrize("name", MODULES)
def test_options_are_documented_as_they_are(documented: dict[str, Any], name: str) -> None:
    arguments = {**lambda_instance._lambda_module.AUTH_ARGUMENTS, **MODULES[name].ARGUMENTS}
    options = documented[f"glm.fleet.{name}"]["doc"]["options"]
    assert set(options) == set(arguments)
    for option, spec in arguments.items():
        assert options[option].get("default") == spec.get("default"), option
        assert options[option]["type"] == spec["type"], option
        assert options[option].get("elements") == spec.get("elements"), option
        assert options[option].get("choices") == spec.get("choices"), option
        assert bool(options[option].get("required")) == bool(spec.get("required")), option
        assert set(options[option].get("suboptions") or {}) == set(spec.get("options") or {}), option


@pytest.mark.parametrize("name", MODULES)
def test_examples_pass_the_modules_own_argument_check(documented: dict[str, Any], name: str) -> None:
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

    validator = ArgumentSpecValidator({**lambda_instance._lambda_module.AUTH_ARGUMENTS, **MODULES[name].ARGUMENTS})
    tasks = yaml.safe_load(documented[f"glm.fleet.{name}"]["examples"])
    assert tasks
    for task in tasks:
        assert validator.validate(task[f"glm.fleet.{name}"] or {}).error_messages == []


def test_the_modules_are_in_the_action_groups() -> None:
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text("utf-8"))["action_groups"]
    assert groups["lambda"] == sorted(MODULES)
    assert set(MODULES) < set(groups["all"])
