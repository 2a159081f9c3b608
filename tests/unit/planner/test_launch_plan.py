"""Instance types are planned before they are launched as their hosts will be planned afterwards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.plugin_utils.cloud import launch as launch_plan
from ansible_collections.glm.fleet.plugins.plugin_utils.cloud.providers import LAMBDA
from ansible_collections.glm.fleet.plugins.plugin_utils.intent import table
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import request

ROOT = Path(__file__).parents[3]
B200 = {"name": "gpu_8x_b200_sxm6", "gpu_description": "B200 (180 GB SXM6)", "gpus": 8}
H100 = {"name": "gpu_8x_h100_sxm5", "gpu_description": "H100 (80 GB SXM5)", "gpus": 8}


def intent(instance: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": "GLM-5.1", "bind": "loopback", "port": 8000, "accelerator": instance["glm_host_accelerator"],
        "accelerator_count": instance["glm_host_accelerator_count"], **more,
    }  # fmt: skip


def test_every_option_of_a_plan_is_asked_for_by_the_variable_that_the_role_gives_it() -> None:
    task = yaml.safe_load((ROOT / "roles/plan/tasks/make.yml").read_text("utf-8"))[0]["glm.fleet.serving_plan"]
    plain = {option: re.fullmatch(r"\{\{ (glm_\w+) \}\}", value) for option, value in task.items()}
    variables = {option: match[1] for option, match in plain.items() if match and option != "lock_file"}
    public = {option: item.name for option, item in table.options(table.load()).items()}
    assert {**variables, "lock_file": "glm_lock_file"} == public


def test_types_that_fit_keep_their_order_and_the_others_their_arithmetic() -> None:
    wanted = [H100["name"], B200["name"], "gpu_8x_unheard_of", B200["name"]]
    verdict = launch_plan.judge(wanted, [B200, H100], 1, intent, request.plans_of, LAMBDA)
    assert verdict.fitting == [B200["name"]] and "GiB" in verdict.plans[B200["name"]]
    assert [entry["instance_type"] for entry in verdict.dropped] == [H100["name"], "gpu_8x_unheard_of"]
    assert "99.6 GiB" in verdict.dropped[0]["reason"] and "not offered" in verdict.dropped[1]["reason"]


@pytest.mark.parametrize("bind", ["loopback", "private", "public"])
def test_a_fleet_can_be_planned_before_it_has_addresses(bind: str) -> None:
    def bound(instance: dict[str, Any]) -> dict[str, Any]:
        address = instance["glm_host_private_address"]
        return {**intent(instance), "bind": bind, "private_address": address,
                "public_address": instance["glm_host_public_address"]}  # fmt: skip

    assert launch_plan.judge([B200["name"]], [B200], 1, bound, request.plans_of, LAMBDA).dropped == []


def test_a_replica_over_two_hosts_needs_two() -> None:
    def over_two(instance: dict[str, Any]) -> dict[str, Any]:
        return intent(instance, nodes=2)

    assert launch_plan.judge([H100["name"]], [H100], 2, over_two, request.plans_of, LAMBDA).fitting == [H100["name"]]
    odd = launch_plan.judge([H100["name"]], [H100], 3, over_two, request.plans_of, LAMBDA)
    assert odd.fitting == [] and "a multiple of 2" in odd.dropped[0]["reason"]


@pytest.mark.parametrize(
    "row",
    [
        {"name": "x", "gpu_description": None, "gpus": None},
        {"name": "x", "gpu_description": "NPU9 (1 TB)", "gpus": "many"},
        {"name": "x", "gpu_description": 7, "gpus": 0},
        {"name": "gpu_8x_npu9", "gpu_description": "NPU9 (999 GB)", "gpus": 8},
    ],
)
def test_types_nobody_knows_are_left_out_not_a_crash(row: dict[str, Any]) -> None:
    verdict = launch_plan.judge([row["name"]], [row], 1, intent, request.plans_of, LAMBDA)
    assert verdict.fitting == [] and "Next:" in verdict.dropped[0]["reason"]


@pytest.mark.parametrize(
    ("more", "args", "said"),
    [
        ({"storage_gib": 512}, {}, r"disk of 512 GiB does not hold 704 GiB of weights and 37 GiB of image"),
        ({"memory_gib": 100}, {}, r"100 GiB of memory are less than the 128 GiB"),
        ({"memory_gib": 400}, {"kv-offloading-size": 600}, r"400 GiB .* 728 GiB .*\(600 GiB\).*offload less"),
    ],
)
def test_a_type_that_has_too_little_memory_or_disk_is_not_rented(
    more: dict[str, Any], args: dict[str, Any], said: str
) -> None:
    def asked(instance: dict[str, Any]) -> dict[str, Any]:
        return intent(instance, engine="vllm", engine_args=args)

    def judged(row: dict[str, Any], file_systems: list[str] | None = None) -> launch_plan.Verdict:
        return launch_plan.judge([row["name"]], [row], 1, asked, request.plans_of, LAMBDA, file_systems or [])

    verdict = judged({**B200, **more})
    assert verdict.fitting == [] and re.search(said, verdict.dropped[0]["reason"]), verdict.dropped
    assert judged({**B200, "memory_gib": 2900, "storage_gib": 22528}).fitting == [B200["name"]]
    # What the cloud does not say is no reason.
    assert judged({**B200, "memory_gib": None, "storage_gib": "large"}).fitting == [B200["name"]]
    # Weights may lie on what is attached; memory may not.
    assert bool(judged({**B200, **more}, ["weights"]).fitting) == ("storage_gib" in more)
