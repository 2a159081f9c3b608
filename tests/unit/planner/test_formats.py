"""Forms of weights that one engine has kernels for and another has not, or not yet."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent, PlanError

KNOWN = catalog.load()
INTENT = Intent("GLM-5.2", "H100", 8, precision="w4afp8")


def test_the_engine_that_has_kernels_is_chosen() -> None:
    assert (
        planner.make(dataclasses.replace(INTENT, precision="fp8", accelerator="H200"), KNOWN)["engine"]["name"]
        == "vllm"
    )
    made = planner.make(INTENT, KNOWN)
    assert made["engine"]["name"] == "sglang"
    words = made["command"]
    assert words[words.index("--quantization") + 1] == "w4afp8" and "--disable-shared-experts-fusion" in words


def test_the_other_is_refused_with_what_to_set() -> None:
    with pytest.raises(PlanError, match=r"vllm has no kernels for GLM-5\.2 in w4afp8") as error:
        planner.make(dataclasses.replace(INTENT, engine="vllm"), KNOWN)
    assert "set it to sglang" in str(error.value)


def test_a_version_before_the_kernels_is_refused() -> None:
    models = {**KNOWN.models, "GLM-5.2": dataclasses.replace(KNOWN.models["GLM-5.2"])}
    engines = {
        **KNOWN.engines, "sglang": dataclasses.replace(KNOWN.engines["sglang"], formats={"w4afp8": "0.5.20"}),
    }  # fmt: skip
    later = dataclasses.replace(KNOWN, models=models, engines=engines)
    with pytest.raises(PlanError, match=r"0.5.20 or newer \(the first with kernels for w4afp8\)"):
        planner.make(dataclasses.replace(INTENT, engine_version="0.5.14"), later)
    with pytest.raises(PlanError, match=r"or set it to 0\.5\.20"):
        planner.make(dataclasses.replace(INTENT, engine_version="0.5.14"), later)
    assert planner.make(INTENT, later)["engine"]["version"] != "0.5.14"


def test_a_format_that_no_engine_has_is_refused() -> None:
    none = {name: dataclasses.replace(engine, formats={"w4afp8": None}) for name, engine in KNOWN.engines.items()}
    with pytest.raises(PlanError, match="choose another glm_precision"):
        planner.make(INTENT, dataclasses.replace(KNOWN, engines=none))


def test_it_is_for_hopper() -> None:
    with pytest.raises(PlanError, match=r"B200 \(sm100\) lacks w4afp8"):
        planner.make(dataclasses.replace(INTENT, accelerator="B200"), KNOWN)


def test_another_quantization_than_the_checkpoints_is_refused() -> None:
    for value in ("fp8", "awq"):
        with pytest.raises(PlanError, match="the checkpoint is W4AFP8") as error:
            planner.make(dataclasses.replace(INTENT, engine_args={"quantization": value}), KNOWN)
        assert "w4afp8" in str(error.value)
