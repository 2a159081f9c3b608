"""Every published figure about the size of GLM models, to the byte or to the rounding it was published with."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import load as catalog
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog import memory
from ansible_collections.glm.fleet.plugins.plugin_utils.catalog.memory import GIB

KNOWN = catalog.load()
CONFIGS = {name: model.config for name, model in KNOWN.models.items()}
GLM51, GLM52, GLM45, AIR = (CONFIGS[name] for name in ("GLM-5.1", "GLM-5.2", "GLM-4.5", "GLM-4.5-Air"))
FLASH = CONFIGS["GLM-4.7-Flash"]


def weights_gib(tensor_parallel: int) -> float:
    """GLM-5.1 FP8 per GPU with MTP and the absorbed projection: 90.3 GiB at TP8."""
    size = memory.weights_per_gpu(GLM51, "fp8", tensor_parallel) + memory.absorbed_per_gpu(GLM51, tensor_parallel)
    return size / GIB


def test_parameters_are_both_published_numbers() -> None:
    main, whole = memory.parameters(GLM51, mtp=False), memory.parameters(GLM51)
    assert main == 743_911_218_432  # "744B"
    assert whole == 753_864_139_008  # "754B"
    assert whole - main == 9_952_920_576  # the MTP layer


def test_parameters_of_one_layer_of_glm51() -> None:
    """Every matrix of the published count."""
    found = {(t.rows, t.columns): t.parameters // t.copies for t in memory.tensors(GLM51, mtp=False)}
    attention = [
        found[2048, 6144],  # q_a
        found[16384, 2048],  # q_b
        found[576, 6144],  # kv_a
        found[28672, 512],  # kv_b
        found[6144, 16384],  # o
    ]
    assert attention == [12_582_912, 33_554_432, 3_538_944, 14_680_064, 100_663_296]
    indexer = [found[4096, 2048], found[128, 6144], found[32, 6144]]
    assert indexer == [8_388_608, 786_432, 196_608]
    assert sum(attention) + sum(indexer) + 2 * 128 + 2 * 6144 + 2048 + 512 == 174_406_400
    assert 3 * found[12288, 6144] == 226_492_416
    # The experts' matrix and the shared expert's have one shape; the gate has a bias per expert.
    expert = 3 * 2048 * 6144
    assert (256 * expert, expert, found[256, 6144] + 256) == (9_663_676_416, 37_748_736, 1_573_120)
    assert 2 * found[154880, 6144] == 1_903_165_440


@pytest.mark.parametrize(
    ("name", "main", "shared", "own"),
    [
        # Billions: main model, with an MTP layer that shares embedding and head, with one that has its own.
        ("GLM-4.5", 352.8, 356.8, 358.3),
        ("GLM-4.6", 352.8, 356.8, 358.3),
        ("GLM-4.7", 352.8, 356.8, 358.3),
        ("GLM-4.5-Air", 106.9, 109.2, 110.5),
        ("GLM-4.7-Flash", 29.9, 30.6, 31.2),
    ],
)
def test_parameters_of_other_architectures(name: str, main: float, shared: float, own: float) -> None:
    config = CONFIGS[name]
    assert round(memory.parameters(config, mtp=False) / 1e9, 1) == main
    for duplicated, expected in ((False, shared), (True, own)):
        changed = dataclasses.replace(config, mtp_embeddings=duplicated)
        assert round(memory.parameters(changed) / 1e9, 1) == expected


def test_listed_sizes_tell_whether_mtp_has_its_own_embedding() -> None:
    """The recipes list 357B for GLM-4.6 and 358B for GLM-4.7."""
    assert [round(memory.parameters(CONFIGS[name]) / 1e9) for name in ("GLM-4.6", "GLM-4.7")] == [357, 358]
    # GPUs hold one copy: the engines share it.
    assert memory.weights_per_gpu(CONFIGS["GLM-4.6"], "fp8", 4) == memory.weights_per_gpu(CONFIGS["GLM-4.7"], "fp8", 4)


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
    # The MTP layer alone; published as mtp.safetensors of 19.9 GB.
    alone = memory.checkpoint_bytes(GLM51, "bf16") - memory.checkpoint_bytes(GLM51, "bf16", mtp=False)
    assert round(alone / 1e9, 1) == 19.9
    # "The ~465 GB checkpoint" of nvidia/GLM-5.2-NVFP4.
    assert round(memory.checkpoint_bytes(GLM52, "nvfp4") / 1e9) == 465


def test_int4_is_not_200_gb() -> None:
    """One guide says 200 GB. Half a byte for each of 744B is 372 GB; with scales and unquantised parts more."""
    size = memory.checkpoint_bytes(GLM51, "int4", mtp=False)
    assert round(0.5 * memory.parameters(GLM51, mtp=False) / 1e9) == 372
    assert 376e9 < size < 423e9
    assert round(size / 1e9, 1) == 389.5
    # 5x A100 80 GB would have 400 GiB, and 389.5 GB is 362.7 GiB: it is the heads that cannot be divided.
    assert 5 not in memory.valid_tensor_parallel(GLM51)


def test_int4_bytes_of_one_matrix() -> None:
    matrix = memory.Tensor(256, 1024, 3, sharded=True, quantised=True)
    values, scales, zeros = 256 * 1024 / 2, 2 * 256 * 8, 256 * 8 / 2
    assert matrix.size("int4") == 3 * (values + scales + zeros)
    # A row shorter than a group still has a scale.
    assert memory.Tensor(4, 100, 1, sharded=True, quantised=True).size("int4") == 200 + 4 * 2.5
    assert memory.Tensor(4, 100, 1, sharded=True, quantised=False).size("int4") == 800


def test_mxfp4_quantises_experts() -> None:
    """amd/GLM-5.2-MXFP4; the vLLM recipe asks for 446 GB of memory."""
    assert round(memory.checkpoint_bytes(GLM52, "mxfp4") / 1e9) == 442
    experts = sum(tensor.parameters for tensor in memory.tensors(GLM52, mtp=False) if tensor.expert)
    saved = memory.checkpoint_bytes(GLM52, "bf16") - memory.checkpoint_bytes(GLM52, "mxfp4")
    assert saved == round(experts * (2 - 17 / 32))


def test_w4afp8_is_int4_experts_in_an_fp8_checkpoint() -> None:
    """PhalaCloud/GLM-5.2-W4AFP8; its publisher says about 400 GB."""
    assert round(memory.checkpoint_bytes(GLM52, "w4afp8") / 1e9) == 400
    experts = sum(tensor.parameters for tensor in memory.tensors(GLM52) if tensor.expert)
    scales = sum(
        tensor.copies * -(-tensor.rows // 128) * -(-tensor.columns // 128) * 4
        for tensor in memory.tensors(GLM52)
        if tensor.expert
    )
    saved = memory.checkpoint_bytes(GLM52, "fp8") - memory.checkpoint_bytes(GLM52, "w4afp8")
    assert saved == round(experts * (1 - 1 / 2 - 2 / 128) + scales)


@pytest.mark.parametrize(
    ("weights", "tensor_parallel", "mtp", "gib"),
    [
        ("fp8", 4, False, 175.3),
        ("fp8", 8, False, 88.7),
        ("fp8", 16, False, 45.4),
        ("fp8", 4, True, 177.8),
        ("fp8", 8, True, 90.0),
        ("fp8", 16, True, 46.1),
        ("bf16", 8, False, 176.6),
        ("bf16", 8, True, 179.1),
        ("bf16", 16, True, 91.6),
    ],
)
def test_weights_per_gpu(weights: memory.WeightFormat, tensor_parallel: int, mtp: bool, gib: float) -> None:
    # Half of the last digit, and a hair: the table rounds 177.74997 up.
    assert abs(memory.weights_per_gpu(GLM51, weights, tensor_parallel, mtp) / GIB - gib) < 0.0501


def test_weights_of_nvfp4_per_gpu() -> None:
    """Published for an MTP layer whose experts are FP4 too: 108.3 and 56.2 GiB; the checkpoint's is BF16, 3.2 more."""
    published = [memory.weights_per_gpu(GLM51, "nvfp4", size, mtp_weights="nvfp4") / GIB for size in (4, 8)]
    assert [round(size, 1) for size in published] == [108.3, 56.2]
    assert round(memory.weights_per_gpu(GLM51, "nvfp4", 4) / GIB, 1) == 111.6
    # Two replicas on a box with 8x B200: 43.9 GiB and 842k tokens for each.
    pool = 0.85 * KNOWN.accelerators["B200"].memory_gib - published[0]
    assert round(pool, 1) == 43.9
    assert memory.token_pool(pool * GIB, memory.kv_bytes_per_token(GLM51, "fp8_flat", 4)) // 1000 == 842


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
    assert memory.kv_bytes_per_token(GLM52, "bf16", 8) == 101_436 - 57 * 132


