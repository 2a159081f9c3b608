"""How an engine goes wrong: each function takes what a healthy one would say and returns what a broken one says."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .answers import Call, Reply, answer
from .state import Asked, thoughts_of
from .wire import Body, Event

Said = Callable[[Asked, Reply], Reply]
Sent = Callable[[Asked, list[Event]], list[Event]]
TURNED_OFF = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>{city}</arg_value></tool_call>"
SALAD = "\ufffd\ufffd слово ब्यौरा 数据 zq \ufffd кот 的 ngx ∂ \ufffdт ख़ 了 lrp на"
ECHO = "I will check that for you again now. "


# ----- what is said


def text(words: str, finish: str = "stop") -> Said:
    """Only these words, wherever something is said, in thoughts too."""

    def effect(_asked: Asked, said: Reply) -> Reply:
        return Reply(words, words if said.reasoning else "", [], finish)

    return effect


def around(before: str, after: str) -> Said:
    """The right text with something before and after it; calls stay."""
    return lambda _asked, said: replace(said, content=f"{before}{said.content}{after}") if not said.calls else said


def number(change: Callable[[int], Any]) -> Said:
    """Every number of the text (not of calls) is another one."""

    def effect(_asked: Asked, said: Reply) -> Reply:
        return replace(said, content=re.sub(r"\d+", lambda found: str(change(int(found.group()))), said.content))

    return effect


def doubled(_asked: Asked, said: Reply) -> Reply:
    return replace(said, content=f"{said.content}\n\n{said.content}") if said.content else said


def thinks_on(asked: Asked, said: Reply) -> Reply:
    """Thoughts that go on and on and never come to an answer."""
    if not said.reasoning:
        return said
    steps = ["So", "Wait, no.", "Let me look at it from the other side:", "On the other hand,", "Maybe I should check:"]
    ways = ["carry the one", "split it into tens", "count it on a line", "write it down", "start from the larger one"]
    thoughts = [f"{steps[at % 5]} step {at * 7 % 61}, {ways[at * 3 % 5]}, {at * at}." for at in range(120)]
    return Reply("", f"{said.reasoning} {' '.join(thoughts)}", [], "length")


def thought(words: str, finish: str = "stop", content: str | None = None) -> Said:
    """Only thoughts are these words; ``content`` replaces the answer after them."""

    def effect(_asked: Asked, said: Reply) -> Reply:
        if not said.reasoning:
            return said
        if content is None:
            return replace(said, reasoning=words)
        return Reply(content, words, [], finish)

    return effect


def thought_in_content(before: str, after: str) -> Said:
    """The parser does not find the thought."""

    def effect(_asked: Asked, said: Reply) -> Reply:
        if not said.reasoning:
            return said
        return replace(said, content=f"{before}{said.reasoning}{after}{said.content}", reasoning="")

    return effect


def thought_in_both(asked: Asked, said: Reply) -> Reply:
    """The thought is where it belongs, and once more before the answer."""
    return replace(said, content=f"{said.reasoning}\n\n{said.content}") if said.reasoning and not said.calls else said


def all_is_thought(_asked: Asked, said: Reply) -> Reply:
    """The parser never finds the end of the thought."""
    return replace(said, reasoning=f"{said.reasoning}{said.content}", content="") if not said.calls else said


def thinks_anyway(_asked: Asked, said: Reply) -> Reply:
    return replace(said, reasoning=said.reasoning or f"The answer is {said.content or 'a call'}")


def ends(reason: str, with_calls: bool | None = None) -> Said:
    """Another finish_reason, only with calls or only without."""
    return lambda _asked, said: replace(said, finish=reason) if with_calls in (None, bool(said.calls)) else said


def empty(words: str) -> Said:
    return lambda _asked, said: replace(said, content=words, reasoning="", calls=[], finish="stop")


def of_the_neighbour(asked: Asked, _said: Reply) -> Reply:
    """The answer to what another one asked at the same time."""
    at = next(at for at, body in enumerate(asked.crowd) if body is asked.body)
    return answer(asked.crowd[(at + 1) % len(asked.crowd)], asked.dialect.manner)


def of_the_one_before(asked: Asked, said: Reply) -> Reply:
    return asked.earlier[-1] if asked.earlier else said


def once_repeated(effect: Said) -> Said:
    """Only for a prompt that is in the cache."""
    return lambda asked, said: effect(asked, said) if asked.repeats else said


def result_ignored(asked: Asked, said: Reply) -> Reply:
    """The template loses the results of tools."""
    if not any(message["role"] == "tool" for message in asked.body["messages"]):
        return said
    return replace(said, content="I do not have access to live weather data.", calls=[], finish="stop")


# ----- calls


def arguments(change: Callable[[dict[str, Any]], dict[str, Any] | str]) -> Said:
    """Other arguments in every call."""

    def effect(_asked: Asked, said: Reply) -> Reply:
        calls = [replace(call, arguments=change(copy.deepcopy(json.loads(call.text())))) for call in said.calls]
        return replace(said, calls=calls)

    return effect


def encoded_twice(given: dict[str, Any]) -> str:
    return json.dumps(json.dumps(given))


def each(change: Callable[[Any], Any]) -> Said:
    """Another value for every argument."""
    return arguments(lambda given: {name: change(value) for name, value in given.items()})


def calls(change: Callable[[list[Call]], list[Call]]) -> Said:
    return lambda _asked, said: replace(said, calls=change(said.calls)) if said.calls else said


def merged(found: list[Call]) -> list[Call]:
    return [Call(found[0].name, "".join(call.text() for call in found))] if len(found) > 1 else found


def as_text(_asked: Asked, said: Reply) -> Reply:
    """The parser does not find the calls."""
    if not said.calls:
        return said
    leaked = "".join(TURNED_OFF.format(city=next(iter(_given(call).values()), "")) for call in said.calls)
    return replace(said, content=leaked, calls=[], finish="stop")


def described(_asked: Asked, said: Reply) -> Reply:
    return replace(said, content="I would look that up.", calls=[], finish="stop") if said.calls else said


def where_choice(choice: str, effect: Said) -> Said:
    """Only where ``tool_choice`` is that one."""

    def chosen(asked: Asked, said: Reply) -> Reply:
        given = asked.body.get("tool_choice", "auto")
        return effect(asked, said) if choice == ("named" if isinstance(given, dict) else given) else said

    return chosen


def calls_anyway(asked: Asked, said: Reply) -> Reply:
    return Reply("", said.reasoning, [Call("get_weather", {"city": "Paris"})], "tool_calls")


def never_ends(_asked: Asked, said: Reply) -> Reply:
    """Constrained decoding that finds no end: white space until max_tokens."""
    return replace(
        said, calls=[replace(call, arguments=call.text()[:-1] + "\n" * 200) for call in said.calls], finish="length"
    )


def _given(call: Call) -> dict[str, Any]:
    given = json.loads(call.text())
    return given if isinstance(given, dict) else {}


# ----- the rest


def whole_message(change: Callable[[Body], Body]) -> Callable[[Asked, Body], Body]:
    """Another message in an answer that is not streamed."""

    def effect(_asked: Asked, body: Body) -> Body:
        choice = body["choices"][0]
        return {**body, "choices": [{**choice, "message": change(copy.deepcopy(choice["message"]))}]}

    return effect


def objects(message: Body) -> Body:
    """Arguments as an object, not as a text."""
    for call in message.get("tool_calls") or []:
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return message


def ids(name: str | None) -> Callable[[Body], Body]:
    """Another id for every call."""

    def change(message: Body) -> Body:
        for call in message.get("tool_calls") or []:
            call["id"] = name
        return message

    return change


def thoughts_dropped(asked: Asked, usage: Body) -> Body:
    return {**usage, "prompt_tokens": usage["prompt_tokens"] - thoughts_of(asked.body)}


def nothing_cached(_asked: Asked, usage: Body) -> Body:
    return {**usage, "prompt_tokens_details": {"cached_tokens": 0} if usage["prompt_tokens_details"] else None}


def metric(pattern: str, value: float) -> Callable[[dict[str, float]], dict[str, float]]:
    """Another value for the metrics whose names match."""
    return lambda values: {name: value if re.search(pattern, name) else old for name, old in values.items()}


def small_pool(values: dict[str, float]) -> dict[str, float]:
    """A KV cache of 1,024 tokens."""
    shrunk = metric("max_total_num_tokens", 1024)(values)
    return {name.replace('num_gpu_blocks="100000"', 'num_gpu_blocks="64"'): value for name, value in shrunk.items()}
