"""How streams alone go wrong: each function takes the events of a healthy engine and returns those of a broken one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any, Union

from .answers import answer
from .state import Asked, usage_of
from .wire import Act, Body, Event, whole

Sent = Callable[[Asked, list[Event]], list[Event]]


def deltas(change: Callable[[Body], Union[Body, None]]) -> Sent:
    """Another delta, or none, for every delta of a stream."""

    def effect(_asked: Asked, events: list[Event]) -> list[Event]:
        found: list[Event] = []
        for event in events:
            if not isinstance(event, dict) or not event["choices"] or event["choices"][0]["finish_reason"]:
                found.append(event)
                continue
            changed = change(copy.deepcopy(event["choices"][0]["delta"]))
            if changed is not None:
                found.append({**event, "choices": [{**event["choices"][0], "delta": changed}]})
        return found

    return effect


def twice(_asked: Asked, events: list[Event]) -> list[Event]:
    """Every delta of text twice."""
    return [one for event in events for one in ([event, event] if _has(event, "content") else [event])]


def growing(_asked: Asked, events: list[Event]) -> list[Event]:
    """All text up to now in every delta."""
    text = ""
    found: list[Event] = []
    for event in events:
        if isinstance(event, dict) and _has(event, "content"):
            text += event["choices"][0]["delta"]["content"]
            delta = {**event["choices"][0]["delta"], "content": text}
            event = {**event, "choices": [{**event["choices"][0], "delta": delta}]}
        found.append(event)
    return found


def without(kind: str, which: slice) -> Sent:
    """Some of the deltas of a kind (``content``, ``reasoning``, ``tool_calls``) are lost."""

    def effect(asked: Asked, events: list[Event]) -> list[Event]:
        name = asked.dialect.reasoning_field if kind == "reasoning" else kind
        places = [at for at, event in enumerate(events) if _has(event, name)]
        lost = set(places[which])
        return [event for at, event in enumerate(events) if at not in lost]

    return effect


def where_called(effect: Sent) -> Sent:
    """Only in streams that have a call."""
    return lambda asked, events: effect(asked, events) if any(_has(event, "tool_calls") for event in events) else events


def turned_round(_asked: Asked, events: list[Event]) -> list[Event]:
    """The deltas of text come in the wrong order."""
    places = [at for at, event in enumerate(events) if _has(event, "content")]
    swapped = list(events)
    for at, other in zip(places, reversed(places)):
        swapped[at] = events[other]
    return swapped


def no_finish(_asked: Asked, events: list[Event]) -> list[Event]:
    return [
        {**event, "choices": [{**event["choices"][0], "finish_reason": None}]}
        if isinstance(event, dict) and event["choices"]
        else event
        for event in events
    ]


def after_half(instead: list[Event]) -> Sent:
    """Half of a stream, and then something else."""
    return lambda _asked, events: [*events[: len(events) // 2], *instead]


def flattened(asked: Asked) -> tuple[int, Body]:
    """A whole answer where a stream was asked for."""
    said = answer(asked.body, asked.dialect.manner)
    return 200, whole(said, asked.body, usage_of(asked, said), asked.dialect, asked.number)


def slowly(_asked: Asked, events: list[Event]) -> list[Event]:
    return [one for event in events for one in (event, Act.PAUSE)]


def only_pings(_asked: Asked, _events: list[Event]) -> list[Event]:
    return [": ping", Act.PAUSE] * 30


def hang_at_once(_asked: Asked, _events: list[Event]) -> list[Event]:
    return [Act.HANG]


def split_letters(_asked: Asked, events: list[Event]) -> list[Event]:
    """Letters of several bytes that a detokenizer cut in two."""

    def cut(value: Any) -> Any:
        return re.sub(r"[^\x00-\x7f]", "\ufffd\ufffd", value) if isinstance(value, str) else value

    return deltas(lambda delta: {name: cut(value) for name, value in delta.items()})(_asked, events)


def other_field(asked: Asked, events: list[Event]) -> list[Event]:
    """Thoughts in the field of the other engine."""
    right = asked.dialect.reasoning_field
    wrong = "reasoning" if right == "reasoning_content" else "reasoning_content"
    return deltas(lambda delta: {wrong if name == right else name: value for name, value in delta.items()})(
        asked, events
    )


def thoughts_as_text(asked: Asked, events: list[Event]) -> list[Event]:
    right = asked.dialect.reasoning_field

    def moved(delta: Body) -> Body:
        return {**delta, right: None, "content": delta[right]} if delta.get(right) else delta

    return deltas(moved)(asked, events)


def text_as_thoughts(asked: Asked, events: list[Event]) -> list[Event]:
    right = asked.dialect.reasoning_field

    def moved(delta: Body) -> Body:
        return {**delta, "content": None, right: delta["content"]} if delta.get("content") else delta

    return deltas(moved)(asked, events)


def pieces_of_calls(change: Callable[[Body], Body]) -> Sent:
    """Another piece for every piece of a call."""

    def changed(delta: Body) -> Body:
        found = delta.get("tool_calls")
        return {**delta, "tool_calls": [change(piece) for piece in found]} if found else delta

    return deltas(changed)


def named(name: str | None) -> Callable[[Body], Body]:
    """Another name in the first piece of a call."""

    def change(piece: Body) -> Body:
        if piece["function"].get("name"):
            piece["function"]["name"] = name
        return piece

    return change


def identified(name: str | None) -> Callable[[Body], Body]:
    """Another id in the first piece of a call."""
    return lambda piece: {**piece, "id": name} if piece.get("id") else piece


def second_call_lost(_asked: Asked, events: list[Event]) -> list[Event]:
    return [event for event in events if not _has(event, "tool_calls") or _pieces(event)[0]["index"] == 0]


def _pieces(event: Event) -> list[Body]:
    assert isinstance(event, dict)
    found: list[Body] = event["choices"][0]["delta"]["tool_calls"]
    return found


def _has(event: Event, name: str) -> bool:
    return isinstance(event, dict) and bool(event["choices"]) and bool(event["choices"][0]["delta"].get(name))
