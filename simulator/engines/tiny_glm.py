"""A tiny GLM checkpoint that the real engines load and that answers predictably.

Standard library only. The architecture is Glm4Moe (GLM-4.5 to 4.7) because that is the GLM both engines can run on a
CPU; the sparse attention of GLM-5 has no CPU kernel. The folder has everything a published repository has: config,
tokenizer, chat template, generation settings, sharded bf16 safetensors with an index, and one MTP layer for
speculative decoding.

What is random and what is made
-------------------------------
Every matrix starts as Gaussian noise (mean 0, deviation 0.02), as in an untrained model. On top of it three things
are *made*, large enough to drown the noise at temperature 1.0:

* **a successor table** - each token's embedding carries a direction of its own, and the output row of the token that
  must follow reads that direction, so the last token alone decides the next one;
* **one attention head** in layer 0 that looks for the token ``<|tools|>``, which the chat template writes when tools
  are offered and none has answered yet, and that then turns the successor of ``</think>`` from the answer into a tool
  call;
* **the MTP projection**, which passes the newest token's embedding on, so drafts follow the same table. It has no tool
  head, so the draft after ``</think>`` is wrong when tools are offered, and the engine has to reject it.

The texts are therefore fixed: a thought, an answer, and the call ``get_weather(city="Paris")`` whatever tool is
offered. Nothing about quality or speed can be learned from them; that the serving stack, its parsers, templates,
caches and samplers work can.
"""

from __future__ import annotations

import json
import random
import struct
from array import array
from pathlib import Path

HIDDEN = 128
LAYERS = 2
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
DENSE_WIDTH, EXPERT_WIDTH, EXPERTS = 256, 64, 8
MAX_LENGTH = 4096
SEED = 20260407
SHARDS = 3

THOUGHT = ("Only", " a", " rehearsal,", " so", " any", " reply", " will", " do.")
ANSWER = ("Hello", " from", " the", " tiny", " stand-in", " model.")
TOOL_CALL = (
    "<tool_call>",
    "get_weather",
    "<arg_key>",
    "city",
    "</arg_key>",
    "<arg_value>",
    "Paris",
    "</arg_value>",
    "</tool_call>",
)
TOOLS_OFFERED = "<|tools|>"

_CONTROL = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    TOOLS_OFFERED,
)
# GLM marks these as not special, so that they survive skip_special_tokens and reach the engines' parsers.
_TAGS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "/nothink",
)
_WORDS = (*THOUGHT, *ANSWER, "get_weather", "city", "Paris")

# The shape of GLM's own template: thinking is on unless enable_thinking is false, and a history of assistant and tool
# turns is accepted. Tool results close the offer, so the model answers instead of calling again.
_CHAT_TEMPLATE = """[gMASK]<sop>
{%- if tools -%}
<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{%- for tool in tools %}
{{ tool | tojson(ensure_ascii=False) }}
{%- endfor %}
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key><arg_value>{arg-value-1}</arg_value>...</tool_call>
{%- if messages[-1].role != 'tool' -%}<|tools|>{%- endif -%}
{%- endif -%}
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content is iterable -%}{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
<|user|>{{ text(m.content) }}
{%- elif m.role == 'assistant' -%}
<|assistant|>
{%- if m.reasoning_content is string %}<think>{{ m.reasoning_content }}</think>{% else %}</think>{% endif %}
{{- text(m.content) }}
{%- for call in (m.tool_calls or []) %}
{%- set f = call.function or call -%}
<tool_call>{{ f.name }}
{%- for k, v in f.arguments.items() -%}
<arg_key>{{ k }}</arg_key><arg_value>{{ v if v is string else v | tojson(ensure_ascii=False) }}</arg_value>
{%- endfor -%}
</tool_call>
{%- endfor %}
{%- elif m.role == 'tool' -%}
<|observation|><tool_response>{{ text(m.content) }}</tool_response>
{%- elif m.role == 'system' -%}
<|system|>{{ text(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>{{ '</think>' if (enable_thinking is defined and not enable_thinking) else '<think>' }}
{%- endif -%}
"""

