"""The catalogue loads, and a file of the wrong shape is refused by file, entry and key."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.glm.fleet.plugins.module_utils import versions
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import flags
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import make as planner
from ansible_collections.glm.fleet.plugins.plugin_utils.plan.choice import Intent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A catalogue that may be broken."""
    return Path(shutil.copytree(catalog.ROOT, tmp_path / "catalog"))


def edit(copy: Path, file: str, old: str, new: str) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("models.yml", "vocab_size: 154880", "vocab_size: many",
         r"models\.yml: models\.GLM-5\.1\.config\.vocab_size: expected int, found str 'many'"),
        ("models.yml", "    license: MIT\n", "", r"models\.GLM-5\.1: missing key license"),
        ("models.yml", "    license: MIT", "    licence: MIT", r"unknown key 'licence'; did you mean license\?"),
        ("models.yml", "recommended: 0.32.0", "recommended: 0.99.0", r"engines\.vllm: unknown version '0\.99\.0'"),
        ("accelerators.yml", "memory_mib: 183359", "memory_mib: true", r"B200\.memory_mib: expected int, found bool"),
        ("accelerators.yml", "features: [int4]", "features: none", r"A100\.features: expected a list, found str"),
        ("models.yml", "weights: mxfp4", "weights: fp5",
         r"GLM-5\.2\.precisions\.mxfp4\.weights: expected one of bf16, fp8, nvfp4, mxfp4, w4afp8, int4, found 'fp5'"),
        ("models.yml", "mtp: false", "mtp: maybe", r"precisions\.int4\.mtp: expected bool, found str"),
        ("models.yml", 'thinking: "on"', 'thinking: "low"',
         r"sampling\.default\.thinking: unknown thinking mode 'low'"),
        ("models.yml", "      default: {temperature: 1.0, top_p: 0.95", "      chat: {temperature: 1.0, top_p: 0.95",
         r"GLM-5\.2\.sampling: unknown scenario 'default'"),
        ("accelerators.yml", "aliases: [H100-80GB]", "aliases: [H200]", r"H100\.aliases: H200 is taken"),
        ("accelerators.yml", 'min_driver: "570"', "min_driver: 570", r"B200\.min_driver: expected str, found int"),
        ("engines/vllm/versions.yml", "default_version: 0.32.0", "default_version: 1.2.3",
         r"engines/vllm/versions\.yml: unknown version '1\.2\.3'"),
        ("engines/vllm/versions.yml", "{cu130: v0.32.0,", "{cu999: v0.32.0,",
         r"versions\.0\.32\.0: unknown image variant 'cu999'"),
        ("engines/vllm/versions.yml", "image:", "imaeg:",
         r"catalog/engines/vllm: unknown key 'imaeg'; did you mean image"),
        ("engines/vllm/engine.yml", "\nbenchmark_client:", "\n# no client\nstop_:",
         r"catalog/engines/vllm: unknown key 'stop_'; did you mean stop"),
        ("engines/vllm/metrics.yml", "name: running", "name: runing", r"metrics\[0\]\.name: expected one of running, "),
        ("engines/sglang/logs.yml", "phase: loading weights", "phase: loading",
         r"engines/sglang/logs\.yml: phases\[2\]\.phase: expected one of starting the engine, "),
        ("engines/sglang/engine.yml", "preference: 2", "preference: 2\nbenchmark_client: {program: p, path: bin/p}",
         r"catalog/engines: expected one engine with a benchmark_client, found \['vllm', 'sglang'\]"),
        ("engines/vllm/engine.yml", "preference: 1\n", "", r"catalog/engines/vllm: missing key preference"),
        ("engines/vllm/engine.yml", "preference: 1", "preference: one",
         r"engines/vllm/engine\.yml: preference: expected int, found str"),
        ("engines/vllm/versions.yml", "image:", "preference: 1\nimage:",
         r"engines/vllm/versions\.yml: preference is already in engines/vllm/engine\.yml"),
        ("recipes.yml", "accelerators: [B200]", "accelerators: [B20]", r"\[0\]: unknown accelerator 'B20'"),
        ("recipes.yml", "[agentic]\n    acc", "[fast]\n    acc", r"recipes\[0\]: unknown profile 'fast'"),
        ("known_issues.yml", "    status: workaround", "    status: odd",
         r"status: expected one of workaround, broken, found 'odd'"),
        ("known_issues.yml", "engine: vllm", "engine: vlm", r"unknown engine 'vlm'"),
        ("known_issues.yml", "model_types: [glm_moe_dsa]\n", "model_types: [glm6]\n", r"unknown model type 'glm6'"),
        ("known_issues.yml", "architectures: [sm100, sm103]", "architectures: [sm10, sm103]",
         r"unknown architecture 'sm10'"),
        ("prices.yml", "prices:", "price:", r"expected the top-level keys \['managed', 'prices', 'storage'\]"),
        ("prices.yml", "prices:", "prices: [", r"prices\.yml: is not YAML"),
        ("prices.yml", "blended: 0.74", "input: 0.74", r"managed\[2\]: expected either blended, or input and output"),
        ("prices.yml", "model: GLM-5.1, blended", "model: GLM-9, blended", r"managed\[2\]: unknown model 'GLM-9'"),
        ("workloads.yml", "interface: chat", "interface: talk", r"expected one of chat, completions, found 'talk'"),
        ("workloads.yml", "input_tokens: 8192", "input_tokens: 0", r"glm51_agentic: expected lengths and numbers of 1"),
        ("workloads.yml", "points: [{prompts: 512, parallel: 32}]", "points: []", r"points: expected at least one"),
        ("published.yml", "parallel: 32", "parallel: 33", r"glm51_agentic has no point of 512 prompts, 33 parallel"),
        ("published.yml", "workload: glm51_agentic", "workload: mine", r"published\[0\]: unknown workload 'mine'"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(copy: Path, file: str, old: str, new: str, message: str) -> None:
    edit(copy, file, old, new)
    with pytest.raises(CatalogError, match=message):
        catalog.load(copy)


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "prices.yml").unlink()
    with pytest.raises(CatalogError, match=r"catalog/prices\.yml: cannot be read"):
        catalog.load(copy)


