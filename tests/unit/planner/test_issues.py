"""Known issues meet exactly the plans their selectors describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog, issues

KNOWN = catalog.load()
ISSUE = catalog.KnownIssue(id="one", status="broken", text="It breaks.", link="https://example.invalid")


def found(issue: catalog.KnownIssue, arguments: Mapping[str, Any] | None = None, version: str = "0.30.0") -> bool:
    known = dataclasses.replace(KNOWN, known_issues=[issue])
    return bool(
        issues.find(
            known, "vllm", version, KNOWN.models["GLM-5.1"], "fp8", KNOWN.accelerators["B200"], arguments or {}
        )
    )


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
    first = dataclasses.replace(ISSUE, apply=catalog.Apply({"kv-cache-dtype": "bfloat16", "a": 1}, {"X": "1"}))
    second = dataclasses.replace(ISSUE, apply=catalog.Apply({"a": None}, {"Y": "2"}))
    assert issues.remedy([first, ISSUE, second]) == catalog.Apply(
        {"kv-cache-dtype": "bfloat16", "a": None}, {"X": "1", "Y": "2"}
    )
