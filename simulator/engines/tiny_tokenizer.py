"""The tokenizer of the tiny checkpoint: bytes, whole pieces that only the model produces, and texts it recognises."""

from __future__ import annotations

import json
from pathlib import Path

from simulator.engines.tiny_scripts import END_OF_ANSWER, END_OF_CALLS, END_OF_TEXT, TOOLS_OFFERED, Scripts

_CONTROL = (
    END_OF_TEXT,
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    END_OF_ANSWER,
    "<|assistant|>",
    END_OF_CALLS,
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
RESERVED = (*(chr(code) for code in range(128)), *_CONTROL, *_TAGS)
"""Texts that no piece may have."""


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each of the 256 byte values, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    codes = dict(zip(printable, printable))
    codes.update({b: 256 + i for i, b in enumerate(hidden)})
    return [chr(codes[b]) for b in range(256)]


class Vocabulary:
    """Token ids: 256 bytes, then the pieces the model may say, then control tokens, tags, and the texts it recognises.

    The pieces have no merges, so a prompt is read byte by byte and only the model produces them. A text that is
    recognised is found anywhere in a prompt, as control tokens and tags are; of two at one place the longer one.
    """

    def __init__(self, scripts: Scripts) -> None:
        alphabet = byte_alphabet()
        self.plain = {char: i for i, char in enumerate(alphabet)}
        self.piece_ids: dict[str, int] = {}
        for piece in scripts.pieces:
            spelled = "".join(alphabet[b] for b in piece.encode())
            self.piece_ids[piece] = self.plain[spelled] = len(self.plain)
        self.added = {text: len(self.plain) + i for i, text in enumerate((*_CONTROL, *_TAGS, *scripts.keys))}
        self.used = len(self.plain) + len(self.added)
        self.padded = -(-self.used // 64) * 64

    def id(self, text: str) -> int:
        """The id of a whole piece, control token, tag or recognised text; raises KeyError for anything else."""
        return self.piece_ids[text] if text in self.piece_ids else self.added[text]

    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        return [self.id(token) for token in (END_OF_TEXT, END_OF_ANSWER, END_OF_CALLS)]


def write_tokenizer(out_dir: Path, vocabulary: Vocabulary, max_length: int) -> None:
    """Write the files of the tokenizer. Raises OSError."""
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
    ends = {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    write_json(
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
    write_json(
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
            "model_max_length": max_length,
            "padding_side": "left",
            "remove_space": False,
            **ends,
        },
    )
    write_json(out_dir / "special_tokens_map.json", ends)


def write_json(path: Path, content: object) -> None:
    """Write a readable JSON file."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
