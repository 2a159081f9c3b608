"""Arguments are checked, merged and rendered as the engine version at hand takes them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags

VLLM = flags.load("vllm", "0.32.0")
SGLANG = flags.load("sglang", "0.5.10")


def rendered(table: flags.Table, base: dict[str, Any], override: dict[str, Any] | None = None) -> list[str]:
    mappings = catalog.load().engines[table.engine].mappings
    return flags.render(table, flags.merge(table, base, override or {}), {}, mappings)


def test_spellings_are_one_option() -> None:
    for name in ("tensor_parallel_size", "--tensor-parallel-size", "tensor-parallel-size", "-tp", "tp"):
        assert VLLM.find(name).key == "--tensor-parallel-size"


def test_values_become_words() -> None:
    assert rendered(VLLM, {"enable-prefix-caching": True}) == ["--enable-prefix-caching"]
    assert rendered(VLLM, {"enable-prefix-caching": False}) == ["--no-enable-prefix-caching"]
    assert rendered(VLLM, {"no-enable-prefix-caching": True}) == ["--no-enable-prefix-caching"]
    assert rendered(VLLM, {"max-num-seqs": 64}) == ["--max-num-seqs", "64"]
    assert rendered(SGLANG, {"enable-dp-attention": False}) == []
    assert rendered(SGLANG, {"cuda-graph-bs": [1, 2]}) == ["--cuda-graph-bs", "1", "2"]


def test_a_switch_of_a_pair_is_turned_off_by_the_other_one() -> None:
    """vLLM 0.33.0 has --disable-x for --enable-x; without it the engine would keep what was turned off."""
    newer = flags.load("vllm", "0.33.0")
    assert rendered(newer, {"enable-prefix-caching": False}) == ["--disable-prefix-caching"]
    assert rendered(newer, {"disable-prefix-caching": True}) == ["--disable-prefix-caching"]
    assert rendered(newer, {"enable-prefix-caching": True}) == ["--enable-prefix-caching"]
    assert rendered(newer, {"disable-uvicorn-access-log": False}) == ["--enable-uvicorn-access-log"]


def test_mappings_are_dotted_for_vllm_and_json_for_sglang() -> None:
    mtp = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 3, "deep": {"on": True}}}
    assert rendered(VLLM, mtp) == [
        "--speculative-config.method", "mtp",
        "--speculative-config.num_speculative_tokens", "3",
        "--speculative-config.deep.on", "true",
    ]  # fmt: skip
    extra = {"model-loader-extra-config": {"enable_multithread_load": True}}
    assert rendered(SGLANG, extra) == ["--model-loader-extra-config", '{"enable_multithread_load": true}']


def test_override_wins_key_by_key_and_null_removes() -> None:
    base = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 3}, "max-num-seqs": 64}
    assert rendered(VLLM, base, {"speculative-config": {"num_speculative_tokens": 1}})[:4] == [
        "--speculative-config.method", "mtp", "--speculative-config.num_speculative_tokens", "1",
    ]  # fmt: skip
    assert rendered(VLLM, base, {"speculative_config.num_speculative_tokens": 2})[3] == "2"
    assert rendered(VLLM, base, {"speculative-config": None}) == ["--max-num-seqs", "64"]
    assert rendered(VLLM, base, {"max_num_seqs": None, "speculative-config": None}) == []
    assert rendered(SGLANG, {"tp-size": 8}, {"tensor-parallel-size": 4}) == ["--tensor-parallel-size", "4"]


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        (VLLM, {"max-model-lenn": 1}, r"no option --max-model-lenn; did you mean --max-model-len"),
        (VLLM, {"gpu-memory-utilisation": 0.9}, r"did you mean --gpu-memory-utilization"),
        (VLLM, {"xyzzy-plugh": 1}, r"no option --xyzzy-plugh; nor one with a similar name"),
        (SGLANG, {"tp": 8}, r"no option --tp; did you mean --tp-size\?"),
        (flags.load("sglang", "0.5.20"), {"nsa-prefill-backend": "trtllm"}, r"exists in sglang 0\.5\.9 to 0\.5\.19"),
        (VLLM, {"disable-log-requests": True}, r"exists in vllm 0\.15\.1 to 0\.16\.0 and 0\.33\.0"),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(
    table: flags.Table, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(flags.FlagError, match=message):
        flags.merge(table, {}, arguments)


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        (VLLM, {"chat-template-content-format": "xml"}, r"cannot be 'xml'; it takes auto, openai, string"),
        (SGLANG, {"reasoning-parser": "glm47"}, r"cannot be 'glm47' \(did you mean glm45\?\)"),
        (SGLANG, {"tp-size": "eight"}, r"must be a whole number, found 'eight'"),
        (VLLM, {"gpu-memory-utilization": "most"}, r"must be a number, found 'most'"),
        (VLLM, {"enable-prefix-caching": "yes"}, r"is a switch; expected true, false or null, found 'yes'"),
        (VLLM, {"max-num-seqs": True}, r"needs a value, found true; null removes it"),
        (VLLM, {"max-num-seqs": [1, 2]}, r"takes one value, found the list \[1, 2\]"),
    ],
)
def test_values_the_parser_would_refuse_are_refused(
    table: flags.Table, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(flags.FlagError, match=message):
        flags.check(table, flags.merge(table, {}, arguments))


def test_a_version_without_a_table_says_how_to_make_one() -> None:
    with pytest.raises(CatalogError, match=r"tools/flag_tables\.py vllm:9\.9\.9"):
        flags.load("vllm", "9.9.9")
