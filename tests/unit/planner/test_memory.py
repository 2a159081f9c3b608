"""Every published figure about the size of GLM models, to the byte or to the rounding it was published with."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils import catalog, memory
from ansible_collections.glm.fleet.plugins.plugin_utils.memory import GIB, Config

GLM51 = catalog.load().models["GLM-5.1"].config
GLM52 = dataclasses.replace(GLM51, indexer_layers=21)
GLM45 = Config(
    num_hidden_layers=92,
    hidden_size=5120,
    intermediate_size=12288,
    moe_intermediate_size=1536,
    n_routed_experts=160,
    n_shared_experts=1,
    first_k_dense_replace=3,
    num_attention_heads=96,
    vocab_size=151552,
    num_key_value_heads=8,
    head_dim=128,
    attention_bias=True,
    use_qk_norm=True,
)
AIR = dataclasses.replace(
    GLM45, num_hidden_layers=46, hidden_size=4096, intermediate_size=10944, moe_intermediate_size=1408,
    n_routed_experts=128, first_k_dense_replace=1, use_qk_norm=False,
)  # fmt: skip
FLASH = Config(
    num_hidden_layers=47,
    hidden_size=2048,
    intermediate_size=10240,
    moe_intermediate_size=1536,
    n_routed_experts=64,
    n_shared_experts=1,
    first_k_dense_replace=1,
    num_attention_heads=20,
    vocab_size=154880,
    q_lora_rank=768,
    kv_lora_rank=512,
    qk_nope_head_dim=192,
    qk_rope_head_dim=64,
    v_head_dim=256,
)


def test_parameters_are_both_published_numbers() -> None:
    main, whole = memory.parameters(GLM51, mtp=False), memory.parameters(GLM51)
    assert main == 743_911_218_432  # "744B"
    assert whole == 753_864_139_008  # "754B"
    assert whole - main == 9_952_920_576  # the MTP layer


@pytest.mark.parametrize(
    ("config", "main", "with_mtp"), [(GLM45, 352.8, 356.8), (AIR, 106.9, None), (FLASH, 29.9, None)]
)
def test_parameters_of_other_architectures(config: Config, main: float, with_mtp: float | None) -> None:
    assert round(memory.parameters(config, mtp=False) / 1e9, 1) == main
    if with_mtp:
        assert round(memory.parameters(config) / 1e9, 1) == with_mtp


def test_checkpoint_sizes() -> None:
    fp8 = memory.checkpoint_bytes(GLM51, "fp8")
    assert fp8 == 756_162_648_960
    assert round(fp8 / 1e9, 2) == 756.16
    assert round(fp8 / GIB, 2) == 704.23
    assert round(memory.checkpoint_bytes(GLM51, "bf16") / 1e9, 1) == 1507.7
    assert round(memory.checkpoint_bytes(GLM51, "bf16") / GIB, 1) == 1404.2
    assert round(memory.checkpoint_bytes(GLM51, "nvfp4", mtp=False) / 1e9, 1) == 446.0
    assert round(memory.checkpoint_bytes(GLM51, "nvfp4") / 1e9, 1) == 465.9
    # GLM-5.2 has an indexer of its own in 21 layers only; published as 703.74 GiB.
    assert round(memory.checkpoint_bytes(GLM52, "fp8") / GIB, 2) == 703.72


@pytest.mark.parametrize(
    ("weights", "tensor_parallel", "mtp", "gib"),
    [
        ("fp8", 4, False, 175.3),
        ("fp8", 8, False, 88.7),
        ("fp8", 16, False, 45.4),
        ("fp8", 8, True, 90.0),
        ("fp8", 16, True, 46.1),
        ("bf16", 8, False, 176.6),
        ("bf16", 8, True, 179.1),
        ("bf16", 16, True, 91.6),
    ],
)
def test_weights_per_gpu(weights: memory.WeightFormat, tensor_parallel: int, mtp: bool, gib: float) -> None:
    assert round(memory.weights_per_gpu(GLM51, weights, tensor_parallel, mtp) / GIB, 1) == gib


def test_absorbed_projection_and_data_parallel_attention() -> None:
    assert round(memory.absorbed_per_gpu(GLM51, 8) / GIB, 2) == 0.27
    assert memory.absorbed_per_gpu(GLM45, 8) == 0
    plain = memory.weights_per_gpu(GLM51, "fp8", 8)
    assert round((memory.weights_per_gpu(GLM51, "fp8", 8, attention_parallel=1) - plain) / GIB, 1) == 9.6


@pytest.mark.parametrize(
    ("kv_format", "main", "with_mtp", "request_gib"),
    [("bf16", 100_152, 101_436, 19.2), ("fp8_packed", 61_464, 62_252, 11.8), ("fp8_flat", 55_224, 55_932, 10.6)],
)
def test_kv_bytes_per_token(kv_format: str, main: int, with_mtp: int, request_gib: float) -> None:
    assert memory.kv_bytes_per_token(GLM51, kv_format, 8, mtp=False) == main
    assert memory.kv_bytes_per_token(GLM51, kv_format, 8) == with_mtp
    assert memory.kv_bytes_per_token(GLM51, kv_format, 1) == with_mtp, "one latent head: every GPU stores all of it"
    assert round(with_mtp * 202_752 / GIB, 1) == request_gib


def test_kv_of_grouped_query_models_is_divided_by_heads() -> None:
    assert memory.kv_bytes_per_token(GLM45, "bf16", 1, mtp=False) == 376_832
    assert memory.kv_bytes_per_token(GLM45, "bf16", 1) == 380_928
    assert [memory.kv_bytes_per_token(GLM45, "bf16", tp, mtp=False) for tp in (4, 8, 16)] == [94_208, 47_104, 47_104]
    assert memory.kv_bytes_per_token(AIR, "bf16", 1, mtp=False) == 188_416
    assert memory.kv_bytes_per_token(AIR, "bf16", 8, mtp=False) == 23_552
    assert memory.kv_bytes_per_token(FLASH, "bf16", 4, mtp=False) == 54_144
    assert memory.kv_bytes_per_token(GLM52, "bf16", 8, mtp=False) == 100_152 - 57 * 132


@pytest.mark.parametrize(
    ("accelerator", "fraction", "pool_gib", "pools"),
    [
        ("H200", 0.85, 29.1, {"bf16": 308, "fp8_packed": 501, "fp8_flat": 558}),
        ("B200", 0.85, 61.9, {"bf16": 655, "fp8_packed": 1068, "fp8_flat": 1189}),
        ("B200", 0.90, 70.9, {"bf16": 750, "fp8_packed": 1223, "fp8_flat": 1361}),
    ],
)
def test_token_pools(accelerator: str, fraction: float, pool_gib: float, pools: dict[str, int]) -> None:
    hbm = catalog.load().accelerators[accelerator].memory_gib
    weights = (memory.weights_per_gpu(GLM51, "fp8", 8) + memory.absorbed_per_gpu(GLM51, 8)) / GIB
    pool = fraction * hbm - weights
    assert round(pool, 1) == pool_gib
    for kv_format, tokens in pools.items():
        found = memory.token_pool(pool * GIB, memory.kv_bytes_per_token(GLM51, kv_format, 8))
        assert abs(found / 1000 - tokens) < 1


def test_a_pool_is_never_negative() -> None:
    assert memory.token_pool(-5 * GIB, 100) == 0


def test_unknown_kv_format_is_named() -> None:
    with pytest.raises(ValueError, match="'int2'"):
        memory.kv_bytes_per_token(GLM51, "int2", 8)
