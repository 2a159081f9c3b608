# Copyright (c) 2026, glm.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes of GLM models: parameters, checkpoint size, weights per GPU, KV cache per token, token pool.

Pure arithmetic on the values of a model's ``config.json`` (class Config); no catalogue, no I/O. Sizes are bytes unless
a name says GiB (2**30). The numbers agree with the published ones; tests/unit/planner/test_memory.py quotes them.

A model is a list of weight matrices. Each has a role, which decides two things: whether tensor parallelism shards it or
every GPU keeps a copy, and in which format the checkpoint stores it:

- ``bf16``: two bytes each.
- ``fp8``: every linear layer in blocks of 128 x 128 with one FP32 scale; embeddings, gates and norms stay BF16.
- ``nvfp4``: routed experts only, an FP8 scale for 16 values (what nvidia's checkpoints do); the rest is BF16.
- ``mxfp4``: routed experts only, a one byte exponent for 32 values (what AMD's Quark makes); the rest is BF16.
- ``w4afp8``: routed experts in INT4, for 128 values a BF16 scale; other linear layers as in ``fp8``.
- ``int4``: AWQ of every linear layer, for 128 values an FP16 scale and a 4 bit zero; the rest is BF16.

Quantised checkpoints usually leave the multi-token-prediction layers in BF16; FP8 ones, and W4AFP8, quantise them like
the others.
``mtp_weights`` overrides that.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal, Optional

GIB = 2**30

WeightFormat = Literal["bf16", "fp8", "nvfp4", "mxfp4", "w4afp8", "int4"]
# What quantising may leave out as a whole.
Part = Literal["attention", "dense", "shared", "experts"]

# fp8: one byte per value, the only FP8 layout of grouped-query models and of MLA without sparse attention.
# fp8_packed, fp8_flat: layouts of a sparse MLA latent, see _latent_bytes.
KV_FORMATS = ("bf16", "fp8", "fp8_packed", "fp8_flat")

_FP8_BLOCK = 128
_SCALE_BYTES = 4
_NVFP4_BYTES = 1 / 2 + 1 / 16
_MXFP4_BYTES = 1 / 2 + 1 / 32
_W4AFP8_BYTES = 1 / 2 + 2 / 128
_AWQ_GROUP = 128
_AWQ_GROUP_BYTES = 2 + 1 / 2
# An FP8 index key per token and layer has a 4 byte scale (SGLang's page is tokens x (128 + 4)).
_INDEX_SCALE_BYTES = 4


@dataclass(frozen=True)
class Config:
    """Values of a model's ``config.json`` that decide its size, under that file's names.

    MLA models set ``kv_lora_rank`` (and the ``qk_*``, ``v_head_dim``, ``q_lora_rank`` keys); grouped-query models set
    ``num_key_value_heads`` and ``head_dim``. ``index_n_heads`` > 0 means DeepSeek sparse attention; ``indexer_layers``
    counts the layers that have their own indexer (default: all).
    """

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    first_k_dense_replace: int
    num_attention_heads: int
    vocab_size: int
    num_nextn_predict_layers: int = 1
    num_experts_per_tok: int = 8
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    index_n_heads: int = 0
    index_head_dim: int = 0
    indexer_layers: Optional[int] = None
    num_key_value_heads: int = 0
    head_dim: int = 0
    attention_bias: bool = False
    use_qk_norm: bool = False
    # The checkpoint holds the embedding and the head a second time, with the MTP layer; engines share the first copy.
    mtp_embeddings: bool = False
    # Parts that quantization_config leaves in BF16.
    plain: tuple[Part, ...] = ()

    @property
    def is_mla(self) -> bool:
        """Whether attention keeps one compressed latent per token instead of keys and values per head."""
        return self.kv_lora_rank > 0


@dataclass(frozen=True)
class Tensor:
    """One weight matrix ``rows`` x ``columns``, present ``copies`` times. Vectors have one row."""

    rows: int
    columns: int
    copies: int
    sharded: bool
    quantised: bool
    expert: bool = False
    mtp: bool = False
    attention: bool = False
    duplicate: bool = False

    @property
    def parameters(self) -> int:
        """Number of weights in all copies."""
        return self.rows * self.columns * self.copies

    def size(self, weights: WeightFormat, mtp_weights: Optional[WeightFormat] = None) -> float:
        """Bytes of all copies in a checkpoint of that format, whose MTP layers may have another."""
        stored = weights
        if self.mtp:
            stored = mtp_weights or (weights if weights in ("fp8", "w4afp8") else "bf16")
        if stored == "w4afp8" and self.expert:
            return self.parameters * _W4AFP8_BYTES
        if stored in ("fp8", "w4afp8") and self.quantised:
            blocks = math.ceil(self.rows / _FP8_BLOCK) * math.ceil(self.columns / _FP8_BLOCK)
            return self.copies * (self.rows * self.columns + _SCALE_BYTES * blocks)
        if stored == "int4" and self.quantised:
            groups = self.rows * math.ceil(self.columns / _AWQ_GROUP)
            return self.copies * (self.rows * self.columns / 2 + _AWQ_GROUP_BYTES * groups)
        if stored == "nvfp4" and self.expert:
            return self.parameters * _NVFP4_BYTES
        if stored == "mxfp4" and self.expert:
            return self.parameters * _MXFP4_BYTES
        return self.parameters * 2


def tensors(config: Config, mtp: bool = True) -> list[Tensor]:
    """All weight matrices of the model, with or without its multi-token-prediction layers."""
    c = config
    found = [
        *_attention(c, c.num_hidden_layers, mtp=False),
        *_dense_mlp(c),
        *_moe(c, c.num_hidden_layers - c.first_k_dense_replace, mtp=False),
        Tensor(c.vocab_size, c.hidden_size, 2, sharded=True, quantised=False),  # embedding and head, untied
        Tensor(1, c.hidden_size, 1, sharded=False, quantised=False),  # final norm
    ]
    if mtp and c.num_nextn_predict_layers:
        layers = c.num_nextn_predict_layers
        found += _attention(c, layers, mtp=True)
        found += _moe(c, layers, mtp=True)
        # eh_proj joins the embedding with the hidden state; norms: embedding, hidden state, shared head.
        found.append(Tensor(c.hidden_size, 2 * c.hidden_size, layers, sharded=False, quantised=False, mtp=True))
        found.append(Tensor(1, 3 * c.hidden_size, layers, sharded=False, quantised=False, mtp=True))
        if c.mtp_embeddings:
            found.append(
                Tensor(c.vocab_size, c.hidden_size, 2 * layers, sharded=True, quantised=False, mtp=True, duplicate=True)
            )
    return found


def parameters(config: Config, mtp: bool = True) -> int:
    """Number of parameters."""
    return sum(tensor.parameters for tensor in tensors(config, mtp))


@functools.lru_cache(maxsize=256)
def checkpoint_bytes(
    config: Config, weights: WeightFormat, mtp: bool = True, mtp_weights: Optional[WeightFormat] = None
) -> int:
    """Bytes of the checkpoint on disk."""
    return round(sum(tensor.size(weights, mtp_weights) for tensor in tensors(config, mtp)))


def valid_tensor_parallel(config: Config, replicate_kv: bool = False) -> list[int]:
    """Tensor parallel sizes that divide the attention heads, the KV heads and the experts' width.

    With ``replicate_kv`` also those that are multiples of the KV heads: engines then keep a KV head on several GPUs,
    which gains compute and no KV memory.
    """
    keys = config.num_key_value_heads

    def divides_keys(size: int) -> bool:
        return config.is_mla or keys % size == 0 or (replicate_kv and size % keys == 0)

    return [
        size
        for size in range(1, config.num_attention_heads + 1)
        if config.num_attention_heads % size == 0 and config.moe_intermediate_size % size == 0 and divides_keys(size)
    ]


@functools.lru_cache(maxsize=1024)
def weights_per_gpu(
    config: Config,
    weights: WeightFormat,
    tensor_parallel: int,
    mtp: bool = True,
    attention_parallel: Optional[int] = None,
    dense_parallel: Optional[int] = None,
    mtp_weights: Optional[WeightFormat] = None,
) -> float:
    """Bytes of weights on each GPU, as stored in the checkpoint.

    Routed experts are always divided by ``tensor_parallel``. Data-parallel attention divides attention by less
    (``attention_parallel``), data-parallel replicas divide everything but the experts by less (``dense_parallel``).
    """
    attention = attention_parallel or tensor_parallel
    dense = dense_parallel or tensor_parallel

    def divisor(tensor: Tensor) -> int:
        if not tensor.sharded:
            return 1
        if tensor.expert:
            return tensor_parallel
        return attention if tensor.attention else dense

    return sum(
        tensor.size(weights, mtp_weights) / divisor(tensor) for tensor in tensors(config, mtp) if not tensor.duplicate
    )


def absorbed_per_gpu(config: Config, attention_parallel: int, mtp: bool = True) -> float:
    """Bytes per GPU of the BF16 copy of ``kv_b_proj`` that MLA engines keep to absorb it into the attention."""
    if not config.is_mla:
        return 0.0
    layers = config.num_hidden_layers + (config.num_nextn_predict_layers if mtp else 0)
    per_layer = config.kv_lora_rank * config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)
    return 2 * per_layer * layers / attention_parallel


def kv_bytes_per_token(config: Config, kv_format: str, tensor_parallel: int, mtp: bool = True) -> int:
    """Bytes of KV cache that one token takes on each GPU.

    MLA has one latent head, so under tensor parallelism every GPU stores the whole cache; grouped-query models divide
    their KV heads until each GPU has one. Raises ValueError for an unknown format.
    """
    if kv_format not in KV_FORMATS:
        raise ValueError(f"unknown KV cache format {kv_format!r}; known are {', '.join(KV_FORMATS)}")
    layers = config.num_hidden_layers + (config.num_nextn_predict_layers if mtp else 0)
    if not config.is_mla:
        heads = math.ceil(config.num_key_value_heads / tensor_parallel)
        element = 2 if kv_format == "bf16" else 1
        return 2 * heads * config.head_dim * element * layers
    indexers = 0
    if config.index_n_heads:
        own = config.num_hidden_layers if config.indexer_layers is None else config.indexer_layers
        indexers = own + (layers - config.num_hidden_layers)
    return _latent_bytes(config, kv_format) * layers + (config.index_head_dim + _INDEX_SCALE_BYTES) * indexers


def largest_stage(config: Config, stages: int) -> tuple[float, float]:
    """Shares of the weights and of the KV cache that the largest of a pipeline's stages holds.

    Layers are shared evenly, and those without experts are all in the first stage: another has more of the weights.
    """
    layers = math.ceil(config.num_hidden_layers / stages)
    with_experts = config.num_hidden_layers - config.first_k_dense_replace
    return min(1.0, layers / with_experts), layers / config.num_hidden_layers


def activation_bytes_per_token(config: Config, tensor_parallel: int, attention_parallel: int, data: int) -> float:
    """Bytes that a GPU needs at the peak of a step for each of its tokens, with BF16 activations.

    What exists at a time in a layer with experts: eight copies of the hidden state (residual, normed, gathered, output
    and their neighbours), queries, keys and values of its heads, and for each chosen expert the row that goes in and
    the three that come of it. Ranks of data parallelism gather each other's tokens before the experts.
    """
    heads = config.num_attention_heads / attention_parallel
    width = config.kv_lora_rank + config.qk_rope_head_dim if config.is_mla else config.head_dim
    experts = config.num_experts_per_tok * (config.hidden_size + 3 * config.moe_intermediate_size / tensor_parallel)
    gathered = 2 * (data - 1) * config.hidden_size
    return 2 * (8 * config.hidden_size + 3 * heads * width + experts + gathered)


def token_pool(pool_bytes: float, kv_bytes: int) -> int:
    """Tokens that fit in a KV pool."""
    return max(0, math.floor(pool_bytes / kv_bytes))


def _latent_bytes(config: Config, kv_format: str) -> int:
    rank, rope = config.kv_lora_rank, config.qk_rope_head_dim
    if kv_format == "bf16":
        return 2 * (rank + rope)
    if kv_format == "fp8_packed":  # FP8 latent, one FP32 scale per 128, BF16 rope: FlashMLA, vLLM fp8_ds_mla
        return rank + _SCALE_BYTES * math.ceil(rank / _FP8_BLOCK) + 2 * rope
    return rank + rope  # everything FP8, no scales: SGLang with the trtllm backend, and MLA without sparse attention


def _attention(c: Config, layers: int, mtp: bool) -> list[Tensor]:
    norms = Tensor(1, 2 * c.hidden_size, layers, sharded=False, quantised=False, mtp=mtp)
    return [norms, *(_mla(c, layers, mtp) if c.is_mla else _grouped_query(c, layers, mtp))]


def _mla(c: Config, layers: int, mtp: bool) -> list[Tensor]:
    heads = c.num_attention_heads
    query, value = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim), heads * c.v_head_dim

    linear = "attention" not in c.plain

    def shard(rows: int, columns: int) -> Tensor:
        return Tensor(rows, columns, layers, sharded=True, quantised=linear, mtp=mtp, attention=True)

    def copy(rows: int, columns: int, quantised: bool = linear, copies: int = layers) -> Tensor:
        return Tensor(rows, columns, copies, sharded=False, quantised=quantised, mtp=mtp)

    found = [
        copy(c.q_lora_rank, c.hidden_size),
        shard(query, c.q_lora_rank),
        copy(c.kv_lora_rank + c.qk_rope_head_dim, c.hidden_size),
        shard(heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank),
        shard(c.hidden_size, value),
        copy(1, c.q_lora_rank + c.kv_lora_rank, quantised=False),  # norms of the two compressions
    ]
    if c.index_n_heads:
        own = layers if mtp or c.indexer_layers is None else c.indexer_layers
        found += [
            copy(c.index_n_heads * c.index_head_dim, c.q_lora_rank, copies=own),
            copy(c.index_head_dim, c.hidden_size, copies=own),
            copy(c.index_n_heads, c.hidden_size, quantised=False, copies=own),
            copy(1, 2 * c.index_head_dim, quantised=False, copies=own),  # key norm: weight and bias
        ]
    return found


