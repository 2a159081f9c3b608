"""No plan divides weights through a block or group that shares a scale."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import alignment, memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.quantised_parts import plain_parts
from tests.unit.planner.test_model_config import GLM4_MOE

KNOWN = catalog.load()
GLM47 = KNOWN.models["GLM-4.7"].config
AIR = KNOWN.models["GLM-4.5-Air"].config
GLM51 = KNOWN.models["GLM-5.1"].config
FORMS = [(model, precision) for model in KNOWN.models.values() for precision in model.precisions]


def cut(config: memory.Config, weights: Any, tensor: int, block: int | None = None, experts: int | None = None) -> str:
    division = alignment.Division(tensor, tensor if experts is None else experts, tensor)
    found = alignment.misfit(config, weights, block, division)
    return str(found) if found else ""


@pytest.mark.parametrize(
    ("config", "weights", "block", "tensor", "whole", "text"),
    [
        (GLM47, "int4", None, 8, False, "1,536 columns of shared experts over 8 GPUs are 192 each, not whole INT4"),
        (GLM47, "int4", None, 4, False, ""),
        (AIR, "int4", None, 2, False, "1,408 columns of shared experts over 2 GPUs are 704 each, not whole INT4"),
        # 10,944 columns of its dense layer are no whole groups anyhow: quantisers leave it out.
        (AIR, "int4", None, 1, False, ""),
        # Scaled by channel, so nothing is cut: eight parts are published.
        (GLM47, "fp8", None, 8, False, ""),
        (GLM51, "fp8", 128, 16, False, ""),
        (GLM51, "fp8", 128, 32, False, "2,048 rows of shared experts over 32 GPUs are 64 each, not whole FP8 blocks"),
        (GLM51, "nvfp4", None, 32, False, ""),
        (GLM51, "bf16", None, 6, False, "16,384 rows of the queries over 6 GPUs are 2,730.67 each, not a whole number"),
        (dataclasses.replace(GLM47, plain=("shared",)), "int4", None, 8, False, "1,536 columns of each expert"),
        (dataclasses.replace(GLM47, plain=("shared",)), "int4", None, 8, True, ""),
    ],
)  # fmt: skip
def test_what_a_division_cuts(
    config: memory.Config, weights: Any, block: int | None, tensor: int, whole: bool, text: str
) -> None:
    assert cut(config, weights, tensor, block, 1 if whole else None).startswith(text)
    assert bool(text) is bool(cut(config, weights, tensor, block, 1 if whole else None))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_no_plan_cuts_quantised_weights(engine: str) -> None:
    """Worked out a second time, from the published rule: what a GPU gets of a row is whole groups."""
    groups = {"int4": 128, "w4afp8": 128, "nvfp4": 16, "mxfp4": 32}
    planned = 0
    for (model, precision), accelerator in itertools.product(FORMS, ("A100", "A100-40GB", "H100", "H200", "B200")):
        for count, profile in itertools.product((2, 4, 8), ("agentic", "throughput")):
            intent = planner.Intent(
                model.name, accelerator, count, precision=precision, engine=engine, profile=profile,
                repository="acme/own",
            )  # fmt: skip
            try:
                made = planner.make(intent, KNOWN, advise=False)["parallel"]
            except planner.PlanError:
                continue
            planned += 1
            form, config = model.precisions[precision], model.config
            group = form.block or groups.get(form.weights, 1)
            spread = made["tensor"] * (made["data"] if engine == "vllm" else 1)
            each = config.moe_intermediate_size / (spread / made["expert"] if made["expert"] > 1 else spread)
            assert each % group == 0, (intent, made)
            if form.weights in ("int4", "fp8", "w4afp8"):
                shared = config.moe_intermediate_size * config.n_shared_experts
                widths = [shared, *([config.intermediate_size] if config.intermediate_size % group == 0 else [])]
                assert [width for width in widths if width / made["tensor"] % group] == [], (intent, made)
    assert planned > 100


@pytest.mark.parametrize(
    ("quantised", "plain"),
    [
        ({}, ()),
        ({"modules_to_not_convert": ["shared_experts", "mlp.gate", "lm_head"]}, ("shared",)),
        ({"modules_to_not_convert": ["mlp.gate"]}, ()),
        ({"modules_to_not_convert": ["self_attn", "model.layers.0.", "model.layers.1.", "model.layers.2."]},
         ("attention", "dense")),
        ({"ignore": ["re:.*shared_experts.*", "re:.*self_attn.*", "lm_head"]}, ("attention", "shared")),
        ({"ignore": ["re:("]}, ()),
        ({"exclude_modules": ["model.layers.*.mlp.shared_experts*", "lm_head"]}, ("shared",)),
        ({"dynamic": {"-:.*shared_experts.*": {}, "+:.*": {}}}, ("shared",)),
        # One layer of many is not the part.
        ({"modules_to_not_convert": ["model.layers.3.mlp.shared_experts"]}, ()),
        ({"modules_to_not_convert": "shared_experts"}, ()),
    ],
)  # fmt: skip
def test_parts_that_a_checkpoint_leaves_out(quantised: dict[str, Any], plain: tuple[str, ...]) -> None:
    assert plain_parts(GLM47, quantised) == plain


def test_a_users_checkpoint_is_divided_as_it_was_quantised(tmp_path: Path) -> None:
    """AWQ without the shared experts: eight GPUs share attention and shared experts, and hold whole routed experts."""

    def made(excluded: list[str]) -> dict[str, Any]:
        scheme = {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": excluded}
        (tmp_path / "config.json").write_text(json.dumps({**GLM4_MOE, "quantization_config": scheme}), encoding="utf-8")
        intent = planner.Intent(
            "mine", "H200", 8, engine="vllm", model_config=str(tmp_path / "config.json"), repository="acme/own"
        )
        return dict(planner.make(intent, KNOWN))

    all_int4, without = made([]), made(["shared_experts"])
    assert (all_int4["parallel"]["tensor"], all_int4["parallel"]["data"]) == (4, 2)
    assert (without["parallel"]["tensor"], without["parallel"]["expert"]) == (8, 8)
    assert "--enable-expert-parallel" in without["command"]
    assert "quantization_config leaves in BF16: shared." in without["notes"]
    assert without["model"]["weights_bytes"] > all_int4["model"]["weights_bytes"]
