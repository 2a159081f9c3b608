"""Some of a host's GPUs, by index: for hosts that others use as well."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import text
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.schema import Plan

INTENT = Intent("GLM-4.7", "H200", 8, gpus=(0, 1, 4, 5))


def plans(**more: Any) -> list[Plan]:
    return planner.make_all(dataclasses.replace(INTENT, **more), catalog.load())


def test_a_replica_has_the_gpus_that_are_named_and_the_arithmetic_is_of_those() -> None:
    [made] = plans()
    assert made["devices"] == [f"nvidia.com/gpu={index}" for index in (0, 1, 4, 5)]
    assert made["accelerator"]["indices"] == [0, 1, 4, 5] and made["accelerator"]["count"] == 8
    assert made["parallel"]["tensor"] == 4
    [alone] = planner.make_all(dataclasses.replace(INTENT, gpus=(), accelerator_count=4), catalog.load())
    assert made["memory"] == alone["memory"] and made["parallel"] == alone["parallel"]
    assert "CUDA_VISIBLE_DEVICES" not in made["env"]
    assert any("4 of the host's 8 GPUs are left to others" in note for note in made["notes"])
    assert "on GPUs 0, 1, 4, 5 of 8x H200" in text.report({"a": made})[0]


def test_an_index_with_a_tag_of_ansible_is_one() -> None:
    class Tagged(int):
        pass

    assert plans(gpus=[Tagged(0), Tagged(1), Tagged(4), Tagged(5)])[0]["accelerator"]["indices"] == [0, 1, 4, 5]


def test_replicas_share_them_in_the_order_that_is_given() -> None:
    made = plans(gpus=(0, 4, 1, 5), replicas=2, model="GLM-4.5-Air")
    assert [one["accelerator"]["indices"] for one in made] == [[0, 4], [1, 5]]


def test_an_engine_without_a_container_and_amds_see_them_by_a_variable() -> None:
    [bare] = plans(runtime="venv")
    assert bare["env"]["CUDA_VISIBLE_DEVICES"] == "0,1,4,5"
    [amd] = plans(accelerator="MI300X")
    assert amd["env"]["HIP_VISIBLE_DEVICES"] == "0,1,4,5"


def test_all_of_them_is_the_host() -> None:
    [named], [all_of_it] = plans(gpus=tuple(range(8))), plans(gpus=())
    assert named["devices"] == all_of_it["devices"] == ["nvidia.com/gpu=all"]


def test_hosts_with_other_gpus_have_blocks_of_their_own() -> None:
    [first], [second] = plans(), plans(gpus=(2, 3, 6, 7))
    lines = "\n".join(text.report({"a": first, "b": second}))
    assert "GPUs 0, 1, 4, 5 of" in lines and "GPUs 2, 3, 6, 7 of" in lines


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gpus": (0, 8)}, "glm_gpus: expected indices from 0 to 7, each once, found 0, 8"),
        ({"gpus": (-1,)}, "expected indices from 0 to 7"),
        ({"gpus": (1, 1)}, "each once, found 1, 1"),
        ({"gpus": (0, 1, 2), "replicas": 2}, "3 GPUs cannot be shared evenly by 2 replicas"),
        ({"nodes": 2}, "takes all their GPUs"),
        ({"gpus": (3,)}, "on 1 of 8x H200"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as error:
        plans(**more)
    assert message in str(error.value)