def _grouped_query(c: Config, layers: int, mtp: bool) -> list[Tensor]:
    query, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    linear = "attention" not in c.plain
    found = [
        Tensor(query, c.hidden_size, layers, sharded=True, quantised=linear, mtp=mtp, attention=True),
        Tensor(keys, c.hidden_size, 2 * layers, sharded=True, quantised=linear, mtp=mtp, attention=True),
        Tensor(c.hidden_size, query, layers, sharded=True, quantised=linear, mtp=mtp, attention=True),
    ]
    if c.attention_bias:
        found.append(Tensor(1, query + 2 * keys, layers, sharded=True, quantised=False, mtp=mtp))
    if c.use_qk_norm:
        found.append(Tensor(1, 2 * c.head_dim, layers, sharded=False, quantised=False, mtp=mtp))
    return found


def _dense_mlp(c: Config) -> list[Tensor]:
    quantised = "dense" not in c.plain
    return [Tensor(c.intermediate_size, c.hidden_size, 3 * c.first_k_dense_replace, sharded=True, quantised=quantised)]


def _moe(c: Config, layers: int, mtp: bool) -> list[Tensor]:
    expert, routed = c.moe_intermediate_size, 3 * c.n_routed_experts * layers
    whole, shared = "experts" not in c.plain, "shared" not in c.plain
    return [
        Tensor(expert, c.hidden_size, routed, sharded=True, quantised=whole, expert=True, mtp=mtp),
        Tensor(expert * c.n_shared_experts, c.hidden_size, 3 * layers, sharded=True, quantised=shared, mtp=mtp),
        Tensor(c.n_routed_experts, c.hidden_size, layers, sharded=False, quantised=False, mtp=mtp),  # gate
        Tensor(1, c.n_routed_experts, layers, sharded=False, quantised=False, mtp=mtp),  # its correction bias
    ]
