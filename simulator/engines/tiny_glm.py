"""A tiny GLM checkpoint that the real engines load and that answers predictably.

Standard library only. The architecture is Glm4Moe (GLM-4.5 to 4.7) because that is the GLM both engines can run on a
CPU; the sparse attention of GLM-5 has no CPU kernel. The folder has everything a published repository has: config,
tokenizer, chat template, generation settings, sharded bf16 safetensors with an index, and one MTP layer for
speculative decoding.

It is not trained but made, from lessons (``lessons.py``): a text that stands in the prompt, and the thought, answer and
tool calls that it gets. ``tiny_scripts.py`` cuts these into tokens, ``tiny_tokenizer.py`` finds the text in a prompt as
one token, ``tiny_weights.py`` puts both into matrices of noise, large enough to drown it at temperature 1.0. Nothing
about quality or speed can be learned from what it says; that the serving stack, its parsers, templates, caches and
samplers work can.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

from simulator.engines.lessons import Lesson
from simulator.engines.tiny_scripts import END_OF_TEXT, Scripts
from simulator.engines.tiny_tokenizer import RESERVED, Vocabulary, write_json, write_tokenizer
from simulator.engines.tiny_weights import (
    DENSE_WIDTH,
    EXPERT_WIDTH,
    EXPERTS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    Tensor,
    shards,
)

MAX_LENGTH = 202_752
"""The context of the model that it stands for, so that a plan's own is never beyond it."""

# The shape of GLM's own template: thinking is on unless enable_thinking is false, thoughts of earlier turns are left
# out unless clear_thinking is false, and a history of assistant and tool turns is accepted. Tool results close the
# offer of tools, so that the model answers instead of calling again.
_TEMPLATE = Path(__file__).with_suffix(".jinja")

_README = """---
license: mit
---
# A rehearsal checkpoint

This is not GLM-5.1. It is a two-layer stand-in with made-up weights, served by a simulated model hub under the name of
the repository it stands for, so that a deployment can be rehearsed without GPUs. See `simulator/engines/tiny_glm.py`.
"""


def _write_shard(path: Path, tensors: dict[str, Tensor]) -> int:
    """Write one safetensors file; returns the number of data bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        blob = tensor.data()
        header[name] = {
            "dtype": "F32" if tensor.f32 else "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(blobs))
    return offset


def _write_weights(out_dir: Path, parts: Sequence[dict[str, Tensor]]) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        total += _write_shard(out_dir / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    write_json(out_dir / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def _config(vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "vocab_size": vocabulary.padded,
        "hidden_size": HIDDEN,
        "intermediate_size": DENSE_WIDTH,
        "moe_intermediate_size": EXPERT_WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "partial_rotary_factor": 0.5,
        "attention_bias": True,
        "use_qk_norm": False,
        "first_k_dense_replace": 1,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        "pad_token_id": vocabulary.id(END_OF_TEXT),
        "eos_token_id": vocabulary.ends(),
        "rope_theta": 1000000,
        "rope_scaling": None,
        "num_nextn_predict_layers": 1,
    }


def write(out_dir: Path, lessons: Sequence[Lesson] = ()) -> None:
    """Write the complete repository folder; the bytes are the same every time.

    Args:
        out_dir: created if missing; existing files of the same names are replaced.
        lessons: what it is taught; it answers anything else with ``lessons.DEFAULT``.

    Raises:
        OSError: the folder cannot be written.
        ValueError: two lessons cannot be distinguished.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    scripts = Scripts.of(lessons, RESERVED)
    vocabulary = Vocabulary(scripts)
    write_json(out_dir / "config.json", _config(vocabulary))
    write_json(
        out_dir / "generation_config.json",
        {
            "_from_model_config": True,
            "eos_token_id": vocabulary.ends(),
            "pad_token_id": vocabulary.id(END_OF_TEXT),
            "temperature": 1.0,
            "top_p": 0.95,
        },
    )
    write_tokenizer(out_dir, vocabulary, MAX_LENGTH)
    (out_dir / "chat_template.jinja").write_text(_TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
    (out_dir / "README.md").write_text(_README, encoding="utf-8")
    _write_weights(out_dir, shards(vocabulary, scripts))
