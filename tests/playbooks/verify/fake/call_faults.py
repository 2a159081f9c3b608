"""Faults of tool calls, and where ``verify`` has to show them."""

from __future__ import annotations

from . import effects as to
from .fault import ALWAYS, CALLED, CALLS, DIFFERS, GIVEN, LONG_TOOLS, STREAMS, TWO, WHOLE, spread

CALL_FAULTS = [
    spread(
        "no arguments", "arguments", GIVEN, (ALWAYS, STREAMS, LONG_TOOLS), CALLED, reply=to.arguments(lambda _given: {})
    ),
    spread(
        "arguments are no JSON",
        "arguments",
        CALLS,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.arguments(lambda _given: '{"city": '),
    ),
    spread(
        "other values",
        "arguments",
        GIVEN,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.each(lambda _value: "Atlantis"),
    ),
    spread(
        "an object as text",
        "arguments",
        ("tool_nested",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.each(lambda value: str(value) if isinstance(value, dict) else value),
    ),
    spread(
        "a list as text",
        "arguments",
        ("tool_nested",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.each(lambda value: str(value) if isinstance(value, list) else value),
    ),
    spread(
        "numbers as text",
        "arguments",
        ("tool_nested",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.each(
            lambda value: {key: str(one) for key, one in value.items()} if isinstance(value, dict) else value
        ),
    ),
    spread(
        "the last argument lost",
        "arguments",
        ("tool_nested",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.arguments(lambda given: dict([*given.items()][:-1])),
    ),
    spread(
        "encoded twice",
        "arguments",
        CALLS,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.arguments(to.encoded_twice),
    ),
    spread(
        "a token in an argument",
        ("template token", "arguments"),
        GIVEN,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.each(lambda value: f"{value}</arg_value>"),
    ),
    spread(
        "arguments as an object", "arguments", CALLS, (WHOLE,), (*CALLED, "*_stream"), body=to.whole_message(to.objects)
    ),
    spread(
        "two calls in one",
        ("arguments", "no tool call", "wrong tool call"),
        ("tool_several",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.calls(to.merged),
    ),
    spread(
        "only the first call", DIFFERS, ("tool_several",), (STREAMS,), CALLED, reply=to.calls(lambda found: found[:1])
    ),
    spread(
        "a call too many",
        "wrong tool call",
        CALLS,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.calls(lambda found: [*found, to.Call("delete_everything", {})]),
    ),
    spread(
        "another tool",
        "wrong tool call",
        CALLS,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.calls(lambda found: [to.Call("get_whether", call.arguments) for call in found]),
    ),
    spread(
        "name and argument glued",
        "template token",
        CALLS,
        (ALWAYS, STREAMS, LONG_TOOLS),
        CALLED,
        reply=to.calls(lambda found: [to.Call(f"{call.name}<arg_key>city", {}) for call in found]),
    ),
    spread(
        "calls as text", "template token <tool_call>", CALLS, (ALWAYS, STREAMS, LONG_TOOLS), CALLED, reply=to.as_text
    ),
    spread("calls described", "no tool call", CALLS, (ALWAYS, STREAMS, LONG_TOOLS), CALLED, reply=to.described),
    spread(
        "calls end with stop",
        "finish_reason",
        ("tool_call", "tool_nested"),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.ends("stop", with_calls=True),
    ),
    spread(
        "required ignored",
        "no tool call",
        ("tool_required",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.where_choice("required", to.described),
    ),
    spread(
        "named ignored",
        "wrong tool call",
        ("tool_named",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.where_choice("named", to.calls(lambda _found: [to.Call("get_server_time", {})])),
    ),
    spread(
        "named never ends",
        ("arguments", "cut off"),
        ("tool_named",),
        (ALWAYS, STREAMS),
        CALLED,
        reply=to.where_choice("named", to.never_ends),
    ),
    spread(
        "markup where no tool may be",
        "template token <tool_call>",
        ("tool_none",),
        (ALWAYS, STREAMS),
        ("tool_none*",),
        reply=to.where_choice("none", to.around(to.TURNED_OFF.format(city="Paris"), "")),
    ),
    spread(
        "a call where no tool may be",
        ("wrong tool call", "no text"),
        ("tool_none",),
        (ALWAYS, STREAMS),
        ("tool_none*",),
        reply=to.where_choice("none", to.calls_anyway),
    ),
    spread("no id", "wrong tool call", CALLS, (WHOLE,), CALLED, body=to.whole_message(to.ids(None))),
    spread(
        "one id for both calls",
        "wrong tool call",
        ("tool_several",),
        (WHOLE,),
        CALLED,
        body=to.whole_message(to.ids("call_1")),
    ),
]

# What a call can suffer when others are under way; the gate's own questions with tools are asked one by one.
CALLS_UNDER_LOAD = [
    fault
    for name, found, effect in (
        ("no arguments", "arguments", to.arguments(lambda _given: {})),
        ("arguments are no JSON", "arguments", to.arguments(lambda _given: '{"city": ')),
        ("other values", "arguments", to.each(lambda _value: "Atlantis")),
        ("another tool", "wrong tool call", to.calls(lambda found: [to.Call("get_whether", found[0].arguments)])),
        ("calls as text", "template token", to.as_text),
        ("calls described", "no tool call", to.described),
        ("one token", "one token repeated", to.text("!" * 200, "length")),
    )
    for fault in spread(name, (found,), (), (TWO,), (), reply=effect)
]