@pytest.mark.parametrize("kv_format", ["fp8", "fp8_packed", "fp8_flat"])
def test_kv_of_grouped_query_models_has_one_fp8_layout(kv_format: str) -> None:
    assert memory.kv_bytes_per_token(GLM45, kv_format, 1, mtp=False) == 376_832 // 2
    assert memory.kv_bytes_per_token(GLM45, kv_format, 8) == 380_928 // 16
    assert memory.kv_bytes_per_token(AIR, kv_format, 8, mtp=False) == 23_552 // 2


def test_kv_of_mla_without_sparse_attention_in_fp8() -> None:
    assert memory.kv_bytes_per_token(FLASH, "fp8", 1, mtp=False) == 54_144 // 2


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("GLM-5.1", [1, 2, 4, 8, 16, 32, 64]),
        ("GLM-5.2", [1, 2, 4, 8, 16, 32, 64]),
        ("GLM-4.7", [1, 2, 4, 8]),
        ("GLM-4.5-Air", [1, 2, 4, 8]),
        ("GLM-4.7-Flash", [1, 2, 4]),
    ],
)
def test_valid_tensor_parallel_sizes(name: str, sizes: list[int]) -> None:
    assert memory.valid_tensor_parallel(CONFIGS[name]) == sizes


def test_kv_heads_may_be_kept_twice() -> None:
    """Z.ai lists GLM-4.5 BF16 on 16x H100, more GPUs than KV heads."""
    assert 16 in memory.valid_tensor_parallel(GLM45, replicate_kv=True)
    assert 12 not in memory.valid_tensor_parallel(GLM45, replicate_kv=True)