_README = """---
license: mit
---
# A rehearsal checkpoint

This is not GLM-5.1. It is a two-layer stand-in with made-up weights, served by a simulated model hub under the name of
the repository it stands for, so that a deployment can be rehearsed without GPUs. See `simulator/engines/tiny_glm.py`.
"""


def _byte_alphabet() -> list[str]:
    """GPT-2's printable character for each of the 256 byte values, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    codes = dict(zip(printable, printable))
    codes.update({b: 256 + i for i, b in enumerate(hidden)})
    return [chr(codes[b]) for b in range(256)]


class Vocabulary:
    """Token ids: 256 bytes, then whole words the model may say, then control tokens and tags.

    The words have no merges, so a prompt is always read byte by byte and only the model produces them.
    """

    def __init__(self) -> None:
        alphabet = _byte_alphabet()
        self.plain = {char: i for i, char in enumerate(alphabet)}
        self.word_ids: dict[str, int] = {}
        for word in _WORDS:
            spelled = "".join(alphabet[b] for b in word.encode())
            self.word_ids[word] = self.plain[spelled] = len(self.plain)
        self.added = {tag: len(self.plain) + i for i, tag in enumerate((*_CONTROL, *_TAGS))}
        self.used = len(self.plain) + len(self.added)
        self.padded = -(-self.used // 64) * 64

    def id(self, text: str) -> int:
        """The id of a whole word, control token or tag; raises KeyError for anything else."""
        return self.word_ids[text] if text in self.word_ids else self.added[text]


def _successors(vocabulary: Vocabulary) -> dict[int, int]:
    """token id -> id of the token that follows it, for every token that does not simply start an answer."""
    chains = (
        ("<think>", *THOUGHT, "</think>"),
        ("</think>", *ANSWER, "<|user|>"),
        (*TOOL_CALL, "<|observation|>"),
    )
    return {
        vocabulary.id(token): vocabulary.id(following) for chain in chains for token, following in zip(chain, chain[1:])
    }


class _Tensor:
    """A row-major float matrix (or vector, one row) that becomes bf16 or f32 bytes."""

    def __init__(self, *shape: int, fill: float = 0.0, noise: random.Random | None = None, f32: bool = False) -> None:
        size = 1
        for extent in shape:
            size *= extent
        self.shape, self.f32 = shape, f32
        values = [noise.gauss(0.0, 0.02) for _ in range(size)] if noise else [fill] * size
        self.values = array("f", values)

    def put(self, row: int, column: int, value: float) -> None:
        self.values[row * self.shape[-1] + column] = value

    def data(self) -> bytes:
        raw = struct.pack(f"<{len(self.values)}f", *self.values)
        if self.f32:
            return raw
        upper = bytearray(len(raw) // 2)  # bf16 is the upper half of an f32
        upper[0::2], upper[1::2] = raw[2::4], raw[3::4]
        return bytes(upper)


class _Directions:
    """Which coordinate of the residual stream means what: one per token in the table, three shared ones."""

    SIZE = 4.0  # of a made entry in the residual stream; the noise there stays below 0.2

    def __init__(self, tokens: list[int], tools_offered: int) -> None:
        self.tools_seen = 0  # written by the attention head
        self.tools_token = 1  # carried by <|tools|> itself
        self.plain = 2  # carried by every token that starts an answer
        self._own = {token: 3 + i for i, token in enumerate(tokens)}
        self._own[tools_offered] = self.tools_token
        if 3 + len(tokens) > HIDDEN:
            raise ValueError(f"{len(tokens)} tokens need directions, the residual stream has {HIDDEN - 3}")

    def of(self, token: int) -> int:
        return self._own.get(token, self.plain)


def _embedding(vocabulary: Vocabulary, directions: _Directions, noise: random.Random) -> _Tensor:
    table = _Tensor(vocabulary.padded, HIDDEN, noise=noise)
    for token in range(vocabulary.used):
        table.put(token, directions.of(token), directions.SIZE)
    return table


def _output(
    vocabulary: Vocabulary, directions: _Directions, following: dict[int, int], noise: random.Random
) -> _Tensor:
    """The rows of lm_head. A made entry of 16 is a logit of about 180 (128 once <|tools|> was seen).

    After ``</think>`` with tools seen, ``<tool_call>`` gets 12 + 8 against the answer's 16; without, 12 against 16;
    after any other token with tools seen, 8 against 16.
    """
    head = _Tensor(vocabulary.padded, HIDDEN, noise=noise)
    start = vocabulary.id(ANSWER[0])
    head.put(start, directions.plain, 16.0)
    head.put(start, directions.tools_token, 16.0)
    for token, successor in following.items():
        head.put(successor, directions.of(token), 16.0)
    call = vocabulary.id(TOOL_CALL[0])
    head.put(call, directions.of(vocabulary.id("</think>")), 12.0)
    head.put(call, directions.tools_seen, 8.0)
    return head


def _attention(prefix: str, directions: _Directions | None, noise: random.Random) -> dict[str, _Tensor]:
    """Random attention; with directions, head 0 also finds <|tools|> anywhere in the context and reports it."""
    name = prefix + "self_attn."
    sizes = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
    tensors: dict[str, _Tensor] = {}
    for part, rows in sizes.items():
        tensors[f"{name}{part}_proj.weight"] = _Tensor(rows, HIDDEN, noise=noise)
        tensors[f"{name}{part}_proj.bias"] = _Tensor(rows)
    tensors[f"{name}o_proj.weight"] = _Tensor(HIDDEN, HEADS * HEAD_DIM, noise=noise)
    if directions:
        # The last coordinate of a head is outside the rotary half, so the score does not depend on the distance.
        # score = 16 * (2 * sqrt(HIDDEN)) / sqrt(HEAD_DIM) = 45: all of the softmax, against any 4096 other tokens.
        unrotated = HEAD_DIM - 1
        tensors[f"{name}q_proj.bias"].put(0, unrotated, 16.0)
        tensors[f"{name}k_proj.weight"].put(unrotated, directions.tools_token, 2.0)
        tensors[f"{name}v_proj.weight"].put(0, directions.tools_token, 1.0)
        tensors[f"{name}o_proj.weight"].put(directions.tools_seen, 0, directions.SIZE / HIDDEN**0.5)
    return tensors


def _mlp(prefix: str, width: int, noise: random.Random) -> dict[str, _Tensor]:
    return {
        prefix + "gate_proj.weight": _Tensor(width, HIDDEN, noise=noise),
        prefix + "up_proj.weight": _Tensor(width, HIDDEN, noise=noise),
        prefix + "down_proj.weight": _Tensor(HIDDEN, width, noise=noise),
    }


def _layer(index: int, dense: bool, directions: _Directions | None, noise: random.Random) -> dict[str, _Tensor]:
    prefix = f"model.layers.{index}."
    tensors = {
        prefix + "input_layernorm.weight": _Tensor(HIDDEN, fill=1.0),
        prefix + "post_attention_layernorm.weight": _Tensor(HIDDEN, fill=1.0),
        **_attention(prefix, directions, noise),
    }
    if dense:
        return {**tensors, **_mlp(prefix + "mlp.", DENSE_WIDTH, noise)}
    tensors[prefix + "mlp.gate.weight"] = _Tensor(EXPERTS, HIDDEN, noise=noise)
    tensors[prefix + "mlp.gate.e_score_correction_bias"] = _Tensor(EXPERTS, f32=True)
    for expert in range(EXPERTS):
        tensors.update(_mlp(f"{prefix}mlp.experts.{expert}.", EXPERT_WIDTH, noise))
    return {**tensors, **_mlp(prefix + "mlp.shared_experts.", EXPERT_WIDTH, noise)}


def _mtp(embedding: _Tensor, output: _Tensor, directions: _Directions, noise: random.Random) -> dict[str, _Tensor]:
    prefix = f"model.layers.{LAYERS}."
    projection = _Tensor(HIDDEN, 2 * HIDDEN)
    for i in range(HIDDEN):  # the first half of the input is the normalised embedding of the newest token
        projection.put(i, i, directions.SIZE / HIDDEN**0.5)
    return {
        **_layer(LAYERS, False, None, noise),
        prefix + "enorm.weight": _Tensor(HIDDEN, fill=1.0),
        prefix + "hnorm.weight": _Tensor(HIDDEN, fill=1.0),
        prefix + "eh_proj.weight": projection,
        prefix + "embed_tokens.weight": embedding,
        prefix + "shared_head.norm.weight": _Tensor(HIDDEN, fill=1.0),
        prefix + "shared_head.head.weight": output,
    }


def _weights(vocabulary: Vocabulary) -> list[dict[str, _Tensor]]:
    """Tensors by name, one mapping per shard."""
    noise = random.Random(SEED)
    following = _successors(vocabulary)
    directions = _Directions(sorted(following), vocabulary.id(TOOLS_OFFERED))
    embedding = _embedding(vocabulary, directions, noise)
    output = _output(vocabulary, directions, following, noise)
    first = {"model.embed_tokens.weight": embedding, **_layer(0, True, directions, noise)}
    second = _layer(1, False, None, noise)
    third = {
        **_mtp(embedding, output, directions, noise),
        "model.norm.weight": _Tensor(HIDDEN, fill=1.0),
        "lm_head.weight": output,
    }
    return [first, second, third]


def _write_shard(path: Path, tensors: dict[str, _Tensor]) -> int:
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


def _write_weights(out_dir: Path, vocabulary: Vocabulary) -> None:
    weight_map: dict[str, str] = {}
    total = 0
    for number, tensors in enumerate(_weights(vocabulary), start=1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        total += _write_shard(out_dir / name, tensors)
        weight_map.update(dict.fromkeys(tensors, name))
    _write_json(out_dir / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


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
        "pad_token_id": vocabulary.id("<|endoftext|>"),
        "eos_token_id": _end_tokens(vocabulary),
        "rope_theta": 1000000,
        "rope_scaling": None,
        "num_nextn_predict_layers": 1,
    }


def _end_tokens(vocabulary: Vocabulary) -> list[int]:
    return [vocabulary.id(token) for token in ("<|endoftext|>", "<|user|>", "<|observation|>")]


def _write_tokenizer(out_dir: Path, vocabulary: Vocabulary) -> None:
    added = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": text in _CONTROL,
        }
        for text, number in vocabulary.added.items()
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    _write_json(
        out_dir / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary.plain,
                "merges": [],
            },
        },
    )
    _write_json(
        out_dir / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "added_tokens_decoder": {
                str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in added
            },
            "additional_special_tokens": list(_CONTROL),
            "clean_up_tokenization_spaces": False,
            "do_lower_case": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": MAX_LENGTH,
            "padding_side": "left",
            "remove_space": False,
            **ends,
        },
    )
    _write_json(out_dir / "special_tokens_map.json", ends)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(out_dir: Path) -> None:
    """Write the complete repository folder; the bytes are the same every time.

    Args:
        out_dir: created if missing; existing files of the same names are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary()
    _write_json(out_dir / "config.json", _config(vocabulary))
    _write_json(
        out_dir / "generation_config.json",
        {
            "_from_model_config": True,
            "eos_token_id": _end_tokens(vocabulary),
            "pad_token_id": vocabulary.id("<|endoftext|>"),
            "temperature": 1.0,
            "top_p": 0.95,
        },
    )
    _write_tokenizer(out_dir, vocabulary)
    (out_dir / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")
    (out_dir / "README.md").write_text(_README, encoding="utf-8")
    _write_weights(out_dir, vocabulary)
