"""Lessons as tokens: the pieces a text is said in, what follows each, and what each token of a prompt says about it.

A piece stands in one place of one text only, so the last piece decides the next one. Four places are the same in all
lessons: after ``<think>``, ``</think>``, ``<tool_call>`` and ``</tool_call>``. There the lesson that was recognised
decides. A slot is such a place, or the one place of a piece; a token *fills* slots and is *followed by* one. Lessons
with the same text share its pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from simulator.engines.lessons import ANYTHING_FOUND, DEFAULT, LATER_QUESTION, Call, Lesson

TOOLS_OFFERED = "<|tools|>"
END_OF_TEXT, END_OF_ANSWER, END_OF_CALLS = "<|endoftext|>", "<|user|>", "<|observation|>"

Slot = str
THOUGHT_START, ANSWER_START, CALL_START, AFTER_CALL = (
    "after <think>",
    "after </think>",
    "after <tool_call>",
    "after call",
)
"""The shared slots; every token that is followed by nothing else is followed by ``ANSWER_START``."""

DEFAULT_STATE = "default"
ALL_CALLED = "all called"
_TOOLS_LEVEL = 1
_WORD = re.compile(r"<[^<>]*>| ?[^\s<]+|\s")
_PARTS = 4


@dataclass(frozen=True)
class Seen:
    """What a token says about the rest of the answer: which lesson it is, and whether a call comes next."""

    state: str = DEFAULT_STATE
    calls: bool = False
    level: int = 0
    """Of several in the context the highest wins."""


@dataclass
class Scripts:
    """All that the weights have to hold, by the text of the token."""

    pieces: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Texts of prompts that are one token each."""
    followed_by: dict[str, Slot] = field(default_factory=dict)
    fills: dict[str, dict[Slot, float]] = field(default_factory=dict)
    """How strongly a token fills a slot: below 1 it is said only where an engine's grammar forbids the better one."""
    states: dict[str, dict[str, float]] = field(default_factory=dict)
    """How strongly a token belongs to a state, for the tokens that fill shared slots."""
    seen: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, lessons: Sequence[Lesson], reserved: Sequence[str]) -> Scripts:
        """The scripts of the default lesson and these. ``reserved``: texts of other tokens, which no piece may have.

        Raises ValueError where lessons cannot be distinguished.
        """
        _check_apart(lessons)
        made = cls()
        made._structure()
        cutter = _Cutter(reserved)
        for lesson in (DEFAULT, *lessons):
            made._teach(lesson, cutter)
        made.pieces = cutter.pieces
        return made

    def _structure(self) -> None:
        self.followed_by.update({"<think>": THOUGHT_START, "<tool_call>": CALL_START, "</tool_call>": AFTER_CALL})
        self.fills["<tool_call>"] = {ANSWER_START: 1.0, AFTER_CALL: 1.0}
        # vLLM's grammar of a required call ends with nothing but the tokenizer's own end of text.
        self.fills[END_OF_CALLS], self.fills[END_OF_TEXT] = {AFTER_CALL: 1.0}, {AFTER_CALL: 0.9}
        self.seen[TOOLS_OFFERED] = Seen(DEFAULT_STATE, calls=True, level=_TOOLS_LEVEL)
        self.seen["<tool_response>"] = Seen(level=ANYTHING_FOUND)

    def _teach(self, lesson: Lesson, cutter: _Cutter) -> None:
        state = lesson.recognised or DEFAULT_STATE
        if lesson.recognised:
            self.keys.append(lesson.recognised)
            self.seen[lesson.recognised] = Seen(state, bool(lesson.calls), lesson.level)
        self._say(cutter.cut(lesson.thought), THOUGHT_START, "</think>", state)
        if lesson.answer:
            self._say(cutter.cut(lesson.answer), ANSWER_START, END_OF_ANSWER, state)
        if lesson.calls:
            self._call(lesson.calls, state, cutter)
            # SGLang asks for a required call as JSON.
            as_json = cutter.cut(lesson.calls_as_json())
            self._say(as_json, ANSWER_START, END_OF_TEXT, state, strength=0.6)

    def _call(self, calls: Sequence[Call], state: str, cutter: _Cutter) -> None:
        for number, call in enumerate(calls, start=1):
            more = number < len(calls)
            pieces = cutter.cut(call.tagged(), before=state if more else "")
            self._say(pieces, CALL_START, "</tool_call>", state)
            state = f"{state} after call {number}" if more else ALL_CALLED
            self.seen[pieces[0]] = Seen(state, more, LATER_QUESTION + number)

    def _say(self, pieces: Sequence[str], start: Slot, end: str, state: str, strength: float = 1.0) -> None:
        self.fills[pieces[0]] = {start: 1.0}
        self.states.setdefault(pieces[0], {})[state] = strength
        for piece, following in zip(pieces, pieces[1:]):
            self.fills[following] = {following: 1.0}
            self.followed_by[piece] = following
        self.fills.setdefault(end, {})[end] = 1.0
        self.followed_by[pieces[-1]] = end


def _check_apart(lessons: Sequence[Lesson]) -> None:
    """No text may be recognised within another one, nor in a thought, which can come back in a later prompt."""
    texts = [text for lesson in lessons for text in (lesson.recognised, lesson.thought, lesson.answer)]
    for lesson in lessons:
        within = sum(lesson.recognised in text for text in texts)
        if within != 1:
            raise ValueError(f"{lesson.recognised!r} must stand in one text of all lessons, its own; found {within}")


class _Cutter:
    """Cuts texts into pieces that no other text has."""

    def __init__(self, reserved: Sequence[str]) -> None:
        self._taken = set(reserved)
        self._cut: dict[tuple[str, str], list[str]] = {}

    @property
    def pieces(self) -> list[str]:
        """Every piece, in the order in which they were cut."""
        return [piece for some in self._cut.values() for piece in some]

    def cut(self, text: str, before: str = "") -> list[str]:
        """At most four pieces, at the ends of words or tags; the same ones for the same text before the same.

        Raises ValueError where no new piece can be cut.
        """
        if (text, before) not in self._cut:
            self._cut[text, before] = self._new(text)
        return self._cut[text, before]

    def _new(self, text: str) -> list[str]:
        for some in (*_grouped(_WORD.findall(text), _PARTS), *_grouped(list(text), 2)):
            if len(set(some)) == len(some) and not self._taken.intersection(some):
                self._taken.update(some)
                return some
        raise ValueError(f"every way to cut {text!r} has a piece that another text has")


def _grouped(words: Sequence[str], most: int) -> Iterator[list[str]]:
    """The ways to join words into up to ``most`` neighbouring groups: the most and the most even first."""
    for parts in range(min(most, len(words)), 0, -1):
        for shift in range(len(words) // parts + 1):
            ends = [len(words) * part // parts for part in range(1, parts)]
            ends = sorted({min(len(words) - 1, end + shift) for end in ends})
            bounds = [0, *ends, len(words)]
            yield ["".join(words[a:b]) for a, b in zip(bounds, bounds[1:])]
