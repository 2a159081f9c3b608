"""Texts that an endpoint may answer with, and the name of what is wrong with the others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.glm.fleet.plugins.module_utils.serving import judge
from ansible_collections.glm.fleet.plugins.module_utils.serving.client import (
    Call,
    CheckError,
    Endpoint,
    NotAsked,
    Turn,
)

ENDPOINT = Endpoint("127.0.0.1", 8000, "glm", tool_parser="glm47", reasoning_parser="glm45")
WEATHER = {
    "description": "Weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
EVENT = {
    "description": "Event",
    "parameters": {
        "type": "object",
        "properties": {"title": {}, "start": {"type": "object"}, "guests": {"type": "array"}, "urgent": {}},
    },
}
TOOLS = {"get_weather": WEATHER, "create_event": EVENT, "get_server_time": {"parameters": {"type": "object"}}}
REVIEW = {"title": "Review", "start": {"day": "Friday", "hour": 10}, "guests": ["Ada", "Bob"], "urgent": True}


def fault(turn: Turn, answer: str = "42") -> str:
    with pytest.raises(CheckError) as caught:
        judge.check_answer(turn, answer, ENDPOINT)
    assert caught.value.next_step
    return caught.value.found


def said(content: str, **more: Any) -> Turn:
    return Turn(content=content, finish=more.pop("finish", "stop"), **more)


@pytest.mark.parametrize(
    "content",
    [
        "42",
        "42.0",
        "> 42",
        "42 (17 + 25)",
        "The answer is **42**.\n\nVerification: 42 - 25 = 17",
        "\uff14\uff12",
        " 42\n",
        "42.",
        "**42**",
        "`42`",
        "$42$",
        "\\boxed{42}",
        "The answer is 42.",
        "17 + 25 = 42",
        "17 + 25 = **42**.",
        "答案是42。",
        "Adding 17 and 25: 10 + 20 = 30, 7 + 5 = 12, so the sum is 42.",
    ],
)
def test_a_right_number_however_it_is_written(content: str) -> None:
    judge.check_answer(said(content), "42", ENDPOINT)


@pytest.mark.parametrize("content", ["1,008", "1008", "36 * 28 = 1,008", "1{,}008", "1 008", "1\u202f008"])
def test_thousands_may_be_grouped(content: str) -> None:
    judge.check_answer(said(content), "1008", ENDPOINT)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("!" * 200, "one token repeated in the content"),
        ("42 " + "!" * 200, "one token repeated in the content"),
        ("哈" * 60, "one token repeated in the content"),
        ("\u2581the" * 40, "one token repeated in the content"),
        ("lock " * 80, "the same words repeated in the content"),
        ("The number is 42. " * 20, "the same words repeated in the content"),
        (
            "I will add the numbers one by one, beginning with the tens and then the ones. " * 9,
            "the same words repeated",
        ),
        ("42 \ufffd", "token salad in the content"),
        ("42\x00", "token salad in the content"),
        ("Ġ42", "token salad in the content"),
        ("\ue000 42", "token salad in the content"),
        ("уже 因为 maar لكن 42 ответ 然后 zijn هذا", "token salad in the content"),
        ("}42", "token salad at the beginning of the content"),
        ("42<|user|>", "template token <|user|> in the content"),
        ("[gMASK]<sop>42", "template token [gMASK] in the content"),
        ("</think>42", "template token </think> in the content"),
        ("<tool_call>get_weather", "template token <tool_call> in the content"),
        ("<\uff5cend▁of▁sentence\uff5c>42", "template token <\uff5cend▁of▁sentence\uff5c> in the content"),
        ("42\n\n42", "the answer twice"),
        ("4242", "the answer twice"),
        ("42 42 42", "the answer 3 times"),
        ("424242", "the answer 3 times"),
        ("It is 42. It is 42. It is 42.", "the answer 3 times"),
        ("|>42", "template token |> in the content"),
        ("user|>42", "template token user|> in the content"),
        ("The answer is 42. The answer is 42.", "the answer twice"),
        ("7", "wrong answer '7', not 42"),
        ("x42", "wrong answer"),
        ("-42", "wrong answer"),
        ("42.5", "wrong answer"),
        ("42\nuser\nWhat is 3 + 4?", "template token user in the content"),
        ("42 /nothink", "template token /nothink in the content"),
        ("42</s>", "template token </s> in the content"),
        ("42<|user", "template token <|user in the content"),
        ("142", "wrong answer"),
        ("forty-two", "wrong answer"),
        ("Hello from the model.", "wrong answer"),
        ("41, or 42, or maybe 43", "wrong answer"),
        ("", "no text (finish_reason stop)"),
    ],
)
def test_each_fault_of_a_text_has_its_name(content: str, name: str) -> None:
    assert fault(said(content)).startswith(name)


def test_how_an_answer_ended_counts() -> None:
    assert fault(said("42 and so on", finish="length")).startswith("cut off at max_tokens")
    assert fault(said("42", finish="abort")).startswith("finish_reason abort")
    assert fault(said("42", finish="")).startswith("finish_reason missing")
    assert fault(said("42", calls=[Call("get_weather", "{}")])).startswith("wrong tool call: get_weather")


def test_an_answer_that_is_all_thought() -> None:
    thought = (
        "Let me see. Seventeen plus twenty-five makes 42, but wait, is that so? I had better check each digit again. "
    )
    turn = Turn(reasoning={"reasoning": thought * 2}, finish="length")
    assert fault(turn).startswith(f"thought until max_tokens ({len(thought * 2) - 1} characters")
    found = fault(Turn(reasoning={"reasoning": "17 + 25 = 42"}, finish="stop"))
    assert found.startswith("no text in message.content") and "all of it is reasoning" in found


def test_garbage_in_the_thought_is_named_before_the_empty_answer() -> None:
    assert fault(Turn(reasoning={"reasoning": "!" * 4000}, finish="length")).startswith(
        "one token repeated in the reasoning"
    )


@pytest.mark.parametrize(
    "thought",
    [
        "16 + 27 = 43",
        "Simple addition.",
        "The user asks for a sum. Let me add the tens first: 10 + 20 = 30, then 6 + 7 = 13, in total 43.",
        "用户问的是十六加二十七等于多少\uff0c我先把十位相加\uff0c再把个位相加\uff0c最后得到答案四十三。这个问题很简单\uff0c不需要工具。",
        "We need to compute it carefully, and give only the number as the final output without anything else.",
        "The call is `<tool_call>get_weather`, but 16 + 27 needs no tool.",
        "  16\n+ 27\n------------------------\n  43",
        "1. Analyse the request.\n2. 16 + 27.\n   * 16 + 20 = 36\n   * 36 + 7 = 43\n3. Final answer: 43",
    ],
)
def test_thoughts_that_are_thoughts(thought: str) -> None:
    turn = Turn(content="43", reasoning={"reasoning": thought}, finish="stop")
    judge.check_answer(turn, "43", ENDPOINT)
    judge.check_thought(turn, "What is 16 + 27? Think first.", "43", ENDPOINT)


def test_a_thought_about_something_else_is_salad() -> None:
    thought = "banana ferry quilt Lancaster oblong whistle ninth harbour puddle umbrella groan"
    with pytest.raises(CheckError, match=r"^token salad in the reasoning"):
        judge.check_thought(Turn(content="43", reasoning={"reasoning": thought}), "What is 16 + 27?", "43", ENDPOINT)


def test_a_thought_in_the_wrong_field_or_in_none() -> None:
    with pytest.raises(
        CheckError, match=r"^reasoning: message.reasoning is empty \(finish_reason stop, the text is in"
    ):
        judge.check_thought(Turn(reasoning={"reasoning_content": "16 + 27"}, finish="stop"), "", "", ENDPOINT)
    with pytest.raises(CheckError, match=r"^reasoning: message.reasoning_content has 7 characters"):
        judge.check_no_thought(Turn(reasoning={"reasoning_content": "16 + 27"}))
    judge.check_no_thought(Turn(content="42"))


def wanted(*calls: tuple[str, dict[str, Any]], choice: str = "auto") -> dict[str, Any]:
    return {"choice": choice, "calls": [{"name": name, "arguments": arguments} for name, arguments in calls]}


PARIS = wanted(("get_weather", {"city": "Paris"}))


def calling(*calls: tuple[str, str], content: str = "", finish: str = "tool_calls") -> Turn:
    made = [Call(*call, id=f"call-{number}") for number, call in enumerate(calls)]
    return Turn(content=content, calls=made, finish=finish)


@pytest.mark.parametrize("arguments", ['{"city": "Paris"}', '{"city":"paris, France"}', '{ "city" : "PARIS" }'])
def test_a_right_call(arguments: str) -> None:
    judge.check_calls(calling(("get_weather", arguments), content="\n"), PARIS, TOOLS, ENDPOINT)
    judge.check_calls(calling(("get_weather", arguments), content="I'll look that up."), PARIS, TOOLS, ENDPOINT)


def test_right_calls_of_other_shapes() -> None:
    event = '{"title": "Review", "start": {"day": "Friday", "hour": 10}, "guests": ["Ada", "Bob"], "urgent": true}'
    judge.check_calls(calling(("create_event", event)), wanted(("create_event", REVIEW)), TOOLS, ENDPOINT)
    judge.check_calls(calling(("get_server_time", "{}")), wanted(("get_server_time", {})), TOOLS, ENDPOINT)
    both = wanted(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"}))
    turn = calling(("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Oslo"}'))
    judge.check_calls(turn, both, TOOLS, ENDPOINT)
    for choice in ("required", "named"):
        turn = calling(("get_weather", '{"city": "Paris"}'), finish="stop")
        judge.check_calls(turn, {**PARIS, "choice": choice}, TOOLS, ENDPOINT)


def test_one_of_several_calls_proves_nothing() -> None:
    both = wanted(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"}))
    with pytest.raises(NotAsked, match="made 1 call at once, not 2"):
        judge.check_calls(calling(("get_weather", '{"city": "Rome"}')), both, TOOLS, ENDPOINT)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        (calling(content="It is sunny.", finish="stop"), "no tool call (finish_reason stop), text 'It is sunny.'"),
        (calling(content='{"name": "get_weather"}', finish="stop"), "no tool call"),
        (calling(content="<tool_call>get_weather", finish="stop"), "template token <tool_call> in the content"),
        (calling(finish="length"), "cut off at max_tokens before a tool call"),
        (calling(("get_wether", '{"city": "Paris"}')), "wrong tool call: 'get_wether'"),
        (calling(("get_weatherget_weather", '{"city": "Paris"}')), "wrong tool call"),
        (calling(("", '{"city": "Paris"}')), "wrong tool call"),
        (
            calling(("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Paris"}')),
            "wrong tool call: 2 calls",
        ),
        (calling(("get_weather", "")), "arguments are not JSON"),
        (calling(("get_weather", '{"city": "Par')), "arguments are not JSON"),
        (calling(("get_weather", '{"city": "Paris"}{"city": "Paris"}')), "arguments are not JSON"),
        (calling(("get_weather", "[]")), "arguments are not an object"),
        (calling(("get_weather", '"{}"')), "arguments are not an object"),
        (calling(("get_weather", "{}")), "arguments lack city"),
        (calling(("get_weather", '{"city": 75}')), "arguments have city as '75', not \"Paris\""),
        (calling(("get_weather", '{"city": "London"}')), "arguments have city as"),
        (calling(("get_weather", '{"city": null}')), "arguments have city as"),
        (calling(("get_weather", '{"city": "Paris", "day": 1}')), "arguments have day, which the tool does not"),
        (calling(("get_weather", '{"city": "<arg_value>Paris"}')), "template token <arg_value> in the arguments"),
        (calling(("get_weather", '{"city": "Paris"}'), content="</think>"), "template token </think> in the content"),
        (calling(("get_weather", '{"city": "Paris"}'), finish="stop"), "finish_reason stop after a tool call"),
        (calling(("get_weather", '{"city": "Paris"}'), finish=""), "finish_reason missing after a tool call"),
    ],
)
def test_each_fault_of_a_call_has_its_name(turn: Turn, name: str) -> None:
    with pytest.raises(CheckError) as caught:
        judge.check_calls(turn, PARIS, TOOLS, ENDPOINT)
    assert caught.value.found.startswith(name) and caught.value.next_step


@pytest.mark.parametrize("ids", [("", "b"), ("a", "a")])
def test_calls_without_ids_of_their_own_cannot_be_answered(ids: tuple[str, str]) -> None:
    both = wanted(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"}))
    turn = calling(("get_weather", '{"city": "Rome"}'), ("get_weather", '{"city": "Oslo"}'))
    for call, name in zip(turn.calls, ids):
        call.id = name
    with pytest.raises(CheckError, match=r"^wrong tool call: 2 with the ids"):
        judge.check_calls(turn, both, TOOLS, ENDPOINT)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"start": '{"day": "Friday", "hour": 10}'}, "arguments have start as str, not as an object"),
        ({"start": {"day": "Friday", "hour": "10"}}, "arguments have start.hour as"),
        ({"start": {"day": "Friday", "hour": 11}}, "arguments have start.hour as '11', not 10"),
        ({"guests": "Ada, Bob"}, "arguments have guests as"),
        ({"guests": ["Ada"]}, "arguments have guests as"),
        ({"urgent": "true"}, "arguments have urgent as"),
        ({"urgent": 1}, "arguments have urgent as '1', not true"),
    ],
)
def test_nested_arguments_keep_their_types(change: dict[str, Any], name: str) -> None:
    turn = calling(("create_event", json.dumps({**REVIEW, **change})))
    with pytest.raises(CheckError) as caught:
        judge.check_calls(turn, wanted(("create_event", REVIEW)), TOOLS, ENDPOINT)
    assert caught.value.found.startswith(name)


def test_advice_names_the_parser_of_the_plan() -> None:
    for content, option in (("<tool_call>x", "--tool-call-parser glm47"), ("</think>x", "--reasoning-parser glm45")):
        with pytest.raises(CheckError) as caught:
            judge.check_text(content, "the content", ENDPOINT)
        assert option in caught.value.next_step
