"""A config.json gives the same model as the catalogue's entry, or an error that names the key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.build import CatalogError
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.records import Checkpoint
from ansible_collections.glm.fleet.plugins.plugin_utils.plan import model_config

KNOWN = catalog.load().models

# Files as the models' repositories have them, without the keys that serving does not depend on.
GLM_MOE_DSA: dict[str, Any] = {
    "architectures": ["GlmMoeDsaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "bfloat16",
    "eos_token_id": [154820, 154827, 154829],
    "first_k_dense_replace": 3,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 6144,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "index_topk": 2048,
    "intermediate_size": 12288,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "model_type": "glm_moe_dsa",
    "moe_intermediate_size": 2048,
    "n_group": 1,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 78,
    "num_key_value_heads": 64,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "rope_parameters": {"rope_theta": 1000000, "rope_type": "default"},
    "routed_scaling_factor": 2.5,
    "tie_word_embeddings": False,
    "v_head_dim": 256,
    "vocab_size": 154880,
}
# Layers 0, 1, 2 and every fourth from there on have an indexer.
INDEXER_TYPES = ["full" if layer < 3 or layer % 4 == 2 else "shared" for layer in range(78)]
GLM4_MOE: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "first_k_dense_replace": 3,
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe",
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "n_shared_experts": 1,
    "num_attention_heads": 96,
    "num_hidden_layers": 92,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5,
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "vocab_size": 151552,
}
GLM4_MOE_LITE: dict[str, Any] = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe_lite",
    "moe_intermediate_size": 1536,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "num_attention_heads": 20,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 47,
    "num_key_value_heads": 20,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "tie_word_embeddings": False,
    "v_head_dim": 256,
    "vocab_size": 154880,
}
FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}


def write(tmp_path: Path, content: dict[str, Any], folder: str = "GLM-9") -> Path:
    path = tmp_path / folder / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (GLM_MOE_DSA, "GLM-5.1"),
        ({**GLM_MOE_DSA, "indexer_types": INDEXER_TYPES, "max_position_embeddings": 1048576}, "GLM-5.2"),
        ({**GLM_MOE_DSA, "indexer_types": [*INDEXER_TYPES, "full"], "max_position_embeddings": 1048576}, "GLM-5.2"),
        (GLM4_MOE, "GLM-4.7"),
        (GLM4_MOE_LITE, "GLM-4.7-Flash"),
    ],
)
def test_the_file_of_a_known_model_gives_its_entry(tmp_path: Path, content: dict[str, Any], name: str) -> None:
    found, expected = model_config.from_config(write(tmp_path, content)), KNOWN[name]
    assert found.config == expected.config
    for key in ("architecture", "model_type", "context_length", "min_transformers", "needs", "parsers", "thinking"):
        assert getattr(found, key) == getattr(expected, key), key
    assert found.mtp == expected.mtp
    assert found.engines == expected.engines
    assert list(found.precisions) == ["bf16"]


def test_what_the_file_does_not_say_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, GLM4_MOE)
    found = model_config.from_config(path)
    assert found.name == "GLM-9"
    assert found.sources == [str(path)]
    assert "assumed to be those of GLM-4.7" in found.notes[0]
    assert "unknown" in found.license
    assert found.precisions["bf16"] == Checkpoint(None, "bf16", "glm-9")


def test_a_folder_and_a_name_may_be_given(tmp_path: Path) -> None:
    folder = write(tmp_path, {**GLM_MOE_DSA, "quantization_config": FP8}).parent
    found = model_config.from_config(str(folder), "My GLM")
    assert found.name == "My GLM"
    assert found.precisions["fp8"].served_name == "my-glm-fp8"
    assert memory.checkpoint_bytes(found.config, "fp8") == 756_162_648_960


@pytest.mark.parametrize(
    ("quantised", "weights"),
    [
        (FP8, "fp8"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}},
            },
            "fp8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "nvfp4-pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}},
            },
            "nvfp4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "mixed-precision",
                "config_groups": {
                    "group_0": {"format": "float-quantized"},
                    "group_1": {"format": "nvfp4-pack-quantized"},
                },
            },
            "nvfp4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
            },
            "int4",
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "ignore": ["lm_head"]}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "fp8"}, "fp8"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "NVFP4", "group_size": 16}},
            },
            "nvfp4",
        ),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}, "int4"),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32, "scale_format": "e8m0"}},
                "layer_quant_config": {},
                "exclude": ["lm_head"],
            },
            "mxfp4",
        ),
        ({"quant_method": "w4afp8", "weight_block_size": [128, 128], "activation_scheme": "static"}, "w4afp8"),
    ],
)
def test_weight_formats(tmp_path: Path, quantised: dict[str, Any], weights: str) -> None:
    found = model_config.from_config(write(tmp_path, {**GLM_MOE_DSA, "quantization_config": quantised}))
    assert list(found.precisions) == [weights]
    checkpoint = found.precisions[weights]
    assert (checkpoint.weights, checkpoint.served_name) == (weights, f"glm-9-{weights}")
    assert checkpoint.mtp == (weights != "int4")
    # What is not one format throughout is said to be assumed.
    assert len(found.notes) == (1 if weights == "fp8" else 2)


def test_a_file_without_mtp_drafts_nothing(tmp_path: Path) -> None:
    content = {key: value for key, value in GLM4_MOE.items() if key != "num_nextn_predict_layers"}
    found = model_config.from_config(write(tmp_path, content))
    assert (found.mtp.layers, found.precisions["bf16"].mtp, found.config.mtp_embeddings) == (0, False, False)
    assert found.config == dataclasses.replace(
        KNOWN["GLM-4.7"].config, num_nextn_predict_layers=0, mtp_embeddings=False
    )


def test_dense_layers_may_be_listed(tmp_path: Path) -> None:
    content = {key: value for key, value in GLM_MOE_DSA.items() if key != "first_k_dense_replace"}
    content["mlp_layer_types"] = ["dense"] * 3 + ["sparse"] * 75
    assert model_config.from_config(write(tmp_path, content)).config == KNOWN["GLM-5.1"].config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "glm5_next"}, r'model_type: expected one of glm_moe_dsa, .*, found "glm5_next"'),
        ({"model_type": None}, r"model_type: expected one of glm_moe_dsa, .*, found nothing"),
        ({"model_type": ["glm4_moe"]}, r'model_type: expected one of .*, found \["glm4_moe"\]'),
        ({"architectures": ["LlamaForCausalLM"]}, r'architectures: expected \["GlmMoeDsaForCausalLM"\], found \['),
        ({"vocab_size": None}, "vocab_size: expected a whole number of at least 1, found nothing"),
        ({"q_lora_rank": None}, "q_lora_rank: expected a whole number of at least 1, found nothing"),
        ({"index_head_dim": "128"}, 'index_head_dim: expected a whole number of at least 1, found "128"'),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number of at least 1, found 0"),
        ({"hidden_size": True}, "hidden_size: expected a whole number of at least 1, found true"),
        ({"max_position_embeddings": None}, "max_position_embeddings: expected a whole number"),
        ({"first_k_dense_replace": None}, "first_k_dense_replace: expected a whole number of at least 0"),
        ({"first_k_dense_replace": 79}, "first_k_dense_replace: expected at most 78, found 79"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers: expected a whole number of at least 0, found -1"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: expected false"),
        ({"indexer_types": ["full"]}, "indexer_types: expected a list of full or shared for each of 78 layers, found"),
        ({"indexer_types": ["all"] * 78}, "indexer_types: expected a list of full or shared for each of 78 layers"),
        ({"quantization_config": "fp8"}, 'quantization_config: expected an object, found "fp8"'),
        ({"quantization_config": {}}, "quant_method: expected fp8, compressed-tensors, .* found nothing"),
        ({"quantization_config": {"quant_method": "exl3"}}, 'quant_method: expected fp8, .* found "exl3"'),
        (
            {"quantization_config": {**FP8, "weight_block_size": [64, 64]}},
            r"weight_block_size: expected \[128, 128\], found \[64, 64\]",
        ),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 8, "group_size": 128}},
            r"quantization_config\.bits: expected 4, found 8",
        ),
        (
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}},
            r"quantization_config\.group_size: expected 128, found 32",
        ),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}},
            'quantization_config.format: expected nvfp4-pack-quantized, .* found "int-quantized"',
        ),
        (
            {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}},
            'quant_algo: expected NVFP4, FP8 .* found "W4A8_AWQ"',
        ),
        (
            {"quantization_config": {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int8"}}}},
            r'dtype: expected fp4 or fp8_e4m3, found \["int8"\]',
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, {key: value for key, value in {**GLM_MOE_DSA, **change}.items() if value is not None})
    with pytest.raises(model_config.ModelConfigError, match=message) as refused:
        model_config.from_config(path)
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "expected an object, found list")])
def test_what_is_no_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(model_config.ModelConfigError, match=message):
        model_config.from_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"config\.json: cannot be read: No such file"):
        model_config.from_config(tmp_path / "config.json")