def test_a_model_is_added_by_data_alone(copy: Path) -> None:
    data = yaml.safe_load((copy / "models.yml").read_text(encoding="utf-8"))
    data["models"]["GLM-6"] = {**data["models"]["GLM-5.1"], "needs": []}
    (copy / "models.yml").write_text(yaml.safe_dump(data), encoding="utf-8")
    assert catalog.load(copy).models["GLM-6"].config == catalog.load().models["GLM-5.1"].config


def test_an_engine_is_added_by_a_folder_and_what_models_and_recipes_say_of_it(copy: Path) -> None:
    """No code knows it: it is planned, and what a host needs to follow its start and to measure it is there."""
    folder = shutil.copytree(copy / "engines/sglang", copy / "engines/echo")
    engine = (folder / "engine.yml").read_text(encoding="utf-8").replace("preference: 2", "preference: 3")
    engine = engine.replace("[python3, -m, sglang.launch_server]", "[echo-serve]", 1)
    (folder / "engine.yml").write_text(engine.replace("title: SGLang", "title: Echo"), encoding="utf-8")
    for file, section in (("models.yml", "models"), ("recipes.yml", "layers")):
        data = yaml.safe_load((copy / file).read_text(encoding="utf-8"))
        if section == "models":
            engines = data["models"]["GLM-5.1"]["engines"]
            engines["echo"] = engines["sglang"]
        else:
            data["layers"] += [{**layer, "engine": "echo"} for layer in data["layers"] if layer["engine"] == "sglang"]
        (copy / file).write_text(yaml.safe_dump(data), encoding="utf-8")
    known = catalog.load(copy)
    intent = Intent(model="GLM-5.1", engine="echo", accelerator="B200", accelerator_count=8, profile="throughput")
    made = planner.make(intent, known)
    assert made["engine"]["name"] == "echo" and made["command"][0] == "echo-serve"
    assert made["parallel"]["data"] == 8, "it divides attention, because its options say how"
    version = made["engine"]["version"]
    assert known.engines["echo"].log_rules(version)["phases"] and known.engines["echo"].metric_rules(version)


def test_every_version_has_a_flag_table() -> None:
    known = catalog.load()
    for name, engine in known.engines.items():
        tables = {path.name for path in (catalog.ROOT / "engines" / name / "flags").iterdir()}
        assert tables == {f"{version}.json" for version in engine.versions}


def test_every_option_the_planner_knows_exists_in_every_version() -> None:
    for name, engine in catalog.load().engines.items():
        # The one option that is younger than the engine's oldest release here.
        younger = {"--attn-dp-size": "0.5.22"}
        options = [value.split(".")[0] for value in vars(engine.options).values() if value]
        for version in engine.versions:
            table = flags.load(name, version)
            absent = [option for option in options if option not in table.options]
            expected = [flag for flag in options if not versions.in_range(version, younger.get(flag), None)]
            assert absent == expected, version


def test_every_version_can_be_served_without_a_prefix_cache() -> None:
    for name, engine in catalog.load().engines.items():
        for version in engine.versions:
            assert set(engine.no_prefix_cache) & set(flags.load(name, version).options), version


def test_rules_of_logs_are_regular_expressions_that_say_what_to_do() -> None:
    for engine in catalog.load().engines.values():
        for rule in engine.phases:
            groups = re.compile(rule.pattern).groups
            assert set(re.findall(r"\\(\d)", rule.detail)) == {str(number + 1) for number in range(groups)}, rule
        assert all(re.compile(rule.pattern) and rule.cause and rule.next for rule in engine.causes)


def test_rules_of_logs_and_metrics_hold_for_the_versions_they_name() -> None:
    engine = catalog.load().engines["vllm"]
    metric = dataclasses.replace(engine.metrics[0], since="0.20.0", below="0.30.0")
    cause = dataclasses.replace(engine.causes[0], below="0.20.0", source="somewhere")
    ranged = dataclasses.replace(engine, metrics=[metric], causes=[cause], phases=[])
    assert [len(ranged.metric_rules(version)) for version in ("0.19.1", "0.20.0", "0.30.0")] == [0, 1, 0]
    assert [len(ranged.log_rules(version)["causes"]) for version in ("0.19.1", "0.20.0")] == [1, 0]
    # What a host gets is what it needs.
    assert set(ranged.log_rules()["causes"][0]) == {"pattern", "cause", "next"}


