"""Every option of every engine version means something to the plan, and what is planned is what was meant."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags, meaning
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from tests.unit.planner import intents

KNOWN = catalog.load()
VERSIONS = [(engine.name, version) for engine in KNOWN.engines.values() for version in engine.versions]


def plan(
    engine: str = "vllm", version: str | None = None, runtime: str = "container", **arguments: Any
) -> dict[str, Any]:
    given = {name.replace("_", "-"): value for name, value in arguments.items()}
    intent = planner.Intent(
        "GLM-5.1", "H200", 8, engine=engine, engine_version=version, engine_args=given, runtime=runtime
    )
    return dict(planner.make(intent, KNOWN, advise=False))


@pytest.mark.parametrize(("engine", "version"), VERSIONS)
def test_every_option_is_of_one_class(engine: str, version: str) -> None:
    classes = KNOWN.engines[engine].meanings.classes
    for option in flags.load(engine, version).options.values():
        found = {classes[name] for name in option.names if name in classes}
        assert len(found) == 1, f"{option.key}: {sorted(found) or 'in no class'}"


@pytest.mark.parametrize("engine", KNOWN.engines)
def test_no_row_is_of_an_option_that_no_version_has(engine: str) -> None:
    known = KNOWN.engines[engine]
    options = [option for version in known.versions for option in flags.load(engine, version).options]
    assert set(known.meanings.classes) <= set(options)


@pytest.mark.parametrize("engine", KNOWN.engines.values(), ids=lambda engine: engine.name)
def test_what_the_plan_writes_itself_is_owned(engine: Any) -> None:
    written = [engine.options.model, engine.options.served_model_name, engine.options.host, engine.options.port]
    written += [engine.stop.drain_option, "--config", *map(flags.spelled, engine.multi_node.args)]
    written += map(flags.spelled, engine.multi_node.worker)
    assert [name for name in written if name and name not in engine.meanings.owned] == []


@pytest.mark.parametrize(("engine", "version"), VERSIONS)
def test_both_values_of_every_switch_are_said_or_refused(engine: str, version: str) -> None:
    """A false without words is only the same as an absent option where the engine does not decide by itself."""
    known, table = KNOWN.engines[engine], flags.load(engine, version)
    switches = [option for option in dict.fromkeys(table.options.values()) if option.nargs == 0]
    for option in switches:
        for value in (True, False):
            arguments = flags.merge(table, {}, {option.key: value})
            try:
                meaning.check(known, table, arguments)
            except flags.FlagError:
                continue
            words = flags.render(table, arguments, {}, known.mappings)
            assert words == ([option.key] if value else [option.negative] if option.negative else [])
        for negative in option.negatives:
            assert flags.merge(table, {}, {negative: True}) == {option.key: False}
            assert flags.merge(table, {}, {negative: False}) == {option.key: True}
    assert len(switches) > 50


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0"])
@pytest.mark.parametrize(
    "arguments",
    [{"enable_prefix_caching": False}, {"no_enable_prefix_caching": True}],
)
def test_a_switch_is_turned_off_in_every_spelling(version: str, arguments: dict[str, Any]) -> None:
    words = plan(version=version, **arguments)["command"]
    assert len({"--no-enable-prefix-caching", "--disable-prefix-caching"} & set(words)) == 1
    assert "--enable-prefix-caching" not in words


def test_the_opposite_of_expert_parallelism_is_counted_as_such() -> None:
    assert plan(version="0.33.0", disable_expert_parallel=True)["parallel"]["expert"] == 1
    assert plan(version="0.33.0", no_enable_expert_parallel=True)["parallel"]["expert"] == 1
    assert plan(version="0.33.0", no_enable_expert_parallel=False)["parallel"]["expert"] == 8


def test_json_text_is_planned_like_the_mapping() -> None:
    mapping = {"method": "mtp", "num_speculative_tokens": 2}
    as_text = plan(speculative_config='{"method": "mtp", "num_speculative_tokens": 2}')
    as_mapping = plan(speculative_config=mapping)
    assert as_text["command"] == as_mapping["command"] and as_text["memory"] == as_mapping["memory"]
    assert as_text["promises"]["draft_tokens"] == 2


def test_text_in_a_mapping_stays_text() -> None:
    table, engine = flags.load("vllm", "0.32.0"), KNOWN.engines["vllm"]
    value = {"revision": "12", "model": "a/b", "quantization": "4k", "enforce_eager": "true"}
    words = flags.render(table, {"--speculative-config": value}, {}, engine.mappings)
    assert words[1::2] == ['"12"', "a/b", '"4k"', '"true"']
    for hard in ({"a.b": 1}, {"a": {}}, {"a=b": 1}):
        assert flags.render(table, {"--hf-overrides": hard}, {}, "dotted")[0] == "--hf-overrides"


@pytest.mark.parametrize(
    ("engine", "arguments", "message"),
    [
        ("vllm", {"speculative_config": '{"method": "mtp",'}, r"--speculative-config is no JSON"),
        ("vllm", {"speculative_config": "mtp"}, r"takes a mapping, or JSON text of one; found 'mtp'"),
        ("vllm", {"speculative_config": {"methd": "mtp"}}, r"has no key 'methd'; did you mean method\?"),
        ("vllm", {"speculative_config": {"method": "magic"}}, r"drafts by no method 'magic'"),
        ("vllm", {"speculative_config": {"num_speculative_tokens": 0}}, r"is 0; expected a whole number from 1 to 128"),
        ("vllm", {"speculative_config": {"num_speculative_tokens": "3.5"}}, r"is '3\.5'; expected a whole number"),
        ("vllm", {"speculative_config": {"num_speculative_tokens": "2.0"}}, r"is '2\.0'; expected a whole number"),
        ("vllm", {"speculative_config": {"num_speculative_tokens": 2.0}}, r"is 2\.0; expected a whole number"),
        (
            "vllm",
            {"speculative_config": {"num_speculative_tokens": "0.002k"}},
            r"is '0\.002k'; expected a whole number",
        ),
        ("vllm", {"speculative_config": {"num_speculative_tokens": "1e1"}}, r"is '1e1'; expected a whole number"),
        ("vllm", {"speculative_config": '{"num_speculative_tokens": "2 "}'}, r"is '2 '; expected a whole number"),
        ("sglang", {"speculative_num_steps": "2.0"}, r"must be a whole number"),
        ("sglang", {"speculative_num_steps": "0.002k"}, r"must be a whole number"),
        ("vllm", {"gpu_memory_utilization": 0}, r"--gpu-memory-utilization is 0"),
        ("vllm", {"gpu_memory_utilization": float("nan")}, r"cannot be nan"),
        ("vllm", {"tensor_parallel_size": {}}, r"takes no mapping, found \{\}"),
        ("vllm", {"max_num_seqs": {"a": 1}}, r"takes no mapping"),
        ("vllm", {"max_num_seqs.a": 1}, r"takes no mapping"),
        ("vllm", {"max_num_seqs": -4}, r"expected a whole number from 1 to 65,536: the logits"),
        ("vllm", {"max_num_seqs": 0}, r"expected a whole number from 1"),
        ("vllm", {"max_num_seqs": 10**12}, r"is 1000000000000; expected a whole number from 1 to 65,536"),
        ("vllm", {"max_model_len": "1..2k"}, r"--max-model-len is '1\.\.2k'"),
        ("vllm", {"tool_call_parser": "--help"}, r"what begins with a dash is read as an option"),
        ("vllm", {"otlp_traces_endpoint": ""}, r"cannot be ''; null removes it"),
        ("vllm", {"runner": "pooling"}, r"pooling makes it an endpoint that answers no chats"),
        ("vllm", {"data_parallel_rpc_port": 5}, r"may not hold --data-parallel-rpc-port: the plan sets it"),
        ("vllm", {"headless": True}, r"may not hold --headless"),
        ("vllm", {"compilation_config": {1: 2}}, r"its keys must be text"),
        ("vllm", {"cudagraph_capture_sizes": []}, r"needs a value, found an empty list"),
        ("sglang", {"max_running_requests": -1}, r"expected a whole number from 1 to 65,536"),
        ("sglang", {"speculative_eagle_topk": None}, r"without --speculative-eagle-topk: SGLang ends at the start"),
        ("sglang", {"enable_multimodal": False}, r"cannot be switched off: SGLang has no word for that"),
        ("sglang", {"enable_piecewise_cuda_graph": True}, r"leave it out, it is the default"),
        ("sglang", {"is_embedding": True}, r"true makes it an endpoint that answers no chats"),
        ("sglang", {"tp_size": {}}, r"takes no mapping"),
        ("sglang 0.5.23", {"speculative_algorithm": "eagle"}, r"drafts by no method 'eagle'; did you mean EAGLE\?"),
        ("sglang 0.5.23", {"speculative_algorithm": "MAGIC"}, r"drafts by no method 'MAGIC'"),
    ],
)
def test_what_means_nothing_is_refused_with_the_reason(engine: str, arguments: dict[str, Any], message: str) -> None:
    name, _space, version = engine.partition(" ")
    version = version or {"vllm": "0.32.0", "sglang": "0.5.10"}[name]
    with pytest.raises(planner.PlanError, match=message) as refused:
        plan(name, version, runtime="venv", **arguments)
    assert "Next: " in str(refused.value)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.34.0", r"unknown vllm version '0\.34\.0'.*make engine VERSION=vllm:0\.34\.0"),
        ("latest", r"is 'latest', which is no release of vllm"),
        ("abc", r"is 'abc', which is no release of vllm"),
        ("v0.32.0", r"is 'v0\.32\.0', which is no release"),
        ("0.18.0", r"vllm 0\.18\.0 cannot serve GLM-5\.1: it needs vllm 0\.19\.0 or newer"),
    ],
)
def test_an_unknown_version_gets_the_true_reason(version: str, message: str) -> None:
    with pytest.raises(planner.PlanError, match=message):
        plan(version=version)


def test_notes_say_what_the_plan_does_not_see_to() -> None:
    made = plan(
        version="0.32.0", cpu_offload_gb=2, generation_config="vllm", chat_template="/vllm-workspace/x.jinja", seed=1,
        load_format="fastsafetensors", max_num_seqs=8,
    )  # fmt: skip
    text = "\n".join(made["notes"])
    assert "changes --cpu-offload-gb, which changes what memory is taken; the arithmetic of the plan does not" in text
    assert "changes --generation-config, which changes what clients get" in text
    assert "changes --chat-template, which needs a file or folder where the engine sees it" in text
    assert "changes --load-format, which needs a package" in text
    assert "glm_engine_args changes --seed." in text
    assert "needs" not in "\n".join(plan(version="0.32.0", load_format="safetensors")["notes"])


def test_no_intent_raises_anything_but_a_refusal() -> None:
    """More of them: make intents ARGS="--count 100000 --seed 7"."""
    figures, raised = intents.plan_all(KNOWN, seed=1, count=600)
    assert [(intent, repr(error)) for intent, error in raised[:5]] == []
    assert min(figures["planned"], figures["refused"]) > 60