@pytest.mark.parametrize(
    ("accelerator", "tensor_parallel", "fraction", "pool_gib", "pools"),
    [
        # Thousands of tokens. GLM-5.1 FP8 with MTP and the absorbed projection.
        ("H200", 8, 0.85, 29.1, {"bf16": 308, "fp8_packed": 501, "fp8_flat": 558}),
        ("B200", 8, 0.85, 61.9, {"bf16": 655, "fp8_packed": 1070, "fp8_flat": 1190}),
        ("B200", 8, 0.90, 70.9, {"bf16": 750, "fp8_packed": 1220, "fp8_flat": 1360}),
        ("MI300X", 8, 0.80, 63.3, {"bf16": 670, "fp8_packed": 1090, "fp8_flat": 1220}),
        ("MI325X", 8, 0.80, 114.5, {"bf16": 1210, "fp8_packed": 1980}),
        ("MI355X", 8, 0.85, 154.5, {"bf16": 1640, "fp8_packed": 2670}),
        ("H100", 16, 0.85, 21.4, {"bf16": 227}),
    ],
)
def test_token_pools(
    accelerator: str, tensor_parallel: int, fraction: float, pool_gib: float, pools: dict[str, int]
) -> None:
    pool = fraction * KNOWN.accelerators[accelerator].memory_gib - weights_gib(tensor_parallel)
    assert round(pool, 1) == pool_gib
    for kv_format, published in pools.items():
        found = memory.token_pool(pool * GIB, memory.kv_bytes_per_token(GLM51, kv_format, tensor_parallel)) / 1000
        # Below a million tokens the table has thousands, above it tens of thousands.
        assert abs(found - published) < (1 if published < 1000 else 5.5)


