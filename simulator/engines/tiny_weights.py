"""The weights of the tiny checkpoint: noise, and what is made in it so that it says what ``tiny_scripts`` lists.

The residual stream has five parts, and every made entry of it is 1 or -1 (``level`` has a quarter for each level):

* ``follows``  the code of the slot that comes after this token, from its embedding;
* ``carried``  what the token says of the rest of the answer: the code of a state and whether a call comes next;
* ``level``    how much that counts; no ordinary token has a level;
* ``seen``     the ``carried`` of the token with the highest level in the context, put there by one attention head;
* the rest is noise.

An output row reads the code of the slots that its token fills from ``follows`` and, where several lessons share the
slot, the codes of its states from ``seen``. Codes are random signs: two of them agree in about half of their signs.
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulator.engines.tiny_scripts import ANSWER_START, DEFAULT_STATE, Scripts, Seen
from simulator.engines.tiny_tokenizer import Vocabulary

HIDDEN = 320
LAYERS = 2
HEADS, KV_HEADS, HEAD_DIM = 2, 1, 64
DENSE_WIDTH, EXPERT_WIDTH, EXPERTS = 256, 32, 8
SEED = 20260408

_CODE, _FLAG = 60, 4
_FOLLOWS = 0
_CARRIED = 128
_SEEN = _CARRIED + HEAD_DIM
_LEVEL = _SEEN + HEAD_DIM
_LIKENESS = 14
"""The most that the codes of two states may have in common, or against each other, of 60."""

# What a made entry of the output rows adds to the logit: 128 signs of 1.12 times 6 are 860 for the right slot and at
# most 350 for another; 60 times 1.12 times 2.5 are 168 for the right state and at most 39 for another, which is enough
# where two lessons share a text and their codes are added; a call that comes next is worth 240 more, and as much less
# where none does.
_SLOT, _STATE, _CALL = 6.0, 2.5, 54.0
_NOISE_PERIOD = 8191
_TRIES = 1_000_000


class Tensor:
    """A row-major float matrix (or vector, one row) that becomes bf16 or f32 bytes."""

    def __init__(self, *shape: int, fill: float = 0.0, f32: bool = False, noise: Noise | None = None) -> None:
        size = 1
        for extent in shape:
            size *= extent
        self.shape, self.f32 = shape, f32
        self.values = noise.take(size) if noise else array("f", [fill]) * size

    def put(self, row: int, column: int, values: Iterable[float]) -> None:
        """Neighbouring entries of a row."""
        start = row * self.shape[-1] + column
        for place, value in enumerate(values, start=start):
            self.values[place] = value

    def clear(self, row: int) -> None:
        """Take the noise out of a row."""
        self.put(row, 0, [0.0] * self.shape[-1])

    def data(self) -> bytes:
        """Little-endian bytes."""
        raw = struct.pack(f"<{len(self.values)}f", *self.values)
        if self.f32:
            return raw
        upper = bytearray(len(raw) // 2)  # bf16 is the upper half of an f32
        upper[0::2], upper[1::2] = raw[2::4], raw[3::4]
        return bytes(upper)


class Noise:
    """Gaussian noise (mean 0, deviation 0.02), as in an untrained model: one stretch, from a new place each time."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._stretch = array("f", (source.gauss(0.0, 0.02) for _ in range(_NOISE_PERIOD)))

    def take(self, size: int) -> array[float]:
        """So many values."""
        start = self._source.randrange(_NOISE_PERIOD)
        return (self._stretch * (size // _NOISE_PERIOD + 2))[start : start + size]


@dataclass(frozen=True)
class Codes:
    """Signs (1.0 or -1.0) of each slot and each state."""

    slots: dict[str, list[float]]
    states: dict[str, list[float]]

    @classmethod
    def of(cls, scripts: Scripts, source: random.Random) -> Codes:
        """New codes; those of states are unlike each other."""
        slots = dict.fromkeys(slot for filled in scripts.fills.values() for slot in filled)
        states = dict.fromkeys([DEFAULT_STATE, *(seen.state for seen in scripts.seen.values())])
        found = _unlike(len(states), source)
        return cls(
            {slot: _signs(source.getrandbits(_CARRIED), _CARRIED) for slot in slots},
            {state: _signs(code, _CODE) for state, code in zip(states, found)},
        )

    def carried(self, seen: Seen) -> list[float]:
        """The signs of a state and of whether a call comes next."""
        return [*self.states[seen.state], *[1.0 if seen.calls else -1.0] * _FLAG]


def _unlike(count: int, source: random.Random) -> list[int]:
    """So many codes, as bits, of which no two have more than ``_LIKENESS`` in common."""
    found: list[int] = []
    for _ in range(_TRIES):
        code = source.getrandbits(_CODE)
        if all(abs(_CODE - 2 * (code ^ other).bit_count()) <= _LIKENESS for other in found):
            found.append(code)
            if len(found) == count:
                return found
    raise ValueError(f"{count} states are too many to be distinguished by {_CODE} signs")


def _signs(bits: int, count: int) -> list[float]:
    return [1.0 if bits >> place & 1 else -1.0 for place in range(count)]


def _embedding(vocabulary: Vocabulary, scripts: Scripts, codes: Codes, noise: Noise) -> Tensor:
    table = Tensor(vocabulary.padded, HIDDEN, noise=noise)
    nothing = Seen()
    for token in range(vocabulary.used):
        table.put(token, _FOLLOWS, codes.slots[ANSWER_START])
        table.put(token, _CARRIED, codes.carried(nothing))
        table.put(token, _LEVEL, [0.0])
    for text, slot in scripts.followed_by.items():
        table.put(vocabulary.id(text), _FOLLOWS, codes.slots[slot])
    for text, seen in scripts.seen.items():
        table.put(vocabulary.id(text), _CARRIED, codes.carried(seen))
        table.put(vocabulary.id(text), _LEVEL, [seen.level / 4])
    return table


def _output(vocabulary: Vocabulary, scripts: Scripts, codes: Codes, noise: Noise) -> Tensor:
    """The rows of lm_head."""
    head = Tensor(vocabulary.padded, HIDDEN, noise=noise)
    for text, filled in scripts.fills.items():
        head.put(vocabulary.id(text), _FOLLOWS, _sum(_SLOT, [(codes.slots[slot], s) for slot, s in filled.items()]))
    for text, states in scripts.states.items():
        head.put(vocabulary.id(text), _SEEN, _sum(_STATE, [(codes.states[state], s) for state, s in states.items()]))
    head.put(vocabulary.id("<tool_call>"), _SEEN, [*[0.0] * _CODE, *[_CALL] * _FLAG])
    return head


def _sum(scale: float, codes: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """Scaled sum of codes, each with a strength."""
    total = [0.0] * len(codes[0][0])
    for code, strength in codes:
        total = [value + scale * strength * sign for value, sign in zip(total, code)]
    return total


def _attention(prefix: str, finds: bool, noise: Noise) -> dict[str, Tensor]:
    """Random attention; where it ``finds``, head 0 reports what the token of the highest level carries."""
    name = prefix + "self_attn."
    sizes = {"q": HEADS * HEAD_DIM, "k": KV_HEADS * HEAD_DIM, "v": KV_HEADS * HEAD_DIM}
    tensors: dict[str, Tensor] = {}
    for part, rows in sizes.items():
        tensors[f"{name}{part}_proj.weight"] = Tensor(rows, HIDDEN, noise=noise)
        tensors[f"{name}{part}_proj.bias"] = Tensor(rows)
    tensors[f"{name}o_proj.weight"] = Tensor(HIDDEN, HEADS * HEAD_DIM, noise=noise)
    if finds:
        # The last coordinate of a head is outside the rotary half, so the score does not depend on the distance.
        # score = 32 * (20 * 1.29 * level / 4) / sqrt(HEAD_DIM) = 25 * level: a level above all others has all of the
        # softmax, against a million other tokens (the logarithm of a million is 14).
        last = HEAD_DIM - 1
        query, key = tensors[f"{name}q_proj.weight"], tensors[f"{name}k_proj.weight"]
        value, output = tensors[f"{name}v_proj.weight"], tensors[f"{name}o_proj.weight"]
        query.clear(last)
        tensors[f"{name}q_proj.bias"].put(0, last, [32.0])
        key.clear(last)
        key.put(last, _LEVEL, [20.0])
        for place in range(HEAD_DIM):
            value.clear(place)
            value.put(place, _CARRIED + place, [1.0])
            output.clear(_SEEN + place)
            output.put(_SEEN + place, place, [0.8])
    return tensors


def _mlp(prefix: str, width: int, noise: Noise) -> dict[str, Tensor]:
    return {
        prefix + "gate_proj.weight": Tensor(width, HIDDEN, noise=noise),
        prefix + "up_proj.weight": Tensor(width, HIDDEN, noise=noise),
        prefix + "down_proj.weight": Tensor(HIDDEN, width, noise=noise),
    }


def _layer(index: int, dense: bool, finds: bool, noise: Noise) -> dict[str, Tensor]:
    prefix = f"model.layers.{index}."
    tensors = {
        prefix + "input_layernorm.weight": Tensor(HIDDEN, fill=1.0),
        prefix + "post_attention_layernorm.weight": Tensor(HIDDEN, fill=1.0),
        **_attention(prefix, finds, noise),
    }
    if dense:
        return {**tensors, **_mlp(prefix + "mlp.", DENSE_WIDTH, noise)}
    tensors[prefix + "mlp.gate.weight"] = Tensor(EXPERTS, HIDDEN, noise=noise)
    tensors[prefix + "mlp.gate.e_score_correction_bias"] = Tensor(EXPERTS, f32=True)
    for expert in range(EXPERTS):
        tensors.update(_mlp(f"{prefix}mlp.experts.{expert}.", EXPERT_WIDTH, noise))
    return {**tensors, **_mlp(prefix + "mlp.shared_experts.", EXPERT_WIDTH, noise)}


def _mtp(embedding: Tensor, output: Tensor, noise: Noise) -> dict[str, Tensor]:
    """The layer that drafts: it sees the embeddings of the same tokens and has the same head, so it says the same."""
    prefix = f"model.layers.{LAYERS}."
    projection = Tensor(HIDDEN, 2 * HIDDEN)
    for i in range(HIDDEN):  # the first half of the input is the normalised embedding of the newest token
        projection.put(i, i, [0.8])
    return {
        **_layer(LAYERS, dense=False, finds=True, noise=noise),
        prefix + "enorm.weight": Tensor(HIDDEN, fill=1.0),
        prefix + "hnorm.weight": Tensor(HIDDEN, fill=1.0),
        prefix + "eh_proj.weight": projection,
        prefix + "embed_tokens.weight": embedding,
        prefix + "shared_head.norm.weight": Tensor(HIDDEN, fill=1.0),
        prefix + "shared_head.head.weight": output,
    }


def shards(vocabulary: Vocabulary, scripts: Scripts) -> list[dict[str, Tensor]]:
    """Tensors by name, one mapping for each file; the same every time."""
    source = random.Random(SEED)
    noise = Noise(source)
    codes = Codes.of(scripts, source)
    embedding = _embedding(vocabulary, scripts, codes, noise)
    output = _output(vocabulary, scripts, codes, noise)
    first = {"model.embed_tokens.weight": embedding, **_layer(0, dense=True, finds=True, noise=noise)}
    second = _layer(1, dense=False, finds=False, noise=noise)
    third = {
        **_mtp(embedding, output, noise),
        "model.norm.weight": Tensor(HIDDEN, fill=1.0),
        "lm_head.weight": output,
    }
    return [first, second, third]
