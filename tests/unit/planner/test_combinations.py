"""Settings that an engine does not take together are refused, with its reason and a change with which it plans."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.combinations import FACTS
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.engine import Combination
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import conditions, flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from tests.unit.planner import rules

KNOWN = rules.KNOWN


def refusal(intent: planner.Intent) -> str:
    with pytest.raises(planner.PlanError) as found:
        planner.make(intent, KNOWN)
    return str(found.value)


@pytest.mark.parametrize(("engine", "rule"), rules.RULES, ids=[f"{engine}-{rule.id}" for engine, rule in rules.RULES])
def test_every_rule_refuses_and_its_change_plans(engine: str, rule: Combination) -> None:
    intent = next(rules.breaking(engine, rule), None)
    assert intent is not None, "no model, weights, GPU and arguments of the catalogue meet it"
    text = refusal(intent)
    assert rule.reason in text
    if rule.next:
        assert rule.next in text
        return
    change = rules.advised(text)
    kept = {name: value for name, value in intent.engine_args.items() if name not in change}
    planner.make(dataclasses.replace(intent, engine_args={**kept, **change}), KNOWN)


def test_a_file_is_looked_for_where_the_container_has_it() -> None:
    template = {"chat-template": "/srv/templates/ours.jinja"}
    asked = planner.Intent(model="GLM-5.1", accelerator="H200", accelerator_count=8, engine_args=template)
    assert "glm_extra_mounts, so the file is not there" in refusal(asked)
    for source in ("/srv/templates", "/srv", "/srv/templates/ours.jinja"):
        planner.make(dataclasses.replace(asked, extra_mounts=[{"source": source}]), KNOWN)
    elsewhere = dataclasses.replace(asked, extra_mounts=[{"source": "/srv/templates", "target": "/opt/templates"}])
    assert "the file is not there" in refusal(elsewhere)
    # What an image of the team's own holds is not known.
    planner.make(dataclasses.replace(asked, image="team/vllm:1", engine_version="0.32.0"), KNOWN)


DRAFTS: dict[str, Any] = {
    "vllm": lambda path: {"speculative-config": {"method": "draft_model", "model": path, "num_speculative_tokens": 3}},
    "sglang": lambda path: {
        "speculative-algorithm": "STANDALONE", "speculative-draft-model-path": path, "speculative-num-steps": 3,
        "speculative-eagle-topk": 1, "speculative-num-draft-tokens": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize(("engine", "version"), [("vllm", "0.32.0"), ("sglang", "0.5.10")])
def test_a_draft_model_is_looked_for_where_the_engine_sees_it(engine: str, version: str) -> None:
    def asked(path: str, **more: Any) -> planner.Intent:
        return planner.Intent(
            "GLM-4.7", "H200", 8, engine=engine, engine_version=version, engine_args=DRAFTS[engine](path), **more
        )

    own: list[dict[str, Any]] = [{"image": "team/engine:1"}, {"runtime": "venv"}]
    mounted: dict[str, Any] = {"extra_mounts": [{"source": "/srv/drafts"}]}
    for more in ({}, mounted, *own):
        assert "glm_extra_repositories does not name that repository" in refusal(asked("acme/draft", **more))
    for more in ({}, {"extra_mounts": [{"source": "/srv/drafts", "target": "/opt/drafts"}]}):
        assert "so the draft model is not there" in refusal(asked("/srv/drafts/small", **more))
    for more in (mounted, *own):
        planner.make(asked("/srv/drafts/small", **more), KNOWN)
    planner.make(asked("/root/.cache/huggingface/draft"), KNOWN)


def test_a_mounted_path_is_no_pattern() -> None:
    asked = planner.Intent(
        "GLM-5.1", "H200", 8, engine_args={"chat-template": "/srv/a[1]/t.jinja"},
        extra_mounts=[{"source": "/srv/a[1]"}],
    )  # fmt: skip
    planner.make(asked, KNOWN)
    for source, path in (("/srv/a[1]", "/srv/a1/t.jinja"), ("/srv/a?", "/srv/ab/t.jinja"), ("/srv/*", "/srv/b/t")):
        other = dataclasses.replace(asked, engine_args={"chat-template": path}, extra_mounts=[{"source": source}])
        assert "the file is not there" in refusal(other)


def test_kernels_of_trtllm_are_for_every_blackwell_but_one_prefill() -> None:
    """is_blackwell_supported of sglang/srt/utils/common.py has 10, 11 and 12; is_sm100_supported has 10."""
    found = {
        rule.id: conditions.holds("sm120", rule.when["gpu.architecture"])
        for engine, rule in rules.RULES
        if engine == "sglang" and rule.id.startswith(("trtllm-latent", "trtllm-attention"))
        if "gpu.architecture" in rule.when
    }
    assert found == {
        "trtllm-latent-attention-elsewhere": False,
        "trtllm-latent-decoding-elsewhere": False,
        "trtllm-attention-elsewhere": True,
        "trtllm-attention-on-old-or-other-gpus": False,
    }


def test_a_key_of_drafting_is_taken_as_long_as_there_was_one() -> None:
    drafting = {"speculative-config": {"method": "mtp", "num_speculative_tokens": 1, "disable_by_batch_size": 32}}
    asked = planner.Intent("GLM-4.7", "H200", 8, engine="vllm", engine_version="0.15.1", engine_args=drafting)
    planner.make(asked, KNOWN)
    assert "disable_by_batch_size to null" in refusal(dataclasses.replace(asked, engine_version="0.19.0"))


def test_the_documentation_counts_the_rules() -> None:
    page = (KNOWN.root.parent / "docs/planner.md").read_text("utf-8")
    for engine, title in (("vllm", "vLLM"), ("sglang", "SGLang")):
        own = [rule for of, rule in rules.RULES if of == engine]
        run = [rule for rule in own if rule.proof == "run"]
        [release] = {rules.release(rule) for rule in run}
        assert f"| {title} | {len(own)} | {len(run)}, on {release} | {len(own) - len(run)} |" in page


def test_each_engine_has_rules_of_its_own() -> None:
    found = collections.Counter(engine for engine, _rule in rules.RULES)
    assert set(found) == set(KNOWN.engines)
    assert min(found.values()) >= 30


@pytest.mark.parametrize(("engine", "rule"), rules.RULES, ids=[f"{engine}-{rule.id}" for engine, rule in rules.RULES])
def test_a_rule_speaks_of_options_that_there_are(engine: str, rule: Combination) -> None:
    versions = [version for version in KNOWN.engines[engine].versions if rule.holds(version)]
    tables = [rules.table(engine, version) for version in versions]
    renames = KNOWN.engines[engine].renames
    for name in (*rule.when, *(name for change in rule.changes for name in change)):
        if name.partition(".")[0] in FACTS:
            continue
        option = flags.spelled(name).partition(".")[0]
        assert any({option, renames.get(option)} & set(table.options) for table in tables), name
    for name, value in ((name, value) for change in rule.changes for name, value in change.items()):
        option = flags.spelled(name).partition(".")[0]
        known = {
            choice for table in tables if option in table.options for choice in table.options[option].choices or ()
        }
        if known and value is not None and "." not in name and not str(value).startswith("$"):
            assert str(value) in known, (name, value)


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (8, 8, True), ("8", 8, True), (None, None, True), (None, 8, False), ("None", None, False),
        ("TRITON_MLA", "triton_mla", True), (True, True, True), (False, True, False),
        (None, "*", False), (0, "*", True), ("b", ["a", "b"], True), (None, ["a", None], True),
        (None, {"not": "a"}, True), (None, {"not": [None, "a"]}, False), ("b", {"not": [None, "a"]}, True),
        (2, {"above": 1}, True), ("2", {"above": 1}, True), (1, {"above": 1}, False), (None, {"above": 1}, False),
        ("128k", {"above": 1}, False), (True, {"above": 0}, False), (0, {"below": 1}, True),
        (32, {"below": "$n"}, True),
        (64, {"below": "$n"}, False), (5, {"below": "$absent"}, False), (100, {"not_multiple_of": 64}, True),
        (128, {"not_multiple_of": "$n"}, False), (3, {"not_multiple_of": 0}, False),
        (100, {"above": 0, "not_multiple_of": 64}, True), (-1, {"above": 0, "not_multiple_of": 64}, False),
        ("/data/x", {"like": "/*"}, True), (None, {"like": "*"}, False), ("a/b", {"like": ["c/*", "a/*"]}, True),
        ("/root/x", {"like": "/*", "not": {"like": "/root/*"}}, False), (64, {"not": [None, 1, "$n"]}, False),
        (8, {"not": [None, 1, "$n"]}, True), (8, {"not": {"above": "$n"}}, True),
    ],
)  # fmt: skip
def test_conditions(value: Any, wanted: Any, expected: bool) -> None:
    assert conditions.holds(value, wanted, {"n": 64}.get) is expected


@pytest.mark.parametrize("precision", ["fp8", "nvfp4", "bf16", "int4"])
@pytest.mark.parametrize("model", ["GLM-5.2", "GLM-5.3"])
def test_throughput_exchanges_experts_only_where_kernels_take_them(model: str, precision: str) -> None:
    """All but the FP8 plans once had DeepEP and died in the first forward pass."""
    planned = 0
    for accelerator in ("B200", "B300", "GB300", "H200", "H100", "H20"):
        for nodes in (1, 2):
            intent = planner.Intent(
                model, accelerator, KNOWN.accelerators[accelerator].per_host, precision=precision, engine="sglang",
                profile="throughput", repository="acme/own", nodes=nodes, head_address="10.0.0.1",
            )  # fmt: skip
            try:
                command = planner.make(intent, KNOWN, advise=False)["command"]
            except planner.PlanError:
                continue
            planned += 1
            assert ("deepep" in command) is (precision == "fp8")
    assert planned


@pytest.mark.parametrize(
    ("accelerator", "count", "words"),
    [
        ("B200", 8, {"--chunked-prefill-size": "32768", "--mem-fraction-static": "0.92"}),
        ("B300", 8, {"--chunked-prefill-size": "8192", "--speculative-attention-mode": "decode"}),
        ("GB300", 4, {"--chunked-prefill-size": "8192", "--mem-fraction-static": "0.92"}),
    ],
)
def test_throughput_in_nvfp4_is_the_cookbooks_cell(accelerator: str, count: int, words: dict[str, str]) -> None:
    intent = planner.Intent("GLM-5.2", accelerator, count, precision="nvfp4", engine="sglang", profile="throughput")
    made = planner.make(intent, KNOWN)
    command = made["command"]
    found = dict(zip(command, command[1:], strict=False))
    wanted = {
        "--dp-size": str(count), "--speculative-num-steps": "2", "--speculative-num-draft-tokens": "3",
        "--max-running-requests": "256", **words,
    }  # fmt: skip
    assert made["recipe"]["basis"] == "published"
    assert {name: found.get(name) for name in wanted} == wanted


def test_two_broken_rules_are_both_named_and_one_advice_mends_both() -> None:
    intent = planner.Intent(
        "GLM-5.1", "H200", 8, engine="vllm", engine_args={"enable-eplb": True, "attention-backend": "triton_mla"}
    )
    text = refusal(intent)
    assert "no whole experts to balance" in text and "attention is sparse" in text
    planner.make(dataclasses.replace(intent, engine_args={**intent.engine_args, **rules.advised(text)}), KNOWN)


def test_a_change_that_would_not_plan_is_not_advised() -> None:
    rule = next(rule for _engine, rule in rules.RULES if rule.id == "log-outputs-without-requests")
    wrong: list[dict[str, Any]] = [{"max-model-len": 10**9}, {"enable-moe-ep": True}]
    asked = planner.Intent("GLM-5.1", "H200", 8, engine="vllm", engine_args={"enable-log-outputs": True})

    def advice(*changes: dict[str, Any]) -> str:
        engine = dataclasses.replace(
            KNOWN.engines["vllm"], combinations=[dataclasses.replace(rule, changes=[*changes])]
        )
        with pytest.raises(planner.PlanError) as found:
            planner.make(asked, dataclasses.replace(KNOWN, engines={**KNOWN.engines, "vllm": engine}))
        return str(found.value)

    assert rules.advised(advice(*wrong, {"enable-log-outputs": None})) == {"enable-log-outputs": None}
    assert "GLM-5.1 would work on" in advice(*wrong)