def test_replaced_options_are_absent_where_the_hint_could_show() -> None:
    """A hint about an option that the default version has would never be read."""
    for name, engine in catalog.load().engines.items():
        newest = max(engine.versions, key=versions.order)
        present = set(flags.load(name, newest).options) & set(engine.replaced_options)
        assert present <= {"--disable-log-requests"}, present


def test_an_alias_names_the_same_accelerator() -> None:
    known = catalog.load().accelerators
    assert known["A100-80GB"] is known["A100"]
    assert known["A100"].memory_mib == 2 * known["A100-40GB"].memory_mib


def test_every_model_of_the_sources_is_known_in_its_precisions() -> None:
    known = {name: set(model.precisions) for name, model in catalog.load().models.items()}
    assert known == {
        "GLM-5.1": {"fp8", "bf16", "nvfp4", "int4"},
        "GLM-5": {"fp8", "bf16", "nvfp4", "nvfp4-community", "int4"},
        "GLM-5.2": {"fp8", "bf16", "nvfp4", "mxfp4", "w4afp8", "int4"},
        "GLM-5.3": {"fp8", "bf16", "nvfp4", "w4afp8", "int4"},
        "GLM-4.7": {"fp8", "bf16", "nvfp4", "int4"},
        "GLM-4.7-Flash": {"bf16", "int4"},
        "GLM-4.6": {"fp8", "bf16", "int4"},
        "GLM-4.5": {"fp8", "bf16", "int4"},
        "GLM-4.5-Air": {"fp8", "bf16", "int4"},
    }


def test_repositories_and_served_names() -> None:
    models = catalog.load().models
    found = {model.precisions["fp8"].repository for model in models.values() if "fp8" in model.precisions}
    assert found == {
        "zai-org/GLM-5.1-FP8", "zai-org/GLM-5-FP8", "zai-org/GLM-5.2-FP8", "zai-org/GLM-5.3", "zai-org/GLM-4.7-FP8",
        "zai-org/GLM-4.6-FP8", "zai-org/GLM-4.5-FP8", "zai-org/GLM-4.5-Air-FP8",
    }  # fmt: skip
    assert models["GLM-5.3"].precisions["bf16"].repository == "zai-org/GLM-5.3-BF16"
    assert models["GLM-5"].precisions["fp8"].served_name == "glm-5-fp8"
    for model in models.values():
        int4 = model.precisions["int4"]
        assert int4.repository is None and not int4.mtp, "nobody publishes it, and quantising loses the MTP layer"


def test_parsers_follow_the_model() -> None:
    """Tool calls changed with GLM-4.7, reasoning did not."""
    parsers = {name: (model.parsers.tool, model.parsers.reasoning) for name, model in catalog.load().models.items()}
    older = {"GLM-4.6", "GLM-4.5", "GLM-4.5-Air"}
    assert {name for name, (tool, _reasoning) in parsers.items() if tool == "glm45"} == older
    assert {tool for name, (tool, _reasoning) in parsers.items() if name not in older} == {"glm47"}
    assert {reasoning for _tool, reasoning in parsers.values()} == {"glm45"}


def test_glm53_always_thinks_and_is_not_promised_as_mit() -> None:
    model = catalog.load().models["GLM-5.3"]
    assert model.thinking.off is None
    assert "enable_thinking" not in str(model.thinking)
    assert model.thinking.efforts == ["low", "high", "max"]
    assert model.license != "MIT"


def test_drafted_tokens() -> None:
    models = catalog.load().models
    drafted = {name: (model.mtp.tokens, model.mtp.draft_steps) for name, model in models.items()}
    assert drafted["GLM-5.1"] == (3, 3)
    assert drafted["GLM-5.2"] == (5, 5)
    assert drafted["GLM-4.7"] == (1, 3), "vLLM recommends 1 for GLM-4.x, Z.ai drafts 3 with SGLang"


def test_precisions_need_hardware() -> None:
    known = catalog.load()
    wanted = {weights: set() for weights in ("fp8", "nvfp4", "mxfp4", "w4afp8")}
    for weights, found in wanted.items():
        found |= {name for name, item in known.accelerators.items() if weights in item.features}
    assert wanted["nvfp4"] == {"B200", "B300", "GB200", "GB300", "RTX-PRO-6000"}
    assert wanted["mxfp4"] == {"MI355X"}
    assert wanted["w4afp8"] == {"H100", "H100-80GB", "H200", "H20", "H20-3e"}
    assert not wanted["fp8"] & {"A100", "A100-40GB"}
    assert known.models["GLM-5"].precisions["nvfp4-community"].needs == ["nvfp4"]
    assert known.models["GLM-5"].precisions["bf16"].needs == []
