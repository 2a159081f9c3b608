"""Faults of what is said and thought, in every scope that makes sense, and where ``verify`` has to show them."""

from __future__ import annotations

from . import effects as to
from . import stream_effects as stream
from .fault import (
    ALWAYS,
    CALLS,
    EVERYWHERE,
    GENERATED,
    NUMBERS,
    SIX,
    STREAMS,
    SUMS,
    TEXTS,
    THOUGHT,
    TWO,
    WITHOUT_TOOLS,
    spread,
)

TEXT_FAULTS = [
    spread("one token", "one token repeated", (*TEXTS, *CALLS), EVERYWHERE, reply=to.text("!" * 200, "length")),
    spread(
        "a word and no end",
        "the same words repeated",
        (*TEXTS, *CALLS),
        EVERYWHERE,
        reply=to.text("lock " * 80, "length"),
    ),
    spread(
        "a sentence and no end", "the same words repeated", TEXTS, EVERYWHERE, reply=to.text(to.ECHO * 20, "length")
    ),
    spread("salad", "token salad", (*TEXTS, *CALLS), EVERYWHERE, reply=to.text(to.SALAD)),
    spread(
        "control characters", "token salad", TEXTS, EVERYWHERE, reply=to.text("\x00\x07\x1b\x00 Paris \x03\x02\x00")
    ),
    spread("seven", "wrong answer", SUMS, NUMBERS, reply=to.number(lambda _number: 7)),
    spread("one too much", "wrong answer", SUMS, NUMBERS, reply=to.number(lambda number: number + 1)),
    spread("a digit lost", "wrong answer", SUMS, NUMBERS, reply=to.number(lambda number: str(number)[:-1])),
    spread("another capital", "wrong answer", ("chat",), reply=to.text("The capital of the country is Lyon.")),
    spread("the answer twice", "the answer twice", SUMS, WITHOUT_TOOLS, reply=to.doubled),
    spread("roles in the text", "template token", TEXTS, WITHOUT_TOOLS, reply=to.around("<|assistant|>", "<|user|>")),
    spread("a token at the end", "template token", TEXTS, WITHOUT_TOOLS, reply=to.around("", "<|endoftext|>")),
    spread("a token of another family", "template token", TEXTS, (ALWAYS, STREAMS), reply=to.around("", "</s>")),
    spread("an unknown token", "template token", TEXTS, (ALWAYS, STREAMS), reply=to.around("<unk>", "")),
    spread("a switch of the template", "template token", TEXTS, (ALWAYS, STREAMS), reply=to.around("", " /nothink")),
    spread("half a token", "template token", TEXTS, (ALWAYS, STREAMS), reply=to.around("", "<|user")),
    spread("start of the prompt", "template token", TEXTS, WITHOUT_TOOLS, reply=to.around("[gMASK]<sop>", "")),
    spread("first token garbled", "token salad", TEXTS, WITHOUT_TOOLS, reply=to.around("\ufffd\ufffd", "")),
    spread("no text", "no text", TEXTS, WITHOUT_TOOLS, reply=to.empty("")),
    spread("blanks", "no text", TEXTS, WITHOUT_TOOLS, reply=to.empty(" \n\n ")),
    spread("cut off", "cut off", TEXTS, WITHOUT_TOOLS, reply=to.ends("length", with_calls=False)),
    spread("aborted", "finish_reason", TEXTS, WITHOUT_TOOLS, reply=to.ends("abort", with_calls=False)),
    spread("answer of the one before", "wrong answer", SUMS[1:], touches=GENERATED, reply=to.of_the_one_before),
    spread(
        "goes on as the user",
        "template token",
        SUMS,
        NUMBERS,
        reply=to.around("", "\nuser\nWhat is 3 + 4?\nassistant\n7"),
    ),
    spread("answers swapped", "", (), (TWO, SIX), reply=to.of_the_neighbour),
]

THOUGHT_FAULTS = [
    spread(
        "thinks on and on", "thought until max_tokens", ("thinking_on",), (ALWAYS, STREAMS), THOUGHT, reply=to.thinks_on
    ),
    spread(
        "one token in the thought",
        "one token repeated",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought("!" * 300, "length", ""),
    ),
    spread(
        "one token in the thought alone",
        "one token repeated",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought("!" * 300),
    ),
    spread(
        "salad in the thought", "token salad", ("thinking_on",), (ALWAYS, STREAMS), THOUGHT, reply=to.thought(to.SALAD)
    ),
    spread(
        "a thought of something else",
        "token salad",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought("green ideas sleep furiously under a table that nobody has painted since the harvest"),
    ),
    spread(
        "roles in the thought",
        "template token",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought("16 + 27 is 43.<|user|>What else?<|assistant|>"),
    ),
    spread(
        "the thought in the text",
        "template token",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought_in_content("<think>", "</think>"),
    ),
    spread(
        "the end of the thought in the text",
        "template token",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought_in_content("", "</think>"),
    ),
    spread("no thought", "reasoning", ("thinking_on",), (ALWAYS, STREAMS), THOUGHT, reply=to.thought("")),
    spread("all is thought", ("no text", "reasoning"), ("thinking_on",), (ALWAYS, STREAMS), reply=to.all_is_thought),
    spread(
        "thinks anyway", "reasoning", ("chat", "thinking_off", "tool_none"), (ALWAYS, STREAMS), reply=to.thinks_anyway
    ),
    spread(
        "the field of the other engine", "reasoning", ("thinking_on",), (STREAMS,), THOUGHT, events=stream.other_field
    ),
    spread(
        "thoughts sent as text",
        ("reasoning", "wrong answer"),
        ("thinking_on",),
        (STREAMS,),
        THOUGHT,
        events=stream.thoughts_as_text,
    ),
    spread("text sent as thoughts", ("no text", "reasoning"), TEXTS, (STREAMS,), events=stream.text_as_thoughts),
    spread("letters cut in two", "token salad", ("accents",), (STREAMS,), events=stream.split_letters),
    spread(
        "the thought in both fields",
        "reasoning",
        ("thinking_on",),
        (ALWAYS, STREAMS),
        THOUGHT,
        reply=to.thought_in_both,
    ),
]
