"""What a healthy model says: it reads the conversation, adds numbers up, calls tools that it is offered, and thinks."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_OPERATORS: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_SUM = re.compile(r"(\d+) ([-+*]) (\d+)")
_HIDDEN = re.compile(r"number of the locker is (\d+)")
# What a text asks for, and the call that does it; a group that is missing is a call less.
_FACTS = {
    "capital of France": "Paris is the capital of France.",
    "planet": "We live on Earth, the third planet from the Sun.",
    "odd number": "Yes.",
    "coffee": "Café",
}


@dataclass
class Call:
    """A call of a tool; ``arguments`` are an object, or a text that is sent as it is."""

    name: str
    arguments: dict[str, Any] | str

    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments, ensure_ascii=False)


@dataclass
class Reply:
    """What is said; ``finish`` is the reason of an engine that has no word of its own for a named tool."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str = "stop"


@dataclass(frozen=True)
class Manner:
    """How a healthy model words things: ``number`` of the sum and its value, thoughts in Chinese or in English.

    ``indent``: blanks before each argument of a call, which then has a line of its own.
    """

    number: str = "{value}"
    indent: int | None = None
    chinese: bool = False
    always_thinks: bool = False
    before_calls: str = ""
    after_facts: str = ""


def said(message: dict[str, Any]) -> str:
    """The text of a message, which may come in parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def question(body: dict[str, Any]) -> str:
    """The last line that a user said."""
    users = [said(message) for message in body["messages"] if message["role"] == "user"]
    return users[-1].strip().splitlines()[-1] if users and users[-1].strip() else ""


def thinks(body: dict[str, Any], manner: Manner) -> bool:
    return manner.always_thinks or bool((body.get("chat_template_kwargs") or {}).get("enable_thinking", True))


def answer(body: dict[str, Any], manner: Manner) -> Reply:
    """The whole reply to the body of a request for a chat."""
    ask = question(body)
    calls = _calls(body, ask)
    reply = Reply(calls=calls, finish="tool_calls" if calls else "stop")
    working = "A tool does that."
    if calls:
        reply.content = manner.before_calls
        if manner.indent:
            reply.calls = [Call(call.name, json.dumps(call.arguments, indent=manner.indent)) for call in calls]
    else:
        reply.content, working = _text(body, ask, manner)
    if thinks(body, manner):
        reply.reasoning = f"用户的问题是:“{ask}”。{working}" if manner.chinese else f"The user asks — “{ask}” {working}"
    return reply


def _text(body: dict[str, Any], ask: str, manner: Manner) -> tuple[str, str]:
    """The text of an answer without calls, and how it was found."""
    results = [json.loads(said(message)) for message in body["messages"] if message["role"] == "tool"]
    if results and "degrees_celsius" in results[-1]:
        degrees, city = results[-1]["degrees_celsius"], results[-1].get("city")
        working = f"The tool says {degrees} degrees."
        if body["messages"][-1]["role"] == "tool":
            return f"It is {degrees} °C in {city}, and the sky is clear.", working
        return manner.number.format(sum="degrees", value=degrees), working
    if "number of the locker?" in ask:
        hidden = _HIDDEN.search("\n".join(said(message) for message in body["messages"]))
        value = hidden.group(1) if hidden else "unknown"
        return manner.number.format(sum="locker", value=value), f"The text says {value}."
    found = _SUM.search(ask)
    if found:
        value = _OPERATORS[found.group(2)](int(found.group(1)), int(found.group(3)))
        return manner.number.format(sum=found.group(), value=value), f"{found.group()} = {value}."
    for words, fact in _FACTS.items():
        if words in ask:
            return fact + manner.after_facts, f"That is known: {fact}"
    return "I am here to help; please say more about that.", "That is a plain question."


def _calls(body: dict[str, Any], ask: str) -> list[Call]:
    choice = body.get("tool_choice", "auto")
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or []}
    if not tools or choice == "none" or body["messages"][-1]["role"] == "tool":
        return []
    if isinstance(choice, dict):
        tools = {choice["function"]["name"]: tools[choice["function"]["name"]]}
    wanted = [call for call in _wanted(ask) if call.name in tools]
    if not wanted and choice != "auto":
        return [Call(next(iter(tools)), {})]
    return wanted


def _wanted(ask: str) -> list[Call]:
    event = re.search(r"event (\w+) into the calendar on (\w+) at (\d+) with the guests? ([^.]+)\.", ask)
    if event:
        title, day, hour, guests = event.groups()
        start = {"day": day, "hour": int(hour)}
        return [Call("create_event", {"title": title, "start": start, "guests": re.split(r", | and ", guests)})]
    money = re.search(r"Convert ([\d.]+) ([A-Z]{3}) into ([A-Z]{3})", ask)
    if money:
        amount, source, target = money.groups()
        return [Call("convert_money", {"amount": json.loads(amount), "source": source, "target": target})]
    light = re.search(r"light in the (\w+) (on|off).* (\d+) percent", ask)
    if light:
        room, state, percent = light.groups()
        return [Call("set_light", {"room": room, "is_on": state == "on", "percent": int(percent)})]
    weather = re.search(r"weather (?:is )?in (\w+)(?: and in (\w+))?", ask)
    if weather:
        return [Call("get_weather", {"city": city}) for city in weather.groups() if city]
    return [Call("get_server_time", {})] if "time" in ask else []