def test_full_length_requests() -> None:
    """1.5 requests of 202,752 tokens on 8x H200, 3.2 on 8x B200."""
    for accelerator, requests in (("H200", 1.5), ("B200", 3.2)):
        pool = 0.85 * KNOWN.accelerators[accelerator].memory_gib - weights_gib(8)
        tokens = memory.token_pool(pool * GIB, memory.kv_bytes_per_token(GLM51, "bf16", 8))
        assert round(tokens / 202_752, 1) == requests


@pytest.mark.parametrize(
    ("accelerator", "fraction", "bf16", "packed"),
    [("H200", 0.85, 1.65, 2.69), ("B200", 0.85, 4.43, 7.22), ("B200", 0.90, 5.19, 8.46)],
)
def test_pools_with_data_parallel_attention(accelerator: str, fraction: float, bf16: float, packed: float) -> None:
    """Millions of tokens of eight ranks. The table divides the absorbed projection by 8, though each rank has all of it
    (2.2 GiB instead of 0.3): the planner counts that, so its pools are smaller."""
    weights = memory.weights_per_gpu(GLM51, "fp8", 8, attention_parallel=1) + memory.absorbed_per_gpu(GLM51, 8)
    pool = fraction * KNOWN.accelerators[accelerator].memory_gib - weights / GIB
    for kv_format, published in (("bf16", bf16), ("fp8_packed", packed)):
        rank = memory.token_pool(pool * GIB, memory.kv_bytes_per_token(GLM51, kv_format, 1))
        assert round(8 * rank / 1e6, 2) == published
        if accelerator == "H200" and kv_format == "bf16":
            assert rank // 1000 == 206
    assert round((memory.absorbed_per_gpu(GLM51, 1) - memory.absorbed_per_gpu(GLM51, 8)) / GIB, 1) == 1.9


@pytest.mark.parametrize(
    ("accelerator", "weights", "mtp", "fraction", "needed", "available"),
    [
        ("H100", "fp8", True, 1.0, 90.3, 79.6),
        ("B200", "bf16", False, 0.90, 176.9, 161.2),
        # What the cookbook's generator prints.
        ("MI300X", "bf16", False, 0.80, 176.9, 153.6),
    ],
)
def test_eight_gpus_that_are_too_small(
    accelerator: str, weights: memory.WeightFormat, mtp: bool, fraction: float, needed: float, available: float
) -> None:
    """The table has 176.6 GiB for BF16, without the absorbed projection."""
    size = (memory.weights_per_gpu(GLM51, weights, 8, mtp) + memory.absorbed_per_gpu(GLM51, 8, mtp)) / GIB
    limit = fraction * KNOWN.accelerators[accelerator].memory_gib
    assert (round(size, 1), round(limit, 1)) == (needed, available)
    assert size > limit


@pytest.mark.parametrize(("accelerator", "count"), [("H100", 10), ("A100", 5)])
def test_counts_that_heads_cannot_be_divided_by(accelerator: str, count: int) -> None:
    assert count not in memory.valid_tensor_parallel(GLM51)
    if accelerator == "A100":
        assert not set(KNOWN.models["GLM-5.1"].needs) <= set(KNOWN.accelerators[accelerator].features)


def test_overhead_of_vllm_in_the_published_b200_run() -> None:
    """161.2 GiB at 0.90, less 89.0 of weights and a KV cache of 64, are 8.2 GiB of activations and graphs."""
    weights = memory.weights_per_gpu(GLM51, "fp8", 8, mtp=False) + memory.absorbed_per_gpu(GLM51, 8, mtp=False)
    assert round(weights / GIB) == 89
    overhead = 0.90 * KNOWN.accelerators["B200"].memory_gib - weights / GIB - 64
    assert round(overhead, 1) == 8.2


def test_a_pool_is_never_negative() -> None:
    assert memory.token_pool(-5 * GIB, 100) == 0


def test_unknown_kv_format_is_named() -> None:
    with pytest.raises(ValueError, match="'int2'"):
        memory.kv_bytes_per_token(GLM51, "int2", 8)
