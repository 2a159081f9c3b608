"""Known issues meet exactly the plans their selectors describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Apply, KnownIssue
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, issues, recipes

KNOWN = catalog.load()
ISSUE = KnownIssue(id="one", status="broken", text="It breaks.", link="https://example.invalid")


def cell(engine: str, version: str, model: str, precision: str, accelerator: str) -> recipes.Cell:
    found = KNOWN.accelerators[accelerator]
    return recipes.Cell(KNOWN.models[model], precision, found, found.per_host, 1, engine, version, "agentic")


def found(issue: KnownIssue, arguments: Mapping[str, Any] | None = None, version: str = "0.30.0") -> bool:
    known = dataclasses.replace(KNOWN, known_issues=[issue])
    return bool(issues.find(issues.of_cell(known, cell("vllm", version, "GLM-5.1", "fp8", "B200")), arguments or {}))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"engine": "vllm"}, True),
        ({"engine": "sglang"}, False),
        ({"since": "0.30.0"}, True),
        ({"below": "0.30.0"}, False),
        ({"since": "0.29.0", "below": "0.30.1"}, True),
        ({"models": ["GLM-5.1"]}, True),
        ({"models": []}, False),
        ({"models": ["GLM-5"], "model_types": ["glm_moe_dsa"]}, True),
        ({"model_types": ["glm4_moe"]}, False),
        ({"precisions": ["nvfp4"]}, False),
        ({"accelerators": ["H200"]}, False),
        ({"accelerators": ["H200"], "architectures": ["sm100"]}, True),
        ({"engine": "vllm", "precisions": ["fp8"], "accelerators": ["B200"]}, True),
        ({"engine": "vllm", "precisions": ["bf16"], "accelerators": ["B200"]}, False),
    ],
)
def test_every_selector_narrows(selector: dict[str, Any], expected: bool) -> None:
    assert found(dataclasses.replace(ISSUE, **selector)) is expected


@pytest.mark.parametrize(
    ("wanted", "arguments", "expected"),
    [
        ({"kv-cache-dtype": "fp8"}, {"kv-cache-dtype": "fp8"}, True),
        ({"kv-cache-dtype": "fp8"}, {"--kv-cache-dtype": "fp8"}, True),
        ({"kv-cache-dtype": "fp8"}, {"kv_cache_dtype": "fp8"}, True),
        ({"kv-cache-dtype": "fp8"}, {"kv-cache-dtype": "bfloat16"}, False),
        ({"kv-cache-dtype": "fp8"}, {}, False),
        ({"kv-cache-dtype": ["fp8", "fp8_e4m3"]}, {"kv-cache-dtype": "fp8_e4m3"}, True),
        ({"kv-cache-dtype": None}, {}, True),
        ({"kv-cache-dtype": None}, {"kv-cache-dtype": "fp8"}, False),
        ({"kv-cache-dtype": [None, "auto"]}, {}, True),
        ({"kv-cache-dtype": [None, "auto"]}, {"kv-cache-dtype": "auto"}, True),
        ({"kv-cache-dtype": [None, "auto"]}, {"kv-cache-dtype": "fp8"}, False),
        ({"kv-cache-dtype": "None"}, {}, False),
        ({"tool-call-parser": "*"}, {"tool-call-parser": "glm47"}, True),
        ({"tool-call-parser": "*"}, {"reasoning-parser": "glm45"}, False),
        ({"enable-dp-attention": True}, {"enable-dp-attention": True}, True),
        ({"enable-dp-attention": True}, {"enable-dp-attention": False}, False),
        ({"tensor-parallel-size": 8}, {"tensor-parallel-size": "8"}, True),
        ({"speculative-config.method": "mtp"}, {"speculative-config": {"method": "mtp"}}, True),
        ({"speculative-config.method": "mtp"}, {"speculative-config.method": "mtp"}, True),
        ({"speculative-config.method": "mtp"}, {"speculative-config": {"method": "ngram"}}, False),
        ({"speculative-config.num_speculative_tokens": 3}, {"speculative-config": {"num_speculative_tokens": 3}}, True),
        ({"kv-cache-dtype": "fp8", "tool-call-parser": "*"}, {"kv-cache-dtype": "fp8"}, False),
    ],
)
def test_arguments_select(wanted: dict[str, Any], arguments: dict[str, Any], expected: bool) -> None:
    assert found(dataclasses.replace(ISSUE, arguments=wanted), arguments) is expected


def test_remedies_add_up_and_the_later_one_holds() -> None:
    first = dataclasses.replace(ISSUE, apply=Apply({"kv-cache-dtype": "bfloat16", "a": 1}, {"X": "1"}))
    second = dataclasses.replace(ISSUE, apply=Apply({"a": None}, {"Y": "2"}))
    assert issues.remedy([first, ISSUE, second]) == Apply(
        {"kv-cache-dtype": "bfloat16", "a": None}, {"X": "1", "Y": "2"}
    )


def ids(
    engine: str, version: str, model: str, precision: str, accelerator: str, **arguments: Any
) -> dict[str, KnownIssue]:
    """What the catalogue says about a plan; argument names with _ for -."""
    found = issues.find(issues.of_cell(KNOWN, cell(engine, version, model, precision, accelerator)), arguments)
    return {issue.id: issue for issue in found}


def test_nvfp4_with_eagle_on_b300_is_broken_in_one_release_only() -> None:
    name = "sglang-0.5.12-nvfp4-eagle-sm103"
    eagle = {"speculative_algorithm": "EAGLE"}
    assert ids("sglang", "0.5.12", "GLM-5", "nvfp4", "B300", **eagle)[name].status == "broken"
    assert name in ids("sglang", "0.5.12.post1", "GLM-5.1", "nvfp4", "GB300", **eagle)
    assert name not in ids("sglang", "0.5.11", "GLM-5", "nvfp4", "B300", **eagle)
    assert name not in ids("sglang", "0.5.13", "GLM-5", "nvfp4", "B300", **eagle)
    assert name not in ids("sglang", "0.5.12", "GLM-5", "nvfp4", "B200", **eagle)
    assert name not in ids("sglang", "0.5.12", "GLM-5", "nvfp4", "B300")


def test_deepgemm_is_switched_off_where_it_crashes() -> None:
    found = ids("sglang", "0.5.12", "GLM-5", "fp8", "B300")
    assert issues.remedy(found.values()).env == {"SGL_ENABLE_JIT_DEEPGEMM": "0"}
    assert issues.remedy(ids("sglang", "0.5.11", "GLM-5", "fp8", "B300").values()) == Apply()


@pytest.mark.parametrize("accelerator", ["H20", "H20-3e"])
def test_h20_gets_no_fp8_kv_cache(accelerator: str) -> None:
    found = ids("vllm", "0.32.0", "GLM-5.2", "fp8", accelerator, kv_cache_dtype="fp8")
    assert issues.remedy(found.values()).args == {"kv-cache-dtype": None}
    assert "h20-fp8-kv" not in ids("vllm", "0.32.0", "GLM-5.2", "fp8", "H200", kv_cache_dtype="fp8")


def test_amd_drafts_nothing_with_sglang() -> None:
    found = ids("sglang", "0.5.14", "GLM-5.1", "fp8", "MI300X", speculative_algorithm="EAGLE")
    assert set(issues.remedy(found.values()).args) == {
        "speculative-algorithm", "speculative-num-steps", "speculative-eagle-topk", "speculative-num-draft-tokens",
    }  # fmt: skip


def test_the_flashmla_bug_ends_with_the_release() -> None:
    assert "sglang-rc-flashmla" in ids("sglang", "0.5.10rc0", "GLM-5.1", "fp8", "B200")
    assert "sglang-rc-flashmla" not in ids("sglang", "0.5.10", "GLM-5.1", "fp8", "B200")


def test_glm4_is_not_told_about_glm5() -> None:
    for engine, version in (("vllm", "0.19.1"), ("sglang", "0.5.12")):
        for accelerator in ("B200", "B300", "H200", "A100", "MI300X"):
            found = ids(engine, version, "GLM-4.7", "fp8", accelerator).values()
            assert [issue.id for issue in found if issue.status == "broken"] == []
    assert "no-sparse-mla-on-sm80" in ids("vllm", "0.32.0", "GLM-5", "bf16", "A100")


def test_arguments_that_issues_name_exist_in_the_engines() -> None:
    """A misspelt selector would never match, a misspelt remedy would break the plan."""
    for issue in KNOWN.known_issues:
        names = [*(issue.arguments or {}), *(issue.apply.args if issue.apply else {})]
        if not names:
            continue
        assert issue.engine, f"{issue.id}: arguments belong to an engine"
        affected = [
            version
            for version in KNOWN.engines[issue.engine].versions
            if versions.in_range(version, issue.since, issue.below)
        ]
        assert affected, issue.id
        for version in affected:
            table = flags.load(issue.engine, version)
            lacking = [name for name in names if "--" + name.split(".")[0] not in table.options]
            # An argument that a release does not have yet cannot be given to it.
            assert lacking == [] or issue.status == "workaround", (issue.id, version, lacking)
        newest = flags.load(issue.engine, max(affected, key=versions.order))
        assert [name for name in names if "--" + name.split(".")[0] not in newest.options] == [], issue.id


def test_issues_have_links_and_unique_names() -> None:
    names = [issue.id for issue in KNOWN.known_issues]
    assert len(names) == len(set(names))
    assert [issue.id for issue in KNOWN.known_issues if not issue.link.startswith("https://")] == []
